// Package address holds e-mail addresses as values that are parsed once, at
// the edge, and never taken apart again.
//
// A Mailbox has an unquoted local part and a Domain in ASCII form; String puts
// back whatever quoting the wire needs. A ReversePath is a Mailbox or null.
// Parsing is strict (RFC 5321 4.1.2, RFC 6531 3.3) and refuses what two
// programs could read in two ways: control characters, comments, empty or
// doubled dots, an unquoted "@". What cannot be parsed cannot be sent, so no
// text from the network reaches an SMTP command or a header in raw form.
package address

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// Limits of RFC 5321 4.5.3.1, in octets.
const (
	MaxLocal  = 64
	MaxDomain = 255
	MaxPath   = 254 // of "local@domain": a path is 256 with its angle brackets
)

// Errors that callers answer differently. All others mean plain bad syntax.
var (
	ErrTooLong = errors.New("address is too long")
	ErrNoUTF8  = errors.New("address is not valid UTF-8")
)

// A Domain is a domain name in lower-case ASCII form (A-labels, no trailing
// dot), or an address literal such as "[192.0.2.1]".
type Domain string

// ParseDomain reads a domain name in either form, or an address literal.
func ParseDomain(s string) (Domain, error) {
	if strings.HasPrefix(s, "[") {
		return parseLiteral(s)
	}
	if !utf8.ValidString(s) {
		return "", ErrNoUTF8
	}
	if len(s) > 4*MaxDomain || longLabel(s) { // before work that grows with it, with the square of a label
		return "", fmt.Errorf("domain %.40q…: %w", s, ErrTooLong)
	}
	ascii := strings.ToLower(s)
	if !isASCII(s) {
		var err error
		if ascii, err = idna.Lookup.ToASCII(s); err != nil {
			return "", fmt.Errorf("domain %q: not a valid internationalised name", s)
		}
	}
	if len(ascii) > MaxDomain {
		return "", fmt.Errorf("domain %.40q…: %w", s, ErrTooLong)
	}
	labels := strings.Split(ascii, ".")
	for _, label := range labels {
		if err := checkLabel(label); err != nil {
			return "", fmt.Errorf("domain %q: %w", s, err)
		}
	}
	// A numeric top label is an address in disguise (RFC 3696 2), and "@1" is
	// how stored senders are marked inside our SRS addresses.
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return "", fmt.Errorf("domain %q: ends in a number", s)
	}
	return Domain(ascii), nil
}

// longLabel reports whether a label of s has more characters than could fit in
// any form.
func longLabel(s string) bool {
	run := 0
	for _, c := range s {
		if run++; strings.ContainsRune(".\u3002\uff0e\uff61", c) { // the dots of RFC 5895 2
			run = 0
		}
		if run > 63 {
			return true
		}
	}
	return false
}

// Registered returns the domain that somebody registered and that d is or is
// below, by the public suffix list: example.co.uk for a.b.example.co.uk. What is
// no such domain is returned as it is.
func (d Domain) Registered() Domain {
	if d.IsLiteral() {
		return d
	}
	registered, err := publicsuffix.EffectiveTLDPlusOne(string(d))
	if err != nil {
		return d
	}
	return Domain(registered)
}

// checkLabel takes letters, digits, hyphens inside, and the underscore that
// real mail hosts use against RFC 1123.
func checkLabel(label string) error {
	switch {
	case label == "":
		return errors.New("empty label")
	case len(label) > 63:
		return errors.New("label longer than 63 octets")
	case label[0] == '-' || label[len(label)-1] == '-':
		return errors.New("label begins or ends with a hyphen")
	}
	for i := range len(label) {
		if c := label[i]; !isAlnum(c) && c != '-' && c != '_' {
			return fmt.Errorf("character %q", c)
		}
	}
	return nil
}

// parseLiteral reads "[192.0.2.1]" or "[IPv6:2001:db8::1]" (RFC 5321 4.1.3).
func parseLiteral(s string) (Domain, error) {
	inner, ok := strings.CutSuffix(s[1:], "]")
	if !ok {
		return "", fmt.Errorf("address literal %q: no closing bracket", s)
	}
	v6 := len(inner) > 5 && strings.EqualFold(inner[:5], "IPv6:")
	if v6 {
		inner = inner[5:]
	}
	ip, err := netip.ParseAddr(inner)
	if err != nil || ip.Zone() != "" || ip.Is6() != v6 {
		return "", fmt.Errorf("address literal %q: not an IP address", s)
	}
	if v6 {
		return Domain("[IPv6:" + ip.String() + "]"), nil
	}
	return Domain("[" + ip.String() + "]"), nil
}

// IsLiteral reports whether d is an address literal.
func (d Domain) IsLiteral() bool { return strings.HasPrefix(string(d), "[") }

// String returns the ASCII form.
func (d Domain) String() string { return string(d) }

// Unicode returns the form for people, or the ASCII form where there is none.
func (d Domain) Unicode() string {
	if u, err := idna.Display.ToUnicode(string(d)); err == nil {
		return u
	}
	return string(d)
}

// A Mailbox is local@domain. Local is unquoted and keeps its case; compare
// local parts of our own domains with Fold.
type Mailbox struct {
	Local  string
	Domain Domain
}

// Parse reads "local@domain", the local part as a dot-string or quoted string.
func Parse(s string) (Mailbox, error) {
	local, rest, err := cutLocal(s)
	if err != nil {
		return Mailbox{}, fmt.Errorf("address %.80q: %w", s, err)
	}
	if rest == "" || rest[0] != '@' {
		return Mailbox{}, fmt.Errorf("address %.80q: no @domain", s)
	}
	domain, err := ParseDomain(rest[1:])
	if err != nil {
		return Mailbox{}, err
	}
	m := Mailbox{Local: local, Domain: domain}
	if len(m.localOnWire()) > MaxLocal || len(m.String()) > MaxPath {
		return Mailbox{}, fmt.Errorf("address %.80q…: %w", s, ErrTooLong)
	}
	return m, nil
}

// ParsePath reads what stands between the angle brackets of RCPT TO: a mailbox,
// with a source route parsed and ignored (DESIGN.md 9.1, RFC 5321 4.1.1.3), or
// "Postmaster" alone, whose Domain is then empty (RFC 5321 4.5.1).
func ParsePath(s string) (Mailbox, error) {
	if strings.ToLower(s) == "postmaster" { // not EqualFold, which takes "ſ" for "s"
		return Mailbox{Local: s}, nil
	}
	if strings.HasPrefix(s, "@") {
		route, rest, ok := strings.Cut(s, ":")
		if !ok {
			return Mailbox{}, fmt.Errorf("address %.80q: source route without a colon", s)
		}
		for _, hop := range strings.Split(route, ",") {
			name, ok := strings.CutPrefix(hop, "@")
			if _, err := ParseDomain(name); !ok || err != nil {
				return Mailbox{}, fmt.Errorf("address %.80q: bad source route", s)
			}
		}
		s = rest
	}
	return Parse(s)
}

// cutLocal splits s after its local part, and unquotes that.
func cutLocal(s string) (local, rest string, err error) {
	if !utf8.ValidString(s) {
		return "", "", ErrNoUTF8
	}
	if strings.ContainsFunc(s, deceives) {
		return "", "", errors.New("a character that is not to be seen")
	}
	if strings.HasPrefix(s, `"`) {
		return cutQuoted(s)
	}
	end := strings.IndexByte(s, '@')
	if end < 0 {
		end = len(s)
	}
	local = s[:end]
	for _, atom := range strings.Split(local, ".") {
		if atom == "" {
			return "", "", errors.New("empty local part or misplaced dot")
		}
	}
	for i := range len(local) {
		if c := local[i]; !isAtext(c) && c != '.' {
			return "", "", fmt.Errorf("character %q needs a quoted local part", c)
		}
	}
	return local, s[end:], nil
}

// deceives reports whether a character beyond ASCII is a control, ends a line, or
// turns the direction of what stands around it.
func deceives(r rune) bool {
	return r >= utf8.RuneSelf && (unicode.Is(unicode.Cc, r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r))
}

// cutQuoted reads a quoted string (RFC 5321 4.1.2 Quoted-string). The empty
// one is refused: nothing can be done with it that is not trouble.
func cutQuoted(s string) (local, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '"' && b.Len() == 0:
			return "", "", errors.New("empty quoted local part")
		case c == '"':
			return b.String(), s[i+1:], nil
		case c == '\\' && i+1 < len(s):
			i++
			c = s[i]
		}
		if c < ' ' || c == 0x7f {
			return "", "", errors.New("control character in local part")
		}
		b.WriteByte(c)
	}
	return "", "", errors.New("quoted local part does not end")
}

// String returns the address as SMTP writes it between angle brackets, the
// local part quoted where it must be. A bare postmaster has no "@".
func (m Mailbox) String() string {
	if m.Domain == "" {
		return m.Local
	}
	return m.localOnWire() + "@" + string(m.Domain)
}

// localOnWire returns the local part, quoted when it is not a dot-string.
func (m Mailbox) localOnWire() string {
	if !m.Quoted() {
		return m.Local
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(m.Local) {
		if c := m.Local[i]; c == '"' || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(m.Local[i])
	}
	b.WriteByte('"')
	return b.String()
}

// Quoted reports whether the local part needs quotes on the wire.
func (m Mailbox) Quoted() bool {
	local, rest, err := cutLocal(m.Local)
	return err != nil || rest != "" || local != m.Local
}

// IsASCII reports whether the address can be sent without SMTPUTF8 (RFC 6531).
func (m Mailbox) IsASCII() bool { return isASCII(m.Local) }

// Fold returns the address with its local part in lower case, for comparing
// addresses whose owner ignores case, as we do and every target we know does.
func (m Mailbox) Fold() Mailbox {
	return Mailbox{Local: strings.ToLower(m.Local), Domain: m.Domain}
}

// A ReversePath is the envelope sender: a Mailbox, or null ("<>").
type ReversePath struct {
	Mailbox
}

// ParseReversePath reads what stands between the angle brackets of MAIL FROM.
func ParseReversePath(s string) (ReversePath, error) {
	if s == "" {
		return ReversePath{}, nil
	}
	m, err := ParsePath(s)
	if err == nil && m.Domain == "" {
		err = errors.New("sender has no domain")
	}
	return ReversePath{m}, err
}

// IsNull reports whether this is the null sender of bounces (RFC 5321 4.5.5).
func (p ReversePath) IsNull() bool { return p.Mailbox == Mailbox{} }

// isAtext is RFC 5322 3.2.3, with RFC 6531's UTF-8.
func isAtext(c byte) bool {
	return isAlnum(c) || c >= utf8.RuneSelf || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
