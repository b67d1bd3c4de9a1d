package status_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/alias"
	"onward/internal/config"
	"onward/internal/journal"
	"onward/internal/message"
	"onward/internal/smtpclient"
	"onward/internal/status"
	"onward/internal/store"
)

// now is when the page is looked at.
var now = time.Date(2026, 11, 22, 9, 41, 12, 0, time.UTC)

const (
	token    = "correct horse battery staple"
	patience = 20 * time.Second
)

func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

const configuration = `
hostname: mx.example.org
postmaster: jane.doe@gmail.com
domains:
  example.org:
    aliases:
      me: jane.doe@gmail.com
      shop: jane.doe@gmail.com
      team: [jane.doe@gmail.com, sam@outlook.com]
      travel: jane.doe@gmail.com
      news: jane.doe@gmail.com
      trap: {discard: true}
      old-name: {reject: "moved, write to me@example.org"}
      school: jane.doe@gmail.com
      club: sam@outlook.com
      "*": jane.doe@gmail.com
`

// A world is a page with real databases, and a server for it.
type world struct {
	*status.Page
	t       testing.TB
	server  *httptest.Server
	entries []journal.Entry
	numbers int
	held    string // a message that is held, after live
	log     *logBuffer
	asked   sync.Map // of paths
}

// newWorld makes a world in which nothing has happened yet. set may change the
// page before its server begins; open is as for Handler.
func newWorld(t testing.TB, open bool, set func(*status.Page)) *world {
	t.Helper()
	dir, log := t.TempDir(), &logBuffer{}
	logger := slog.New(slog.NewTextHandler(log, nil))
	file := filepath.Join(dir, "onward.yaml")
	must(t, os.WriteFile(file, []byte(configuration), 0o600))
	cfg, problems := config.Load(file)
	table, more := alias.New(cfg)
	if wrong := append(problems, more...).Fatal(); len(wrong) > 0 {
		t.Fatal(wrong)
	}
	s, err := store.Open(t.Context(), dir, store.Limits{})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	begun(t, dir, logger)
	j := journal.Start(dir, unlimited, logger)
	t.Cleanup(func() { j.Close() })
	w := &world{t: t, log: log, Page: &status.Page{
		Version: "0.5", StateDir: dir, Store: s, Journal: j, Destinations: func() []smtpclient.DestinationState { return destinations },
		Config: func() *config.Config { return cfg }, Aliases: func() *alias.Table { return table },
		Metrics: status.NewMetrics(func(host string) string { return strings.TrimPrefix(host, "mx.") }),
		Expires: func() time.Time { return now.Add(61 * 24 * time.Hour) },
		Token:   token, Log: logger,
	}}
	w.SetClock(func() time.Time { return now })
	if set != nil {
		set(w.Page)
	}
	handler := w.Handler(open)
	w.server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.asked.Store(r.URL.Path, true)
		handler.ServeHTTP(rw, r)
	}))
	t.Cleanup(w.server.Close)
	return w
}

// begun makes a journal before anybody looks into it: two who open a new database
// at the same time may be in each other's way. Its one entry is in no list.
func begun(t testing.TB, dir string, log *slog.Logger) {
	t.Helper()
	j := journal.Start(dir, unlimited, log)
	j.Record(journal.Event{Message: "0", Outcome: journal.Queued})
	must(t, j.Close())
}

func unlimited() journal.Limits { return journal.Limits{} }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wait(t testing.TB, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain for ", what)
		}
	}
}

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

// An answer is what the server said.
type answer struct {
	code   int
	header http.Header
	body   string
}

// do sends a request; change may change it first.
func (w *world) do(method, path string, form url.Values, change func(*http.Request)) answer {
	w.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.server.URL+path, body)
	must(w.t, err)
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if change != nil {
		change(r)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	must(w.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(w.t, err)
	return answer{resp.StatusCode, resp.Header, string(text)}
}

// get returns a page that must be there.
func (w *world) get(path string) string {
	w.t.Helper()
	a := w.do("GET", path, nil, nil)
	if a.code != 200 {
		w.t.Fatalf("GET %s: %d %s", path, a.code, a.body)
	}
	return a.body
}

// write writes what happened into the journal, and counts it.
func (w *world) write(entries ...journal.Entry) {
	w.t.Helper()
	for _, e := range entries {
		w.Metrics.Record(e)
	}
	must(w.t, journal.Append(w.t.Context(), w.StateDir, entries...))
}

func mailbox(s string) address.Mailbox {
	m, err := address.Parse(s)
	if err != nil {
		panic(fmt.Sprint(s, ": ", err))
	}
	return m
}

func sender(s string) (from address.ReversePath) {
	if s != "" {
		from.Mailbox = mailbox(s)
	}
	return from
}

// id is a message's, rising with n.
func id(at time.Time, n int) string { return message.NewID(at)[:20] + fmt.Sprintf("%06d", n) }

// A letter is what somebody wrote, in few words.
type letter struct {
	at                time.Time
	from, to, subject string
	outcome           journal.Outcome
	said              journal.Answer
}

var (
	taken    = journal.Answer{Code: 250, Status: "2.0.0", Text: "OK  1763804471 d2e1a72fcca58-7c3ed4a1b2csi4471205b3a.311 - gsmtp"}
	queued   = journal.Answer{Code: 250, Status: "2.0.0", Text: "queued: the destination wants it later"}
	unknown  = journal.Answer{Code: 550, Status: "5.1.1", Text: "<sales@example.org>: no such alias here"}
	forged   = journal.Answer{Code: 550, Status: "5.7.1", Text: "bank.example asks to reject mail that fails DMARC, and neither SPF nor DKIM passed for it; see https://bank.example/why"}
	limited  = journal.Answer{Code: 450, Status: "4.2.1", Text: "The user you are trying to contact is receiving mail at a rate that prevents additional messages from being delivered."}
	greylist = journal.Answer{Code: 451, Status: "4.7.1", Text: "try again in five minutes"}
	overfull = journal.Answer{Code: 552, Status: "5.2.2", Text: "The recipient's inbox is out of storage space and inactive."}
)

// send records a letter with all that goes with it, and returns its ID.
func (w *world) send(l letter) string {
	w.numbers++
	name := id(l.at, w.numbers)
	domain := "sender.example"
	if l.from != "" {
		domain = mailbox(l.from).Domain.String()
	}
	target := "jane.doe@gmail.com"
	m := journal.Message{
		ID: name, Arrived: l.at, Answered: l.at.Add(time.Duration(600+w.numbers%900) * time.Millisecond), Client: netip.MustParseAddr("198.51.100.24"), Helo: "out1." + domain,
		TLS: "TLS 1.3 TLS_AES_128_GCM_SHA256", From: sender(l.from), Subject: l.subject, Size: int64(4711 + 977*w.numbers%70_000), Outcome: l.outcome, Answer: l.said,
		Recipients: []message.Recipient{{Address: mailbox(l.to), Targets: []address.Mailbox{mailbox(target)}}},
		Verdict: &journal.Verdict{
			SPF: "pass", SPFDomain: domain, SPFReason: "matched ip4:198.51.100.0/24", DKIM: []journal.Signature{{Domain: domain, Selector: "s1", Result: "pass"}},
			ARC: "none", DMARC: "pass", Author: domain, Policy: "reject", Why: "DMARC passes",
		},
	}
	switch l.said {
	case unknown:
		m.Size, m.Subject, m.Verdict = 0, "", nil
	case forged:
		m.Verdict.SPF, m.Verdict.SPFReason, m.Verdict.DKIM, m.Verdict.DMARC = "fail", "matched -all", nil, "fail"
		m.Verdict.Why = "DMARC fails, and the policy of bank.example is reject"
	}
	try := journal.Attempt{
		Message: name, Began: l.at.Add(300 * time.Millisecond), Took: 480 * time.Millisecond, Recipient: l.to, Target: target, Host: "gmail-smtp-in.l.google.com",
		Peer: "192.0.2.27:25", TLS: "TLS 1.3 TLS_AES_256_GCM_SHA384", Step: "dot", Result: "delivered", Answer: l.said,
	}
	switch l.outcome {
	case journal.Forwarded:
		w.entries = append(w.entries, try)
	case journal.Queued:
		try.Result, try.Step, try.Answer = "deferred", "RCPT", limited
		w.entries = append(w.entries, try)
	}
	w.entries = append(w.entries, m)
	return name
}

// flush writes all that was sent.
func (w *world) flush() {
	slices.SortStableFunc(w.entries, func(a, b journal.Entry) int { return when(a).Compare(when(b)) })
	w.write(w.entries...)
	w.entries = nil
}

// when an entry is written: in the order of their ends.
func when(e journal.Entry) time.Time {
	switch e := e.(type) {
	case journal.Message:
		return e.Answered
	case journal.Attempt:
		return e.Began
	case journal.Event:
		return e.Time
	}
	return time.Time{}
}

// enqueue puts an item for a message into the queue.
func (w *world) enqueue(name string, l letter, change func(*store.Item)) *store.Item {
	header, rest := "Subject: "+l.subject+"\r\n", "\r\nHello\r\n"
	item := &store.Item{
		Message: name, Sender: sender(l.from), Bounceable: true, From: sender("SRS0=Zm9v=XY=sender.example=ada@mx.example.org"),
		Recipient: mailbox(l.to), Target: mailbox("jane.doe@gmail.com"), Header: []byte(header), Size: int64(len(header) + len(rest)),
		Arrived: l.at, Expires: l.at.Add(5 * 24 * time.Hour), Next: now.Add(24 * time.Minute), Host: "gmail-smtp-in.l.google.com", Said: limited.String(), Attempts: 3,
	}
	if change != nil {
		change(item)
	}
	must(w.t, w.Store.Add(w.t.Context(), strings.NewReader(rest), []*store.Item{item}))
	return item
}

// senders and subjects are what a person gets on a day.
var everyday = []letter{
	{from: "orders@shop.example", to: "shop@example.org", subject: "Your order 4711 has been shipped"},
	{from: "no-reply@rail.example", to: "travel@example.org", subject: "=?UTF-8?Q?Your_ticket_Z=C3=BCrich_=E2=86=92_Milano?="},
	{from: "ada@lovelace.example", to: "me@example.org", subject: "Notes on the analytical engine"},
	{from: "weekly@news.example", to: "news@example.org", subject: "This week: how spam filters read your mail"},
	{from: "office@school.example", to: "school@example.org", subject: "Reminder: no lessons on Friday"},
	{from: "grace@hopper.example", to: "team@example.org", subject: "Re: the moth in relay 70"},
	{from: "billing@hosting.example", to: "me@example.org", subject: "Invoice 2026-1187 for November"},
	{from: "", to: "me@example.org", subject: "Undelivered Mail Returned to Sender"},
	{from: "offers@outlet.example", to: "shop+outlet@example.org", subject: "Two days only: everything for half the price"},
	{from: "alan@turing.example", to: "me@example.org", subject: "=?UTF-8?B?" + "UmU6IERpbm5lciBvbiBTdW5kYXk/" + "?="},
}

// live makes two days of an everyday life.
func (w *world) live() {
	random := rand.New(rand.NewPCG(1, 2))
	for hour := 47; hour >= 0; hour-- {
		begin := now.Truncate(time.Hour).Add(-time.Duration(hour) * time.Hour)
		day := float64(begin.Hour())
		busy := max(1, int(22-(day-13)*(day-13)/4)+random.IntN(5))
		for i := range busy {
			at := begin.Add(time.Duration(i) * time.Hour / time.Duration(busy)).Add(time.Duration(random.IntN(100)) * time.Second)
			if at.After(now.Add(-12 * time.Minute)) {
				continue
			}
			l := everyday[random.IntN(len(everyday))]
			l.at, l.outcome, l.said = at, journal.Forwarded, taken
			switch random.IntN(9) {
			case 0, 1:
				l.from, l.to, l.outcome, l.said = fmt.Sprintf("info%d@spam.example", random.IntN(99)), "sales@example.org", journal.Rejected, unknown
			case 2:
				l.outcome, l.said = journal.Deferred, greylist
			}
			w.send(l)
		}
	}
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	early := letter{ago(31 * time.Hour), "orders@shop.example", "shop@example.org", "Your receipt", journal.Queued, queued}
	w.held = w.send(early)
	w.entries = append(w.entries, journal.Event{Time: ago(2 * time.Hour), Message: w.held, From: early.from, Recipient: early.to, Targets: []string{"jane.doe@gmail.com"}, Outcome: journal.Held, Answer: overfull})
	waits := letter{ago(9 * time.Minute), "grace@hopper.example", "me@example.org", "Re: Re: the moth in relay 70", journal.Queued, queued}
	later := w.send(waits)
	w.send(letter{ago(7 * time.Minute), "security@bank.example", "me@example.org", "Your account is locked, act now", journal.Rejected, forged})
	third := letter{ago(6 * time.Minute), "no-reply@rail.example", "travel@example.org", "Platform change for your train at 10:14", journal.Queued, queued}
	thirdID := w.send(third)
	w.send(letter{ago(5 * time.Minute), "info7@spam.example", "sales@example.org", "", journal.Rejected, unknown})
	w.send(letter{ago(3 * time.Minute), "hello@newsletter.example", "shop+outlet@example.org", "You are in! Confirm your subscription", journal.Forwarded, taken})
	w.send(letter{ago(70 * time.Second), "ada@lovelace.example", "me@example.org", "Notes on the analytical engine, part two", journal.Forwarded, taken})
	w.flush()
	w.enqueue(w.held, early, func(i *store.Item) {
		i.State, i.Reason, i.Bounceable, i.Said, i.Attempts = store.Held, "552 5.2.2 The recipient's inbox is out of storage space and inactive.", false, overfull.String(), 9
	})
	w.enqueue(later, waits, nil)
	w.enqueue(thirdID, third, func(i *store.Item) { i.Attempts, i.Next = 1, now.Add(-time.Second) })
	w.SetChecks(examined, now.Add(-47*time.Minute))
}

func none() []smtpclient.DestinationState { return nil }

var destinations = []smtpclient.DestinationState{
	{Operator: "google.com", Host: "alt1.gmail-smtp-in.l.google.com", Slots: 1, Until: now.Add(24 * time.Minute), Step: 2, Reason: limited.String()},
	{Operator: "google.com", Host: "gmail-smtp-in.l.google.com", InUse: 1, Slots: 1, Until: now.Add(24 * time.Minute), Step: 2, Reason: limited.String()},
	{Operator: "outlook.com", Host: "outlook-com.olc.protection.outlook.com", InUse: 2, Idle: 3, Slots: 12},
	{Operator: "yahoodns.net", Until: now.Add(-time.Hour), Step: 1, Reason: "421 4.7.0 [TSS04] Messages from 192.0.2.10 temporarily deferred due to unexpected volume or user complaints"},
}

var examined = []status.Check{
	{"DNS servers", status.OK, "127.0.0.1 answers, and is not a public resolver.", ""},
	{"MX example.org", status.OK, "mx.example.org, which is this server.", ""},
	{"PTR 192.0.2.10", status.OK, "The address is called mx.example.org, and that name leads back to it.", ""},
	{"SPF mx.example.org", status.Failure, "The record does not list 192.0.2.10, from which this server sends: what is forwarded fails SPF.", "mx.example.org. 3600 IN TXT \"v=spf1 ip4:192.0.2.10 -all\""},
	{"DKIM onward._domainkey.mx.example.org", status.OK, "The key in the DNS is the one that signs.", ""},
	{"DMARC example.org", status.Warning, "There is no policy: anybody can write in the name of example.org.", "_dmarc.example.org. 3600 IN TXT \"v=DMARC1; p=reject\""},
	{"Port 25 out", status.OK, "gmail-smtp-in.l.google.com greets.", ""},
	{"Blocklists 192.0.2.10", status.OK, "On none of three.", ""},
	{"Clock", status.OK, "Right to the second.", ""},
	{"Disk", status.OK, "41 GiB are free.", ""},
}
