package spf_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"onward/internal/address"
	"onward/internal/mailauth/spf"
	"onward/internal/resolver"
	"onward/internal/testmail"
)

// world is the DNS of these tests. 192.0.2.1 is the client.
const world = `
pass.example.        TXT "v=spf1 ip4:192.0.2.0/24 -all"
fail.example.        TXT "v=spf1 exp=why.fail.example -all"
why.fail.example.    TXT "%{i} is not ours, says %{r} at %{t}"
long.example.        TXT "v=spf1 exp=why.long.example -all"
why.long.example.    TXT "two " "strings"
mean.example.        TXT "v=spf1 exp=why.mean.example -all"
why.mean.example.    TXT "no\013\010Bcc: everybody"
soft.example.        TXT "v=spf1 ~all"
both.example.        TXT "v=spf1 -all"
both.example.        TXT "v=spf1 +all"
late.example.        TXT "v=spf1 ip4:192.0.2.1 bogus:x -all"
xn--bcher-kva.example. TXT "v=spf1 exists:%{h} -all"
local.example.       TXT "v=spf1 exists:%{l}.who.example -all"
*.who.example.       A 127.0.0.2
mapped.example.      TXT "v=spf1 ip6:::ffff:192.0.2.1 ip4:192.0.2.1 -all"
loop.example.        TXT "v=spf1 include:loop.example -all"
turn.example.        TXT "v=spf1 redirect=turn.example"
ten.example.         TXT "v=spf1 a a a a a a a a a a ip4:192.0.2.1 -all"
ten.example.         A 203.0.113.1
eleven.example.      TXT "v=spf1 a a a a a a a a a a a ip4:192.0.2.1 -all"
eleven.example.      A 203.0.113.1
void2.example.       TXT "v=spf1 a mx ip4:192.0.2.1 -all"
void3.example.       TXT "v=spf1 a mx exists:x.void3.example ip4:192.0.2.1 -all"
lastvoid.example.    TXT "v=spf1 a mx exists:x.lastvoid.example"
ptrvoid.example.     TXT "v=spf1 ptr ptr ptr ip4:192.0.2.1 -all"
link.example.        TXT "v=spf1 ip6:fe80::/10 -all"
single.              TXT "v=spf1 +all"
ptr.example.         TXT "v=spf1 ptr -all"
named.example.       TXT "v=spf1 exp=why.named.example -all"
why.named.example.   TXT "%{p} %{L}"
eleven.named.example. A 192.0.2.66
other.example.       A 192.0.2.66
notptr.example.      A 192.0.2.66
66.2.0.192.in-addr.arpa. PTR other.example.
66.2.0.192.in-addr.arpa. PTR notptr.example.
66.2.0.192.in-addr.arpa. PTR eleven.named.example.
six.example.         TXT "v=spf1 a -all"
six.example.         A 192.0.2.1
six.example.         AAAA 2001:db8::1
nomail.example.      TXT "v=spf1 mx -all"
nomail.example.      MX 0 .
incnone.example.     TXT "v=spf1 include:none.example -all"
outer.example.       TXT "v=spf1 include:inner.example redirect=pass.example"
inner.example.       TXT "v=spf1 ip4:198.51.100.1 -all"
`

func zone(t testing.TB) *resolver.Zone {
	z, err := resolver.ParseZone("world", strings.NewReader(world))
	must(t, err)
	must(t, z.Fail("servfail.example", resolver.TypeTXT, "SERVFAIL"))
	must(t, z.Set("asksfail.example", resolver.TypeTXT, "v=spf1 a:servfail-a.example -all"))
	must(t, z.Fail("servfail-a.example", resolver.TypeA, "SERVFAIL"))
	for i := range 11 {
		must(t, z.Set(fmt.Sprintf("mx%d.example", i), resolver.TypeA, "192.0.2.1"))
	}
	for _, n := range []int{10, 11} {
		var hosts []string
		for i := range n {
			hosts = append(hosts, fmt.Sprintf("%d mx%d.example.", i, i))
		}
		name := fmt.Sprintf("with%dmx.example", n)
		must(t, z.Set(name, resolver.TypeMX, hosts...))
		must(t, z.Set(name, resolver.TypeTXT, "v=spf1 mx -all"))
	}
	must(t, z.Set("huge.example", resolver.TypeTXT, "v=spf1 "+strings.Repeat("ip4:192.0.2.1 ", 1200)+"-all"))
	must(t, z.Set("many.example", resolver.TypeTXT, "v=spf1 "+strings.Repeat("ip4:192.0.3.1 ", 1100)+"-all"))
	must(t, z.Set("grows.example", resolver.TypeTXT, "v=spf1 exists:"+strings.Repeat("%{s}", 1000)+".example -all"))
	var claims []string // the true one is the eleventh
	for i := range 10 {
		claims = append(claims, fmt.Sprintf("n%d.example.", i))
	}
	must(t, z.Set("67.2.0.192.in-addr.arpa", resolver.TypePTR, append(claims, "ptr.example.")...))
	must(t, z.Set("ptr.example", resolver.TypeA, "192.0.2.67", "192.0.2.68"))
	must(t, z.Set("68.2.0.192.in-addr.arpa", resolver.TypePTR, append(claims[1:], "ptr.example.")...))
	must(t, z.Set("back.example", resolver.TypeTXT, `v=spf1 a:slash\.example -all`))
	must(t, z.Set(`slash\\.example`, resolver.TypeA, "192.0.2.1"))
	must(t, z.Set("raw.example", resolver.TypeTXT, "v=spf1 a:\x00\xff\r\n -all"))
	return z
}

func from(t testing.TB, path string) address.ReversePath {
	p, err := address.ParseReversePath(path)
	must(t, err)
	return p
}

func TestVerify(t *testing.T) {
	z := zone(t)
	for _, tt := range []struct {
		helo, from, ip string
		wantHelo, want spf.Result
		reason         string // part of the sender's
	}{
		{"pass.example", "ann@pass.example", "192.0.2.1", "pass", "pass", `matches "ip4:192.0.2.0/24" in the record of pass.example`},
		{"pass.example", "ann@fail.example", "192.0.2.1", "pass", "fail", `matches "-all"`}, // RELIABILITY 48
		{"fail.example", "ann@pass.example", "192.0.2.1", "fail", "pass", ""},
		{"pass.example", "ann@soft.example", "192.0.2.1", "pass", "softfail", ""},
		{"pass.example", "", "192.0.2.1", "pass", "pass", ""}, // F1
		{"fail.example", "", "192.0.2.1", "fail", "fail", ""},
		{"localhost", "ann@pass.example", "192.0.2.1", "none", "pass", ""},
		{"[192.0.2.1]", "", "192.0.2.1", "none", "none", "two labels or more"},
		{"", "", "192.0.2.1", "none", "none", ""},
		{"pass.example.", "", "192.0.2.1", "pass", "pass", ""},
		{"pass.example", "ann@[192.0.2.1]", "192.0.2.1", "pass", "none", ""},
		{"none.example", "ann@pass.example", "::ffff:192.0.2.1", "none", "pass", ""}, // F2
		{"x.example", "ann@mapped.example", "::ffff:192.0.2.1", "none", "pass", `"ip4:192.0.2.1"`},
		{"x.example", "ann@both.example", "192.0.2.1", "none", "permerror", "more than one SPF record"}, // F3
		{"x.example", "ann@late.example", "192.0.2.1", "none", "permerror", "no such mechanism"},        // F7
		{"x.example", "ann@servfail.example", "192.0.2.1", "none", "temperror", "SERVFAIL"},
		{"x.example", "ann@asksfail.example", "192.0.2.1", "none", "temperror", "SERVFAIL"}, // B10
		{"x.example", "ann@loop.example", "192.0.2.1", "none", "permerror", "more than 10 terms ask"},
		{"x.example", "ann@turn.example", "192.0.2.1", "none", "permerror", "more than 10 terms ask"},
		{"x.example", "ann@ten.example", "192.0.2.1", "none", "pass", ""},
		{"x.example", "ann@eleven.example", "192.0.2.1", "none", "permerror", "more than 10 terms ask"},
		{"x.example", "ann@void2.example", "192.0.2.1", "none", "pass", ""},
		{"x.example", "ann@void3.example", "192.0.2.1", "none", "permerror", "empty answer"},
		{"x.example", "ann@lastvoid.example", "192.0.2.1", "none", "permerror", "empty answer"}, // RELIABILITY 44
		{"x.example", "ann@ptrvoid.example", "192.0.2.1", "none", "permerror", "empty answer"},
		{"x.example", "ann@with10mx.example", "192.0.2.1", "none", "pass", ""},
		{"x.example", "ann@with11mx.example", "192.0.2.1", "none", "permerror", "MX"},
		{"x.example", "ann@nomail.example", "192.0.2.1", "none", "fail", ""},
		{"x.example", "ann@incnone.example", "192.0.2.1", "none", "permerror", "no such name"},
		{"bücher.example", "ann@bücher.example", "192.0.2.1", "fail", "fail", "xn--bcher-kva.example"}, // F9
		{"x.example", "ann@local.example", "192.0.2.1", "none", "pass", ""},
		{"x.example", "zoë@local.example", "192.0.2.1", "none", "fail", ""},    // RFC 8616 4
		{"x.example", `"a\"b"@local.example`, "192.0.2.1", "none", "pass", ""}, // no escape in the DNS
		{"x.example", "ann@back.example", "192.0.2.1", "none", "pass", ""},     // nor is a backslash
		{"x.example", "ann@six.example", "2001:db8::1", "none", "pass", ""},
		{"x.example", "ann@link.example", "fe80::1%eth0", "none", "pass", ""},
		{"single", "", "192.0.2.1", "none", "none", "two labels or more"},
		{"x.example", "ann@ptr.example", "192.0.2.66", "none", "fail", ""}, // notptr is not below ptr
		{"x.example", "ann@ptr.example", "192.0.2.67", "none", "fail", ""}, // F4
		{"x.example", "ann@ptr.example", "192.0.2.68", "none", "pass", ""},
		{"x.example", "ann@huge.example", "192.0.2.1", "none", "permerror", "longer than 16384 octets"},
		{"x.example", "ann@many.example", "192.0.2.1", "none", "fail", ""},
		{"x.example", "ann@grows.example", "192.0.2.1", "none", "permerror", "grows to more than 4096 octets"},
		{"x.example", "ann@raw.example", "192.0.2.1", "none", "permerror", "not visible ASCII"},
	} {
		t.Run(tt.helo+" "+tt.from, func(t *testing.T) {
			helo, got := spf.Verify(t.Context(), z, spf.Input{IP: netip.MustParseAddr(tt.ip), Helo: tt.helo, From: from(t, tt.from)})
			if helo.Result != tt.wantHelo || helo.Identity != "helo" {
				t.Errorf("helo: %s %q, want %s\n%s", helo.Result, helo.Reason, tt.wantHelo, show(helo))
			}
			if got.Result != tt.want || !strings.Contains(got.Reason, tt.reason) || got.Identity != "mailfrom" {
				t.Errorf("mailfrom: %s %q, want %s %q\n%s", got.Result, got.Reason, tt.want, tt.reason, show(got))
			}
			checkShape(t, helo)
			checkShape(t, got)
		})
	}
}

// checkShape fails for what no input may bring about.
func checkShape(t testing.TB, c spf.Check) {
	t.Helper()
	switch c.Result {
	case spf.None, spf.Neutral, spf.Pass, spf.Fail, spf.SoftFail, spf.TempError, spf.PermError:
	default:
		t.Errorf("result %q", c.Result)
	}
	texts := []string{c.Domain, c.Reason, c.Mechanism, c.Explanation}
	queries, terms := 0, 0
	for _, s := range c.Steps {
		texts = append(texts, s.Domain, s.Record, s.Term, s.Answer)
		queries += len(s.Queries)
		terms = max(terms, s.Lookups)
		for _, q := range s.Queries {
			texts = append(texts, q.Name)
		}
	}
	if size := len(strings.Join(texts, "")); size > 400<<10 {
		t.Errorf("%d octets of text", size)
	}
	for _, text := range texts {
		if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
			t.Errorf("unprintable: %q", text)
		}
	}
	// Eleven records, ten times an mx with its hosts, the names of the client, exp.
	if most := 11 + 10*11 + 11 + 1; queries > most || terms > spf.MaxLookups || len(c.Steps) > 500 || c.Reason == "" || len(c.Explanation) > 4096+4096 {
		t.Errorf("%d queries, %d lookups, %d steps, reason %.100q, explanation of %d octets", queries, terms, len(c.Steps), c.Reason, len(c.Explanation))
	}
}

func TestExplanation(t *testing.T) {
	z := zone(t)
	for domain, want := range map[string]string{
		"named.example": "eleven.named.example a%20b", // the name below the domain, though not the first
		"fail.example":  "192.0.2.66 is not ours, says mx.here.example at 1700000000",
		"long.example":  "two strings",
		"mean.example":  "", // would be more lines of a reply
		"soft.example":  "",
	} {
		_, got := spf.Verify(t.Context(), z, spf.Input{IP: netip.MustParseAddr("192.0.2.66"), Helo: "x.example",
			From: from(t, `"a b"@`+domain), Hostname: "mx.here.example", Now: time.Unix(1700000000, 0)})
		if got.Explanation != want {
			t.Errorf("%s: %q, want %q", domain, got.Explanation, want)
		}
	}
}

func TestSteps(t *testing.T) {
	_, got := spf.Verify(t.Context(), zone(t), spf.Input{IP: netip.MustParseAddr("192.0.2.1"), Helo: "x.example", From: from(t, "ann@outer.example")})
	want := `  outer.example v=spf1 include:inner.example redirect=pass.example -> found (lookup 0, void 0) [outer.example TXT: found]
  outer.example include:inner.example -> no match (lookup 1, void 0)
    inner.example v=spf1 ip4:198.51.100.1 -all -> found (lookup 1, void 0) [inner.example TXT: found]
    inner.example ip4:198.51.100.1 -> no match (lookup 1, void 0)
    inner.example -all -> match (lookup 1, void 0)
  outer.example redirect=pass.example -> pass (lookup 2, void 0)
    pass.example v=spf1 ip4:192.0.2.0/24 -all -> found (lookup 2, void 0) [pass.example TXT: found]
    pass.example ip4:192.0.2.0/24 -> match (lookup 2, void 0)
`
	if show(got) != want {
		t.Errorf("got\n%swant\n%s", show(got), want)
	}
	if got.Mechanism != "ip4:192.0.2.0/24" || got.Domain != "outer.example" {
		t.Errorf("mechanism %q, domain %q", got.Mechanism, got.Domain)
	}
}

// silent is a resolver that answers when the context ends, as every resolver
// must, and not before.
type silent struct{ but resolver.Resolver }

func (s silent) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	if s.but != nil && t == resolver.TypeTXT {
		return s.but.Lookup(ctx, name, t)
	}
	<-ctx.Done()
	return nil, &resolver.Error{Name: name, Type: t, Kind: resolver.ErrTemporary, Err: ctx.Err()}
}

// TestDeadline: 20 s in all, whatever is asked, and then it is temporary, even
// where the silence alone would mean "no match" (F5).
func TestDeadline(t *testing.T) {
	for name, record := range map[string]string{"txt": "", "a": "v=spf1 a -all", "ptr": "v=spf1 ptr -all", "macro": "v=spf1 exists:%{p}.example -all"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := silent{}
				if record != "" {
					z := resolver.NewZone()
					must(t, z.Set("d.example", resolver.TypeTXT, record))
					r.but = z
				}
				started := time.Now()
				_, got := spf.Verify(t.Context(), r, spf.Input{IP: netip.MustParseAddr("192.0.2.1"), Helo: "d.example", From: from(t, "ann@d.example")})
				if took := time.Since(started); got.Result != spf.TempError || took != 20*time.Second {
					t.Errorf("%s after %v: %s", got.Result, took, got.Reason)
				}
			})
		})
	}
}

// TestOverTheWire asks a real server, which then falls silent.
func TestOverTheWire(t *testing.T) {
	server, err := testmail.StartDNS(zone(t), "127.0.0.1:0")
	must(t, err)
	defer server.Close()
	for _, tt := range []struct {
		from     string
		faults   testmail.Faults
		patience time.Duration
		want     spf.Result
	}{
		{"ann@outer.example", testmail.Faults{}, 10 * time.Second, spf.Pass},
		{"ann@many.example", testmail.Faults{}, 10 * time.Second, spf.Fail}, // 15 KB, over TCP
		{"ann@with10mx.example", testmail.Faults{}, 10 * time.Second, spf.Pass},
		{"ann@servfail.example", testmail.Faults{}, 10 * time.Second, spf.TempError},
		{"ann@outer.example", testmail.Faults{Drop: true}, 300 * time.Millisecond, spf.TempError},
		{"ann@outer.example", testmail.Faults{Garbage: []byte("?")}, 300 * time.Millisecond, spf.TempError},
	} {
		server.SetFaults(tt.faults)
		client := resolver.NewClient([]netip.AddrPort{server.Addr()}, tt.patience)
		_, got := spf.Verify(t.Context(), client, spf.Input{IP: netip.MustParseAddr("192.0.2.1"), Helo: "x.example", From: from(t, tt.from)})
		if got.Result != tt.want {
			t.Errorf("%s with %+v: %s %q, want %s", tt.from, tt.faults, got.Result, got.Reason, tt.want)
		}
		client.Close()
	}
}

func TestUnknownClient(t *testing.T) {
	_, got := spf.Verify(t.Context(), zone(t), spf.Input{Helo: "pass.example", From: from(t, "ann@pass.example")})
	if got.Result != spf.TempError || got.Reason == "" {
		t.Errorf("%s %q", got.Result, got.Reason)
	}
}

func TestParse(t *testing.T) {
	terms, errs := spf.Parse("v=spf1 ip4:192.0.2.0/24  ?a:mail.%{d}/28//64 -exists:%{i}.x.example unknown=%% exp=e.example redirect=r.example -ALL")
	if errs != nil {
		t.Fatal(errors.Join(errs...))
	}
	var got strings.Builder
	for _, term := range terms {
		fmt.Fprintf(&got, "%s | %s\n", term.Text, term.Meaning())
	}
	want := `ip4:192.0.2.0/24 | pass for 192.0.2.0/24
?a:mail.%{d}/28//64 | neutral for the addresses of mail.%{d} and their /28 and IPv6 /64 networks
-exists:%{i}.x.example | fail for any client, if %{i}.x.example has an address
unknown=%% | unknown, ignored
exp=e.example | the text at e.example tells a refused sender why
redirect=r.example | when nothing matches, the record of r.example decides
-ALL | fail for everybody else
`
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}

// TestParseMistakes: one error for each mistake, and only for those.
func TestParseMistakes(t *testing.T) {
	for _, bad := range []string{"bogus", "all:x.example", "-all/8", "a:", "a/", "a//", "a/foo.example", "a/33", "a/08", "a//129", "a:x.example/24/24",
		"a:x.example//64/24", "a:example", "a:1.2.3.4", "a:x.example:25", "mx:", "include", "include:", "include:x.example/8", "exists", "ptr:", "ptr/8",
		"ip4", "ip4:", "ip4:1.2.3", "ip4:1.2.3.04", "ip4:1.2.3.4/", "ip4:1.2.3.4/33", "ip4:1.2.3.4//8", "ip4:::1", "ip6:1.2.3.4", "ip6:::1/129", "ip6:fe80::1%eth0",
		"redirect=", "redirect:x.example", "exp=", "exp=x", "-exp=x.example", "=x", "1a=x", "a_b", "x=%", "x=%x", "x=%{", "x=%{}", "x=%{z}", "x=%{d0}", "x=%{d-r}", "x=%{c}",
		"exists:%{d}x", "exists:x.example.%{d}.", "\x7fa", "a:\xc3\xa9.example", "a:x\t.example"} {
		terms, errs := spf.Parse("v=spf1 mx " + bad + " -all")
		if len(errs) != 1 || len(terms) != 2 {
			t.Errorf("%q: %v, %d good terms", bad, errs, len(terms))
		}
	}
	for _, record := range []string{"", "v=spf10", "v=spf1\t-all", " v=spf1", "v=spf1 exp=a.example exp=a.example", "v=spf1 redirect=a.example REDIRECT=b.example"} {
		if _, errs := spf.Parse(record); len(errs) != 1 {
			t.Errorf("%q: %v", record, errs)
		}
	}
	for _, good := range []string{"v=spf1", "V=SPF1  ", "v=spf1 a:x.example/0//0", "v=spf1 exists:%{L1R-+}.x.example.", "v=spf1 a:%%%_%-", "v=spf1 x=1 x=1", "v=spf1 x=%{d99999999999999999999}", "v=spf1 a:x/y.example", "v=spf1 ip6:::ffff:1.2.3.4/96"} {
		if _, errs := spf.Parse(good); errs != nil {
			t.Errorf("%q: %v", good, errs)
		}
	}
}

func TestSurvey(t *testing.T) {
	z := zone(t)
	must(t, z.Set("top.example", resolver.TypeTXT, "v=spf1 include:outer.example include:%{i}.x.example mx include:late.example redirect=pass.example ~all"))
	var got strings.Builder
	for _, s := range spf.Survey(t.Context(), z, "top.example") {
		fmt.Fprintf(&got, "%d %s %s| %s (%d)\n", s.Depth, s.Domain, s.Term, s.Answer, s.Lookups)
	}
	want := `0 top.example | found (0)
0 top.example include:outer.example| pass for every client that the record of outer.example passes (1)
1 outer.example | found (1)
1 outer.example include:inner.example| pass for every client that the record of inner.example passes (2)
2 inner.example | found (2)
2 inner.example ip4:198.51.100.1| pass for 198.51.100.1/32 (2)
2 inner.example -all| fail for everybody else (2)
1 outer.example redirect=pass.example| when nothing matches, the record of pass.example decides (3)
2 pass.example | found (3)
2 pass.example ip4:192.0.2.0/24| pass for 192.0.2.0/24 (3)
2 pass.example -all| fail for everybody else (3)
0 top.example include:%{i}.x.example| pass for every client that the record of %{i}.x.example passes (4)
0 top.example mx| pass for the mail exchangers of this domain (5)
0 top.example include:late.example| pass for every client that the record of late.example passes (6)
1 late.example | "bogus:x": there is no such mechanism (6)
0 top.example redirect=pass.example| ignored, because the record has "all" (6)
0 top.example ~all| softfail for everybody else (6)
`
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
	if steps := spf.Survey(t.Context(), z, "loop.example"); len(steps) > 200 || steps[len(steps)-1].Lookups <= spf.MaxLookups {
		t.Errorf("a loop: %d steps, %d lookups", len(steps), steps[len(steps)-1].Lookups)
	}
}
