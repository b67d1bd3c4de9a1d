package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"onward/internal/address"
	"onward/internal/loop"
	"onward/internal/mailauth"
	"onward/internal/message"
	"onward/internal/reply"
	"onward/internal/resolver"
	"onward/internal/smtpclient"
	"onward/internal/store"
	"onward/internal/testmail"
)

func mailbox(t testing.TB, s string) address.Mailbox {
	t.Helper()
	m, err := address.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// envelope is a message from bob@sender.example to the recipients, each given
// as "alias>target,target".
func envelope(t testing.TB, recipients ...string) *message.Envelope {
	env := &message.Envelope{
		ID:       "01TEST",
		Arrived:  time.Now(),
		Client:   netip.MustParseAddr("192.0.2.1"),
		Helo:     "mail.sender.example",
		From:     address.ReversePath{Mailbox: mailbox(t, "bob@sender.example")},
		Gone:     func() bool { return false },
		Heard:    func() bool { return false },
		Received: []byte("Received: from mail.sender.example ([192.0.2.1])\r\n"),
	}
	for _, r := range recipients {
		alias, targets, _ := strings.Cut(r, ">")
		recipient := message.Recipient{Address: mailbox(t, alias)}
		for target := range strings.SplitSeq(targets, ",") {
			if target != "" {
				recipient.Targets = append(recipient.Targets, mailbox(t, target))
			}
		}
		env.Recipients = append(env.Recipients, recipient)
	}
	return env
}

func content(t testing.TB, s string) *message.Message {
	t.Helper()
	b := message.NewBuffer(t.TempDir())
	b.Write([]byte(s))
	m, err := b.Message()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// srsLike stands for the return path of the daemon.
func srsLike(_ context.Context, from address.ReversePath, recipient address.Domain) (address.ReversePath, error) {
	if from.IsNull() {
		return from, nil
	}
	return address.ReversePath{Mailbox: address.Mailbox{Local: "srs-" + from.Local, Domain: "mx." + recipient}}, nil
}

// A script answers for each target, and counts the attempts.
type script struct {
	mu       sync.Mutex
	results  map[string]smtpclient.Result // by target
	attempts map[string]int
}

func (s *script) Deliver(_ context.Context, t *smtpclient.Transaction) smtpclient.Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attempts == nil {
		s.attempts = map[string]int{}
	}
	target := t.To.String()
	s.attempts[target]++
	switch r := s.results[target]; r {
	case smtpclient.Delivered:
		return smtpclient.Outcome{Result: r, Reply: reply.New(250, "2.0.0", "kept for %s", target)}
	case smtpclient.Refused:
		return smtpclient.Outcome{Result: r, Reply: reply.New(550, "5.1.1", "%s is unknown", strings.ToUpper(target))}
	case smtpclient.Unknown:
		return smtpclient.Outcome{Result: r, Reply: reply.New(451, "4.4.2", "no answer")}
	case smtpclient.Deferred:
		return smtpclient.Outcome{Result: r, Reply: reply.New(452, "4.2.2", "%s is full", target)}
	}
	panic("unscripted target " + target)
}

// forwarder returns a Forwarder over a store of its own, whose attempts are the
// script's.
func (s *script) forwarder(t testing.TB) (*Forwarder, *store.Store) {
	return over(t, s)
}

func over(t testing.TB, deliverer Deliverer) (*Forwarder, *store.Store) {
	t.Helper()
	st, err := store.Open(t.Context(), t.TempDir(), store.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	route := Route{
		Hostname:   "mx.example.org",
		Deliverer:  deliverer,
		ReturnPath: srsLike,
		Domain:     func(address.Domain) address.Domain { return "mx.example.org" },
		Marker:     marker,
		DotBudget:  45 * time.Second,
		Lifetime:   5 * 24 * time.Hour,
		ReplyAddress: func(_ context.Context, domain address.Domain, _, author address.Mailbox) (address.Mailbox, error) {
			return address.Mailbox{Local: "reply-" + author.Local, Domain: domain}, nil
		},
	}
	return &Forwarder{
		Route: func() Route { return route }, Queue: st, Replies: st, Log: slog.New(slog.DiscardHandler),
		Record: func(string, address.Mailbox, address.Mailbox, smtpclient.Outcome, time.Time) {},
	}, st
}

var marker = loop.Marker{Secrets: []string{"a secret of the tests"}}

// accept gives a message to f, whose authentication found nothing.
func accept(t testing.TB, f *Forwarder, env *message.Envelope, msg *message.Message) *reply.Reply {
	t.Helper()
	answer, _ := f.Accept(t.Context(), env, &mailauth.Verdict{}, msg)
	return answer
}

// queued lists what the store has, as "target refused bounceable".
func queued(t testing.TB, st *store.Store) []string {
	t.Helper()
	items, err := st.Items(t.Context(), store.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	list := []string{}
	for _, i := range items {
		list = append(list, fmt.Sprint(i.Target, " ", i.Refused, " ", i.Bounceable))
	}
	slices.Sort(list)
	return list
}

// TestOutcomes holds the outcome table for every mixture of results of one to
// three targets and every class of sender, and that nothing is lost or told to
// the wrong one: what a target did not take is on disk, or the sender has it
// (RELIABILITY 2.2, 38).
func TestOutcomes(t *testing.T) {
	results := []smtpclient.Result{smtpclient.Delivered, smtpclient.Refused, smtpclient.Deferred, smtpclient.Unknown}
	targets := []string{"a@x.example", "b@x.example", "c@x.example"}
	cases := 0
	for _, sender := range []struct {
		name       string
		null, mine bool // the null sender, a bounceable one
	}{{"bounceable", false, true}, {"unbounceable", false, false}, {"null", true, false}} {
		for n := 1; n <= 3; n++ {
			for code := range pow(len(results), n) {
				s := &script{results: map[string]smtpclient.Result{}}
				count := map[smtpclient.Result]int{}
				want := []string{}
				for i, c := 0, code; i < n; i, c = i+1, c/len(results) {
					r := results[c%len(results)]
					s.results[targets[i]] = r
					count[r]++
					switch r {
					case smtpclient.Refused:
						want = append(want, fmt.Sprint(targets[i], " ", true, " ", sender.mine))
					case smtpclient.Deferred, smtpclient.Unknown:
						want = append(want, fmt.Sprint(targets[i], " ", false, " ", sender.mine))
					}
				}
				pending, done := count[smtpclient.Deferred]+count[smtpclient.Unknown], count[smtpclient.Delivered]
				owned := done > 0 && done < n || pending > 0 && (sender.mine || sender.null)
				wantCode := 2
				switch {
				case !owned && pending > 0:
					wantCode = 4
				case !owned && count[smtpclient.Refused] > 0:
					wantCode = 5
				}
				if !owned {
					want = []string{}
				}
				f, st := s.forwarder(t)
				env := envelope(t, "me@example.org>"+strings.Join(targets[:n], ","))
				env.Bounceable = sender.mine
				if sender.null {
					env.From = address.ReversePath{}
				}
				got := accept(t, f, env, content(t, "Subject: x\r\n\r\nhello\r\n"))
				if got.Code/100 != wantCode {
					t.Errorf("%s, %v: %v, want %dxx", sender.name, s.results, got, wantCode)
				}
				if have := queued(t, st); !slices.Equal(have, want) {
					t.Errorf("%s, %v: queued %v, want %v", sender.name, s.results, have, want)
				}
				if strings.Contains(strings.ToLower(got.Text), "@x.example") {
					t.Errorf("%v: the private target is told: %q", s.results, got.Text)
				}
				cases++
			}
		}
	}
	if cases != 3*(4+16+64) {
		t.Errorf("%d cases", cases)
	}
}

// TestHungUp holds that nothing is queued for a sender who hung up: it has heard
// nothing, and sends the message again (RELIABILITY 2.2).
func TestHungUp(t *testing.T) {
	s := &script{results: map[string]smtpclient.Result{"a@x.example": smtpclient.Delivered, "b@x.example": smtpclient.Deferred}}
	f, st := s.forwarder(t)
	env := envelope(t, "team@example.org>a@x.example,b@x.example")
	env.Bounceable, env.Gone = true, func() bool { return true }
	msg := content(t, "x: y\r\n")
	if got := accept(t, f, env, msg); got.Code != 451 || len(queued(t, st)) != 0 {
		t.Errorf("%v, queued %v", got, queued(t, st))
	}
	f.Answered(env.ID, false)
	env.Gone = func() bool { return false }
	f.delivered = memory{} // a restart
	if got := accept(t, f, env, msg); got.Code != 250 || len(queued(t, st)) != 1 || s.attempts["a@x.example"] != 1 {
		t.Errorf("%v, queued %v, attempts %v", got, queued(t, st), s.attempts)
	}
}

func pow(b, n int) int {
	p := 1
	for range n {
		p *= b
	}
	return p
}

// A fullQueue takes nothing.
type fullQueue struct{}

func (fullQueue) Add(context.Context, io.Reader, []*store.Item) error { return store.ErrFull }

// TestRetryReachesTheRest holds that while the queue takes nothing, a second try
// after 4xx brings no second copy to those who have the message, not after a
// restart either, that a final answer which was heard ends that memory, and that a
// message which differs in one octet is another (RELIABILITY 41, DESIGN.md 9.6).
func TestRetryReachesTheRest(t *testing.T) {
	s := &script{results: map[string]smtpclient.Result{"a@x.example": smtpclient.Delivered, "b@x.example": smtpclient.Deferred}}
	f, _ := s.forwarder(t)
	f.Queue = fullQueue{}
	env := envelope(t, "team@example.org>a@x.example,b@x.example")
	env.Bounceable = true
	try := func(body string, code, a, b int) {
		t.Helper()
		if got := accept(t, f, env, content(t, body)); got.Code != code {
			t.Errorf("got %v, want %d", got, code)
		}
		f.Answered(env.ID, true)
		if s.attempts["a@x.example"] != a || s.attempts["b@x.example"] != b {
			t.Errorf("attempts %v, want %d and %d", s.attempts, a, b)
		}
	}
	try("Message-ID: <1>\r\n\r\nx\r\n", 452, 1, 1)
	try("Message-ID: <1>\r\n\r\nx\r\n", 452, 1, 2)
	f.delivered = memory{} // a restart
	try("Message-ID: <1>\r\n\r\nx\r\n", 452, 1, 3)
	try("Message-ID: <1>\r\n\r\ny\r\n", 452, 2, 4)
	s.results["b@x.example"] = smtpclient.Refused
	try("Message-ID: <1>\r\n\r\nx\r\n", 451, 2, 5) // not 5xx: somebody has it
	s.results["b@x.example"] = smtpclient.Delivered
	try("Message-ID: <1>\r\n\r\nx\r\n", 250, 2, 6)
	try("Message-ID: <1>\r\n\r\nx\r\n", 250, 3, 7) // a new message now
	f.delivered = memory{}
	try("Message-ID: <1>\r\n\r\nx\r\n", 250, 4, 8) // and after a restart
	env.From = address.ReversePath{Mailbox: mailbox(t, "eve@sender.example")}
	try("Message-ID: <1>\r\n\r\ny\r\n", 250, 5, 9) // another sender
}

// TestAnswerLost holds that a sender who hung up before our 250 and sends the
// message again causes no second copy, and one who heard it does: that is a new
// message (RELIABILITY 35).
func TestAnswerLost(t *testing.T) {
	s := &script{results: map[string]smtpclient.Result{"a@x.example": smtpclient.Delivered}}
	f, _ := s.forwarder(t)
	msg := content(t, "x: y\r\n")
	for i, step := range []struct {
		heard, restart bool
		attempts       int
	}{
		{false, false, 1}, {false, false, 1}, {false, true, 1}, {true, false, 1}, {true, false, 2}, {false, true, 3}, {true, true, 3}, {true, true, 4},
	} {
		if step.restart {
			f.delivered = memory{}
		}
		env := envelope(t, "me@example.org>a@x.example")
		env.ID = fmt.Sprint("01", i)
		if got := accept(t, f, env, msg); got.Code != 250 || s.attempts["a@x.example"] != step.attempts {
			t.Errorf("step %d: %v, attempts %v", i, got, s.attempts)
		}
		f.Answered(env.ID, step.heard)
	}
	env := envelope(t, "me@example.org>a@x.example")
	env.ID, env.Heard = "connected", func() bool { return true } // and idle since
	for range 2 {
		accept(t, f, env, msg)
	}
	if s.attempts["a@x.example"] != 6 {
		t.Errorf("attempts %v: what was heard by a sender that is still there is not a second try", s.attempts)
	}
	f.Answered(env.ID, true)
	if len(f.delivered.said) != 0 || len(f.delivered.unheard) != 0 {
		t.Errorf("%d and %d are still remembered", len(f.delivered.said), len(f.delivered.unheard))
	}
}

// TestTargetIsNotTold holds that no answer names the mailbox behind an alias, not
// under another name of it, and not where it is written in UTF-8 (N3).
func TestTargetIsNotTold(t *testing.T) {
	for target, said := range map[string]string{
		"old.name+x@x.example":  "user oldname@x.example (was: Old.Name@X.example) is over quota",
		"j\u00fcrgen@x.example": "<j\u00fcrgen@x.example>: unknown user",
		"a@b\u00fccher.example": "<a@b\u00fccher.example> and <a@xn--bcher-kva.example>: unknown",
	} {
		d := &delivery{target: mailbox(t, target), recipients: envelope(t, "me@example.org>"+target).Recipients}
		for _, text := range []string{said, reply.Clean(said)} { // as it is where the destination's words are read
			d.outcome.Reply = reply.New(550, "5.1.1", "%s", text)
			if got := (&mail{deliveries: []*delivery{d}}).relay(d); strings.Contains(strings.ToLower(got.Text), "x.example") || strings.Contains(got.Text, "kva") || !strings.Contains(got.Text, "me@example.org") {
				t.Errorf("%s: %q", target, got.Text)
			}
		}
	}
}

// TestSiblingIsNotTold holds that one target's words do not tell the sender of
// another.
func TestSiblingIsNotTold(t *testing.T) {
	s := &script{results: map[string]smtpclient.Result{"a@x.example": smtpclient.Refused}}
	f, _ := over(t, deliverTo(func(tx *smtpclient.Transaction) smtpclient.Outcome {
		out := s.Deliver(t.Context(), &smtpclient.Transaction{To: mailbox(t, "a@x.example")})
		out.Reply = reply.New(550, "5.1.1", "<a@x.example> and <b@y.example> are gone")
		out.Said = out.Reply
		return out
	}))
	env := envelope(t, "me@example.org>a@x.example,b@y.example")
	if got := accept(t, f, env, content(t, "x: y\r\n")); strings.Contains(got.Text, "y.example") || strings.Contains(got.Text, "x.example") {
		t.Errorf("the answer is %v", got)
	}
}

// deliverTo makes a Deliverer of a function.
type deliverTo func(*smtpclient.Transaction) smtpclient.Outcome

func (d deliverTo) Deliver(_ context.Context, t *smtpclient.Transaction) smtpclient.Outcome {
	return d(t)
}

// TestHostIsNotTold holds the same of what we say ourselves of a destination, which
// names its hosts for the operator.
func TestHostIsNotTold(t *testing.T) {
	d := &delivery{target: mailbox(t, "a@x.example"), recipients: envelope(t, "me@example.org>a@x.example").Recipients}
	d.outcome = smtpclient.Outcome{Host: "mail.host.example", Reply: reply.New(451, "4.7.4", "X.example requires TLS (MTA-STS), and its mail host mail.host.example does not offer it; see mx.x.example.")}
	if got := (&mail{deliveries: []*delivery{d}}).relay(d).String(); got != "451 4.7.4 the destination requires TLS (MTA-STS), and its mail host (hidden) does not offer it; see (hidden)." {
		t.Error(got)
	}
	d.outcome.Said = reply.New(550, "5.7.1", "the policy of x.example") // its own words, maybe about the sender
	d.outcome.Reply = d.outcome.Said
	if got := (&mail{deliveries: []*delivery{d}}).relay(d).String(); got != "550 5.7.1 the policy of x.example" {
		t.Error(got)
	}
}

// patience notes how long a destination has.
type patience struct{ left time.Duration }

func (p *patience) Deliver(ctx context.Context, _ *smtpclient.Transaction) smtpclient.Outcome {
	end, _ := ctx.Deadline()
	p.left = time.Until(end)
	return smtpclient.Outcome{Result: smtpclient.Delivered, Reply: reply.New(250, "2.0.0", "ok")}
}

// TestDotBudget holds that a destination has the time that the route gives it.
func TestDotBudget(t *testing.T) {
	p := &patience{}
	f, _ := over(t, p)
	route := f.Route()
	route.DotBudget = time.Hour
	f.Route = func() Route { return route }
	accept(t, f, envelope(t, "me@example.org>a@x.example"), content(t, "x: y\r\n"))
	if p.left > time.Hour || p.left < 50*time.Minute {
		t.Errorf("%v left at the attempt, of an hour", p.left)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memory
		for i := range memorySize + 3 {
			m.put(key{byte(i), byte(i >> 8), byte(i >> 16)}, memo{reply: reply.New(250, "2.0.0", "ok"), until: time.Now().Add(memoryTime)})
			time.Sleep(time.Millisecond)
		}
		if len(m.said) != memorySize {
			t.Errorf("%d kept", len(m.said))
		}
		for i := range 4 {
			if _, ok := m.get(key{byte(i)}); ok != (i == 3) {
				t.Errorf("number %d: %v", i, ok)
			}
		}
		time.Sleep(memoryTime)
		if _, ok := m.get(key{3}); ok {
			t.Error("remembered for too long")
		}
	})
}

// TestTargetsOnce holds that a mailbox gets one copy, however many of its
// aliases were named.
func TestTargetsOnce(t *testing.T) {
	s := &script{results: map[string]smtpclient.Result{"a@x.example": smtpclient.Delivered, "b@x.example": smtpclient.Delivered}}
	env := envelope(t, "me@example.org>a@x.example", "team@example.org>A@x.example,b@x.example", "trap@example.org>")
	env.Bounceable = true
	f, _ := s.forwarder(t)
	got := accept(t, f, env, content(t, "x: y\r\n"))
	if got.Code != 250 || s.attempts["a@x.example"] != 1 || s.attempts["b@x.example"] != 1 {
		t.Errorf("%v, attempts %v", got, s.attempts)
	}
	if got = accept(t, f, envelope(t, "trap@example.org>"), content(t, "x: y\r\n")); got.Code != 250 {
		t.Errorf("discard: %v", got)
	}
}

// TestOtherAliasesAreNotForgotten holds that what is queued for a mailbox knows
// all its aliases that were written to, so that a report can name them.
func TestOtherAliasesAreNotForgotten(t *testing.T) {
	for result, text := range map[smtpclient.Result]string{smtpclient.Deferred: "250 2.0.0 queued", smtpclient.Refused: "250 2.0.0 forwarded to 1 of 2"} {
		s := &script{results: map[string]smtpclient.Result{"a@x.example": result, "b@x.example": smtpclient.Delivered}}
		env := envelope(t, "me@example.org>a@x.example", "team@example.org>A@x.example,b@x.example", "you@example.org>a@x.example", "Me@example.org>a@x.example")
		if result == smtpclient.Deferred {
			env.Recipients[1].Targets = env.Recipients[1].Targets[:1]
		}
		env.Bounceable = true
		f, st := s.forwarder(t)
		if got := accept(t, f, env, content(t, "x: y\r\n")); !strings.HasPrefix(got.String(), text) {
			t.Error(got)
		}
		items, err := st.Items(t.Context(), store.Filter{})
		if err != nil || len(items) != 1 || fmt.Sprint(items[0].Recipient, items[0].Also) != "me@example.org [team@example.org you@example.org]" {
			t.Errorf("%v, %v", items, err)
		}
	}
}

// TestPrivateTargets holds that what is queued for one target knows the domains of
// all others of the message, those that are served already too, so that no report
// tells of a mailbox there.
func TestPrivateTargets(t *testing.T) {
	s := &script{results: map[string]smtpclient.Result{"a@x.example": smtpclient.Delivered, "b@y.example": smtpclient.Refused, "c@z.example": smtpclient.Deferred, "d@z.example": smtpclient.Deferred}}
	env := envelope(t, "team@example.org>a@x.example,b@y.example", "all@example.org>c@z.example,d@z.example")
	env.Bounceable = true
	f, st := s.forwarder(t)
	accept(t, f, env, content(t, "x: y\r\n"))
	items, err := st.Items(t.Context(), store.Filter{})
	if err != nil || len(items) != 3 {
		t.Fatal(items, err)
	}
	for _, item := range items {
		if got := fmt.Sprint(item.Private); got != "[x.example y.example z.example]" {
			t.Errorf("%s: %s", item.Target, got)
		}
	}
}

// TestOneBadAttempt holds that a panic in one attempt is trouble with one
// target only (RELIABILITY 89), and temporary.
func TestOneBadAttempt(t *testing.T) {
	f, _ := (&script{}).forwarder(t)
	got := accept(t, f, envelope(t, "me@example.org>panic@x.example"), content(t, "x: y\r\n"))
	if got.Code != 451 || strings.Contains(got.Text, "panic") {
		t.Errorf("%v", got)
	}
	s := &script{results: map[string]smtpclient.Result{"a@x.example": smtpclient.Delivered}}
	f, st := s.forwarder(t)
	got = accept(t, f, envelope(t, "team@example.org>a@x.example,panic@x.example"), content(t, "x: y\r\n"))
	if got.Code != 250 || s.attempts["a@x.example"] != 1 || len(queued(t, st)) != 1 {
		t.Errorf("%v, attempts %v, queued %v", got, s.attempts, queued(t, st))
	}
}

// noOutcome is a mistake of ours.
type noOutcome struct{}

func (noOutcome) Deliver(context.Context, *smtpclient.Transaction) smtpclient.Outcome {
	return smtpclient.Outcome{}
}

// TestNoOutcome holds that what nobody said anything about is not taken for done.
func TestNoOutcome(t *testing.T) {
	f, st := over(t, noOutcome{})
	env := envelope(t, "me@example.org>a@x.example")
	if got := accept(t, f, env, content(t, "x: y\r\n")); got.Code != 451 {
		t.Error(got)
	}
	env.Bounceable = true
	if got := accept(t, f, env, content(t, "x: y\r\n")); got.Code != 250 || len(queued(t, st)) != 1 {
		t.Error(got, queued(t, st))
	}
}

func TestReturnPathTrouble(t *testing.T) {
	s := &script{}
	f, _ := s.forwarder(t)
	route := f.Route()
	route.ReturnPath = func(context.Context, address.ReversePath, address.Domain) (address.ReversePath, error) {
		return address.ReversePath{}, reply.Trouble(errors.New("disk"))
	}
	f.Route = func() Route { return route }
	got := accept(t, f, envelope(t, "me@example.org>a@x.example"), content(t, "x: y\r\n"))
	if got.Code != 451 || len(s.attempts) != 0 {
		t.Errorf("%v, attempts %v", got, s.attempts)
	}
}

// overTheWire is a forwarder with a real client that sends to a real sink.
func overTheWire(t *testing.T) (*Forwarder, *testmail.Sink) {
	t.Helper()
	sink, err := testmail.StartSink("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sink.Close)
	zone := resolver.NewZone()
	if err := errors.Join(
		zone.Set("x.example", resolver.TypeMX, "10 mx.x.example."),
		zone.Set("sender.example", resolver.TypeMX, "10 mx.x.example."),
		zone.Set("mx.x.example", resolver.TypeA, "127.0.0.1"),
	); err != nil {
		t.Fatal(err)
	}
	client := &smtpclient.Client{Resolver: zone, Hostname: "mx.example.org", Port: int(sink.Addr().Port()), AllowPrivate: true}
	f, _ := over(t, client)
	return f, sink
}

// TestBytesOnTheWire holds that what a mailbox gets is what came, below our
// fields in the order of DESIGN.md 4, under a sender of ours, and that many
// copies can be read from one message at once.
func TestBytesOnTheWire(t *testing.T) {
	f, sink := overTheWire(t)
	for _, body := range []string{
		"",
		"\r\n",
		"Subject: x\r\n\r\n.\r\n..\r\nno header after this\r\n",
		"Subject: ünïcode\r\n\r\n\x00\xff\r\n",
		"Subject: large\r\n\r\n" + strings.Repeat(strings.Repeat("y", 70)+"\r\n.", 10_000) + "\r\n",
	} {
		before := sink.Count()
		env := envelope(t, "me@example.org>a@x.example,b@x.example,c@x.example")
		if got := accept(t, f, env, content(t, body)); got.Code != 250 {
			t.Fatalf("%.30q: %v", body, got)
		}
		var targets []string
		for _, d := range sink.Messages()[before:] {
			target := strings.TrimSuffix(strings.TrimPrefix(d.Rcpt[0], "RCPT TO:<"), ">")
			targets = append(targets, target)
			want := "X-Forwarded-To: " + target + "\r\nX-Forwarded-For: me@example.org\r\n " + target + "\r\n" + string(marker.Field(env.Recipients[0].Address)) + string(env.Received) + body
			if string(d.Data) != want {
				t.Errorf("%.30q: got %.200q, want %.200q", body, d.Data, want)
			}
			if !strings.HasPrefix(d.Mail, "MAIL FROM:<srs-bob@mx.example.org>") {
				t.Errorf("sender %q", d.Mail)
			}
		}
		slices.Sort(targets)
		if fmt.Sprint(targets) != "[a@x.example b@x.example c@x.example]" {
			t.Errorf("targets %v", targets)
		}
	}
	if faults := sink.Faults(); len(faults) != 0 {
		t.Errorf("the destination saw: %v", faults)
	}
}

// TestBounceOnTheWire holds N5: null sender, first sender as recipient, no
// fields but Received.
func TestBounceOnTheWire(t *testing.T) {
	f, sink := overTheWire(t)
	env := envelope(t, "SRS0=h=t=x@mx.example.org>bob@sender.example")
	env.From, env.Recipients[0].SRS = address.ReversePath{}, true
	if got := accept(t, f, env, content(t, "Subject: bounce\r\n")); got.Code != 250 {
		t.Fatal(got)
	}
	d := sink.Messages()[0]
	if !strings.HasPrefix(d.Mail, "MAIL FROM:<>") || d.Rcpt[0] != "RCPT TO:<bob@sender.example>" || string(d.Data) != string(env.Received)+"Subject: bounce\r\n" {
		t.Errorf("%q %q %q", d.Mail, d.Rcpt, d.Data)
	}
}

// TestSMTPUTF8WhereNeeded holds that a copy asks for SMTPUTF8 only when
// something in it is not ASCII.
func TestSMTPUTF8WhereNeeded(t *testing.T) {
	for _, tt := range []struct {
		name, alias, body string
		declared, want    bool
	}{
		{"plain", "me@example.org>a@x.example", "x: y\r\n", true, false},
		{"body", "me@example.org>a@x.example", "x: y\r\n\r\nü\r\n", true, false},
		{"header", "me@example.org>a@x.example", "x: ü\r\n", true, true},
		{"header not declared", "me@example.org>a@x.example", "x: ü\r\n", false, false},
		{"target", "me@example.org>ü@x.example", "x: y\r\n", false, true},
		{"alias", "ü@example.org>a@x.example", "x: y\r\n", true, true},
	} {
		env := envelope(t, tt.alias)
		env.UTF8 = tt.declared
		msg := content(t, tt.body)
		f, _ := (&script{}).forwarder(t)
		m := &mail{env: env, verdict: &mailauth.Verdict{}, msg: msg, route: f.Route()}
		if err := f.prepare(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		tx := transaction(env, m.deliveries[0])
		b, _ := io.ReadAll(tx.Open())
		if tx.UTF8 != tt.want || tx.Size != int64(len(b)) || tx.EightBit != bytes.ContainsFunc(b, func(r rune) bool { return r > 127 }) {
			t.Errorf("%s: UTF8 %v, EightBit %v, Size %d of %d", tt.name, tx.UTF8, tx.EightBit, tx.Size, len(b))
		}
	}
}
