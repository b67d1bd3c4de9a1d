package testmail_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/mailauth/dkim"
	"onward/internal/mailauth/dmarc"
	"onward/internal/mailauth/spf"
	"onward/internal/message"
	"onward/internal/resolver"
	"onward/internal/testmail"
)

// newLoad is a load whose daemon is the sink itself.
func newLoad(sink *testmail.Sink, messages int) (*testmail.Load, *testmail.Cast, *resolver.Zone) {
	zone := resolver.NewZone()
	cast := testmail.NewCast(zone, netip.MustParseAddr("127.0.0.1"))
	return &testmail.Load{
		Addr:     func() string { return sink.Addr().String() },
		Ledger:   &testmail.Ledger{},
		Writers:  []*testmail.Writer{cast.SPF, cast.Signed, cast.Forged, cast.Null},
		To:       func(*rand.Rand) []string { return []string{"b@dest.example", "c@dest.example"} },
		Sessions: 10,
		Messages: messages,
		Retry:    10 * time.Millisecond,
		Seed:     1,
	}, cast, zone
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func auditSink(load *testmail.Load, deliveries []testmail.Delivery) *testmail.Audit {
	return testmail.Evidence{Ledger: load.Ledger, Sink: deliveries, Targets: func(recipient string) []string { return []string{recipient} }}.Check()
}

// TestLoad sends to a sink that fails in every way, and the auditor agrees with
// both. Then it takes away and adds what it is there to miss.
func TestLoad(t *testing.T) {
	sink := startSink(t)
	sink.Behave(testmail.Fickle(1, 50, true))
	load, _, _ := newLoad(sink, 800)
	load.Sessions = 20
	totals := load.Run(bounded(t))
	all := sink.Messages()
	audit := auditSink(load, all)
	t.Logf("%v\n%v\n%d sessions", totals, audit, sink.Sessions())
	if faults := sink.Faults(); len(faults) > 0 {
		t.Errorf("the senders break the protocol: %q", faults)
	}
	if totals.Accepted+totals.Refused != 800 || totals.Refused < 20 || audit.Accepted != totals.Accepted || totals.Tries < 900 {
		t.Errorf("totals %v", totals)
	}
	if !audit.Clean() || audit.Duplicates < 10 || audit.Explained != audit.Duplicates || audit.Delivered < audit.Owed {
		t.Errorf("audit %v", audit)
	}
	letters := load.Ledger.Letters()
	i := slices.IndexFunc(all, func(d testmail.Delivery) bool { // of a letter that was sent once, so that nothing excuses anything
		for id, l := range letters {
			if len(l.Tries) == 1 && bytes.Contains(d.Data, []byte("<"+id+">")) {
				return true
			}
		}
		return false
	})
	if audit := auditSink(load, slices.Concat(all[:i], all[i+1:])); audit.Lost == 0 {
		t.Errorf("one delivery less: %v", audit)
	}
	if audit := auditSink(load, slices.Concat(all, all[i:i+1])); audit.Clean() {
		t.Errorf("one delivery more: %v", audit)
	}
}

// TestLoadGivesUp: without Retry nobody comes back, and the numbers say so.
func TestLoadGivesUp(t *testing.T) {
	sink := startSink(t)
	sink.Answer("RCPT TO:<b@", "451 4.0.0 later")
	sink.Do("MAIL FROM:<eve.", testmail.Action{Drop: true})
	sink.Answer("MAIL FROM:<>", "550 5.7.1 no")
	load, _, _ := newLoad(sink, 400)
	load.Retry = 0
	totals := load.Run(bounded(t))
	if totals.Tries != 400 || totals.Accepted < 100 || totals.Refused < 50 || totals.Lost < 50 || totals.Accepted+totals.Refused+totals.Lost != 400 {
		t.Errorf("totals %v", totals)
	}
	for _, l := range load.Ledger.Letters() {
		try := l.Tries[0]
		if try.Accepted() && (!slices.Equal(try.Recipients, []string{"c@dest.example"}) || try.Refused["b@dest.example"] != 451) {
			t.Errorf("letter %+v", l)
		}
	}
	if audit := auditSink(load, sink.Messages()); !audit.Clean() {
		t.Error(audit)
	}
}

// TestLoadOutlivesDaemon: the daemon goes away and comes back elsewhere.
func TestLoadOutlivesDaemon(t *testing.T) {
	first, second := startSink(t), startSink(t)
	load, _, _ := newLoad(first, 300)
	var mu sync.Mutex
	at := first.Addr()
	load.Addr = func() string {
		mu.Lock()
		defer mu.Unlock()
		return at.String()
	}
	load.Rate = 1000
	go func() {
		first.Wait(t.Context(), 100)
		first.Close()
		mu.Lock()
		at = second.Addr()
		mu.Unlock()
	}()
	totals := load.Run(bounded(t))
	if totals.Accepted != 300 || second.Count() == 0 {
		t.Errorf("totals %v; %d and %d messages", totals, first.Count(), second.Count())
	}
	if audit := auditSink(load, append(first.Messages(), second.Messages()...)); !audit.Clean() {
		t.Error(audit)
	}
}

// TestLoadPace: the rate is kept, and Enough and the context end a load.
func TestLoadPace(t *testing.T) {
	sink := startSink(t)
	load, _, _ := newLoad(sink, 50)
	load.Rate = 100
	if totals := load.Run(bounded(t)); totals.Took < 450*time.Millisecond {
		t.Errorf("50 messages at 100 a second: %v", totals)
	}
	enough := make(chan struct{})
	load, _, _ = newLoad(sink, 0)
	load.Enough, load.Rate, load.Seed = enough, 100, 2
	before := sink.Count()
	go func() {
		sink.Wait(t.Context(), before+1)
		close(enough)
	}()
	if totals := load.Run(bounded(t)); totals.Accepted == 0 || sink.Count() != before+totals.Accepted {
		t.Errorf("until it is enough: %v, and %d arrived", totals, sink.Count()-before)
	}
	sink.Reset()
	sink.Do(".", testmail.Action{Hang: true})
	load, _, _ = newLoad(sink, 5)
	load.Seed = 3
	ctx, cancel := context.WithCancel(bounded(t))
	go func() {
		for ctx.Err() == nil && len(slices.DeleteFunc(sink.Commands(), func(c string) bool { return c != "." })) < 5 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if totals := load.Run(ctx); totals.Lost != 5 || totals.Took > 30*time.Second {
		t.Errorf("at a daemon that hangs: %v", totals)
	}
}

// TestCast asks verification who the writers are.
func TestCast(t *testing.T) {
	sink := startSink(t)
	load, cast, zone := newLoad(sink, 60)
	load.Run(bounded(t))
	seen := map[*testmail.Writer]int{}
	for _, d := range sink.Messages() {
		buffer := message.NewBuffer(t.TempDir())
		buffer.Write(d.Data)
		msg, err := buffer.Message()
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range []*testmail.Writer{cast.SPF, cast.Signed, cast.Forged, cast.Null} {
			_, domain, _ := strings.Cut(w.From, "@")
			envelope, _, _ := strings.Cut(strings.TrimPrefix(d.Mail, "MAIL FROM:<"), ">")
			from, err := address.ParseReversePath(envelope)
			if err != nil || from.Domain.String() != domain {
				continue
			}
			seen[w]++
			_, mailFrom := spf.Verify(t.Context(), zone, spf.Input{IP: d.Peer.Addr(), Helo: w.Helo, From: from, Hostname: "mx.example", Now: time.Now()})
			in := dmarc.Input{From: dmarc.ParseFrom(msg.Fields()), SPF: dmarc.Identifier{Result: dmarc.Result(mailFrom.Result), Domain: mailFrom.Domain}}
			for _, r := range dkim.Verify(t.Context(), zone, msg, dkim.Options{Now: time.Now()}) {
				in.DKIM = append(in.DKIM, dmarc.Identifier{Result: dmarc.Result(r.Result), Domain: r.Domain})
			}
			verdict := dmarc.Evaluate(t.Context(), zone, in)
			signed := verdict.Result == dmarc.Pass && verdict.Domain == from.Domain
			if bounceable := mailFrom.Result == spf.Pass || signed; bounceable != (w.Class == testmail.Bounceable) {
				t.Errorf("%s: SPF %v, DMARC %v (%s)", w.From, mailFrom.Result, verdict.Result, verdict.Reason)
			}
		}
	}
	if len(seen) != 4 {
		t.Errorf("writers %v", seen)
	}
}
