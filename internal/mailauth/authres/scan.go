package authres

import (
	"fmt"
	"strings"
)

// A scanner takes a field body apart from left to right. Every octet is looked
// at a bounded number of times.
type scanner struct {
	rest     string
	unclosed bool // a comment or quoted string had no end
}

const whiteSpace = " \t\r\n"

// cfws skips white space and comments (RFC 5322 3.2.2) and returns the text of
// the first comment.
func (s *scanner) cfws() (comment string) {
	for {
		s.rest = strings.TrimLeft(s.rest, whiteSpace)
		if !strings.HasPrefix(s.rest, "(") {
			return comment
		}
		if text := s.comment(); comment == "" {
			comment = text
		}
	}
}

// comment reads one comment with all those inside it, and returns what stands
// between its parentheses with folds made spaces.
func (s *scanner) comment() string {
	for i, depth := 0, 0; i < len(s.rest); i++ {
		switch s.rest[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				text := s.rest[1:i]
				s.rest = s.rest[i+1:]
				return strings.Join(strings.Fields(text), " ")
			}
		}
	}
	s.rest, s.unclosed = "", true
	return ""
}

// take skips c, and the white space and comments that may follow it, if that is
// what comes next.
func (s *scanner) take(c byte) bool {
	if s.rest == "" || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	s.cfws()
	return true
}

// word reads a Keyword (RFC 5321 4.1.2), with the underscores some write.
func (s *scanner) word() string {
	end := 0
	for end < len(s.rest) && isKeyword(s.rest[end]) {
		end++
	}
	if end > maxWord {
		return ""
	}
	word := s.rest[:end]
	s.rest = s.rest[end:]
	return word
}

// value reads a token, a quoted string, an address or a domain name: all up to
// white space, a comment or a semicolon, with quotes resolved.
func (s *scanner) value() string {
	var b strings.Builder
	for s.rest != "" && !strings.ContainsRune(whiteSpace+";(", rune(s.rest[0])) {
		if s.rest[0] == '"' {
			s.quoted(&b)
			continue
		}
		end := strings.IndexAny(s.rest, whiteSpace+`;("`)
		if end < 0 {
			end = len(s.rest)
		}
		b.WriteString(s.rest[:end])
		s.rest = s.rest[end:]
	}
	return b.String()
}

// quoted reads a quoted string (RFC 5322 3.2.4). Line ends in it are folds.
func (s *scanner) quoted(b *strings.Builder) {
	for i := 1; i < len(s.rest); i++ {
		switch c := s.rest[i]; {
		case c == '"':
			s.rest = s.rest[i+1:]
			return
		case c == '\\' && i+1 < len(s.rest):
			i++
			b.WriteByte(s.rest[i])
		case c != '\r' && c != '\n':
			b.WriteByte(c)
		}
	}
	s.rest, s.unclosed = "", true
}

// unexpected returns the error for text that is not what should stand there.
func (s *scanner) unexpected(want string) error {
	if s.unclosed {
		return fmt.Errorf("%s: comment or quoted string without an end", want)
	}
	return fmt.Errorf("no %s at %.40q", want, s.rest)
}

func isKeyword(c byte) bool {
	return isAlnum(c) || c == '-' || c == '_'
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
