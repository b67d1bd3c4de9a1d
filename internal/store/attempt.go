package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"onward/internal/address"
	"onward/internal/database"
	"onward/internal/reply"
)

// The life of an attempt: Begin, then one of Finish, Postpone and SetAside, with
// the same item. Each is one transaction, on the disk before it returns. They
// return ErrLost when the item was begun by somebody else meanwhile, changed by
// the operator, or removed; then nothing has changed.

// A Lease is what Begin writes before an attempt.
type Lease struct {
	Owner string
	Until time.Time // nobody else begins before; at most 10 minutes (RELIABILITY.md 87)
	Next  time.Time // the attempt after this one, if we die in it
}

// An Attempt is how an attempt ended that did not end the item.
type Attempt struct {
	Tried  bool      // a destination was really asked
	Next   time.Time // the next attempt
	Paused bool      // a rate limit or a breaker is why, so Wake lets it sleep
	Host   string
	Said   string // foreign text is cleaned and cut here
}

// Begin counts an attempt and takes the lease. It reports false, and the item
// must be left alone, when somebody else has it or has changed it since it was
// read. When Begin fails, nothing may be attempted.
func (s *Store) Begin(ctx context.Context, item *Item, now time.Time, lease Lease) (bool, error) {
	const begin = `UPDATE item SET attempts = attempts + 1, unfinished = unfinished + 1, owner = ?, lease_until = ?, next = ?
		WHERE id = ? AND attempts = ? AND tried = ? AND unfinished = ? AND refused = ? AND state = 'waiting' AND lease_until <= ?`
	err := s.change(ctx, item.domain, begin, lease.Owner, toMicro(lease.Until), toMicro(lease.Next),
		item.ID, item.Attempts, item.Tried, item.Unfinished, item.Refused, toMicro(now))
	if errors.Is(err, ErrLost) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("item %d: begin: %w", item.ID, err)
	}
	item.Attempts++
	item.Unfinished++
	item.Owner, item.Until, item.Next = lease.Owner, lease.Until, lease.Next
	return true, nil
}

// Extend makes the lease longer.
func (s *Store) Extend(ctx context.Context, item *Item, until time.Time) error {
	const extend = `UPDATE item SET lease_until = ? WHERE id = ? AND attempts = ? AND state = 'waiting'`
	if err := s.change(ctx, item.domain, extend, toMicro(until), item.ID, item.Attempts); err != nil {
		return fmt.Errorf("item %d: extend: %w", item.ID, err)
	}
	item.Until = until
	return nil
}

// Postpone ends an attempt; the item waits for the next one.
func (s *Store) Postpone(ctx context.Context, item *Item, a Attempt) error {
	const postpone = `UPDATE item SET next = ?, unfinished = 0, tried = tried + ?, paused = ?, host = ?, said = ?, owner = '', lease_until = 0
		WHERE id = ? AND attempts = ? AND state = 'waiting'`
	err := s.change(ctx, item.domain, postpone, toMicro(a.Next), a.Tried, a.Paused, reply.Clean(a.Host), reply.Clean(a.Said), item.ID, item.Attempts)
	if err != nil {
		return fmt.Errorf("item %d: postpone: %w", item.ID, err)
	}
	return nil
}

// SetAside ends an attempt, and holds the item for the operator. It also holds
// one that was not begun, as Due returned it.
func (s *Store) SetAside(ctx context.Context, item *Item, reason string, a Attempt) error {
	const hold = `UPDATE item SET state = 'held', reason = ?, tried = tried + ?, host = ?, said = ?, owner = '', lease_until = 0
		WHERE id = ? AND attempts = ? AND unfinished = ? AND state = 'waiting'`
	err := s.change(ctx, item.domain, hold, reply.Clean(reason), a.Tried, reply.Clean(a.Host), reply.Clean(a.Said), item.ID, item.Attempts, item.Unfinished)
	if err != nil {
		return fmt.Errorf("item %d: set aside: %w", item.ID, err)
	}
	return nil
}

// Finish ends the item: it was delivered, or refused for good. In the same
// transaction its report goes into the queue, an item for each target of that,
// unless there is none. A report is never refused for want of room, as it takes the
// place of the item.
func (s *Store) Finish(ctx context.Context, item *Item, report []*Item, rest io.Reader) error {
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		var held bool
		const ask = `SELECT EXISTS (SELECT 1 FROM item WHERE id = ? AND attempts = ? AND state = 'waiting')`
		if err := tx.QueryRow(ask, item.ID, item.Attempts).Scan(&held); err != nil {
			return err
		}
		if !held {
			return ErrLost
		}
		if len(report) > 0 {
			if err := s.addReport(tx, report, rest); err != nil {
				return err
			}
		}
		if err := remove(tx, item.ID, item.rest); err != nil {
			return err
		}
		return touch(tx, item.domain)
	})
	if err != nil {
		return fmt.Errorf("item %d: finish: %w", item.ID, err)
	}
	return nil
}

func (s *Store) addReport(tx *database.Tx, report []*Item, rest io.Reader) error {
	in := newPieces(rest)
	defer in.free()
	if err := in.next(); err != nil {
		return err
	}
	if err := s.add(tx, in, report, Limits{}); err != nil {
		return fmt.Errorf("its report: %w", err)
	}
	return nil
}

// change runs an update of one item for a domain, or returns ErrLost.
func (s *Store) change(ctx context.Context, domain address.Domain, update string, args ...any) error {
	return s.db.Write(ctx, func(tx *database.Tx) error {
		result, err := tx.Exec(update, args...)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrLost)
		}
		return touch(tx, domain)
	})
}
