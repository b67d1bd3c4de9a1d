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
	"onward/internal/message"
	"onward/internal/reply"
	"onward/internal/resolver"
	"onward/internal/smtpclient"
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
		ID:      "01TEST",
		Arrived: time.Now(),
		Client:  netip.MustParseAddr("192.0.2.1"),
		Helo:    "mail.sender.example",
		From:    address.ReversePath{Mailbox: mailbox(t, "bob@sender.example")},
		Trace:   []byte("Received: from mail.sender.example ([192.0.2.1])\r\n"),
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

func (s *script) forwarder() *Forwarder {
	return &Forwarder{Route: func() Route { return Route{s, srsLike} }, Log: slog.New(slog.DiscardHandler)}
}

// TestAnswerMatrix holds the table of conclude for every mixture of results of
// one to three targets (RELIABILITY 38).
func TestAnswerMatrix(t *testing.T) {
	results := []smtpclient.Result{smtpclient.Delivered, smtpclient.Refused, smtpclient.Deferred, smtpclient.Unknown}
	targets := []string{"a@x.example", "b@x.example", "c@x.example"}
	msg := content(t, "Subject: x\r\n\r\nhello\r\n")
	cases := 0
	for n := 1; n <= 3; n++ {
		for code := range pow(len(results), n) {
			s := &script{results: map[string]smtpclient.Result{}}
			count := map[smtpclient.Result]int{}
			for i, c := 0, code; i < n; i, c = i+1, c/len(results) {
				r := results[c%len(results)]
				s.results[targets[i]] = r
				count[r]++
			}
			err := s.forwarder().Accept(t.Context(), envelope(t, "me@example.org>"+strings.Join(targets[:n], ",")), msg)
			got := reply.From(err)
			pending := count[smtpclient.Deferred] + count[smtpclient.Unknown]
			switch {
			case pending > 0 && got.Code/100 != 4,
				pending == 0 && count[smtpclient.Refused] > 0 && got.Code/100 != 5,
				pending == 0 && count[smtpclient.Refused] == 0 && got.Code != 250:
				t.Errorf("%v: %v", s.results, got)
			}
			if strings.Contains(strings.ToLower(got.Text), "@x.example") {
				t.Errorf("%v: the private target is told: %q", s.results, got.Text)
			}
			cases++
		}
	}
	if cases != 4+16+64 {
		t.Errorf("%d cases", cases)
	}
}

func pow(b, n int) int {
	p := 1
	for range n {
		p *= b
	}
	return p
}

// TestRetryReachesTheRest holds that a second try after 451 brings no second
// copy to those who have the message, that a final answer ends that memory, and
// that a message which differs in one octet is another (RELIABILITY 41).
func TestRetryReachesTheRest(t *testing.T) {
	s := &script{results: map[string]smtpclient.Result{"a@x.example": smtpclient.Delivered, "b@x.example": smtpclient.Deferred}}
	f := s.forwarder()
	env := envelope(t, "team@example.org>a@x.example,b@x.example")
	try := func(body string, code, a, b int) {
		t.Helper()
		if got := reply.From(f.Accept(t.Context(), env, content(t, body))); got.Code != code {
			t.Errorf("got %v, want %d", got, code)
		}
		if s.attempts["a@x.example"] != a || s.attempts["b@x.example"] != b {
			t.Errorf("attempts %v, want %d and %d", s.attempts, a, b)
		}
	}
	try("Message-ID: <1>\r\n\r\nx\r\n", 452, 1, 1)
	try("Message-ID: <1>\r\n\r\nx\r\n", 452, 1, 2)
	try("Message-ID: <1>\r\n\r\ny\r\n", 452, 2, 3)
	s.results["b@x.example"] = smtpclient.Delivered
	try("Message-ID: <1>\r\n\r\nx\r\n", 250, 2, 4)
	try("Message-ID: <1>\r\n\r\nx\r\n", 250, 3, 5) // a new message now
	env.From = address.ReversePath{Mailbox: mailbox(t, "eve@sender.example")}
	try("Message-ID: <1>\r\n\r\ny\r\n", 250, 4, 6) // another sender
}

// TestRetriesForDays holds that a sender who tries again for five days brings
// one copy to those who have the message.
func TestRetriesForDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{results: map[string]smtpclient.Result{"a@x.example": smtpclient.Delivered, "b@x.example": smtpclient.Deferred}}
		f := s.forwarder()
		env, msg := envelope(t, "team@example.org>a@x.example,b@x.example"), content(t, "x: y\r\n")
		for range 30 {
			f.Accept(t.Context(), env, msg)
			time.Sleep(4 * time.Hour)
		}
		if s.attempts["a@x.example"] != 1 || s.attempts["b@x.example"] != 30 {
			t.Errorf("attempts %v", s.attempts)
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memory
		for i := range memorySize + 3 {
			m.remember(key{byte(i), byte(i >> 8), byte(i >> 16)}, reply.New(250, "2.0.0", "ok"))
			time.Sleep(time.Millisecond)
		}
		if len(m.said) != memorySize {
			t.Errorf("%d kept", len(m.said))
		}
		for i := range 4 {
			if _, ok := m.recall(key{byte(i)}); ok != (i == 3) {
				t.Errorf("number %d: %v", i, ok)
			}
		}
		time.Sleep(memoryTime)
		if _, ok := m.recall(key{3}); ok {
			t.Error("remembered for too long")
		}
	})
}

// TestTargetsOnce holds that a mailbox gets one copy, however many of its
// aliases were named.
func TestTargetsOnce(t *testing.T) {
	s := &script{results: map[string]smtpclient.Result{"a@x.example": smtpclient.Delivered, "b@x.example": smtpclient.Delivered}}
	env := envelope(t, "me@example.org>a@x.example", "team@example.org>A@x.example,b@x.example", "trap@example.org>")
	got := reply.From(s.forwarder().Accept(t.Context(), env, content(t, "x: y\r\n")))
	if got.Code != 250 || s.attempts["a@x.example"] != 1 || s.attempts["b@x.example"] != 1 {
		t.Errorf("%v, attempts %v", got, s.attempts)
	}
	got = reply.From(s.forwarder().Accept(t.Context(), envelope(t, "trap@example.org>"), content(t, "x: y\r\n")))
	if got.Code != 250 {
		t.Errorf("discard: %v", got)
	}
}

// TestOneBadAttempt holds that a panic in one attempt is trouble with one
// target only (RELIABILITY 89), and temporary.
func TestOneBadAttempt(t *testing.T) {
	s := &script{results: map[string]smtpclient.Result{"a@x.example": smtpclient.Delivered}}
	got := reply.From(s.forwarder().Accept(t.Context(), envelope(t, "team@example.org>a@x.example,panic@x.example"), content(t, "x: y\r\n")))
	if got.Code != 451 || strings.Contains(got.Text, "panic") || s.attempts["a@x.example"] != 1 {
		t.Errorf("%v, attempts %v", got, s.attempts)
	}
}

func TestReturnPathTrouble(t *testing.T) {
	s := &script{}
	f := &Forwarder{Log: slog.New(slog.DiscardHandler), Route: func() Route {
		return Route{s, func(context.Context, address.ReversePath, address.Domain) (address.ReversePath, error) {
			return address.ReversePath{}, reply.Trouble(errors.New("disk"))
		}}
	}}
	got := reply.From(f.Accept(t.Context(), envelope(t, "me@example.org>a@x.example"), content(t, "x: y\r\n")))
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
	return &Forwarder{Route: func() Route { return Route{client, srsLike} }, Log: slog.New(slog.DiscardHandler)}, sink
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
		if got := reply.From(f.Accept(t.Context(), env, content(t, body))); got.Code != 250 {
			t.Fatalf("%.30q: %v", body, got)
		}
		var targets []string
		for _, d := range sink.Messages()[before:] {
			target := strings.TrimSuffix(strings.TrimPrefix(d.Rcpt[0], "RCPT TO:<"), ">")
			targets = append(targets, target)
			want := "X-Forwarded-To: " + target + "\r\nX-Forwarded-For: me@example.org\r\n " + target + "\r\n" + string(env.Trace) + body
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
	if got := reply.From(f.Accept(t.Context(), env, content(t, "Subject: bounce\r\n"))); got.Code != 250 {
		t.Fatal(got)
	}
	d := sink.Messages()[0]
	if !strings.HasPrefix(d.Mail, "MAIL FROM:<>") || d.Rcpt[0] != "RCPT TO:<bob@sender.example>" || string(d.Data) != string(env.Trace)+"Subject: bounce\r\n" {
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
		list, err := copies(t.Context(), Route{ReturnPath: srsLike}, env)
		if err != nil {
			t.Fatal(err)
		}
		tx := transaction(env, msg, list[0])
		b, _ := io.ReadAll(tx.Open())
		if tx.UTF8 != tt.want || tx.Size != int64(len(b)) || tx.EightBit != bytes.ContainsFunc(b, func(r rune) bool { return r > 127 }) {
			t.Errorf("%s: UTF8 %v, EightBit %v, Size %d of %d", tt.name, tx.UTF8, tx.EightBit, tx.Size, len(b))
		}
	}
}
