package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"onward/internal/database"
)

// maxPiece is how much of a message is in memory at a time (DESIGN.md 6).
const maxPiece = 256 << 10

// pieces cuts what it reads.
type pieces struct {
	r     io.Reader
	piece []byte // as of the last next; empty at the end
	size  int64  // of all pieces so far
	sum   hash.Hash
	buf   *[maxPiece]byte
}

var pieceBuffers = sync.Pool{New: func() any { return new([maxPiece]byte) }}

func newPieces(r io.Reader) *pieces {
	return &pieces{r: r, sum: sha256.New(), buf: pieceBuffers.Get().(*[maxPiece]byte)}
}

// free ends the use of the pieces.
func (p *pieces) free() { pieceBuffers.Put(p.buf) }

// next reads the next piece, which is maxPiece long unless it is the last.
func (p *pieces) next() error {
	if p.size%maxPiece != 0 { // the last one was shorter
		p.piece = nil
		return nil
	}
	n, err := io.ReadFull(p.r, p.buf[:])
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	p.piece = p.buf[:n]
	p.size += int64(n)
	p.sum.Write(p.piece)
	return nil
}

// maxAtOnce is how many octets of a rest are read together with the header: all of
// most messages. An attempt has them in memory until it ends.
const maxAtOnce = 64 << 10

// A Content is the bytes of an item.
type Content struct {
	Header []byte // without the empty line after it

	s    *Store
	item *Item
	size int64  // of the rest; below zero: it is not there
	sum  []byte // of the rest
	rest []byte // nil where it is read later
}

const (
	askContent = `SELECT h.bytes, h.sha256, coalesce(r.size, -1), r.sha256, p.bytes FROM header h
		LEFT JOIN rest r ON r.id = ?1 LEFT JOIN piece p ON p.rest = r.id AND p.number = 0 AND r.size <= ?2
		WHERE h.item = ?3`
	askHeader = `SELECT h.bytes, h.sha256, coalesce(r.size, -1), r.sha256 FROM header h LEFT JOIN rest r ON r.id = ?1 WHERE h.item = ?2`
	askPiece  = `SELECT bytes FROM piece WHERE rest = ? AND number = ?`
)

// Content returns the bytes of an item, or ErrDamaged when its header is not what
// was stored.
func (s *Store) Content(ctx context.Context, item *Item) (*Content, error) {
	c := &Content{s: s, item: item}
	var sum []byte
	err := s.ask.content.QueryRowContext(ctx, item.rest, maxAtOnce, item.ID).Scan(&c.Header, &sum, &c.size, &c.sum, &c.rest)
	if database.IsDamaged(err) { // perhaps only in the piece, which Rest will meet
		err = s.db.Read().QueryRowContext(ctx, askHeader, item.rest, item.ID).Scan(&c.Header, &sum, &c.size, &c.sum)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return nil, s.lostOrDamaged(ctx, item)
	}
	if err != nil {
		return nil, fmt.Errorf("bytes of item %d: %w", item.ID, judge(err))
	}
	if got := sha256.Sum256(c.Header); string(got[:]) != string(sum) {
		return nil, fmt.Errorf("header of item %d: %w", item.ID, ErrDamaged)
	}
	return c, nil
}

// Rest returns what follows the header, from the empty line on: what Content has
// read, or else piece by piece from the database. Where it is not what was stored,
// the reader ends with ErrDamaged in place of io.EOF, so nobody takes it for whole;
// where bytes are missing because the item is gone, with ErrLost.
func (c *Content) Rest(ctx context.Context) io.Reader {
	r := &restReader{ctx: ctx, c: c, sum: sha256.New()}
	if len(c.rest) > 0 {
		r.take(c.rest)
	}
	return r
}

type restReader struct {
	ctx    context.Context
	c      *Content
	number int    // of the next piece
	left   []byte // of the piece that was read last
	size   int64
	sum    hash.Hash
	err    error
}

func (r *restReader) Read(p []byte) (int, error) {
	if len(r.left) == 0 && r.err == nil {
		r.err = r.load()
	}
	if r.err != nil {
		return 0, r.err
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

// load reads the next piece. After the last it returns io.EOF, or what is wrong.
func (r *restReader) load() error {
	if r.size%maxPiece != 0 {
		return r.check()
	}
	var piece []byte
	err := r.c.s.ask.piece.QueryRowContext(r.ctx, r.c.item.rest, r.number).Scan(&piece)
	if errors.Is(err, sql.ErrNoRows) || err == nil && len(piece) == 0 {
		return r.check()
	}
	if err != nil {
		return fmt.Errorf("piece %d of item %d: %w", r.number, r.c.item.ID, judge(err))
	}
	r.take(piece)
	return nil
}

func (r *restReader) take(piece []byte) {
	r.number++
	r.left = piece
	r.size += int64(len(piece))
	r.sum.Write(piece)
}

func (r *restReader) check() error {
	if r.size == r.c.size && string(r.sum.Sum(nil)) == string(r.c.sum) {
		return io.EOF
	}
	return r.c.s.lostOrDamaged(r.ctx, r.c.item)
}

// judge adds ErrDamaged to an error that means so.
func judge(err error) error {
	if database.IsDamaged(err) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// lostOrDamaged says why bytes are not what was stored: the item is gone, or they are
// damaged.
func (s *Store) lostOrDamaged(ctx context.Context, item *Item) error {
	_, err := s.Item(ctx, item.ID)
	switch {
	case errors.Is(err, ErrNotFound):
		return fmt.Errorf("item %d: %w", item.ID, ErrLost)
	case err != nil:
		return err
	}
	return fmt.Errorf("bytes of item %d: %w", item.ID, ErrDamaged)
}

// remove takes an item and its header out of the queue, and the rest with the
// last item that has it.
func remove(tx *database.Tx, id, rest int64) error {
	var freed, size int64
	if err := tx.QueryRow(`DELETE FROM header WHERE item = ? RETURNING length(bytes)`, id).Scan(&freed); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	var uses int
	err := tx.QueryRow(`UPDATE rest SET uses = uses - 1 WHERE id = ? RETURNING uses, size`, rest).Scan(&uses, &size)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if uses <= 0 {
		freed += size
		if _, err := tx.Exec(`DELETE FROM piece WHERE rest = ?`, rest); err != nil {
			return err
		}
		if _, err := tx.Exec(`DELETE FROM rest WHERE id = ?`, rest); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(`DELETE FROM item WHERE id = ?`, id); err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE queue SET items = items - 1, bytes = bytes - ?`, freed)
	return err
}
