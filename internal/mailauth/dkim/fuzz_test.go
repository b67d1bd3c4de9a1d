package dkim_test

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"onward/internal/mailauth/dkim"
	"onward/internal/message"
	"onward/internal/resolver"
)

// FuzzSignature verifies any field over a small message. It must end, and say
// pass of nothing: nobody has a key.
func FuzzSignature(f *testing.F) {
	files, _ := filepath.Glob(shared + "*/messages/*.eml")
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		header, _, _ := strings.Cut(string(raw), "\r\n\r\n")
		if _, after, ok := strings.Cut(header, "DKIM-Signature:"); ok {
			f.Add(after)
		}
	}
	c := newCorpus(f, 9)
	z := c.Zone()
	f.Fuzz(func(t *testing.T, value string) {
		raw := []byte("DKIM-Signature:" + value + "\r\n" + letter + "\r\ntext\r\n")
		b := message.NewBuffer(t.TempDir())
		b.Write(raw)
		msg, err := b.Message()
		if err != nil {
			return
		}
		for _, r := range dkim.Verify(t.Context(), z, msg, dkim.Options{Now: now, Text: true}) {
			if r.Signature == nil || r.Result == "" || r.Result == dkim.Pass || r.Reason == "" {
				t.Errorf("%+v", r)
			}
			if strings.ContainsAny(r.Reason+r.Domain+r.Selector, "\r\n\x00") {
				t.Errorf("control characters in %q %q %q", r.Reason, r.Domain, r.Selector)
			}
		}
	})
}

// FuzzKey reads any key record, and compares RSA keys with the standard
// library's idea of them.
func FuzzKey(f *testing.F) {
	c := newCorpus(f, 10)
	for _, record := range c.Keys {
		f.Add(record)
	}
	for _, file := range []string{"dkim", "generated"} {
		z := zone(f, shared+file+"/zone.json")
		for _, name := range []string{"s1._domainkey.acme.example", "dkim._domainkey.highsecure.ru", "test._domainkey.example.com"} {
			if a, err := z.Lookup(f.Context(), name, resolver.TypeTXT); err == nil {
				f.Add(a.TXT()[0])
			}
		}
	}
	f.Fuzz(func(t *testing.T, record string) {
		k, err := dkim.ParseKey(record)
		if strings.ContainsAny(errorText(err), "\r\n\x00") {
			t.Errorf("control characters in %q", err)
		}
		if err == nil && (k.Bits < 256 || k.Bits > dkim.MaxRSABits) {
			t.Errorf("%q: %d bits", record, k.Bits)
		}
		if k == nil || k.Type != "rsa" {
			return
		}
		p, _ := k.Tags.Get("p")
		der, wrong := base64.StdEncoding.DecodeString(p)
		public, wrong2 := x509.ParsePKIXPublicKey(der)
		std, isRSA := public.(*rsa.PublicKey)
		if wrong == nil && wrong2 == nil && isRSA && err == nil && std.N.BitLen() != k.Bits {
			t.Errorf("%q: %d bits, the standard library reads %d", record, k.Bits, std.N.BitLen())
		}
	})
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
