package smtpclient

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"onward/internal/address"
	"onward/internal/reply"
	"onward/internal/store"
)

const (
	firstSlots   = 5      // connections to a host at first, and again after trouble (RELIABILITY.md 5, 76)
	fullRamp     = 20     // where the ramp after a pause ends when PerDestination is off
	maxSlots     = 10_000 // what PerDestination may be raised to
	maxMailboxes = 10_000 // remembered for their rate limits
)

// Limits bound what all attempts together ask of destinations (RELIABILITY.md
// 5, DESIGN.md 9.12). Zero means off.
type Limits struct {
	PerDestination int // connections to one mail host, used and idle: 5 at first, one more with each success

	// For mailboxes that have limited us in the last hours, and those of
	// destinations that have.
	PerMailbox          int // messages at the same time
	PerMailboxPerSecond int
}

// Destinations is what a process knows about its destinations from one message
// to the next: connections that can be used again, how many are in use, and
// which destinations want to be left alone (RELIABILITY 75-77). One value serves
// all Clients and outlives a reload. A nil *Destinations bounds nothing and
// keeps nothing.
//
// Connections are counted for each mail host, by its name in the MX record.
// Pauses are for an operator: all hosts under one registered domain, so that
// alt1 to alt4.gmail-smtp-in.l.google.com rest together.
type Destinations struct {
	pauses Pauses
	log    *slog.Logger

	idleTime time.Duration // after which a connection is ended

	saving sync.Mutex // held while a pause is written, so that the last one is the one that stays

	mu        sync.Mutex // guards what follows, and everything below it
	operators map[string]*operator
	mailboxes map[string]*mailbox
	idle      int // connections
	sweepAt   int // operators and mailboxes
	closed    bool

	watching sync.WaitGroup // one for each idle connection
}

// Pauses keeps the pauses of destinations over a restart.
type Pauses interface {
	SavePause(context.Context, store.Pause) error
	Pauses(context.Context) ([]store.Pause, error)
}

// pauseKey begins the keys of our pauses, which share their table with others.
const pauseKey = "destination:"

// An operator is whoever runs the mail hosts under one registered domain.
type operator struct {
	key     string
	pause   pause
	inUse   int
	hosts   map[string]*host
	waiting []*turn // in the order of their coming
}

// A host is one mail host.
type host struct {
	operator *operator
	name     string
	turns    int // that may still come to it
	inUse    int
	slots    int // connections it may have, PerDestination aside: what it has proved to bear
	idle     []*conn
}

// A mailbox is one target, while it is being delivered to or is remembered for
// a rate limit of its own.
type mailbox struct {
	key   string
	pause pause
	turns int
	inUse int
	next  time.Time // of the next message, where the pace is bounded
}

// NewDestinations returns an empty value, but for the pauses that are kept. Both
// arguments may be nil: then pauses do not survive the process, and are not
// logged. It is closed after the last Deliver has returned.
func NewDestinations(ctx context.Context, pauses Pauses, log *slog.Logger) (*Destinations, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &Destinations{pauses: pauses, log: log, idleTime: idleTime, operators: map[string]*operator{}, mailboxes: map[string]*mailbox{}}
	if pauses == nil {
		return d, nil
	}
	kept, err := pauses.Pauses(ctx)
	if err != nil {
		return nil, fmt.Errorf("pauses of destinations: %w", err)
	}
	now := time.Now()
	for _, k := range kept {
		key, ours := strings.CutPrefix(k.Key, pauseKey)
		p := pause{until: k.Until, step: k.Step, reason: k.Reason, ramp: 1}
		if latest := now.Add(longestPause); p.until.After(latest) {
			p.until = latest // the clock was wrong, then or now (RELIABILITY 90)
		}
		if ours && p.remembered(now) {
			d.operator(key).pause = p
		}
	}
	return d, nil
}

// Close ends the idle connections, and from now on no connection is kept.
func (d *Destinations) Close() {
	d.mu.Lock()
	d.closed = true
	var idle []*conn
	for _, o := range d.operators {
		for _, h := range o.hosts {
			idle = append(idle, d.dismiss(h)...)
		}
	}
	d.mu.Unlock()
	hangUp(idle)
	d.watching.Wait()
}

// A DestinationState is a line of Snapshot.
type DestinationState struct {
	Operator string    `json:"operator"`        // registered domain of the mail hosts, or an address literal
	Host     string    `json:"host,omitempty"`  // empty where no host of a paused operator is in use
	InUse    int       `json:"in_use"`          // connections
	Idle     int       `json:"idle"`            // connections kept for the next message
	Waiting  int       `json:"waiting"`         // messages that wait for a connection to this operator
	Slots    int       `json:"slots,omitempty"` // connections that this host may have just now, PerDestination aside
	Until    time.Time `json:"until,omitzero"`  // the operator gets nothing until then; may be past
	Step     int       `json:"step,omitempty"`  // how many pauses in a row
	Reason   string    `json:"reason,omitempty"`
}

// Snapshot returns what is known of every operator that is in use, paused, or
// remembered for a pause, in the order of their names.
func (d *Destinations) Snapshot() []DestinationState {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	var all []DestinationState
	for _, o := range d.operators {
		state := DestinationState{Operator: o.key, Waiting: len(o.waiting)}
		if o.pause.remembered(now) {
			state.Until, state.Step, state.Reason = o.pause.until, o.pause.step, o.pause.reason
		}
		for _, h := range o.hosts {
			state.Host, state.InUse, state.Idle, state.Slots = h.name, h.inUse, len(h.idle), h.slots
			all = append(all, state)
		}
		if len(o.hosts) == 0 && state.Step > 0 {
			all = append(all, state)
		}
	}
	slices.SortFunc(all, func(a, b DestinationState) int {
		return cmp.Or(cmp.Compare(a.Operator, b.Operator), cmp.Compare(a.Host, b.Host))
	})
	return all
}

// Operator names whoever runs a mail host: the registered domain it is under.
func Operator(host string) string {
	return string(address.Domain(host).Registered())
}

// operator returns the operator of that key, made if need be.
func (d *Destinations) operator(key string) *operator {
	o := d.operators[key]
	if o == nil {
		o = &operator{key: key, hosts: map[string]*host{}}
		d.operators[key] = o
	}
	return o
}

// host returns the host of that name, made if need be.
func (d *Destinations) host(name string) *host {
	name = strings.ToLower(name)
	o := d.operator(Operator(name))
	h := o.hosts[name]
	if h == nil {
		h = &host{operator: o, name: name, slots: firstSlots}
		o.hosts[name] = h
	}
	return h
}

// tidy forgets a host that nobody needs, and its operator.
func (d *Destinations) tidy(h *host) {
	if h.turns > 0 || len(h.idle) > 0 {
		return
	}
	delete(h.operator.hosts, h.name)
	if len(h.operator.hosts) == 0 && !h.operator.pause.remembered(time.Now()) {
		delete(d.operators, h.operator.key)
	}
}

// sweep forgets the pauses that matter no more, so that their number is bounded
// by what happens in some hours. It waits until they may have doubled.
func (d *Destinations) sweep(now time.Time) {
	if len(d.operators)+len(d.mailboxes) < d.sweepAt {
		return
	}
	for key, o := range d.operators {
		if len(o.hosts) == 0 && !o.pause.remembered(now) {
			delete(d.operators, key)
		}
	}
	for key, m := range d.mailboxes {
		if m.turns == 0 && !m.pause.remembered(now) {
			delete(d.mailboxes, key)
		}
	}
	d.sweepAt = 1000 + 2*(len(d.operators)+len(d.mailboxes))
}

// pauseOperator opens the breaker of an operator after what it said, and returns
// its end. Connections that are kept are ended: they count where it counts.
func (d *Destinations) pauseOperator(o *operator, said *reply.Reply) time.Time {
	now := time.Now()
	d.mu.Lock()
	opened := o.pause.begin(now, said)
	p := o.pause
	var idle []*conn
	for _, h := range o.hosts {
		idle = append(idle, d.dismiss(h)...)
	}
	d.sweep(now)
	d.mu.Unlock()
	hangUp(idle)
	if opened {
		d.log.Warn("destination paused", "dest", o.key, "until", p.until, "step", p.step, "text", p.reason)
		d.save(o)
	}
	return p.until
}

// pauseMailbox does the same for one mailbox. It does not outlive the process:
// whoever has an SRS address bounced decides how many mailboxes there are.
func (d *Destinations) pauseMailbox(m *mailbox, said *reply.Reply) time.Time {
	now := time.Now()
	d.mu.Lock()
	opened := m.pause.begin(now, said)
	p := m.pause
	d.sweep(now)
	d.mu.Unlock()
	if opened {
		d.log.Info("mailbox paused", "to", m.key, "until", p.until, "step", p.step, "text", p.reason)
	}
	return p.until
}

// save writes the pause of an operator. A failure is no reason to send on.
func (d *Destinations) save(o *operator) {
	if d.pauses == nil {
		return
	}
	d.saving.Lock()
	defer d.saving.Unlock()
	d.mu.Lock()
	p := store.Pause{Key: pauseKey + o.key, Until: o.pause.until, Step: o.pause.step, Reason: o.pause.reason}
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := d.pauses.SavePause(ctx, p); err != nil {
		d.log.Error("pause not written: it will not survive a restart", "dest", o.key, "err", err)
	}
}
