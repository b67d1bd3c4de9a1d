// Package queue delivers what could not be delivered while its sender waited:
// when, how many at once, and what becomes of a message that cannot be.
//
// Rules for a caller:
//   - Once Add has returned nil, the message is ours. Each of its items ends as
//     delivered, as reported to its sender, or as held for the operator
//     (RELIABILITY.md 2.1); a report or notice of ours may also be dropped, with a
//     line in the log.
//   - Run delivers until its context ends, and then waits for the attempts under
//     way, Route.Drain at most. One Run to a store.
//   - `onward queue` may change items in another process; that is noticed within
//     two seconds.
//
// One goroutine owns the schedule and asks the store what is due; each attempt
// has a goroutine of its own, 200 at most. In memory are the attempts under way and,
// for each destination domain, a few words and what of it is due next, 400 items at
// most; nothing for an item that waits for its time.
//
// What happens to an item, in this order: its attempt is counted and its next one
// set, on the disk; the attempt; its outcome, on the disk, in the same transaction
// as the report that may follow from it. After a crash in between, the item is
// tried again at its next time: a second copy is possible, loss is not.
package queue

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"onward/internal/address"
	"onward/internal/message"
	"onward/internal/smtpclient"
	"onward/internal/store"
)

const (
	maxWorkers    = 200                // attempts at once
	mailLifetime  = 5 * 24 * time.Hour // RELIABILITY.md 5
	graceToRecord = 5 * time.Second    // of Route.Drain: for attempts that give up then
)

// A Deliverer makes one attempt at one target.
type Deliverer interface {
	Deliver(ctx context.Context, t *smtpclient.Transaction) smtpclient.Outcome
}

// Route is how mail leaves the queue, and what a reload replaces.
type Route struct {
	Deliverer  Deliverer
	Hostname   address.Domain                         // ours, in reports
	Postmaster address.Mailbox                        // who hears of held mail
	Sign       func(*message.Message) ([]byte, error) // returns the fields to stand on top of a report

	// Home returns where mail of ours to an address goes: there, or, where it is of
	// one of our own users, to what it stands for, since its domain would bring it
	// back to us; to nobody, where that is so. Nil: there.
	Home func(address.Mailbox) []address.Mailbox

	PerDestination int // attempts at once for one domain; 0 is no limit

	// Limits of RELIABILITY.md 5.
	SenderReports  int           // in an hour, to one sender
	Reports        int           // in an hour, to all
	ReportLifetime time.Duration // of reports and notices: nobody reads old ones
	Drain          time.Duration // what attempts under way have when Run ends, more than graceToRecord
}

// Config is what a Queue needs. Record may be nil.
type Config struct {
	Store  *store.Store
	Owner  string       // names our leases; the same after a restart, and nobody else's
	Size   int64        // octets that the store takes (Limits.Bytes); 0: any
	Route  func() Route // the one in force
	Record func(Event)  // called once for each Event, by several goroutines
	Log    *slog.Logger
}

// A Fate is what became of an item.
type Fate string

const (
	Delivered Fate = "delivered"
	Waits     Fate = "waits" // for its next attempt
	Reported  Fate = "reported"
	Held      Fate = "held"
	Dropped   Fate = "dropped" // a report or notice of ours, or a refusal that the journal alone keeps
)

// An Event is an attempt and what it led to. It is told when it is on the disk.
type Event struct {
	Item    *store.Item // as the attempt began; not to be changed
	Began   time.Time
	Took    time.Duration
	Outcome smtpclient.Outcome // its Result is 0 when it is not known, or the item was set aside before it was tried
	Fate    Fate
	Reason  string // why reported, held or dropped
}

// A Queue is the waiting mail of one store. See New.
type Queue struct {
	Config
	reports quota
	poked   chan struct{}       // something may be due
	known   chan address.Domain // a domain that was away has taken a message in session
	away    sync.Map            // of address.Domain: those to be told of
	session session

	clock func() time.Time // time.Now, but in tests
	look  time.Duration    // how often the store is asked what is due
}

// New returns a queue that does nothing until Run.
func New(c Config) *Queue {
	if c.Record == nil {
		c.Record = func(Event) {}
	}
	return &Queue{Config: c, poked: make(chan struct{}, 1), known: make(chan address.Domain, 64), clock: time.Now, look: look}
}

// Add puts the items of one message into the queue; see store.Add for rest and
// the errors. Where Next is zero, an item whose Tried is 0 is due at once, and
// another as the schedule has it after so many attempts. Where Expires is zero,
// it is what the kind of the item gives.
func (q *Queue) Add(ctx context.Context, rest io.Reader, items []*store.Item) error {
	now := q.clock()
	for _, item := range items {
		if item.Next.IsZero() {
			item.Next = now.Add(backoff(item.Tried))
		}
		if item.Expires.IsZero() {
			item.Expires = cmp.Or(item.Arrived, now).Add(q.lifetime(item.Kind))
		}
	}
	if err := q.Store.Add(ctx, rest, items); err != nil {
		return err
	}
	q.session.failed(q, items)
	q.poke()
	return nil
}

func (q *Queue) lifetime(k store.Kind) time.Duration {
	if k == store.Mail || k == "" { // as store.Add reads it
		return mailLifetime
	}
	return q.Route().ReportLifetime
}

// poke makes Run look what is due.
func (q *Queue) poke() {
	select {
	case q.poked <- struct{}{}:
	default:
	}
}

// Recovered tells the queue that a domain has taken a message in session. When
// it was away, what waits for it goes at once. It costs next to nothing.
func (q *Queue) Recovered(domain address.Domain) {
	q.session.took(domain)
	if _, away := q.away.Load(domain); away {
		select {
		case q.known <- domain:
		default: // it will be told again
		}
	}
}

// Run delivers until ctx ends. Then it begins no more attempts, gives those under
// way Route.Drain, and returns.
func (q *Queue) Run(ctx context.Context) {
	attempts, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	s := newSchedule(q)
	ticker := time.NewTicker(q.look)
	defer ticker.Stop()
	for ctx.Err() == nil {
		s.launch(attempts)
		select {
		case <-ctx.Done():
		case r := <-s.results:
			s.take(attempts, r)
		case domain := <-q.known:
			s.recovered(attempts, domain)
		case <-q.poked:
		case <-ticker.C:
			s.keepHouse(attempts)
		}
	}
	s.drain(cancel)
}
