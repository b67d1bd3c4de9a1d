package mailauth_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"onward/internal/mailauth"
	"onward/internal/mailauth/dkim"
	"onward/internal/message"
	"onward/internal/resolver"
)

// An enemy is DNS that has the dearest answer for every name there is, and
// counts the questions.
type enemy struct {
	zone                   *resolver.Zone
	mu                     sync.Mutex
	keys, policies, others int
}

func newEnemy() *enemy {
	z := resolver.NewZone()
	z.Set("key.x", resolver.TypeTXT, rsaRecord(dkim.MaxRSABits))
	z.Set("huge.x", resolver.TypeTXT, rsaRecord(16_384))
	z.Set("policy.x", resolver.TypeTXT, "v=DMARC1; p=reject; np=reject")
	z.Set("other.x", resolver.TypeTXT, "v=spf1 mx:m.%{d} include:%{l}.%{d} include:%{d}.%{d} mx ?all")
	z.Set("other.x", resolver.TypeA, "192.0.2.99")
	var mx, ptr []string
	for i := range 10 {
		mx, ptr = append(mx, fmt.Sprintf("%d m%d.x.", i, i)), append(ptr, fmt.Sprintf("p%d.x.", i))
	}
	z.Set("other.x", resolver.TypeMX, mx...)
	z.Set("other.x", resolver.TypePTR, ptr...)
	return &enemy{zone: z}
}

// rsaRecord publishes a key of that size, with the slowest exponent, which
// nobody has the private half of.
func rsaRecord(bits uint) string {
	n := new(big.Int).Lsh(big.NewInt(1), bits)
	der, _ := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n.Sub(n, big.NewInt(1)), E: 1<<31 - 1})
	return "v=DKIM1; p=" + base64.StdEncoding.EncodeToString(der)
}

func (e *enemy) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case strings.HasPrefix(name, "huge._domainkey."):
		e.keys++
		return e.zone.Lookup(ctx, "huge.x", t)
	case strings.Contains(name, "._domainkey."):
		e.keys++
		return e.zone.Lookup(ctx, "key.x", t)
	case strings.HasPrefix(name, "_dmarc."):
		e.policies++
		return e.zone.Lookup(ctx, "policy.x", t)
	}
	e.others++
	return e.zone.Lookup(ctx, "other.x", t)
}

// False signatures that get as far as the arithmetic: the hash of the body is right.
var (
	bodyHash = base64.StdEncoding.EncodeToString(func() []byte { h := sha256.Sum256([]byte("text\r\n")); return h[:] }())
	forged   = base64.StdEncoding.EncodeToString(append([]byte{0}, bytes.Repeat([]byte{0x55}, dkim.MaxRSABits/8-1)...))
)

// forgedSignatures returns n of them, the first eight in full.
func forgedSignatures(n int, selector string) string {
	var b strings.Builder
	for i := range n {
		value := "AAAA"
		if i < dkim.MaxVerified {
			value = forged
		}
		fmt.Fprintf(&b, "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=d%d.x; s=%s; h=from; bh=%s; b=%s\r\n", i, selector, bodyHash, value)
	}
	return b.String()
}

func forgedChain(n int) string {
	var b strings.Builder
	for i := n; i > 0; i-- {
		cv := "pass"
		if i == 1 {
			cv = "none"
		}
		fmt.Fprintf(&b, "ARC-Seal: i=%d; a=rsa-sha256; cv=%s; d=h%d.x; s=s%d; b=%s\r\n"+
			"ARC-Message-Signature: i=%d; a=rsa-sha256; c=relaxed/relaxed; d=h%d.x; s=m%d; h=from; bh=%s; b=%s\r\n"+
			"ARC-Authentication-Results: i=%d; h%d.x; none\r\n", i, cv, i, i, forged, i, i, i, bodyHash, forged, i, i)
	}
	return b.String()
}

// A hostile message, and the most that it may make us ask and compute.
type hostile struct {
	name, raw                        string
	keys, policies, others, verified int
}

// spfQuestions are the most of SPF and iprev: two checks of a record whose ten
// terms (F4) are mx of ten hosts and include in turn, and five names of the client.
const spfQuestions = 2*(1+5*(1+10+1)) + 1 + 5

func hostiles() []hostile {
	plain := "From: ada@a.example\r\n"
	commas := "From: ada@a.example, " + strings.Repeat(",", 200_000) + " b@b.example\r\n"
	end := "\r\ntext\r\n"
	room := message.MaxHeaderSize - len(forgedSignatures(300, "s")+forgedChain(50)+end) - 100
	return []hostile{
		{"SPF that recurses", plain + end, 0, 2, spfQuestions, 0},
		{"1000 signatures", forgedSignatures(message.MaxFields-1, "s") + plain + end, 8, 2, spfQuestions, 8},
		{"key of 16384 bits", forgedSignatures(8, "huge") + plain + end, 8, 2, spfQuestions, 0},
		{"From of 200000 commas", commas + end, 0, 3, spfQuestions, 0},
		{"50 forged ARC sets", forgedChain(50) + plain + end, 2, 2, spfQuestions, 0},
		{"all of it", forgedSignatures(300, "s") + forgedChain(50) + "From: ada@a.example" + strings.Repeat(",", room) + "b@b.example\r\n" + end, 10, 3, spfQuestions, 8},
	}
}

// TestBoundedWork counts the questions and the signatures verified, which do
// not depend on how fast this machine is.
func TestBoundedWork(t *testing.T) {
	for _, tt := range hostiles() {
		dns := newEnemy()
		v, err := (&mailauth.Verifier{Resolver: dns}).Verify(t.Context(), sender(t, acme, "h.example", "ann@s.example"), receive(t, tt.raw))
		must(t, err)
		verified := 0
		for _, d := range v.DKIM {
			if d.Result == dkim.Fail { // by the arithmetic: everything else about it is right
				verified++
			}
		}
		t.Logf("%s: %d keys, %d policies, %d other questions; %d signatures, %d verified", tt.name, dns.keys, dns.policies, dns.others, len(v.DKIM), verified)
		if dns.keys > tt.keys || dns.policies > tt.policies || dns.others > tt.others || verified != tt.verified {
			t.Errorf("%s: want at most %d keys, %d policies, %d others, and %d verified", tt.name, tt.keys, tt.policies, tt.others, tt.verified)
		}
		if v.DMARC.Result == "pass" || v.ARC.Result == "pass" {
			t.Errorf("%s: dmarc %s, arc %s", tt.name, v.DMARC.Result, v.ARC.Result)
		}
	}
}

// TestMoreSignatures: as many are verified as the Verifier says.
func TestMoreSignatures(t *testing.T) {
	dns := newEnemy()
	raw := forgedSignatures(50, "s") + "From: ada@a.example\r\n\r\ntext\r\n"
	_, err := (&mailauth.Verifier{Resolver: dns, Signatures: 12}).Verify(t.Context(), sender(t, acme, "h.example", "ann@s.example"), receive(t, raw))
	must(t, err)
	if dns.keys != 12 {
		t.Errorf("%d keys were asked for, want 12", dns.keys)
	}
}

// TestReported: the field tells of the signatures that were verified, wherever
// they stand, so it says why DMARC passed.
func TestReported(t *testing.T) {
	raw := forgedSignatures(20, "s") + signed(t, "acme.example", letter+"\r\ntext\r\n")
	v, err := (&mailauth.Verifier{Resolver: zone(t)}).Verify(t.Context(), sender(t, esp, "mx.esp.example", "x@esp.example"), receive(t, raw))
	must(t, err)
	want := words("pass", "pass", append(slices.Repeat([]string{"permerror"}, 7), "pass"), "none", "pass")
	if got := fieldWords(t, v); got != want || len(v.DKIM) != 21 {
		t.Errorf("%s, want %s", got, want)
	}
}

// run verifies a message over and over and reports what one costs: a core of
// ours is what a stranger could take, so the processor's time counts.
func run(b *testing.B, dns resolver.Resolver, s mailauth.Sender, msg *message.Message) {
	verifier := &mailauth.Verifier{Resolver: dns, Hostname: "mx.alias.example"}
	b.ReportAllocs()
	before := processorTime(b)
	for b.Loop() {
		if _, err := verifier.Verify(b.Context(), s, msg); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric((processorTime(b)-before).Seconds()*1000/float64(b.N), "cpu-ms/op")
	b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N), "ms/op")
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkHostile: the limit is 50 ms of processor time a message.
func BenchmarkHostile(b *testing.B) {
	for _, tt := range hostiles() {
		b.Run(tt.name, func(b *testing.B) {
			run(b, newEnemy(), sender(b, acme, "h.example", "ann@s.example"), receive(b, tt.raw))
		})
	}
}

// BenchmarkVerify is a usual message of 10 KB with one RSA-2048 signature and
// the DNS at hand; "bare" is the cryptography and hashing in it.
func BenchmarkVerify(b *testing.B) {
	body := strings.Repeat("Some words of a letter that was written for a benchmark of verification.\r\n", 133)
	raw := signed(b, "acme.example", letter+"\r\n"+body)
	b.Run("all", func(b *testing.B) {
		dns, msg, s := cached(b, zone(b)), receive(b, raw), sender(b, acme, "mx.acme.example", "ada@acme.example")
		if v := verify(b, dns, s, msg); v.DMARC.Result != "pass" || !v.DMARC.DKIMAligned || !v.DMARC.SPFAligned {
			b.Fatalf("%+v", v)
		}
		run(b, dns, s, msg)
	})
	b.Run("bare", func(b *testing.B) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		must(b, err)
		header := []byte(raw[:len(raw)-len(body)])
		digest := sha256.Sum256(header)
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
		must(b, err)
		for b.Loop() {
			sha256.Sum256([]byte(body))
			digest := sha256.Sum256(header)
			if rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], signature) != nil {
				b.Fatal("the bare signature is wrong")
			}
		}
		b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N), "ms/op")
	})
}
