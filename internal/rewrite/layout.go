package rewrite

import (
	"encoding/base64"
	"strings"
	"unicode"
	"unicode/utf8"

	"onward/internal/address"
)

// maxName is how many characters of a name are shown.
const maxName = 100

// at are the characters that some program takes for an "@".
var at = strings.NewReplacer("@", " at ", "\uff20", " at ", "\ufe6b", " at ")

// clean makes a foreign name fit to stand beside an address of ours: visible, and
// without an "@", since some programs show a name that looks like an address in the
// place of the address.
func clean(s string) string { return squeeze(at.Replace(visible(s))) }

func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

// visible returns s in one line of characters that show, with those that join or
// part the letters of some scripts, and without those that turn the direction of
// what follows. "=?" is taken apart, so that nobody decodes what was decoded.
func visible(s string) string {
	const joiners = "\u200c\u200d"
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case strings.ContainsRune(joiners, r):
			return r
		case r == utf8.RuneError || unicode.In(r, unicode.C, unicode.Zl, unicode.Zp):
			return -1
		}
		return r
	}, s)
	return squeeze(strings.ReplaceAll(s, "=?", "= ?"))
}

// shorten cuts s in a way that shows.
func shorten(s string) string {
	if utf8.RuneCountInString(s) <= maxName {
		return s
	}
	return strings.TrimSpace(string([]rune(s)[:maxName])) + "..."
}

// width is where lines are folded. A line with an encoded word may have 76
// characters (RFC 2047 2).
const width = 76

// A layout is header fields being written.
type layout struct {
	text   []byte
	column int
	first  bool // no word of the field is written yet
}

// field writes a field that is an address list, or nothing when nobody in it can
// be written to.
func (l *layout) field(name string, persons []person) {
	var list []person
	for _, p := range persons {
		if p.mailbox != (address.Mailbox{}) {
			list = append(list, p)
		}
	}
	if list == nil {
		return
	}
	l.begin(name)
	for i, p := range list {
		words := p.words()
		if i < len(list)-1 {
			words[len(words)-1] += ","
		}
		l.words(words)
	}
	l.end()
}

func (l *layout) begin(name string) {
	l.text = append(append(l.text, name...), ':')
	l.column, l.first = len(name)+1, true
}

func (l *layout) end() { l.text = append(l.text, "\r\n"...) }

// words writes words on this line as far as there is room.
func (l *layout) words(words []string) {
	for _, w := range words {
		if l.column+1+len(w) > width && !l.first {
			l.text = append(l.text, "\r\n"...)
			l.column = 0
		}
		l.text = append(append(l.text, ' '), w...)
		l.column, l.first = l.column+1+len(w), false
	}
}

// words returns name and address, cut where a line may end.
func (p person) words() []string {
	name := shorten(clean(p.name))
	if name == "" {
		return []string{p.mailbox.String()}
	}
	return append(phrase(name), "<"+p.mailbox.String()+">")
}

// phrase returns clean text as a display name (RFC 5322 3.2.5): between quotes
// when it is ASCII, else in encoded words.
func phrase(name string) []string {
	if !isASCII(name) {
		return encodeWords(name)
	}
	return strings.Split(`"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name)+`"`, " ")
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > unicode.MaxASCII }) < 0
}

// maxEncoded is how many octets go into an encoded word, so that it has room on
// a line with the longest name of a field we write (RFC 2047 2).
const maxEncoded = 39

// encodeWords returns text in encoded words, each of whole characters.
func encodeWords(text string) []string {
	var words []string
	for text != "" {
		end := 0
		for end < len(text) {
			_, n := utf8.DecodeRuneInString(text[end:])
			if end+n > maxEncoded {
				break
			}
			end += n
		}
		words = append(words, "=?UTF-8?B?"+base64.StdEncoding.EncodeToString([]byte(text[:end]))+"?=")
		text = text[end:]
	}
	return words
}
