package rewrite

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
)

// maxWord is how long an encoded word may be. RFC 2047 2 allows 75 octets; some
// programs write more.
const maxWord = 1000

// decodeWords decodes the encoded words of a text (RFC 2047), wherever they stand:
// many programs write them between quotes. ok is false when a word is broken or in
// a character set that is not known, or anything is no text in its own; then the
// text has octets for characters. It is linear in the length of s.
//
// This is ours because package mime is not for hostile input (RELIABILITY.md 0.5).
func decodeWords(s string) (text string, ok bool) {
	var b strings.Builder
	var last encodedWord // the octets of adjacent words of one character set: some are cut inside a character
	ok = true
	write := func(text string, good bool) {
		b.WriteString(text)
		ok = ok && good
	}
	flush := func() {
		write(last.text())
		last = encodedWord{}
	}
	for {
		start := strings.Index(s, "=?")
		if start < 0 {
			flush()
			write(plainText(s))
			return b.String(), ok
		}
		word, size, good := readWord(s[start:])
		if size == 0 { // no word after all
			flush()
			write(plainText(s[:start+len("=?")]))
			s = s[start+len("=?"):]
			continue
		}
		if between := s[:start]; last.charset == "" || strings.Trim(between, " \t") != "" {
			flush() // only space between two words means nothing (RFC 2047 6.2)
			write(plainText(between))
		}
		if !strings.EqualFold(word.charset, last.charset) {
			flush()
			last.charset = word.charset
		}
		last.octets = append(last.octets, word.octets...)
		ok, s = ok && good, s[start+size:]
	}
}

// plainText returns what stands outside encoded words, which is UTF-8 in these
// days (RFC 6532).
func plainText(s string) (string, bool) {
	if utf8.ValidString(s) {
		return s, true
	}
	return latin(s), false
}

// latin takes every octet for a character.
func latin(s string) string {
	text, _ := charmap.ISO8859_1.NewDecoder().String(s)
	return text
}

// An encodedWord is what one says.
type encodedWord struct {
	charset string
	octets  []byte
}

// readWord reads the encoded word at the start of s, and returns its length, or 0
// when there is none. ok is false when its text is not what its encoding makes.
func readWord(s string) (w encodedWord, size int, ok bool) {
	if !strings.HasPrefix(s, "=?") {
		return w, 0, true
	}
	parts := strings.SplitN(s[2:min(len(s), maxWord)], "?", 3)
	if len(parts) < 3 || parts[0] == "" || strings.ContainsAny(parts[0], " \t\"<>()") {
		return w, 0, true
	}
	text, _, found := strings.Cut(parts[2], "?=")
	if !found {
		return w, 0, true
	}
	w.charset, _, _ = strings.Cut(parts[0], "*") // RFC 2231 5: a language may follow
	switch parts[1] {
	case "B", "b":
		w.octets, ok = decodeB(text)
	case "Q", "q":
		w.octets, ok = decodeQ(text)
	default:
		return encodedWord{}, 0, true
	}
	return w, len("=?") + len(parts[0]) + len("?") + len(parts[1]) + len("?") + len(text) + len("?="), ok
}

func decodeB(s string) ([]byte, bool) {
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	return b, err == nil
}

func decodeQ(s string) ([]byte, bool) {
	var b []byte
	ok := true
	for i := 0; i < len(s); i++ {
		if s[i] == '=' {
			octet, err := hex.DecodeString(s[i+1 : min(i+3, len(s))])
			if err == nil && len(octet) == 1 {
				b = append(b, octet[0])
				i += 2
				continue
			}
			ok = false
		}
		c := s[i]
		if c == '_' {
			c = ' '
		}
		b = append(b, c)
	}
	return b, ok
}

// text returns the word in Unicode.
func (w encodedWord) text() (string, bool) {
	if len(w.octets) == 0 {
		return "", true
	}
	set, err := htmlindex.Get(w.charset)
	if err != nil {
		return latin(string(w.octets)), false
	}
	text, err := set.NewDecoder().Bytes(w.octets)
	if err != nil || bytes.ContainsRune(text, utf8.RuneError) {
		return latin(string(w.octets)), false
	}
	return string(text), true
}
