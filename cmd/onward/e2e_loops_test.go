package main_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"onward/internal/resolver"
	"onward/internal/testmail"
	"onward/internal/testpeer"
)

// A ring is two daemons, the world around them, and DNS that leads from one to
// the other. Everybody's host has an address of its own, and all have one port.
type ring struct {
	a, b  *daemon
	world *testmail.Sink // of dest.example and of the sender's domain
	ada   *testmail.Writer
}

// newRing starts mx.a.example and mx.b.example with one alias each, "me".
func newRing(t *testing.T, meAtA, meAtB string) *ring {
	t.Helper()
	const hostA, hostB, hostWorld = "127.0.0.21", "127.0.0.22", "127.0.0.23"
	port := testpeer.FreePort(t, hostA, hostB, hostWorld)
	zone, err := resolver.ParseZone("ring", strings.NewReader(strings.NewReplacer("HOSTA", hostA, "HOSTB", hostB, "WORLD", hostWorld).Replace(`
a.example. 60 IN MX 10 mx.a.example.
mx.a.example. 60 IN A HOSTA
mx.a.example. 60 IN TXT "v=spf1 ip4:127.0.0.0/8 -all"
b.example. 60 IN MX 10 mx.b.example.
mx.b.example. 60 IN A HOSTB
mx.b.example. 60 IN TXT "v=spf1 ip4:127.0.0.0/8 -all"
dest.example. 60 IN MX 10 mx.dest.example.
mx.dest.example. 60 IN A WORLD
sender.example. 60 IN MX 10 mx.sender.example.
sender.example. 60 IN TXT "v=spf1 ip4:127.0.0.2 -all"
mx.sender.example. 60 IN A WORLD
own.example. 60 IN MX 10 mx.a.example.
alsoown.example. 60 IN MX 10 mail.alsoown.example.
mail.alsoown.example. 60 IN A HOSTA
`)))
	if err != nil {
		t.Fatal(err)
	}
	dns, err := testmail.StartDNS(zone, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dns.Close)
	world, err := testmail.StartSink(fmt.Sprintf("%s:%d", hostWorld, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(world.Close)
	start := func(name, host, target string) *daemon {
		return serve(t, fmt.Sprintf(`
hostname: mx.%s.example
postmaster: owner@dest.example
state_dir: DIR/state
listen: ["%s:%d"]
domains: {%s.example: {aliases: {me: %q}}}
dns: {resolvers: [%q]}
delivery: {port: %d, allow_private: true}
`, name, host, port, name, target, dns.Addr(), port))
	}
	return &ring{
		a: start("a", hostA, meAtA), b: start("b", hostB, meAtB), world: world,
		ada: &testmail.Writer{Class: testmail.Bounceable, From: "ada@sender.example", Client: netip.MustParseAddr("127.0.0.2"), Helo: "mx.sender.example"},
	}
}

// transactions counts the messages that a daemon has read to their end.
func transactions(d *daemon) int { return strings.Count(d.log.String(), "msg=verified ") }

// circling is the answer that ends a loop.
const circling = "554 5.4.6 "

// Two forwarders that lead to each other, for a sender who could be told later,
// for one who could not, and for a bounce: the first one to see the message again
// refuses it, and whoever sent it hears so while he waits.
func TestLoopOfTwo(t *testing.T) {
	for _, from := range []string{"ada@sender.example", "eve@nobody.example", ""} {
		t.Run("from "+from, func(t *testing.T) {
			r := newRing(t, "me@b.example", "me@a.example")
			try := r.ada.Send(t.Context(), r.a.addr, from, []string{"me@a.example"}, []byte(letter))
			if !strings.HasPrefix(try.Text, circling) {
				t.Errorf("heard %q, want %q", try.Text, circling)
			}
			if ids := regexp.MustCompile(`\([0-7][0-9A-HJKMNP-TV-Z]{25}\)`).FindAllString(try.Text, -1); len(ids) != 1 || !strings.HasSuffix(try.Text, ids[0]) {
				t.Errorf("heard %q, want one id at its end", try.Text)
			}
			if a, b := transactions(r.a), transactions(r.b); a > 2 || b != 1 {
				t.Errorf("%d times through a and %d times through b", a, b)
			}
			if n := r.world.Count(); n > 0 {
				t.Errorf("%d messages to the outside", n)
			}
			for _, d := range []*daemon{r.a, r.b} {
				d.stop(t)
				if pending, err := testmail.ReadQueue(t.Context(), d.dir+"/state"); len(pending) > 0 || err != nil {
					t.Errorf("%d messages in the queue, %v", len(pending), err)
				}
			}
		})
	}
}

// An alias whose target's domain leads back to the daemon itself, by name or by
// address.
func TestLoopToSelf(t *testing.T) {
	for target, want := range map[string]string{"x@own.example": circling, "x@alsoown.example": "5"} {
		t.Run(target, func(t *testing.T) {
			r := newRing(t, target, "me@dest.example")
			try := r.ada.Send(t.Context(), r.a.addr, "ada@sender.example", []string{"me@a.example"}, []byte(letter))
			if !strings.HasPrefix(try.Text, want) || try.Code/100 != 5 {
				t.Errorf("heard %q, want %q", try.Text, want)
			}
			if n := transactions(r.a); n != 1 {
				t.Errorf("%d times through a", n)
			}
		})
	}
}

// A message that has been here before is known by what its header says, whoever
// brings it back: by our mark, by a mailbox that says it delivered to the alias,
// and by the number of its hops.
func TestLoopByHeader(t *testing.T) {
	r := newRing(t, "ann@dest.example", "me@a.example")
	send := func(header string) string {
		return r.ada.Send(t.Context(), r.a.addr, "ada@sender.example", []string{"me@a.example"}, []byte(header+letter)).Text
	}
	received := func(n int) string {
		return strings.Repeat("Received: from x.example by y.example; Sun, 1 Mar 2026 10:00:00 +0000\r\n", n)
	}
	for _, tt := range []struct{ name, header, want string }{
		{"a first time", "", "250 "},
		{"delivered to the alias", "Delivered-To: ME@a.example\r\n", circling},
		{"delivered to somebody else", "Delivered-To: ann@dest.example\r\n", "250 "},
		{"49 hops", received(49), "250 "},
		{"51 hops", received(51), circling},
	} {
		if got := send(tt.header); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: heard %q, want %q", tt.name, got, tt.want)
		}
	}

	// The mailbox forwards it back, as Gmail does: a new envelope, fields on top.
	first := r.world.Messages()[0]
	back := r.ada.Send(t.Context(), r.a.addr, "ann@dest.example", []string{"me@a.example"},
		slices.Concat([]byte("Delivered-To: ann@dest.example\r\nX-Forwarded-To: me@a.example\r\nReceived: by dest.example; Sun, 1 Mar 2026 10:00:00 +0000\r\n"), first.Data))
	if !strings.HasPrefix(back.Text, circling) {
		t.Errorf("forwarded back: heard %q, want %q", back.Text, circling)
	}
	// Another alias's mark stops nothing: B has never seen this message.
	if there := r.ada.Send(t.Context(), r.b.addr, "ann@dest.example", []string{"me@b.example"}, first.Data); !strings.HasPrefix(there.Text, circling) {
		t.Errorf("through b to a, who has seen it: heard %q, want %q", there.Text, circling)
	}
}

// A message goes through two forwarders. Its bounce comes back through both, by
// the SRS1 address of the second and the SRS0 address of the first, to the first
// sender.
func TestBounceThroughTwoForwarders(t *testing.T) {
	r := newRing(t, "me@b.example", "ann@dest.example")
	try := r.ada.Send(t.Context(), r.a.addr, "ada@sender.example", []string{"me@a.example"}, []byte(letter))
	if try.Code != 250 {
		t.Fatalf("heard %q", try.Text)
	}
	arrived, err := r.world.Wait(within(t, patience), 1)
	if err != nil {
		t.Fatal(err)
	}
	path := pathOf(arrived[0].Mail)
	if !strings.HasPrefix(path, "SRS1=") || !strings.HasSuffix(path, "@mx.b.example") || arrived[0].Rcpt[0] != "RCPT TO:<ann@dest.example>" {
		t.Fatalf("arrived from <%s> for %s", path, arrived[0].Rcpt)
	}
	dest := &testmail.Writer{Client: netip.MustParseAddr("127.0.0.23"), Helo: "mx.dest.example"}
	bounce := []byte("From: MAILER-DAEMON@mx.dest.example\r\nTo: <" + path + ">\r\nSubject: Undelivered\r\nMessage-ID: <b1@mx.dest.example>\r\n\r\nthe mailbox is full\r\n")
	if back := dest.Send(t.Context(), r.b.addr, "", []string{path}, bounce); back.Code != 250 {
		t.Fatalf("the bounce: heard %q", back.Text)
	}
	arrived, err = r.world.Wait(within(t, patience), 2)
	if err != nil {
		t.Fatal(err)
	}
	home := arrived[1]
	if !strings.HasPrefix(home.Mail, "MAIL FROM:<>") || home.Rcpt[0] != "RCPT TO:<ada@sender.example>" || !strings.HasSuffix(string(home.Data), string(bounce)) {
		t.Errorf("the bounce went to %s from %s:\n%s", home.Rcpt, home.Mail, home.Data)
	}
	if a, b := transactions(r.a), transactions(r.b); a != 2 || b != 2 {
		t.Errorf("%d times through a and %d times through b, want 2 and 2", a, b)
	}
	if faults := r.world.Faults(); len(faults) > 0 {
		t.Errorf("faults %q", faults)
	}
}
