// Package forward hands a message on to its targets while the sender waits.
//
// Per target it makes one outgoing copy (the fields we put on top, and below
// them the bytes as they came), gives it a return path of ours, and makes one
// attempt. What the destinations said becomes the one answer to the sender, by
// the table in answer.go. Nothing is stored: whatever is not delivered still
// belongs to the sender, who hears so.
package forward

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"onward/internal/address"
	"onward/internal/message"
	"onward/internal/reply"
	"onward/internal/smtpclient"
)

// Budgets of RELIABILITY.md 5 and DESIGN.md 9.1. The sender may wait ten minutes
// after its final dot by the RFC, and waits less in practice: 280 s in all,
// with up to 20 s for authentication.
const (
	DotBudget    = 45 * time.Second  // until a destination has our final dot
	AnswerBudget = 215 * time.Second // from there until its answer, for the Deliverer to keep
	inParallel   = 8                 // attempts of one message at a time
)

// A Deliverer makes one attempt at one target. Its context bounds the time
// until the final dot.
type Deliverer interface {
	Deliver(ctx context.Context, t *smtpclient.Transaction) smtpclient.Outcome
}

// A ReturnPath writes the envelope sender of what we forward for a recipient.
// Errors are *reply.Reply.
type ReturnPath func(ctx context.Context, from address.ReversePath, recipient address.Domain) (address.ReversePath, error)

// Route is how mail leaves us, and what a reload replaces.
type Route struct {
	Deliverer  Deliverer
	ReturnPath ReturnPath
}

// A Forwarder accepts messages for delivery. All fields are required.
type Forwarder struct {
	Route func() Route // the one in force
	Log   *slog.Logger

	delivered memory
}

// A delivery is one target of one message: the copy, and what became of it.
type delivery struct {
	target     address.Mailbox
	recipients []message.Recipient // those who lead to this target, at least one
	from       address.ReversePath
	fields     []byte // ours, on top of the message
	outcome    smtpclient.Outcome
}

// Accept delivers the message to every target of the envelope and returns the
// answer for the sender, always a *reply.Reply. It does not end early when the
// sender hangs up: a destination that has the final dot may have the message.
func (f *Forwarder) Accept(ctx context.Context, env *message.Envelope, msg *message.Message) error {
	route := f.Route()
	deliveries, err := copies(ctx, route, env)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, DotBudget)
	defer cancel()
	f.attemptAll(ctx, route, env, msg, deliveries)
	return f.conclude(env, msg, deliveries)
}

// copies lists the targets of an envelope, each once (RELIABILITY.md 2.2,
// STANDARDS.md 3.1: the same message twice to one mailbox costs quota).
func copies(ctx context.Context, route Route, env *message.Envelope) ([]*delivery, error) {
	var list []*delivery
	byTarget := map[address.Mailbox]*delivery{}
	for _, recipient := range env.Recipients {
		for _, target := range recipient.Targets {
			if d := byTarget[target.Fold()]; d != nil {
				d.recipients = append(d.recipients, recipient)
				continue
			}
			from, err := route.ReturnPath(ctx, env.From, recipient.Address.Domain)
			if err != nil {
				return nil, err
			}
			d := &delivery{target: target, recipients: []message.Recipient{recipient}, from: from}
			byTarget[target.Fold()] = d
			list = append(list, d)
		}
	}
	for _, d := range list {
		d.fields = fields(env, d)
	}
	return list, nil
}

// attemptAll makes one attempt at each target, some at a time.
func (f *Forwarder) attemptAll(ctx context.Context, route Route, env *message.Envelope, msg *message.Message, deliveries []*delivery) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, inParallel)
	for _, d := range deliveries {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			f.attempt(ctx, route, env, msg, d)
		})
	}
	wg.Wait()
}

// attempt makes one attempt at one target. A panic is trouble of ours with one
// target, and never the end of the process (RELIABILITY 89).
func (f *Forwarder) attempt(ctx context.Context, route Route, env *message.Envelope, msg *message.Message, d *delivery) {
	defer func() {
		if p := recover(); p != nil {
			d.outcome = smtpclient.Outcome{Result: smtpclient.Unknown, Reply: reply.Trouble(panicError(p))}
			f.Log.Error("panic", "id", env.ID, "to", d.target, "err", d.outcome.Reply.Err)
		}
	}()
	if said, ok := f.delivered.recall(f.key(env, msg, d)); ok {
		d.outcome = smtpclient.Outcome{Result: smtpclient.Delivered, Reply: said}
		f.Log.Info("delivered before", "id", env.ID, "to", d.target)
		return
	}
	d.outcome = route.Deliverer.Deliver(ctx, transaction(env, msg, d))
}

// transaction describes one copy to the client. SMTPUTF8 is asked for only
// where the copy needs it (RFC 6531 3.4), so that most destinations need not
// offer it.
func transaction(env *message.Envelope, msg *message.Message, d *delivery) *smtpclient.Transaction {
	return &smtpclient.Transaction{
		ID:       env.ID,
		From:     d.from,
		To:       d.target,
		Size:     int64(len(d.fields)) + msg.Size(),
		EightBit: msg.EightBit() || eightBit(d.fields),
		UTF8:     !d.target.IsASCII() || eightBit(d.fields) || env.UTF8 && msg.HeaderEightBit(),
		Open: func() io.Reader {
			return io.MultiReader(bytes.NewReader(d.fields), msg.Reader())
		},
	}
}

func panicError(p any) error { return fmt.Errorf("panic: %v\n%s", p, debug.Stack()) }
