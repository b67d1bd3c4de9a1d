package smtpclient

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/reply"
	"onward/internal/tlspolicy"
)

// A turn is the way of one message through the hosts of its target's domain: it
// waits until one of them has a slot free, holds that while it talks to the
// host, and goes on to the next. One goroutine uses it, from begin to end.
type turn struct {
	d       *Destinations // nil: every host is free at once
	limits  Limits
	mailbox *mailbox
	hosts   []*host           // all of them, for end
	left    []*host           // not yet visited, in the order to try them
	at      *host             // where it holds a slot
	last    Outcome           // there
	rules   *tlspolicy.Domain // what TLS the hosts must offer; nil: none
	counted bool              // among mailbox.inUse

	// Guarded by d.mu, because whoever gives a slot back hands it to the first
	// turn that waits for it.
	settled bool          // next has its answer: a slot, or held
	held    *held         // why there is no slot
	again   time.Duration // the pace of the mailbox; look again then
	called  chan struct{} // receives when settled by another turn
}

// A held is why a message was not tried.
type held struct {
	host  string
	until time.Time // zero: no slot came free in time
	reply *reply.Reply
}

// outcome returns what becomes of the message.
func (h *held) outcome() Outcome {
	return Outcome{Result: Deferred, Reply: h.reply, Step: stepWait, Host: h.host, NotBefore: h.until, Limited: !h.until.IsZero()}
}

// begin makes a turn. It has to be ended.
func (d *Destinations) begin(to address.Mailbox, hosts []string, limits Limits) *turn {
	t := &turn{d: d, limits: limits, called: make(chan struct{}, 1)}
	if d == nil {
		for _, name := range hosts {
			t.left = append(t.left, &host{name: name})
		}
		return t
	}
	key := to.Fold().String()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range hosts {
		if h := d.host(name); !slices.Contains(t.hosts, h) {
			h.turns++
			t.hosts = append(t.hosts, h)
		}
	}
	t.left = slices.Clone(t.hosts)
	if t.mailbox = d.mailboxes[key]; t.mailbox == nil {
		t.mailbox = &mailbox{key: key}
		d.mailboxes[key] = t.mailbox
	}
	t.mailbox.turns++
	return t
}

// rule returns what TLS a host must offer.
func (t *turn) rule(ctx context.Context, host string) *tlspolicy.Rule {
	if t.rules == nil {
		return tlspolicy.Opportunistic(host)
	}
	return t.rules.Host(ctx, host)
}

// end gives everything back.
func (t *turn) end() {
	if t.d == nil {
		return
	}
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	now := time.Now()
	m := t.mailbox
	if m.turns--; t.counted {
		m.inUse--
	}
	known := m.pause.remembered(now) || now.Before(m.next)
	if m.turns == 0 && (!known || len(t.d.mailboxes) > maxMailboxes) {
		delete(t.d.mailboxes, m.key)
	}
	t.leave(now)
	for _, h := range t.hosts {
		h.turns--
		h.operator.call(now)
		t.d.tidy(h)
	}
}

// next gives the slot it holds back, waits for one at any of the hosts that are
// left, and returns that host's name. It waits until ctx ends, and no longer
// than patience when that is not zero. Hosts whose operator is paused are not
// waited for.
func (t *turn) next(ctx context.Context, patience time.Duration) (string, *held) {
	if t.d == nil {
		t.at, t.left = t.left[0], t.left[1:]
		return t.at.name, nil
	}
	if patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	t.leave(time.Now())
	t.settled, t.held = false, nil
	if t.admit(time.Now()); !t.settled {
		t.queue()
		defer t.unqueue()
		for !t.settled && ctx.Err() == nil {
			if t.wait(ctx); !t.settled {
				t.admit(time.Now())
			}
		}
		if ctx.Err() != nil { // also when its turn has come: there is no time left to use it
			t.leave(time.Now())
			return "", &held{host: t.hosts[0].name, reply: reply.New(451, "4.4.5", "too many messages are on their way to the destination, please try again later")}
		}
	}
	if t.held != nil {
		return "", t.held
	}
	return t.at.name, nil
}

// wait lets the others go on until there may be something new.
func (t *turn) wait(ctx context.Context) {
	var pace <-chan time.Time
	if t.again > 0 {
		timer := time.NewTimer(t.again)
		defer timer.Stop()
		pace = timer.C
	}
	t.d.mu.Unlock()
	defer t.d.mu.Lock()
	select {
	case <-t.called:
	case <-pace:
	case <-ctx.Done():
	}
}

// queue and unqueue change where t waits: at every operator of its hosts.
func (t *turn) queue() {
	for _, h := range t.left {
		if o := h.operator; !slices.Contains(o.waiting, t) {
			o.waiting = append(o.waiting, t)
		}
	}
}

func (t *turn) unqueue() {
	for _, h := range t.hosts {
		o := h.operator
		o.waiting = slices.DeleteFunc(o.waiting, func(other *turn) bool { return other == t })
	}
}

// call settles the turns that wait at o and need not any more, in the order of
// their coming.
func (o *operator) call(now time.Time) {
	for _, t := range o.waiting {
		if t.settled {
			continue // by another operator
		}
		if t.admit(now); t.settled {
			select {
			case t.called <- struct{}{}:
			default: // it has not yet read that of an earlier call
			}
		}
	}
}

// admit settles t if that is possible just now.
func (t *turn) admit(now time.Time) {
	if h := t.paused(now); h != nil {
		t.hold(h, h.operator.pause, reply.New(451, "4.7.0", "the destination wants no more messages from us for now, please try again later"))
		return
	}
	if t.mailbox.pause.open(now) {
		t.hold(t.left[0], t.mailbox.pause, reply.New(450, "4.2.1", "the mailbox takes no more messages for now, please try again later"))
		return
	}
	if !t.counted && !t.paced(now) {
		return
	}
	for _, h := range t.left {
		if !h.operator.pause.open(now) && t.free(h, now) {
			t.enter(h, now)
			return
		}
	}
}

// paused returns the host that will be the first to take something again, when
// all that are left are paused.
func (t *turn) paused(now time.Time) *host {
	first := t.left[0]
	for _, h := range t.left {
		if !h.operator.pause.open(now) {
			return nil
		}
		if h.operator.pause.until.Before(first.operator.pause.until) {
			first = h
		}
	}
	return first
}

func (t *turn) hold(h *host, p pause, r *reply.Reply) {
	t.settled, t.held = true, &held{host: h.name, until: p.until, reply: r}
}

// paced reports whether the limits per mailbox let t go on, and otherwise sets
// again if they will at a certain time.
func (t *turn) paced(now time.Time) bool {
	m := t.mailbox
	if t.again = 0; !t.bounded(now) {
		return true
	}
	if per := t.limits.PerMailbox; per > 0 && m.inUse >= per {
		return false
	}
	if t.limits.PerMailboxPerSecond > 0 {
		t.again = max(0, m.next.Sub(now))
	}
	return t.again == 0
}

// bounded reports whether the limits per mailbox apply: only where we have been
// told to slow down (DESIGN.md 9.12).
func (t *turn) bounded(now time.Time) bool {
	return t.mailbox.pause.remembered(now) ||
		slices.ContainsFunc(t.hosts, func(h *host) bool { return h.operator.pause.remembered(now) })
}

// free reports whether a connection to h may be used beside those that are.
func (t *turn) free(h *host, now time.Time) bool {
	return h.inUse < t.slots(h) && h.operator.pause.room(now, h.operator.inUse)
}

// slots returns how many connections to h there may be.
func (t *turn) slots(h *host) int {
	if t.limits.PerDestination == 0 {
		return math.MaxInt
	}
	return min(t.limits.PerDestination, h.slots)
}

// enter takes a slot at h.
func (t *turn) enter(h *host, now time.Time) {
	t.settled, t.at, t.last = true, h, Outcome{}
	t.left = slices.DeleteFunc(t.left, func(other *host) bool { return other == h })
	h.inUse++
	h.operator.inUse++
	if t.counted {
		return
	}
	t.counted = true
	t.mailbox.inUse++
	if rate := t.limits.PerMailboxPerSecond; rate > 0 && t.bounded(now) {
		t.mailbox.next = now.Add(time.Second / time.Duration(rate))
	}
}

// leave gives the slot back, if t holds one, and notes what the host has proved
// to bear.
func (t *turn) leave(now time.Time) {
	h := t.at
	if h == nil {
		return
	}
	t.at = nil
	h.inUse--
	h.operator.inUse--
	switch said := t.last.Said; {
	case said == nil:
		if (t.last.Result == Deferred || t.last.Result == Unknown) && t.last.Step != stepLookup {
			h.slots = min(h.slots, firstSlots) // it is away: see RELIABILITY 76
		}
	case said.Code == 421:
		h.slots = max(1, min(h.slots, h.inUse)) // so many were too many
	case !beforeMail(t.last.Step):
		h.slots = min(h.slots+1, maxSlots)
	}
	if t.last.Result == Delivered {
		h.operator.pause.succeed(now, cmp.Or(t.limits.PerDestination, fullRamp))
	}
	h.operator.call(now)
}

// learn notes the outcome of an attempt at the host where t is, and completes it
// with the pause that follows from it. ours are the names by which a destination
// knows us.
func (t *turn) learn(out Outcome, ours ...string) Outcome {
	if out.rest == theSigner {
		out.rest = signer(out.Said.Text, ours)
	}
	t.last = out
	if t.d == nil {
		return out
	}
	switch out.rest {
	case theMailbox:
		out.NotBefore = t.d.pauseMailbox(t.mailbox, out.Said)
	case theDestination:
		out.NotBefore = t.d.pauseOperator(t.at.operator, out.Said)
	}
	return out
}

// signer tells who is to rest when a DKIM domain is over its quota: everybody
// if it is ours, else the message of that stranger.
func signer(text string, ours []string) scope {
	for _, name := range ours {
		if name != "" && strings.Contains(strings.ToLower(text), Operator(name)) {
			return theDestination
		}
	}
	return thisMessage
}
