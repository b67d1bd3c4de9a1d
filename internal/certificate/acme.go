package certificate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"golang.org/x/net/netutil"

	"onward/internal/address"
	"onward/internal/reply"
)

// The ways to prove that a name is ours.
const (
	HTTP01    = "http-01"     // port 80 of the name leads here (RFC 8555 8.3)
	TLSALPN01 = "tls-alpn-01" // port 443 does (RFC 8737)
	DNS01     = "dns-01"      // we may change its zone (RFC 8555 8.4, by RFC 2136)
)

// ACME says whom to ask for certificates, and how to prove who we are. Setting
// it up means agreement to the terms of the authority.
type ACME struct {
	Dir       string // where account, keys and certificates are kept
	Email     string // where the authority writes to; may be empty
	Directory string // URL of the authority; empty: Let's Encrypt
	Challenge string // HTTP01, TLSALPN01 or DNS01
	Listen    string // for the first two; empty: ":80", ":443"
	DNSServer string // for DNS01: the primary name server of our zone, "host:port"
	DNSKey    string // for DNS01: file with the key that may change it, as tsig-keygen writes it

	Roots *x509.CertPool // whom to trust for Directory; nil: the system's

	resolvers []string // that see a change of our zone; nil: its name servers
}

// acme is a certificate that certmagic obtains and renews. A third of its life
// before the end, or when the authority says so (RFC 9773), there is another.
type acme struct {
	hostname string
	cache    *certmagic.Cache
	config   *certmagic.Config
	cancel   context.CancelFunc
	server   *http.Server // answers challenges; nil for DNS01
	wg       sync.WaitGroup
	log      *slog.Logger

	mu  sync.Mutex
	err error // of the last attempt
}

func openACME(s ACME, hostname address.Domain, log *slog.Logger) (_ *acme, err error) {
	a := &acme{hostname: hostname.String(), log: log}
	bridged := bridge(log)
	issuer := certmagic.ACMEIssuer{
		CA:                        s.Directory,
		Email:                     s.Email,
		Agreed:                    true,
		TrustedRoots:              s.Roots,
		DisableHTTPChallenge:      s.Challenge != HTTP01,
		DisableTLSALPNChallenge:   s.Challenge != TLSALPN01,
		DisableDistributedSolvers: true,
		Logger:                    bridged,
	}
	var listener net.Listener
	if s.Challenge == DNS01 {
		updates, err := newUpdater(s.DNSServer, s.DNSKey)
		if err != nil {
			return nil, err
		}
		issuer.DNS01Solver = &certmagic.DNS01Solver{DNSManager: certmagic.DNSManager{DNSProvider: updates, TTL: time.Minute, Resolvers: s.resolvers, Logger: bridged}}
	} else if listener, err = listen(&issuer, s); err != nil {
		return nil, err
	}
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return a.config, nil },
		Logger:           bridged,
	})
	a.config = certmagic.New(a.cache, certmagic.Config{
		Storage:        &certmagic.FileStorage{Path: s.Dir},
		OCSP:           certmagic.OCSPConfig{DisableStapling: true}, // senders do not ask for it
		OnEvent:        a.event,
		ShouldEmitFunc: func(name string) bool { return name == "cert_obtained" || name == "cert_failed" },
		Logger:         bridged,
	})
	a.config.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(a.config, issuer)}
	if listener != nil {
		a.serve(listener, s.Challenge)
	}
	var ctx context.Context
	ctx, a.cancel = context.WithCancel(context.Background())
	a.wg.Go(func() { a.renew(ctx) })
	return a, a.config.ManageAsync(ctx, []string{a.hostname})
}

// renew has certmagic look at what is to be renewed. Its own look every ten
// minutes is too late for certificates that live for minutes.
func (a *acme) renew(ctx context.Context) {
	for {
		wait := time.Second // until there is one
		if c := a.current(); c != nil {
			wait = min(time.Minute, c.Leaf.NotAfter.Sub(c.Leaf.NotBefore)/20)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if err := a.cache.RenewManagedCertificates(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("certificate not looked at", "name", a.hostname, "err", reply.Clean(err.Error()))
		}
	}
}

// listen opens the port that the authority will connect to, for as long as we
// run: whether that works is known at once, not in two months. certmagic would
// open it for the time of each challenge, without limits; where somebody listens
// already, it leaves the answer to them.
func listen(issuer *certmagic.ACMEIssuer, s ACME) (net.Listener, error) {
	addr := s.Listen
	if addr == "" {
		addr = map[string]string{HTTP01: ":80", TLSALPN01: ":443"}[s.Challenge]
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("tls.acme: %w; challenge %s needs this port (another server on it can pass requests on to tls.acme.listen), or use dns-01", err, s.Challenge)
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	if ip := at.Addr().Unmap(); ip != netip.IPv4Unspecified() && ip != netip.IPv6Unspecified() {
		issuer.ListenHost = ip.String()
	}
	issuer.AltHTTPPort, issuer.AltTLSALPNPort = int(at.Port()), int(at.Port())
	return l, nil
}

// Limits of those who connect to prove our name, or for any other reason.
const (
	challengeTimeout = 5 * time.Second
	challengeClients = 500
)

// serve answers challenges, and nothing else.
func (a *acme) serve(l net.Listener, challenge string) {
	l = netutil.LimitListener(l, challengeClients)
	if challenge == TLSALPN01 {
		l = tls.NewListener(l, &tls.Config{NextProtos: []string{alpn}, MinVersion: tls.VersionTLS12, GetCertificate: a.proof})
	}
	a.server = &http.Server{
		Handler:        http.HandlerFunc(a.answer),
		ReadTimeout:    challengeTimeout,
		WriteTimeout:   challengeTimeout,
		MaxHeaderBytes: 8 << 10,
		ErrorLog:       slog.NewLogLogger(a.log.Handler(), slog.LevelDebug), // everybody knocks at these ports
	}
	a.server.SetKeepAlivesEnabled(false)
	a.wg.Go(func() { a.server.Serve(l) })
}

// answer is HTTP01.
func (a *acme) answer(w http.ResponseWriter, r *http.Request) {
	c, ok := certmagic.GetACMEChallenge(a.hostname)
	if !ok || !certmagic.SolveHTTPChallenge(a.config.Logger, w, r, c.Challenge) {
		http.NotFound(w, r)
	}
}

// alpn is the protocol of TLSALPN01, which is over when the handshake is.
const alpn = "acme-tls/1"

// proof is TLSALPN01.
func (a *acme) proof(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if _, ok := certmagic.GetACMEChallenge(a.hostname); !ok || hello.ServerName != a.hostname || len(hello.SupportedProtos) != 1 || hello.SupportedProtos[0] != alpn {
		return nil, errors.New("no challenge is under way")
	}
	return a.config.GetCertificate(hello)
}

// current returns the certificate that is valid longest.
func (a *acme) current() *tls.Certificate {
	var best *tls.Certificate
	for _, c := range a.cache.AllMatchingCertificates(a.hostname) {
		if best == nil || c.Leaf.NotAfter.After(best.Leaf.NotAfter) {
			best = &c.Certificate
		}
	}
	return best
}

func (a *acme) trouble() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// event notes how an attempt ended. certmagic tries again on its own, slower
// and slower, for a month, and after that when it is started again.
func (a *acme) event(_ context.Context, name string, data map[string]any) error {
	err, _ := data["error"].(error)
	if errors.Is(err, context.Canceled) {
		return nil // we are stopping
	}
	a.mu.Lock()
	a.err = err
	a.mu.Unlock()
	if name == "cert_obtained" {
		a.log.Info("certificate obtained", "name", a.hostname, "from", data["issuer"])
	} else if err != nil {
		a.log.Error("certificate not obtained; it will be tried again", "name", a.hostname, "err", reply.Clean(err.Error()))
	}
	return nil
}

func (a *acme) close() {
	a.cancel()
	a.cache.Stop()
	if a.server != nil {
		a.server.Close()
	}
	a.wg.Wait()
}
