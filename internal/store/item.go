package store

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/database"
)

// Errors that callers answer differently.
var (
	ErrFull      = errors.New("the queue is full")
	ErrNoRoom    = database.ErrNoRoom    // the disk is full, or nearly so
	ErrUnhealthy = database.ErrUnhealthy // nothing can be written until the next start
	ErrNotFound  = errors.New("no such item in the queue")
	ErrBusy      = errors.New("the item is being tried at this moment")
	ErrLost      = errors.New("somebody else has taken, changed or removed the item")
	ErrDamaged   = errors.New("what the database has of the message is damaged")
)

// A Kind is what an item is to us.
type Kind string

const (
	Mail      Kind = "mail"
	Report    Kind = "report"     // a DSN of ours
	Notice    Kind = "notice"     // to the postmaster
	TLSReport Kind = "tls report" // of ours, on how TLS went (RFC 8460); wants none itself
)

// A State is whether an item is tried again.
type State string

const (
	Waiting State = "waiting"
	Held    State = "held" // for the operator: not tried, does not end
)

// An Item is one message on its way to one target, without its bytes.
type Item struct {
	ID         int64               // given by Add, rises, never given twice
	Message    string              // the same for all items of a message
	Kind       Kind                // "": Mail
	Sender     address.ReversePath // as it came in
	Bounceable bool                // a final failure is reported to Sender; otherwise the item is held (DESIGN.md 9.3)
	From       address.ReversePath // the return path it goes on under
	Recipient  address.Mailbox     // what was written to
	Also       []address.Mailbox   // likewise, and leads to the same target
	Target     address.Mailbox
	Private    []address.Domain // of all targets of the message: no report tells of an address there
	Header     []byte           // for Add only; see Store.Content
	Size       int64            // octets of Header and rest, set by whoever adds it
	EightBit   bool
	UTF8       bool
	Arrived    time.Time
	Expires    time.Time
	State      State     // "": Waiting
	Reason     string    // why it is held
	Refused    bool      // the destination refused it in the session: nothing is left to try, and somebody to tell
	Attempts   int       // begun, so also the fencing token of the lease
	Tried      int       // attempts in which a destination was really asked
	Unfinished int       // attempts begun since one was finished: it may be poison (RELIABILITY.md 89)
	Next       time.Time // of the next attempt
	Owner      string    // who tries it, or did when he died
	Until      time.Time // end of that lease; zero: nobody tries it
	Host       string    // of the last attempt
	Said       string    // its words
	Paused     bool      // it waits for the end of a rate limit or breaker, so Wake lets it sleep

	domain address.Domain // of Target, also when that is damaged
	rest   int64
}

// columns are what scan reads.
const columns = `id, message, kind, sender, bounceable, return_path, recipient, also, target, private, domain, rest, size, eight_bit, utf8,
	arrived, expires, state, reason, refused, attempts, tried, unfinished, next, owner, lease_until, host, said, paused`

// scan reads one item. One that is there and makes no sense comes back with the
// error and what could be read; its ID is right (RELIABILITY.md 91).
func scan(row interface{ Scan(...any) error }) (*Item, error) {
	var i Item
	var sender, from, recipient, also, target, private string
	var arrived, expires, next, until int64
	err := row.Scan(&i.ID, &i.Message, &i.Kind, &sender, &i.Bounceable, &from, &recipient, &also, &target, &private, &i.domain, &i.rest, &i.Size, &i.EightBit, &i.UTF8,
		&arrived, &expires, &i.State, &i.Reason, &i.Refused, &i.Attempts, &i.Tried, &i.Unfinished, &next, &i.Owner, &until, &i.Host, &i.Said, &i.Paused)
	if err != nil {
		return nil, err
	}
	i.Arrived, i.Expires, i.Next, i.Until = fromMicro(arrived), fromMicro(expires), fromMicro(next), fromMicro(until)
	var bad error
	parse := func(text string) address.Mailbox {
		m, err := address.ParsePath(text)
		bad = cmp.Or(bad, err)
		return m
	}
	i.Recipient, i.Target = parse(recipient), parse(target)
	for line := range strings.Lines(also) {
		i.Also = append(i.Also, parse(strings.TrimSuffix(line, "\n")))
	}
	for line := range strings.Lines(private) {
		domain, err := address.ParseDomain(strings.TrimSuffix(line, "\n"))
		i.Private, bad = append(i.Private, domain), cmp.Or(bad, err)
	}
	if sender != "" {
		i.Sender = address.ReversePath{Mailbox: parse(sender)}
	}
	if from != "" {
		i.From = address.ReversePath{Mailbox: parse(from)}
	}
	if bad != nil {
		return &i, fmt.Errorf("item %d: %w: %w", i.ID, ErrDamaged, bad)
	}
	return &i, nil
}

// lines writes addresses and domains as they are stored: one a line, as none has a
// line end in it.
func lines[T fmt.Stringer](all []T) string {
	var b strings.Builder
	for _, m := range all {
		b.WriteString(m.String() + "\n")
	}
	return b.String()
}

// toMicro and fromMicro are how times are stored.
func toMicro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicro(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// collect reads items to the end of rows. Damaged ones are returned apart.
func collect(rows *sql.Rows) (items, damaged []*Item, err error) {
	defer rows.Close()
	for rows.Next() {
		item, err := scan(rows)
		switch {
		case errors.Is(err, ErrDamaged):
			damaged = append(damaged, item)
		case err != nil:
			return nil, nil, err
		default:
			items = append(items, item)
		}
	}
	return items, damaged, rows.Err()
}
