// Package certificate keeps the certificate that is shown to senders: read from
// files and read again when they change, obtained and renewed by ACME, or of our
// own making.
//
// Open returns a Keeper, and TLS what the listener needs of it: whatever
// certificate is in force at that moment, so that nothing restarts when there is
// a new one. Rules:
//   - There is always one to show. A file that cannot be read, or an authority
//     that does not answer, leaves the last good one in use, and in the
//     beginning one of our own making, with which senders encrypt but cannot tell
//     who we are.
//   - It is shown to everybody, whatever server name the sender asks for, and to
//     those that ask for none: many senders do not (RFC 7672 8.1).
//   - What is about to expire is told once a day, from 14 days before (RELIABILITY
//     83), and so is a certificate for another name.
package certificate

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"sync"
	"time"

	"onward/internal/address"
	"onward/internal/reply"
)

// Settings say where the certificate comes from.
type Settings struct {
	Hostname address.Domain
	Cert     string // file of the chain, PEM
	Key      string // file of its key, PEM
	ACME     *ACME  // in place of files; with neither it is self-signed
	Log      *slog.Logger
}

// Check says what is wrong with the files that the settings name. It opens no
// port and asks nobody.
func (s Settings) Check() error {
	var err error
	switch {
	case s.ACME != nil && s.ACME.Challenge == DNS01:
		_, err = newUpdater(s.ACME.DNSServer, s.ACME.DNSKey)
	case s.ACME == nil && s.Cert != "":
		_, err = load(s.Cert, s.Key)
	}
	return err
}

// A source is where certificates come from.
type source interface {
	current() *tls.Certificate // the newest good one, its Leaf filled in; nil while there is none
	trouble() error            // why there is no newer one; nil when all is well
	close()
}

// A Keeper keeps one certificate. It is safe for concurrent use.
type Keeper struct {
	hostname address.Domain
	own      *tls.Certificate // self-signed
	source   source           // nil: own is all there is
	log      *slog.Logger
	stop     context.CancelFunc
	wg       sync.WaitGroup
}

// Open begins to keep a certificate. Files must be good in the beginning; the
// certificate of an authority may come later.
func Open(s Settings) (*Keeper, error) {
	own, err := selfSigned(s.Hostname)
	if err != nil {
		return nil, err
	}
	k := &Keeper{hostname: s.Hostname, own: own, log: s.Log}
	switch {
	case s.ACME != nil:
		k.source, err = openACME(*s.ACME, s.Hostname, s.Log)
	case s.Cert != "":
		k.source, err = openFiles(s.Cert, s.Key, s.Log)
	default:
		s.Log.Warn("no certificate in the configuration: using a self-signed one; set tls.cert and tls.key, or tls.acme")
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	k.stop = cancel
	k.wg.Go(func() { k.watch(ctx) })
	return k, nil
}

// Close ends the watching and renewing. The certificate stays in use.
func (k *Keeper) Close() {
	k.stop()
	if k.source != nil {
		k.source.close()
	}
	k.wg.Wait()
}

// TLS is the TLS side of the listener. Session tickets are off: with Go's,
// Microsoft's servers drop the connection (RELIABILITY 16).
func (k *Keeper) TLS() *tls.Config {
	return &tls.Config{
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return k.inForce(), nil },
		MinVersion:             tls.VersionTLS12,
		SessionTicketsDisabled: true,
	}
}

func (k *Keeper) inForce() *tls.Certificate {
	if k.source != nil {
		if c := k.source.current(); c != nil {
			return c
		}
	}
	return k.own
}

// A Status is what there is to know about the certificate.
type Status struct {
	Leaf       *x509.Certificate // the one in force; see its NotAfter
	SelfSigned bool              // of our own making
	Expiring   bool              // it should have been renewed by now
	Mismatch   error             // it is for another name
	Trouble    error             // why there is no newer one, when that is so
}

// alarm is when a certificate is too old: authorities and their clients renew
// long before, so by then something is broken.
const alarm = 14 * 24 * time.Hour

// Status says how things are. A certificate is expiring when 14 days are left,
// or a quarter of its life where that is less.
func (k *Keeper) Status(now time.Time) Status {
	c := k.inForce()
	s := Status{Leaf: c.Leaf, SelfSigned: c == k.own}
	if k.source != nil {
		s.Trouble = k.source.trouble()
	}
	if !s.SelfSigned {
		life := c.Leaf.NotAfter.Sub(c.Leaf.NotBefore)
		s.Expiring = c.Leaf.NotAfter.Sub(now) < min(alarm, life/4)
		s.Mismatch = c.Leaf.VerifyHostname(k.hostname.String())
	}
	return s
}

// watch tells what is wrong: at once, and then once a day as long as it is.
func (k *Keeper) watch(ctx context.Context) {
	ticker := time.NewTicker(time.Minute)
	defer ticker.Stop()
	var told time.Time
	var about *x509.Certificate
	for {
		now := time.Now()
		s := k.Status(now)
		if wrong := s.Expiring || s.Mismatch != nil; wrong && (s.Leaf != about || now.Sub(told) >= 24*time.Hour) {
			k.tell(s)
			told, about = now, s.Leaf
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (k *Keeper) tell(s Status) {
	if s.Expiring {
		attrs := []any{"expires", s.Leaf.NotAfter, "left", time.Until(s.Leaf.NotAfter).Round(time.Minute)}
		if s.Trouble != nil {
			attrs = append(attrs, "err", reply.Clean(s.Trouble.Error()))
		}
		k.log.Error("the certificate expires soon; renew it, or find out why it was not", attrs...)
	}
	if s.Mismatch != nil {
		k.log.Error("the certificate is for another name; senders that check it will not write to us", "hostname", k.hostname, "err", s.Mismatch)
	}
}

// selfSigned makes a certificate for this run of the daemon.
func selfSigned(hostname address.Domain) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: hostname.String()},
		DNSNames:     []string{hostname.String()},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(10, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}
