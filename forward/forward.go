// Package forward hands a message on to its targets while the sender waits, and
// queues what cannot be handed on now.
//
// Per target it makes one outgoing copy (copy.go): the fields we put on top, and
// below them the bytes as they came, or with From rewritten where the message
// could not pass DMARC otherwise; proved, signed and under a return path of ours.
// It makes one attempt at each target. What the destinations said becomes the one
// answer to the sender, by the table in answer.go.
//
// What must stay true: a 2xx is answered only when a destination has the message
// or the queue has it on disk. Mail goes into the queue only where a failure can
// rightly be reported to the sender, or where there is nobody to tell, and then
// the operator is (DESIGN.md 9.3). Everything else stays with the sender, who
// hears so.
package forward

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"onward/internal/address"
	"onward/internal/loop"
	"onward/internal/mailauth"
	"onward/internal/mailauth/dkim"
	"onward/internal/message"
	"onward/internal/reply"
	"onward/internal/signing"
	"onward/internal/smtpclient"
	"onward/internal/store"
)

// inParallel is how many attempts of one message are made at a time.
const inParallel = 8

// A Deliverer makes one attempt at one target. Its context bounds the time
// until the final dot.
type Deliverer interface {
	Deliver(ctx context.Context, t *smtpclient.Transaction) smtpclient.Outcome
}

// A ReturnPath writes the envelope sender of what we forward for a recipient.
// Errors are *reply.Reply.
type ReturnPath func(ctx context.Context, from address.ReversePath, recipient address.Domain) (address.ReversePath, error)

// A ReplyAddress gives the address in our domain that stands for an author in a
// rewritten From (DESIGN.md 9.5). Errors are *reply.Reply.
type ReplyAddress func(ctx context.Context, domain address.Domain, alias, author address.Mailbox) (address.Mailbox, error)

// A Queue keeps what cannot be delivered now, and decides when it is tried again
// where an item does not say. When Add returns nil, rest and all items are on disk.
type Queue interface {
	Add(ctx context.Context, rest io.Reader, items []*store.Item) error
}

// Route is how mail leaves us, and what a reload replaces. Signer and Seal may
// be nil: then nothing is signed or sealed.
type Route struct {
	Hostname     address.Domain
	Deliverer    Deliverer
	ReturnPath   ReturnPath
	Conceal      ReturnPath // a path from which nobody can read the sender
	ReplyAddress ReplyAddress
	Domain       func(recipient address.Domain) address.Domain // the SRS domain, in whose name we sign
	Signer       func(address.Domain) (*signing.Signer, error)
	Seal         func(target address.Domain) bool // whether a target wants an ARC set
	Marker       loop.Marker
	HideTargets  bool          // leave the target out of our fields
	RewriteAll   bool          // the relay takes From addresses of ours only
	QueueFirst   bool          // answer before the first attempt, where that may be
	DotBudget    time.Duration // until a destination has our final dot (RELIABILITY.md 5); from there on the Deliverer keeps the time
	Lifetime     time.Duration // of an item of the queue
}

// A Forwarder accepts messages for delivery. All fields are required.
type Forwarder struct {
	Route   func() Route // the one in force
	Queue   Queue
	Replies Replies
	Log     *slog.Logger

	// Record keeps what became of one attempt that began at a time, and ends now.
	Record func(id string, recipient, target address.Mailbox, out smtpclient.Outcome, began time.Time)

	delivered memory
}

// A mail is one message on its way through Accept.
type mail struct {
	env        *message.Envelope
	verdict    *mailauth.Verdict
	msg        *message.Message
	route      Route
	proof      *dkim.Proof
	body       *dkim.BodyHash    // in relaxed form; nil when nothing is signed
	signatures map[signed][]byte // ours, each made once
	deliveries []*delivery
}

// A delivery is one target of one message: the copy, and what became of it.
type delivery struct {
	target     address.Mailbox
	recipients []message.Recipient // those who lead to this target, at least one; the first decides for all
	from       address.ReversePath
	copy       *message.Message // as it goes out; shares the bytes of the body
	survivors  []dkim.Survivor  // of the signatures that passed
	rewritten  bool             // its From is ours
	outcome    smtpclient.Outcome
}

// Accept delivers the message to every target of the envelope, or queues it. It
// returns the answer for the sender, and whether any of it was queued. It does not
// end early when the sender hangs up: a destination that has the final dot may
// have the message.
func (f *Forwarder) Accept(ctx context.Context, env *message.Envelope, verdict *mailauth.Verdict, msg *message.Message) (answer *reply.Reply, queued bool) {
	m := &mail{env: env, verdict: verdict, msg: msg, route: f.Route()}
	if err := f.prepare(ctx, m); err != nil {
		return reply.From(err), false
	}
	attempts, cancel := context.WithTimeout(ctx, m.route.DotBudget)
	defer cancel()
	f.attemptAll(attempts, m)
	return f.conclude(ctx, m)
}

// attemptAll makes one attempt at each target, some at a time.
func (f *Forwarder) attemptAll(ctx context.Context, m *mail) {
	if len(m.deliveries) == 1 {
		f.attempt(ctx, m, m.deliveries[0]) // without a goroutine, whose stack would have to grow anew
		return
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, inParallel)
	for _, d := range m.deliveries {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			f.attempt(ctx, m, d)
		})
	}
	wg.Wait()
}

// attempt makes one attempt at one target, unless there is nothing to try. A
// panic is trouble of ours with one target, and never the end of the process
// (RELIABILITY 89).
func (f *Forwarder) attempt(ctx context.Context, m *mail, d *delivery) {
	defer func() {
		if p := recover(); p != nil {
			d.outcome = smtpclient.Outcome{Result: smtpclient.Unknown, Reply: reply.Trouble(panicError(p))}
			f.Log.Error("panic", "id", m.env.ID, "to", d.target, "err", d.outcome.Reply.Err)
		}
	}()
	if d.outcome.Result != 0 { // decided when the copy was made
		return
	}
	if said := f.recall(ctx, m, d); said != nil {
		d.outcome = smtpclient.Outcome{Result: smtpclient.Delivered, Reply: said}
		f.Log.Info("delivered before", "id", m.env.ID, "to", d.target)
		return
	}
	if m.route.QueueFirst && m.class() != unbounceable {
		d.outcome = smtpclient.Outcome{Result: smtpclient.Deferred, Reply: reply.New(451, "4.3.0", "not tried yet")}
		return
	}
	began := time.Now()
	d.outcome = m.route.Deliverer.Deliver(ctx, transaction(m.env, d))
	if d.outcome.Result == 0 {
		panic("an attempt without an outcome") // counted as none it would leave the message to nobody
	}
	f.Record(m.env.ID, d.recipients[0].Address, d.target, d.outcome, began)
}

// transaction describes one copy to the client. SMTPUTF8 is asked for only
// where the copy needs it (RFC 6531 3.4), so that most destinations need not
// offer it.
func transaction(env *message.Envelope, d *delivery) *smtpclient.Transaction {
	return &smtpclient.Transaction{
		ID:       env.ID,
		From:     d.from,
		To:       d.target,
		Size:     d.copy.Size(),
		EightBit: d.copy.EightBit(),
		UTF8:     d.needsUTF8(env),
		Open:     d.copy.Reader,
	}
}

// needsUTF8 reports whether an address of the copy, or with the sender's word a
// field of it, is in UTF-8.
func (d *delivery) needsUTF8(env *message.Envelope) bool {
	return !d.target.IsASCII() || !d.recipients[0].Address.IsASCII() || env.UTF8 && d.copy.HeaderEightBit()
}

func panicError(p any) error { return fmt.Errorf("panic: %v\n%s", p, debug.Stack()) }
