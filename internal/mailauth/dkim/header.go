package dkim

import (
	"slices"
	"strings"

	"onward/internal/message"
)

// A Header finds the fields that an h= tag means. It looks at every field
// once, when it is made; a thousand signatures cost no further look (RFC 6376
// 5.4.2, K5). It is safe for concurrent use.
type Header struct {
	fields   []message.Field
	names    map[string]int // an index into at, by lower-case name
	at       [][]int        // positions, top to bottom
	repeated bool           // some name stands more than once
}

// NewHeader returns the index of the fields of a message, top to bottom.
func NewHeader(fields []message.Field) *Header {
	h := &Header{fields: fields, names: make(map[string]int, len(fields)), at: make([][]int, 0, len(fields))}
	first := make([]int, len(fields)) // room for one position of each
	lower := make([]byte, 0, 32*len(fields))
	for _, f := range fields {
		lower = appendLower(lower, f.Name)
	}
	names := string(lower) // one string for all
	for i, f := range fields {
		name := names[:len(f.Name)]
		names = names[len(f.Name):]
		n, ok := h.names[name]
		if !ok {
			n = len(h.at)
			h.names[name] = n
			h.at = append(h.at, first[i:i:i+1])
		}
		h.repeated = h.repeated || ok
		h.at[n] = append(h.at[n], i)
	}
	return h
}

// Malformed reports whether a line of the header section is no field. Programs
// differ about where such a header ends, so nothing can be said to be signed in
// it (RELIABILITY 52).
func (h *Header) Malformed() bool { return h.Named("") != nil }

// Named returns the positions, top to bottom, of the fields with that name,
// which is written in lower case. The slice is shared.
func (h *Header) Named(name string) []int {
	if n, ok := h.names[name]; ok {
		return h.at[n]
	}
	return nil
}

// Field returns the field at a position.
func (h *Header) Field(i int) message.Field { return h.fields[i] }

// Select returns the positions of the fields that names stand for, in that
// order: each name takes the lowest field not yet taken, and one with none left
// stands for nothing, so that a field added later breaks the signature (RFC
// 6376 5.4.2). The field at own, which carries the signature, is never taken
// (RFC 6376 5.4); -1 is none. Names are compared without case. Linear in the
// lengths of names and header.
func (h *Header) Select(own int, names []string) []int {
	taken := make([]int, len(h.at))
	selected := make([]int, 0, min(len(names), len(h.fields)))
	var lower []byte
	for _, name := range names {
		lower = appendLower(lower[:0], name)
		n, ok := h.names[string(lower)]
		if !ok {
			continue
		}
		left := h.at[n][:len(h.at[n])-taken[n]]
		if len(left) > 0 && left[len(left)-1] == own {
			left = left[:len(left)-1]
			taken[n]++
		}
		if len(left) > 0 {
			selected = append(selected, left[len(left)-1])
			taken[n]++
		}
	}
	return selected
}

// single are the fields that may stand once (RFC 5322 3.6, RFC 2045 3).
var single = []string{"from", "sender", "reply-to", "to", "cc", "date", "subject", "message-id",
	"in-reply-to", "references", "mime-version", "content-type", "content-transfer-encoding"}

// duplicated returns the fields that may stand once but stand more often than
// names has them: somebody may have added one without breaking the signature
// (RFC 6376 8.15, K5). Fields that names does not have at all are not signed.
func (h *Header) duplicated(names []string) []string {
	if !h.repeated {
		return nil
	}
	var found []string
	for _, name := range single {
		if len(h.Named(name)) > 1 {
			found = append(found, name)
		}
	}
	if found == nil {
		return nil
	}
	signed := make(map[string]int)
	for _, name := range names {
		signed[strings.ToLower(name)]++
	}
	return slices.DeleteFunc(found, func(name string) bool {
		return signed[name] == 0 || signed[name] >= len(h.Named(name))
	})
}
