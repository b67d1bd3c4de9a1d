package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"onward/internal/address"
	"onward/internal/database"
)

// A Destination is a domain with waiting items, and when the first of them is
// due: not before its Next, nor while somebody's lease lasts.
type Destination struct {
	Domain address.Domain
	Due    time.Time
}

const askDestinations = `SELECT domain, due FROM destination WHERE due <= ? ORDER BY due LIMIT ?`

// Destinations returns the domains that have something due at now, the one that
// has waited longest first, at most limit of them. Its cost depends neither on
// the number of items nor on the domains whose time has not come.
func (s *Store) Destinations(ctx context.Context, now time.Time, limit int) ([]Destination, error) {
	rows, err := s.ask.destinations.QueryContext(ctx, toMicro(now), limit)
	if err != nil {
		return nil, fmt.Errorf("destinations: %w", err)
	}
	defer rows.Close()
	var found []Destination
	for rows.Next() {
		var d Destination
		var due int64
		if err := rows.Scan(&d.Domain, &due); err != nil {
			return nil, fmt.Errorf("destinations: %w", err)
		}
		d.Due = fromMicro(due)
		found = append(found, d)
	}
	return found, rows.Err()
}

const askDue = `SELECT ` + columns + ` FROM item WHERE state = 'waiting' AND domain = ? AND due <= ? ORDER BY due LIMIT ?`

// Due returns items for a domain that are due at now, the one that has waited
// longest first, at most limit of them. A row that makes no sense is set aside
// on the way, so that it does not block the others (RELIABILITY.md 91).
func (s *Store) Due(ctx context.Context, domain address.Domain, now time.Time, limit int) ([]*Item, error) {
	rows, err := s.ask.due.QueryContext(ctx, domain, toMicro(now), limit)
	if err != nil {
		return nil, fmt.Errorf("due for %s: %w", domain, err)
	}
	items, damaged, err := collect(rows)
	if err != nil {
		return nil, fmt.Errorf("due for %s: %w", domain, err)
	}
	for _, item := range damaged {
		if err := s.setAsideDamaged(ctx, item.ID, domain); err != nil {
			return nil, fmt.Errorf("damaged item %d: %w", item.ID, err)
		}
	}
	return items, nil
}

func (s *Store) setAsideDamaged(ctx context.Context, id int64, domain address.Domain) error {
	return s.db.Write(ctx, func(tx *database.Tx) error {
		const hold = `UPDATE item SET state = 'held', reason = ? WHERE id = ?`
		if _, err := tx.Exec(hold, ErrDamaged.Error(), id); err != nil {
			return err
		}
		return touch(tx, domain)
	})
}

// Wake makes items for a domain due at now that wait for their next attempt. It
// looks at no more than limit of them, those that would have been next; the ones
// among them that are Paused or being tried sleep on. It returns how many it has
// woken.
func (s *Store) Wake(ctx context.Context, domain address.Domain, now time.Time, limit int) (woken int64, err error) {
	const wake = `UPDATE item SET next = ? WHERE id IN
		(SELECT id FROM item WHERE state = 'waiting' AND domain = ? AND due > ? AND NOT paused AND lease_until <= ? ORDER BY due LIMIT ?)`
	at := toMicro(now)
	err = s.db.Write(ctx, func(tx *database.Tx) error {
		result, err := tx.Exec(wake, at, domain, at, at, limit)
		if err != nil {
			return err
		}
		if woken, err = result.RowsAffected(); err != nil || woken == 0 {
			return err
		}
		return touch(tx, domain)
	})
	if err != nil {
		return 0, fmt.Errorf("wake %s: %w", domain, err)
	}
	return woken, nil
}

// ClampNext brings forward to latest every next attempt that lies behind it, as
// happens when the clock was wrong (RELIABILITY.md 90). It reads the whole queue.
func (s *Store) ClampNext(ctx context.Context, latest time.Time) error {
	const clamp = `UPDATE item SET next = ?1 WHERE state = 'waiting' AND next > ?1`
	return s.updateAll(ctx, clamp, toMicro(latest))
}

// FreeLeases ends every lease of owner, who has died and is here again: what he
// was trying is due at its Next. It reads the whole queue.
func (s *Store) FreeLeases(ctx context.Context, owner string) error {
	const free = `UPDATE item SET owner = '', lease_until = 0 WHERE owner = ?`
	return s.updateAll(ctx, free, owner)
}

// updateAll runs an update of many items, and then sets the destinations anew.
func (s *Store) updateAll(ctx context.Context, update string, arg any) error {
	return s.db.Write(ctx, func(tx *database.Tx) error {
		result, err := tx.Exec(update, arg)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return err
		}
		if _, err := tx.Exec(`DELETE FROM destination`); err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT INTO destination SELECT domain, min(due) FROM item WHERE state = 'waiting' GROUP BY domain`)
		return err
	})
}

// touch sets the row of a domain in destination, after its items have changed.
func touch(tx *database.Tx, domain address.Domain) error {
	var due int64
	const first = `SELECT due FROM item WHERE state = 'waiting' AND domain = ? ORDER BY due LIMIT 1`
	err := tx.QueryRow(first, domain).Scan(&due)
	if errors.Is(err, sql.ErrNoRows) {
		_, err = tx.Exec(`DELETE FROM destination WHERE domain = ?`, domain)
		return err
	}
	if err != nil {
		return err
	}
	const set = `INSERT INTO destination (domain, due) VALUES (?, ?)
		ON CONFLICT (domain) DO UPDATE SET due = excluded.due WHERE excluded.due <> due`
	_, err = tx.Exec(set, domain, due)
	return err
}
