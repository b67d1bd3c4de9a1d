package dmarc_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"onward/internal/mailauth/dmarc"
	"onward/internal/resolver"
)

// world is a zone: a name and its TXT, or a name with an RCODE in brackets, or
// a name that just exists.
func world(t testing.TB, lines ...string) *resolver.Zone {
	t.Helper()
	z := resolver.NewZone()
	texts := make(map[string][]string)
	for _, line := range lines {
		name, value, _ := strings.Cut(line, " ")
		var err error
		switch {
		case strings.HasPrefix(value, "["):
			err = z.Fail(name, 0, strings.Trim(value, "[]"))
		case value == "":
			err = z.Set(name, resolver.TypeTXT)
		default:
			texts[name] = append(texts[name], value)
			err = z.Set(name, resolver.TypeTXT, texts[name]...)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return z
}

func pass(domain string) dmarc.Identifier {
	return dmarc.Identifier{Result: dmarc.Pass, Domain: domain}
}
func temp(domain string) dmarc.Identifier {
	return dmarc.Identifier{Result: dmarc.TempError, Domain: domain}
}
func failed(domain string) dmarc.Identifier {
	return dmarc.Identifier{Result: dmarc.Fail, Domain: domain}
}

type ids = []dmarc.Identifier

const reject = "_dmarc.example.com v=DMARC1; p=reject"

func TestEvaluate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		zone   []string
		from   string
		spf    dmarc.Identifier
		dkim   ids
		result dmarc.Result
		policy dmarc.Policy
		org    string
	}{
		{"DM1 U-label", []string{"_dmarc.xn--bcher-kva.example v=DMARC1; p=reject"}, "a@BÜCHER.example.", pass("bücher.example"), nil, "pass", "reject", "xn--bcher-kva.example"},
		{"DM3 own record", []string{reject, "_dmarc.a.example.com v=DMARC1; p=none"}, "a@a.example.com", failed(""), nil, "fail", "none", "example.com"},
		{"DM3 records between are skipped", []string{reject, "_dmarc.b.example.com v=DMARC1; p=none", "a.b.example.com"}, "a@a.b.example.com", failed(""), nil, "fail", "reject", "example.com"},
		{"DM4 top-level domain", []string{"_dmarc.com v=DMARC1; p=quarantine"}, "a@example.com", failed(""), nil, "fail", "quarantine", "com"},
		{"DM4 single label", []string{"_dmarc.lan v=DMARC1; p=reject"}, "a@lan", pass("lan"), nil, "pass", "reject", "lan"},
		{"DM5 two records", []string{reject, "_dmarc.example.com v=DMARC1; p=none"}, "a@example.com", failed(""), nil, "none", "", "example.com"},
		{"DM5 two records below", []string{reject, "_dmarc.a.example.com v=DMARC1; p=none", "_dmarc.a.example.com v=DMARC1; p=none"}, "a@a.example.com", failed(""), nil, "fail", "reject", "example.com"},
		{"DM6 psd=n at the start", []string{reject, "_dmarc.a.example.com v=DMARC1; p=none; psd=n"}, "a@a.example.com", pass("example.com"), nil, "fail", "none", "a.example.com"},
		{"DM6 psd=y at the start", []string{reject, "_dmarc.a.example.com v=DMARC1; p=none; psd=y"}, "a@a.example.com", pass("a.example.com"), nil, "pass", "none", "a.example.com"},
		{"DM6 psd=y in the middle", []string{reject, "_dmarc.b.example.com v=DMARC1; p=quarantine; psd=y", "x.a.b.example.com"}, "a@x.a.b.example.com", pass("a.b.example.com"), nil, "pass", "quarantine", "a.b.example.com"},
		{"DM6 psd=y at the top", []string{"_dmarc.com v=DMARC1; p=quarantine; psd=y"}, "a@a.example.com", pass("b.example.com"), nil, "pass", "quarantine", "example.com"},
		{"DM6 psd=y keeps neighbours apart", []string{"_dmarc.com v=DMARC1; p=quarantine; psd=y"}, "a@example.com", pass("evil.com"), nil, "fail", "quarantine", "example.com"},
		{"DM7 psd=y is not asked", []string{reject, "_dmarc.com v=DMARC1; p=quarantine; sp=none; psd=y"}, "a@a.example.com", failed(""), nil, "fail", "reject", "example.com"},
		{"DM8 sp", []string{"_dmarc.example.com v=DMARC1; p=reject; sp=none", "a.example.com"}, "a@a.example.com", failed(""), nil, "fail", "none", "example.com"},
		{"DM8 sp is not for the domain itself", []string{"_dmarc.example.com v=DMARC1; p=reject; sp=none"}, "a@example.com", failed(""), nil, "fail", "reject", "example.com"},
		{"DM8 np, NXDOMAIN", []string{"_dmarc.example.com v=DMARC1; p=none; np=reject"}, "a@a.example.com", failed(""), nil, "fail", "reject", "example.com"},
		{"DM8 np, NODATA", []string{"_dmarc.example.com v=DMARC1; p=none; np=reject", "a.example.com"}, "a@a.example.com", failed(""), nil, "fail", "none", "example.com"},
		{"DM8 np, a name below exists", []string{"_dmarc.example.com v=DMARC1; p=none; np=reject", "b.a.example.com"}, "a@a.example.com", failed(""), nil, "fail", "none", "example.com"},
		{"DM8 np, _dmarc below exists", []string{"_dmarc.example.com v=DMARC1; p=none; np=reject", "_dmarc.a.example.com x"}, "a@a.example.com", failed(""), nil, "fail", "none", "example.com"},
		{"DM8 np falls back to sp", []string{"_dmarc.example.com v=DMARC1; p=none; sp=reject"}, "a@a.example.com", failed(""), nil, "fail", "reject", "example.com"},
		{"DM8 np falls back to p", []string{reject}, "a@a.example.com", failed(""), nil, "fail", "reject", "example.com"},
		{"DM9 no p, no rua", []string{"_dmarc.example.com v=DMARC1; sp=reject"}, "a@example.com", pass("example.com"), nil, "none", "", "example.com"},
		{"DM9 bad sp, rua", []string{"_dmarc.example.com v=DMARC1; p=reject; sp=x; rua=mailto:a@example.com"}, "a@example.com", failed(""), nil, "fail", "none", "example.com"},
		{"DM9 a broken record still ends the search", []string{reject, "_dmarc.a.example.com v=DMARC1"}, "a@a.example.com", failed(""), nil, "none", "", "example.com"},
		{"DM10 reject", []string{"_dmarc.example.com v=DMARC1; p=reject; t=y"}, "a@example.com", failed(""), nil, "fail", "quarantine", "example.com"},
		{"DM10 quarantine", []string{"_dmarc.example.com v=DMARC1; p=reject; sp=quarantine; t=y"}, "a@a.example.com", failed(""), nil, "fail", "none", "example.com"},
		{"DM11 pct counts for nothing", []string{"_dmarc.example.com v=DMARC1; p=reject; pct=0"}, "a@example.com", failed(""), nil, "fail", "reject", "example.com"},
		{"DM12 relaxed, parent", []string{reject, "a.example.com"}, "a@a.example.com", failed(""), ids{pass("EXAMPLE.com.")}, "pass", "reject", "example.com"},
		{"DM12 relaxed, cousin", []string{reject, "a.example.com"}, "a@a.example.com", failed(""), ids{pass("b.example.com")}, "pass", "reject", "example.com"},
		{"DM12 own walk: psd=n below", []string{reject, "_dmarc.b.example.com v=DMARC1; p=none; psd=n"}, "a@example.com", failed(""), ids{pass("x.b.example.com")}, "fail", "reject", "example.com"},
		{"DM12 no record, siblings", []string{"_dmarc.a.example.com v=DMARC1; p=reject"}, "a@a.example.com", failed(""), ids{pass("example.com")}, "fail", "reject", "a.example.com"},
		{"DM12 strict SPF", []string{"_dmarc.example.com v=DMARC1; p=reject; aspf=s"}, "a@example.com", pass("a.example.com"), nil, "fail", "reject", "example.com"},
		{"DM12 strict SPF, equal", []string{"_dmarc.example.com v=DMARC1; p=reject; aspf=s"}, "a@example.com", pass("example.com"), nil, "pass", "reject", "example.com"},
		{"DM12 strict DKIM", []string{"_dmarc.example.com v=DMARC1; p=reject; adkim=s"}, "a@example.com", failed(""), ids{pass("a.example.com")}, "fail", "reject", "example.com"},
		{"DM12 the third signature", []string{reject}, "a@example.com", failed(""), ids{pass("evil.net"), failed("example.com"), pass("example.com")}, "pass", "reject", "example.com"},
		{"DM13 SPF that did not pass", []string{reject}, "a@example.com", failed("example.com"), nil, "fail", "reject", "example.com"},
		{"DM13 SPF of an address literal", []string{reject}, "a@example.com", pass("[192.0.2.1]"), nil, "fail", "reject", "example.com"},
		{"RELIABILITY 46 nothing to go by", []string{reject}, "a@example.com", dmarc.Identifier{}, nil, "fail", "reject", "example.com"},
		{"suffix of the text, not of the name", []string{reject, "_dmarc.notexample.com v=DMARC1; p=none"}, "a@example.com", failed(""), ids{pass("notexample.com")}, "fail", "reject", "example.com"},

		{"DM14 record", []string{"_dmarc.example.com [SERVFAIL]"}, "a@example.com", failed(""), nil, "temperror", "", "example.com"},
		{"DM14 record, silence", []string{"_dmarc.example.com [TIMEOUT]"}, "a@example.com", failed(""), nil, "temperror", "", "example.com"},
		{"DM14 record, equal name passed", []string{"_dmarc.example.com [SERVFAIL]"}, "a@example.com", pass("example.com"), nil, "pass", "", "example.com"},
		{"DM14 record, relative passed", []string{"_dmarc.example.com [SERVFAIL]"}, "a@example.com", pass("a.example.com"), nil, "temperror", "", "example.com"},
		{"DM14 record of the organization", []string{"_dmarc.example.com [SERVFAIL]", "a.example.com"}, "a@a.example.com", failed(""), nil, "temperror", "", "a.example.com"},
		{"DM14 record of a subdomain", []string{reject, "_dmarc.a.example.com [REFUSED]"}, "a@a.example.com", failed(""), nil, "temperror", "", "a.example.com"},
		{"DM14 SPF, aligned", []string{reject}, "a@example.com", temp("a.example.com"), nil, "temperror", "reject", "example.com"},
		{"DM14 SPF, not aligned", []string{reject}, "a@example.com", temp("evil.net"), nil, "fail", "reject", "example.com"},
		{"DM14 SPF, signature passed", []string{reject}, "a@example.com", temp("example.com"), ids{pass("example.com")}, "pass", "reject", "example.com"},
		{"DM14 DKIM, aligned", []string{reject}, "a@example.com", failed(""), ids{temp("example.com")}, "temperror", "reject", "example.com"},
		{"DM14 DKIM, strict", []string{"_dmarc.example.com v=DMARC1; p=reject; adkim=s"}, "a@example.com", failed(""), ids{temp("a.example.com")}, "fail", "reject", "example.com"},
		{"DM14 no policy, so nothing matters", nil, "a@example.com", temp("example.com"), nil, "none", "", "example.com"},
		{"DM14 existence", []string{"_dmarc.example.com v=DMARC1; p=none; np=reject", "a.example.com [SERVFAIL]"}, "a@a.example.com", failed(""), nil, "temperror", "reject", "example.com"},
		{"DM14 existence, passed", []string{"_dmarc.example.com v=DMARC1; p=none; np=reject", "a.example.com [SERVFAIL]"}, "a@a.example.com", pass("example.com"), nil, "pass", "reject", "example.com"},
		{"DM14 walk of a stranger", []string{reject, "_dmarc.evil.net [SERVFAIL]"}, "a@example.com", failed(""), ids{pass("evil.net")}, "fail", "reject", "example.com"},
		{"DM14 walk of a neighbour", []string{reject, "_dmarc.evil.com [SERVFAIL]"}, "a@example.com", failed(""), ids{pass("evil.com")}, "fail", "reject", "example.com"},
		{"DM14 long walk of a stranger", []string{reject, "_dmarc.a.b.c.evil.net [SERVFAIL]"}, "a@example.com", failed(""), ids{pass("a.b.c.evil.net")}, "fail", "reject", "example.com"},
		{"DM14 neighbour below a known suffix", []string{"_dmarc.co.uk v=DMARC1; p=reject; psd=y", "_dmarc.evil.co.uk [SERVFAIL]", "example.co.uk"}, "a@example.co.uk", failed(""), ids{pass("evil.co.uk")}, "fail", "reject", "example.co.uk"},
		{"DM14 aligned, but perhaps strict", []string{"_dmarc.shop.co.uk v=DMARC1; p=reject", "_dmarc.co.uk [SERVFAIL]"}, "a@x.shop.co.uk", failed(""), ids{pass("y.shop.co.uk")}, "temperror", "", "shop.co.uk"},
		{"DM14 walk of a subdomain", []string{reject, "_dmarc.a.example.com [SERVFAIL]"}, "a@example.com", failed(""), ids{pass("a.example.com")}, "temperror", "reject", "example.com"},
		{"DM14 top-level domain, subdomain passed", []string{reject, "_dmarc.com [SERVFAIL]"}, "a@example.com", failed(""), ids{pass("a.example.com")}, "pass", "reject", "example.com"},
		{"DM14 top-level domain, nothing passed", []string{reject, "_dmarc.com [SERVFAIL]"}, "a@example.com", failed(""), nil, "fail", "reject", "example.com"},
		{"DM14 top-level domain, inherited", []string{reject, "_dmarc.com [SERVFAIL]", "a.example.com"}, "a@a.example.com", failed(""), nil, "fail", "reject", "example.com"},
		{"DM14 top-level domain, no record", []string{"_dmarc.com [SERVFAIL]"}, "a@example.com", failed(""), nil, "temperror", "", "example.com"},
		{"DM14 four answers missing", []string{reject, "_dmarc.a.b.c.example.com [SERVFAIL]"}, "a@a.b.c.example.com", failed(""), nil, "temperror", "", "a.b.c.example.com"},
		{"DM14 far below", []string{reject, "_dmarc.a.b.c.d.e.example.com [SERVFAIL]"}, "a@example.com", failed(""), ids{pass("a.b.c.d.e.example.com")}, "temperror", "reject", "example.com"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := dmarc.Evaluate(t.Context(), world(t, tt.zone...), dmarc.Input{From: from(tt.from), SPF: tt.spf, DKIM: tt.dkim})
			if v.Result != tt.result || v.Policy != tt.policy || string(v.OrganizationalDomain) != tt.org {
				t.Errorf("got %s, policy %q, organizational domain %s, because %s; want %s, %q, %s",
					v.Result, v.Policy, v.OrganizationalDomain, v.Reason, tt.result, tt.policy, tt.org)
			}
			if v.Reason == "" || (v.Result == dmarc.Pass) != (v.SPFAligned || v.DKIMAligned) && v.Result != dmarc.None {
				t.Errorf("reason %q, SPF aligned %v, DKIM aligned %v", v.Reason, v.SPFAligned, v.DKIMAligned)
			}
		})
	}
}

// Mail without a single author domain (DM2, DESIGN.md 9.13, RELIABILITY 47).
func TestWithoutAuthor(t *testing.T) {
	nine := "a@a.net,a@b.net,a@c.net,a@d.net,a@e.net,a@f.net,a@g.net,a@h.net,a@example.com"
	for _, tt := range []struct {
		name   string
		from   []string
		result dmarc.Result
		domain string
		policy dmarc.Policy
	}{
		{"DM2 no From field", nil, "permerror", "", ""},
		{"DM2 no domain", []string{"Ada"}, "permerror", "", ""},
		{"DM2 two domains without a policy", []string{"a@a.net, a@b.net"}, "permerror", "a.net", ""},
		{"DM2 two domains, one quarantine", []string{"a@a.net, a@weak.com"}, "permerror", "weak.com", "quarantine"},
		{"DM2 two domains, one reject", []string{"a@weak.com, a@example.com"}, "fail", "example.com", "reject"},
		{"DM2 hidden domain with reject", []string{"ceo@example.com <a@evil.net>"}, "fail", "example.com", "reject"},
		{"DM2 unreadable beside reject", []string{"a@[192.0.2.1], a@example.com"}, "fail", "example.com", "reject"},
		{"DM2 two domains, one unknown", []string{"a@a.net, a@broken.com"}, "temperror", "a.net", ""},
		{"DM2 two domains, existence unknown", []string{"a@a.net, a@a.np.com"}, "fail", "a.np.com", "reject"},
		{"DM2 unknown beside reject", []string{"a@broken.com, a@example.com"}, "fail", "example.com", "reject"},
		{"DM2 two fields", []string{"a@a.net", "a@b.net"}, "fail", "a.net", ""},
		{"DM2 two equal fields", []string{"a@example.com", "a@example.com"}, "fail", "example.com", "reject"},
		{"DM2 the second field unknown", []string{"a@a.net", "a@broken.com"}, "fail", "a.net", ""},
		{"DM2 the victim is the ninth", []string{nine}, "fail", "a.net", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			z := world(t, reject, "_dmarc.weak.com v=DMARC1; p=quarantine", "_dmarc.broken.com [SERVFAIL]",
				"_dmarc.np.com v=DMARC1; p=none; np=reject", "a.np.com [SERVFAIL]")
			v := dmarc.Evaluate(t.Context(), z, dmarc.Input{From: from(tt.from...), SPF: pass("example.com"), DKIM: ids{pass("example.com")}})
			if v.Result != tt.result || string(v.Domain) != tt.domain || v.Policy != tt.policy || v.Reason == "" {
				t.Errorf("got %s, policy %q of %s, because %s; want %s, %q of %s", v.Result, v.Policy, v.Domain, v.Reason, tt.result, tt.policy, tt.domain)
			}
		})
	}
}

// The reason is said in full, since it becomes an answer and a line of explain.
func TestReason(t *testing.T) {
	v := dmarc.Evaluate(t.Context(), world(t, reject), dmarc.Input{From: from("a@x.net, a@example.com")})
	if want := "From names several domains, and example.com wants failing mail refused"; v.Reason != want {
		t.Errorf("reason %q, want %q", v.Reason, want)
	}
	v = dmarc.Evaluate(t.Context(), world(t, reject), dmarc.Input{From: from("a@example.com"), SPF: temp("b.example.com")})
	if want := "SPF for b.example.com could have passed, but the DNS did not answer"; v.Reason != want {
		t.Errorf("reason %q, want %q", v.Reason, want)
	}
}

// A counter notes every question.
type counter struct {
	resolver.Resolver
	mu    sync.Mutex
	asked []string
}

func (c *counter) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	c.mu.Lock()
	c.asked = append(c.asked, name+" "+t.String())
	c.mu.Unlock()
	return c.Resolver.Lookup(ctx, name, t)
}

// Each name is asked for once, whatever the number of walks (D2, DM4).
func TestLookups(t *testing.T) {
	for _, tt := range []struct {
		name string
		zone []string
		in   dmarc.Input
		want int
	}{
		{"twelve labels", nil, dmarc.Input{From: from("a@a.b.c.d.e.f.g.h.i.j.example.com")}, 8},
		{"eight labels", nil, dmarc.Input{From: from("a@a.b.c.d.e.f.example.com")}, 8},
		{"nine labels", nil, dmarc.Input{From: from("a@a.b.c.d.e.f.g.example.com")}, 8},
		{"seven labels", nil, dmarc.Input{From: from("a@a.b.c.d.e.example.com")}, 7},
		{"same domain everywhere", []string{reject}, dmarc.Input{From: from("a@example.com"), SPF: pass("example.com"), DKIM: ids{pass("example.com"), pass("example.com")}}, 2},
		{"shared parents", []string{reject}, dmarc.Input{From: from("a@example.com"), SPF: pass("a.example.com"), DKIM: ids{pass("b.example.com")}}, 4},
		{"np asks once more", []string{"_dmarc.example.com v=DMARC1; p=reject; np=none"}, dmarc.Input{From: from("a@a.example.com")}, 4},
		{"np, and _dmarc below exists", []string{"_dmarc.example.com v=DMARC1; p=reject; np=none", "_dmarc.a.example.com x"}, dmarc.Input{From: from("a@a.example.com")}, 3},
		{"failures are not walked", []string{reject}, dmarc.Input{From: from("a@example.com"), SPF: failed("a.net"), DKIM: ids{failed("b.net")}}, 2},
		{"a temporary error ends the walk", []string{"_dmarc.a.example.com [SERVFAIL]"}, dmarc.Input{From: from("a@a.example.com")}, 1},
		{"a thousand signers", []string{reject}, dmarc.Input{From: from("a@example.com"), DKIM: signers(1000)}, 2 + 8*8 - 7}, // "net" once
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &counter{Resolver: world(t, tt.zone...)}
			dmarc.Evaluate(t.Context(), c, tt.in)
			slices.Sort(c.asked)
			if once := slices.Compact(slices.Clone(c.asked)); len(c.asked) != tt.want || len(once) != tt.want {
				t.Errorf("%d questions, %d different, want %d: %q", len(c.asked), len(once), tt.want, c.asked)
			}
		})
	}
}

func signers(n int) ids {
	var all ids
	for i := range n {
		all = append(all, pass(fmt.Sprintf("a.b.c.d.e.f.g%d.net", i)))
	}
	return all
}

// Alignment side by side, for explain.
func TestAlignments(t *testing.T) {
	z := world(t, "_dmarc.example.com v=DMARC1; p=reject; aspf=s", "_dmarc.evil.net v=DMARC1; p=none")
	v := dmarc.Evaluate(t.Context(), z, dmarc.Input{From: from("a@example.com"), SPF: pass("a.example.com"), DKIM: ids{failed("x.org"), pass("m.evil.net"), pass("b.example.com")}})
	var got []string
	for _, a := range v.Alignments {
		got = append(got, fmt.Sprintf("%s %s of %s strict=%v aligned=%v walk=%v", a.Method, a.Domain, a.OrganizationalDomain, a.Strict, a.Aligned, domains(a.Walk)))
	}
	want := []string{
		"spf a.example.com of example.com strict=true aligned=false walk=[a.example.com example.com com]",
		"dkim m.evil.net of evil.net strict=false aligned=false walk=[m.evil.net evil.net net]",
		"dkim b.example.com of example.com strict=false aligned=true walk=[b.example.com example.com com]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if v.SPFAligned || !v.DKIMAligned {
		t.Errorf("SPF aligned %v, DKIM aligned %v", v.SPFAligned, v.DKIMAligned)
	}
}

// silence never answers.
type silence struct{}

func (silence) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	<-ctx.Done()
	return nil, &resolver.Error{Name: name, Type: t, Kind: resolver.ErrTemporary, Err: ctx.Err()}
}

// Existence is shown only where it mattered.
func TestExistence(t *testing.T) {
	z := world(t, "_dmarc.example.com v=DMARC1; p=reject; np=none")
	if v := dmarc.Evaluate(t.Context(), z, dmarc.Input{From: from("a@example.com")}); v.Existence != nil {
		t.Errorf("the publisher itself: %+v", v.Existence)
	}
	v := dmarc.Evaluate(t.Context(), z, dmarc.Input{From: from("a@a.example.com")})
	if e := v.Existence; e == nil || e.Name != "a.example.com" || e.Status != dmarc.StatusNoName {
		t.Errorf("a name below: %+v", e)
	}
}

// DNS that never answers ends with the context, in a temperror.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan dmarc.Verdict)
		go func() {
			done <- dmarc.Evaluate(ctx, silence{}, dmarc.Input{From: from("a@a.example.com"), SPF: pass("example.com"), DKIM: signers(8)})
		}()
		synctest.Wait()
		cancel()
		if v := <-done; v.Result != dmarc.TempError {
			t.Errorf("got %s, want temperror", v.Result)
		}
	})
}

// A name of a hundred labels, for all ten identifiers, with the worst kind of
// missing answers.
func BenchmarkWalk(b *testing.B) {
	long := strings.Repeat("a.", 98) + "example.com"
	in := dmarc.Input{From: from("a@" + long), SPF: pass("b." + long)}
	for i := range 8 {
		in.DKIM = append(in.DKIM, pass(fmt.Sprintf("s%d.%s", i, long)))
	}
	for name, zone := range map[string]*resolver.Zone{
		"100 labels": world(b, reject),
		"com fails":  world(b, "_dmarc.com [SERVFAIL]"),
		"two fail":   world(b, "_dmarc.example.com [SERVFAIL]"),
		"three fail": world(b, "_dmarc.a.example.com [SERVFAIL]"),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				dmarc.Evaluate(b.Context(), zone, in)
			}
		})
	}
}
