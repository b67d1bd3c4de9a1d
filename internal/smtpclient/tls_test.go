package smtpclient_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"onward/internal/dialguard"
	"onward/internal/resolver"
	"onward/internal/smtpclient"
	"onward/internal/testmail"
	"onward/internal/tlspolicy"
	"onward/internal/tlspolicy/mtasts"
	"onward/internal/webclient"
)

// validated answers as a validator does in a world where all is signed.
type validated struct{ *resolver.Zone }

func (v validated) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	answer, err := v.Zone.Lookup(ctx, name, t)
	if err == nil {
		signed := *answer
		signed.AuthenticatedData = true
		answer = &signed
	}
	return answer, err
}

// A guarded world is one where policies count.
type guarded struct {
	*world
	heard []tlspolicy.Session
	good  tls.Certificate // of mail.test, which everybody trusts
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{world: newWorld(t), good: certificate(t, "mail.test")}
	policyHost := certificate(t, "mta-sts.example.org")
	roots := x509.NewCertPool()
	roots.AddCert(g.good.Leaf)
	roots.AddCert(policyHost.Leaf)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "version: STSv1\nmode: enforce\nmx: mail.test\nmax_age: 604800\n")
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{policyHost}}
	server.StartTLS()
	t.Cleanup(server.Close)
	cache, err := mtasts.Open(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cache.Close)
	g.set(t, "mta-sts.example.org", resolver.TypeA, "127.0.0.1")
	dns := validated{g.zone}
	g.Resolver = dns
	g.TLS = &tlspolicy.Finder{
		Resolver: dns, Policies: cache, Roots: roots, Port: g.Port,
		Web: &webclient.Client{Resolver: dns, Guard: dialguard.Guard{AllowPrivate: true}, Roots: roots,
			Port: uint16(server.Listener.Addr().(*net.TCPAddr).Port)},
		Report: func(s tlspolicy.Session) { g.heard = append(g.heard, s) },
	}
	return g
}

// enforce announces an MTA-STS policy that names mail.test and enforces it.
func (g *guarded) enforce(t *testing.T) {
	t.Helper()
	g.set(t, "_mta-sts.example.org", resolver.TypeTXT, "v=STSv1; id=1")
}

// tlsa publishes the record of a certificate for a host.
func (g *guarded) tlsa(t *testing.T, host string, c *x509.Certificate) {
	t.Helper()
	g.set(t, fmt.Sprintf("_%d._tcp.%s", g.Port, host), resolver.TypeTLSA, fmt.Sprintf("3 1 1 %x", sha256.Sum256(c.RawSubjectPublicKeyInfo)))
}

// said returns what was reported, and forgets it: types of failures, parted by
// blanks, "ok" for none.
func (g *guarded) said() string {
	var all []string
	for _, s := range g.heard {
		if len(s.Failures) == 0 {
			all = append(all, "ok")
		}
		for _, f := range s.Failures {
			all = append(all, f.Type)
		}
	}
	g.heard = nil
	return strings.Join(all, " ")
}

func certificate(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// The Show of issue 6: deferred with a reason, delivered when mended.
func TestEnforcedMTASTS(t *testing.T) {
	g := newGuarded(t)
	g.enforce(t)
	for range 2 { // the second time there is a connection that could be tempting
		out := g.Deliver(t.Context(), to("ada@example.org", short))
		want(t, out, smtpclient.Deferred, "451 4.7.5 example.org requires TLS (MTA-STS), and the certificate of its mail host mail.test is for other names", "STARTTLS")
	}
	g.sink.Offer("PIPELINING")
	out := g.Deliver(t.Context(), to("ada@example.org", short))
	want(t, out, smtpclient.Deferred, "451 4.7.4 example.org requires TLS (MTA-STS), and its mail host mail.test does not offer it", "EHLO")
	g.sink.Offer("PIPELINING", "STARTTLS")
	g.sink.Do("STARTTLS", testmail.Action{Reply: "454 4.7.0 no", Times: 1})
	out = g.Deliver(t.Context(), to("ada@example.org", short))
	want(t, out, smtpclient.Deferred, "451 4.7.4 example.org requires TLS (MTA-STS)", "STARTTLS")
	if n := g.sink.Count(); n > 0 {
		t.Errorf("%d messages got through", n)
	}
	g.sink.Show(g.good)
	want(t, g.Deliver(t.Context(), to("ada@example.org", short)), smtpclient.Delivered, "250", "dot")
	if said := g.said(); said != "certificate-host-mismatch certificate-host-mismatch starttls-not-supported starttls-not-supported ok" {
		t.Errorf("reported %q", said)
	}
	clean(t, g.sink)
}

func TestDANE(t *testing.T) {
	g := newGuarded(t)
	g.tlsa(t, "mail.test", certificate(t, "x.test").Leaf)
	out := g.Deliver(t.Context(), to("ada@example.org", short))
	want(t, out, smtpclient.Deferred, "451 4.7.5 example.org requires TLS (DANE), and the certificate of its mail host mail.test is not one to be trusted: no TLSA record matches", "STARTTLS")
	g.sink.Show(g.good)
	g.tlsa(t, "mail.test", g.good.Leaf)
	want(t, g.Deliver(t.Context(), to("ada@example.org", short)), smtpclient.Delivered, "250", "dot")
	if said := g.said(); said != "certificate-not-trusted ok" {
		t.Errorf("reported %q", said)
	}
	clean(t, g.sink)
}

// A host that may not be used is passed by for the next.
func TestSkippedHost(t *testing.T) {
	g := newGuarded(t)
	second := g.second(t)
	g.set(t, "example.org", resolver.TypeMX, "10 mail2.test.", "20 mail.test.")
	g.enforce(t)
	g.sink.Show(g.good)
	want(t, g.Deliver(t.Context(), to("ada@example.org", short)), smtpclient.Delivered, "250", "dot")
	if second.Sessions() != 0 {
		t.Error("the host that the policy does not name was connected to")
	}
	if said := g.said(); said != "validation-failure ok" {
		t.Errorf("reported %q", said)
	}
	g.set(t, "example.org", resolver.TypeMX, "10 mail2.test.")
	out := g.Deliver(t.Context(), to("ada@example.org", short))
	want(t, out, smtpclient.Deferred, "451 4.7.5 the MTA-STS policy of example.org does not name its mail host mail2.test", "lookup")
}

// A connection that was opened without a policy does not serve under one, though
// the host is the same.
func TestPolicyAndPool(t *testing.T) {
	g := newGuarded(t)
	g.set(t, "example.net", resolver.TypeMX, "10 mail.test.")
	d, err := smtpclient.NewDestinations(t.Context(), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	g.Destinations = d
	want(t, g.Deliver(t.Context(), to("ada@example.net", short)), smtpclient.Delivered, "250", "dot")
	g.enforce(t)
	if out := g.Deliver(t.Context(), to("ada@example.org", short)); out.Result != smtpclient.Deferred {
		t.Errorf("got %+v", out)
	}
	want(t, g.Deliver(t.Context(), to("ada@example.net", short)), smtpclient.Delivered, "250", "dot")
}

// A report goes whatever TLS there is, and nobody hears of it.
func TestAnyTLS(t *testing.T) {
	g := newGuarded(t)
	g.enforce(t)
	report := to("ada@example.org", short)
	report.AnyTLS = true
	want(t, g.Deliver(t.Context(), report), smtpclient.Delivered, "250", "dot")
	if said := g.said(); said != "" {
		t.Errorf("reported %q", said)
	}
}
