package journal_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/journal"
	"onward/internal/message"
	"onward/internal/reply"
)

// noon is when everything happens here.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// patience is how long anything may take that a test waits for.
const patience = 20 * time.Second

func unlimited() journal.Limits { return journal.Limits{} }

// A logBuffer is a log that may be read while it is written.
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

// written records entries in a journal of its own and closes it.
func written(t testing.TB, entries ...journal.Entry) *journal.Reader {
	t.Helper()
	dir := t.TempDir()
	j, log := start(t, dir, unlimited)
	for _, e := range entries {
		j.Record(e)
	}
	must(t, j.Close())
	if log.String() != "" {
		t.Error(log)
	}
	return reader(t, dir)
}

func reader(t testing.TB, dir string) *journal.Reader {
	t.Helper()
	r, err := journal.OpenReader(t.Context(), dir)
	must(t, err)
	t.Cleanup(func() { r.Close() })
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wait waits until something is so.
func wait(t testing.TB, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain for ", what)
		}
	}
}

func mailbox(s string) address.Mailbox {
	m, err := address.Parse(s)
	if err != nil {
		panic(err)
	}
	return m
}

func sender(s string) address.ReversePath { return address.ReversePath{Mailbox: mailbox(s)} }

func recipient(to string, targets ...string) message.Recipient {
	r := message.Recipient{Address: mailbox(to)}
	for _, target := range targets {
		r.Targets = append(r.Targets, mailbox(target))
	}
	return r
}

// letter is a message from ada to me, which goes to ann.
func letter(id string, outcome journal.Outcome, answer journal.Answer) journal.Message {
	return journal.Message{
		ID: id, Arrived: noon, Answered: noon.Add(time.Second), Client: netip.MustParseAddr("192.0.2.1"), Helo: "mx.sender.example",
		TLS: "TLS 1.3 TLS_AES_128_GCM_SHA256", From: sender("ada@sender.example"),
		Recipients: []message.Recipient{recipient("me@alias.example", "ann@dest.example")}, Subject: "a letter", Size: 1234,
		Verdict: verdict(), Outcome: outcome, Answer: answer,
	}
}

func verdict() *journal.Verdict {
	return &journal.Verdict{
		SPF: "softfail", SPFDomain: "sender.example", SPFReason: "matched ~all",
		DKIM: []journal.Signature{{Domain: "sender.example", Selector: "s1", Result: "pass"}, {Domain: "list.example", Selector: "s2", Result: "fail", Reason: "body hash differs"}},
		ARC:  "none", DMARC: "pass", Author: "sender.example", Policy: "reject", Why: "DMARC is pass with policy reject",
	}
}

func try(id, target, result string, answer journal.Answer) journal.Attempt {
	return journal.Attempt{
		Message: id, Began: noon, Took: 1500 * time.Millisecond, Recipient: "me@alias.example", Target: target, Host: "mx.dest.example", Peer: "192.0.2.9:25",
		TLS: "TLS 1.3", Step: "dot", Result: result, Answer: answer,
	}
}

func event(id, target string, outcome journal.Outcome, answer journal.Answer) journal.Event {
	return journal.Event{
		Time: noon.Add(time.Hour), Message: id, From: "ada@sender.example", Recipient: "me@alias.example", Targets: []string{target}, Outcome: outcome, Answer: answer,
	}
}

var (
	fine   = journal.Answer{Code: 250, Status: "2.0.0", Text: "OK"}
	full   = journal.Answer{Code: 452, Status: "4.2.2", Text: "mailbox full"}
	nobody = journal.Answer{Code: 550, Status: "5.1.1", Text: "no such user"}
	none   = journal.Answer{}
)

// TestKept: everything that is recorded can be read again.
func TestKept(t *testing.T) {
	first, second := try("01A", "ann@dest.example", "deferred", full), try("01A", "ann@dest.example", "delivered", fine)
	second.Queued = true
	later := event("01A", "ann@dest.example", journal.Delivered, fine)
	later.By = "somebody"
	r := written(t, first, letter("01A", journal.Queued, fine), later, second)
	got, err := r.Story(t.Context(), "01A")
	must(t, err)
	heard := journal.Event{Time: noon.Add(time.Second), Message: "01A", ToSender: true, From: "ada@sender.example", Recipient: "me@alias.example",
		Targets: []string{"ann@dest.example"}, Outcome: journal.Queued, Answer: fine}
	heard.Number, later.Number = 1, 2
	want := &journal.Story{
		ID: "01A", Arrived: noon, Client: "192.0.2.1", Helo: "mx.sender.example", TLS: "TLS 1.3 TLS_AES_128_GCM_SHA256", From: "ada@sender.example",
		Subject: "a letter", Size: 1234, Verdict: verdict(), Attempts: []journal.Attempt{first, second}, Events: []journal.Event{heard, later},
		Fates: []journal.Fate{{Recipient: "me@alias.example", Target: "ann@dest.example", Outcome: journal.Delivered, Since: noon.Add(1500 * time.Millisecond), Answer: fine}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if _, err := r.Story(t.Context(), "01B"); err == nil || !strings.Contains(err.Error(), "01B") {
		t.Errorf("a message that never was: %v", err)
	}
}

// TestRefusedRecipient: an answer to RCPT and the one to the message are of one
// message, of which the later says more.
func TestRefusedRecipient(t *testing.T) {
	early := letter("01A", journal.Rejected, nobody)
	early.Recipients, early.Subject, early.Size, early.Verdict = []message.Recipient{recipient("nobody@alias.example")}, "", 0, nil
	r := written(t, early, letter("01A", journal.Forwarded, fine))
	s, err := r.Story(t.Context(), "01A")
	must(t, err)
	if s.Size != 1234 || s.Subject != "a letter" || s.Verdict == nil || len(s.Events) != 2 {
		t.Errorf("%+v", s)
	}
	want := []journal.Fate{
		{"nobody@alias.example", "", journal.Rejected, noon.Add(time.Second), nobody},
		{"me@alias.example", "ann@dest.example", journal.Forwarded, noon.Add(time.Second), fine},
	}
	if !reflect.DeepEqual(s.Fates, want) {
		t.Errorf("fates %+v", s.Fates)
	}
}

// TestFates: how it ended with a target, by what was said and done.
func TestFates(t *testing.T) {
	const ann, bob = "ann@dest.example", "bob@dest.example"
	both := func(outcome journal.Outcome, answer journal.Answer) journal.Message {
		m := letter("01A", outcome, answer)
		m.Recipients = []message.Recipient{recipient("me@alias.example", ann, bob)}
		return m
	}
	for _, tt := range []struct {
		name    string
		entries []journal.Entry
		want    string
	}{
		{"forwarded", []journal.Entry{try("01A", ann, "delivered", fine), letter("01A", journal.Forwarded, fine)}, "ann delivered 250 2.0.0 OK"},
		{"refused", []journal.Entry{try("01A", ann, "refused", nobody), letter("01A", journal.Rejected, nobody)}, "ann rejected 550 5.1.1 no such user"},
		{"refused by us", []journal.Entry{letter("01A", journal.Rejected, nobody)}, "ann rejected 550 5.1.1 no such user"},
		{"deferred", []journal.Entry{try("01A", ann, "deferred", full), letter("01A", journal.Deferred, journal.Answer{Code: 451, Text: "later"})}, "ann deferred 452 4.2.2 mailbox full"},
		{"waits", []journal.Entry{try("01A", ann, "deferred", full), event("01A", ann, journal.Queued, none), letter("01A", journal.Queued, fine)}, "ann queued 452 4.2.2 mailbox full"},
		{"held", []journal.Entry{letter("01A", journal.Queued, fine), try("01A", ann, "refused", nobody), event("01A", ann, journal.Held, none)}, "ann held 550 5.1.1 no such user"},
		{"released", []journal.Entry{letter("01A", journal.Queued, fine), event("01A", ann, journal.Held, nobody), event("01A", ann, journal.Released, none)}, "ann queued 550 5.1.1 no such user"},
		{"reported", []journal.Entry{letter("01A", journal.Queued, fine), event("01A", ann, journal.Reported, full)}, "ann reported 452 4.2.2 mailbox full"},
		{"dropped", []journal.Entry{letter("01A", journal.Queued, fine), event("01A", ann, journal.Dropped, none)}, "ann dropped 250 2.0.0 OK"},
		{"delivered, and still in the queue", []journal.Entry{letter("01A", journal.Queued, fine), try("01A", ann, "delivered", fine), event("01A", ann, journal.Held, full)}, "ann delivered 250 2.0.0 OK"},
		{"two targets", []journal.Entry{try("01A", ann, "delivered", fine), try("01A", bob, "deferred", full), both(journal.Queued, fine)}, "ann delivered 250 2.0.0 OK, bob queued 452 4.2.2 mailbox full"},
		{"a report of ours", []journal.Entry{event("01A", ann, journal.Queued, none), try("01A", ann, "deferred", full)}, "ann queued 452 4.2.2 mailbox full"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := written(t, tt.entries...).Story(t.Context(), "01A")
			must(t, err)
			var got []string
			for _, f := range s.Fates {
				name, _, _ := strings.Cut(f.Target, "@")
				got = append(got, fmt.Sprintf("%s %s %s", name, f.Outcome, f.Answer))
			}
			if strings.Join(got, ", ") != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// TestFilter: events are chosen by time and by words, the newest last.
func TestFilter(t *testing.T) {
	var entries []journal.Entry
	add := func(id string, minute int, from, to, subject, text string) {
		m := letter(id, journal.Forwarded, journal.Answer{Code: 250, Text: text})
		m.Answered, m.Subject = noon.Add(time.Duration(minute)*time.Minute), subject
		m.From = address.ReversePath{}
		if from != "" {
			m.From = sender(from)
		}
		m.Recipients[0].Address = mailbox(to)
		entries = append(entries, m)
	}
	add("A", 1, "ada@sender.example", "me@alias.example", "100% off", "OK")
	add("B", 2, "bob@sender.example", "me@alias.example", "Größe", "OK")
	add("C", 3, "", "shop@alias.example", "", "queued as x_y")
	add("D", 4, "ADA@sender.example", "Shop@other.example", "", `back\slash`)
	queued := event("D", "ann@dest.example", journal.Queued, none)
	held := event("D", "ann@dest.example", journal.Held, none)
	held.From, held.Recipient = "ADA@sender.example", "Shop@other.example"
	r := written(t, append(entries, queued, held, event("D", "ann@dest.example", journal.Retried, none))...)
	at := func(minute int) time.Time { return noon.Add(time.Duration(minute) * time.Minute) }
	for _, tt := range []struct {
		name   string
		filter journal.Filter
		want   string
	}{
		{"all", journal.Filter{}, "A B C D D"},
		{"newest", journal.Filter{Limit: 2}, "D D"},
		{"since", journal.Filter{Since: at(3)}, "C D D"},
		{"until", journal.Filter{Until: at(3)}, "A B"},
		{"both", journal.Filter{Since: at(2), Until: at(4)}, "B C"},
		{"sender", journal.Filter{From: "ada@Sender.example"}, "A D D"},
		{"part of the sender", journal.Filter{From: "sender"}, "A B D D"},
		{"null sender", journal.Filter{From: "<>"}, "C"},
		{"recipient", journal.Filter{To: "shop@alias.example"}, "C"},
		{"domain of the recipient", journal.Filter{To: "@ALIAS.example"}, "A B C"},
		{"sender and recipient", journal.Filter{From: "ada@sender.example", To: "me@alias.example"}, "A"},
		{"subject", journal.Filter{Text: "größe"}, "B"},
		{"case of ASCII only", journal.Filter{Text: "GRÖßE"}, ""},
		{"answer", journal.Filter{Text: "QUEUED AS"}, "C"},
		{"per cent", journal.Filter{Text: "0% o"}, "A"},
		{"per cent is no pattern", journal.Filter{Text: "A%D"}, ""},
		{"nor is an underscore", journal.Filter{Text: "x_"}, "C"},
		{"nor a backslash", journal.Filter{Text: `\`}, "D"},
		{"a quote", journal.Filter{Text: "' OR 1=1 --", To: "'; DROP TABLE event; --"}, ""},
	} {
		events, err := r.Newest(t.Context(), tt.filter)
		must(t, err)
		var got []string
		for _, e := range events {
			got = append(got, e.Message)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, got, tt.want)
		}
	}
	for _, tt := range []struct {
		number int64
		filter journal.Filter
		want   string
	}{
		{0, journal.Filter{}, "A B C D D"},
		{3, journal.Filter{}, "D D"},
		{2, journal.Filter{Limit: 1}, "C"},
		{1, journal.Filter{Since: at(3), To: "shop"}, "C D D"},
		{6, journal.Filter{}, ""},
	} {
		events, err := r.After(t.Context(), tt.number, tt.filter)
		must(t, err)
		var got []string
		for _, e := range events {
			got = append(got, e.Message)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("after %d: %v, want %s", tt.number, got, tt.want)
		}
	}
	if n, err := r.Last(t.Context()); n != 7 || err != nil {
		t.Errorf("newest %d, %v", n, err)
	}
}

func TestFind(t *testing.T) {
	r := written(t, letter("01KA1", journal.Forwarded, fine), letter("01KA2", journal.Forwarded, fine), letter("01KB", journal.Forwarded, fine),
		event("01KB", "ann@dest.example", journal.Held, none), event("02R", "ada@sender.example", journal.Dropped, none))
	for prefix, want := range map[string]string{"01KA": "01KA1 01KA2", "01KA2": "01KA2", "01": "01KA1 01KA2 01KB", "01C": "", "02": "02R", "%": "", "01ka2": "01KA2"} {
		got, err := r.Find(t.Context(), prefix)
		must(t, err)
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", prefix, got, want)
		}
	}
}

// TestHostile: no foreign text is stored that a terminal or a line of a log
// would act on, and none without bound (RELIABILITY 65, 68).
func TestHostile(t *testing.T) {
	const bad = "a\x1b[31mb\r\nc\u2028d\u202ee\x00f\x80g\u0085h\u200bi"
	long := strings.Repeat("ä", 100_000)
	v := &journal.Verdict{SPF: bad, SPFDomain: bad, SPFReason: bad, ARC: bad, DMARC: bad, Author: bad, Policy: bad, Why: long}
	for range 100 {
		v.DKIM = append(v.DKIM, journal.Signature{Domain: bad, Selector: bad, Result: bad, Reason: long})
	}
	m := letter(bad, journal.Outcome(bad), journal.Answer{Code: -1, Status: bad, Text: bad + long})
	m.Helo, m.TLS, m.Subject, m.Verdict = bad, bad, bad+long, v
	m.From.Local, m.Recipients[0].Address.Local, m.Recipients[0].Targets[0].Local = bad, bad, bad
	a := try(bad, bad, bad, journal.Answer{Status: bad, Text: long})
	a.Recipient, a.Host, a.Peer, a.TLS, a.Step = bad, long, bad, bad, bad
	e := event(bad, bad, journal.Outcome(bad), journal.Answer{Status: bad, Text: long})
	e.From, e.Recipient, e.By = bad, bad, long
	r := written(t, m, a, e)
	events, err := r.Newest(t.Context(), journal.Filter{})
	must(t, err)
	if len(events) != 2 {
		t.Fatalf("%d events", len(events))
	}
	s, err := r.Story(t.Context(), events[0].Message)
	must(t, err)
	all := fmt.Sprintf("%+v %+v", *s, *s.Verdict)
	if want := "a?[31mb  c?d?e?f?g?h?i"; !strings.Contains(all, want) || strings.Contains(all, "OK") {
		t.Errorf("no %q in %.1000s", want, all)
	}
	if i := strings.IndexFunc(all, func(r rune) bool {
		return r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x202e || r == 0x200b
	}); i >= 0 {
		t.Errorf("%q", all[i:i+20])
	}
	if len(s.Attempts) != 1 || len(s.Verdict.DKIM) != 8 || len(all) > 30_000 || !strings.Contains(all, strings.Repeat("ä", 400)) {
		t.Errorf("%d attempts, %d signatures, %d octets", len(s.Attempts), len(s.Verdict.DKIM), len(all))
	}
}

// TestManyWriters: whoever records at the same time, everything is there once,
// and what one of them records in its order.
func TestManyWriters(t *testing.T) {
	dir := t.TempDir()
	j, log := start(t, dir, unlimited)
	const writers, each = 20, 200
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				j.Record(event(fmt.Sprintf("%02d-%03d", w, i), "ann@dest.example", journal.Delivered, fine))
			}
		})
	}
	wg.Wait()
	must(t, j.Close())
	events, err := reader(t, dir).Newest(t.Context(), journal.Filter{})
	must(t, err)
	next := map[string]int{}
	for _, e := range events {
		w, i, _ := strings.Cut(e.Message, "-")
		if want := fmt.Sprintf("%03d", next[w]); i != want {
			t.Fatalf("%s, want %s", e.Message, want)
		}
		next[w]++
	}
	if len(events) != writers*each || log.String() != "" {
		t.Errorf("%d events; %s", len(events), log)
	}
}

// TestNobodyWaits: with a disk that takes nothing, Record returns at once, what
// is lost is counted in the log, and all goes on when the disk does.
func TestNobodyWaits(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	j, log := start(t, dir, unlimited)
	began := time.Now()
	const more = 10_000
	for i := range more {
		j.Record(event(fmt.Sprint(i), "ann@dest.example", journal.Delivered, fine))
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("%d entries took %v", more, took)
	}
	wait(t, "the log", func() bool { return strings.Contains(log.String(), "lost=") })
	if n := strings.Count(log.String(), "cannot be written"); n != 1 {
		t.Errorf("trouble was told %d times: %s", n, log)
	}
	must(t, os.Mkdir(dir, 0o700))
	wait(t, "the journal", func() bool { _, err := os.Stat(filepath.Join(dir, "journal.db")); return err == nil })
	must(t, j.Close())
	events, err := reader(t, dir).Newest(t.Context(), journal.Filter{})
	must(t, err)
	var lost int
	_, rest, _ := strings.Cut(log.String(), "lost=")
	fmt.Sscan(rest, &lost)
	if len(events)+lost != more || lost == 0 || j.Lost() != int64(lost) {
		t.Errorf("%d events, %d lost in the log and %d counted, of %d", len(events), lost, j.Lost(), more)
	}
}

// TestNeverWritten: what could not be written until the end is told.
func TestNeverWritten(t *testing.T) {
	j, _ := start(t, filepath.Join(t.TempDir(), "nowhere"), unlimited)
	j.Record(event("A", "ann@dest.example", journal.Delivered, fine))
	if err := j.Close(); err == nil || !strings.Contains(err.Error(), "1 ") {
		t.Errorf("Close: %v", err)
	}
	j.Record(event("B", "ann@dest.example", journal.Delivered, fine)) // comes too late, and does no harm
}

func TestNilJournal(t *testing.T) {
	var j *journal.Journal
	j.Record(event("A", "ann@dest.example", journal.Delivered, fine))
	must(t, j.Close())
	if n := j.Lost(); n != 0 {
		t.Errorf("lost %d", n)
	}
}

// TestMode: the journal says who writes to whom.
func TestMode(t *testing.T) {
	dir := t.TempDir()
	j, _ := start(t, dir, unlimited)
	j.Record(event("A", "ann@dest.example", journal.Delivered, fine))
	wait(t, "the journal", func() bool {
		info, err := os.Stat(filepath.Join(dir, "journal.db-wal"))
		return err == nil && info.Size() > 0
	})
	files, err := os.ReadDir(dir)
	must(t, err)
	for _, f := range files {
		info, err := f.Info()
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v", f.Name(), info.Mode())
		}
	}
}

// TestAppend: a command may add an event beside the daemon, and after it; but
// makes no journal of its own.
func TestAppend(t *testing.T) {
	dir := t.TempDir()
	if err := journal.Append(t.Context(), dir, event("A", "ann@dest.example", journal.Dropped, none)); err == nil {
		t.Error("a journal out of nothing")
	}
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("left %v", files)
	}
	j, _ := start(t, dir, unlimited)
	j.Record(event("A", "ann@dest.example", journal.Held, none))
	wait(t, "the first event", func() bool {
		r, err := journal.OpenReader(t.Context(), dir)
		if err != nil {
			return false
		}
		defer r.Close()
		n, err := r.Last(t.Context())
		return n == 1 && err == nil
	})
	must(t, journal.Append(t.Context(), dir, event("A", "ann@dest.example", journal.Dropped, none)))
	j.Record(event("B", "ann@dest.example", journal.Held, none))
	must(t, j.Close())
	must(t, journal.Append(t.Context(), dir, event("B", "ann@dest.example", journal.Released, none)))
	events, err := reader(t, dir).Newest(t.Context(), journal.Filter{})
	must(t, err)
	var got []string
	for _, e := range events {
		got = append(got, e.Message+" "+string(e.Outcome))
	}
	if want := "A held, A dropped, B held, B released"; strings.Join(got, ", ") != want {
		t.Errorf("%q, want %s", got, want)
	}
}

func TestAnswerOf(t *testing.T) {
	for _, tt := range []struct {
		reply *reply.Reply
		want  string
	}{
		{nil, ""},
		{reply.New(550, "5.1.1", "no"), "550 5.1.1 no"},
		{reply.New(250, "", "ok\x1b"), "250 ok?"},
	} {
		if got := journal.AnswerOf(tt.reply).String(); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}
