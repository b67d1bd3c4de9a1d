package alias

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"onward/internal/address"
	"onward/internal/config"
)

// Every address that no name decides is held against every pattern of its
// domain, so both their number and their size are limited. Matching itself
// takes time linear in the local part (RE2), which has 64 octets at most.
const (
	maxPatterns      = 200 // a domain
	maxPatternLength = 500 // octets
)

// A pattern is an alias whose key is a regular expression.
type pattern struct {
	alias   *config.Alias
	re      *regexp.Regexp
	to      []template
	dynamic bool // a target depends on what matched
}

// fixed returns the targets that are the same for whatever matched.
func (p *pattern) fixed() []address.Mailbox {
	var fixed []address.Mailbox
	for _, t := range p.to {
		if t.fixed() {
			fixed = append(fixed, t.mailbox)
		}
	}
	return fixed
}

// A template is a target in which "$1" stands for what a group matched. Without
// parts it is the mailbox, whatever matched.
type template struct {
	mailbox address.Mailbox
	parts   []part // of the local part
}

// A part is a piece of text or, when group is not zero, a group's number.
type part struct {
	text  string
	group int
}

// isPattern reports whether a key is a regular expression.
func isPattern(key string) bool {
	return len(key) > 1 && key[0] == '/' && key[len(key)-1] == '/'
}

// compile reads the key of a pattern. It matches whatever the case, and
// anywhere in the local part unless it is anchored.
func compile(key string) (*regexp.Regexp, error) {
	expr := key[1 : len(key)-1]
	switch {
	case expr == "":
		return nil, errors.New(`the regular expression is empty; for "everything else" write "*"`)
	case len(expr) > maxPatternLength:
		return nil, fmt.Errorf("the regular expression has %d octets; at most %d are allowed", len(expr), maxPatternLength)
	}
	if _, err := regexp.Compile(expr); err != nil { // first as written, for a message about that
		return nil, fmt.Errorf("%w; the syntax is RE2, which has no look-around and no back-references", err)
	}
	return regexp.Compile("(?i)" + expr)
}

// parseTemplate reads a target of a pattern.
func parseTemplate(s string, re *regexp.Regexp) (template, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 || !strings.Contains(s, "$") {
		m, err := address.Parse(s)
		return template{mailbox: m}, err
	}
	if strings.Contains(s[at:], "$") {
		return template{}, fmt.Errorf("address %.80q: what was matched can stand before the @ only", s)
	}
	domain, err := address.ParseDomain(s[at+1:])
	if err != nil {
		return template{}, err
	}
	parts, err := parseParts(s[:at], re)
	if err != nil {
		return template{}, fmt.Errorf("address %.80q: %w", s, err)
	}
	t := template{mailbox: address.Mailbox{Domain: domain}, parts: parts}
	probe, ok := t.fill(func(int) string { return "x" })
	if !ok {
		return template{}, fmt.Errorf("address %.80q: would not be an address, with x for what was matched", s)
	}
	if !slices.ContainsFunc(parts, func(p part) bool { return p.group > 0 }) {
		return template{mailbox: probe}, nil
	}
	return t, nil
}

// parseParts splits the local part of a template at its references.
func parseParts(s string, re *regexp.Regexp) ([]part, error) {
	var parts []part
	for {
		text, rest, found := strings.Cut(s, "$")
		if text != "" {
			parts = append(parts, part{text: text})
		}
		if !found {
			return parts, nil
		}
		if after, ok := strings.CutPrefix(rest, "$"); ok {
			parts, s = append(parts, part{text: "$"}), after
			continue
		}
		group, after, err := cutReference(rest, re)
		if err != nil {
			return nil, err
		}
		parts, s = append(parts, part{group: group}), after
	}
}

// cutReference reads a group's number or name after its "$". As in Go's own
// templates "$1x" is the group named "1x", which is never what was meant.
func cutReference(s string, re *regexp.Regexp) (group int, rest string, err error) {
	name := s[:len(s)-len(strings.TrimLeft(s, wordCharacters))]
	rest = s[len(name):]
	if inner, ok := strings.CutPrefix(s, "{"); ok {
		if name, rest, ok = strings.Cut(inner, "}"); !ok {
			return 0, "", errors.New("${ without a }")
		}
	}
	if name == "" {
		return 0, "", errors.New("a $ without a group; write $1 for the first group, or $$ for a dollar sign")
	}
	if group = groupNumber(name, re); group > 0 {
		return group, rest, nil
	}
	digits := name[:len(name)-len(strings.TrimLeft(name, "0123456789"))]
	if digits != "" && digits != name {
		return 0, "", fmt.Errorf("there is no group $%s; write ${%s}%s", name, digits, name[len(digits):])
	}
	return 0, "", fmt.Errorf("there is no group $%s; the regular expression has %d", name, re.NumSubexp())
}

const wordCharacters = "0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// groupNumber returns the number of a group, or 0 where there is none.
func groupNumber(name string, re *regexp.Regexp) int {
	for i := 1; i <= re.NumSubexp(); i++ {
		if name == fmt.Sprint(i) {
			return i
		}
	}
	return max(0, re.SubexpIndex(name))
}

// fixed reports whether the target is the same for whatever matched.
func (t template) fixed() bool { return t.parts == nil }

// fill puts matched text in place of the references, and reports whether that
// makes an address. The text is the sender's: the result is built as a Mailbox
// and never read again as text.
func (t template) fill(group func(int) string) (m address.Mailbox, ok bool) {
	if t.fixed() {
		return t.mailbox, true
	}
	var b strings.Builder
	for _, p := range t.parts {
		if p.group > 0 {
			p.text = group(p.group)
		}
		b.WriteString(p.text)
	}
	m = address.Mailbox{Local: b.String(), Domain: t.mailbox.Domain}
	return m, plain(m)
}

// plain reports whether m is an address of legal length that needs no quotes.
func plain(m address.Mailbox) bool {
	return !m.Quoted() && len(m.Local) <= address.MaxLocal && len(m.String()) <= address.MaxPath
}
