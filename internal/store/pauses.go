package store

import (
	"context"
	"fmt"
	"time"

	"onward/internal/database"
	"onward/internal/reply"
)

// MaxPauses bounds the pauses kept. Those that end first make room.
const MaxPauses = 10_000

// A Pause is the state of a destination, or of one mailbox there, that has asked
// us to go slow. What Key and Step mean is the business of the owner.
type Pause struct {
	Key    string
	Until  time.Time
	Step   int
	Reason string
}

// SavePause keeps a pause in place of the one with its key. One with a zero
// Until is removed.
func (s *Store) SavePause(ctx context.Context, p Pause) error {
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		if p.Until.IsZero() {
			_, err := tx.Exec(`DELETE FROM pause WHERE key = ?`, p.Key)
			return err
		}
		const insert = `INSERT OR REPLACE INTO pause (key, until, step, reason) VALUES (?, ?, ?, ?)`
		if _, err := tx.Exec(insert, p.Key, toMicro(p.Until), p.Step, reply.Clean(p.Reason)); err != nil {
			return err
		}
		const surplus = `DELETE FROM pause WHERE key IN (SELECT key FROM pause ORDER BY until DESC LIMIT -1 OFFSET ?)`
		_, err := tx.Exec(surplus, MaxPauses)
		return err
	})
	if err != nil {
		return fmt.Errorf("pause %.80q: %w", p.Key, err)
	}
	return nil
}

// Pauses returns every pause kept, also those that have ended.
func (s *Store) Pauses(ctx context.Context) ([]Pause, error) {
	rows, err := s.db.Read().QueryContext(ctx, `SELECT key, until, step, reason FROM pause ORDER BY key`)
	if err != nil {
		return nil, fmt.Errorf("pauses: %w", err)
	}
	defer rows.Close()
	var pauses []Pause
	for rows.Next() {
		var p Pause
		var until int64
		if err := rows.Scan(&p.Key, &until, &p.Step, &p.Reason); err != nil {
			return nil, fmt.Errorf("pauses: %w", err)
		}
		p.Until = fromMicro(until)
		pauses = append(pauses, p)
	}
	return pauses, rows.Err()
}
