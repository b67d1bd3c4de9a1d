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

// Header returns the header of an item, without the empty line after it, or
// ErrDamaged when it is not what was stored.
func (s *Store) Header(ctx context.Context, item *Item) ([]byte, error) {
	var header, sum []byte
	const ask = `SELECT bytes, sha256 FROM header WHERE item = ?`
	err := s.db.Read().QueryRowContext(ctx, ask, item.ID).Scan(&header, &sum)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, s.missing(ctx, item)
	}
	if err != nil {
		return nil, fmt.Errorf("header of item %d: %w", item.ID, judge(err))
	}
	if got := sha256.Sum256(header); string(got[:]) != string(sum) {
		return nil, fmt.Errorf("header of item %d: %w", item.ID, ErrDamaged)
	}
	return header, nil
}

// Rest returns what follows the header of an item, from the empty line on, read
// piece by piece. Where it is not what was stored, the reader ends with
// ErrDamaged in place of io.EOF, so nobody takes it for whole; where the item is
// gone, with ErrLost.
func (s *Store) Rest(ctx context.Context, item *Item) io.Reader {
	return &restReader{ctx: ctx, s: s, item: item, sum: sha256.New()}
}

type restReader struct {
	ctx    context.Context
	s      *Store
	item   *Item
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
	const ask = `SELECT bytes FROM piece WHERE rest = ? AND number = ?`
	err := r.s.db.Read().QueryRowContext(r.ctx, ask, r.item.rest, r.number).Scan(&r.left)
	if errors.Is(err, sql.ErrNoRows) || err == nil && len(r.left) == 0 {
		return r.check()
	}
	if err != nil {
		return fmt.Errorf("piece %d of item %d: %w", r.number, r.item.ID, judge(err))
	}
	r.number++
	r.size += int64(len(r.left))
	r.sum.Write(r.left)
	return nil
}

func (r *restReader) check() error {
	var size int64
	var sum []byte
	const ask = `SELECT size, sha256 FROM rest WHERE id = ?`
	err := r.s.db.Read().QueryRowContext(r.ctx, ask, r.item.rest).Scan(&size, &sum)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return r.s.missing(r.ctx, r.item)
	case err != nil:
		return fmt.Errorf("bytes of item %d: %w", r.item.ID, judge(err))
	case size != r.size || string(r.sum.Sum(nil)) != string(sum):
		return fmt.Errorf("bytes of item %d: %w", r.item.ID, ErrDamaged)
	}
	return io.EOF
}

// judge adds ErrDamaged to an error that means so.
func judge(err error) error {
	if database.IsDamaged(err) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// missing says why bytes are not there: the item is gone, or they should be.
func (s *Store) missing(ctx context.Context, item *Item) error {
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
