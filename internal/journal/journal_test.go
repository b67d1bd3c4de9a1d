package journal_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/journal"
	"onward/internal/message"
)

// noon is when everything happens here.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func unlimited() journal.Limits { return journal.Limits{} }

// A log is a buffer that may be read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func start(t testing.TB, dir string, limits func() journal.Limits) (*journal.Journal, *logBuffer) {
	t.Helper()
	log := &logBuffer{}
	j := journal.Start(dir, limits, slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(func() { j.Close() })
	return j, log
}

func reader(t testing.TB, dir string) *journal.Reader {
	t.Helper()
	r, err := journal.OpenReader(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func mailbox(s string) address.Mailbox {
	m, err := address.Parse(s)
	if err != nil {
		panic(err)
	}
	return m
}

// letter is a message from ada to me, which goes to a target.
func letter(id string, outcome journal.Outcome, code int) journal.Message {
	return journal.Message{
		ID: id, Arrived: noon, Answered: noon.Add(time.Second), Client: netip.MustParseAddr("192.0.2.1"), Helo: "mx.sender.example",
		TLS: "TLS 1.3", From: address.ReversePath{Mailbox: mailbox("ada@sender.example")},
		Recipients: []message.Recipient{{Address: mailbox("me@alias.example"), Targets: []address.Mailbox{mailbox("ann@dest.example")}}},
		Subject: "a letter", Size: 1234,
		Verdict: &journal.Verdict{SPF: "pass", SPFDomain: "sender.example", DKIM: []journal.Signature{{Domain: "sender.example", Selector: "s1", Result: "pass"}}, ARC: "none", DMARC: "pass", Author: "sender.example", Policy: "reject", Why: "DMARC is pass with policy reject"},
		Outcome: outcome, Answer: journal.Answer{Code: code, Status: fmt.Sprintf("%d.0.0", code/100), Text: "words of " + id},
	}
}

// TestKept: what is recorded can be read after Close, word for word.
func TestKept(t *testing.T) {
	dir := t.TempDir()
	j, log := start(t, dir, unlimited)
	j.Record(letter("01A", journal.Forwarded, 250))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	events, err := reader(t, dir).Events(t.Context(), journal.Filter{})
	if err != nil || len(events) != 1 {
		t.Fatalf("%v, %v", events, err)
	}
	t.Logf("%+v", events[0])
	s, err := reader(t, dir).Story(t.Context(), "01A")
	t.Logf("%+v %v", s, err)
	if log.String() != "" {
		t.Error(log)
	}
}
