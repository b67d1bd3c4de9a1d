package dkim

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxTags bounds a tag list. The longest one that a standard knows has 14.
const maxTags = 64

// A Tag is one name=value of a list. Value has no white space at its ends and
// no folds inside.
type Tag struct{ Name, Value string }

// Tags is a tag=value list in order (RFC 6376 3.2, RFC 8616 4): a
// DKIM-Signature, a key record, an ARC field. Names are unique.
type Tags []Tag

// ParseTags reads a tag list strictly: names once each, no empty tag but after
// the last semicolon, no octet a value may not have. The error is one sentence.
func ParseTags(s string) (Tags, error) {
	if !utf8.ValidString(s) {
		return nil, fmt.Errorf("a tag list is not valid UTF-8")
	}
	s = unfold(s)
	tags := make(Tags, 0, min(strings.Count(s, ";")+1, maxTags))
	for part := range strings.SplitSeq(strings.TrimSuffix(strings.TrimRight(s, " \t"), ";"), ";") {
		tag, err := parseTag(part)
		if err != nil {
			return nil, err
		}
		if _, ok := tags.Get(tag.Name); ok {
			return nil, fmt.Errorf("tag %s= stands twice", tag.Name)
		}
		if len(tags) == maxTags {
			return nil, fmt.Errorf("more than %d tags", maxTags)
		}
		tags = append(tags, tag)
	}
	return tags, nil
}

// unfold removes the CRLF of every fold. One that no white space follows
// stays, and no value may have it.
func unfold(s string) string {
	if !strings.Contains(s, "\r\n") {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for {
		i := strings.Index(s, "\r\n")
		if i < 0 || i+2 < len(s) && s[i+2] != ' ' && s[i+2] != '\t' {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i+2:]
	}
}

// trim removes the white space at both ends.
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

func parseTag(s string) (Tag, error) {
	name, value, ok := strings.Cut(s, "=")
	name, value = trim(name), trim(value)
	if !ok {
		return Tag{}, fmt.Errorf("%.40q has no =", s)
	}
	if !isTagName(name) {
		return Tag{}, fmt.Errorf("%.40q is no tag name", name)
	}
	for _, c := range []byte(value) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return Tag{}, fmt.Errorf("tag %s= has a control character", name)
		}
	}
	return Tag{name, value}, nil
}

// isTagName takes RFC 6376's names, and the hyphen that signers put into tags of
// their own ("x-mailer=1"): nobody can take those for tags that mean something.
func isTagName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c != '_' && c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}

// Get returns the value of a tag, and whether the tag is there. Names are
// compared with case (RFC 6376 3.2).
func (t Tags) Get(name string) (value string, ok bool) {
	for _, tag := range t {
		if tag.Name == name {
			return tag.Value, true
		}
	}
	return "", false
}

// List returns the parts of a value that colons divide, without the white
// space around them, as in h= (RFC 6376 3.5). A tag that is absent has none.
func (t Tags) List(name string) []string {
	value, ok := t.Get(name)
	if !ok {
		return nil
	}
	parts := strings.Split(value, ":")
	for i, p := range parts {
		parts[i] = trim(p)
	}
	return parts
}

// Base64 returns the octets that a value stands for; white space in it is
// ignored (RFC 6376 2.10). The error names the tag.
func (t Tags) Base64(name string) ([]byte, error) {
	value, ok := t.Get(name)
	if !ok {
		return nil, fmt.Errorf("tag %s= is missing", name)
	}
	b, err := base64.StdEncoding.DecodeString(withoutSpace(value))
	if err != nil {
		return nil, fmt.Errorf("tag %s= is not base64", name)
	}
	return b, nil
}

// Number returns a value of at most 18 decimal digits, or -1 when the tag is absent.
// A time or length of more digits is 10^18, which is beyond all of either.
func (t Tags) Number(name string) (int64, error) {
	value, ok := t.Get(name)
	if !ok {
		return -1, nil
	}
	if value == "" || strings.Trim(value, "0123456789") != "" {
		return 0, fmt.Errorf("tag %s= is not a number", name)
	}
	var n int64
	for i := range len(value) {
		n = min(n*10+int64(value[i]-'0'), 1e18)
		if n == 1e18 {
			break
		}
	}
	return n, nil
}

func withoutSpace(s string) string {
	if strings.IndexByte(s, ' ') < 0 && strings.IndexByte(s, '\t') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		if s[i] != ' ' && s[i] != '\t' {
			b = append(b, s[i])
		}
	}
	return string(b)
}

// unquote decodes dkim-quoted-printable (RFC 6376 2.11); what is not an
// encoded octet stands for itself.
func unquote(s string) string {
	s = withoutSpace(s)
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '=' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
