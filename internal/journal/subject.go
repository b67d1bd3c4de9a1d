package journal

import (
	"encoding/base64"
	"regexp"
	"strings"

	"golang.org/x/text/encoding/htmlindex"
)

// encodedWord is one of RFC 2047 2, with the language of RFC 2231 5.
var encodedWord = regexp.MustCompile(`=\?([^?*\s]+)(?:\*[^?\s]*)?\?([BbQq])\?([^?\s]*)\?=`)

// DecodeSubject returns the value of a Subject field for people: encoded words
// (RFC 2047) are decoded where they can be. The result may hold any character,
// and is only for the eye.
func DecodeSubject(s string) string {
	var b strings.Builder
	var octets []byte // of words in charset that are not yet written
	var charset string
	flush := func() {
		b.WriteString(decode(charset, octets))
		octets = nil
	}
	last := 0 // end of what is done
	for _, m := range encodedWord.FindAllStringSubmatchIndex(s, -1) {
		between, name, encoding, text := s[last:m[0]], strings.ToLower(s[m[2]:m[3]]), s[m[4]:m[5]], s[m[6]:m[7]]
		word, ok := wordOctets(encoding, text)
		if !ok {
			continue
		}
		// White space between words is none of the text (RFC 2047 6.2), and some
		// senders cut characters in two.
		joins := octets != nil && strings.TrimSpace(between) == ""
		if !joins || name != charset {
			flush()
		}
		if !joins {
			b.WriteString(between)
		}
		charset, octets, last = name, append(octets, word...), m[1]
	}
	flush()
	return b.String() + s[last:]
}

// wordOctets undoes the encoding of one word (RFC 2047 4).
func wordOctets(encoding, text string) ([]byte, bool) {
	if strings.EqualFold(encoding, "B") {
		octets, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
		return octets, err == nil
	}
	octets := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '_':
			octets = append(octets, ' ')
		case c == '=' && i+2 < len(text) && isHex(text[i+1]) && isHex(text[i+2]):
			octets = append(octets, unhex(text[i+1])<<4|unhex(text[i+2]))
			i += 2
		case c == '=':
			return nil, false
		default:
			octets = append(octets, c)
		}
	}
	return octets, true
}

func isHex(c byte) bool { return strings.IndexByte("0123456789abcdefABCDEF", c) >= 0 }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&^0x20 - 'A' + 10
}

// decode reads octets in a charset; what has none in it, or is in a charset
// that nobody knows, becomes U+FFFD.
func decode(charset string, octets []byte) string {
	if e, err := htmlindex.Get(charset); err == nil {
		if text, err := e.NewDecoder().Bytes(octets); err == nil {
			octets = text
		}
	}
	return strings.ToValidUTF8(string(octets), "\uFFFD")
}
