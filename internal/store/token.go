package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"onward/internal/address"
	"onward/internal/database"
)

// Bounds on the tokens kept, since whoever sends through us makes them
// (STANDARDS.md D12, S9). The oldest make room: a bounce that comes very late
// may then find no sender, but no mail is held up by a flood of forged ones.
// One row takes about 300 octets.
const (
	MaxTokens       = 1_000_000
	MaxDomainTokens = 100_000 // of one sender domain
)

// KeepToken stores token for sender as of day (any count of days that goes up)
// and returns it, or returns the one that sender has had since earlier that
// day. It forgets the tokens from before the day oldest.
func (s *Store) KeepToken(ctx context.Context, token string, sender address.Mailbox, day, oldest int) (kept string, err error) {
	err = s.db.Write(ctx, func(tx *database.Tx) (err error) {
		if kept, err = tokenOf(tx, sender, day); err != nil || kept != "" {
			return err
		}
		if err := forget(tx, sender.Domain, oldest); err != nil {
			return err
		}
		kept = token
		const insert = `INSERT INTO sender_token (token, sender, domain, day) VALUES (?, ?, ?, ?)`
		_, err = tx.Exec(insert, token, sender.String(), string(sender.Domain), day)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("keep token of %q: %w", sender, err)
	}
	return kept, nil
}

// TokenSender returns whose token this is, or the zero Mailbox.
func (s *Store) TokenSender(ctx context.Context, token string) (address.Mailbox, error) {
	var text string
	err := s.db.Read().QueryRowContext(ctx, `SELECT sender FROM sender_token WHERE token = ?`, token).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return address.Mailbox{}, nil
	}
	if err != nil {
		return address.Mailbox{}, fmt.Errorf("sender of token %q: %w", token, err)
	}
	return address.Parse(text)
}

func tokenOf(tx *database.Tx, sender address.Mailbox, day int) (token string, err error) {
	const ask = `SELECT token FROM sender_token WHERE day = ? AND sender = ?`
	err = tx.QueryRow(ask, day, sender.String()).Scan(&token)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return token, err
}

// forget makes room: what is too old, and what would be one too many. Tokens
// are numbered upward, so the span of numbers bounds their count.
func forget(tx *database.Tx, domain address.Domain, oldest int) error {
	if _, err := tx.Exec(`DELETE FROM sender_token WHERE day < ?`, oldest); err != nil {
		return err
	}
	const surplus = `DELETE FROM sender_token WHERE number <= (SELECT max(number) FROM sender_token) - ?`
	if _, err := tx.Exec(surplus, MaxTokens-1); err != nil {
		return err
	}
	var kept int
	const count = `SELECT count(*) FROM sender_token WHERE domain = ?`
	if err := tx.QueryRow(count, string(domain)).Scan(&kept); err != nil || kept < MaxDomainTokens {
		return err
	}
	const first = `DELETE FROM sender_token WHERE number = (SELECT min(number) FROM sender_token WHERE domain = ?)`
	_, err := tx.Exec(first, string(domain))
	return err
}
