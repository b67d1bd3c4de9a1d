package dkim_test

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"onward/internal/mailauth/dkim"
	"onward/internal/message"
	"onward/internal/resolver"
)

// A counter counts the lookups of a zone.
type counter struct {
	*resolver.Zone
	mu    sync.Mutex
	names []string
}

func (c *counter) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	c.mu.Lock()
	c.names = append(c.names, name)
	c.mu.Unlock()
	return c.Zone.Lookup(ctx, name, t)
}

// costly are the messages of DEPENDENCIES.md A3, each as large as inbound lets
// it be.
func costly(c *corpus) map[string][]byte {
	thousand := ""
	for i := range message.MaxFields - 10 {
		thousand += fmt.Sprintf("DKIM-Signature: v=1; a=rsa-sha256; d=d%d.example; s=s; h=from; bh=AAAA; b=AAAA\r\n", i)
	}
	names := "h=from:to:subject" + strings.Repeat(":x", 90_000)
	single := ""
	for range 8 {
		field, _, _ := strings.Cut(string(c.signed("h=from"+strings.Repeat(":x", 10_000), strings.Repeat("X: y\r\n", 900)+letter, "text\r\n")), "\r\n")
		single += field + "\r\n"
	}
	folded := "X: y" + strings.Repeat("\r\n z", 16_384) + "\r\n"
	eight := ""
	for range 8 {
		field, _, _ := strings.Cut(string(c.signed("h=from:x", folded+letter, "text\r\n")), "\r\n")
		eight += field + "\r\n"
	}
	return map[string][]byte{
		"1000 signatures":           []byte(thousand + letter + "\r\ntext\r\n"),
		"h= of 90000 names":         c.signed(names, strings.Repeat("X: y\r\n", 900)+letter, "text\r\n"),
		"8 × h= of 10000 names":     []byte(single + strings.Repeat("X: y\r\n", 900) + letter + "\r\ntext\r\n"),
		"field of 16384 lines":      []byte(eight + folded + letter + "\r\ntext\r\n"),
		"signature of 16384 lines":  c.signed("z=a"+strings.Repeat("\r\n b", 16_384), letter, "text\r\n"),
		"10 MB of CRLF":             c.signed("", letter, strings.Repeat("\r\n", 5<<20)),
		"10 MB of spaces":           c.signed("", letter, strings.Repeat("  \t", 10<<20/3)+"\r\n"),
		"key of 16384 bits":         c.signed("s=huge", letter, "text\r\n"),
		"key of 4096 bits, large e": []byte(strings.Replace(string(c.signed("s=large", letter, "text\r\n")), "ed25519-sha256", "rsa-sha256", 1)),
	}
}

// rsaKey publishes a key of that many bits, which nobody has the private half of.
func (c *corpus) rsaKey(name string, bits uint, e int) {
	n := new(big.Int).Lsh(big.NewInt(1), bits)
	der, _ := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n.Sub(n, big.NewInt(1)), E: e})
	c.Keys[name+"._domainkey.example.org"] = "v=DKIM1; p=" + encode(der)
}

// BenchmarkCostly shows that each of them is below 50 ms of CPU.
func BenchmarkCostly(b *testing.B) {
	c := newCorpus(b, 5)
	c.rsaKey("huge", 16_384, 1<<31-1)
	c.rsaKey("large", 4096, 1<<31-1)
	z := c.Zone()
	for name, raw := range costly(c) {
		b.Run(name, func(b *testing.B) {
			msg := receive(b, raw)
			b.ReportAllocs()
			for b.Loop() {
				dkim.Verify(b.Context(), z, msg, dkim.Options{Now: now})
			}
		})
	}
}

// TestCostlyVerdicts: what is expensive is still judged, not given up on.
func TestCostlyVerdicts(t *testing.T) {
	c := newCorpus(t, 5)
	c.rsaKey("huge", 16_384, 65537)
	c.rsaKey("large", 4096, 1<<31-1)
	all := costly(c)
	for name, want := range map[string]string{
		"h= of 90000 names": "pass", "8 × h= of 10000 names": strings.TrimSpace(strings.Repeat("pass ", 8)), "field of 16384 lines": strings.TrimSpace(strings.Repeat("pass ", 8)),
		"signature of 16384 lines": "pass", "10 MB of CRLF": "pass", "10 MB of spaces": "pass",
		"key of 16384 bits": "permerror", "key of 4096 bits, large e": "fail",
	} {
		if got := verify(t, c.Zone(), all[name]); words(got) != want {
			t.Errorf("%s: %s; want %s", name, reasons(got), want)
		}
	}
}

// TestEightVerified holds DESIGN.md 9.1 and RELIABILITY 49: the preferred
// signatures first, then the topmost, and no lookup for the others.
func TestEightVerified(t *testing.T) {
	c := newCorpus(t, 6)
	raw := costly(c)["1000 signatures"]
	for _, tt := range []struct {
		name   string
		prefer func(string) bool
		want   string
	}{
		{"topmost", nil, "d0 d1 d2 d3 d4 d5 d6 d7"},
		{"preferred", func(d string) bool { return d == "d800.example" || d == "d3.example" }, "d0 d1 d2 d3 d4 d5 d6 d800"},
	} {
		dns := &counter{Zone: resolver.NewZone()}
		results := dkim.Verify(t.Context(), dns, receive(t, raw), dkim.Options{Now: now, Prefer: tt.prefer})
		var verified []string
		for _, r := range results {
			if r.Result != dkim.Policy {
				verified = append(verified, strings.TrimSuffix(r.Domain, ".example"))
			}
		}
		if len(results) != 990 || len(dns.names) != dkim.MaxVerified || strings.Join(verified, " ") != tt.want {
			t.Errorf("%s: %d results, lookups %v, verified %v", tt.name, len(results), dns.names, verified)
		}
	}
	broken := strings.ReplaceAll(string(raw), "v=1", "v=9")
	good, rest, _ := strings.Cut(string(c.signed("", letter, "text\r\n")), "\r\n")
	last := strings.LastIndex(broken, "DKIM-Signature")
	broken = broken[:last] + good + "\r\n" + rest
	if got := verify(t, c.Zone(), []byte(broken)); got[len(got)-1].Result != dkim.Pass {
		t.Error("signatures that cannot be read took the place of one that can")
	}
}

// slow never answers, as long as somebody waits.
type slow struct{}

func (slow) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	<-ctx.Done()
	return nil, &resolver.Error{Name: name, Type: t, Kind: resolver.ErrTemporary, Err: ctx.Err()}
}

// TestDeadline: eight silent names cost one deadline, and are temporary
// (DEPENDENCIES.md B10, B11).
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		c := newCorpus(t, 7)
		start := time.Now()
		results := dkim.Verify(ctx, slow{}, receive(t, costly(c)["8 × h= of 10000 names"]), dkim.Options{Now: now})
		if took := time.Since(start); took != 5*time.Second || words(results) != strings.TrimSpace(strings.Repeat("temperror ", 8)) {
			t.Errorf("%v, %s", took, reasons(results))
		}
		if !errors.Is(results[0].Err, context.DeadlineExceeded) {
			t.Errorf("cause %v", results[0].Err)
		}
	})
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestOurTrouble: a body that cannot be read says nothing about the sender.
func TestOurTrouble(t *testing.T) {
	c := newCorpus(t, 8)
	msg := receive(t, c.signed("", letter, "text\r\n"))
	var bodies dkim.BodyHashes
	v := dkim.Prepare(dkim.NewHeader(msg.Fields()), &bodies, dkim.Options{Now: now})
	v.Lookup(t.Context(), c.Zone())
	if got := v.Results(bodies.Read(broken{})); words(got) != dkim.TempError || !errors.Is(got[0].Err, io.ErrUnexpectedEOF) {
		t.Errorf("%s: %v", reasons(got), got[0].Err)
	}
}
