package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"onward/internal/database"
	"onward/internal/reply"
)

// MaxReplies bounds the reply cache. The oldest make room: a target may then get
// a second copy.
const MaxReplies = 10_000

// lastReply returns when the last of all replies has had its time, as times are
// stored; 0 where there is none.
func lastReply(ctx context.Context, db *sql.DB) (until int64, err error) {
	err = db.QueryRowContext(ctx, `SELECT coalesce(max(until), 0) FROM reply`).Scan(&until)
	return until, err
}

// Remember keeps what a destination said about the copy that key names, until
// the given time.
func (s *Store) Remember(ctx context.Context, key [32]byte, said *reply.Reply, until time.Time) error {
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		s.repliesUntil.Store(max(s.repliesUntil.Load(), toMicro(until))) // nobody else does just now
		const insert = `INSERT OR REPLACE INTO reply (key, code, status, text, until) VALUES (?, ?, ?, ?, ?)`
		if _, err := tx.Exec(insert, key[:], said.Code, said.Status, reply.Clean(said.Text), toMicro(until)); err != nil {
			return err
		}
		_, err := tx.Exec(`DELETE FROM reply WHERE number <= (SELECT max(number) FROM reply) - ?`, MaxReplies)
		return err
	})
	if err != nil {
		return fmt.Errorf("remember a reply: %w", err)
	}
	return nil
}

// Recall returns what Remember has kept under key, or nil. It costs next to nothing
// while nothing is kept, or all of it has had its time: so whoever has opened the
// store does not see what another process remembers from then on.
func (s *Store) Recall(ctx context.Context, key [32]byte, now time.Time) (*reply.Reply, error) {
	if toMicro(now) >= s.repliesUntil.Load() {
		return nil, nil
	}
	var said reply.Reply
	err := s.ask.reply.QueryRowContext(ctx, key[:], toMicro(now)).Scan(&said.Code, &said.Status, &said.Text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("recall a reply: %w", err)
	}
	return &said, nil
}

const askReply = `SELECT code, status, text FROM reply WHERE key = ? AND until > ?`

// Forget removes what Remember has kept under key.
func (s *Store) Forget(ctx context.Context, key [32]byte) error {
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec(`DELETE FROM reply WHERE key = ?`, key[:])
		return err
	})
	if err != nil {
		return fmt.Errorf("forget a reply: %w", err)
	}
	return nil
}
