// Package message holds one received message as the bytes it is: in memory up
// to 256 KiB, beyond that in a temporary file, hashed while it arrives.
//
// Nothing here changes a byte. A Buffer takes the bytes and becomes a Message,
// which any number of readers may read at once; the header is read once, as
// raw fields in order. The temporary file is never the durable copy of
// anything (DESIGN.md 9.7) and its name is gone as soon as it is open, so a
// crash leaves nothing behind.
package message

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"slices"
)

// Limits of RELIABILITY.md 5.
const (
	MemoryLimit   = 256 << 10 // octets of a message kept in memory
	MaxHeaderSize = 256 << 10 // octets of a header section
	MaxFields     = 1000      // header fields
)

// ErrHeaderTooLarge means the header section is over MaxHeaderSize or MaxFields.
var ErrHeaderTooLarge = errors.New("header section too large")

// A Buffer receives the octets of one message. Its zero value is not usable.
type Buffer struct {
	dir      string
	mem      []byte
	file     *os.File
	size     int64
	hash     hash.Hash
	eightBit bool
	header   headerEnd
}

// NewBuffer returns an empty buffer whose temporary file, if one is needed, is
// made in dir.
func NewBuffer(dir string) *Buffer {
	return &Buffer{dir: dir, hash: sha256.New()}
}

// Write appends p. An error is trouble of ours (disk full, no descriptors).
func (b *Buffer) Write(p []byte) (int, error) {
	b.hash.Write(p)
	b.eightBit = b.eightBit || hasEightBit(p)
	if !b.header.found {
		b.header.scan(p, b.size)
	}
	b.size += int64(len(p))
	if b.file == nil && b.size <= MemoryLimit {
		b.mem = append(b.mem, p...)
		return len(p), nil
	}
	if b.file == nil {
		if err := b.spill(); err != nil {
			return 0, err
		}
	}
	if n, err := b.file.Write(p); err != nil {
		return n, fmt.Errorf("temporary file: %w", err)
	}
	return len(p), nil
}

// spill moves what is in memory to a temporary file without a name.
func (b *Buffer) spill() error {
	f, err := os.CreateTemp(b.dir, "message-*")
	if err != nil {
		return fmt.Errorf("temporary file: %w", err)
	}
	b.file = f
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("temporary file: %w", err)
	}
	if _, err := f.Write(b.mem); err != nil {
		return fmt.Errorf("temporary file: %w", err)
	}
	b.mem = nil
	return nil
}

// Size returns the octets written so far.
func (b *Buffer) Size() int64 { return b.size }

// Close drops the bytes of a message that came to nothing.
func (b *Buffer) Close() error {
	b.mem = nil
	if b.file != nil {
		return b.file.Close()
	}
	return nil
}

// Message returns the finished message, which takes over the buffer's bytes.
func (b *Buffer) Message() (*Message, error) {
	m := &Message{data: bytes.NewReader(b.mem), closer: b, bodyAt: b.size, end: b.size, eightBit: b.eightBit}
	b.hash.Sum(m.sum[:0])
	if b.file != nil {
		m.data = b.file
	}
	if b.header.found {
		m.bodyAt = b.header.end
	}
	if m.bodyAt > MaxHeaderSize {
		return nil, ErrHeaderTooLarge
	}
	m.header = make([]byte, m.bodyAt)
	if _, err := m.data.ReadAt(m.header, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("temporary file: %w", err)
	}
	if m.fields = splitFields(m.header, MaxFields); len(m.fields) > MaxFields {
		return nil, ErrHeaderTooLarge
	}
	return m, nil
}

// A Message is the bytes of one message as they came, and what was found while
// reading them. It is safe for concurrent use until Close.
type Message struct {
	data     io.ReaderAt
	closer   io.Closer
	header   []byte // all fields
	bodyAt   int64  // where the header section ends in data
	end      int64  // where data ends
	sum      [sha256.Size]byte
	eightBit bool
	fields   []Field
}

// Reader returns a reader over all bytes, from the first one.
func (m *Message) Reader() io.Reader {
	return io.MultiReader(bytes.NewReader(m.header), m.Rest())
}

// Header returns the header section: all fields, without the empty line that
// ends it. It is not to be changed.
func (m *Message) Header() []byte { return m.header }

// Rest returns a reader over what follows the header section: the empty line
// and the body.
func (m *Message) Rest() io.Reader { return io.NewSectionReader(m.data, m.bodyAt, m.end-m.bodyAt) }

// Body returns a reader over the body: what follows the empty line that ends
// the header section (RFC 5322 2.1).
func (m *Message) Body() io.Reader {
	at := min(m.bodyAt+2, m.end)
	return io.NewSectionReader(m.data, at, m.end-at)
}

// With returns the message with another header section, which is whole fields
// with CRLF. Both share the bytes below it, so only the one that was received is
// closed; Sum stays that of the received one. The limits are for what is received:
// a message at the limit has room for our fields.
func (m *Message) With(header []byte) *Message {
	other := *m
	other.header, other.fields = header, splitFields(header, math.MaxInt)
	other.eightBit = m.eightBit || hasEightBit(header)
	return &other
}

// Without returns the message without the fields that drop names, or the
// message itself when it names none.
func (m *Message) Without(drop func(Field) bool) *Message {
	kept := slices.DeleteFunc(slices.Clone(m.fields), drop)
	if len(kept) == len(m.fields) {
		return m
	}
	var header []byte
	for _, f := range kept {
		header = append(header, f.Raw...)
	}
	return m.With(header)
}

// Size returns the number of octets.
func (m *Message) Size() int64 { return int64(len(m.header)) + m.end - m.bodyAt }

// Sum returns the SHA-256 of all bytes.
func (m *Message) Sum() [sha256.Size]byte { return m.sum }

// EightBit reports whether any octet is above 127.
func (m *Message) EightBit() bool { return m.eightBit }

// Fields returns the header fields from top to bottom, undecoded.
func (m *Message) Fields() []Field { return m.fields }

// HeaderEightBit reports whether any octet of the header section is above 127.
func (m *Message) HeaderEightBit() bool {
	for _, f := range m.fields {
		if hasEightBit(f.Raw) {
			return true
		}
	}
	return false
}

// Hops counts the Received fields (RFC 5321 6.3).
func (m *Message) Hops() int {
	n := 0
	for _, f := range m.fields {
		if f.Is("Received") {
			n++
		}
	}
	return n
}

// Close frees the bytes. No reader may be used after it.
func (m *Message) Close() error { return m.closer.Close() }

// hasEightBit looks at eight octets at a time; the loop over words is what
// keeps the scan of a large message cheap.
func hasEightBit(p []byte) bool {
	for len(p) >= 8 {
		if (p[0]|p[1]|p[2]|p[3]|p[4]|p[5]|p[6]|p[7])&0x80 != 0 {
			return true
		}
		p = p[8:]
	}
	for _, c := range p {
		if c&0x80 != 0 {
			return true
		}
	}
	return false
}
