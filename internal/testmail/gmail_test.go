package testmail_test

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"onward/internal/resolver"
	"onward/internal/testmail"
)

const gmailZone = `
1.0.0.127.in-addr.arpa. 60 IN PTR mx.good.example.
mx.good.example. 60 IN A 127.0.0.1
good.example. 60 IN TXT "v=spf1 ip4:127.0.0.1 -all"
_dmarc.good.example. 60 IN TXT "v=DMARC1; p=reject"
other.example. 60 IN TXT "v=spf1 ip4:127.0.0.1 -all"
hard.example. 60 IN TXT "v=spf1 ip4:192.0.2.1 -all"
open.example. 60 IN TXT "v=spf1 +all"
`

// startGmail starts a Gmail that knows gmailZone and the key of good.example.
func startGmail(t *testing.T) (*testmail.Gmail, *testmail.Key, *resolver.Zone) {
	t.Helper()
	zone, err := resolver.ParseZone("gmail", strings.NewReader(gmailZone))
	if err != nil {
		t.Fatal(err)
	}
	key := testmail.NewKey("good.example", "s1")
	if err := zone.Set(key.Record()); err != nil {
		t.Fatal(err)
	}
	g, err := testmail.StartGmail("127.0.0.1:0", zone)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g, key, zone
}

// offer is one visit with one message. It returns the answer that ends it, all
// lines.
func offer(t *testing.T, g *testmail.Gmail, secure bool, from string, to []string, data string) string {
	t.Helper()
	talk := testmail.Dial(t, g.Addr().String())
	defer talk.Close()
	if reply := talk.Expect(""); !strings.HasPrefix(reply, "220") {
		return reply
	}
	talk.Say("EHLO mx.good.example", "250")
	if secure {
		talk.Say("STARTTLS", "220")
		talk.StartTLS()
		talk.Say("EHLO mx.good.example", "250")
	}
	for _, line := range append([]string{"MAIL FROM:<" + from + ">"}, to...) {
		if reply := talk.Say(line, ""); !strings.HasPrefix(reply, "250") {
			return reply
		}
	}
	talk.Say("DATA", "354")
	return talk.Say(data+".", "")
}

// TestGmail goes through the table of STANDARDS.md 3.1 and the answers between
// its lines.
func TestGmail(t *testing.T) {
	const bob = "RCPT TO:<bob@gmail.example>"
	const header = "From: a@good.example\r\nDate: Sun, 1 Mar 2026 10:00:00 +0000\r\nMessage-ID: <1@good.example>\r\n"
	fold := func(name string, n int) string { return strings.Repeat(name+": x\r\n", n) }
	for _, tt := range []struct {
		name   string
		policy testmail.GmailPolicy
		from   string // a@good.example
		to     string // bob
		data   string // header, and a short body
		sign   bool
		clear  bool // without TLS
		before int  // so many good messages
		noPTR  bool
		want   string // 250
	}{
		{name: "SPF alone"},
		{name: "DKIM alone", from: "a@hard.example", sign: true},
		{name: "bulk, all in order", policy: testmail.GmailPolicy{Bulk: true}, sign: true},
		{name: "mailbox rate", policy: testmail.GmailPolicy{Mailbox: 1}, before: 1, want: "450-4.2.1"},
		{name: "mailbox full", policy: testmail.GmailPolicy{Full: map[string]bool{"bob@gmail.example": false}}, want: "452-4.2.2"},
		{name: "mailbox full for good", policy: testmail.GmailPolicy{Full: map[string]bool{"bob@gmail.example": true}}, want: "552-5.2.2"},
		{name: "two domains", to: bob + "|RCPT TO:<bob@googlemail.example>", want: "451-4.3.0"},
		{name: "reputation", policy: testmail.GmailPolicy{Reputation: true}, want: "421-4.7.0"},
		{name: "no TLS", policy: testmail.GmailPolicy{TLS: true}, clear: true, want: "421-4.7.0"},
		{name: "no PTR, put off", policy: testmail.GmailPolicy{Lenient: true}, noPTR: true, want: "451-4.7.23"},
		{name: "no PTR", noPTR: true, want: "550-5.7.25"},
		{name: "open SPF", from: "a@open.example", want: "421-4.7.24"},
		{name: "unauthenticated, put off", policy: testmail.GmailPolicy{Lenient: true}, from: "a@none.example", want: "421-4.7.26"},
		{name: "unauthenticated", from: "a@none.example", want: "550-5.7.26 Your email"},
		{name: "hard fail", from: "a@hard.example", want: "550-5.7.26 The MAIL FROM"},
		{name: "DMARC", from: "a@other.example", want: "550-5.7.26 Unauthenticated email from good.example"},
		{name: "bulk without SPF", policy: testmail.GmailPolicy{Bulk: true}, from: "a@none.example", sign: true, want: "421-4.7.27"},
		{name: "bulk without TLS", policy: testmail.GmailPolicy{Bulk: true}, sign: true, clear: true, want: "421-4.7.29"},
		{name: "bulk without DKIM", policy: testmail.GmailPolicy{Bulk: true}, want: "421-4.7.30"},
		{name: "bulk without alignment", policy: testmail.GmailPolicy{Bulk: true}, sign: true, data: strings.Replace(header, "good", "third", 1), want: "421-4.7.32"},
		{name: "bulk without DMARC record", policy: testmail.GmailPolicy{Bulk: true}, from: "a@other.example", sign: true, data: strings.Replace(header, "a@good", "a@other", 1), want: "421-4.7.40"},
		{name: "quota of the address", policy: testmail.GmailPolicy{Quota: map[string]int{"ip": 1}}, before: 1, want: "421-4.7.28 Gmail has detected an unusual rate of email originating from your IP address [127.0.0.1]"},
		{name: "quota of the SPF domain", policy: testmail.GmailPolicy{Quota: map[string]int{"spf": 1}}, before: 1, want: "421-4.7.28 Gmail has detected an unusual rate of email originating from your SPF domain [good.example]"},
		{name: "quota of the DKIM domain", policy: testmail.GmailPolicy{Quota: map[string]int{"dkim": 1}}, before: 1, sign: true, want: "421-4.7.28 Gmail has detected an unusual rate of email originating from your DKIM domain [good.example]"},
		{name: "quota of the Message-ID", policy: testmail.GmailPolicy{Quota: map[string]int{"message-id": 1}}, before: 1, want: "421-4.7.28 Gmail has detected an unusual rate of email with the same Message-ID"},
		{name: "spam", policy: testmail.GmailPolicy{Spam: "cheap"}, data: header + "Subject: cheap\r\n", want: "550-5.7.1"},
		{name: "no Message-ID", data: "From: a@good.example\r\n", want: "550-5.7.1"},
		{name: "two From", data: header + "From: b@good.example\r\n", want: "550-5.7.1"},
		{name: "two Subjects", data: header + fold("Subject", 2), want: "550-5.7.1"},
		{name: "long subject", data: header + "Subject: " + strings.Repeat("x", 1000) + "\r\n", want: "552-5.3.4"},
		{name: "many fields", data: header + fold("X", 5001), want: "552-5.3.4"},
		{name: "many attachments", data: header + fold("Content-Disposition: attachment; x", 501), want: "552-5.3.4"},
		{name: "hops", data: header + fold("Received", 51), want: "554-5.4.6"},
		{name: "50 hops", data: header + fold("Received", 50)},
		{name: "a program attached", data: header + "Content-Type: application/octet-stream; name=\"a.exe\"\r\n", want: "552-5.7.0"},
		{name: "greylisting", policy: testmail.GmailPolicy{Greylist: time.Hour}, want: "451-4.7.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, key, zone := startGmail(t)
			g.SetPolicy(tt.policy)
			if tt.noPTR {
				zone.Remove("1.0.0.127.in-addr.arpa", resolver.TypePTR)
			}
			or := func(s, otherwise string) string {
				if s == "" {
					return otherwise
				}
				return s
			}
			data := or(tt.data, header)
			if tt.sign {
				data = key.Sign(data, "hello\r\n") + data
			}
			visit := func() string {
				return offer(t, g, !tt.clear, or(tt.from, "a@good.example"), strings.Split(or(tt.to, bob), "|"), data+"\r\nhello\r\n")
			}
			for range tt.before {
				if reply := visit(); !strings.HasPrefix(reply, "250") {
					t.Fatalf("before: %s", reply)
				}
			}
			reply := visit()
			if want := or(tt.want, "250"); !strings.HasPrefix(reply, want) {
				t.Errorf("got %q, want %q", reply, want)
			}
			if taken := g.Count() - tt.before; (taken == 1) != (tt.want == "") {
				t.Errorf("%d messages taken after %q", taken, reply)
			}
		})
	}
}

// TestGmailPipelining: nothing may follow STARTTLS before its answer.
func TestGmailPipelining(t *testing.T) {
	g, _, _ := startGmail(t)
	talk := testmail.Dial(t, g.Addr().String())
	defer talk.Close()
	talk.Expect("220")
	talk.Say("EHLO mx.good.example", "250")
	talk.Send("STARTTLS\r\nNOOP\r\n")
	talk.Expect("523-5.7.10")
}

// TestGmailIPv6: over IPv6 a PTR record is a must.
func TestGmailIPv6(t *testing.T) {
	zone, _ := resolver.ParseZone("gmail", strings.NewReader(gmailZone))
	zone.Set("good.example", resolver.TypeTXT, "v=spf1 ip6:::1 -all")
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("no IPv6 here")
	} else {
		l.Close()
	}
	g, err := testmail.StartGmail("[::1]:0", zone)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if reply := offer(t, g, true, "a@good.example", []string{"RCPT TO:<bob@gmail.example>"}, "From: a@good.example\r\nMessage-ID: <1@x>\r\n\r\n"); !strings.HasPrefix(reply, "550-5.7.1 ") {
		t.Errorf("got %q", reply)
	}
}

// TestGmailPunishes: whoever comes back too soon waits longer, and is written
// down.
func TestGmailPunishes(t *testing.T) {
	g, _, _ := startGmail(t)
	const pause = time.Hour
	began, later := time.Now(), atomic.Int64{}
	g.Clock = func() time.Time { return began.Add(time.Duration(later.Load())) }
	g.SetPolicy(testmail.GmailPolicy{Quota: map[string]int{"ip": 1}, Pause: pause})
	for i, tt := range []struct {
		wait time.Duration // before the visit
		want string
	}{
		{0, "250"}, {0, "421-4.7.28"}, {pause / 2, "421-4.7.28"}, {pause * 3 / 4, "421-4.7.28"}, {pause * 5 / 4, "250"},
		{0, "421-4.7.28"}, {pause * 5 / 4, "250"},
	} {
		later.Add(int64(tt.wait))
		message := fmt.Sprintf("From: a@good.example\r\nMessage-ID: <%d@x>\r\n\r\n", i)
		if reply := offer(t, g, true, "a@good.example", []string{"RCPT TO:<bob@gmail.example>"}, message); !strings.HasPrefix(reply, tt.want) {
			t.Errorf("visit %d: %q, want %s", i, reply, tt.want)
		}
	}
	if n := len(g.Offences()); n != 2 {
		t.Errorf("%d offences, want 2: %q", n, g.Offences())
	}
}
