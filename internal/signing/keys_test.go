package signing_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"onward/internal/address"
	"onward/internal/mailauth/dkim"
	"onward/internal/resolver"
	"onward/internal/signing"
)

func open(t *testing.T, s signing.Settings) *signing.Keys {
	t.Helper()
	keys, err := signing.Open(s)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// records returns what a domain has to publish.
func records(t *testing.T, keys *signing.Keys, domain address.Domain) []signing.Record {
	t.Helper()
	s, err := keys.Signer(domain)
	if err != nil {
		t.Fatal(err)
	}
	return s.Records()
}

// TestKeysStay holds that a key is made once, in a private file, that the next
// start and a command find it, and that another selector leaves it alone.
func TestKeysStay(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "dkim")
	if err := os.Mkdir(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	settings := signing.Settings{Dir: dir, Selector: "onward", Ed25519: true, Create: true}
	first := records(t, open(t, settings), "example.org")
	if len(first) != 2 || first[0].Name != "onward._domainkey.example.org" || first[1].Name != "onward-ed25519._domainkey.example.org" {
		t.Fatalf("records %v", first)
	}
	files, _ := os.ReadDir(dir)
	if len(files) != 2 {
		t.Errorf("files %v", files)
	}
	for _, f := range files {
		if info, _ := f.Info(); info.Mode().Perm() != 0o600 || !strings.HasSuffix(f.Name(), "._domainkey.example.org.pem") {
			t.Errorf("%s has mode %v", f.Name(), info.Mode())
		}
	}
	settings.Create = false
	if again := records(t, open(t, settings), "example.org"); again[0] != first[0] || again[1] != first[1] {
		t.Error("the next start has another key")
	}
	settings.Selector, settings.Create = "next", true
	if next := records(t, open(t, settings), "example.org"); next[0].Name != "next._domainkey.example.org" || next[0].Value == first[0].Value {
		t.Errorf("another selector: %v", next)
	}
	settings.Selector = "Onward"
	if back := records(t, open(t, settings), "example.org"); back[0] != first[0] {
		t.Error("the key of the old selector is gone")
	}
}

// TestOnlyTheDaemonCreates holds that a command makes nothing.
func TestOnlyTheDaemonCreates(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dkim")
	_, err := open(t, signing.Settings{Dir: dir, Selector: "onward"}).Signer("example.org")
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "example.org") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a directory was made")
	}
}

// TestOneKeyForAll holds that many who ask at once get the same key.
func TestOneKeyForAll(t *testing.T) {
	keys := open(t, signing.Settings{Dir: filepath.Join(t.TempDir(), "dkim"), Selector: "onward", Create: true})
	var wg sync.WaitGroup
	signers := make([]*signing.Signer, 8)
	for i := range signers {
		wg.Go(func() { signers[i], _ = keys.Signer("example.org") })
	}
	wg.Wait()
	for _, s := range signers {
		if s == nil || s != signers[0] {
			t.Fatal("several keys")
		}
	}
}

// TestBadKeyFiles holds that what cannot be used is refused with a sentence, and
// is never replaced.
func TestBadKeyFiles(t *testing.T) {
	small, _ := rsa.GenerateKey(rand.Reader, 1024)
	der, _ := x509.MarshalPKCS8PrivateKey(small)
	weak := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	old := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(small)}))
	for name, tt := range map[string]struct {
		text string
		mode fs.FileMode
		want string
	}{
		"open to the group": {weak, 0o640, "run chmod 600 "},
		"open to all":       {weak, 0o604, "run chmod 600 "},
		"too small":         {weak, 0o600, "2048"},
		"PKCS #1":           {old, 0o600, "openssl pkcs8"},
		"empty":             {"", 0o600, "openssl pkcs8"},
		"no key":            {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0o600, ".pem: "},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "onward._domainkey.example.org.pem")
		if err := os.WriteFile(path, []byte(tt.text), tt.mode); err != nil {
			t.Fatal(err)
		}
		_, err := open(t, signing.Settings{Dir: dir, Selector: "onward", Create: true}).Signer("example.org")
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "example.org") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		if now, _ := os.ReadFile(path); string(now) != tt.text {
			t.Errorf("%s: the file was replaced", name)
		}
	}
}

func TestSettings(t *testing.T) {
	for _, bad := range []string{"", "a b", "a._domainkey.b", "../x", "a/b", "-a", "a-", "ä", ".", "a..b", "a.", strings.Repeat("a", 60), "a\n"} {
		if _, err := signing.Open(signing.Settings{Selector: bad}); err == nil {
			t.Errorf("selector %q is accepted", bad)
		}
	}
	keys := open(t, signing.Settings{Dir: t.TempDir(), Selector: "2026.a-b", Create: true})
	if got := records(t, keys, "example.org")[0].Name; got != "2026.a-b._domainkey.example.org" {
		t.Errorf("%s", got)
	}
	for _, d := range []address.Domain{"", "[192.0.2.1]"} {
		if _, err := keys.Signer(d); err == nil {
			t.Errorf("a signer for %q", d)
		}
	}
}

// TestRecordForms holds that the pieces are what the DNS can carry and that
// readers get the key out of a zone file.
func TestRecordForms(t *testing.T) {
	keys := open(t, signing.Settings{Dir: t.TempDir(), Selector: "onward", Ed25519: true, Create: true})
	for _, r := range records(t, keys, "example.org") {
		for _, piece := range r.Strings() {
			if len(piece) == 0 || len(piece) > 255 {
				t.Errorf("piece of %d octets", len(piece))
			}
		}
		if strings.Join(r.Strings(), "") != r.Value {
			t.Errorf("pieces %q", r.Strings())
		}
		zone, err := resolver.ParseZone("test", strings.NewReader(r.String()+"\n"))
		if err != nil {
			t.Fatalf("%s: %v", r, err)
		}
		answer, err := zone.Lookup(t.Context(), r.Name, resolver.TypeTXT)
		if err != nil || len(answer.TXT()) != 1 || answer.TXT()[0] != r.Value {
			t.Fatalf("%v, %v", answer, err)
		}
		key, err := dkim.ParseKey(r.Value)
		if err != nil || key.Bits != 2048 && key.Bits != 256 {
			t.Errorf("%+v, %v", key, err)
		}
	}
}
