package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"onward/internal/resolver"
	"onward/internal/testmail"
)

// A clock stands still until it is moved.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time {
	return time.Unix(1_800_000_000, 0).Add(time.Duration(c.offset.Load()))
}
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

func asked(t *testing.T, d *testmail.DNS, name string, qtype resolver.Type, want int) {
	t.Helper()
	if got := d.Queries(name, qtype); got != want {
		t.Errorf("server was asked %d times for %s %v, want %d", got, name, qtype, want)
	}
}

// How long is each kind of outcome remembered?
func TestCacheTime(t *testing.T) {
	z := parse(t, `
. 86400 IN SOA . . 1 1 1 1 60
short.  10      IN A 192.0.2.1
zero.   0       IN A 192.0.2.1
top.    2147483648 IN A 192.0.2.1
long.   604800  IN A 192.0.2.1
mixed.  20      IN A 192.0.2.1
mixed.  5       IN A 192.0.2.2
alias.  3       IN CNAME long.
slow.   86400   IN SOA . . 1 1 1 1 86400
ttl.    30      IN SOA . . 1 1 1 1 86400
	`)
	for name, rcode := range map[string]string{"servfail.": "SERVFAIL", "bare.": "NXDOMAIN"} {
		if err := z.Fail(name, resolver.TypeA, rcode); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		want time.Duration // 0: not at all
	}{
		{"short", 10 * time.Second},
		{"zero", 0},
		{"top", 0}, // RFC 2181 8
		{"long", time.Hour},
		{"mixed", 5 * time.Second},
		{"alias", 3 * time.Second},
		{"missing", 60 * time.Second},         // SOA MINIMUM
		{"a.slow", 5 * time.Minute},           // our cap
		{"ttl", 30 * time.Second},             // no data; SOA TTL
		{"bare", 0},                           // no SOA
		{"servfail", time.Second},             // trouble
		{strings.Repeat("x", 64) + ".org", 0}, // never asked
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, clock := serve(t, z), new(clock)
			c := client(t, time.Second, d)
			c.SetClock(clock.now)
			look := func() { c.Lookup(t.Context(), tt.name, resolver.TypeA) }
			look()
			first := d.Queries(tt.name, resolver.TypeA)
			if tt.want > 0 {
				clock.advance(tt.want - 1)
				look()
				asked(t, d, tt.name, resolver.TypeA, first)
				clock.advance(1)
			}
			look()
			asked(t, d, tt.name, resolver.TypeA, 2*first)
		})
	}
}

// A hundred callers, one question.
func TestSharing(t *testing.T) {
	d := serve(t, parse(t, world))
	d.SetFaults(testmail.Faults{Delay: 20 * time.Millisecond})
	c := client(t, 5*time.Second, d)
	var wg sync.WaitGroup
	for i := range 100 {
		name := []string{"example.org", "EXAMPLE.org", "example.org."}[i%3]
		wg.Go(func() {
			if a, err := c.Lookup(t.Context(), name, resolver.TypeA); err != nil || len(a.Addrs()) != 2 {
				t.Errorf("got %v, %v", a, err)
			}
		})
	}
	wg.Wait()
	asked(t, d, "example.org", resolver.TypeA, 1)
}

// One caller gives up at once; the other, and the cache, get the answer.
func TestCancellation(t *testing.T) {
	d := serve(t, parse(t, world))
	d.SetFaults(testmail.Faults{Delay: 300 * time.Millisecond})
	c := client(t, 5*time.Second, d)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := c.Lookup(ctx, "example.org", resolver.TypeA)
		gone <- err
	}()
	stayed := make(chan error)
	go func() {
		_, err := c.Lookup(t.Context(), "example.org", resolver.TypeA)
		stayed <- err
	}()
	cancel()
	if err := <-gone; kindOf(t, err) != resolver.ErrTemporary || !errors.Is(err, context.Canceled) {
		t.Errorf("who left got %v, want context.Canceled", err)
	}
	select {
	case err := <-stayed:
		t.Errorf("who stayed was answered (%v) before the server did", err)
	default:
	}
	if err := <-stayed; err != nil {
		t.Errorf("who stayed got %v", err)
	}
	expect(t, c, "example.org", resolver.TypeA, nil)
	asked(t, d, "example.org", resolver.TypeA, 1)
}

func TestTCP(t *testing.T) {
	z := parse(t, world)
	big := make([]string, 40)
	for i := range big {
		big[i] = fmt.Sprintf("%02d %s", i, strings.Repeat("x", 100))
	}
	if err := z.Set("big.example.org", resolver.TypeTXT, big...); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		faults   testmail.Faults
		t        resolver.Type
		owner    string
		wantTCP  int
		wantKind error
	}{
		{"fits", testmail.Faults{}, resolver.TypeA, "example.org", 0, nil},
		{"truncated", testmail.Faults{Truncate: true}, resolver.TypeA, "example.org", 1, nil},
		{"too large", testmail.Faults{}, resolver.TypeTXT, "big.example.org", 1, nil},
		{"truncated no", testmail.Faults{Truncate: true}, resolver.TypeA, "missing.example.org", 1, resolver.ErrNotFound},
		{"flood of forgeries", testmail.Faults{WrongID: 40}, resolver.TypeA, "example.org", 1, nil},
		{"truncated for good", testmail.Faults{Truncate: true, CutTCP: true}, resolver.TypeA, "example.org", 1, resolver.ErrTemporary},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := serve(t, z)
			d.SetFaults(tt.faults)
			c := client(t, 5*time.Second, d)
			expect(t, c, tt.owner, tt.t, tt.wantKind)
			if _, overTCP := d.Total(); overTCP != tt.wantTCP {
				t.Errorf("%d questions over TCP, want %d", overTCP, tt.wantTCP)
			}
			if tt.t == resolver.TypeTXT {
				if a, _ := c.Lookup(t.Context(), tt.owner, tt.t); !slices.Equal(a.TXT(), big) {
					t.Errorf("%d texts of %d arrived, or changed", len(a.TXT()), len(big))
				}
			}
		})
	}
}

// Forgeries come first; the true answer is believed, or none.
func TestForgeries(t *testing.T) {
	for _, tt := range []struct {
		name   string
		faults testmail.Faults
		want   error
	}{
		{"wrong id", testmail.Faults{WrongID: 3}, nil},
		{"wrong question", testmail.Faults{WrongQuestion: 3}, nil},
		{"right, in capitals", testmail.Faults{Shout: true}, nil},
		{"only wrong ids", testmail.Faults{WrongID: 3, Drop: true}, resolver.ErrTemporary},
		{"only wrong questions", testmail.Faults{WrongQuestion: 3, Drop: true}, resolver.ErrTemporary},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := serve(t, parse(t, world))
			d.SetFaults(tt.faults)
			c := client(t, 200*time.Millisecond, d)
			expect(t, c, "mx.example.org", resolver.TypeA, tt.want)
			if tt.want == nil {
				if a, _ := c.Lookup(t.Context(), "mx.example.org", resolver.TypeA); a.Addrs()[0].String() != "192.0.2.3" {
					t.Errorf("believed %v", a.Addrs())
				}
			}
		})
	}
}

// What is not a sound answer is trouble, and never longer than the timeout.
func TestBadServer(t *testing.T) {
	for name, faults := range map[string]testmail.Faults{
		"silent":        {Drop: true},
		"slow":          {Delay: time.Minute},
		"lame":          {Lame: true},
		"short":         {Garbage: []byte{0x81}},
		"empty":         {Garbage: []byte{}},
		"text":          {Garbage: []byte("HTTP/1.1 400 Bad Request\r\n\r\n")},
		"a query":       {Garbage: append([]byte{0x01, 0x80}, answer(0, "")[2:]...)},
		"wrong counts":  {Garbage: answer(0xffff, "")},
		"MX of nothing": {Garbage: answer(1, "\xc0\x0c\x00\x0f\x00\x01\x00\x00\x01\x00\x00\x00")}, // not a null MX
		"pointer loop":  {Garbage: answer(1, "\xc0\x1d\x00\x0f\x00\x01\x00\x00\x01\x00\x00\x00")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := serve(t, parse(t, world))
			d.SetFaults(faults)
			c := client(t, 300*time.Millisecond, d)
			started := time.Now()
			expect(t, c, "example.org", resolver.TypeMX, resolver.ErrTemporary)
			if took := time.Since(started); took > 2*time.Second {
				t.Errorf("took %v, the timeout is 300ms", took)
			}
		})
	}
}

// answer is a response after its ID, to the question example.org MX, with its
// answer section as given.
func answer(count uint16, section string) []byte {
	header := []byte{0x81, 0x80, 0, 1, byte(count >> 8), byte(count), 0, 0, 0, 0}
	return append(header, "\x07example\x03org\x00\x00\x0f\x00\x01"+section...)
}

// A datagram may be lost: a silent server is asked again.
func TestSilenceIsAskedAgain(t *testing.T) {
	d := serve(t, parse(t, world))
	d.SetFaults(testmail.Faults{Drop: true})
	c := client(t, 500*time.Millisecond, d)
	expect(t, c, "example.org", resolver.TypeA, resolver.ErrTemporary)
	asked(t, d, "example.org", resolver.TypeA, 3)
}

func TestFailover(t *testing.T) {
	const timeout = 5 * time.Second
	for _, tt := range []struct {
		name   string
		faults testmail.Faults
		rcode  string
		within time.Duration
		aside  bool // and is asked last from now on
	}{
		{"silent", testmail.Faults{Drop: true}, "", timeout / 2, true},
		{"garbage", testmail.Faults{Garbage: answer(9, "")}, "", timeout / 5, true},
		{"SERVFAIL", testmail.Faults{}, "SERVFAIL", timeout / 5, false},
		{"REFUSED", testmail.Faults{}, "REFUSED", timeout / 5, false},
		{"lame", testmail.Faults{Lame: true}, "", timeout / 5, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bad, good := serve(t, parse(t, world)), parse(t, world)
			if tt.rcode != "" {
				z := parse(t, world)
				z.Fail("example.org", resolver.TypeMX, tt.rcode)
				z.Fail("example.org", resolver.TypeA, tt.rcode)
				bad = serve(t, z)
			}
			bad.SetFaults(tt.faults)
			clock := new(clock)
			c := client(t, timeout, bad, serve(t, good))
			c.SetClock(clock.now)

			started := time.Now()
			expect(t, c, "example.org", resolver.TypeMX, nil)
			if took := time.Since(started); took > tt.within {
				t.Errorf("took %v, want below %v", took, tt.within)
			}
			asked(t, bad, "example.org", resolver.TypeMX, 1)

			expect(t, c, "example.org", resolver.TypeA, nil)
			want := 1
			if tt.aside {
				want = 0
			}
			asked(t, bad, "example.org", resolver.TypeA, want)

			clock.advance(resolver.SetAside)
			bad.SetFaults(testmail.Faults{})
			expect(t, c, "example.org", resolver.TypeTXT, nil)
			asked(t, bad, "example.org", resolver.TypeTXT, 1)
		})
	}
}

// A server set aside that proves itself is asked in its turn again.
func TestBackInService(t *testing.T) {
	z := parse(t, world)
	if err := z.Fail("example.org", resolver.TypeTXT, "SERVFAIL"); err != nil {
		t.Fatal(err)
	}
	first, second := serve(t, parse(t, world)), serve(t, z)
	first.SetFaults(testmail.Faults{Garbage: answer(9, "")})
	c := client(t, 5*time.Second, first, second)
	expect(t, c, "example.org", resolver.TypeMX, nil) // by the second
	first.SetFaults(testmail.Faults{})
	expect(t, c, "example.org", resolver.TypeTXT, nil) // by the first, after the second failed
	expect(t, c, "example.org", resolver.TypeA, nil)
	asked(t, first, "example.org", resolver.TypeA, 1)
	asked(t, second, "example.org", resolver.TypeA, 0)
}

// More lookups than may run wait their turn, and give up in time.
func TestFlightsBound(t *testing.T) {
	d := serve(t, parse(t, world))
	d.SetFaults(testmail.Faults{Drop: true})
	c := client(t, 300*time.Millisecond, d)
	c.SetFlights(2)
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() { expect(t, c, fmt.Sprintf("n%d.example.org", i), resolver.TypeA, resolver.ErrTemporary) })
	}
	wg.Wait()
	if all, _ := d.Total(); all > 2*3 {
		t.Errorf("%d questions, want at most 3 for each of 2 lookups", all)
	}
}

// A port where nobody listens is noticed at once.
func TestNobodyListens(t *testing.T) {
	nobody, err := testmail.StartDNS(resolver.NewZone(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	c := resolver.NewClient([]netip.AddrPort{nobody.Addr(), serve(t, parse(t, world)).Addr()}, time.Minute)
	defer c.Close()
	started := time.Now()
	expect(t, c, "example.org", resolver.TypeA, nil)
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestNoServer(t *testing.T) {
	expect(t, client(t, time.Second), "example.org", resolver.TypeA, resolver.ErrTemporary)
}

// Close ends what is under way, and a closed client answers nothing new.
func TestClose(t *testing.T) {
	d := serve(t, parse(t, world))
	d.SetFaults(testmail.Faults{Drop: true})
	c := client(t, time.Hour, d)
	result := make(chan error)
	go func() {
		_, err := c.Lookup(t.Context(), "example.org", resolver.TypeA)
		result <- err
	}()
	for d.Queries("example.org", resolver.TypeA) == 0 {
		time.Sleep(time.Millisecond)
	}
	c.Close()
	if err := <-result; kindOf(t, err) != resolver.ErrTemporary {
		t.Errorf("got %v", err)
	}
	expect(t, c, "mx.example.org", resolver.TypeA, resolver.ErrTemporary)
	asked(t, d, "mx.example.org", resolver.TypeA, 0)
}

// However many names are asked for, the memory of them stays bounded, and what
// is used stays in it.
func TestCacheBound(t *testing.T) {
	const limit = 100_000
	z := parse(t, world)
	if err := z.Set("*.many.example", resolver.TypeTXT, strings.Repeat("x", 500)); err != nil {
		t.Fatal(err)
	}
	d := serve(t, z)
	c := client(t, time.Second, d)
	c.SetCacheLimit(limit)
	for i := range 500 {
		expect(t, c, fmt.Sprintf("n%d.many.example", i), resolver.TypeTXT, nil)
		expect(t, c, "example.org", resolver.TypeA, nil)
		if _, octets := c.Cached(); octets > limit {
			t.Fatalf("cache holds %d octets after %d names, limit %d", octets, i, limit)
		}
	}
	if entries, octets := c.Cached(); entries < 20 || octets < limit/2 {
		t.Errorf("cache holds %d entries of %d octets, hardly anything", entries, octets)
	}
	asked(t, d, "example.org", resolver.TypeA, 1)
	expect(t, c, "n0.many.example", resolver.TypeTXT, nil)
	asked(t, d, "n0.many.example", resolver.TypeTXT, 2)
}

// Many different names at once, over sockets of their own.
func TestManyAtOnce(t *testing.T) {
	d := serve(t, parse(t, world))
	c := client(t, 5*time.Second, d)
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() { expect(t, c, fmt.Sprintf("n%d.wild.example.org", i), resolver.TypeA, nil) })
	}
	wg.Wait()
}

func TestSystemServers(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
		wantErr    string
	}{
		{"usual", "# x\nsearch corp.example\nnameserver 127.0.0.53\noptions edns0\n", []string{"127.0.0.53:53"}, ""},
		{"v6, zone, host name, too many", "nameserver ::1\nnameserver fe80::1%eth0\nnameserver dns.example\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n",
			[]string{"[::1]:53", "[fe80::1%eth0]:53", "192.0.2.1:53"}, ""},
		{"none", "search corp.example\n", nil, "names no DNS server; name one in dns.resolvers"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "resolv.conf")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := resolver.SystemServers(path)
			if fmt.Sprint(got) != fmt.Sprint(tt.want) || (err == nil) != (tt.wantErr == "") ||
				err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("got %v, %v; want %v, %q", got, err, tt.want, tt.wantErr)
			}
		})
	}
	if _, err := resolver.SystemServers(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: got %v", err)
	}
}

func TestErrorText(t *testing.T) {
	z := resolver.NewZone()
	if err := z.Fail("a.example", resolver.TypeMX, "SERVFAIL"); err != nil {
		t.Fatal(err)
	}
	d := serve(t, z)
	_, err := client(t, time.Second, d).Lookup(t.Context(), "A.example", resolver.TypeMX)
	want := fmt.Sprintf("lookup a.example MX: temporary DNS trouble: server %v: answered SERVFAIL", d.Addr())
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestPanic: a panic about one question is temporary trouble for all who wait for
// its answer, and no more (RELIABILITY 89). A lookup at a server that is away reads
// the clock five times; here the second, third and fourth fail.
func TestPanic(t *testing.T) {
	for nth := int32(2); nth <= 4; nth++ {
		c := resolver.NewClient([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}, 5*time.Second)
		t.Cleanup(c.Close)
		var readings atomic.Int32
		c.SetClock(func() time.Time {
			if readings.Add(1) == nth {
				panic("a bug of ours")
			}
			return time.Unix(1_800_000_000, 0)
		})
		_, err := c.Lookup(t.Context(), "example.org", resolver.TypeA)
		if kindOf(t, err) != resolver.ErrTemporary || !strings.Contains(err.Error(), "a bug of ours") {
			t.Errorf("panic at reading %d: %.200v", nth, err)
		}
		expect(t, c, "example.org", resolver.TypeA, resolver.ErrTemporary) // nothing hangs
	}
}
