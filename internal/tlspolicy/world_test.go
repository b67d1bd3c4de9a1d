package tlspolicy_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"onward/internal/address"
	"onward/internal/dialguard"
	"onward/internal/resolver"
	"onward/internal/tlspolicy"
	"onward/internal/tlspolicy/mtasts"
	"onward/internal/webclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A dnssec is a zone behind a validator: all of it is signed but for the names
// in plain, and answers that an alias leads out of it.
type dnssec struct {
	*resolver.Zone
	plain map[string]bool
}

func (d dnssec) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	answer, err := d.Zone.Lookup(ctx, name, t)
	if err != nil {
		return nil, err
	}
	validated := *answer
	validated.AuthenticatedData = !d.plain[strings.TrimSuffix(name, ".")] && !d.plain[answer.Name]
	return &validated, nil
}

// A world is the domain example.org with its mail host mx.example.org, signed,
// and an authority that everybody trusts.
type world struct {
	*tlspolicy.Finder
	dns    dnssec
	ca     *issuer
	policy string // at the policy host; empty: nothing is announced
	heard  []tlspolicy.Session
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dns: dnssec{resolver.NewZone(), map[string]bool{}}, ca: newIssuer(t, nil)}
	roots := x509.NewCertPool()
	roots.AddCert(w.ca.cert)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { io.WriteString(rw, w.policy) }))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{w.ca.issue(t, leaf("mta-sts.example.org"))}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	cache, err := mtasts.Open(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cache.Close)
	w.Finder = &tlspolicy.Finder{Resolver: w.dns, Policies: cache, Roots: roots, Web: &webclient.Client{
		Resolver: w.dns, Guard: dialguard.Guard{AllowPrivate: true}, Roots: roots, Port: uint16(server.Listener.Addr().(*net.TCPAddr).Port),
	}}
	w.Report = func(s tlspolicy.Session) { w.heard = append(w.heard, s) }
	w.set(t, "example.org", resolver.TypeMX, "10 mx.example.org.")
	w.set(t, "mx.example.org", resolver.TypeA, "127.0.0.1")
	w.set(t, "mta-sts.example.org", resolver.TypeA, "127.0.0.1")
	return w
}

func (w *world) set(t *testing.T, name string, kind resolver.Type, data ...string) {
	t.Helper()
	if err := w.dns.Set(name, kind, data...); err != nil {
		t.Fatal(err)
	}
}

func (w *world) fail(t *testing.T, name string, kind resolver.Type) {
	t.Helper()
	if err := w.dns.Fail(name, kind, "SERVFAIL"); err != nil {
		t.Fatal(err)
	}
}

// tlsa publishes records for mx.example.org.
func (w *world) tlsa(t *testing.T, records ...string) {
	t.Helper()
	w.set(t, "_25._tcp.mx.example.org", resolver.TypeTLSA, records...)
}

// sts publishes an MTA-STS policy.
func (w *world) sts(t *testing.T, mode string, mx ...string) {
	t.Helper()
	w.policy = "version: STSv1\nmode: " + mode + "\nmax_age: 604800\n"
	for _, pattern := range mx {
		w.policy += "mx: " + pattern + "\n"
	}
	w.set(t, "_mta-sts.example.org", resolver.TypeTXT, "v=STSv1; id=1")
}

// rule asks for the rule of a host of example.org.
func (w *world) rule(t *testing.T, host string) *tlspolicy.Rule {
	t.Helper()
	mx, err := w.dns.Lookup(t.Context(), "example.org", resolver.TypeMX)
	if err != nil {
		mx = nil
	}
	return w.Find(address.Domain("example.org"), mx).Host(t.Context(), host)
}

// last returns what was reported last, and forgets it.
func (w *world) last(t *testing.T) tlspolicy.Session {
	t.Helper()
	if len(w.heard) == 0 {
		t.Fatal("nothing was reported")
	}
	s := w.heard[len(w.heard)-1]
	w.heard = nil
	return s
}

// went reports a connection, and returns what is heard of it.
func (w *world) went(t *testing.T, rule *tlspolicy.Rule, state *tls.ConnectionState, why error) tlspolicy.Session {
	t.Helper()
	rule.Went(nil, state, why)
	return w.last(t)
}

// An issuer is an authority.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newIssuer makes an authority, below parent when there is one.
func newIssuer(t *testing.T, parent *issuer) *issuer {
	t.Helper()
	i := &issuer{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: fmt.Sprintf("authority %p", i)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	by, key := template, i.key
	if parent != nil {
		by, key = parent.cert, parent.key
	}
	i.cert = certificate(t, template, by, i.key, key)
	return i
}

// leaf is the template of a certificate for names.
func leaf(names ...string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

// issue makes a certificate that is shown with those of the authorities.
func (i *issuer) issue(t *testing.T, template *x509.Certificate, more ...*issuer) tls.Certificate {
	t.Helper()
	key := newKey(t)
	c := tls.Certificate{PrivateKey: key, Leaf: certificate(t, template, i.cert, key, i.key)}
	c.Certificate = [][]byte{c.Leaf.Raw}
	for _, m := range more {
		c.Certificate = append(c.Certificate, m.cert.Raw)
	}
	return c
}

// selfSigned makes a certificate that nobody vouches for.
func selfSigned(t *testing.T, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key := newKey(t)
	c := certificate(t, template, template, key, key)
	return tls.Certificate{PrivateKey: key, Leaf: c, Certificate: [][]byte{c.Raw}}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certificate(t *testing.T, template, by *x509.Certificate, subject, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, by, subject.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// about writes the TLSA record of a certificate: the key or all of it, by its
// digest.
func about(usage, selector int, c *x509.Certificate) string {
	data := c.Raw
	if selector == 1 {
		data = c.RawSubjectPublicKeyInfo
	}
	return fmt.Sprintf("%d %d 1 %x", usage, selector, sha256.Sum256(data))
}

// shake shows cert to a client that keeps to rule, over TCP, and returns what
// the client sees of it, and the name it asked for.
func shake(t *testing.T, rule *tlspolicy.Rule, server *tls.Config) (state *tls.ConnectionState, sni string, err error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	asked := make(chan string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		config := server.Clone()
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			asked <- hello.ServerName
			return nil, nil
		}
		stream := tls.Server(conn, config)
		stream.Handshake()
		io.Copy(io.Discard, stream)
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream := tls.Client(conn, rule.Config())
	if err := stream.HandshakeContext(t.Context()); err != nil {
		return nil, <-asked, err
	}
	s := stream.ConnectionState()
	return &s, <-asked, nil
}

func shows(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }
