package spf

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// maxRecord is the longest record read, in octets. RFC 7208 3.4 advises 450;
// the longest that flattening services publish are a tenth of this.
const maxRecord = 16 << 10

// A Term is one directive or modifier of a record (RFC 7208 4.6.1).
type Term struct {
	Text   string       // as published
	Name   string       // "all", "include", ..., in lower case
	Result Result       // for the client that matches; empty for a modifier
	Target string       // domain-spec, macros not expanded; empty: the record's own domain
	Prefix netip.Prefix // of ip4 and ip6
	Bits4  int          // of a and mx: how much of an IPv4 address counts, 0 to 32
	Bits6  int          // and of an IPv6 address, 0 to 128
}

// IsModifier reports whether t is name=value.
func (t Term) IsModifier() bool { return t.Result == "" }

// AsksDNS reports whether t counts towards MaxLookups (RFC 7208 4.6.4).
func (t Term) AsksDNS() bool {
	switch t.Name {
	case "include", "a", "mx", "ptr", "exists", "redirect":
		return true
	}
	return false
}

// isRecord reports whether a TXT record is one of SPF (RFC 7208 4.5).
func isRecord(txt string) bool {
	version, _, _ := strings.Cut(txt, " ")
	return strings.EqualFold(version, "v=spf1")
}

// Parse reads a record that begins with "v=spf1". It returns the terms it
// understands, in order, and one error for each that it does not. A record
// with any error is void as a whole: permerror (F7, RFC 7208 4.6).
func Parse(record string) ([]Term, []error) {
	if len(record) > maxRecord {
		return nil, []error{fmt.Errorf("the record is longer than %d octets", maxRecord)}
	}
	if !isRecord(record) {
		return nil, []error{errors.New(`does not begin with "v=spf1" and a space`)}
	}
	var terms []Term
	var errs []error
	seen := make(map[string]bool)
	for text := range strings.SplitSeq(record[len("v=spf1"):], " ") {
		if text == "" {
			continue
		}
		t, err := parseTerm(text)
		if err == nil && (t.Name == "redirect" || t.Name == "exp") {
			if seen[t.Name] {
				err = errors.New("is there twice") // RFC 7208 6
			}
			seen[t.Name] = true
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%.200q: %w", text, err))
			continue
		}
		terms = append(terms, t)
	}
	return terms, errs
}

// find returns the modifier of that name.
func find(terms []Term, name string) (Term, bool) {
	for _, t := range terms {
		if t.Name == name {
			return t, true
		}
	}
	return Term{}, false
}

var qualifiers = map[byte]Result{'+': Pass, '-': Fail, '~': SoftFail, '?': Neutral}

func parseTerm(text string) (Term, error) {
	t := Term{Text: text, Result: Pass, Bits4: 32, Bits6: 128}
	if i := strings.IndexAny(text, "=:/"); i >= 0 && text[i] == '=' {
		return parseModifier(t, text[:i], text[i+1:])
	}
	if r, ok := qualifiers[text[0]]; ok {
		t.Result, text = r, text[1:]
	}
	end := strings.IndexAny(text, ":/")
	if end < 0 {
		end = len(text)
	}
	t.Name = strings.ToLower(text[:end])
	return t.arguments(text[end:])
}

// parseModifier reads name=value. Unknown ones are allowed, if well formed.
func parseModifier(t Term, name, value string) (Term, error) {
	t.Name, t.Result, t.Target = strings.ToLower(name), "", value
	if !isModifierName(name) {
		return t, errors.New("the name of a modifier is letters, digits, and - _ . after a letter")
	}
	if t.Name == "redirect" || t.Name == "exp" {
		return t, checkDomainSpec(value)
	}
	return t, checkMacros(value)
}

func isModifierName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !isLetter(c) && (i == 0 || !isDigit(c) && strings.IndexByte("-_.", c) < 0) {
			return false
		}
	}
	return s != ""
}

// arguments reads what follows the name of a mechanism, with the ":" or "/"
// that begins it.
func (t Term) arguments(args string) (Term, error) {
	value, given := strings.CutPrefix(args, ":")
	switch t.Name {
	case "all":
		if args != "" {
			return t, errors.New("all stands alone")
		}
		return t, nil
	case "include", "exists":
		t.Target = value
		return t, checkDomainSpec(value)
	case "ptr":
		if args == "" {
			return t, nil
		}
		if !given {
			return t, errors.New("ptr takes a domain only, after a colon")
		}
		t.Target = value
		return t, checkDomainSpec(value)
	case "a", "mx":
		return t.hosts(value, given)
	case "ip4", "ip6":
		var err error
		t.Prefix, err = parseNetwork(value, t.Name == "ip6")
		return t, err
	}
	return t, errors.New("there is no such mechanism")
}

// hosts reads [":" domain-spec] ["/" bits] ["//" bits] (RFC 7208 5.3, 5.4).
func (t Term) hosts(value string, given bool) (_ Term, err error) {
	if value, t.Bits6, err = cutBits(value, "//", 128); err != nil {
		return t, err
	}
	if value, t.Bits4, err = cutBits(value, "/", 32); err != nil {
		return t, err
	}
	if !given {
		if value != "" {
			return t, errors.New("after the slash stands the length of a network")
		}
		return t, nil
	}
	t.Target = value
	return t, checkDomainSpec(value)
}

// cutBits takes a prefix length off the end of s. A slash before anything but
// digits is part of a domain-spec.
func cutBits(s, sign string, most int) (rest string, bits int, err error) {
	rest = strings.TrimRight(s, "0123456789")
	digits := s[len(rest):]
	rest, ok := strings.CutSuffix(rest, sign)
	if !ok || digits == "" {
		return s, most, nil
	}
	bits, err = parseBits(digits, most)
	return rest, bits, err
}

func parseBits(s string, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > most || s != strconv.Itoa(n) {
		return 0, fmt.Errorf("the length after the slash is a number from 0 to %d", most)
	}
	return n, nil
}

// parseNetwork reads an address, or an address and a length. Bits beyond the
// length may be set: they do not count.
func parseNetwork(s string, v6 bool) (netip.Prefix, error) {
	text, length, given := strings.Cut(s, "/")
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Is6() != v6 || addr.Zone() != "" {
		return netip.Prefix{}, errors.New("not an address of that kind")
	}
	bits := addr.BitLen()
	if given {
		if bits, err = parseBits(length, addr.BitLen()); err != nil {
			return netip.Prefix{}, err
		}
	}
	return addr.Prefix(bits)
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
