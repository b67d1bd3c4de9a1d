package dmarc

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
)

// decodeWords decodes the encoded words of a value (RFC 2047), whatever their
// character set: guess looks for ASCII only. It is linear in the length of the
// value. What is no encoded word stays as it is; ok is false when one is broken,
// so that readers may disagree about it.
//
// This is ours because package mime is not for hostile input (RELIABILITY.md 0.5).
func decodeWords(value string) (decoded string, ok bool) {
	var b strings.Builder
	for ok = true; ; {
		before, rest, found := strings.Cut(value, "=?")
		b.WriteString(before)
		if !found {
			return b.String(), ok
		}
		parts := strings.SplitN(rest, "?", 4) // charset, encoding, text, "=" and what follows
		if len(parts) < 4 || strings.ContainsAny(parts[0], "= \t<>@") || !strings.HasPrefix(parts[3], "=") {
			b.WriteString("=?")
			value = rest
			if len(parts) < 4 { // no later word can be whole either
				b.WriteString(rest)
				return b.String(), ok
			}
			continue
		}
		text, good := decodeText(parts[1], parts[2])
		b.WriteString(text)
		ok, value = ok && good, parts[3][1:]
	}
}

// decodeText decodes the text of one encoded word (RFC 2047 4).
func decodeText(encoding, text string) (string, bool) {
	switch encoding {
	case "B", "b":
		b, err := base64.StdEncoding.DecodeString(text)
		return string(b), err == nil
	case "Q", "q":
		return decodeQ(text)
	}
	return text, false
}

func decodeQ(text string) (string, bool) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "=")
		b.WriteString(strings.ReplaceAll(before, "_", " "))
		if !found {
			return b.String(), true
		}
		if len(rest) < 2 {
			return b.String() + rest, false
		}
		octet, err := hex.DecodeString(rest[:2])
		if err != nil {
			return b.String() + rest, false
		}
		b.Write(octet)
		text = rest[2:]
	}
}
