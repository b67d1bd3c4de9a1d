package resolver_test

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"onward/internal/resolver"
	"onward/internal/testmail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const world = `
example.org.            300 IN A     192.0.2.1
example.org.            300 IN A     192.0.2.2
example.org.            300 IN AAAA  2001:db8::1
example.org.            600 IN MX    20 Backup.Example.ORG.
example.org.            600 IN MX    10 mx.example.org.
example.org.            300 IN TXT   "v=spf1 " "-all"
example.org.            300 IN TXT   "two"
odd.example.org.        300 IN TXT   "quote\" slash\\ \255\000 end"
mapped.example.org.     300 IN AAAA  ::ffff:127.0.0.1
null.example.org.       300 IN MX    0 .
www.example.org.        100 IN CNAME web.example.org.
web.example.org.        900 IN CNAME example.org.
nowhere.example.org.    300 IN CNAME missing.example.org.
nodata.example.org.     300 IN CNAME mx.example.org.
loop.example.org.       300 IN CNAME pool.example.org.
pool.example.org.       300 IN CNAME loop.example.org.
mx.example.org.         300 IN A     192.0.2.3
a.b.deep.example.org.   300 IN A     192.0.2.4
*.wild.example.org.     300 IN A     192.0.2.5
here.wild.example.org.  300 IN TXT   "x"
x.y.wild.example.org.   300 IN TXT   "x"
1.2.0.192.in-addr.arpa. 300 IN PTR   Mail.Example.org.
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 300 IN PTR mail.example.org.
`

func parse(t testing.TB, text string) *resolver.Zone {
	t.Helper()
	z, err := resolver.ParseZone("test.zone", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func serve(t testing.TB, z *resolver.Zone) *testmail.DNS {
	t.Helper()
	d, err := testmail.StartDNS(z, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func client(t testing.TB, timeout time.Duration, servers ...*testmail.DNS) *resolver.Client {
	t.Helper()
	var addrs []netip.AddrPort
	for _, s := range servers {
		addrs = append(addrs, s.Addr())
	}
	c := resolver.NewClient(addrs, timeout)
	t.Cleanup(c.Close)
	return c
}

// both runs a test against a zone directly and through a server and a client:
// the two resolvers say the same.
func both(t *testing.T, z *resolver.Zone, test func(t *testing.T, r resolver.Resolver)) {
	t.Run("zone", func(t *testing.T) { test(t, z) })
	t.Run("client", func(t *testing.T) { test(t, client(t, 500*time.Millisecond, serve(t, z))) })
}

func TestRecords(t *testing.T) {
	z := parse(t, world)
	long := strings.Repeat("0123456789", 60)
	if err := z.Set("long.example.org", resolver.TypeTXT, long+"\x00\xff\""); err != nil {
		t.Fatal(err)
	}
	addrs := func(list ...string) (ips []netip.Addr) {
		for _, s := range list {
			ips = append(ips, netip.MustParseAddr(s))
		}
		return ips
	}
	for _, tt := range []struct {
		name  string
		t     resolver.Type
		value func(*resolver.Answer) any
		want  any
		owner string // where it differs
		ttl   time.Duration
	}{
		{"example.org", resolver.TypeA, ips, addrs("192.0.2.1", "192.0.2.2"), "", 300},
		{"EXAMPLE.org.", resolver.TypeA, ips, addrs("192.0.2.1", "192.0.2.2"), "example.org", 300},
		{"example.org", resolver.TypeAAAA, ips, addrs("2001:db8::1"), "", 300},
		{"mapped.example.org", resolver.TypeAAAA, ips, addrs("127.0.0.1"), "", 300},
		{"example.org", resolver.TypeMX, mx, []resolver.MX{{20, "backup.example.org"}, {10, "mx.example.org"}}, "", 600},
		{"null.example.org", resolver.TypeMX, mx, []resolver.MX{{0, ""}}, "", 300},
		{"example.org", resolver.TypeTXT, txt, []string{"v=spf1 -all", "two"}, "", 300},
		{"odd.example.org", resolver.TypeTXT, txt, []string{"quote\" slash\\ \xff\x00 end"}, "", 300},
		{"long.example.org", resolver.TypeTXT, txt, []string{long + "\x00\xff\""}, "", 300},
		{"www.example.org", resolver.TypeA, ips, addrs("192.0.2.1", "192.0.2.2"), "example.org", 100},
		{"any.wild.example.org", resolver.TypeA, ips, addrs("192.0.2.5"), "", 300},
		{"a.n.o.wild.example.org", resolver.TypeA, ips, addrs("192.0.2.5"), "", 300},
		{resolver.ReverseName(netip.MustParseAddr("192.0.2.1")), resolver.TypePTR, ptr, []string{"mail.example.org"}, "", 300},
		{resolver.ReverseName(netip.MustParseAddr("::ffff:192.0.2.1")), resolver.TypePTR, ptr, []string{"mail.example.org"}, "", 300},
		{resolver.ReverseName(netip.MustParseAddr("2001:db8::1")), resolver.TypePTR, ptr, []string{"mail.example.org"}, "", 300},
	} {
		if tt.owner == "" {
			tt.owner = tt.name
		}
		t.Run(tt.name+" "+tt.t.String(), func(t *testing.T) {
			both(t, z, func(t *testing.T, r resolver.Resolver) {
				a, err := r.Lookup(t.Context(), tt.name, tt.t)
				if err != nil {
					t.Fatal(err)
				}
				if got := tt.value(a); !reflect.DeepEqual(got, tt.want) {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				if a.Name != tt.owner || a.TTL != tt.ttl*time.Second || a.AuthenticatedData {
					t.Errorf("got owner %q, TTL %v, AD %v; want %q, %v, false", a.Name, a.TTL, a.AuthenticatedData, tt.owner, tt.ttl*time.Second)
				}
			})
		})
	}
}

func ips(a *resolver.Answer) any { return a.Addrs() }
func mx(a *resolver.Answer) any  { return a.MX() }
func txt(a *resolver.Answer) any { return a.TXT() }
func ptr(a *resolver.Answer) any { return a.PTR() }

func TestNullMX(t *testing.T) {
	a, err := parse(t, world).Lookup(t.Context(), "null.example.org", resolver.TypeMX)
	if err != nil || !a.MX()[0].IsNull() || (resolver.MX{Host: "mx"}).IsNull() {
		t.Errorf("got %v, %v; want a null MX", a.MX(), err)
	}
}

// An Answer is shared by everybody who asks; sorting it must not show.
func TestAnswerIsNotChanged(t *testing.T) {
	a, err := parse(t, world).Lookup(t.Context(), "example.org", resolver.TypeMX)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(a.MX(), func(a, b resolver.MX) int { return int(a.Preference) - int(b.Preference) })
	if got := a.MX()[0].Preference; got != 20 {
		t.Errorf("first preference is %d after a caller sorted, want 20", got)
	}
}

// kindOf returns the kind of err, and fails when it is not exactly one.
func kindOf(t *testing.T, err error) error {
	t.Helper()
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*resolver.Error](err); !ok {
		t.Fatalf("%v (%T) is no *Error", err, err)
	}
	var kinds []error
	for _, kind := range []error{resolver.ErrNotFound, resolver.ErrNoData, resolver.ErrTemporary} {
		if errors.Is(err, kind) {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) != 1 {
		t.Fatalf("%v is of kinds %v, want one", err, kinds)
	}
	return kinds[0]
}

func expect(t *testing.T, r resolver.Resolver, name string, qtype resolver.Type, want error) {
	t.Helper()
	if _, err := r.Lookup(t.Context(), name, qtype); kindOf(t, err) != want {
		t.Errorf("%s %v: got %v, want %v", name, qtype, err, want)
	}
}

var allTypes = []resolver.Type{
	resolver.TypeA, resolver.TypeAAAA, resolver.TypeMX, resolver.TypeTXT, resolver.TypePTR, resolver.TypeCNAME,
}

// RELIABILITY 42: RCODE x record type. Only NXDOMAIN and no data are knowledge.
func TestRcodes(t *testing.T) {
	z := parse(t, world)
	want := map[string]error{"NXDOMAIN": resolver.ErrNotFound, "NOERROR": resolver.ErrNoData}
	rcodes := []string{"NXDOMAIN", "NOERROR", "SERVFAIL", "REFUSED", "FORMERR", "NOTIMP", "NOTAUTH", "YXDOMAIN"}
	for _, rcode := range rcodes {
		if want[rcode] == nil {
			want[rcode] = resolver.ErrTemporary
		}
		for _, qtype := range allTypes {
			if err := z.Fail(rcode+".example.org", qtype, rcode); err != nil {
				t.Fatal(err)
			}
		}
	}
	both(t, z, func(t *testing.T, r resolver.Resolver) {
		for _, rcode := range rcodes {
			for _, qtype := range allTypes {
				expect(t, r, rcode+".example.org", qtype, want[rcode])
			}
		}
	})
}

func TestKinds(t *testing.T) {
	z := parse(t, world)
	if err := z.Fail("broken.example.org", resolver.TypeA, "SERVFAIL"); err != nil {
		t.Fatal(err)
	}
	if err := z.Set("to-broken.example.org", resolver.TypeCNAME, "broken.example.org."); err != nil {
		t.Fatal(err)
	}
	both(t, z, func(t *testing.T, r resolver.Resolver) {
		for _, tt := range []struct {
			name string
			t    resolver.Type
			want error
		}{
			{"missing.example.org", resolver.TypeA, resolver.ErrNotFound},
			{"missing.example.org", resolver.TypeMX, resolver.ErrNotFound},
			{"com", resolver.TypeMX, resolver.ErrNotFound},
			{"mx.example.org", resolver.TypeMX, resolver.ErrNoData},
			{"deep.example.org", resolver.TypeA, resolver.ErrNoData}, // exists by what is below it
			{"org", resolver.TypeMX, resolver.ErrNoData},
			{"here.wild.example.org", resolver.TypeA, resolver.ErrNoData}, // RFC 4592 2.2.1: exists, no wildcard
			{"y.wild.example.org", resolver.TypeA, resolver.ErrNoData},
			{"z.y.wild.example.org", resolver.TypeA, resolver.ErrNotFound},
			{"any.wild.example.org", resolver.TypeMX, resolver.ErrNoData},
			{"nowhere.example.org", resolver.TypeA, resolver.ErrNotFound},
			{"nowhere.example.org", resolver.TypeCNAME, nil},
			{"nodata.example.org", resolver.TypeMX, resolver.ErrNoData},
			{"loop.example.org", resolver.TypeA, resolver.ErrTemporary},
			{"to-broken.example.org", resolver.TypeA, resolver.ErrTemporary},
			{"", resolver.TypeA, resolver.ErrNotFound},
			{".", resolver.TypeA, resolver.ErrNotFound},
			{"a..example.org", resolver.TypeA, resolver.ErrNotFound},
			{".example.org", resolver.TypeA, resolver.ErrNotFound},
			{strings.Repeat("x", 64) + ".org", resolver.TypeA, resolver.ErrNotFound},
			{strings.Repeat("x.", 200) + "org", resolver.TypeA, resolver.ErrNotFound},
			{`example.org\`, resolver.TypeA, resolver.ErrNotFound},
			{"with space.example.org", resolver.TypeA, resolver.ErrNotFound},
			{"\u212aelvin.example.org", resolver.TypeA, resolver.ErrNotFound},
		} {
			expect(t, r, tt.name, tt.t, tt.want)
		}
	})
}

// Case is ASCII only: the Kelvin sign is no k (RFC 4343).
func TestForeignOctetsInNames(t *testing.T) {
	z := resolver.NewZone()
	for name, addr := range map[string]string{
		"kelvin.example": "192.0.2.1", "\u212aelvin.example": "192.0.2.2", "a b.example": "192.0.2.3", `a\.b.example`: "192.0.2.4",
	} {
		if err := z.Set(name, resolver.TypeA, addr); err != nil {
			t.Fatal(err)
		}
	}
	both(t, z, func(t *testing.T, r resolver.Resolver) {
		for name, want := range map[string]string{
			"KELVIN.example": "192.0.2.1", "\u212aelvin.example": "192.0.2.2", `\226\132\170elvin.example`: "192.0.2.2",
			"a b.example": "192.0.2.3", `a\032b.example`: "192.0.2.3", `a\.b.example`: "192.0.2.4", `a\046b.example`: "192.0.2.4",
		} {
			a, err := r.Lookup(t.Context(), name, resolver.TypeA)
			if err != nil {
				t.Errorf("%q: %v", name, err)
			} else if got := a.Addrs()[0].String(); got != want {
				t.Errorf("%q: got %s, want %s", name, got, want)
			}
		}
		expect(t, r, "a.b.example", resolver.TypeA, resolver.ErrNotFound)
	})
}

func TestReverseName(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1":        "1.2.0.192.in-addr.arpa",
		"::ffff:192.0.2.1": "1.2.0.192.in-addr.arpa",
		"fe80::1%eth0":     "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.e.f.ip6.arpa",
	} {
		if got := resolver.ReverseName(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %s, want %s", addr, got, want)
		}
	}
}

func TestEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	both(t, parse(t, world), func(t *testing.T, r resolver.Resolver) {
		_, err := r.Lookup(ctx, "example.org", resolver.TypeA)
		if kindOf(t, err) != resolver.ErrTemporary || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want temporary trouble and context.Canceled", err)
		}
	})
}
