package message

import (
	"bytes"
	"strings"
)

// A Field is one header field as it stands in the message: its name, and all
// its octets with folds and the final CRLF.
type Field struct {
	Name string // as written; empty for a line that is no field
	Raw  []byte
}

// Is reports whether the field has this name, which is compared without case.
func (f Field) Is(name string) bool { return strings.EqualFold(f.Name, name) }

// Value returns the field body with its folds and the CRLF removed (RFC 5322
// 2.2.3), and white space trimmed at both ends.
func (f Field) Value() string {
	_, body, _ := bytes.Cut(f.Raw, []byte(":"))
	return strings.TrimSpace(strings.ReplaceAll(string(body), "\r\n", ""))
}

// splitFields splits a header section into its fields. A folded line belongs
// to the field above it; a line without a name is kept as a Field without one.
//
// It stops behind more than max fields.
func splitFields(raw []byte, max int) []Field {
	var fields []Field
	for len(raw) > 0 && !bytes.HasPrefix(raw, []byte("\r\n")) {
		end := fieldEnd(raw)
		fields = append(fields, Field{Name: fieldName(raw[:end]), Raw: raw[:end:end]})
		raw = raw[end:]
		if len(fields) > max {
			break
		}
	}
	return fields
}

// fieldEnd returns the length of the first field of raw, folds included.
func fieldEnd(raw []byte) int {
	end := 0
	for {
		i := bytes.Index(raw[end:], []byte("\r\n"))
		if i < 0 {
			return len(raw)
		}
		end += i + 2
		if end == len(raw) || raw[end] != ' ' && raw[end] != '\t' {
			return end
		}
	}
}

// fieldName returns the name before the colon, without the white space that
// obsolete syntax allows there (RFC 5322 4.5.8), or "" when there is none.
func fieldName(line []byte) string {
	name, _, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return ""
	}
	name = bytes.TrimRight(name, " \t")
	for _, c := range name {
		if c <= ' ' || c > '~' {
			return ""
		}
	}
	return string(name)
}

// A headerEnd finds the end of the header section, the first empty line, in
// bytes that arrive in pieces. The empty line may be split between pieces.
type headerEnd struct {
	tail  []byte // the last three octets before this piece
	end   int64  // octets of the header section, without the empty line
	found bool
}

// scan looks through p, which begins at offset.
func (h *headerEnd) scan(p []byte, offset int64) {
	if offset == 0 && len(h.tail) == 0 {
		h.tail = []byte("\r\n") // an empty line may be the very first
	}
	if offset > MaxHeaderSize {
		return // too large already; Message says so
	}
	joined := append(h.tail, p[:min(len(p), 3)]...)
	if i := bytes.Index(joined, []byte("\r\n\r\n")); i >= 0 {
		h.found, h.end = true, offset-int64(len(h.tail))+int64(i)+2
		return
	}
	if i := bytes.Index(p, []byte("\r\n\r\n")); i >= 0 {
		h.found, h.end = true, offset+int64(i)+2
		return
	}
	joined = append(h.tail, p[max(0, len(p)-3):]...)
	h.tail = bytes.Clone(joined[max(0, len(joined)-3):])
}
