package dane_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"onward/internal/resolver"
	"onward/internal/tlspolicy/dane"
)

// newKey returns a key, and the record by which it vouches for what it issued.
func newKey(t *testing.T) (ed25519.PrivateKey, resolver.TLSA) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return private, resolver.TLSA{Usage: 2, Selector: 1, Matching: 0, Data: der}
}

// issue returns a certificate about public, by key in the name of "ca".
func issue(t *testing.T, public any, key ed25519.PrivateKey, notAfter time.Time) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"mx.example"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: notAfter,
	}, &x509.Certificate{Subject: pkix.Name{CommonName: "ca"}}, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestBounds: what the host shows times what its DNS holds stays small.
func TestBounds(t *testing.T) {
	key, vouching := newKey(t)
	cert := issue(t, key.Public(), key, time.Now().Add(time.Hour))
	records := []resolver.TLSA{vouching}
	for range 99 {
		_, r := newKey(t)
		records = append(records, r)
	}
	usable := dane.Usable(records)
	if len(usable) != 16 || !slices.Equal(usable[0].Data, vouching.Data) {
		t.Errorf("%d usable records", len(usable))
	}
	names := []string{"mx.example"}
	if err := dane.Verify(usable, names, slices.Repeat([]*x509.Certificate{cert}, 10), time.Now()); err != nil {
		t.Errorf("ten certificates: %v", err)
	}
	err := dane.Verify(usable, names, slices.Repeat([]*x509.Certificate{cert}, 11), time.Now())
	if err == nil || errors.Is(err, dane.ErrMismatch) {
		t.Errorf("eleven certificates: %v", err)
	}
}

// TestBareKeyDates: dates count for the certificates of one issuer each by itself.
func TestBareKeyDates(t *testing.T) {
	key, vouching := newKey(t)
	good, old := issue(t, key.Public(), key, time.Now().Add(time.Hour)), issue(t, key.Public(), key, time.Now().Add(-time.Hour))
	for _, tt := range []struct {
		shown []*x509.Certificate
		ok    bool
	}{
		{[]*x509.Certificate{good, old}, true},
		{[]*x509.Certificate{old, good}, false},
	} {
		if err := dane.Verify([]resolver.TLSA{vouching}, []string{"mx.example"}, tt.shown, time.Now()); (err == nil) != tt.ok {
			t.Errorf("want %v, got %v", tt.ok, err)
		}
	}
}

// TestLargeKeys: a key that takes seconds to verify with vouches for nobody.
func TestLargeKeys(t *testing.T) {
	signer, _ := newKey(t)
	for bits, want := range map[uint]int{8192: 2, 8200: 0} {
		n := new(big.Int).Lsh(big.NewInt(1), bits)
		public := &rsa.PublicKey{N: n.Sub(n, big.NewInt(1)), E: 65537}
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		usable := dane.Usable([]resolver.TLSA{
			{Usage: 2, Selector: 1, Matching: 0, Data: der},
			{Usage: 2, Selector: 0, Matching: 0, Data: issue(t, public, signer, time.Now().Add(time.Hour)).Raw},
		})
		if len(usable) != want {
			t.Errorf("%d bits: %d usable records, want %d", bits, len(usable), want)
		}
	}
}
