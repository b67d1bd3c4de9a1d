package dane_test

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"onward/internal/resolver"
	"onward/internal/tlspolicy/dane"
)

// record reads "3 1 1 00ff".
func record(t testing.TB, text string) resolver.TLSA {
	t.Helper()
	var r resolver.TLSA
	var data string
	if _, err := fmt.Sscan(text, &r.Usage, &r.Selector, &r.Matching, &data); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.Data, err = hex.DecodeString(data); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestVectors runs what OpenSSL holds its own code against.
func TestVectors(t *testing.T) {
	data, err := os.ReadFile("../../../testdata/dane/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var suite struct {
		Reference    string
		Certificates map[string][]byte
		Cases        []struct {
			Number      int
			TLSA, Shown []string
			Want        string
		}
	}
	if err := json.Unmarshal(data, &suite); err != nil {
		t.Fatal(err)
	}
	for _, c := range suite.Cases {
		t.Run(fmt.Sprint(c.Number), func(t *testing.T) {
			var records []resolver.TLSA
			for _, text := range c.TLSA {
				records = append(records, record(t, text))
			}
			var shown []*x509.Certificate
			for _, name := range c.Shown {
				cert, err := x509.ParseCertificate(suite.Certificates[name])
				if err != nil {
					t.Fatal(err)
				}
				shown = append(shown, cert)
			}
			usable := dane.Usable(records)
			if len(usable) == 0 {
				t.Fatal("no record is usable")
			}
			err := dane.Verify(usable, []string{suite.Reference}, shown, time.Now())
			_, name := errors.AsType[x509.HostnameError](err)
			if got := map[bool]string{err == nil: "ok", errors.Is(err, dane.ErrMismatch): "mismatch", name: "name"}[true]; got != c.Want {
				t.Errorf("got %q, %v; want %q", got, err, c.Want)
			}
		})
	}
	if len(suite.Cases) != 31 {
		t.Errorf("%d cases", len(suite.Cases))
	}
}

func TestUsable(t *testing.T) {
	sum256, sum512 := strings.Repeat("ab", 32), strings.Repeat("cd", 64)
	for _, tt := range []struct {
		name          string
		records, want string // one after the other, parted by "/"
	}{
		{"all kinds", "3 0 1 " + sum256 + "/3 1 2 " + sum512 + "/2 0 1 " + sum256 + "/2 1 1 " + sum256,
			"3 0 1 " + sum256 + "/3 1 2 " + sum512 + "/2 0 1 " + sum256 + "/2 1 1 " + sum256},
		{"PKIX usages", "0 0 1 " + sum256 + "/1 1 1 " + sum256, ""},
		{"private usage", "255 0 1 " + sum256, ""},
		{"unknown selector", "3 2 1 " + sum256 + "/3 255 1 " + sum256, ""},
		{"unknown matching type", "3 1 3 " + sum256 + "/3 1 255 " + sum256, ""},
		{"wrong length", "3 1 1 " + sum256[2:] + "/3 1 1 " + sum256 + "00/3 1 2 " + sum256 + "/3 1 1 " + sum512, ""},
		{"not a certificate", "3 0 0 3003020101/2 0 0 00", ""},
		{"not a key", "3 1 0 3003020101/2 1 0 00", ""},
		{"one good among bad", "0 0 1 " + sum256 + "/3 1 1 " + sum256, "3 1 1 " + sum256},
		// RFC 7671 9: digest agility
		{"the stronger digest", "3 1 1 " + sum256 + "/3 1 2 " + sum512, "3 1 2 " + sum512},
		{"of each kind", "3 1 1 " + sum256 + "/3 0 2 " + sum512 + "/2 1 2 " + sum512, "3 1 1 " + sum256 + "/3 0 2 " + sum512 + "/2 1 2 " + sum512},
		{"not for a broken one", "3 1 1 " + sum256 + "/3 1 2 " + sum256, "3 1 1 " + sum256},
	} {
		var records []resolver.TLSA
		for _, text := range strings.Split(tt.records, "/") {
			records = append(records, record(t, text))
		}
		var got []string
		for _, r := range dane.Usable(records) {
			got = append(got, fmt.Sprintf("%d %d %d %x", r.Usage, r.Selector, r.Matching, r.Data))
		}
		if strings.Join(got, "/") != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// FuzzVerify: whatever is in the DNS, nothing panics, and a certificate that
// nobody vouched for does not pass.
func FuzzVerify(f *testing.F) {
	data, err := os.ReadFile("../../../testdata/dane/vectors.json")
	if err != nil {
		f.Fatal(err)
	}
	var suite struct{ Certificates map[string][]byte }
	if err := json.Unmarshal(data, &suite); err != nil {
		f.Fatal(err)
	}
	var shown []*x509.Certificate
	for _, name := range []string{"leaf", "issuer", "root"} {
		cert, err := x509.ParseCertificate(suite.Certificates[name])
		if err != nil {
			f.Fatal(err)
		}
		shown = append(shown, cert)
		f.Add(uint8(2), uint8(0), uint8(0), cert.Raw)
		f.Add(uint8(3), uint8(1), uint8(0), cert.RawSubjectPublicKeyInfo)
	}
	f.Fuzz(func(t *testing.T, usage, selector, matching uint8, data []byte) {
		for _, r := range dane.Usable([]resolver.TLSA{{Usage: usage, Selector: selector, Matching: matching, Data: data}}) {
			err := dane.Verify([]resolver.TLSA{r}, []string{"example.com"}, shown, time.Now())
			if err == nil && matching == 0 && !known(shown, data) {
				t.Errorf("%d %d %d %x vouches for another's certificate", usage, selector, matching, data)
			}
		}
	})
}

// known reports whether data, a certificate or a key, is about the key of one
// that was shown. Who signed an anchor does not matter.
func known(shown []*x509.Certificate, data []byte) bool {
	if cert, err := x509.ParseCertificate(data); err == nil {
		data = cert.RawSubjectPublicKeyInfo
	}
	return slices.ContainsFunc(shown, func(cert *x509.Certificate) bool { return bytes.Equal(cert.RawSubjectPublicKeyInfo, data) })
}
