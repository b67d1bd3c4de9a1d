package queue

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"onward/internal/reply"
	"onward/internal/smtpclient"
	"onward/internal/store"
)

const (
	attemptTime = time.Hour        // for a whole attempt; each step has a deadline of its own
	leaseTime   = 10 * time.Minute // RELIABILITY 87
	renewEvery  = 4 * time.Minute
	poison      = 3 // attempts begun without an end (RELIABILITY 89)
)

// A result is what the schedule learns from an attempt.
type result struct {
	at      *destination
	item    *store.Item
	outcome smtpclient.Outcome // its Result is 0 when it says nothing of the destination
	trouble error              // of the store: there was no attempt
}

// An attempt is one try at one item.
type attempt struct {
	*Queue
	item   *store.Item
	began  time.Time
	header []byte
	out    smtpclient.Outcome
	lease  lease
	broken error // what the bytes of the message ended with, if not with io.EOF
	fair   bool  // it was asked, and neither trouble of ours nor our own end spoilt that
}

// attempt tries one item and puts what comes of it on the disk. A panic in it is
// the item's, never the end of the process (RELIABILITY 89).
func (q *Queue) attempt(ctx context.Context, item *store.Item) (r result) {
	a := &attempt{Queue: q, item: item, began: q.clock()}
	defer func() {
		if p := recover(); p != nil {
			a.panicked(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
		r.item, r.outcome = item, a.out
	}()
	if item.Unfinished >= poison {
		a.hold(ctx, fmt.Sprintf("not tried again: %d attempts were begun and never ended", item.Unfinished))
		return result{}
	}
	if ok, err := a.begin(ctx); !ok {
		return result{trouble: err}
	}
	a.deliver(ctx)
	a.conclude(ctx)
	return result{}
}

// begin writes that there is an attempt, before it is made. When it reports
// false without an error, somebody else has changed the item.
func (a *attempt) begin(ctx context.Context) (bool, error) {
	until := a.began.Add(leaseTime)
	next := a.began.Add(backoff(a.item.Tried + 1))
	ok, err := a.Store.Begin(ctx, a.item, a.began, store.Lease{Owner: a.Owner, Until: until, Next: next})
	if !ok {
		return false, err
	}
	a.lease = lease{store: a.Store, clock: a.clock, item: *a.item, until: until}
	return true, nil
}

// deliver makes the attempt and sets out.
func (a *attempt) deliver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	defer a.lease.keep(cancel)()
	content, err := a.Store.Content(ctx, a.item)
	if err != nil {
		a.broken = err
		a.out = smtpclient.Outcome{Result: smtpclient.Deferred, Reply: reply.Trouble(err)}
		return
	}
	a.header = content.Header
	if a.item.Refused { // in the session: its destination is not asked again (RELIABILITY 39)
		said := cmp.Or(reply.Parse(a.item.Said), reply.New(550, "5.0.0", "refused"))
		a.out = smtpclient.Outcome{Result: smtpclient.Refused, Reply: said, Said: said, Host: a.item.Host}
		return
	}
	a.out = a.Route().Deliverer.Deliver(ctx, &smtpclient.Transaction{
		ID:       a.item.Message,
		From:     a.item.From,
		To:       a.item.Target,
		Size:     a.item.Size,
		EightBit: a.item.EightBit,
		UTF8:     a.item.UTF8,
		AnyTLS:   a.item.Kind == store.TLSReport, // it may be about why there is none
		Open: func() io.Reader {
			return io.MultiReader(bytes.NewReader(a.header), &guarded{a: a, r: content.Rest(ctx)})
		},
	})
}

// A guarded reader holds the final dot back from a message that is not whole
// (RELIABILITY 91), or not ours any more (RELIABILITY.md 2.3, 87).
type guarded struct {
	a *attempt
	r io.Reader
}

func (g *guarded) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	if err == io.EOF {
		err = cmp.Or(g.a.lease.check(), err)
	}
	if err != nil && err != io.EOF {
		g.a.broken = err
	}
	return n, err
}

// conclude puts on the disk what came of the attempt.
func (a *attempt) conclude(ctx context.Context) {
	now := a.clock()
	tried := a.item.Tried
	if a.fair = a.out.Tried && a.broken == nil && ctx.Err() == nil; a.fair {
		tried++
	}
	switch out := a.out; {
	case out.Result == smtpclient.Delivered:
		a.finish(ctx, Delivered, "")
	case errors.Is(a.broken, store.ErrDamaged):
		a.hold(ctx, a.broken.Error())
	case out.Result == smtpclient.Refused:
		a.fail(ctx, now, false)
	case a.fair && expired(a.item.Expires, tried, now):
		a.fail(ctx, now, true)
	default:
		a.postpone(ctx, nextAttempt(out, tried, now))
	}
}

// fail ends an item that cannot be delivered: by a report to its sender, or where
// there is nobody to report to, by holding it (DESIGN.md 9.3, RELIABILITY 29, 30).
func (a *attempt) fail(ctx context.Context, now time.Time, expired bool) {
	reason := "refused: " + words(a.out)
	if expired {
		reason = fmt.Sprintf("not delivered since %s: %s", a.item.Arrived.UTC().Format(time.DateTime), words(a.out))
	}
	switch {
	case a.item.Kind != store.Mail:
		a.finish(ctx, Dropped, reason)
	case a.item.Refused && !a.item.Bounceable && a.crowded(ctx):
		a.finish(ctx, Dropped, "known to the journal alone, as the queue is half full: "+reason)
	case !a.item.Bounceable || a.item.Sender.IsNull():
		a.hold(ctx, reason)
	case !a.reports.take(a.Route(), a.item.Sender.Mailbox, now):
		a.hold(ctx, "its sender was not told, as there were too many reports: "+reason)
	default:
		a.report(ctx, now, expired, reason)
	}
}

// crowded reports whether the queue is more than half full. From then on what was
// refused for good of a message that another target has, by a sender whom nobody
// may tell, stays in the journal alone (DESIGN.md 9.3): strangers can make such
// items at will, and must not keep everybody else's out.
func (a *attempt) crowded(ctx context.Context) bool {
	stats, err := a.Store.Stats(ctx)
	return err == nil && a.Size > 0 && stats.Bytes > a.Size/2
}

// report ends an item by a report to its sender.
func (a *attempt) report(ctx context.Context, now time.Time, expired bool, reason string) {
	report, rest, err := compose(a.Route(), a.item, a.header, a.out, expired, now)
	if err == nil && len(report) == 0 {
		err = errors.New("its address leads nowhere")
	}
	if err != nil {
		a.hold(ctx, fmt.Sprintf("its sender was not told: %v: %s", err, reason))
		return
	}
	a.settle(ctx, Reported, reason, func(ctx context.Context) error {
		return a.Store.Finish(ctx, a.item, report, bytes.NewReader(rest))
	})
	a.poke()
}

func (a *attempt) finish(ctx context.Context, fate Fate, reason string) {
	a.settle(ctx, fate, reason, func(ctx context.Context) error {
		return a.Store.Finish(ctx, a.item, nil, nil)
	})
}

func (a *attempt) hold(ctx context.Context, reason string) {
	a.settle(ctx, Held, reason, func(ctx context.Context) error {
		return a.Store.SetAside(ctx, a.item, reason, a.record(time.Time{}))
	})
}

func (a *attempt) postpone(ctx context.Context, next time.Time) {
	a.settle(ctx, Waits, "", func(ctx context.Context) error {
		return a.Store.Postpone(ctx, a.item, a.record(next))
	})
}

func (a *attempt) record(next time.Time) store.Attempt {
	if a.out.Result == 0 { // what is known of the attempt before stays
		return store.Attempt{Host: a.item.Host, Said: a.item.Said}
	}
	host, said := a.out.Host, words(a.out)
	if !a.out.Tried && a.item.Said != "" { // what the destination said is why it waits
		host, said = a.item.Host, a.item.Said
	}
	return store.Attempt{Tried: a.fair, Next: next, Paused: a.out.Limited, Host: host, Said: said}
}

// settle puts the end of an attempt on the disk and then tells of it. When that
// fails, the item stays under way and nothing is done with it but to write
// again, since its destination may have it (RELIABILITY 40). ErrLost means that
// somebody else has the item, so that there is nothing to write.
func (a *attempt) settle(ctx context.Context, fate Fate, reason string, write func(context.Context) error) {
	took := a.clock().Sub(a.began)
	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		err := write(context.WithoutCancel(ctx))
		if err == nil {
			break
		}
		a.log("cannot record what became of an item", fate, reason, err)
		if errors.Is(err, store.ErrLost) || !sleep(ctx, wait) {
			return
		}
	}
	a.log(string(fate), fate, reason, nil)
	a.Record(Event{Item: a.item, Began: a.began, Took: took, Outcome: a.out, Fate: fate, Reason: reason})
}

// panicked leaves the item as begin wrote it, with an attempt that has no end.
// The third one is the last.
func (a *attempt) panicked(err error) {
	a.log("panic", Waits, "", err)
	if a.item.Unfinished >= poison {
		a.out = smtpclient.Outcome{}
		a.hold(context.Background(), fmt.Sprintf("a mistake of ours stopped %d attempts", a.item.Unfinished))
	}
}

// log writes one line of the item's story.
func (a *attempt) log(event string, fate Fate, reason string, err error) {
	level := slog.LevelInfo
	switch {
	case err != nil:
		level = slog.LevelError
	case fate == Held || fate == Dropped:
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{
		slog.String("id", a.item.Message), slog.Int64("item", a.item.ID), slog.String("kind", string(a.item.Kind)),
		slog.String("from", a.item.Sender.String()), slog.String("to", a.item.Recipient.String()), slog.String("target", a.item.Target.String()),
		slog.String("dest", a.out.Host), slog.String("result", a.out.Result.String()), slog.Int("attempts", a.item.Attempts),
	}
	if said := cmp.Or(a.out.Said, a.out.Reply); said != nil {
		attrs = append(attrs, slog.Int("code", said.Code), slog.String("status", said.Status))
	}
	if reason != "" {
		attrs = append(attrs, slog.String("reason", reason))
	}
	if err != nil {
		attrs = append(attrs, slog.Any("err", err))
	}
	a.Log.LogAttrs(context.Background(), level, event, attrs...)
}

// words returns what is kept of an outcome: the destination's words, or ours.
func words(out smtpclient.Outcome) string {
	switch {
	case out.Said != nil:
		return out.Said.String()
	case out.Reply == nil:
		return ""
	case out.Reply.Err != nil: // only the operator reads it
		return out.Reply.String() + ": " + reply.Clean(out.Reply.Err.Error())
	}
	return out.Reply.String()
}

// sleep reports whether it has slept to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// A lease is our right to try an item. While an attempt lasts it is renewed; who
// could not renew it, because the process stood still, must ask before the final
// dot whether somebody else has the item.
type lease struct {
	store *store.Store
	clock func() time.Time

	mu    sync.Mutex
	item  store.Item // a copy, as Extend changes it
	until time.Time
	timer *time.Timer
	ended bool
}

// keep renews the lease until stop is called. When it is lost, it calls lost.
func (l *lease) keep(lost func()) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = time.AfterFunc(renewEvery, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.ended {
			return
		}
		if errors.Is(l.extend(), store.ErrLost) {
			lost()
			return
		}
		l.timer.Reset(renewEvery)
	})
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ended = true
		l.timer.Stop()
	}
}

// check returns nil while the lease is ours.
func (l *lease) check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.clock().Round(0).Before(l.until.Round(0)) {
		return nil
	}
	return l.extend()
}

func (l *lease) extend() error {
	until := l.clock().Add(leaseTime)
	if err := l.store.Extend(context.Background(), &l.item, until); err != nil {
		return err
	}
	l.until = until
	return nil
}
