package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"onward/internal/address"
	"onward/internal/database"
	"onward/internal/reply"
)

// What `onward queue` does, while the daemon runs. Who changes an item that is
// being tried gets ErrBusy: its attempt ends first, in minutes at most.

// Item returns one item, or ErrNotFound.
func (s *Store) Item(ctx context.Context, id int64) (*Item, error) {
	item, err := scan(s.db.Read().QueryRowContext(ctx, `SELECT `+columns+` FROM item WHERE id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("item %d: %w", id, ErrNotFound)
	}
	return item, err
}

// A Filter selects items; empty fields select all.
type Filter struct {
	State   State
	Domain  address.Domain // of the target
	Message string
	After   int64 // only higher IDs
	Limit   int   // 0: all
}

// Items returns the items that the filter selects, by ID. Damaged ones are among
// them, as far as they can be read.
func (s *Store) Items(ctx context.Context, f Filter) ([]*Item, error) {
	const ask = `SELECT ` + columns + ` FROM item
		WHERE id > ? AND (?2 = '' OR state = ?2) AND (?3 = '' OR domain = ?3) AND (?4 = '' OR message = ?4)
		ORDER BY id LIMIT ?`
	limit := f.Limit
	if limit == 0 {
		limit = -1
	}
	rows, err := s.db.Read().QueryContext(ctx, ask, f.After, f.State, f.Domain, f.Message, limit)
	if err != nil {
		return nil, fmt.Errorf("items: %w", err)
	}
	defer rows.Close()
	var items []*Item
	for rows.Next() {
		item, err := scan(rows)
		if err != nil && !errors.Is(err, ErrDamaged) {
			return nil, fmt.Errorf("items: %w", err)
		}
		items = append(items, item)
	}
	return items, rows.Err()
}

// Stats are the state of the queue at a glance.
type Stats struct {
	Waiting, Held int64
	Bytes         int64     // of all messages
	Oldest        time.Time // when the oldest item arrived; zero: there is none
}

// Stats counts the queue. Only held items cost something.
func (s *Store) Stats(ctx context.Context) (st Stats, err error) {
	var oldest int64
	const ask = `SELECT items - held, held, bytes, coalesce((SELECT arrived FROM item ORDER BY id LIMIT 1), 0)
		FROM queue, (SELECT count(*) AS held FROM item WHERE state = 'held')`
	err = s.db.Read().QueryRowContext(ctx, ask).Scan(&st.Waiting, &st.Held, &st.Bytes, &oldest)
	if err != nil {
		return Stats{}, fmt.Errorf("queue: %w", err)
	}
	st.Oldest = fromMicro(oldest)
	return st, nil
}

// Hold keeps an item from being tried.
func (s *Store) Hold(ctx context.Context, id int64, now time.Time, reason string) error {
	return s.operate(ctx, id, now, func(tx *database.Tx, _ *Item) error {
		_, err := tx.Exec(`UPDATE item SET state = 'held', reason = ? WHERE id = ? AND state = 'waiting'`, reply.Clean(reason), id)
		return err
	})
}

// Retry makes an item due at now. A held one is released and has all its real
// attempts before it again, lest the first in vain end what somebody let go; one
// that was refused in the session is tried after all.
func (s *Store) Retry(ctx context.Context, id int64, now time.Time) error {
	return s.operate(ctx, id, now, func(tx *database.Tx, _ *Item) error {
		const retry = `UPDATE item SET tried = CASE state WHEN 'held' THEN 0 ELSE tried END, state = 'waiting', reason = '', refused = 0, unfinished = 0, paused = 0, next = ?, owner = '', lease_until = 0 WHERE id = ?`
		_, err := tx.Exec(retry, toMicro(now), id)
		return err
	})
}

// Drop removes an item for good. Nobody is told.
func (s *Store) Drop(ctx context.Context, id int64, now time.Time) error {
	return s.operate(ctx, id, now, func(tx *database.Tx, item *Item) error {
		return remove(tx, id, item.rest)
	})
}

// operate changes one item that nobody is trying at now.
func (s *Store) operate(ctx context.Context, id int64, now time.Time, do func(*database.Tx, *Item) error) error {
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		item, err := scan(tx.QueryRow(`SELECT `+columns+` FROM item WHERE id = ?`, id))
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return ErrNotFound
		case err != nil && !errors.Is(err, ErrDamaged):
			return err
		case item.State == Waiting && item.Until.After(now):
			return ErrBusy
		}
		if err := do(tx, item); err != nil {
			return err
		}
		return touch(tx, item.domain)
	})
	if err != nil {
		return fmt.Errorf("item %d: %w", id, err)
	}
	return nil
}
