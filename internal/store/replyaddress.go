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

// maxReplyAddresses bounds the reply addresses kept, since whoever writes to an
// alias makes them. Those not used for longest make room. One row takes about
// 300 octets. Tests make do with fewer.
var maxReplyAddresses = 1_000_000

// trimEvery is how many are made before the bound is looked at again, as
// counting takes longer the more there are.
const trimEvery = 1000

// KeepReply stores token for the author of mail to alias and returns it, or
// returns the one that there is already. It notes that it was used that day.
func (s *Store) KeepReply(ctx context.Context, token string, alias, author address.Mailbox, now time.Time) (kept string, err error) {
	var used int64
	const ask = `SELECT token, used FROM reply_address WHERE alias = ? AND author = ?`
	err = s.db.Read().QueryRowContext(ctx, ask, alias.String(), author.String()).Scan(&kept, &used)
	if err == nil && used >= day(now) {
		return kept, nil
	}
	err = s.db.Write(ctx, func(tx *database.Tx) error {
		const keep = `INSERT INTO reply_address (token, alias, author, used) VALUES (?, ?, ?, ?)
			ON CONFLICT (alias, author) DO UPDATE SET used = max(used, excluded.used) RETURNING token, number`
		var number int64
		if err := tx.QueryRow(keep, token, alias.String(), author.String(), day(now)).Scan(&kept, &number); err != nil || number%trimEvery != 0 {
			return err
		}
		const surplus = `DELETE FROM reply_address WHERE number IN
			(SELECT number FROM reply_address ORDER BY used DESC, number DESC LIMIT -1 OFFSET ?)`
		_, err := tx.Exec(surplus, maxReplyAddresses)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("keep reply address of %q for %q: %w", author, alias, err)
	}
	return kept, nil
}

// Reply returns whose mail to which alias this token answers, or two zero
// Mailboxes. It notes that it was used that day; when that cannot be written,
// the mail goes on all the same.
func (s *Store) Reply(ctx context.Context, token string, now time.Time) (alias, author address.Mailbox, err error) {
	var texts [2]string
	var used int64
	const ask = `SELECT alias, author, used FROM reply_address WHERE token = ?`
	err = s.db.Read().QueryRowContext(ctx, ask, token).Scan(&texts[0], &texts[1], &used)
	if errors.Is(err, sql.ErrNoRows) {
		return address.Mailbox{}, address.Mailbox{}, nil
	}
	if err != nil {
		return address.Mailbox{}, address.Mailbox{}, fmt.Errorf("reply address: %w", err)
	}
	if used < day(now) {
		s.db.Write(ctx, func(tx *database.Tx) error {
			_, err := tx.Exec(`UPDATE reply_address SET used = ? WHERE token = ?`, day(now), token)
			return err
		})
	}
	if alias, err = address.Parse(texts[0]); err != nil {
		return address.Mailbox{}, address.Mailbox{}, err
	}
	if author, err = address.Parse(texts[1]); err != nil {
		return address.Mailbox{}, address.Mailbox{}, err
	}
	return alias, author, nil
}

func day(t time.Time) int64 { return t.Unix() / (24 * 60 * 60) }
