package main_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	stdlog "log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"

	"onward/internal/resolver"
	"onward/internal/testmail"
	"onward/internal/testpeer"
)

// startPebble starts the small server of Let's Encrypt, which gives certificates
// for so many seconds and looks for mx.onward.example at a port of 127.0.0.1. It
// returns its directory, a file with the certificate of its web server, and who
// vouches for the certificates that it gives.
func startPebble(t *testing.T, seconds uint64, port int) (directory, roots string, issuer *x509.CertPool) {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_AUTHZREUSE", "0")
	zone, err := resolver.ParseZone("pebble", strings.NewReader("mx.onward.example. 1 IN A 127.0.0.1\n"))
	if err != nil {
		t.Fatal(err)
	}
	dns, err := testmail.StartDNS(zone, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dns.Close)
	log := stdlog.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	authority := ca.New(log, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: seconds}})
	checker := va.New(log, port, port, false, dns.Addr().String(), store)
	front := wfe.New(log, store, checker, authority, []string{"pebble"}, false, false, 1, 1)
	web := httptest.NewTLSServer(front.Handler())
	web.Config.ErrorLog = log
	t.Cleanup(web.Close)
	roots = filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	issuer = x509.NewCertPool()
	issuer.AppendCertsFromPEM(authority.GetRootCert(0).PEM())
	return web.URL + "/dir", roots, issuer
}

// TestACME obtains a certificate from Pebble while mail comes in, and renews it
// without a restart. Senders that check it are content all the time after.
func TestACME(t *testing.T) {
	port := testpeer.FreePort(t, "127.0.0.1")
	directory, roots, issuer := startPebble(t, 20, port)
	s := newStandOf(t, &daemon{}, fmt.Sprintf("tls: {acme: {email: owner@dest.example, directory: %q, roots: %q, listen: \"127.0.0.1:%d\"}}\n", directory, roots, port), "me: ann@dest.example")
	open := s.dial(t) // through all that follows
	shown := func() (*x509.Certificate, error) {
		talk := s.dial(t)
		defer talk.Close()
		talk.Say("STARTTLS", "220 ")
		conn := tls.Client(talk.Conn(), &tls.Config{RootCAs: issuer, ServerName: "mx.onward.example"})
		if err := conn.Handshake(); err != nil {
			return nil, err
		}
		return conn.ConnectionState().PeerCertificates[0], nil
	}
	send(open, "ada@sender.example", "me@alias.example", "250 2.0.0 ")

	var first *x509.Certificate
	testpeer.Wait(t, "a certificate", func() bool { first, _ = shown(); return first != nil })
	began := time.Now()
	testpeer.Wait(t, "another certificate", func() bool {
		time.Sleep(100 * time.Millisecond)
		next, err := shown()
		if err != nil {
			t.Fatal(err)
		}
		return !next.Equal(first)
	})
	t.Logf("renewed after %v of %v", time.Since(began).Round(time.Second), first.NotAfter.Sub(first.NotBefore))
	send(open, "bob@sender.example", "me@alias.example", "250 2.0.0 ")
	s.arrived(t, 2)
	if text := s.log.String(); strings.Count(text, "certificate obtained") < 2 || strings.Contains(text, "level=ERROR") || strings.Contains(text, "self-signed") {
		t.Error("the log tells another story")
	}
}
