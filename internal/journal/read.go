package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Filter chooses events. The zero value of each field chooses all, but for
// those that tell nothing new about a fate: that an item is queued is in the
// answer to the sender, and that a person did not want to wait is in the story.
type Filter struct {
	Since, Until time.Time // the latter is excluded
	From, To     string    // of sender and recipient: a whole address, or any part of one
	Text         string    // any part of the ID, the subject, an address or an answer
	Limit        int       // how many
}

// conditions returns f as conditions of a statement and the parameters for
// them. All parts are constants.
func (f Filter) conditions() (where string, args []any) {
	where = ` WHERE (answer OR outcome NOT IN ('queued', 'retried'))`
	add := func(condition string, arg any) {
		where += ` AND ` + condition
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
		add(`(message || ' ' || sender || ' ' || recipient || ' ' || targets || ' ' || text || ' ' ||
			coalesce((SELECT subject FROM message WHERE id = event.message), '')) LIKE ? ESCAPE '\'`, containing(f.Text))
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

const selectEvents = `SELECT ` + eventColumns + ` FROM event`

// eventColumns are what Event.scan reads.
const eventColumns = `number, time, message, answer, sender, recipient, targets, outcome, by_whom, code, status, text`

// Newest returns the newest of the events that f chooses, the last one last.
func (r *Reader) Newest(ctx context.Context, f Filter) ([]Event, error) {
	where, args := f.conditions()
	list, err := r.events(ctx, selectEvents+where+` ORDER BY time DESC, number DESC`+limit, append(args, f.limit())...)
	slices.Reverse(list)
	return list, err
}

// After returns the oldest of the events that f chooses and that come after the
// one of this number. Whoever has read all goes on with the last Event.Number
// to hear what is new.
func (r *Reader) After(ctx context.Context, number int64, f Filter) ([]Event, error) {
	where, args := f.conditions()
	return r.events(ctx, selectEvents+where+` AND number > ? ORDER BY number`+limit, append(args, number, f.limit())...)
}

const limit = ` LIMIT ?`

func (f Filter) limit() int {
	if f.Limit == 0 {
		return -1 // SQLite's word for none
	}
	return f.Limit
}

// Last returns the number of the last event, 0 when there is none.
func (r *Reader) Last(ctx context.Context) (number int64, err error) {
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
		if err := e.scan(rows); err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, rows.Err()
}

// scan reads an event, and what was asked for behind it.
func (e *Event) scan(rows *sql.Rows, more ...any) error {
	var ms int64
	var targets string
	into := []any{&e.Number, &ms, &e.Message, &e.ToSender, &e.From, &e.Recipient, &targets, &e.Outcome, &e.By, &e.Answer.Code, &e.Answer.Status, &e.Answer.Text}
	if err := rows.Scan(append(into, more...)...); err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(targets), &e.Targets); err != nil {
		return fmt.Errorf("event %d: targets: %w", e.Number, err)
	}
	e.Time = time.UnixMilli(ms).UTC()
	return nil
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
