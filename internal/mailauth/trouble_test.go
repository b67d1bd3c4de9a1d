package mailauth_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"onward/internal/mailauth"
	"onward/internal/message"
	"onward/internal/resolver"
	"onward/internal/testmail"
)

// silent never answers, as long as somebody waits, and then takes a moment to go.
type silent struct{ linger time.Duration }

func (s silent) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	<-ctx.Done()
	time.Sleep(s.linger)
	return nil, &resolver.Error{Name: name, Type: t, Kind: resolver.ErrTemporary, Err: ctx.Err()}
}

// TestSilentDNS: the verdict is there within the deadline, however late the
// message comes, and says nothing but temperror (RELIABILITY 44).
func TestSilentDNS(t *testing.T) {
	for _, tt := range []struct {
		name           string
		before, cancel time.Duration // the message takes that long; its caller waits that long, 0: for ever
		time           time.Duration // that the Verifier has
		want           time.Duration // of Finish
	}{
		{"at once", 0, 0, 0, 20 * time.Second},
		{"slow message", 15 * time.Second, 0, 0, 20 * time.Second},
		{"slower than SPF may be", time.Minute, 0, 0, 20 * time.Second},
		{"the caller gives up", 2 * time.Second, 3 * time.Second, 0, 3 * time.Second},
		{"more time", 0, 0, 45 * time.Second, 45 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			verifier := &mailauth.Verifier{Resolver: silent{}, Hostname: "mx.alias.example", Time: tt.time}
			check := verifier.Begin(t.Context(), sender(t, acme, "mx.acme.example", "ada@acme.example"))
			time.Sleep(tt.before)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.cancel > 0 {
				time.AfterFunc(tt.cancel, cancel)
			}
			start := time.Now()
			v, err := check.Finish(ctx, receive(t, string(read(t, "messages/0050-list-arc1-qp.eml"))))
			must(t, err)
			if took := time.Since(start); took != tt.want {
				t.Errorf("%s: %v, want %v", tt.name, took, tt.want)
			}
			want := "iprev=temperror spf=temperror dkim=temperror dkim=temperror arc=temperror dmarc=temperror"
			if got := fieldWords(t, v); got != want || v.Helo.Result != "temperror" {
				t.Errorf("%s: helo %s, %s", tt.name, v.Helo.Result, got)
			}
		})
	}
}

// TestStop: what Begin started is over when Stop returns, which it does at once.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		check := (&mailauth.Verifier{Resolver: silent{time.Second}}).Begin(t.Context(), sender(t, acme, "mx.acme.example", "ada@acme.example"))
		synctest.Wait()
		check.Stop()
		if took := time.Since(start); took != time.Second {
			t.Errorf("Stop took %v; what Begin started ended after one second", took)
		}
	})
}

// TestUnreadable: a body that cannot be read is our trouble, and no verdict.
func TestUnreadable(t *testing.T) {
	msg := receive(t, signed(t, "acme.example", letter+"\r\n"+strings.Repeat("text\r\n", message.MemoryLimit/5)))
	if v := verify(t, zone(t), sender(t, acme, "mx.acme.example", ""), msg); v.DKIM[0].Result != "pass" {
		t.Fatalf("dkim %s (%s)", v.DKIM[0].Result, v.DKIM[0].Reason)
	}
	msg.Close() // and with it the temporary file
	v, err := (&mailauth.Verifier{Resolver: zone(t)}).Verify(t.Context(), sender(t, acme, "mx.acme.example", ""), msg)
	if v != nil || !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v, %v; want no verdict", v, err)
	}
}

// TestConcurrent: one Verifier with the resolver of the daemon checks fifty
// messages at once, some of them the same.
func TestConcurrent(t *testing.T) {
	verifier := &mailauth.Verifier{Resolver: cached(t, zone(t)), Hostname: "mx.alias.example"}
	var wg sync.WaitGroup
	for _, m := range samples(t)[:25] {
		msg, s := receive(t, string(read(t, "messages/"+m.File))), sender(t, m.IP, m.Helo, m.MailFrom)
		for range 2 {
			wg.Go(func() {
				v, err := verifier.Verify(t.Context(), s, msg)
				if err != nil || string(v.DMARC.Result) != strings.TrimSuffix(m.Expect.DMARC, "-by-spf") || string(v.MailFrom.Result) != m.SPF {
					t.Errorf("%s: %+v, %v", m.File, v, err)
				}
			})
		}
	}
	wg.Wait()
}

// cached returns the resolver of the daemon, which asks a server of ours.
func cached(t testing.TB, z *resolver.Zone) *resolver.Client {
	t.Helper()
	server, err := testmail.StartDNS(z, "127.0.0.1:0")
	must(t, err)
	client := resolver.NewClient([]netip.AddrPort{server.Addr()}, 5*time.Second)
	t.Cleanup(func() { client.Close(); server.Close() })
	return client
}

// stumbles panics at one kind of name, as a parser of what stands there might.
type stumbles struct {
	resolver.Resolver
	at string
}

func (s stumbles) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	if strings.Contains(name, s.at) {
		panic("stumbled at " + name)
	}
	return s.Resolver.Lookup(ctx, name, t)
}

// TestPanic: what stands in the DNS or in a message ends one message at most, and
// that is trouble of ours (RELIABILITY 89).
func TestPanic(t *testing.T) {
	message := string(read(t, "messages/0050-list-arc1-qp.eml"))
	zone := resolver.NewZone()
	for _, at := range []string{"acme.example", "in-addr.arpa", "mx.acme", "_dmarc.", "_domainkey."} {
		verifier := &mailauth.Verifier{Resolver: stumbles{zone, at}, Hostname: "mx.alias.example"}
		check := verifier.Begin(t.Context(), sender(t, acme, "mx.acme.example", "ada@acme.example"))
		if got := check.SPF().Result; at == "acme.example" && got != "" {
			t.Errorf("SPF is %s", got)
		}
		if v, err := check.Finish(t.Context(), receive(t, message)); err == nil || v != nil || !strings.Contains(err.Error(), "stumbled at ") {
			t.Errorf("%s: %v, %v", at, v, err)
		}
	}
}
