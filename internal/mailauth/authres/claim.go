package authres

import (
	"bytes"
	"strings"

	"onward/internal/address"
	"onward/internal/message"
)

// Claims reports whether f is a result field that somebody could take for one
// that the host called id has added: Authentication-Results with that
// authserv-id in any spelling (R1, RFC 8601 5), or a Received-SPF that names it
// as the receiver (R5, RFC 7208 9.1).
//
// A field whose authserv-id is clearly another is left alone (R4). One that
// cannot be read counts as ours when our name, or anything that might decode
// to it, stands in it.
func Claims(f message.Field, id address.Domain) bool {
	_, body, _ := bytes.Cut(f.Raw, []byte(":"))
	switch {
	case f.Is(Name):
		return claimsResults(string(body), id)
	case f.Is("Received-SPF"):
		return claimsReceived(string(body), id)
	}
	return false
}

func claimsResults(body string, id address.Domain) bool {
	s := scanner{rest: body}
	if said, err := s.id(); err == nil && isName(said) {
		return names(said, id)
	}
	plain := strip(body)
	return strings.Contains(plain, "=?") || // an encoded word (RFC 2047)
		strings.IndexFunc(plain, func(r rune) bool { return r > '~' }) >= 0 ||
		strings.Contains(plain, id.String()) ||
		strings.Contains(strip(withoutComments(body)), id.String())
}

// withoutComments returns s without comments, closed or not, wherever they are.
func withoutComments(s string) string {
	var b strings.Builder
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && depth > 0:
			i++
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth == 0:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// isName reports whether s can only be read as the name it is.
func isName(s string) bool {
	_, err := address.ParseDomain(strings.TrimRight(s, "."))
	return err == nil || isDomain(s)
}

// names reports whether s is the domain id, as A-labels or U-labels, in any
// case, with or without a final dot.
func names(s string, id address.Domain) bool {
	s = strings.TrimRight(s, ".")
	if strings.EqualFold(s, id.String()) {
		return true
	}
	d, err := address.ParseDomain(s)
	return err == nil && d == id
}

// strip takes away what a careless reader may overlook: case, white space,
// quotes, escapes and control characters.
func strip(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, strings.ToLower(s))
}

// sender are the words before a name of the host that the mail came from: a
// forwarder's name stands there in fields of others.
var sender = map[string]bool{"helo": true, "envelope-from": true, "of": true}

// claimsReceived reports whether body speaks of id in any other place than
// where the sender is named.
func claimsReceived(body string, id address.Domain) bool {
	before := ""
	body = strings.NewReplacer(`"`, "", `\`, "", "\x00", "").Replace(body)
	for word := range strings.FieldsFuncSeq(body, func(r rune) bool {
		return r <= ' ' || r == 0x7f || strings.ContainsRune(";()<>,:=", r)
	}) {
		if !sender[before] && names(word, id) {
			return true
		}
		before = strings.ToLower(word)
	}
	return false
}
