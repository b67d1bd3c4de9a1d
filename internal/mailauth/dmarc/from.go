package dmarc

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"onward/internal/address"
	"onward/internal/message"
)

// Limits of one message's From.
const (
	maxCandidates = 8   // domains whose policy is asked for
	maxAddresses  = 128 // looked at, each reading of a field counted
)

// A From is what the From fields of a message say about its author.
type From struct {
	// Domain is the author domain (RFC 9989 5.3.1), "" when not exactly one
	// domain can be meant. It is there for several addresses of one domain, and
	// for a malformed field in which nobody can find another domain.
	Domain address.Domain

	// Mailbox is the author's address, zero unless the field is well-formed and
	// has exactly one.
	Mailbox address.Mailbox

	// Candidates are all domains that some reader may take for the author's,
	// each once, at most eight; TooMany says that there were more.
	Candidates []address.Domain
	TooMany    bool

	// Nobody says that no reader can find an address in From: there is none, or
	// one field without "@", as bounces have ("<>", "MAILER-DAEMON").
	Nobody bool

	Fields  int    // how many From fields there are
	Mistake string // what is wrong, for people; "" when all is well. It may stand beside a Domain

	looked int // addresses so far, of maxAddresses
}

// ParseFrom reads the From fields among fields, in time linear in their size.
//
// The address list is read by RFC 5322 3.4 with groups (RFC 6854), comments and
// quoted strings; a display name is never taken for an address. Where a field
// departs from that, every reader recovers in its own way, so whatever follows
// an "@" is a candidate then, also inside encoded words. So is every hop of a
// source route, which some readers show.
func ParseFrom(fields []message.Field) From {
	f := From{Nobody: true}
	for _, field := range fields {
		if field.Is("From") {
			f.Fields++
			f.read(field.Value())
			f.Nobody = f.Fields == 1 && !strings.ContainsAny(field.Value(), "@\uff20") && !strings.Contains(field.Value(), "=?")
		}
	}
	switch {
	case f.Fields == 0:
		f.Mistake = "there is no From field"
	case f.Fields > 1:
		f.Mistake = fmt.Sprintf("there are %d From fields", f.Fields)
		f.Mailbox = address.Mailbox{}
	case f.TooMany:
		f.Mistake = "From names too many addresses or domains"
	case f.Domain == "" && len(f.Candidates) > 1:
		f.Mistake = "From names several domains"
	case f.Domain == "" && f.Mistake == "":
		f.Mistake = "From names no domain"
	}
	if f.Fields > 1 || f.TooMany {
		f.Domain = ""
	}
	return f
}

// read adds one field. Domain is set when that field has one meaning.
func (f *From) read(value string) {
	l := addressList{rest: value, limit: maxAddresses - f.looked}
	err := l.read()
	f.looked += l.count
	for _, m := range l.domains {
		f.add(m)
	}
	certain := true
	if err != nil {
		f.Mistake = "From is malformed: " + err.Error()
		certain = f.guess(value)
	} else if l.count == 1 {
		f.Mailbox = l.mailbox
	}
	if certain && len(f.Candidates) == 1 && !f.TooMany {
		f.Domain = f.Candidates[0]
	}
}

// add notes a candidate.
func (f *From) add(d address.Domain) {
	switch {
	case slices.Contains(f.Candidates, d):
	case len(f.Candidates) == maxCandidates:
		f.TooMany = true
	default:
		f.Candidates = append(f.Candidates, d)
	}
}

// guess takes every domain after an "@" for a candidate, as it stands and with
// encoded words decoded. It reports false when an "@" is followed by anything
// else: then somebody may read something there that we cannot.
func (f *From) guess(value string) bool {
	certain := f.scan(value)
	if strings.Contains(value, "=?") {
		decoded, ok := decodeWords(value)
		return f.scan(decoded) && certain && ok
	}
	return certain
}

// scan adds the domain after each "@" of text, within what may be looked at.
func (f *From) scan(text string) bool {
	certain := true
	for f.looked < maxAddresses {
		f.looked++
		_, rest, found := strings.Cut(text, "@")
		if !found {
			return certain
		}
		text = rest
		end := strings.IndexFunc(text, func(c rune) bool { return c <= ' ' || strings.ContainsRune("()<>[]:;@\\,\"'?=|", c) })
		if end < 0 {
			end = len(text)
		}
		if rest := text[end:]; rest != "" && !strings.ContainsRune(" \t>,;:(", rune(rest[0])) {
			certain = false // another reader may go on where this one ends
		}
		d, err := parseDomain(text[:end])
		if err != nil {
			certain = false
			continue
		}
		f.add(d)
	}
	f.TooMany = f.TooMany || strings.Contains(text, "@")
	return certain
}

// parseDomain reads a domain name in either form and any case, with or without
// the final dot (DM1).
func parseDomain(s string) (address.Domain, error) {
	d, err := address.ParseDomain(strings.TrimSuffix(s, "."))
	if err == nil && d.IsLiteral() {
		return "", errors.New("an address literal is no domain")
	}
	return d, err
}
