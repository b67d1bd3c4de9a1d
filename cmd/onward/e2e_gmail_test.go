package main_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"onward/internal/resolver"
	"onward/internal/testmail"
	"onward/internal/testpeer"
)

// A gmailStand is a daemon whose aliases lead to Gmail, with everything in its
// DNS that Gmail asks for: "ann" and "bob" to mailboxes of those names, "both" to
// mailboxes of two domains on one host.
type gmailStand struct {
	*daemon
	gmail  *testmail.Gmail
	zone   *resolver.Zone
	cast   *testmail.Cast
	ledger *testmail.Ledger
	sent   int
	writer *testmail.Sink // where reports would go
}

// Where Gmail is.
var gmailHost = netip.MustParseAddr("127.0.0.30")

func newGmailStand(t *testing.T, breaks string) *gmailStand {
	t.Helper()
	zone, err := resolver.ParseZone("gmail", strings.NewReader(egress+strings.ReplaceAll(`
gmail.example. 60 IN MX 5 mx.gmail.example.
googlemail.example. 60 IN MX 5 mx.gmail.example.
mx.gmail.example. 60 IN A GMAIL
`, "GMAIL", gmailHost.String())))
	if err != nil {
		t.Fatal(err)
	}
	s := &gmailStand{zone: zone, cast: testmail.NewCast(zone, writerHost), ledger: &testmail.Ledger{}}
	port := testpeer.FreePort(t, gmailHost.String(), writerHost.String())
	if s.gmail, err = testmail.StartGmail(netip.AddrPortFrom(gmailHost, uint16(port)).String(), zone); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.gmail.Close)
	if s.writer, err = testmail.StartSink(netip.AddrPortFrom(writerHost, uint16(port)).String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.writer.Close)
	dns, err := testmail.StartDNS(zone, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dns.Close)
	s.daemon = serve(t, fmt.Sprintf(`
hostname: mx.onward.example
postmaster: owner@gmail.example
state_dir: DIR/state
listen: ["127.0.0.1:0"]
domains:
  alias.example:
    aliases:
      ann: ann@gmail.example
      bob: bob@gmail.example
      both: [ann@gmail.example, ann@googlemail.example]
dns: {resolvers: [%q], timeout: 1s}
policy: {when_dmarc_breaks: %s}
delivery: {port: %d, allow_private: true}
`, dns.Addr(), breaks, port))
	publishKeys(t, zone, map[string]string{}, filepath.Join(s.dir, "state", "dkim"), "mx.onward.example")
	return s
}

// send sends a letter with further header fields, and returns what the sender
// heard.
func (s *gmailStand) send(t *testing.T, w *testmail.Writer, alias, fields string) testmail.Try {
	t.Helper()
	s.sent++
	id := fmt.Sprintf("%d@writer.example", s.sent)
	header := fmt.Sprintf("From: <%s>\r\nTo: <%s@alias.example>\r\nSubject: letter\r\nDate: Sun, 1 Mar 2026 10:00:00 +0000\r\nMessage-ID: <%s>\r\n", w.Author, alias, id)
	if w.Key != nil {
		header = w.Key.Sign(header, "hello\r\n") + header
	}
	switch {
	case strings.HasPrefix(fields, "-"): // without that field
		name, _, _ := strings.Cut(fields[1:], ":")
		header = header[:strings.Index(header, name+":")]
	default:
		header = fields + header
	}
	octets := []byte(header + "\r\nhello\r\n")
	s.ledger.Write(id, w.Class, w.From, octets)
	try := w.Send(t.Context(), s.addr, w.From, []string{alias + "@alias.example"}, octets)
	s.ledger.Tried(id, try)
	return try
}

// gmailTargets is where the aliases of a gmailStand lead.
func gmailTargets(recipient string) []string {
	return map[string][]string{
		"ann@alias.example":  {"ann@gmail.example"},
		"bob@alias.example":  {"bob@gmail.example"},
		"both@alias.example": {"ann@gmail.example", "ann@googlemail.example"},
	}[recipient]
}

// A gmailRow is one row of the table of STANDARDS.md 3.1: how Gmail comes to say
// it, what the sender hears, and what is different afterwards.
type gmailRow struct {
	row    string // the reply of the table
	policy testmail.GmailPolicy
	world  func(s *gmailStand)
	by     func(*testmail.Cast) *testmail.Writer // nil: whom SPF vouches for
	to     string                                // "ann"
	fields string                                // on top of the message; "-Name": without
	breaks string                                // when_dmarc_breaks
	before int                                   // so many messages to the same alias before, all delivered

	said  string // by Gmail, to the message; "": nothing, all is well
	heard string // by its sender
	left  string // what lies in the queue: "", "waiting"

	// What becomes of the next message, to another mailbox: "delivered"; "tried" and
	// kept; or "not tried", because the destination is left alone.
	next  string
	alarm bool // the log warns the operator
}

var gmailRows = []gmailRow{
	{row: "(all is well)", heard: "250 2.0.0", next: "delivered"},
	{row: "450 4.2.1", policy: testmail.GmailPolicy{Mailbox: 1}, before: 1, said: "450 4.2.1", heard: "250 2.0.0", left: "waiting", next: "delivered"},
	{row: "452 4.2.2", policy: testmail.GmailPolicy{Full: map[string]bool{"ann@gmail.example": false}}, said: "452 4.2.2", heard: "250 2.0.0", left: "waiting", next: "delivered"},
	{row: "552 5.2.2", policy: testmail.GmailPolicy{Full: map[string]bool{"ann@gmail.example": true}}, said: "552 5.2.2", heard: "552 5.2.2", next: "delivered"},
	{row: "451 4.3.0 multiple domains", to: "both", heard: "250 2.0.0", next: "delivered"},
	{row: "421 4.7.0 reputation", policy: testmail.GmailPolicy{Reputation: true}, said: "421 4.7.0", heard: "250 2.0.0", left: "waiting", next: "not tried", alarm: true},
	{row: "421 4.7.0 TLS required", policy: testmail.GmailPolicy{TLS: true}, world: func(s *gmailStand) { s.gmail.Offer("SIZE", "8BITMIME", "PIPELINING") },
		said: "421 4.7.0", heard: "250 2.0.0", left: "waiting", next: "tried", alarm: true},
	{row: "451 4.7.23", policy: testmail.GmailPolicy{Lenient: true}, world: withoutPTR, said: "451 4.7.23", heard: "250 2.0.0", left: "waiting", next: "tried", alarm: true},
	{row: "421 4.7.24", world: func(s *gmailStand) { s.zone.Set("mx.onward.example", resolver.TypeTXT, "v=spf1 +all") },
		said: "421 4.7.24", heard: "250 2.0.0", left: "waiting", next: "tried", alarm: true},
	{row: "421 4.7.26", policy: testmail.GmailPolicy{Lenient: true}, world: withoutAuthentication, said: "421 4.7.26", heard: "250 2.0.0", left: "waiting", next: "tried", alarm: true},
	{row: "421 4.7.27", policy: testmail.GmailPolicy{Bulk: true}, world: withoutSPF, said: "421 4.7.27", heard: "250 2.0.0", left: "waiting", next: "tried", alarm: true},
	{row: "421 4.7.29", policy: testmail.GmailPolicy{Bulk: true}, world: func(s *gmailStand) { s.gmail.Offer("SIZE", "8BITMIME", "PIPELINING") },
		said: "421 4.7.29", heard: "250 2.0.0", left: "waiting", next: "tried", alarm: true},
	{row: "421 4.7.30", policy: testmail.GmailPolicy{Bulk: true}, world: withoutKey, said: "421 4.7.30", heard: "250 2.0.0", left: "waiting", next: "tried", alarm: true},
	{row: "421 4.7.32", policy: testmail.GmailPolicy{Bulk: true}, said: "421 4.7.32", heard: "250 2.0.0", left: "waiting", next: "tried", alarm: true},
	{row: "421 4.7.40", policy: testmail.GmailPolicy{Bulk: true}, by: func(c *testmail.Cast) *testmail.Writer { return c.Signed },
		world: func(s *gmailStand) {
			s.zone.Set("signed.example", resolver.TypeTXT, "v=spf1 ip4:127.0.0.3 -all") // so that it may be told later
			s.zone.Remove("_dmarc.signed.example", resolver.TypeTXT)
		},
		said: "421 4.7.40", heard: "250 2.0.0", left: "waiting", next: "tried", alarm: true},
	{row: "421 4.7.28 our address", policy: testmail.GmailPolicy{Quota: map[string]int{"ip": 1}}, before: 1, said: "421 4.7.28", heard: "250 2.0.0", left: "waiting", next: "not tried", alarm: true},
	{row: "421 4.7.28 our SPF domain", policy: testmail.GmailPolicy{Quota: map[string]int{"spf": 1}}, before: 1, said: "421 4.7.28", heard: "250 2.0.0", left: "waiting", next: "not tried", alarm: true},
	{row: "421 4.7.28 our DKIM domain", policy: testmail.GmailPolicy{Quota: map[string]int{"dkim": 1}}, before: 1, said: "421 4.7.28", heard: "250 2.0.0", left: "waiting", next: "not tried", alarm: true},
	{row: "550 5.7.1 spam", policy: testmail.GmailPolicy{Spam: "X-Cheap"}, fields: "X-Cheap: yes\r\n", said: "550 5.7.1", heard: "550 5.7.1", next: "delivered"},
	{row: "550 5.7.1 no Message-ID", fields: "-Message-ID", said: "550 5.7.1", heard: "550 5.7.1", next: "delivered"},
	{row: "550 5.7.1 two Subjects", fields: "Subject: one more\r\n", said: "550 5.7.1", heard: "550 5.7.1", next: "delivered"},
	{row: "550 5.7.25", world: withoutPTR, said: "550 5.7.25", heard: "250 2.0.0", left: "waiting", next: "tried", alarm: true},
	{row: "550 5.7.26", world: withoutAuthentication, said: "550 5.7.26", heard: "550 5.7.26", next: "refused"},
	{row: "550 5.7.26 DMARC policy", breaks: "forward", world: func(s *gmailStand) { s.zone.Set("_dmarc.spf.example", resolver.TypeTXT, "v=DMARC1; p=reject") },
		said: "550 5.7.26", heard: "550 5.7.26", next: "refused"},
	{row: "(the same, From rewritten)", breaks: "rewrite", world: func(s *gmailStand) { s.zone.Set("_dmarc.spf.example", resolver.TypeTXT, "v=DMARC1; p=reject") },
		heard: "250 2.0.0", next: "delivered"},
	{row: "552 5.3.4 header", fields: "X-Long: " + strings.Repeat("x", 900) + "\r\nSubject: " + strings.Repeat("x", 1000) + "\r\n", said: "552 5.3.4", heard: "552 5.3.4", next: "delivered"},
	{row: "552 5.3.4 size", world: func(s *gmailStand) { s.gmail.Offer("SIZE 600", "STARTTLS", "8BITMIME") }, fields: "X-Long: " + strings.Repeat("x", 900) + "\r\n", heard: "552 5.3.4", next: "refused"},
	{row: "554 5.4.6", fields: strings.Repeat("Received: from x by y; Sun, 1 Mar 2026 10:00:00 +0000\r\n", 50), said: "554 5.4.6", heard: "554 5.4.6", next: "delivered"},
	{row: "552 5.7.0", fields: "Content-Type: application/octet-stream; name=\"setup.exe\"\r\n", said: "552 5.7.0", heard: "552 5.7.0", next: "delivered"},
	{row: "523 5.7.10", heard: "250 2.0.0", next: "delivered"},
	{row: "greylisting", policy: testmail.GmailPolicy{Greylist: 1 << 40}, said: "451 4.7.1", heard: "250 2.0.0", left: "waiting", next: "tried"},
}

func withoutPTR(s *gmailStand) { s.zone.Remove("1.0.0.127.in-addr.arpa", resolver.TypePTR) }
func withoutSPF(s *gmailStand) { s.zone.Remove("mx.onward.example", resolver.TypeTXT) }
func withoutKey(s *gmailStand) {
	s.zone.Remove("onward._domainkey.mx.onward.example", resolver.TypeTXT)
}
func withoutAuthentication(s *gmailStand) { withoutSPF(s); withoutKey(s) }

// TestGmail goes through the table with the real daemon, prints it, and ends each
// row with the auditor.
func TestGmail(t *testing.T) {
	var table strings.Builder
	fmt.Fprintf(&table, "\n%-28s | %-45s | %-8s | %-10s | %s\n", "Gmail", "the sender hears", "queue", "next", "operator")
	for _, row := range gmailRows {
		t.Run(row.row, func(t *testing.T) { fmt.Fprintln(&table, row.play(t)) })
	}
	t.Log(table.String())
}

// play plays one row and returns its line of the table.
func (row gmailRow) play(t *testing.T) string {
	if row.breaks == "" {
		row.breaks = "rewrite"
	}
	if row.to == "" {
		row.to = "ann"
	}
	s := newGmailStand(t, row.breaks)
	by := s.cast.SPF
	if row.by != nil {
		by = row.by(s.cast)
	}
	s.gmail.SetPolicy(row.policy)
	if row.world != nil {
		row.world(s)
	}
	for range row.before {
		if try := s.send(t, by, row.to, ""); try.Code != 250 {
			t.Fatalf("before: heard %q", try.Text)
		}
	}
	if n := s.gmail.Count(); n != row.before {
		t.Fatalf("before: %d of %d messages delivered, Gmail said %q", n, row.before, s.gmail.Answers())
	}
	mark := s.log.mark()
	try := s.send(t, by, row.to, row.fields)
	if !strings.HasPrefix(try.Text, row.heard) {
		t.Errorf("the sender heard %q, want %s", try.Text, row.heard)
	}
	said := s.gmail.Answers()
	if row.said == "" && len(said) > 0 || row.said != "" && (len(said) != 1 || !strings.HasPrefix(said[0], row.said)) {
		t.Errorf("Gmail said %q, want %q", said, row.said)
	}
	left := s.left(t)
	if left != row.left {
		t.Errorf("in the queue: %q, want %q", left, row.left)
	}
	alarm := strings.Contains(s.log.String()[mark:], "level=WARN") || strings.Contains(s.log.String()[mark:], "level=ERROR")
	if alarm != row.alarm {
		t.Errorf("the operator is warned: %v, want %v", alarm, row.alarm)
	}
	next := s.next(t, by)
	if next != row.next {
		t.Errorf("the next message was %s, want %s", next, row.next)
	}
	if offences := s.gmail.Offences(); len(offences) > 0 {
		t.Errorf("offences at Gmail: %q", offences)
	}
	for _, a := range s.gmail.Answers() {
		if strings.HasPrefix(a, "451 4.3.0") || strings.HasPrefix(a, "523") {
			t.Errorf("a bug of the client: %s", a)
		}
	}
	s.audit(t)
	operator := ""
	if alarm {
		operator = "warned"
	}
	return fmt.Sprintf("%-28s | %-45.45s | %-8s | %-10s | %s", row.row, try.Text, left, next, operator)
}

// After a 4.7.28 the destination is left alone whatever happens to the daemon: a
// restart is no reason to try, nor a sender who could not be told later.
func TestGmailPauseSurvives(t *testing.T) {
	s := newGmailStand(t, "rewrite")
	s.gmail.SetPolicy(testmail.GmailPolicy{Quota: map[string]int{"ip": 1}})
	for range 2 {
		if try := s.send(t, s.cast.SPF, "ann", ""); try.Code != 250 {
			t.Fatalf("heard %q", try.Text)
		}
	}
	sessions := s.gmail.Sessions()
	for _, life := range []string{"first", "second"} {
		if try := s.send(t, s.cast.SPF, "bob", ""); try.Code != 250 {
			t.Errorf("in its %s life: a sender who can be told later heard %q", life, try.Text)
		}
		if try := s.send(t, s.cast.Forged, "bob", ""); try.Code != 451 {
			t.Errorf("in its %s life: a sender who cannot be told later heard %q", life, try.Text)
		}
		if stdout, stderr, status := onward(t, "queue", "retry", "--all", "-c", s.config()); status != 0 {
			t.Errorf("onward queue retry: %d, %q, %q", status, stdout, stderr)
		}
		s.kill(t)
		s.start(t)
	}
	s.audit(t)
	if n := s.gmail.Sessions(); n != sessions || len(s.gmail.Offences()) > 0 {
		t.Errorf("%d more connections during the pause, offences %q", n-sessions, s.gmail.Offences())
	}
}

// left tells what lies in the queue.
func (s *gmailStand) left(t *testing.T) string {
	t.Helper()
	pending, err := testmail.ReadQueue(t.Context(), filepath.Join(s.dir, "state"))
	if err != nil {
		t.Error(err)
	}
	switch {
	case len(pending) == 0:
		return ""
	case slices.ContainsFunc(pending, func(p testmail.Pending) bool { return p.Held }):
		return "held"
	}
	return "waiting"
}

// next sends a message to another mailbox and tells what became of it.
func (s *gmailStand) next(t *testing.T, by *testmail.Writer) string {
	t.Helper()
	mails := func() int {
		return len(slices.DeleteFunc(s.gmail.Commands(), func(c string) bool { return !strings.HasPrefix(c, "EHLO") && !strings.HasPrefix(c, "MAIL") }))
	}
	count, before := s.gmail.Count(), mails()
	try := s.send(t, by, "bob", "")
	switch {
	case s.gmail.Count() == count+1 && try.Code == 250:
		return "delivered"
	case try.Code/100 == 5:
		return "refused"
	case mails() == before:
		return "not tried"
	}
	return "tried"
}

// audit stops the daemon and holds everything against the promise.
func (s *gmailStand) audit(t *testing.T) {
	t.Helper()
	s.stop(t)
	pending, err := testmail.ReadQueue(t.Context(), filepath.Join(s.dir, "state"))
	if err != nil {
		t.Error(err)
	}
	audit := testmail.Evidence{
		Ledger: s.ledger, Targets: gmailTargets, Queue: pending, Postmaster: "owner@gmail.example",
		Sink:      append(s.gmail.Messages(), s.writer.Messages()...),
		Rewritten: func(header []byte) bool { return bytes.Contains(header, []byte("@mx.onward.example>\r\n")) },
	}.Check()
	if !audit.Clean() {
		t.Errorf("the auditor: %s", audit)
	}
}
