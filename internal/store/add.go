package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"onward/internal/database"
)

// Add puts the items of one message into the queue, all or none, and sets their
// IDs. rest is what follows the header, from the empty line on, the same for
// all; it must be as long as the items' Size says (a temp file may be cut
// short). Once Add has returned nil, we answer for the message.
//
// ErrFull, ErrNoRoom and ErrUnhealthy are temporary trouble of ours. After
// another error of the database it is not known whether the items are there.
func (s *Store) Add(ctx context.Context, rest io.Reader, items []*Item) error {
	if err := s.room.check(items[0].Size); err != nil {
		return err
	}
	in := newPieces(rest)
	defer in.free()
	if err := in.next(); err != nil { // outside the transaction, as most rests are one piece
		return fmt.Errorf("message %s: %w", items[0].Message, err)
	}
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		return s.add(tx, in, items, s.limits)
	})
	if err != nil {
		return fmt.Errorf("message %s: %w", items[0].Message, err)
	}
	return nil
}

// add writes items and their bytes into a transaction.
func (s *Store) add(tx *database.Tx, in *pieces, items []*Item, limits Limits) error {
	var count, stored, last int64
	if err := tx.QueryRow(`SELECT items, bytes, last FROM queue`).Scan(&count, &stored, &last); err != nil {
		return err
	}
	count += int64(len(items))
	rest := last + 1
	size, err := addRest(tx, in, rest, len(items))
	if err != nil {
		return err
	}
	stored += size
	for _, item := range items {
		last++
		stored += int64(len(item.Header))
		if got := size + int64(len(item.Header)); got != item.Size {
			return fmt.Errorf("it has %d octets, not %d", got, item.Size)
		}
		item.ID, item.domain, item.rest = last, item.Target.Domain, rest
		if err := addItem(tx, item); err != nil {
			return err
		}
	}
	if limits.Items > 0 && count > limits.Items || limits.Bytes > 0 && stored > limits.Bytes {
		return ErrFull
	}
	_, err = tx.Exec(`UPDATE queue SET items = ?, bytes = ?, last = ?`, count, stored, last)
	return err
}

// addRest stores a rest for so many items and returns its size.
func addRest(tx *database.Tx, in *pieces, rest int64, uses int) (int64, error) {
	const piece = `INSERT INTO piece (rest, number, bytes) VALUES (?, ?, ?)`
	for number := 0; len(in.piece) > 0; number++ {
		if _, err := tx.Exec(piece, rest, number, in.piece); err != nil {
			return 0, err
		}
		if err := in.next(); err != nil {
			return 0, err
		}
	}
	const insert = `INSERT INTO rest (id, uses, size, sha256) VALUES (?, ?, ?, ?)`
	_, err := tx.Exec(insert, rest, uses, in.size, in.sum.Sum(nil))
	return in.size, err
}

// addItem stores one item and its header.
func addItem(tx *database.Tx, i *Item) error {
	i.Kind, i.State = cmp.Or(i.Kind, Mail), cmp.Or(i.State, Waiting)
	const insert = `INSERT INTO item (` + columns + `)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	_, err := tx.Exec(insert, i.ID, i.Message, i.Kind, i.Sender.String(), i.Bounceable, i.From.String(), i.Recipient.String(), lines(i.Also), i.Target.String(),
		lines(i.Private), i.domain, i.rest, i.Size, i.EightBit, i.UTF8, toMicro(i.Arrived), toMicro(i.Expires), i.State, i.Reason, i.Refused, i.Attempts, i.Tried, i.Unfinished,
		toMicro(i.Next), i.Owner, toMicro(i.Until), i.Host, i.Said, i.Paused)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(i.Header)
	const header = `INSERT INTO header (item, bytes, sha256) VALUES (?, ?, ?)`
	if _, err := tx.Exec(header, i.ID, i.Header, sum[:]); err != nil || i.State != Waiting {
		return err
	}
	const due = `INSERT INTO destination (domain, due) VALUES (?, ?)
		ON CONFLICT (domain) DO UPDATE SET due = excluded.due WHERE excluded.due < due`
	_, err = tx.Exec(due, i.Target.Domain, toMicro(i.Next))
	return err
}
