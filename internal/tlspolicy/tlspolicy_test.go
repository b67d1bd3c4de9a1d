package tlspolicy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/resolver"
	"onward/internal/testpeer"
	"onward/internal/tlspolicy"
	"onward/internal/tlspolicy/mtasts"
)

const host = "mx.example.org"

// types lists what is reported as wrong.
func types(s tlspolicy.Session) string {
	var all []string
	for _, f := range s.Failures {
		all = append(all, f.Type)
	}
	return strings.Join(all, " ")
}

// A host may show any certificate, or offer no TLS, where nothing is asked.
func TestNoPolicy(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *world){
		"nothing there": func(*testing.T, *world) {},
		"no DNSSEC": func(t *testing.T, w *world) {
			w.dns.plain["example.org"] = true
			w.tlsa(t, "3 1 1 "+strings.Repeat("ab", 32))
		},
		"unsigned host": func(t *testing.T, w *world) { w.dns.plain[host] = true; w.fail(t, "_25._tcp."+host, resolver.TypeTLSA) },
		"unsigned records": func(t *testing.T, w *world) {
			w.tlsa(t, "3 1 1 "+strings.Repeat("ab", 32))
			w.dns.plain["_25._tcp."+host] = true
		},
		"policy none":       func(t *testing.T, w *world) { w.sts(t, "none") },
		"a record, no more": func(t *testing.T, w *world) { w.set(t, "_mta-sts.example.org", resolver.TypeTXT, "v=STSv1") },
		"of another port": func(t *testing.T, w *world) {
			w.set(t, "_465._tcp."+host, resolver.TypeTLSA, "3 1 1 "+strings.Repeat("ab", 32))
		},
		"IPv6 address fails": func(t *testing.T, w *world) { w.dns.plain[host] = true; w.fail(t, host, resolver.TypeAAAA) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			change(t, w)
			rule := w.rule(t, "MX.example.ORG.")
			if rule.Skip != nil || rule.Required || rule.Key != "" {
				t.Fatalf("got %+v", rule)
			}
			state, sni, err := shake(t, rule, shows(selfSigned(t, leaf("other.test"))))
			if err != nil || sni != host {
				t.Fatalf("asked for %q: %v", sni, err)
			}
			if s := w.went(t, rule, state, nil); types(s) != "" || s.Policy.Type != tlspolicy.PolicyNone || s.Policy.Domain != "example.org" || s.Host != host {
				t.Errorf("got %+v", s)
			}
			why := fmt.Errorf("it said 454: %w", tlspolicy.ErrNotOffered)
			if no := rule.Refuse(why); no != nil {
				t.Errorf("got %v", no)
			}
			if s := w.went(t, rule, nil, why); types(s) != tlspolicy.NotSupported {
				t.Errorf("got %+v", s)
			}
		})
	}
}

// An address is its own host, and asks for nothing.
func TestLiteral(t *testing.T) {
	w := newWorld(t)
	rule := w.Find("[127.0.0.1]", nil).Host(t.Context(), "[127.0.0.1]")
	if rule.Skip != nil || rule.Required || rule.Key != "" {
		t.Fatalf("got %+v", rule)
	}
	if _, sni, err := shake(t, rule, shows(selfSigned(t, leaf("other.test")))); err != nil || sni != "" {
		t.Errorf("asked for %q: %v", sni, err)
	}
}

// What a report is sent under asks for nothing, whatever the domain does.
func TestOpportunistic(t *testing.T) {
	rule := tlspolicy.Opportunistic(host)
	if _, sni, err := shake(t, rule, shows(selfSigned(t, leaf("other.test")))); err != nil || sni != host || rule.Key != "" {
		t.Errorf("asked for %q: %v", sni, err)
	}
	if no := rule.Refuse(tlspolicy.ErrNotOffered); no != nil {
		t.Errorf("got %v", no)
	}
}

// An outcome is what becomes of one host with one policy.
type outcome struct {
	reply    string // of Refuse after a failed handshake, how it begins after "451 "; "" when all is well
	failures string
}

// judge shakes hands under a rule that enforces something.
func (w *world) judge(t *testing.T, rule *tlspolicy.Rule, server *tls.Config) (outcome, string) {
	t.Helper()
	if rule.Skip != nil {
		return outcome{strings.TrimPrefix(rule.Skip.String(), "451 "), types(w.last(t))}, ""
	}
	state, sni, err := shake(t, rule, server)
	out := outcome{failures: types(w.went(t, rule, state, err))}
	if err != nil {
		if no := rule.Refuse(err); no != nil {
			out.reply = strings.TrimPrefix(no.String(), "451 ")
		}
	}
	return out, sni
}

// The table of RFC 7672: what a host shows, what its records say.
func TestDANE(t *testing.T) {
	w := newWorld(t)
	middle := newIssuer(t, w.ca)
	stranger := newIssuer(t, nil)
	expired := leaf("other.test")
	expired.NotBefore, expired.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	late := leaf(host)
	late.NotBefore, late.NotAfter = expired.NotBefore, expired.NotAfter
	common := leaf()
	common.Subject.CommonName = host

	old := selfSigned(t, expired)
	good := stranger.issue(t, leaf(host), stranger)
	deep := middle.issue(t, leaf(host), middle, w.ca)
	short := middle.issue(t, leaf(host), middle)
	bare := middle.issue(t, leaf(host))
	byDomain := stranger.issue(t, leaf("example.org"), stranger)
	wild := stranger.issue(t, leaf("*.example.org"), stranger)
	named := stranger.issue(t, common, stranger)
	wrong := stranger.issue(t, leaf("other.test"), stranger)
	dated := stranger.issue(t, late, stranger)
	self := selfSigned(t, leaf(host))

	const mismatch = "4.7.5 example.org requires TLS (DANE), and the certificate of its mail host mx.example.org is not one to be trusted: no TLSA record matches the certificate"
	for _, tt := range []struct {
		name    string
		records []string
		shown   tls.Certificate
		want    outcome
	}{
		{"EE key", []string{about(3, 1, good.Leaf)}, good, outcome{}},
		{"EE certificate", []string{about(3, 0, good.Leaf)}, good, outcome{}},
		{"EE ignores name and date", []string{about(3, 1, old.Leaf)}, old, outcome{}},
		{"EE of another", []string{about(3, 1, old.Leaf)}, good, outcome{mismatch, "certificate-not-trusted"}},
		{"EE says nothing of the issuer", []string{about(3, 1, stranger.cert)}, good, outcome{mismatch, "certificate-not-trusted"}},
		{"one of several", []string{about(3, 1, old.Leaf), about(3, 1, good.Leaf)}, good, outcome{}},
		{"EE in full", []string{fmt.Sprintf("3 0 0 %x", good.Leaf.Raw)}, good, outcome{}},
		{"TA key", []string{about(2, 1, stranger.cert)}, good, outcome{}},
		{"TA above", []string{about(2, 0, w.ca.cert)}, deep, outcome{}},
		{"TA between", []string{about(2, 0, middle.cert)}, deep, outcome{}},
		{"TA not shown", []string{about(2, 0, w.ca.cert)}, short, outcome{mismatch, "certificate-not-trusted"}},
		{"TA in full, not shown", []string{fmt.Sprintf("2 0 0 %x", w.ca.cert.Raw)}, short, outcome{}},
		{"TA key in full, not shown", []string{fmt.Sprintf("2 1 0 %x", w.ca.cert.RawSubjectPublicKeyInfo)}, short, outcome{}},
		{"TA key in full, nothing shown", []string{fmt.Sprintf("2 1 0 %x", middle.cert.RawSubjectPublicKeyInfo)}, bare, outcome{}},
		{"TA key in full of another", []string{fmt.Sprintf("2 1 0 %x", stranger.cert.RawSubjectPublicKeyInfo)}, bare,
			outcome{"4.7.5 example.org requires TLS (DANE), and the certificate of its mail host mx.example.org is not one to be trusted: nobody we trust has issued it", "certificate-not-trusted"}},
		{"TA, hole in the chain", []string{about(2, 0, w.ca.cert)}, middle.issue(t, leaf(host), w.ca),
			outcome{"4.7.5 example.org requires TLS (DANE), and the certificate of its mail host mx.example.org is not one to be trusted: nobody we trust has issued it", "certificate-not-trusted"}},
		{"TA, for the domain", []string{about(2, 1, stranger.cert)}, byDomain, outcome{}},
		{"TA, wildcard", []string{about(2, 1, stranger.cert)}, wild, outcome{}},
		{"TA, common name", []string{about(2, 1, stranger.cert)}, named, outcome{}},
		{"TA, other name", []string{about(2, 1, stranger.cert)}, wrong,
			outcome{"4.7.5 example.org requires TLS (DANE), and the certificate of its mail host mx.example.org is for other names", "certificate-host-mismatch"}},
		{"TA, too late", []string{about(2, 1, stranger.cert)}, dated,
			outcome{"4.7.5 example.org requires TLS (DANE), and the certificate of its mail host mx.example.org has expired, or is not valid yet", "certificate-expired"}},
		{"TA of another", []string{about(2, 1, w.ca.cert)}, good, outcome{mismatch, "certificate-not-trusted"}},
		{"TA of itself", []string{about(2, 0, self.Leaf)}, self, outcome{}},
		{"EE beside a TA that fails", []string{about(2, 1, stranger.cert), about(3, 1, dated.Leaf)}, dated, outcome{}},
		{"PKIX usages beside", []string{about(0, 1, good.Leaf), about(1, 1, good.Leaf), about(3, 1, old.Leaf)}, good, outcome{mismatch, "certificate-not-trusted"}},
		{"nothing usable", []string{about(0, 1, old.Leaf), about(1, 1, old.Leaf), "3 1 1 00"}, good, outcome{"", "tlsa-invalid"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.tlsa(t, tt.records...)
			rule := w.rule(t, host)
			if !rule.Required || rule.Key == "" {
				t.Errorf("got %+v", rule)
			}
			got, sni := w.judge(t, rule, shows(tt.shown))
			if got != tt.want || sni != host {
				t.Errorf("asked for %q: got %q\nwant %q", sni, got, tt.want)
			}
			if no := rule.Refuse(tlspolicy.ErrNotOffered); no == nil || no.String() != "451 4.7.4 example.org requires TLS (DANE), and its mail host mx.example.org does not offer it" {
				t.Errorf("in clear: %v", no)
			}
			s := w.went(t, rule, nil, tlspolicy.ErrNotOffered)
			if s.Policy.Type != tlspolicy.PolicyTLSA || s.Policy.Domain != host || len(s.Policy.Lines) == 0 || !strings.HasSuffix(types(s), tlspolicy.NotSupported) {
				t.Errorf("got %+v", s)
			}
		})
	}
}

// RELIABILITY 59: what cannot be looked up, or is forged, is not absent.
func TestDANETrouble(t *testing.T) {
	w := newWorld(t)
	w.fail(t, "_25._tcp."+host, resolver.TypeTLSA)
	w.sts(t, "testing", host)
	got, _ := w.judge(t, w.rule(t, host), nil)
	want := outcome{"4.7.5 the TLSA records of mx.example.org, a mail host of example.org, cannot be looked up just now, or are forged", "dnssec-invalid"}
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// The address was there for the client, and is away for us.
	w = newWorld(t)
	w.fail(t, host, resolver.TypeA)
	if rule := w.rule(t, host); rule.Skip == nil {
		t.Errorf("got %+v", rule)
	}
	// An unsigned alias hides whether there is a signed one.
	w = newWorld(t)
	w.dns.Remove(host, resolver.TypeA)
	w.set(t, host, resolver.TypeCNAME, "pool.example.net.")
	w.set(t, "pool.example.net", resolver.TypeA, "127.0.0.1")
	w.dns.plain["pool.example.net"] = true
	mx, err := w.dns.Lookup(t.Context(), "example.org", resolver.TypeMX)
	if err != nil {
		t.Fatal(err)
	}
	w.Resolver = failing{w.dns, host, resolver.TypeCNAME}
	if rule := w.Find("example.org", mx).Host(t.Context(), host); rule.Skip == nil {
		t.Errorf("got %+v", rule)
	}
}

// failing is a resolver that has trouble with one question.
type failing struct {
	resolver.Resolver
	name string
	kind resolver.Type
}

func (f failing) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	if name == f.name && t == f.kind {
		return nil, &resolver.Error{Name: name, Type: t, Kind: resolver.ErrTemporary}
	}
	return f.Resolver.Lookup(ctx, name, t)
}

// RFC 7672 2.2.3: a host that is an alias, and where its records then stand.
func TestAlias(t *testing.T) {
	for _, tt := range []struct {
		name   string
		plain  []string // not signed
		tlsa   []string // who has records
		want   string   // whose count; "" for none
		refuse string   // a certificate name that does not do
	}{
		{"at the target", nil, []string{"pool.example.net"}, "pool.example.net", ""},
		{"at both", nil, []string{"pool.example.net", host}, "pool.example.net", ""},
		{"at the alias", nil, []string{host}, host, ""},
		{"target not signed", []string{"pool.example.net"}, []string{"pool.example.net", host}, host, ""},
		{"target not signed, records there", []string{"pool.example.net"}, []string{"pool.example.net"}, "", ""},
		{"nothing signed", []string{"pool.example.net", host}, []string{"pool.example.net", host}, "", ""},
		{"none", nil, nil, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.dns.Remove(host, resolver.TypeA)
			w.set(t, host, resolver.TypeCNAME, "pool.example.net.")
			w.set(t, "pool.example.net", resolver.TypeA, "127.0.0.1")
			signed := dnssec{w.dns.Zone, map[string]bool{}}
			for _, name := range tt.plain {
				signed.plain[name] = true
			}
			mx, err := signed.Lookup(t.Context(), "example.org", resolver.TypeMX)
			if err != nil {
				t.Fatal(err)
			}
			// What is asked for is the alias itself, which is signed though its target is not.
			w.Resolver = cnames{signed}
			for _, name := range tt.tlsa {
				w.set(t, "_25._tcp."+name, resolver.TypeTLSA, about(2, 1, w.ca.cert))
			}
			rule := w.Find("example.org", mx).Host(t.Context(), host)
			if rule.Required != (tt.want != "") {
				t.Fatalf("got %+v", rule)
			}
			if tt.want == "" {
				return
			}
			for name, ok := range map[string]bool{tt.want: true, host: true, "example.org": true, "example.net": false} {
				got, sni := w.judge(t, rule, shows(w.ca.issue(t, leaf(name), w.ca)))
				if (got.reply == "") != ok || sni != tt.want {
					t.Errorf("%s: asked for %q, got %q", name, sni, got)
				}
			}
			if s := w.went(t, rule, nil, nil); s.Policy.Domain != tt.want {
				t.Errorf("got %+v", s)
			}
		})
	}
}

// cnames answers questions for an alias itself as a zone does that has signed it.
type cnames struct{ dnssec }

func (c cnames) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	answer, err := c.dnssec.Lookup(ctx, name, t)
	if err == nil && t == resolver.TypeCNAME {
		answer.AuthenticatedData = !c.plain[name]
	}
	return answer, err
}

// All of it with a real validator: records that are signed, and forged.
func TestValidator(t *testing.T) {
	testpeer.Need(t, "unbound", "ldns-keygen", "ldns-signzone")
	w := newWorld(t)
	cert := selfSigned(t, leaf("x.test"))
	records := func(domain string) []string {
		return []string{
			domain + ". 60 IN MX 10 mx." + domain + ".",
			"mx." + domain + ". 60 IN A 127.0.0.1",
			"_25._tcp.mx." + domain + ". 60 IN TLSA " + about(3, 1, cert.Leaf),
		}
	}
	server := testpeer.StartValidator(t,
		testpeer.Zone{Name: "signed.example.", Signed: true, Records: records("signed.example")},
		testpeer.Zone{Name: "plain.example.", Records: records("plain.example")},
		testpeer.Zone{Name: "forged.example.", Signed: true, Records: records("forged.example"), Forge: func(file string) string {
			return strings.ReplaceAll(file, strings.Fields(about(3, 1, cert.Leaf))[3], strings.Repeat("ab", 32))
		}})
	dns := resolver.NewClient([]netip.AddrPort{server}, 5*time.Second)
	defer dns.Close()
	w.Resolver, w.Web.Resolver = dns, dns
	for domain, want := range map[string]struct{ required, skip bool }{
		"signed.example": {true, false}, "plain.example": {false, false}, "forged.example": {false, true},
	} {
		mx, err := dns.Lookup(t.Context(), domain, resolver.TypeMX)
		if err != nil {
			t.Fatal(err)
		}
		rule := w.Find(address.Domain(domain), mx).Host(t.Context(), "mx."+domain)
		if rule.Required != want.required || (rule.Skip != nil) != want.skip {
			t.Errorf("%s: got %+v", domain, rule)
		}
		if rule.Skip != nil {
			continue
		}
		if got, _ := w.judge(t, rule, shows(cert)); got != (outcome{}) {
			t.Errorf("%s: got %q", domain, got)
		}
		if got, _ := w.judge(t, rule, shows(selfSigned(t, leaf("mx."+domain)))); (got.reply == "") != (domain == "plain.example") {
			t.Errorf("%s, another certificate: got %q", domain, got)
		}
	}
}

// The domain is its own host when it has no MX record.
func TestDANEWithoutMX(t *testing.T) {
	w := newWorld(t)
	w.dns.Remove("example.org", resolver.TypeMX)
	w.set(t, "example.org", resolver.TypeA, "127.0.0.1")
	cert := selfSigned(t, leaf("x.test"))
	w.set(t, "_25._tcp.example.org", resolver.TypeTLSA, about(3, 1, cert.Leaf))
	rule := w.rule(t, "example.org")
	if got, _ := w.judge(t, rule, shows(cert)); got != (outcome{}) || !rule.Required {
		t.Errorf("got %q", got)
	}
	if got, _ := w.judge(t, rule, shows(selfSigned(t, leaf("x.test")))); got.reply == "" {
		t.Errorf("got %q", got)
	}
	w.Port = 2525
	if rule := w.rule(t, "example.org"); rule.Required {
		t.Errorf("records of port 25 count for port 2525: %+v", rule)
	}
}

// MTA-STS, enforced: RFC 8461 4.1, 4.2, 5.
func TestEnforce(t *testing.T) {
	w := newWorld(t)
	w.sts(t, "enforce", "mx.example.org", "*.wild.example.org")
	stranger := newIssuer(t, nil)
	late := leaf(host)
	late.NotBefore, late.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	common := leaf()
	common.Subject.CommonName = host
	begins := "4.7.5 example.org requires TLS (MTA-STS), and the certificate of its mail host mx.example.org "
	for _, tt := range []struct {
		name, host string
		shown      tls.Certificate
		want       outcome
	}{
		{"good", host, w.ca.issue(t, leaf(host)), outcome{}},
		{"good, several names", host, w.ca.issue(t, leaf("a.test", "*.example.org")), outcome{}},
		{"good, host by a wildcard", "a.wild.example.org", w.ca.issue(t, leaf("a.wild.example.org")), outcome{}},
		{"of a stranger", host, stranger.issue(t, leaf(host), stranger), outcome{begins + "is not one to be trusted: nobody we trust has issued it", "certificate-not-trusted"}},
		{"self-signed", host, selfSigned(t, leaf(host)), outcome{begins + "is not one to be trusted: nobody we trust has issued it", "certificate-not-trusted"}},
		{"for the domain", host, w.ca.issue(t, leaf("example.org")), outcome{begins + "is for other names", "certificate-host-mismatch"}},
		{"common name only", host, w.ca.issue(t, common), outcome{begins + "is for other names", "certificate-host-mismatch"}},
		{"too late", host, w.ca.issue(t, late), outcome{begins + "has expired, or is not valid yet", "certificate-expired"}},
		{"host not named", "mx.evil.test", tls.Certificate{}, outcome{"4.7.5 the MTA-STS policy of example.org does not name its mail host mx.evil.test", "validation-failure"}},
		{"host below a wildcard", "a.b.wild.example.org", tls.Certificate{}, outcome{"4.7.5 the MTA-STS policy of example.org does not name its mail host a.b.wild.example.org", "validation-failure"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rule := w.rule(t, tt.host)
			if got, _ := w.judge(t, rule, shows(tt.shown)); got != tt.want {
				t.Errorf("got %q\nwant %q", got, tt.want)
			}
			if no := rule.Refuse(tlspolicy.ErrNotOffered); !rule.Required || no == nil || no.Status != "4.7.4" {
				t.Errorf("in clear: %v", no)
			}
			s := w.went(t, rule, nil, nil)
			if s.Policy.Type != tlspolicy.PolicySTS || s.Policy.Domain != "example.org" || s.Domain != "example.org" ||
				!slices.Equal(s.Policy.MX, []string{"mx.example.org", "*.wild.example.org"}) || s.Policy.Lines[1] != "mode: enforce" {
				t.Errorf("got %+v", s)
			}
		})
	}
}

// MTA-STS, testing: all goes on, and all is reported.
func TestTesting(t *testing.T) {
	w := newWorld(t)
	w.sts(t, "testing", host)
	for _, tt := range []struct {
		name, host string
		shown      tls.Certificate
		failures   string
	}{
		{"good", host, w.ca.issue(t, leaf(host)), ""},
		{"bad", host, selfSigned(t, leaf("other.test")), "certificate-host-mismatch"},
		{"not named", "mx2.example.org", w.ca.issue(t, leaf("mx2.example.org")), "validation-failure"},
		{"not named and bad", "mx2.example.org", selfSigned(t, leaf("mx2.example.org")), "validation-failure certificate-not-trusted"},
	} {
		rule := w.rule(t, tt.host)
		if rule.Required || rule.Key != "" || rule.Refuse(tlspolicy.ErrNotOffered) != nil {
			t.Errorf("%s: got %+v", tt.name, rule)
		}
		if got, _ := w.judge(t, rule, shows(tt.shown)); got != (outcome{"", tt.failures}) {
			t.Errorf("%s: got %q", tt.name, got)
		}
		if s := w.went(t, rule, nil, tlspolicy.ErrNotOffered); !strings.HasSuffix(types(s), tlspolicy.NotSupported) || s.Policy.Type != tlspolicy.PolicySTS {
			t.Errorf("%s: got %+v", tt.name, s)
		}
	}
}

// T3: DANE beats MTA-STS, for better and for worse.
func TestBoth(t *testing.T) {
	w := newWorld(t)
	w.sts(t, "enforce", "elsewhere.example.org")
	cert := selfSigned(t, leaf("x.test"))
	w.tlsa(t, about(3, 1, cert.Leaf))
	rule := w.rule(t, host) // which the MTA-STS policy does not even name
	if got, _ := w.judge(t, rule, shows(cert)); got != (outcome{}) {
		t.Errorf("DANE satisfied: got %q", got)
	}
	w.sts(t, "enforce", host)
	if got, _ := w.judge(t, w.rule(t, host), shows(w.ca.issue(t, leaf(host)))); got.reply == "" {
		t.Errorf("DANE not satisfied, MTA-STS would be: got %q", got)
	}
	w.fail(t, "_25._tcp."+host, resolver.TypeTLSA)
	if rule := w.rule(t, host); rule.Skip == nil {
		t.Errorf("TLSA in trouble, MTA-STS satisfied: got %+v", rule)
	}
	// Records of which none is usable ask for TLS; the policy for more.
	w.tlsa(t, about(0, 1, cert.Leaf))
	if got, _ := w.judge(t, w.rule(t, host), shows(cert)); !strings.HasPrefix(got.reply, "4.7.5 example.org requires TLS (MTA-STS)") {
		t.Errorf("no usable record, MTA-STS not satisfied: got %q", got)
	}
	if got, _ := w.judge(t, w.rule(t, host), shows(w.ca.issue(t, leaf(host)))); got.reply != "" {
		t.Errorf("no usable record, MTA-STS satisfied: got %q", got)
	}
}

// Without a policy that can be had the mail goes on, and the owner hears of it.
func TestPolicyTrouble(t *testing.T) {
	for want, change := range map[string]func(*testing.T, *world){
		tlspolicy.FetchError:    func(t *testing.T, w *world) { w.dns.Remove("mta-sts.example.org", resolver.TypeA) },
		tlspolicy.PolicyInvalid: func(t *testing.T, w *world) { w.policy = "<html>" },
		tlspolicy.WebPKIInvalid: func(t *testing.T, w *world) { w.Web.Roots = x509.NewCertPool() },
	} {
		w := newWorld(t)
		w.sts(t, "enforce", host)
		change(t, w)
		rule := w.rule(t, host)
		if got, _ := w.judge(t, rule, shows(selfSigned(t, leaf("x.test")))); rule.Required || got != (outcome{"", want}) {
			t.Errorf("got %q, want %s", got, want)
		}
		if s := w.went(t, rule, nil, nil); s.Policy.Type != tlspolicy.PolicyNone || s.Failures[0].Reason == "" {
			t.Errorf("got %+v", s)
		}
	}
}

// A handshake that fails is told from a certificate that does.
func TestHandshake(t *testing.T) {
	w := newWorld(t)
	w.sts(t, "enforce", host)
	old := shows(w.ca.issue(t, leaf(host)))
	old.MaxVersion = tls.VersionTLS11
	got, _ := w.judge(t, w.rule(t, host), old)
	if !strings.HasPrefix(got.reply, "4.7.5 example.org requires TLS (MTA-STS), and there is none with its mail host mx.example.org: ") || got.failures != "validation-failure" {
		t.Errorf("got %q", got)
	}
}

// Who hears of what: a connection with its two ends, a host that is skipped
// once, and nobody of what we did not find out.
func TestReport(t *testing.T) {
	w := newWorld(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.DialTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, listener.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w.rule(t, host).Went(conn, nil, tlspolicy.ErrNotOffered)
	if s := w.last(t); s.Local.String() != "127.0.0.2" || s.Remote.String() != "127.0.0.1" || s.Domain != "example.org" || s.Host != host {
		t.Errorf("got %+v", s)
	}

	w.fail(t, "_25._tcp."+host, resolver.TypeTLSA)
	mx, err := w.dns.Lookup(t.Context(), "example.org", resolver.TypeMX)
	if err != nil {
		t.Fatal(err)
	}
	d := w.Find("example.org", mx)
	d.Host(t.Context(), host)
	d.Host(t.Context(), host)
	if len(w.heard) != 1 || w.heard[0].Local.IsValid() {
		t.Errorf("heard %+v", w.heard)
	}
	w.heard = nil

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.Find("example.org", mx).Host(ctx, host)
	tlspolicy.Opportunistic(host).Went(conn, nil, tlspolicy.ErrNotOffered)
	if len(w.heard) != 0 {
		t.Errorf("heard %+v", w.heard)
	}
	w.Report = nil
	w.rule(t, host)
	w.Find("example.org", nil).Host(t.Context(), "other.test").Went(conn, nil, nil)
}

// Which connections may serve for which destinations?
func TestKey(t *testing.T) {
	w := newWorld(t)
	key := func() string { return w.rule(t, host).Key }
	plain := key()
	w.sts(t, "testing", host)
	testing := key()
	w = newWorld(t)
	w.sts(t, "enforce", host)
	enforced := key()
	w.tlsa(t, "3 1 1 "+strings.Repeat("ab", 32), "3 1 1 "+strings.Repeat("cd", 32))
	one := key()
	w.tlsa(t, "3 1 1 "+strings.Repeat("cd", 32), "3 1 1 "+strings.Repeat("ab", 32))
	same := key()
	w.tlsa(t, "3 1 1 "+strings.Repeat("ab", 32))
	other := key()
	if plain != testing || one != same {
		t.Errorf("keys differ: %q, %q; %q, %q", plain, testing, one, same)
	}
	all := []string{plain, enforced, one, other}
	slices.Sort(all)
	if len(slices.Compact(all)) != 4 {
		t.Errorf("keys agree: %q", all)
	}
}

// A rule is found once for each host of an attempt.
func TestOnce(t *testing.T) {
	w := newWorld(t)
	d := w.Find("example.org", nil)
	if d.Host(t.Context(), host) != d.Host(t.Context(), "MX.example.org.") {
		t.Error("two rules for one host")
	}
	if got := w.Policies.Lookup(t.Context(), w.Web, "example.org"); !reflect.DeepEqual(got, mtasts.Found{}) {
		t.Errorf("got %+v", got)
	}
}
