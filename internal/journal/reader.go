package journal

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"onward/internal/database"
)

// A Reader looks things up in the journal of a state directory, from the
// daemon's process or another.
type Reader struct{ db *database.DB }

// OpenReader opens the journal in dir, which must be there.
func OpenReader(ctx context.Context, dir string) (*Reader, error) {
	db, err := database.Attach(ctx, filepath.Join(dir, fileName), migrations)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return &Reader{db}, nil
}

// Close closes the reader.
func (r *Reader) Close() error { return r.db.Close() }

// Append writes entries into the journal in dir, beside the daemon or without
// it, and waits until that is done. A journal that is not there is not made.
func Append(ctx context.Context, dir string, entries ...Entry) error {
	r, err := OpenReader(ctx, dir)
	if err != nil {
		return err
	}
	defer r.Close()
	for batch := range slices.Chunk(entries, maxBatch) {
		for i, e := range batch {
			batch[i] = e.cut()
		}
		if err := write(r.db, batch); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	return nil
}
