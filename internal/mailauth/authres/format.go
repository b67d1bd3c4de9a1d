package authres

import (
	"fmt"
	"strings"
)

// Widths in octets (RFC 5322 2.1.1). A word is never broken, and none is longer
// than a value may be and its name: far below the 998 of the standard.
const (
	lineWidth = 78
	maxValue  = 512
)

// Field returns the whole field, name to CRLF, one result to a line and folded
// further at 78 columns. A property with an empty value is left out.
//
// Whatever stands in a value, a reader sees that value and nothing else, even
// one who knows no quotes: line ends, semicolons, quotes, backslashes,
// parentheses, control and non-ASCII characters become "?" (R3, RELIABILITY
// 58), and so do spaces in a property and "=" in a reason, which would look
// like a further property. Of an address whose local part would need quotes
// only the domain is written, which is what was authenticated.
func (h Header) Field() []byte { return h.fold(Name + ":") }

// ARCField returns the ARC-Authentication-Results field of an ARC set.
func (h Header) ARCField(instance int) []byte {
	return h.fold("ARC-Authentication-Results:", fmt.Sprintf("i=%d;", instance))
}

// fold lays out words and h on lines.
func (h Header) fold(words ...string) []byte {
	var l layout
	for _, w := range words {
		l.word(w)
	}
	l.word(value(h.ID) + ";")
	if len(h.Results) == 0 {
		l.word("none")
	}
	for i, r := range h.Results {
		l.line()
		l.result(r)
		if i < len(h.Results)-1 {
			l.text = append(l.text, ';')
		}
	}
	return append(l.text, "\r\n"...)
}

// A layout is a field being written.
type layout struct {
	text   []byte
	column int
}

// line begins a new line.
func (l *layout) line() {
	l.text = append(l.text, "\r\n\t"...)
	l.column = 1
}

// word adds a word on this line, or on a new one where it does not fit with
// the semicolon that may follow.
func (l *layout) word(w string) {
	switch {
	case l.column <= 1: // begins a line
	case l.column+1+len(w)+1 > lineWidth:
		l.line()
	default:
		l.text = append(l.text, ' ')
		l.column++
	}
	l.text = append(l.text, w...)
	l.column += len(w)
}

func (l *layout) result(r Result) {
	l.word(r.Method + "=" + r.Value)
	if r.Comment != "" {
		for w := range strings.FieldsSeq("(" + clean(r.Comment) + ")") {
			l.word(w)
		}
	}
	if r.Reason != "" {
		l.word("reason=" + value(strings.ReplaceAll(r.Reason, "=", "?")))
	}
	for _, p := range r.Properties {
		if p.Value == "" {
			continue
		}
		name := p.Name
		if p.Type != "" {
			name = p.Type + "." + p.Name
		}
		l.word(name + "=" + propertyValue(p.Value))
	}
}

// propertyValue returns v as an address or domain, else as value has it
// (RFC 8601 2.2 pvalue).
func propertyValue(v string) string {
	at := strings.LastIndexByte(v, '@')
	if at < 0 || len(v) > maxValue || !isDomain(v[at+1:]) {
		return value(strings.ReplaceAll(v, " ", "?"))
	}
	if isDotAtom(v[:at]) {
		return v
	}
	return v[at+1:]
}

// value returns v bare when it is a token, else between quotes.
func value(v string) string {
	if v = clean(v); v != "" && strings.IndexFunc(v, isSpecial) < 0 {
		return v
	}
	return `"` + v + `"`
}

// clean replaces what could end a value early for some reader, and cuts what
// is too long in a way that shows.
func clean(v string) string {
	cut := len(v) > maxValue
	v = strings.Map(func(r rune) rune {
		if r == '"' {
			return '\''
		}
		if r < ' ' || r > '~' || strings.ContainsRune(`;"\()`, r) {
			return '?'
		}
		return r
	}, v[:min(len(v), maxValue)])
	if cut {
		v += "..."
	}
	return v
}

// isSpecial reports whether r cannot stand in a token (RFC 2045 5.1).
func isSpecial(r rune) bool { return strings.ContainsRune(` ()<>@,;:\"/[]?=`, r) }

// isDomain reports whether s is made of the characters of a domain name.
func isDomain(s string) bool {
	for i := range len(s) {
		if !isKeyword(s[i]) && s[i] != '.' {
			return false
		}
	}
	return s != ""
}

// isDotAtom reports whether s needs no quotes before an "@" (RFC 5322 3.2.3).
// Before "@example.org", as in header.i, it may be empty.
func isDotAtom(s string) bool {
	for i := range len(s) {
		if !isAlnum(s[i]) && !strings.ContainsRune("!#$%&'*+-/=?^_`{|}~.", rune(s[i])) {
			return false
		}
	}
	return true
}
