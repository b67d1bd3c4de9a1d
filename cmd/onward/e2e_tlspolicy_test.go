package main_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	stdlog "log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"onward/internal/resolver"
	"onward/internal/testmail"
	"onward/internal/testpeer"
)

// A guarded world has two destinations that ask for TLS: sts.example by an
// MTA-STS policy, and dane.example by a TLSA record, of a key that nobody has.
type guarded struct {
	*daemon
	cast       *testmail.Cast
	zone       *resolver.Zone
	port       int
	sts, dane  *testmail.Sink
	authority  tls.Certificate // which the daemon trusts
	policyHost netip.Addr
}

// newGuarded starts a guarded world. Its policy host needs port 443, so the test
// skips where that is not to be had.
func newGuarded(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{policyHost: netip.MustParseAddr("127.0.0.20")}
	stsHost, daneHost := netip.MustParseAddr("127.0.0.21"), netip.MustParseAddr("127.0.0.22")
	g.port = testpeer.FreePort(t, stsHost.String(), daneHost.String())
	var err error
	if g.zone, err = resolver.ParseZone("guarded", strings.NewReader(fmt.Sprintf("_%d._tcp.mx.dane.example. 1 IN TLSA 3 1 1 %064x\n", g.port, 1))); err != nil {
		t.Fatal(err)
	}
	g.cast = testmail.NewCast(g.zone, writerHost)
	for name, host := range map[string]netip.Addr{"sts.example": stsHost, "dane.example": daneHost} {
		g.set(t, name, resolver.TypeMX, "10 mx."+name+".")
		g.set(t, "mx."+name, resolver.TypeA, host.String())
	}
	g.set(t, "_mta-sts.sts.example", resolver.TypeTXT, "v=STSv1; id=1")
	g.set(t, "mta-sts.sts.example", resolver.TypeA, g.policyHost.String())
	dns, err := testmail.StartDNS(g.zone, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dns.Close)
	dns.SetFaults(testmail.Faults{Validated: true})
	for host, sink := range map[netip.Addr]**testmail.Sink{stsHost: &g.sts, daneHost: &g.dane} {
		if *sink, err = testmail.StartSink(netip.AddrPortFrom(host, uint16(g.port)).String()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup((*sink).Close)
	}
	g.authority = g.issue(t, "authority")
	g.publishPolicy(t)
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.authority.Certificate[0]}), 0o644); err != nil {
		t.Fatal(err)
	}
	g.daemon = &daemon{env: []string{"SSL_CERT_FILE=" + roots}}
	g.serve(t, fmt.Sprintf(`
hostname: mx.onward.example
postmaster: owner@sts.example
state_dir: DIR/state
listen: ["127.0.0.1:0"]
admin: {listen: "off"}
domains: {alias.example: {aliases: {sts: ann@sts.example, dane: ann@dane.example}}}
dns: {resolvers: [%q]}
delivery: {port: %d, allow_private: true}
`, dns.Addr(), g.port))
	return g
}

func (g *guarded) set(t *testing.T, name string, kind resolver.Type, data ...string) {
	t.Helper()
	if err := g.zone.Set(name, kind, data...); err != nil {
		t.Fatal(err)
	}
}

// issue makes a certificate for a name, by the authority once there is one.
func (g *guarded) issue(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
	}
	by, signer := template, any(key)
	if g.authority.Leaf != nil {
		by, signer = g.authority.Leaf, g.authority.PrivateKey
	} else {
		template.IsCA = true
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// publishPolicy starts the policy host of sts.example.
func (g *guarded) publishPolicy(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(g.policyHost, 443).String())
	if err != nil {
		testpeer.Lack(t, fmt.Sprintf("port 443 of %v: %v", g.policyHost, err))
	}
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "mta-sts.sts.example" || r.URL.Path != "/.well-known/mta-sts.txt" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, "version: STSv1\nmode: enforce\nmx: mx.sts.example\nmax_age: 604800\n")
	}))
	web.Listener.Close()
	web.Listener = l
	web.TLS = &tls.Config{Certificates: []tls.Certificate{g.issue(t, "mta-sts.sts.example")}}
	web.Config.ErrorLog = stdlog.New(io.Discard, "", 0)
	web.StartTLS()
	t.Cleanup(web.Close)
}

// tlsa publishes the record of a certificate for the mail host of dane.example.
func (g *guarded) tlsa(t *testing.T, c tls.Certificate) {
	t.Helper()
	g.set(t, fmt.Sprintf("_%d._tcp.mx.dane.example", g.port), resolver.TypeTLSA, fmt.Sprintf("3 1 1 %x", sha256.Sum256(c.Leaf.RawSubjectPublicKeyInfo)))
}

// TestTLSPolicies holds that mail to a destination whose TLS is not what it asks
// for waits, with a reason that a person can read, and arrives when that is
// mended: in the queue, or at the sender's where nobody could be told later.
func TestTLSPolicies(t *testing.T) {
	g := newGuarded(t)
	good := g.issue(t, "mx.dane.example")
	g.dane.Show(good)
	g.sts.Show(g.issue(t, "mx.elsewhere.example"))
	send := func(w *testmail.Writer, alias, text string) testmail.Try {
		return w.Send(within(t, patience), g.addr, w.From, []string{alias + "@alias.example"}, []byte("From: "+w.Author+"\r\nSubject: "+text+"\r\n\r\nhello\r\n"))
	}
	for _, tt := range []struct {
		alias, reason string
		sink          *testmail.Sink
		mend          func()
	}{
		{"sts", "DOMAIN requires TLS (MTA-STS), and the certificate of its mail host HOST is for other names", g.sts,
			func() { g.sts.Show(g.issue(t, "mx.sts.example")) }},
		{"dane", "DOMAIN requires TLS (DANE), and the certificate of its mail host HOST is not one to be trusted: no TLSA record matches", g.dane,
			func() { g.tlsa(t, good) }},
	} {
		t.Run(tt.alias, func(t *testing.T) {
			heard := strings.NewReplacer("DOMAIN", "the destination", "HOST", "(hidden)").Replace(tt.reason)
			seen := strings.NewReplacer("DOMAIN", tt.alias+".example", "HOST", "mx."+tt.alias+".example").Replace(tt.reason)
			if try := send(g.cast.Forged, tt.alias, "one"); try.Code != 451 || !strings.HasPrefix(try.Text, "451 4.7.5 "+heard) {
				t.Errorf("who cannot be told later hears %q", try.Text)
			}
			if try := send(g.cast.SPF, tt.alias, "two"); try.Code != 250 || !strings.Contains(try.Text, "queued") {
				t.Errorf("who can be told later hears %q", try.Text)
			}
			for _, arguments := range [][]string{{"queue", "list"}, {"queue", "list", "--json"}} {
				stdout, stderr, status := onward(t, append(arguments, "-c", g.config())...)
				if status != 0 || !strings.Contains(stdout, seen) {
					t.Errorf("onward %v: %d, %q, %q; want the reason", arguments, status, stdout, stderr)
				}
			}
			for _, command := range tt.sink.Commands() {
				if verb, _, _ := strings.Cut(command, " "); verb != "EHLO" && verb != "STARTTLS" && verb != "QUIT" {
					t.Errorf("%q over TLS that was not wanted", command)
				}
			}
			tt.mend()
			testpeer.Wait(t, "delivery", func() bool {
				if stdout, stderr, status := onward(t, "queue", "retry", "--all", "-c", g.config()); status != 0 {
					t.Fatalf("onward queue retry: %d, %q, %q", status, stdout, stderr)
				}
				time.Sleep(time.Second)
				return tt.sink.Count() == 1
			})
			if try := send(g.cast.Forged, tt.alias, "one"); try.Code != 250 {
				t.Errorf("when it is mended, the sender hears %q", try.Text)
			}
			if m := tt.sink.Messages(); len(m) != 2 || m[0].TLS == "" || m[1].TLS == "" {
				t.Errorf("%d messages at the destination: %+v", len(m), m)
			}
		})
	}
}
