package certificate

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"io/fs"
	stdlog "log"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/libdns/libdns"
	"github.com/miekg/dns"
)

const hostname = "mx.example.org"

// tsig is the key that may change the zone.
const tsig = `key "onward" {
	algorithm hmac-sha256;
	secret "bm90IHZlcnkgc2VjcmV0LCBidXQgbG9uZyBlbm91Z2g=";
};
`

// A zone is the DNS that the authority and certmagic see: mx.example.org is
// this machine, and whoever has the key may change TXT records.
type zone struct {
	mu      sync.Mutex
	txt     map[string][]string
	changes int
	addr    string
}

func startZone(t *testing.T) *zone {
	t.Helper()
	z := &zone{txt: map[string][]string{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	packets, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	z.addr = l.Addr().String()
	secrets := map[string]string{"onward.": "bm90IHZlcnkgc2VjcmV0LCBidXQgbG9uZyBlbm91Z2g="}
	for _, s := range []*dns.Server{
		{Listener: l, Handler: z, TsigSecret: secrets, MsgAcceptFunc: acceptAll},
		{PacketConn: packets, Handler: z, TsigSecret: secrets, MsgAcceptFunc: acceptAll},
	} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return z
}

func acceptAll(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }

func (z *zone) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	m := new(dns.Msg).SetReply(r)
	m.Authoritative = true
	if r.Opcode == dns.OpcodeUpdate {
		z.update(w, r, m)
		w.WriteMsg(m)
		return
	}
	q := r.Question[0]
	hdr := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 1}
	name := strings.ToLower(q.Name)
	switch {
	case q.Qtype == dns.TypeA && name == hostname+".":
		m.Answer = append(m.Answer, &dns.A{Hdr: hdr, A: net.IPv4(127, 0, 0, 1)})
	case q.Qtype == dns.TypeSOA && name == "example.org.":
		m.Answer = append(m.Answer, &dns.SOA{Hdr: hdr, Ns: "ns.example.org.", Mbox: "x.example.org.", Serial: 1, Minttl: 1})
	case q.Qtype == dns.TypeTXT:
		for _, text := range z.txt[name] {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: hdr, Txt: []string{text}})
		}
	}
	w.WriteMsg(m)
}

func (z *zone) update(w dns.ResponseWriter, r, m *dns.Msg) {
	t := r.IsTsig()
	if t == nil || w.TsigStatus() != nil || r.Question[0].Name != "example.org." {
		m.Rcode = dns.RcodeNotAuth
		return
	}
	m.SetTsig(t.Hdr.Name, t.Algorithm, 300, time.Now().Unix())
	for _, rr := range r.Ns {
		txt, ok := rr.(*dns.TXT)
		if !ok || rr.Header().Name != "_acme-challenge."+hostname+"." {
			m.Rcode = dns.RcodeRefused
			return
		}
		name := strings.ToLower(txt.Hdr.Name)
		if txt.Hdr.Class == dns.ClassNONE {
			delete(z.txt, name)
		} else {
			z.txt[name] = append(z.txt[name], txt.Txt[0])
		}
		z.changes++
	}
}

// An authority is Pebble, the small server of Let's Encrypt, in this process.
type authority struct {
	*httptest.Server
	zone  *zone
	roots *x509.CertPool // of its web server
	log   *lockedBuffer
}

// startAuthority starts one that gives certificates for so many seconds, and
// checks names at the given ports.
func startAuthority(t *testing.T, seconds uint64, httpPort, tlsPort int) *authority {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_AUTHZREUSE", "0") // prove the name each time
	a := &authority{zone: startZone(t), log: &lockedBuffer{}}
	log := stdlog.New(a.log, "pebble ", 0)
	store := db.NewMemoryStore()
	signer := ca.New(log, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: seconds}})
	checker := va.New(log, httpPort, tlsPort, false, a.zone.addr, store)
	front := wfe.New(log, store, checker, signer, []string{"pebble"}, false, false, 1, 1)
	a.Server = httptest.NewTLSServer(front.Handler())
	a.Config.ErrorLog = log
	t.Cleanup(a.Close)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(a.log)
		}
	})
	a.roots = x509.NewCertPool()
	a.roots.AddCert(a.Certificate())
	return a
}

// acme is how to ask this authority. The port is where a challenge is answered.
func (a *authority) acme(t *testing.T, challenge string, port int) *ACME {
	return &ACME{
		Dir:       filepath.Join(t.TempDir(), "acme"),
		Email:     "postmaster@example.org",
		Directory: a.URL + "/dir",
		Challenge: challenge,
		Listen:    net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		Roots:     a.roots,
		resolvers: []string{a.zone.addr},
	}
}

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// open opens a Keeper for the test, with its log.
func open(t *testing.T, s Settings) (*Keeper, *lockedBuffer) {
	t.Helper()
	log := &lockedBuffer{}
	s.Log = slog.New(slog.NewTextHandler(log, nil))
	if s.Hostname == "" {
		s.Hostname = hostname
	}
	k, err := Open(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		k.Close()
		if t.Failed() {
			t.Log(log)
		}
	})
	return k, log
}

// shown connects as a sender that asks for a server name, and returns the leaf.
func shown(t testing.TB, k *Keeper, name string) *x509.Certificate {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		defer server.Close()
		tls.Server(server, k.TLS()).Handshake()
	}()
	c := tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if err := c.Handshake(); err != nil {
		t.Fatalf("handshake with server name %q: %v", name, err)
	}
	return c.ConnectionState().PeerCertificates[0]
}

// wait polls until done.
func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited for", what)
		}
	}
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestACME obtains a certificate by each challenge, shows it to everybody,
// renews it while running, and keeps it over a restart.
func TestACME(t *testing.T) {
	for _, challenge := range []string{HTTP01, TLSALPN01, DNS01} {
		t.Run(challenge, func(t *testing.T) {
			port := freePort(t)
			a := startAuthority(t, 20, port, port)
			settings := a.acme(t, challenge, port)
			if challenge == DNS01 {
				settings.DNSServer, settings.DNSKey = a.zone.addr, filepath.Join(t.TempDir(), "key")
				if err := os.WriteFile(settings.DNSKey, []byte(tsig), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var next *x509.Certificate
			t.Run("run", func(t *testing.T) {
				k, log := open(t, Settings{ACME: settings})
				if first := shown(t, k, hostname); first.Issuer.CommonName != hostname {
					t.Errorf("in the beginning it is not of our own making, but of %v", first.Issuer)
				}
				wait(t, "a certificate", func() bool { return !k.Status(time.Now()).SelfSigned })
				leaf := k.Status(time.Now()).Leaf
				for _, name := range []string{hostname, "", "other.example", "acme-tls.example"} {
					if got := shown(t, k, name); !got.Equal(leaf) || got.VerifyHostname(hostname) != nil || !strings.HasPrefix(got.Issuer.CommonName, "Pebble") {
						t.Errorf("server name %q: shown %v of %v", name, got.DNSNames, got.Issuer)
					}
				}
				wait(t, "another certificate", func() bool { return !shown(t, k, "").Equal(leaf) })
				next = shown(t, k, "")
				if s := k.Status(time.Now()); s.SelfSigned || s.Mismatch != nil || s.Trouble != nil || time.Now().After(s.Leaf.NotAfter) {
					t.Errorf("after renewal: %+v", s)
				}
				if strings.Contains(log.String(), "level=ERROR") || strings.Count(log.String(), "certificate obtained") < 2 {
					t.Errorf("log: %s", log)
				}
				if challenge == DNS01 {
					wait(t, "the zone to be tidy", func() bool {
						a.zone.mu.Lock()
						defer a.zone.mu.Unlock()
						return len(a.zone.txt) == 0 && a.zone.changes >= 4
					})
				}
			})
			private(t, settings.Dir)

			a.Close() // what is stored is enough
			again, _ := open(t, Settings{ACME: settings})
			var got *x509.Certificate
			wait(t, "the stored certificate", func() bool {
				s := again.Status(time.Now())
				got = s.Leaf
				return got != nil && !s.SelfSigned
			})
			if got.NotAfter.Before(next.NotAfter) {
				t.Errorf("after a restart it is an older one: %v, not %v", got.NotAfter, next.NotAfter)
			}
		})
	}
}

// private holds that nobody else reads what is stored.
func private(t *testing.T, dir string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 && filepath.Ext(path) != ".lock" { // which holds a time
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		files++
		return err
	})
	if err != nil || files < 5 {
		t.Errorf("%d files in %s, %v", files, dir, err)
	}
}

// TestACMEFails holds that an authority which says no, or nothing, leaves TLS
// working, and says why.
func TestACMEFails(t *testing.T) {
	port := freePort(t)
	a := startAuthority(t, 100, freePort(t), port) // it looks for us where nobody is
	k, log := open(t, Settings{ACME: a.acme(t, HTTP01, port)})
	wait(t, "the failure", func() bool { return k.Status(time.Now()).Trouble != nil })
	if got := shown(t, k, hostname); got.Issuer.CommonName != hostname || !k.Status(time.Now()).SelfSigned {
		t.Errorf("shown %v", got.Issuer)
	}
	if !strings.Contains(log.String(), "certificate not obtained") {
		t.Errorf("log: %s", log)
	}
}

// TestACMEPortTaken holds that a port which is not to be had is known at once.
func TestACMEPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, challenge := range []string{HTTP01, TLSALPN01} {
		_, err := Open(Settings{Hostname: hostname, Log: slog.New(slog.DiscardHandler), ACME: &ACME{Dir: t.TempDir(), Challenge: challenge, Listen: l.Addr().String()}})
		if err == nil || !strings.Contains(err.Error(), challenge) {
			t.Errorf("%s: %v", challenge, err)
		}
	}
}

// TestChallengePort holds what strangers find at the ports for challenges.
func TestChallengePort(t *testing.T) {
	a := startAuthority(t, 100, freePort(t), freePort(t)) // nothing will come of it
	at := map[string]string{}
	for _, challenge := range []string{HTTP01, TLSALPN01} {
		settings := a.acme(t, challenge, freePort(t))
		open(t, Settings{ACME: settings})
		at[challenge] = settings.Listen
	}
	for _, path := range []string{"/", "/.well-known/acme-challenge/x", "/.well-known/acme-challenge/../../key", "/" + strings.Repeat("x", 100_000)} {
		c, err := net.Dial("tcp", at[HTTP01])
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: ../../"+hostname+"\r\n\r\n")
		got, _ := io.ReadAll(c)
		if text := string(got); !strings.HasPrefix(text, "HTTP/1.1 4") {
			t.Errorf("%.50s: %q", path, text)
		}
		c.Close()
	}
	for _, protocols := range [][]string{nil, {alpn}, {"http/1.1"}} {
		c, err := tls.Dial("tcp", at[TLSALPN01], &tls.Config{ServerName: "x.example", NextProtos: protocols, InsecureSkipVerify: true})
		if err == nil {
			t.Errorf("%v: a stranger is shown %v", protocols, c.ConnectionState().PeerCertificates[0].Subject)
		}
	}
	for challenge, addr := range at { // silence ends
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		c.SetDeadline(began.Add(20 * time.Second))
		io.Copy(io.Discard, c)
		if took := time.Since(began); took > challengeTimeout+5*time.Second {
			t.Errorf("%s: silence is suffered for %v", challenge, took)
		}
	}
}

// TestUpdater holds what becomes of a name server's refusals, and that keys are
// read strictly.
func TestUpdater(t *testing.T) {
	z := startZone(t)
	dir := t.TempDir()
	write := func(text string, mode os.FileMode) string {
		path := filepath.Join(dir, "key")
		os.Remove(path)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	change := func(text, zoneName string) error {
		u, err := newUpdater(z.addr, write(text, 0o600))
		if err != nil {
			t.Fatal(err)
		}
		record := []libdns.Record{libdns.RR{Name: "_acme-challenge.mx", Type: "TXT", Data: "x"}}
		_, err = u.AppendRecords(t.Context(), zoneName, record)
		return err
	}
	if err := change(tsig, "example.org."); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"another zone": change(tsig, "example.com."),
		"another key":  change(strings.Replace(tsig, "onward", "other", 1), "example.org."),
		"wrong secret": change(strings.Replace(tsig, "bm90", "bm91", 1), "example.org."),
	} {
		if err == nil || strings.Contains(err.Error(), "bm9") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := z.changes; n != 1 {
		t.Errorf("%d changes", n)
	}
	for name, text := range map[string]string{
		"empty":         "",
		"no secret":     `key "x" { algorithm hmac-sha256; };`,
		"short secret":  `key "x" { algorithm hmac-sha256; secret "c2hvcnQ="; };`,
		"no base64":     `key "x" { algorithm hmac-sha256; secret "?"; };`,
		"old algorithm": strings.Replace(tsig, "hmac-sha256", "hmac-md5.sig-alg.reg.int", 1),
	} {
		if _, err := newUpdater(z.addr, write(text, 0o600)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for name, err := range map[string]error{
		"open to others": second(newUpdater(z.addr, write(tsig, 0o644))),
		"missing":        second(newUpdater(z.addr, filepath.Join(dir, "none"))),
		"no port":        second(newUpdater("127.0.0.1", write(tsig, 0o600))),
	} {
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func second(_ *updater, err error) error { return err }
