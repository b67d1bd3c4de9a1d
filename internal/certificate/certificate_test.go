package certificate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// issue makes a certificate for a name, and its key, as PEM.
func issue(t testing.TB, name string, age, left time.Duration) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<60))
	template := &x509.Certificate{SerialNumber: serial, DNSNames: []string{name}, NotBefore: time.Now().Add(-age), NotAfter: time.Now().Add(left)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func put(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// pair writes a certificate into a directory and returns the paths.
func pair(t testing.TB, dir, name string, age, left time.Duration) (cert, key string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c, k := issue(t, name, age, left)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	put(t, cert, c)
	put(t, key, k)
	return cert, key
}

const (
	day  = 24 * time.Hour
	long = 90 * day
)

// TestFiles changes files while the certificate is in use (RELIABILITY 83).
func TestFiles(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(t *testing.T, dir, cert, key string)
		taken   bool
		trouble string
	}{
		{"nothing", func(*testing.T, string, string, string) {}, false, ""},
		{"written over", func(t *testing.T, dir, cert, key string) { pair(t, filepath.Dir(cert), hostname, day, long) }, true, ""},
		{"renamed over", func(t *testing.T, dir, cert, key string) {
			c, k := pair(t, dir+"/new", hostname, day, long)
			for from, to := range map[string]string{c: cert, k: key} {
				if err := os.Rename(from, to); err != nil {
					t.Fatal(err)
				}
			}
		}, true, ""},
		{"a swapped symlink", func(t *testing.T, dir, cert, key string) {
			pair(t, dir+"/v2", hostname, day, long)
			if err := os.Symlink("v2", dir+"/next"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(dir+"/next", dir+"/live"); err != nil {
				t.Fatal(err)
			}
		}, true, ""},
		{"one after the other", func(t *testing.T, dir, cert, key string) {
			c, k := issue(t, hostname, day, long)
			put(t, cert, c)
			time.Sleep(10 * time.Second)
			put(t, key, k)
		}, true, ""},
		{"half of it", func(t *testing.T, dir, cert, key string) {
			c, _ := issue(t, hostname, day, long)
			put(t, cert, c)
		}, false, "does not match"},
		{"rubbish", func(t *testing.T, dir, cert, key string) { put(t, cert, []byte("\x00\x1b[1m")) }, false, "both must be PEM"},
		{"gone", func(t *testing.T, dir, cert, key string) { os.Remove(key) }, false, "no such file"},
		{"gone and back", func(t *testing.T, dir, cert, key string) {
			os.Remove(key)
			os.Remove(cert)
			time.Sleep(time.Minute)
			pair(t, filepath.Dir(cert), hostname, day, long)
		}, true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				pair(t, dir+"/v1", hostname, day, long)
				if err := os.Symlink("v1", dir+"/live"); err != nil {
					t.Fatal(err)
				}
				cert, key := dir+"/live/cert.pem", dir+"/live/key.pem"
				k, log := open(t, Settings{Cert: cert, Key: key})
				first := k.Status(time.Now())
				if first.SelfSigned || first.Expiring || first.Mismatch != nil || first.Trouble != nil {
					t.Fatalf("%+v", first)
				}
				tt.change(t, dir, cert, key)
				time.Sleep(3 * time.Second)
				s := k.Status(time.Now())
				if got := shown(t, k, "other.example"); !got.Equal(s.Leaf) || got.Equal(first.Leaf) == tt.taken {
					t.Errorf("the new one is shown: %v, want %v", !got.Equal(first.Leaf), tt.taken)
				}
				if (s.Trouble != nil) != (tt.trouble != "") || s.Trouble != nil && !strings.Contains(s.Trouble.Error(), tt.trouble) {
					t.Errorf("trouble %v, want %q", s.Trouble, tt.trouble)
				}
				said := strings.Count(log.String(), "not reloaded")
				time.Sleep(time.Hour)
				if again := strings.Count(log.String(), "not reloaded"); again != said || again > 1 || tt.trouble != "" && again == 0 {
					t.Errorf("told %d times, then %d: %s", said, again, log)
				}
				if strings.Contains(log.String(), "PRIVATE") || strings.ContainsRune(log.String(), 0x1b) {
					t.Errorf("log %q", log)
				}
			})
		})
	}
}

func TestFilesMissing(t *testing.T) {
	dir := t.TempDir()
	cert, key := pair(t, dir, hostname, day, long)
	for _, paths := range [][2]string{{cert, dir + "/none"}, {dir + "/none", key}, {key, cert}, {cert, dir}} {
		s := Settings{Hostname: hostname, Cert: paths[0], Key: paths[1], Log: slog.New(slog.DiscardHandler)}
		_, err := Open(s)
		for _, err := range []error{err, s.Check()} {
			if err == nil || !strings.Contains(err.Error(), paths[1]) {
				t.Errorf("%v: %v", paths, err)
			}
		}
	}
	for _, s := range []Settings{{Cert: cert, Key: key}, {}, {ACME: &ACME{Challenge: HTTP01}}} {
		if err := s.Check(); err != nil {
			t.Error(err)
		}
	}
	if err := (Settings{ACME: &ACME{Challenge: DNS01, DNSServer: "127.0.0.1:53", DNSKey: dir + "/none"}}).Check(); err == nil {
		t.Error("a missing key file is taken")
	}
}

// TestAlarm holds when and how often an old certificate is told.
func TestAlarm(t *testing.T) {
	for _, tt := range []struct {
		name      string
		age, left time.Duration
		silent    time.Duration // no alarm until here
		days      int           // then so many days of alarm
	}{
		{"of 90 days", 75 * day, 15 * day, day - time.Minute, 2},
		{"of 6 days", 4 * day, 2 * day, 12*time.Hour - time.Minute, 1},
		{"expired at the start", 90 * day, -time.Second, 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cert, key := pair(t, t.TempDir(), hostname, tt.age, tt.left)
				k, log := open(t, Settings{Cert: cert, Key: key})
				time.Sleep(tt.silent)
				if tt.silent > 0 && (log.String() != "" || k.Status(time.Now()).Expiring) {
					t.Errorf("too early: %s", log)
				}
				time.Sleep(time.Duration(tt.days)*day - time.Hour)
				if n := strings.Count(log.String(), "expires soon"); n != tt.days || !k.Status(time.Now()).Expiring {
					t.Errorf("%d alarms in %d days: %s", n, tt.days, log)
				}
				pair(t, filepath.Dir(cert), hostname, day, long)
				time.Sleep(25 * time.Hour)
				if n := strings.Count(log.String(), "expires soon"); n != tt.days || k.Status(time.Now()).Expiring {
					t.Errorf("alarm goes on after renewal: %s", log)
				}
			})
		})
	}
}

// TestMismatch holds that a certificate for another name is used, and told.
func TestMismatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cert, key := pair(t, t.TempDir(), "old.example.org", day, long)
		k, log := open(t, Settings{Cert: cert, Key: key})
		time.Sleep(time.Hour)
		if s := k.Status(time.Now()); s.Mismatch == nil || shown(t, k, hostname).DNSNames[0] != "old.example.org" || strings.Count(log.String(), "another name") != 1 {
			t.Errorf("%+v, log %s", s, log)
		}
		pair(t, filepath.Dir(cert), hostname, day, long)
		time.Sleep(3 * time.Second)
		if s := k.Status(time.Now()); s.Mismatch != nil {
			t.Error(s.Mismatch)
		}
	})
}

// TestSelfSigned holds what is shown without any setting, and that nobody is
// alarmed about it later.
func TestSelfSigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, log := open(t, Settings{})
		got := shown(t, k, "")
		if s := k.Status(time.Now()); !s.SelfSigned || !got.Equal(s.Leaf) || got.VerifyHostname(hostname) != nil {
			t.Errorf("%+v", s)
		}
		time.Sleep(60 * day)
		if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "self-signed") {
			t.Errorf("log: %s", log)
		}
	})
}

// TestTLS holds the versions of TLS, and that nobody gets a session ticket
// (RELIABILITY 16).
func TestTLS(t *testing.T) {
	k, _ := open(t, Settings{})
	for version, good := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			c := tls.Server(server, k.TLS())
			if c.Handshake() == nil {
				c.Write([]byte("220"))
			}
		}()
		tickets := &cache{}
		c := tls.Client(client, &tls.Config{ServerName: hostname, InsecureSkipVerify: true, MinVersion: version, MaxVersion: version, ClientSessionCache: tickets})
		c.SetDeadline(time.Now().Add(10 * time.Second))
		_, err := c.Read(make([]byte, 3)) // after which a ticket would be here
		if (err == nil) != good || tickets.puts > 0 {
			t.Errorf("%s: %v, %d tickets", tls.VersionName(version), err, tickets.puts)
		}
		client.Close()
	}
}

type cache struct{ puts int }

func (c *cache) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (c *cache) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		c.puts++
	}
}

// TestBridge holds what reaches our log of certmagic's.
func TestBridge(t *testing.T) {
	var b bytes.Buffer
	log := bridge(slog.New(slog.NewTextHandler(&b, nil))).Named("x").With(zap.String("name", "n\n\x1b[1m"))
	log.Debug("debugging")
	log.Info("information")
	log.Error("went\nwrong", zap.Error(os.ErrClosed), zap.Int("a", 1))
	if got := b.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `level=ERROR msg="certificate: went wrong" name="n ?[1m" a=1 err="file already closed"`) {
		t.Errorf("log: %s", got)
	}
	b.Reset()
	bridge(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))).Info("information")
	if !strings.Contains(b.String(), "level=DEBUG") {
		t.Errorf("log: %s", b.String())
	}
}
