package webclient_test

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"onward/internal/dialguard"
	"onward/internal/resolver"
	"onward/internal/webclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// example.com is the name in httptest's certificate.
func serve(t *testing.T, handler http.HandlerFunc) (*webclient.Client, *resolver.Zone) {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	zone := resolver.NewZone()
	for _, name := range []string{"example.com", "other.test"} {
		if err := zone.Set(name, resolver.TypeA, "127.0.0.1"); err != nil {
			t.Fatal(err)
		}
	}
	port := server.Listener.Addr().(*net.TCPAddr).Port
	return &webclient.Client{
		Resolver: zone, Guard: dialguard.Guard{AllowPrivate: true}, Roots: roots, Port: uint16(port), Timeout: 5 * time.Second,
	}, zone
}

func TestGet(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprintf(w, "%s %s %s", r.Method, r.Host, r.URL.Path)
	})
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1") // no business of ours
	got, err := c.Get(t.Context(), "https://example.com/.well-known/x", 100)
	if err != nil || got.Status != 200 || got.Type != "text/plain" || string(got.Body) != "GET example.com /.well-known/x" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestPost(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(201)
		fmt.Fprintf(w, "%s %s %s", r.Method, r.Header.Get("Content-Type"), body)
	})
	got, err := c.Post(t.Context(), "https://example.com/", "application/x", []byte("abc"), 100)
	if err != nil || got.Status != 201 || string(got.Body) != "POST application/x abc" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// What is it that a host cannot do to us?
func TestHostile(t *testing.T) {
	for _, tt := range []struct {
		name, url string
		handler   http.HandlerFunc
		status    int // when it is an answer all the same
		check     func(error) bool
	}{
		{"redirect", "https://example.com/", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				t.Error("the redirect was followed")
			}
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}, 302, nil},
		{"too large", "https://example.com/", func(w http.ResponseWriter, r *http.Request) {
			w.Write(make([]byte, 1001))
		}, 0, func(err error) bool { return errors.Is(err, webclient.ErrTooLarge) }},
		{"endless", "https://example.com/", func(w http.ResponseWriter, r *http.Request) {
			for block := make([]byte, 1<<20); r.Context().Err() == nil; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}, 0, func(err error) bool { return errors.Is(err, webclient.ErrTooLarge) }},
		{"small when compressed", "https://example.com/", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			z.Write(make([]byte, 1<<20))
			z.Close()
		}, 0, func(err error) bool { return errors.Is(err, webclient.ErrTooLarge) }},
		{"endless header", "https://example.com/", func(w http.ResponseWriter, r *http.Request) {
			for i := range 2000 {
				w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 20))
			}
		}, 0, func(err error) bool { return err != nil }},
		{"slow", "https://example.com/", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				w.Write([]byte("x"))
				w.(http.Flusher).Flush()
				time.Sleep(50 * time.Millisecond)
			}
		}, 0, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
		{"wrong certificate", "https://other.test/", nil, 0, func(err error) bool {
			_, ok := errors.AsType[*tls.CertificateVerificationError](err)
			return ok
		}},
		{"no such name", "https://missing.test/", nil, 0, func(err error) bool { return errors.Is(err, resolver.ErrNotFound) }},
		{"not https", "http://example.com/", nil, 0, func(err error) bool { return err != nil }},
		{"another port", "https://example.com:25/", nil, 0, func(err error) bool { return err != nil }},
		{"a password", "https://a:b@example.com/", nil, 0, func(err error) bool { return err != nil }},
		{"an address", "https://127.0.0.1/", nil, 0, func(err error) bool { return errors.Is(err, resolver.ErrNotFound) }},
		{"an IPv6 address", "https://[::1]/", nil, 0, func(err error) bool { return errors.Is(err, resolver.ErrNotFound) }},
		{"no URL", "https://%zz/", nil, 0, func(err error) bool { return err != nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			handler := tt.handler
			if handler == nil {
				handler = func(http.ResponseWriter, *http.Request) { t.Error("the host was asked") }
			}
			c, _ := serve(t, handler)
			c.Timeout = time.Second
			got, err := c.Get(t.Context(), tt.url, 1000)
			if tt.check != nil && !tt.check(err) {
				t.Errorf("got %+v, %v", got, err)
			}
			if tt.check == nil && (err != nil || got.Status != tt.status) {
				t.Errorf("got %+v, %v; want status %d", got, err, tt.status)
			}
		})
	}
}

// Names may lead inside; the guard does not go there, and tries the next.
func TestPrivateAddress(t *testing.T) {
	c, zone := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the host was asked") })
	c.Guard.AllowPrivate = false
	if err := zone.Set("example.com", resolver.TypeAAAA, "::1", "::ffff:127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Get(t.Context(), "https://example.com/", 100); !errors.Is(err, dialguard.ErrPrivate) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// The first address of a host is dead, the second is not.
func TestSecondAddress(t *testing.T) {
	c, zone := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "here") })
	if err := zone.Set("example.com", resolver.TypeA, "127.0.0.9", "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Get(t.Context(), "https://example.com/", 100); err != nil || string(got.Body) != "here" {
		t.Errorf("got %+v, %v", got, err)
	}
}
