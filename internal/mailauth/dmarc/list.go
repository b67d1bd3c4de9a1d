package dmarc

import (
	"errors"
	"strings"

	"onward/internal/address"
)

// An addressList reads the address-list of RFC 5322 3.4 from rest, once and
// without recursion. What it has found before an error is valid.
type addressList struct {
	rest    string
	count   int // addresses
	limit   int // of count
	domains []address.Domain
	mailbox address.Mailbox // the last one
	inGroup bool
}

// A stray or missing character, said in a way that quotes nothing.
var (
	errComment   = errors.New("a comment or quoted string does not end")
	errNoAddress = errors.New("a name without an address")
	errNoName    = errors.New("an address without a local part")
	errAfter     = errors.New("text after an address that is not a comment")
	errBracket   = errors.New("an address in angle brackets is incomplete")
	errDomain    = errors.New("no usable domain after an @")
	errGroup     = errors.New("a group inside a group, or one that does not end")
	errCharacter = errors.New("a character that must be quoted")
	errMany      = errors.New("too many addresses")
)

// read reads to the end, or to the first mistake. Empty elements between commas
// are allowed (RFC 5322 4.4).
func (l *addressList) read() error {
	for {
		if err := l.skip(); err != nil {
			return err
		}
		switch {
		case l.rest == "" && l.inGroup:
			return errGroup
		case l.rest == "":
			return nil
		case l.take(','):
		case l.inGroup && l.take(';'):
			l.inGroup = false
			if err := l.separator(); err != nil {
				return err
			}
		default:
			if err := l.element(); err != nil {
				return err
			}
		}
	}
}

// element reads a mailbox and what may follow it, or the name of a group.
func (l *addressList) element() error {
	local, name, err := l.words()
	switch {
	case err != nil:
		return err
	case l.take('<'):
		err = l.angle()
	case l.take('@'):
		err = l.domain(local)
	case l.take(':') && name && !l.inGroup:
		l.inGroup = true
		return nil
	case l.rest != "" && strings.IndexByte(":;", l.rest[0]) >= 0:
		return errGroup
	case l.rest == "" || l.rest[0] == ',':
		return errNoAddress
	default:
		return errCharacter
	}
	if err != nil {
		return err
	}
	return l.separator()
}

// angle reads the rest of an address in angle brackets.
func (l *addressList) angle() error {
	local, _, err := l.words()
	if err != nil {
		return err
	}
	if !l.take('@') {
		return errBracket
	}
	if err := l.domain(local); err != nil {
		return err
	}
	if !l.take('>') {
		return errBracket
	}
	return nil
}

// separator makes sure that an address is followed by the next, or by nothing.
func (l *addressList) separator() error {
	if err := l.skip(); err != nil {
		return err
	}
	if l.rest == "" || l.rest[0] == ',' || l.inGroup && l.rest[0] == ';' {
		return nil
	}
	return errAfter
}

// words reads atoms, dots and quoted strings as long as there are any. Together
// they are a name, or a local part: then local is that part as it stands, empty
// when two words have no dot between them.
func (l *addressList) words() (local string, found bool, err error) {
	var b strings.Builder
	isLocal, afterWord := true, false
	for {
		if err := l.skip(); err != nil {
			return "", found, err
		}
		word, err := l.word()
		if err != nil {
			return "", found, err
		}
		if word == "" {
			break
		}
		isLocal = isLocal && (word == "." || !afterWord)
		afterWord = word != "."
		found = true
		b.WriteString(word)
	}
	if !isLocal {
		return "", found, nil
	}
	return b.String(), found, nil
}

// word takes one dot, atom or quoted string with its quotes; "" if there is
// none. Octets above 127 are part of atoms (RFC 6532 3.2, and old habit).
func (l *addressList) word() (string, error) {
	end := 0
	switch {
	case l.rest == "":
	case l.rest[0] == '.':
		end = 1
	case l.rest[0] == '"':
		end = quotedEnd(l.rest)
		if end < 0 {
			return "", errComment
		}
	default:
		for end < len(l.rest) && isAtext(l.rest[end]) {
			end++
		}
	}
	word := l.rest[:end]
	l.rest = l.rest[end:]
	return word, nil
}

// quotedEnd returns the length of the quoted string at the start of s, or -1.
func quotedEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// domain reads what follows the "@" of an address and counts the address.
// Comments and space may stand around the dots (RFC 5322 4.4).
func (l *addressList) domain(local string) error {
	if local == "" {
		return errNoName
	}
	if l.count == l.limit {
		return errMany
	}
	l.count++
	name, _, err := l.words()
	if err != nil {
		return err
	}
	d, err := parseDomain(name)
	if err != nil {
		return errDomain
	}
	l.domains = append(l.domains, d)
	// A local part that SMTP could not carry names nobody, but its domain counts.
	l.mailbox, _ = address.Parse(local + "@" + string(d))
	return nil
}

// take takes c when it is next.
func (l *addressList) take(c byte) bool {
	if l.rest == "" || l.rest[0] != c {
		return false
	}
	l.rest = l.rest[1:]
	return true
}

// skip takes white space and comments, which nest.
func (l *addressList) skip() error {
	depth := 0
	for i := 0; i < len(l.rest); i++ {
		switch c := l.rest[i]; {
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case c == '\\' && depth > 0:
			i++
		case depth == 0 && c != ' ' && c != '\t':
			l.rest = l.rest[i:]
			return nil
		}
	}
	l.rest = ""
	if depth > 0 {
		return errComment
	}
	return nil
}

// isAtext is RFC 5322 3.2.3 and everything above ASCII.
func isAtext(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c >= 0x80:
		return true
	}
	return strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}
