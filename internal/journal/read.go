package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Filter chooses events. The zero value of each field chooses all.
type Filter struct {
	Since, Until time.Time // the latter is excluded
	From, To     string    // of sender and recipient: a whole address, or any part of one
	Text         string    // any part of the subject, an address or an answer
	After        int64     // Event.Number of the last event that is known
	Limit        int       // the newest so many; with After the oldest
}

// conditions returns f as the end of a statement and the parameters for it. All
// parts are constants.
func (f Filter) conditions() (where string, args []any) {
	// What the queue says about its beginning is in the answer to the sender.
	parts := []string{`(answer OR outcome <> 'queued')`}
	add := func(part string, arg any) {
		parts = append(parts, part)
		args = append(args, arg)
	}
	if !f.Since.IsZero() {
		add(`time >= ?`, f.Since.UnixMilli())
	}
	if !f.Until.IsZero() {
		add(`time < ?`, f.Until.UnixMilli())
	}
	switch {
	case f.From == "<>":
		add(`sender = ?`, "")
	case isAddress(f.From):
		add(`sender = ?`, f.From)
	case f.From != "":
		add(`sender LIKE ? ESCAPE '\'`, containing(f.From))
	}
	switch {
	case isAddress(f.To):
		add(`recipient = ?`, f.To)
	case f.To != "":
		add(`recipient LIKE ? ESCAPE '\'`, containing(f.To))
	}
	if f.Text != "" {
		add(`(sender || ' ' || recipient || ' ' || targets || ' ' || text || ' ' ||
			coalesce((SELECT subject FROM message WHERE id = event.message), '')) LIKE ? ESCAPE '\'`, containing(f.Text))
	}
	if f.After > 0 {
		add(`number > ?`, f.After)
	}
	where = ` WHERE ` + strings.Join(parts, ` AND `)
	if f.After > 0 {
		where += ` ORDER BY number`
	} else {
		where += ` ORDER BY time DESC, number DESC`
	}
	if f.Limit > 0 {
		where += ` LIMIT ?`
		args = append(args, f.Limit)
	}
	return where, args
}

// isAddress tells whole addresses, which an index finds, from parts of them.
func isAddress(s string) bool {
	local, domain, ok := strings.Cut(s, "@")
	return ok && local != "" && strings.Contains(domain, ".")
}

// containing returns the LIKE pattern for texts that contain s.
func containing(s string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(s) + "%"
}

const selectEvents = `SELECT number, time, message, answer, sender, recipient, targets, outcome, by_whom, code, status, text FROM event`

// Events returns what f chooses, the newest last.
func (r *Reader) Events(ctx context.Context, f Filter) ([]Event, error) {
	where, args := f.conditions()
	list, err := r.events(ctx, selectEvents+where, args...)
	if f.After == 0 {
		slices.Reverse(list)
	}
	return list, err
}

// Newest returns the number of the newest event, 0 when there is none.
func (r *Reader) Newest(ctx context.Context) (number int64, err error) {
	err = r.db.Read().QueryRowContext(ctx, `SELECT coalesce(max(number), 0) FROM event`).Scan(&number)
	return number, err
}

func (r *Reader) events(ctx context.Context, query string, args ...any) ([]Event, error) {
	rows, err := r.db.Read().QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []Event{}
	for rows.Next() {
		var e Event
		var ms int64
		var targets string
		err := rows.Scan(&e.Number, &ms, &e.Message, &e.ToSender, &e.From, &e.Recipient, &targets, &e.Outcome, &e.By, &e.Answer.Code, &e.Answer.Status, &e.Answer.Text)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(targets), &e.Targets); err != nil {
			return nil, fmt.Errorf("event %d: targets: %w", e.Number, err)
		}
		e.Time = time.UnixMilli(ms).UTC()
		list = append(list, e)
	}
	return list, rows.Err()
}

// Find returns the ids of messages that begin with prefix, in either case, ten
// at most.
func (r *Reader) Find(ctx context.Context, prefix string) ([]string, error) {
	const ask = `SELECT id FROM message WHERE id >= ?1 AND id < ?1 || '~' UNION
		SELECT message FROM event WHERE message >= ?1 AND message < ?1 || '~' ORDER BY 1 LIMIT 10`
	rows, err := r.db.Read().QueryContext(ctx, ask, strings.ToUpper(prefix))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}
