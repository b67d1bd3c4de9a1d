package dkim_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"onward/internal/mailauth/dkim"
	"onward/internal/resolver"
	"onward/internal/testmail"
)

// tenKB returns a message of 10 KB, its signature removed from the arithmetic:
// the key, what b= signs, and what bh= is of.
func tenKB(b *testing.B) (z *resolver.Zone, raw []byte, bare func() bool) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	z = resolver.NewZone()
	der, _ := x509.MarshalPKIXPublicKey(&key.PublicKey)
	z.Set("s1._domainkey.example.org", resolver.TypeTXT, "v=DKIM1; k=rsa; p="+base64.StdEncoding.EncodeToString(der))
	header := "From: Ada <ada@example.org>\r\nTo: Bob <bob@example.net>\r\nSubject: A letter of ten kilobytes\r\n" +
		"Date: Sun, 1 Mar 2026 10:00:00 +0000\r\nMessage-ID: <1@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n"
	body := strings.Repeat("Some words of a letter that has been written for a benchmark of DKIM, no more.\r\n", 128)
	canonical := strings.NewReplacer(": ", ":").Replace(header)
	canonical = lowerNames(canonical)
	bh := sha256.Sum256([]byte(body))
	field := "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=s1; t=1772359200;\r\n" +
		"\th=From:To:Subject:Date:Message-ID:MIME-Version:Content-Type;\r\n\tbh=" + base64.StdEncoding.EncodeToString(bh[:]) + ";\r\n\tb="
	signed := canonical + "dkim-signature:" + strings.ReplaceAll(strings.TrimPrefix(field, "DKIM-Signature: "), "\r\n\t", " ")
	digest := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	raw = []byte(field + base64.StdEncoding.EncodeToString(sig) + "\r\n" + header + "\r\n" + body)
	signedOctets, octets := []byte(signed), []byte(body)
	return z, raw, func() bool {
		digest := sha256.Sum256(signedOctets)
		return sha256.Sum256(octets) == bh && rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], sig) == nil
	}
}

func lowerNames(header string) string {
	var b strings.Builder
	for line := range strings.Lines(header) {
		name, value, _ := strings.Cut(line, ":")
		fmt.Fprintf(&b, "%s:%s", strings.ToLower(name), value)
	}
	return b.String()
}

// BenchmarkVerify10K and BenchmarkBare are to be compared: all of verification,
// and the cryptography and hashing in it.
func BenchmarkVerify10K(b *testing.B) {
	z, raw, _ := tenKB(b)
	client := cached(b, z)
	msg := receive(b, raw)
	b.ReportAllocs()
	for b.Loop() {
		if got := dkim.Verify(b.Context(), client, msg, dkim.Options{Now: now}); words(got) != dkim.Pass {
			b.Fatal(reasons(got))
		}
	}
}

func BenchmarkBare(b *testing.B) {
	_, _, bare := tenKB(b)
	b.ReportAllocs()
	for b.Loop() {
		if !bare() {
			b.Fatal("the bare signature is wrong")
		}
	}
}

// cached returns the resolver of the daemon, which asks a server of ours.
func cached(b *testing.B, z *resolver.Zone) *resolver.Client {
	server, err := testmail.StartDNS(z, "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	client := resolver.NewClient([]netip.AddrPort{server.Addr()}, 5*time.Second)
	b.Cleanup(func() { client.Close(); server.Close() })
	return client
}
