package dnsbl

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"onward/internal/resolver"
	"onward/internal/testmail"
)

const zone = `
2.2.0.192.zen.spamhaus.org. IN A 127.0.0.2
2.2.0.192.zen.spamhaus.org. IN TXT "https://www.spamhaus.org/query/ip/192.0.2.2"
3.2.0.192.zen.spamhaus.org. IN A 127.0.0.12
4.2.0.192.zen.spamhaus.org. IN A 127.0.0.12
4.2.0.192.zen.spamhaus.org. IN A 127.0.0.10
5.2.0.192.zen.spamhaus.org. IN A 127.255.255.252
6.2.0.192.zen.spamhaus.org. IN A 127.255.255.254
7.2.0.192.zen.spamhaus.org. IN A 127.255.255.255
8.2.0.192.zen.spamhaus.org. IN A 127.0.0.1
9.2.0.192.zen.spamhaus.org. IN A 203.0.113.9
10.2.0.192.zen.spamhaus.org. IN A 127.0.0.2
10.2.0.192.zen.spamhaus.org. IN A 127.255.255.255
11.2.0.192.zen.spamhaus.org. IN TXT "no address"
12.2.0.192.zen.spamhaus.org. IN A 127.0.0.4
12.2.0.192.zen.spamhaus.org. IN TXT "first line\013\010250 2.0.0 OK\027[1m   é see https://example.org/12"
13.2.0.192.zen.spamhaus.org. IN A 127.255.255.250
14.2.0.192.zen.spamhaus.org. IN CNAME listed.zen.spamhaus.org.
listed.zen.spamhaus.org. IN A 127.0.0.3
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.zen.spamhaus.org. IN A 127.0.0.2
1.0.0.10.zen.spamhaus.org. IN A 127.0.0.2
1.0.64.100.zen.spamhaus.org. IN A 127.0.0.2

*.world.example. IN A 127.0.0.2
1.2.0.192.three.example. IN A 127.0.0.3
2.2.0.192.three.example. IN A 127.0.0.2

2.2.0.192.list.dnswl.org. IN A 127.0.10.0
3.2.0.192.list.dnswl.org. IN A 127.0.0.255
4.2.0.192.list.dnswl.org. IN A 127.0.5.3

2.2.0.192.abcdefghijklmnopqrstuvwxyz.zen.dq.spamhaus.net. IN A 127.0.0.2
2.2.0.192.abcdefghijklmnopqrstuvwxyz.zen.dq.spamhaus.net. IN TXT "see 2.2.0.192.abcdefghijklmnopqrstuvwxyz.zen.dq.spamhaus.net"
`

// checker makes a Checker of lists, whose log is the returned buffer.
func checker(t *testing.T, block, welcome string) (*Checker, *resolver.Zone, *bytes.Buffer) {
	t.Helper()
	z, err := resolver.ParseZone("test", strings.NewReader(zone))
	if err != nil {
		t.Fatal(err)
	}
	log := &bytes.Buffer{}
	parse := func(all string) (lists []List) {
		for _, s := range strings.Fields(all) {
			l, err := ParseList(s)
			if err != nil {
				t.Fatal(err)
			}
			lists = append(lists, l)
		}
		return lists
	}
	return &Checker{Resolver: z, Block: parse(block), Welcome: parse(welcome), Timeout: 2 * time.Second,
		Log: slog.New(slog.NewTextHandler(log, nil))}, z, log
}

func TestCheck(t *testing.T) {
	const zen, dnswl = "zen.spamhaus.org", "list.dnswl.org"
	for _, tt := range []struct {
		name, block, welcome, client string
		reply                        string // empty: not refused
		log                          string // part of the warning; empty: none
	}{
		{"on no list", zen, dnswl, "192.0.2.1", "", ""},
		{"listed", zen, "", "192.0.2.2", "550 5.7.1 192.0.2.2 is listed by zen.spamhaus.org: https://www.spamhaus.org/query/ip/192.0.2.2", ""},
		{"IPv4 in IPv6", zen, "", "::ffff:192.0.2.2", "550 5.7.1 192.0.2.2 is listed by zen.spamhaus.org: https://www.spamhaus.org/query/ip/192.0.2.2", ""},
		{"IPv6, no reason", zen, "", "2001:db8::1", "550 5.7.1 2001:db8::1 is listed by zen.spamhaus.org: the list gives no reason; ask whoever runs it", ""},
		{"a code that does not count", zen, "", "192.0.2.3", "", ""},
		{"the second code counts", zen, "", "192.0.2.4", "550 5.7.1 192.0.2.4 is listed by zen.spamhaus.org: the list gives no reason; ask whoever runs it", ""},
		{"an alias", zen, "", "192.0.2.14", "550 5.7.1 192.0.2.14 is listed by zen.spamhaus.org: the list gives no reason; ask whoever runs it", ""},
		{"typing error", zen, "", "192.0.2.5", "", "mistyped"},
		{"public resolver", zen, "", "192.0.2.6", "", "public DNS servers"},
		{"too many queries", zen, "", "192.0.2.7", "", "too often"},
		{"127.0.0.1", zen, "", "192.0.2.8", "", "127.0.0.1"},
		{"another error", zen, "", "192.0.2.13", "", "127.255.255.250"},
		{"no code at all", zen, "", "192.0.2.9", "", "203.0.113.9, which is no code"},
		{"an error beside a listing", zen, "", "192.0.2.10", "", "too often"},
		{"only a text", zen, "", "192.0.2.11", "", ""},
		{"hostile reason", zen, "", "192.0.2.12", "550 5.7.1 192.0.2.12 is listed by zen.spamhaus.org: first line 250 2.0.0 OK?[1m ? see https://example.org/12", ""},
		{"private address", zen, "", "10.0.0.1", "", ""},
		{"carrier's address", zen, "", "100.64.0.1", "", ""},
		{"own codes", "three.example=127.0.0.3", "", "192.0.2.2", "", ""},
		{"own codes, listed", "three.example=127.0.0.7,127.0.0.3-4", "", "192.0.2.1", "550 5.7.1 192.0.2.1 is listed by three.example: the list gives no reason; ask whoever runs it", ""},
		{"the world", "world.example", "", "192.0.2.2", "", "everybody"},
		{"the world, IPv6", "world.example", "", "2001:db8::1", "", "everybody"},
		{"the world and another", "world.example three.example", "", "192.0.2.1", "550 5.7.1 192.0.2.1 is listed by three.example: the list gives no reason; ask whoever runs it", "everybody"},
		{"welcome", zen, dnswl, "192.0.2.2", "", ""},
		{"very welcome", zen, dnswl, "192.0.2.4", "", ""},
		{"welcome to nobody", zen, "world.example", "192.0.2.2", "550 5.7.1 192.0.2.2 is listed by zen.spamhaus.org: https://www.spamhaus.org/query/ip/192.0.2.2", "everybody"},
		{"dnswl refuses", zen, dnswl, "192.0.2.3", "", "too often"},
		{"with a key", "abcdefghijklmnopqrstuvwxyz.zen.dq.spamhaus.net", "", "192.0.2.2", "550 5.7.1 192.0.2.2 is listed by zen.dq.spamhaus.net: see 2.2.0.192.zen.dq.spamhaus.net", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _, log := checker(t, tt.block, tt.welcome)
			got := ""
			if r := c.Check(t.Context(), netip.MustParseAddr(tt.client)).Reply(); r != nil {
				got = r.String()
			}
			if got != tt.reply {
				t.Errorf("reply %q, want %q", got, tt.reply)
			}
			if tt.log == "" && log.Len() > 0 || !strings.Contains(log.String(), tt.log) {
				t.Errorf("log %q, want %q in it", log, tt.log)
			}
		})
	}
}

// TestTrouble holds that no failure of the DNS refuses mail, that another list
// still does, and that the log never tells a key.
func TestTrouble(t *testing.T) {
	const key = "abcdefghijklmnopqrstuvwxyz"
	for _, rcode := range []string{"SERVFAIL", "REFUSED", "NOTIMP", "TIMEOUT"} {
		for _, name := range []string{"2.2.0.192", "1.0.0.127"} { // the question, and the proof that the list is sane
			c, z, log := checker(t, key+".zen.dq.spamhaus.net", "")
			if err := z.Fail(name+"."+key+".zen.dq.spamhaus.net", resolver.TypeA, rcode); err != nil {
				t.Fatal(err)
			}
			server, err := testmail.StartDNS(z, "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			client := resolver.NewClient([]netip.AddrPort{server.Addr()}, time.Second)
			defer client.Close()
			c.Resolver = client
			three, _ := ParseList("three.example")
			if f := c.Check(t.Context(), netip.MustParseAddr("192.0.2.2")); f.Reply() != nil {
				t.Errorf("%s for %s: %v", rcode, name, f.Reply())
			}
			if strings.Contains(log.String(), key) || !strings.Contains(log.String(), "list=zen.dq.spamhaus.net") {
				t.Errorf("%s for %s: log %q", rcode, name, log)
			}
			c.Block = append(c.Block, three)
			if f := c.Check(t.Context(), netip.MustParseAddr("192.0.2.2")); f.Reply() == nil || f.Listed[0].List != "three.example" {
				t.Errorf("%s for %s: the other list gave %+v", rcode, name, f)
			}
		}
	}
}

// TestReasonLate holds that a list need not give its reason.
func TestReasonLate(t *testing.T) {
	c, z, _ := checker(t, "zen.spamhaus.org", "")
	if err := z.Fail("2.2.0.192.zen.spamhaus.org", resolver.TypeTXT, "SERVFAIL"); err != nil {
		t.Fatal(err)
	}
	if r := c.Check(t.Context(), netip.MustParseAddr("192.0.2.2")).Reply(); r == nil {
		t.Error("not refused")
	}
}

// slow answers after a while, and never for the zone "never.example".
type slow struct{ *resolver.Zone }

func (s slow) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	wait := time.Second
	if strings.HasSuffix(name, "never.example") {
		wait = time.Hour
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
	return s.Zone.Lookup(ctx, name, t)
}

// TestDeadline holds that all lists are asked at the same time and share one
// deadline, and that trouble is told once an hour.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, z, log := checker(t, "never.example three.example a.example b.example", "list.dnswl.org")
		c.Resolver = slow{z}
		c.Timeout = 3 * time.Second
		for range 3 {
			began := time.Now()
			f := c.Check(t.Context(), netip.MustParseAddr("192.0.2.1"))
			if took := time.Since(began); took != 3*time.Second {
				t.Errorf("took %v", took)
			}
			if len(f.Listed) != 1 || f.Listed[0].List != "three.example" || f.Listed[0].Code.String() != "127.0.0.3" {
				t.Errorf("got %+v", f)
			}
		}
		if n := strings.Count(log.String(), "never.example"); n != 1 {
			t.Errorf("told %d times: %s", n, log)
		}
		time.Sleep(time.Hour)
		c.Check(t.Context(), netip.MustParseAddr("192.0.2.1"))
		if n := strings.Count(log.String(), "never.example"); n != 2 {
			t.Errorf("told %d times after an hour", n)
		}

		gone, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		time.Sleep(2 * time.Hour)
		log.Reset()
		if f := c.Check(gone, netip.MustParseAddr("192.0.2.1")); f.Reply() != nil || log.Len() > 0 {
			t.Errorf("a client that hung up: %+v, %s", f, log)
		}
	})
}

func TestParseList(t *testing.T) {
	for _, tt := range []struct{ in, name, code string }{
		{"ZEN.spamhaus.org", "zen.spamhaus.org", "127.0.0.11"},
		{"bl.example.net", "bl.example.net", "127.0.0.254"},
		{"bl.example.net=127.0.0-3.1,127.9.8.7", "bl.example.net", "127.9.8.7"},
		{"bl.example.net=127.0.0-3.1,127.9.8.7", "bl.example.net", "127.0.3.1"},
		{"0123456789abcdef0123.combined.example", "combined.example", "127.0.0.2"},
	} {
		l, err := ParseList(tt.in)
		if err != nil || l.Name != tt.name || !l.counts(netip.MustParseAddr(tt.code)) {
			t.Errorf("%s: %+v, %v", tt.in, l, err)
		}
	}
	for _, in := range []string{
		"", "zen", "[192.0.2.1]", "zen.spamhaus.org=", "a b.example", "zen.spamhaus.org=127.0.0.2,", "x.example=127.0.0", "x.example=127.0.0.2.3",
		"x.example=127.0.0.256", "x.example=128.0.0.2", "x.example=127.0.0.9-3", "x.example=127.0.0.-3", "x.example=127.0.0.*", "x.example=127-128.0.0.1",
		strings.Repeat("abcdefghi.", 19) + "example",
	} {
		if l, err := ParseList(in); err == nil {
			t.Errorf("%q is read as %+v", in, l)
		}
	}
}

// A broken resolver panics, when asked for a type.
type broken struct {
	resolver.Resolver
	t resolver.Type
}

func (b broken) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	if t == b.t {
		panic("a bug of ours")
	}
	return b.Resolver.Lookup(ctx, name, t)
}

// TestPanic: a panic comes out where the caller can catch it (RELIABILITY 89).
func TestPanic(t *testing.T) {
	for _, kind := range []resolver.Type{resolver.TypeA, resolver.TypeTXT} {
		c, zone, _ := checker(t, "zen.spamhaus.org", "list.dnswl.org")
		c.Resolver = broken{zone, kind}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v: no panic", kind)
				}
			}()
			c.Check(t.Context(), netip.MustParseAddr("192.0.2.2"))
		}()
	}
}
