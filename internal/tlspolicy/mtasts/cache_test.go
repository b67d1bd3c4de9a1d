package mtasts_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"onward/internal/dialguard"
	"onward/internal/resolver"
	"onward/internal/tlspolicy/mtasts"
	"onward/internal/webclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A world is the domain example.org with its DNS and its policy host, and a
// cache that looks at them. Time stands still until it is moved.
type world struct {
	*mtasts.Cache
	dir  string
	zone *resolver.Zone
	web  *webclient.Client

	mu      sync.Mutex
	answer  http.HandlerFunc
	fetches atomic.Int32
	offset  atomic.Int64
}

func newWorld(t *testing.T, names ...string) *world {
	t.Helper()
	w := &world{dir: filepath.Join(t.TempDir(), "mta-sts"), zone: resolver.NewZone()}
	server := httptest.NewUnstartedServer(http.HandlerFunc(w.serve))
	cert, roots := certify(t, append(names, "mta-sts.example.org")...)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	w.web = &webclient.Client{
		Resolver: w.zone, Guard: dialguard.Guard{AllowPrivate: true}, Roots: roots,
		Port: uint16(server.Listener.Addr().(*net.TCPAddr).Port), Timeout: 5 * time.Second,
	}
	w.set(t, "mta-sts.example.org", resolver.TypeA, "127.0.0.1")
	w.policy("enforce", "mx.example.org", 604800)
	w.open(t)
	return w
}

// open starts over with what is on disk.
func (w *world) open(t *testing.T) {
	t.Helper()
	cache, err := mtasts.Open(w.dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	cache.SetClock(w.now)
	t.Cleanup(cache.Close)
	w.Cache = cache
}

func (w *world) now() time.Time          { return time.Now().Add(time.Duration(w.offset.Load())) }
func (w *world) advance(d time.Duration) { w.offset.Add(int64(d)) }
func (w *world) announce(t *testing.T, id string) {
	t.Helper()
	w.set(t, "_mta-sts.example.org", resolver.TypeTXT, "v=STSv1; id="+id+";")
}

func (w *world) set(t *testing.T, name string, kind resolver.Type, data ...string) {
	t.Helper()
	if err := w.zone.Set(name, kind, data...); err != nil {
		t.Fatal(err)
	}
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	w.fetches.Add(1)
	w.mu.Lock()
	answer := w.answer
	w.mu.Unlock()
	answer(rw, r)
}

func (w *world) does(answer http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = answer
}

func (w *world) says(contentType, text string) {
	w.does(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/.well-known/mta-sts.txt" {
			http.NotFound(rw, r)
			return
		}
		rw.Header().Set("Content-Type", contentType)
		io.WriteString(rw, text)
	})
}

func (w *world) policy(mode, mx string, maxAge int) {
	w.says("text/plain", fmt.Sprintf("version: STSv1\nmode: %s\nmx: %s\nmax_age: %d\n", mode, mx, maxAge))
}

// expect looks the policy up: its first MX, or "" for none, and the error.
func (w *world) expect(t *testing.T, mx string, kind error) {
	t.Helper()
	found := w.Lookup(t.Context(), w.web, "example.org")
	got := ""
	if found.Policy != nil {
		got = found.Policy.MX[0]
	}
	if got != mx || !errors.Is(found.Err, kind) {
		t.Errorf("got %q, %v; want %q, %v", got, found.Err, mx, kind)
	}
}

func (w *world) fetched(t *testing.T, want int32) {
	t.Helper()
	if got := w.fetches.Load(); got != want {
		t.Errorf("fetched %d times, want %d", got, want)
	}
}

// certify makes a certificate for names, and the pool that trusts it.
func certify(t *testing.T, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
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
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// A policy is fetched once, kept over a restart, and fetched again when its id
// changes.
func TestLifetime(t *testing.T) {
	w := newWorld(t)
	w.expect(t, "", nil) // nothing announced
	w.fetched(t, 0)
	w.announce(t, "1")
	w.expect(t, "mx.example.org", nil)
	w.expect(t, "mx.example.org", nil)
	w.fetched(t, 1)

	w.Close()
	w.open(t)
	w.expect(t, "mx.example.org", nil)
	w.fetched(t, 1)

	w.policy("testing", "new.example.org", 3600)
	w.expect(t, "mx.example.org", nil) // nobody told us
	w.announce(t, "2")
	w.expect(t, "new.example.org", nil)
	w.fetched(t, 2)

	w.advance(2 * time.Hour) // it is over
	w.policy("enforce", "third.example.org", 3600)
	w.expect(t, "third.example.org", nil)
	w.fetched(t, 3)

	w.policy("none", "x", 3600)
	w.announce(t, "4")
	if found := w.Lookup(t.Context(), w.web, "example.org"); found.Policy.Mode != mtasts.None {
		t.Errorf("got %v", found.Policy)
	}
}

// RELIABILITY 60: whoever cuts us off, from the DNS or the policy host, gains
// nothing before max_age is over.
func TestDowngrade(t *testing.T) {
	for name, attack := range map[string]func(*testing.T, *world){
		"record taken away": func(t *testing.T, w *world) { w.zone.Remove("_mta-sts.example.org", resolver.TypeTXT) },
		"DNS in trouble":    func(t *testing.T, w *world) { w.zone.Fail("_mta-sts.example.org", resolver.TypeTXT, "SERVFAIL") },
		"two records": func(t *testing.T, w *world) {
			w.set(t, "_mta-sts.example.org", resolver.TypeTXT, "v=STSv1; id=1", "v=STSv1; id=2")
		},
		"new id, not found": func(t *testing.T, w *world) { w.announce(t, "2"); w.does(http.NotFound) },
		"new id, no host":   func(t *testing.T, w *world) { w.announce(t, "2"); w.zone.Remove("mta-sts.example.org", resolver.TypeA) },
		"new id, broken":    func(t *testing.T, w *world) { w.announce(t, "2"); w.says("text/plain", "sorry") },
		"new id, web page": func(t *testing.T, w *world) {
			w.announce(t, "2")
			w.says("text/html", "version: STSv1\nmode: none\nmax_age: 1\n")
		},
		"new id, no trust":   func(t *testing.T, w *world) { w.announce(t, "2"); w.web.Roots = x509.NewCertPool() },
		"only the host away": func(t *testing.T, w *world) { w.does(http.NotFound) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.announce(t, "1")
			w.expect(t, "mx.example.org", nil)
			attack(t, w)
			for range 7 {
				w.advance(24*time.Hour - time.Second)
				if found := w.Lookup(t.Context(), w.web, "example.org"); found.Policy == nil || found.Policy.Mode != mtasts.Enforce {
					t.Fatalf("got %+v", found)
				}
				w.Close() // also waits for what was fetched on the side
				w.open(t)
			}
			w.advance(time.Minute)
			if found := w.Lookup(t.Context(), w.web, "example.org"); found.Policy != nil {
				t.Errorf("after max_age: got %+v", found.Policy)
			}
		})
	}
}

// A policy in force is fetched again once a day, so that max_age counts from the
// last time that all was well; nobody waits for it.
func TestRefresh(t *testing.T) {
	w := newWorld(t)
	w.announce(t, "1")
	w.expect(t, "mx.example.org", nil)
	for day := range int32(10) {
		w.advance(25 * time.Hour)
		w.expect(t, "mx.example.org", nil)
		w.Settle()
		w.fetched(t, 2+day)
	}
	w.does(func(rw http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	w.advance(25 * time.Hour)
	began := time.Now()
	w.expect(t, "mx.example.org", nil)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("waited %v", took)
	}
}

// What a policy host may do instead of its duty, and what is made of it.
func TestTrouble(t *testing.T) {
	good := "version: STSv1\nmode: enforce\nmx: mx.example.org\nmax_age: 604800\n"
	for _, tt := range []struct {
		name string
		do   func(*testing.T, *world)
		want error
	}{
		{"redirect", func(t *testing.T, w *world) {
			w.does(func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/good" {
					rw.Header().Set("Content-Type", "text/plain")
					io.WriteString(rw, good)
					return
				}
				http.Redirect(rw, r, "/good", http.StatusMovedPermanently)
			})
		}, mtasts.ErrFetch},
		{"status", func(t *testing.T, w *world) {
			w.does(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Type", "text/plain")
				rw.WriteHeader(203)
				io.WriteString(rw, good)
			})
		}, mtasts.ErrFetch},
		{"64 KiB and one", func(t *testing.T, w *world) {
			w.says("text/plain", good+strings.Repeat("x: y\n", (64<<10-len(good))/5)+"\n\n\n\n\n")
		}, mtasts.ErrInvalid},
		{"a gigabyte", func(t *testing.T, w *world) {
			w.does(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Type", "text/plain")
				io.WriteString(rw, good)
				block := []byte(strings.Repeat("mx: mx.example.org\n", 50_000))
				for range 1 << 30 / len(block) {
					if _, err := rw.Write(block); err != nil {
						return
					}
				}
				t.Error("all of it was read")
			})
		}, mtasts.ErrInvalid},
		{"slow drip", func(t *testing.T, w *world) {
			w.web.Timeout = 300 * time.Millisecond
			w.does(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Type", "text/plain")
				for _, c := range good {
					fmt.Fprintf(rw, "%c", c)
					rw.(http.Flusher).Flush()
					time.Sleep(20 * time.Millisecond)
				}
			})
		}, mtasts.ErrFetch},
		{"another's certificate", func(t *testing.T, w *world) {
			w.web.Roots = x509.NewCertPool()
		}, mtasts.ErrWebPKI},
		{"private address", func(t *testing.T, w *world) {
			w.web.Guard.AllowPrivate = false
		}, mtasts.ErrFetch},
		{"no address", func(t *testing.T, w *world) {
			w.zone.Remove("mta-sts.example.org", resolver.TypeA)
		}, mtasts.ErrFetch},
		{"nobody there", func(t *testing.T, w *world) {
			w.set(t, "mta-sts.example.org", resolver.TypeA, "127.0.0.9")
		}, mtasts.ErrFetch},
		{"no media type", func(t *testing.T, w *world) { w.says("", good) }, mtasts.ErrInvalid},
		{"a parameter", func(t *testing.T, w *world) { w.says("Text/Plain; charset=utf-8", good) }, nil},
		{"a web page", func(t *testing.T, w *world) { w.says("text/html", good) }, mtasts.ErrInvalid},
		{"JSON", func(t *testing.T, w *world) { w.says("application/json", "{}") }, mtasts.ErrInvalid},
		{"broken", func(t *testing.T, w *world) { w.says("text/plain", "version: STSv1\n") }, mtasts.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.announce(t, "1")
			tt.do(t, w)
			if tt.want == nil {
				w.expect(t, "mx.example.org", nil)
				return
			}
			w.expect(t, "", tt.want)
			if files, err := os.ReadDir(w.dir); err != nil || len(files) > 0 {
				t.Errorf("on disk: %v, %v", files, err)
			}
		})
	}
}

// The certificate must be for the policy host, not only for the domain.
func TestWrongName(t *testing.T) {
	w := newWorld(t)
	cert, roots := certify(t, "example.org", "www.example.org")
	server := httptest.NewUnstartedServer(http.HandlerFunc(w.serve))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	w.web.Roots, w.web.Port = roots, uint16(server.Listener.Addr().(*net.TCPAddr).Port)
	w.announce(t, "1")
	w.expect(t, "", mtasts.ErrWebPKI)
	w.fetched(t, 0)
}

// After a failure the host is left alone for a while, unless there is news.
func TestRetry(t *testing.T) {
	w := newWorld(t)
	w.does(http.NotFound)
	w.announce(t, "1")
	w.expect(t, "", mtasts.ErrFetch)
	w.advance(4 * time.Minute)
	w.expect(t, "", mtasts.ErrFetch)
	w.fetched(t, 1)
	w.announce(t, "2")
	w.expect(t, "", mtasts.ErrFetch)
	w.fetched(t, 2)
	w.policy("enforce", "mx.example.org", 3600)
	w.advance(5 * time.Minute)
	w.expect(t, "mx.example.org", nil)
	w.fetched(t, 3)

	w.does(http.NotFound) // and with a policy in force
	w.announce(t, "3")
	w.expect(t, "mx.example.org", mtasts.ErrFetch)
	w.expect(t, "mx.example.org", mtasts.ErrFetch)
	w.fetched(t, 4)
}

// A panic in a fetch is a failed fetch (RELIABILITY 89): the clock is read when
// somebody asks, and when the policy is there.
func TestPanic(t *testing.T) {
	w := newWorld(t)
	w.announce(t, "1")
	var readings atomic.Int32
	w.SetClock(func() time.Time {
		if readings.Add(1) == 2 {
			panic("a bug of ours")
		}
		return w.now()
	})
	w.expect(t, "", mtasts.ErrFetch)
	w.expect(t, "", mtasts.ErrFetch)
	w.fetched(t, 1) // left alone for a while
	w.advance(5 * time.Minute)
	w.expect(t, "mx.example.org", nil)
}

// A hundred messages at once, one fetch; who gives up does so alone.
func TestSharing(t *testing.T) {
	w := newWorld(t)
	w.announce(t, "1")
	w.does(func(rw http.ResponseWriter, r *http.Request) {
		time.Sleep(300 * time.Millisecond)
		rw.Header().Set("Content-Type", "text/plain")
		io.WriteString(rw, "version: STSv1\nmode: enforce\nmx: mx.example.org\nmax_age: 604800\n")
	})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { w.expect(t, "mx.example.org", nil) })
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if found := w.Lookup(ctx, w.web, "example.org"); found.Policy != nil {
		t.Errorf("who has gone got %+v", found)
	}
	wg.Wait()
	w.fetched(t, 1)
}

// Close does not wait for a host that does not answer.
func TestClose(t *testing.T) {
	w := newWorld(t)
	w.announce(t, "1")
	asked := make(chan struct{})
	w.does(func(rw http.ResponseWriter, r *http.Request) { close(asked); <-r.Context().Done() })
	w.web.Timeout = time.Hour
	done := make(chan struct{})
	go func() { defer close(done); w.expect(t, "", mtasts.ErrFetch) }()
	<-asked
	w.Close()
	<-done
	w.expect(t, "", mtasts.ErrFetch) // and again, at once
}

// max_age zero: good for this message, and not kept.
func TestNoMaxAge(t *testing.T) {
	w := newWorld(t)
	w.announce(t, "1")
	w.policy("enforce", "mx.example.org", 0)
	w.expect(t, "mx.example.org", nil)
	w.expect(t, "mx.example.org", nil)
	w.fetched(t, 2)
}

// What is on disk may be damaged, of another, or from another time.
func TestDisk(t *testing.T) {
	w := newWorld(t)
	w.announce(t, "1")
	w.expect(t, "mx.example.org", nil)
	files, err := os.ReadDir(w.dir)
	if err != nil || len(files) != 1 || strings.Contains(files[0].Name(), "example") {
		t.Fatalf("got %v, %v", files, err)
	}
	path := filepath.Join(w.dir, files[0].Name())
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info.Mode(), err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":     "",
		"torn":      string(good[:len(good)/2]),
		"another's": strings.Replace(string(good), "example.org", "example.net", 1),
		"no policy": `{"domain":"example.org","id":"1","fetched":"2026-01-01T00:00:00Z","policy":["version: STSv1"]}`,
		"expired":   `{"domain":"example.org","id":"1","fetched":"2020-01-01T00:00:00Z","policy":["version: STSv1","mode: enforce","mx: mx.example.org","max_age: 604800"]}`,
		"zero":      strings.Repeat("\x00", 100),
	} {
		w.Close()
		for _, other := range []string{"left.new", ".hidden"} {
			if err := os.WriteFile(filepath.Join(w.dir, other), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		w.open(t)
		if n, _ := w.Remembered(); n != 0 {
			t.Errorf("%s: %d domains", name, n)
		}
		if files, err := os.ReadDir(w.dir); err != nil || len(files) != 0 {
			t.Errorf("%s: left %v, %v", name, files, err)
		}
	}
	w.Close()
	future := strings.Replace(string(good), `"fetched":"20`, `"fetched":"21`, 1)
	if err := os.WriteFile(path, []byte(future), 0o600); err != nil {
		t.Fatal(err)
	}
	w.open(t)
	w.advance(604801 * time.Second)
	w.does(http.NotFound)
	w.expect(t, "", mtasts.ErrFetch) // it does not live for a century
}

// There is an end to what is remembered, in memory and on disk: whoever is used
// stays.
func TestBounds(t *testing.T) {
	w := newWorld(t)
	w.announce(t, "1")
	w.expect(t, "mx.example.org", nil)
	many := &mtasts.Policy{Mode: mtasts.Enforce, MaxAge: 24 * time.Hour}
	for i := range 1000 {
		many.MX = append(many.MX, fmt.Sprintf("mx%d.%s.example", i, strings.Repeat("x", 40)))
	}
	for i := range 400 {
		if err := w.Remember(fmt.Sprintf("d%d.example", i), many); err != nil {
			t.Fatal(err)
		}
		w.expect(t, "mx.example.org", nil)
	}
	domains, octets := w.Remembered()
	files, err := os.ReadDir(w.dir)
	if err != nil || len(files) != domains || octets > mtasts.MaxOctets || domains > mtasts.MaxDomains || domains > 399 || domains < 100 {
		t.Errorf("%d domains, %d octets, %d files, %v", domains, octets, len(files), err)
	}
	w.fetched(t, 1)
}
