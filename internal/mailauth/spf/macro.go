package spf

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxExpansion is the most octets that macros may grow to: far more than a name
// (RFC 7208 7.3 cuts that to 253) or a reply has room for.
const maxExpansion = 4096

var errMacro = errors.New(`"%" begins no macro; a literal one is written "%%"`)

// A macro is one macro-expand (RFC 7208 7.1).
type macro struct {
	literal    string // of %%, %_ and %-; the rest is then empty
	letter     byte   // in lower case
	escape     bool   // the letter was a capital: escape for a URL
	parts      int    // keep so many from the right; 0: all
	reverse    bool
	delimiters string
}

// cutMacro reads the macro that s begins with.
func cutMacro(s string) (m macro, rest string, err error) {
	if len(s) < 2 {
		return m, "", errMacro
	}
	switch s[1] {
	case '%':
		m.literal = "%"
	case '_':
		m.literal = " "
	case '-':
		m.literal = "%20"
	case '{':
		body, rest, ok := strings.Cut(s[2:], "}")
		if !ok {
			return m, "", errors.New(`a macro has no "}"`)
		}
		m, ok = parseMacro(body)
		if !ok {
			return m, "", fmt.Errorf("%.40q is no macro", s[:len(s)-len(rest)])
		}
		return m, rest, nil
	default:
		return m, "", errMacro
	}
	return m, s[2:], nil
}

// parseMacro reads what stands between the braces.
func parseMacro(body string) (m macro, ok bool) {
	if body == "" || strings.IndexByte("slodiphcrtv", body[0]|0x20) < 0 || !isLetter(body[0]) {
		return m, false
	}
	m = macro{letter: body[0] | 0x20, escape: body[0] < 'a', delimiters: "."}
	rest := strings.TrimLeft(body[1:], "0123456789")
	if digits := body[1 : len(body)-len(rest)]; digits != "" {
		if m.parts, _ = strconv.Atoi(digits); m.parts == 0 { // a count out of range is the largest int
			return m, false
		}
	}
	if rest != "" && rest[0]|0x20 == 'r' {
		m.reverse, rest = true, rest[1:]
	}
	if strings.Trim(rest, ".-+,/_=") != "" {
		return m, false
	}
	if rest != "" {
		m.delimiters = rest
	}
	return m, true
}

// transform applies everything but the letter to its value.
func (m macro) transform(value string) string {
	if m.parts > 0 || m.reverse || m.delimiters != "." {
		parts := splitAny(value, m.delimiters)
		if m.reverse {
			slices.Reverse(parts)
		}
		if m.parts > 0 && m.parts < len(parts) {
			parts = parts[len(parts)-m.parts:]
		}
		value = strings.Join(parts, ".")
	}
	if m.escape {
		value = strings.ReplaceAll(url.QueryEscape(value), "+", "%20") // RFC 3986 2.3
	}
	return value
}

// splitAny splits s at every octet of delimiters. Empty parts count.
func splitAny(s, delimiters string) []string {
	var parts []string
	for {
		i := strings.IndexAny(s, delimiters)
		if i < 0 {
			return append(parts, s)
		}
		parts = append(parts, s[:i])
		s = s[i+1:]
	}
}

// checkMacros checks a macro-string: visible ASCII, and macros that a term may
// have. %{c}, %{r} and %{t} are for explanations only (RFC 7208 7.2).
func checkMacros(s string) error {
	for s != "" {
		if s[0] <= ' ' || s[0] > '~' {
			return errors.New("a character that is not visible ASCII")
		}
		if s[0] != '%' {
			s = s[1:]
			continue
		}
		m, rest, err := cutMacro(s)
		if err != nil {
			return err
		}
		if m.letter != 0 && strings.IndexByte("crt", m.letter) >= 0 {
			return fmt.Errorf("%%{%c} is for explanations only", m.letter)
		}
		s = rest
	}
	return nil
}

// checkDomainSpec checks a macro-string that ends in a macro or in a top label
// (RFC 7208 7.1).
func checkDomainSpec(s string) error {
	if err := checkMacros(s); err != nil {
		return err
	}
	end := s // after the last macro
	for i := 0; i < len(s); {
		if s[i] != '%' {
			i++
			continue
		}
		_, end, _ = cutMacro(s[i:])
		i = len(s) - len(end)
	}
	if end == "" && s != "" {
		return nil
	}
	dot := strings.LastIndexByte(strings.TrimSuffix(end, "."), '.')
	if dot < 0 || !isTopLabel(strings.TrimSuffix(end, ".")[dot+1:]) {
		return errors.New("needs a domain name of two labels or more")
	}
	return nil
}

// isTopLabel takes letters, digits and inner hyphens, but not digits alone.
func isTopLabel(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && !isDigit(c) && (c != '-' || i == 0 || i == len(s)-1) {
			return false
		}
	}
	return strings.Trim(s, "0123456789") != ""
}

// expand replaces the macros in s, whose syntax may be bad, for the record of
// domain.
func (e *evaluation) expand(ctx context.Context, s, domain string) (string, error) {
	var b strings.Builder
	for {
		literal, _, found := strings.Cut(s, "%")
		b.WriteString(literal)
		if b.Len() > maxExpansion {
			return "", fmt.Errorf("grows to more than %d octets", maxExpansion)
		}
		if !found {
			return b.String(), nil
		}
		m, rest, err := cutMacro(s[len(literal):])
		if err != nil {
			return "", err
		}
		if m.letter == 0 {
			b.WriteString(m.literal)
		} else {
			b.WriteString(m.transform(e.value(ctx, m.letter, domain)))
		}
		s = rest
	}
}

// value returns what a macro letter stands for (RFC 7208 7.2).
func (e *evaluation) value(ctx context.Context, letter byte, domain string) string {
	switch letter {
	case 's':
		return e.sender.Local + "@" + string(e.sender.Domain)
	case 'l':
		return e.sender.Local
	case 'o':
		return string(e.sender.Domain)
	case 'd':
		return domain
	case 'i':
		return nibbles(e.in.IP)
	case 'p':
		return e.nameOfClient(ctx, domain)
	case 'v':
		if e.in.IP.Is6() {
			return "ip6"
		}
		return "in-addr"
	case 'h':
		return e.in.Helo
	case 'c':
		return e.in.IP.String()
	case 'r':
		if e.in.Hostname == "" {
			return "unknown"
		}
		return e.in.Hostname
	default: // t
		return strconv.FormatInt(e.in.Now.Unix(), 10)
	}
}

// nibbles returns an IPv4 address as usual, and an IPv6 address as 32 hex
// digits with dots between them. The suite has them in capitals.
func nibbles(ip netip.Addr) string {
	if ip.Is4() {
		return ip.String()
	}
	digits := strings.ToUpper(hex.EncodeToString(ip.AsSlice()))
	return strings.Join(strings.Split(digits, ""), ".")
}
