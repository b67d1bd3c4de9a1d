package dkim

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"
)

// NoLimit asks for the digest of a whole body: a signature without l=.
const NoLimit int64 = -1

// A BodyHash is one digest that was asked for. It is filled in by Read.
type BodyHash struct {
	Sum    [sha256.Size]byte // SHA-256 of the canonical body, up to the limit
	Length int64             // octets of the whole canonical body
	Limit  int64             // octets covered, or NoLimit
}

// Covers reports whether the digest is of the whole body: no limit, or one
// that is exactly its length (DESIGN.md 9.9).
func (h *BodyHash) Covers() bool { return h.Limit == NoLimit || h.Limit == h.Length }

// BodyHashes computes any number of digests of one body in one pass and in
// constant memory: Ask for all, then Read once. Its zero value is ready.
type BodyHashes struct {
	streams [2]bodyStream // by Canonicalization
}

// Ask orders a digest of the body in canonicalization c, of all of it or of
// its first limit octets. The same question twice has the same BodyHash. When
// the body is shorter than limit, the digest is of all of it.
func (b *BodyHashes) Ask(c Canonicalization, limit int64) *BodyHash {
	s := &b.streams[c]
	for _, h := range s.asked {
		if h.Limit == limit {
			return h
		}
	}
	h := &BodyHash{Limit: limit}
	s.asked = append(s.asked, h)
	return h
}

// pieces are what bodies are read in, a piece at a time.
var pieces = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// Read reads a body to its end and fills in every BodyHash. An error is that
// of the reader; the digests mean nothing then. Without a question it reads
// nothing. It may be called once.
func (b *BodyHashes) Read(body io.Reader) error {
	var writers []io.WriteCloser
	for c := range b.streams {
		if s := &b.streams[c]; len(s.asked) > 0 {
			s.begin()
			writers = append(writers, Canonicalization(c).Body(s))
		}
	}
	if len(writers) == 0 {
		return nil
	}
	if err := copyTo(writers, body); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	for _, w := range writers {
		w.Close()
	}
	for c := range b.streams {
		b.streams[c].end()
	}
	return nil
}

// copyTo gives every piece to every writer; a bodyStream never fails.
func copyTo(writers []io.WriteCloser, body io.Reader) error {
	buf := pieces.Get().(*[32 << 10]byte)
	defer pieces.Put(buf)
	for {
		n, err := body.Read(buf[:])
		for _, w := range writers {
			w.Write(buf[:n])
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// A bodyStream hashes one canonical body once, and notes the digest each time
// it passes a limit: a hundred signatures with a hundred l= cost as much as one.
type bodyStream struct {
	asked  []*BodyHash // as Read begins: by limit, NoLimit last
	next   int         // first one not yet filled in
	hash   hash.Hash
	length int64
}

func (s *bodyStream) begin() {
	s.hash = sha256.New()
	slices.SortFunc(s.asked, func(a, b *BodyHash) int {
		return cmp.Compare(uint64(a.Limit), uint64(b.Limit)) // NoLimit becomes the largest
	})
}

func (s *bodyStream) Write(p []byte) (int, error) {
	size := len(p)
	for s.next < len(s.asked) {
		h := s.asked[s.next]
		room := h.Limit - s.length
		if h.Limit == NoLimit || room > int64(len(p)) {
			s.hash.Write(p)
			break
		}
		s.hash.Write(p[:room])
		s.length += room
		p = p[room:]
		s.hash.Sum(h.Sum[:0])
		s.next++
	}
	s.length += int64(len(p))
	return size, nil
}

func (s *bodyStream) end() {
	for i, h := range s.asked {
		h.Length = s.length
		if i >= s.next {
			s.hash.Sum(h.Sum[:0])
		}
	}
}
