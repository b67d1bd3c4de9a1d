package forward

import (
	"context"
	"slices"
	"time"

	"onward/internal/address"
	"onward/internal/dsn"
	"onward/internal/reply"
	"onward/internal/smtpclient"
	"onward/internal/store"
)

// A class is what may become of a sender's mail after we have answered for it
// (RELIABILITY.md 2.2, DESIGN.md 9.3).
type class int

const (
	bounceable   class = iota // a later failure is reported to the sender
	null                      // a later failure is held for the operator: a bounce is never bounced
	unbounceable              // nobody can be told of a later failure, so the sender keeps the message
)

func (m *mail) class() class {
	switch {
	case m.env.From.IsNull() || len(m.env.Recipients) > 0 && m.env.Recipients[0].SRS:
		return null
	case m.env.Bounceable:
		return bounceable
	}
	return unbounceable
}

// A mixture is what the targets of one message said: whether any delivered it,
// refused it, and could not yet (deferred, or no answer to the final dot).
type mixture struct{ delivered, refused, pending bool }

// An ending is how a session ends.
type ending int

const (
	forwarded ending = iota // 2xx: everybody has it
	refused                 // the destination's 5xx; the sender tells its user
	deferred                // the destination's 4xx, or 451; the sender keeps it
	owned                   // 2xx: what was not delivered is ours, in the queue
)

// endings is the outcome table of RELIABILITY.md 2.2. Where the sender keeps a
// message that somebody has already, or would lose it to a refusal, it becomes
// ours instead, whoever wrote it.
var endings = map[mixture]map[class]ending{
	{false, false, false}: {bounceable: forwarded, null: forwarded, unbounceable: forwarded}, // no target: an alias that discards
	{true, false, false}:  {bounceable: forwarded, null: forwarded, unbounceable: forwarded},
	{false, true, false}:  {bounceable: refused, null: refused, unbounceable: refused},
	{false, false, true}:  {bounceable: owned, null: owned, unbounceable: deferred},
	{false, true, true}:   {bounceable: owned, null: owned, unbounceable: deferred},
	{true, true, false}:   {bounceable: owned, null: owned, unbounceable: owned},
	{true, false, true}:   {bounceable: owned, null: owned, unbounceable: owned},
	{true, true, true}:    {bounceable: owned, null: owned, unbounceable: owned},
}

// conclude makes one answer of what became of all targets, and stores what is
// ours from now on. Whoever hung up has heard nothing and owns all of it still;
// so does everybody when the queue cannot take it, and then what was delivered is
// remembered on disk, so that the sender's next try does not deliver it again.
func (f *Forwarder) conclude(ctx context.Context, m *mail) (*reply.Reply, bool) {
	by := map[smtpclient.Result][]*delivery{}
	for _, d := range m.deliveries {
		by[d.outcome.Result] = append(by[d.outcome.Result], d)
	}
	done, no := by[smtpclient.Delivered], by[smtpclient.Refused]
	pending := append(by[smtpclient.Deferred], by[smtpclient.Unknown]...)
	f.remember(m, done)
	switch endings[mixture{len(done) > 0, len(no) > 0, len(pending) > 0}][m.class()] {
	case forwarded:
		return m.delivered(done), false
	case refused:
		return m.relay(no[0]), false
	case deferred:
		return m.relay(pending[0]), false
	}
	if m.env.Gone() { // it hears nothing of this; what was delivered stays remembered
		return reply.New(451, "4.4.2", "you hung up before the answer, please try again"), false
	}
	if err := f.own(ctx, m, pending, no); err != nil {
		f.Log.Error("the queue cannot take a message, its sender is asked to keep it", "id", m.env.ID, "err", err)
		f.save(ctx, m.env.ID)
		return keep(m, append(pending, no...)[0]), false
	}
	return m.taken(done, pending, no), true
}

// keep asks the sender to try again. Where somebody has the message a refusal
// must not end it.
func keep(m *mail, d *delivery) *reply.Reply {
	r := m.relay(d)
	if r.Permanent() {
		return &reply.Reply{Code: 451, Status: "4.3.0", Text: "not all recipients could be served, please try again: " + r.Text}
	}
	return r
}

// own puts on disk what was not delivered: attempts to come, and refusals that
// the sender is told of by a report, or that are held where it may not be. With
// each goes where all of the message went, as a report may not tell of that.
func (f *Forwarder) own(ctx context.Context, m *mail, pending, no []*delivery) error {
	private := m.domains()
	var items []*store.Item
	for _, d := range append(pending, no...) {
		item := m.item(d)
		item.Private = private
		items = append(items, item)
	}
	for _, item := range items[len(pending):] {
		item.Refused, item.Next = true, time.Now()
	}
	return f.Queue.Add(ctx, m.msg.Rest(), items)
}

// domains lists the domains of all targets, each once.
func (m *mail) domains() []address.Domain {
	var all []address.Domain
	for _, d := range m.deliveries {
		all = append(all, d.target.Domain)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// item is what the queue must know of a delivery.
func (m *mail) item(d *delivery) *store.Item {
	item := &store.Item{
		Message:    m.env.ID,
		Kind:       store.Mail,
		Sender:     m.env.From,
		Bounceable: m.class() == bounceable,
		From:       d.from,
		Recipient:  d.recipients[0].Address,
		Target:     d.target,
		Header:     d.copy.Header(),
		Size:       d.copy.Size(),
		EightBit:   d.copy.EightBit(),
		UTF8:       d.needsUTF8(m.env),
		Arrived:    m.env.Arrived,
		Expires:    m.env.Arrived.Add(m.route.Lifetime),
		State:      store.Waiting,
		Host:       d.outcome.Host,
		Said:       words(d.outcome),
		Paused:     d.outcome.Limited,
		Next:       d.outcome.NotBefore, // zero: as the queue has it
	}
	for _, r := range d.recipients[1:] {
		if r.Address.Fold() != item.Recipient.Fold() && !slices.Contains(item.Also, r.Address) {
			item.Also = append(item.Also, r.Address)
		}
	}
	if d.outcome.Tried {
		item.Attempts, item.Tried = 1, 1
	}
	return item
}

// words are the destination's own where it spoke; else ours, with the cause, since
// only the operator reads them.
func words(out smtpclient.Outcome) string {
	switch {
	case out.Said != nil:
		return out.Said.String()
	case out.Reply.Err != nil && out.Result != smtpclient.Refused:
		return out.Reply.String() + ": " + reply.Clean(out.Reply.Err.Error())
	}
	return out.Reply.String()
}

// delivered answers a message that every target has.
func (m *mail) delivered(done []*delivery) *reply.Reply {
	switch len(done) {
	case 0:
		return reply.New(250, "2.0.0", "accepted")
	case 1:
		return &reply.Reply{Code: 250, Status: "2.0.0", Text: "forwarded: " + m.relay(done[0]).Text}
	}
	return reply.New(250, "2.0.0", "forwarded to %d mailboxes", len(done))
}

// taken answers a message that we own, wholly or in part.
func (m *mail) taken(done, pending, no []*delivery) *reply.Reply {
	all := len(done) + len(pending) + len(no)
	failed := "a report follows"
	if m.class() != bounceable { // nobody may be told, or there is nobody
		failed = "held for the postmaster"
	}
	switch {
	case all == 1:
		return reply.New(250, "2.0.0", "queued, will be tried again: %s", m.relay(pending[0]).Text)
	case len(no) == 0:
		return reply.New(250, "2.0.0", "forwarded to %d of %d mailboxes, queued for the others", len(done), all)
	case len(pending) == 0:
		return reply.New(250, "2.0.0", "forwarded to %d of %d mailboxes, %s for the others", len(done), all, failed)
	}
	return reply.New(250, "2.0.0", "forwarded to %d of %d mailboxes, queued for %d, %s for %d", len(done), all, len(pending), failed, len(no))
}

// relay is the destination's answer as the sender may hear it: code, status
// and words kept, the private target, by whatever name the destination calls it,
// replaced by the address that was written to (STANDARDS.md N3).
func (m *mail) relay(d *delivery) *reply.Reply {
	r := *d.outcome.Reply
	if d.outcome.Said == nil {
		r.Text = dsn.HideNames(r.Text, d.target.Domain, d.outcome.Host)
	}
	r.Text = reply.Clean(r.Text)
	for _, other := range m.deliveries { // one target may name another
		r.Text = dsn.Hide(r.Text, other.target, d.recipients[0].Address)
	}
	return &r
}
