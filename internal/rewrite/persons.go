package rewrite

import (
	"strings"

	"onward/internal/address"
)

// A person is one mailbox of an address list, and what it is called.
type person struct {
	name    string          // decoded, not yet clean; may be empty
	mailbox address.Mailbox // zero when nobody can send to what stands there
}

// maxRawName is how many octets of a name are looked at before it is decoded. Of
// a longer one nothing is.
const maxRawName = 4 << 10

// readPersons reads an address list (RFC 5322 3.4) and makes what can be made of
// any text: names with and without quotes, comments, groups, routes. It returns
// at most limit persons and is linear in the length of the value.
func readPersons(value string, limit int) []person {
	r := listReader{rest: value}
	var persons []person
	for len(persons) < limit && r.rest != "" {
		if p := r.next(); p != (person{}) {
			persons = append(persons, p)
		}
	}
	return persons
}

// A listReader takes one element after the other off rest.
type listReader struct{ rest string }

// next reads up to the next comma, or the end of a group. The name of a group is
// nobody.
func (r *listReader) next() person {
	var text, bare, angle, comment strings.Builder // bare is text as an address: quotes kept, space not
	bracketed := false
	for r.rest != "" {
		c := r.rest[0]
		switch c {
		case ',', ';':
			r.rest = r.rest[1:]
			return makePerson(text.String(), bare.String(), angle.String(), comment.String(), bracketed)
		case ':':
			r.rest = r.rest[1:]
			text.Reset()
			bare.Reset()
		case '(':
			comment.WriteString(r.comment())
			text.WriteByte(' ')
		case '"':
			raw, content := r.quoted()
			text.WriteString(content)
			bare.WriteString(raw)
		case '<':
			angle.Reset()
			angle.WriteString(r.angle())
			bracketed = true
			text.WriteByte(' ')
		default:
			taken := r.word()
			text.WriteString(taken)
			bare.WriteString(strings.Trim(taken, " \t"))
		}
	}
	return makePerson(text.String(), bare.String(), angle.String(), comment.String(), bracketed)
}

// makePerson puts the parts of an element together. Where there is an address in
// brackets the rest is its name, else a comment may be.
func makePerson(text, bare, angle, comment string, bracketed bool) person {
	if !bracketed {
		return person{decodeName(comment), parseMailbox(bare)}
	}
	name := decodeName(text)
	if strings.TrimSpace(text) == "" {
		name = decodeName(comment)
	}
	return person{name, parseMailbox(angle)}
}

// decodeName returns a name in Unicode, or "" when it cannot be told what it is.
func decodeName(raw string) string {
	if raw == "" || len(raw) > maxRawName {
		return ""
	}
	name, ok := decodeWords(raw)
	if !ok {
		return ""
	}
	return strings.TrimSpace(name)
}

// parseMailbox returns the address that s is, with or without a route and a final
// dot, or the zero Mailbox.
func parseMailbox(s string) address.Mailbox {
	if s == "" {
		return address.Mailbox{}
	}
	m, err := address.ParsePath(strings.TrimSuffix(s, "."))
	if err != nil || m.Domain == "" {
		return address.Mailbox{}
	}
	return m
}

// comment takes a comment, with those inside it, and returns its text.
func (r *listReader) comment() string {
	var b strings.Builder
	depth := 0
	for i := 0; i < len(r.rest); i++ {
		c := r.rest[i]
		switch {
		case c == '\\' && i+1 < len(r.rest):
			i++
			b.WriteByte(r.rest[i])
			continue
		case c == '(':
			depth++
		case c == ')':
			if depth--; depth == 0 {
				r.rest = r.rest[i+1:]
				return b.String()
			}
		}
		if c != '(' || depth > 1 {
			b.WriteByte(c)
		}
	}
	r.rest = ""
	return b.String()
}

// quoted takes a quoted string, and returns it as it stands and what it says.
func (r *listReader) quoted() (raw, content string) {
	var b strings.Builder
	for i := 1; i < len(r.rest); i++ {
		switch c := r.rest[i]; {
		case c == '"':
			raw, r.rest = r.rest[:i+1], r.rest[i+1:]
			return raw, b.String()
		case c == '\\' && i+1 < len(r.rest):
			i++
			b.WriteByte(r.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	raw, r.rest = r.rest, ""
	return raw, b.String()
}

// angle takes an address in angle brackets and returns it without them, and
// without space and comments.
func (r *listReader) angle() string {
	var b strings.Builder
	r.rest = r.rest[1:]
	for r.rest != "" {
		switch c := r.rest[0]; c {
		case '>':
			r.rest = r.rest[1:]
			return b.String()
		case '"':
			raw, _ := r.quoted()
			b.WriteString(raw)
		case '(':
			r.comment()
		case ' ', '\t':
			r.rest = r.rest[1:]
		default:
			b.WriteByte(c)
			r.rest = r.rest[1:]
		}
	}
	return b.String()
}

// maxLiteral is the longest address literal, and more (RFC 5321 4.1.3).
const maxLiteral = 64

// word takes a character, or what belongs together whatever is in it: an address
// literal, or an encoded word.
func (r *listReader) word() string {
	size := 1
	switch r.rest[0] {
	case '[':
		size = strings.IndexByte(r.rest[:min(len(r.rest), maxLiteral)], ']') + 1
	case '=':
		_, size, _ = readWord(r.rest)
	}
	size = max(size, 1)
	taken := r.rest[:size]
	r.rest = r.rest[size:]
	return taken
}
