// Package dane holds the certificate of a mail host against its TLSA records,
// as RFC 7672 has it for SMTP. It asks nobody: the caller brings records that
// were validated with DNSSEC, and the certificates of the handshake.
//
// DANE-EE(3) vouches for a certificate or key whatever else is in it: names and
// dates do not count. DANE-TA(2) vouches for whoever issued it: names, dates and
// the chain count. The other usages ask for an authority that SMTP has not
// agreed on, and are unusable (RFC 7672 3.1.3).
package dane

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"onward/internal/resolver"
)

// Numbers in TLSA records (RFC 6698 7, RFC 7218).
const (
	usageTA, usageEE         = 2, 3
	selectorCert, selectorPK = 0, 1
	full, sha2256, sha2512   = 0, 1, 2
)

// Bounds of what a stranger's host and DNS make us compute. The handshake holds
// the keys of the certificates shown to the same number of bits.
const (
	maxRecords = 16
	maxShown   = 10
	maxRSABits = 8192
)

// ErrMismatch means that no record vouches for the certificate that was shown.
// Every other error of Verify is about a chain that a record does vouch for,
// as package x509 has it.
var ErrMismatch = errors.New("no TLSA record matches the certificate")

// Usable returns the records that can be held against a certificate. Where two
// differ in their digest only, the weaker is left out, as whoever could forge
// it would (RFC 7671 9). Of what is left the first 16 count.
func Usable(records []resolver.TLSA) []resolver.TLSA {
	type kind struct{ usage, selector uint8 }
	strong := map[kind]bool{}
	var good []resolver.TLSA
	for _, r := range records {
		if usable(r) {
			good = append(good, r)
			strong[kind{r.Usage, r.Selector}] = strong[kind{r.Usage, r.Selector}] || r.Matching == sha2512
		}
	}
	good = slices.DeleteFunc(good, func(r resolver.TLSA) bool {
		return r.Matching == sha2256 && strong[kind{r.Usage, r.Selector}]
	})
	return good[:min(len(good), maxRecords)]
}

// usable reports whether r is understood and not damaged.
func usable(r resolver.TLSA) bool {
	if r.Usage != usageTA && r.Usage != usageEE || r.Selector != selectorCert && r.Selector != selectorPK {
		return false
	}
	switch r.Matching {
	case sha2256:
		return len(r.Data) == sha256.Size
	case sha2512:
		return len(r.Data) == sha512.Size
	case full:
		if r.Selector == selectorCert {
			cert, err := x509.ParseCertificate(r.Data)
			return err == nil && bearable(cert.PublicKey)
		}
		key, err := x509.ParsePKIXPublicKey(r.Data)
		return err == nil && bearable(key)
	}
	return false
}

// bearable reports whether verifying one signature with key takes little time.
func bearable(key any) bool {
	k, ok := key.(*rsa.PublicKey)
	return !ok || k.N.BitLen() <= maxRSABits
}

// Verify holds the certificates that a host has shown, its own first, against
// usable records. names are those that the host may have, for records that
// vouch for its issuer (RFC 7672 3.2.2); no chain of more than 10 is held
// against those.
func Verify(records []resolver.TLSA, names []string, shown []*x509.Certificate, now time.Time) error {
	if len(shown) == 0 {
		return ErrMismatch
	}
	for _, r := range records {
		if r.Usage == usageEE && matches(r, shown[0]) {
			return nil
		}
	}
	if len(shown) > maxShown {
		return fmt.Errorf("a chain of %d certificates, over %d", len(shown), maxShown)
	}
	anchors := anchors(records, shown)
	if len(anchors) == 0 {
		return ErrMismatch
	}
	if err := chain(anchors, shown, now); err != nil {
		return err
	}
	return named(shown[0], names)
}

// matches reports whether r is about cert.
func matches(r resolver.TLSA, cert *x509.Certificate) bool {
	data := cert.Raw
	if r.Selector == selectorPK {
		data = cert.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case sha2256:
		sum := sha256.Sum256(data)
		data = sum[:]
	case sha2512:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return bytes.Equal(data, r.Data)
}

// anchors returns what may end a chain: certificates that were shown and that a
// record vouches for, and those that a record itself holds (RFC 7671 5.2.2).
func anchors(records []resolver.TLSA, shown []*x509.Certificate) []*x509.Certificate {
	var found []*x509.Certificate
	for _, r := range records {
		if r.Usage != usageTA {
			continue
		}
		for _, cert := range shown {
			if matches(r, cert) {
				found = append(found, cert)
			}
		}
		if r.Matching == full {
			found = append(found, held(r, shown)...)
		}
	}
	return found
}

// forever is past the end of every certificate (RFC 5280 4.1.2.5).
var forever = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// held returns the issuer that r holds: as it is, or for a bare key one for
// each name under which that key may have issued what was shown.
func held(r resolver.TLSA, shown []*x509.Certificate) []*x509.Certificate {
	if r.Selector == selectorCert {
		cert, err := x509.ParseCertificate(r.Data)
		if err != nil {
			return nil
		}
		return []*x509.Certificate{cert}
	}
	key, err := x509.ParsePKIXPublicKey(r.Data)
	if err != nil {
		return nil
	}
	var issuers []*x509.Certificate
	names := map[string]bool{}
	for _, cert := range shown {
		if names[string(cert.RawIssuer)] {
			continue
		}
		names[string(cert.RawIssuer)] = true
		issuers = append(issuers, &x509.Certificate{
			Raw:        slices.Concat(r.Data, cert.RawIssuer), // tells issuers apart in a pool
			RawSubject: cert.RawIssuer, Subject: cert.Issuer,
			PublicKey: key, PublicKeyAlgorithm: x509.RSA, // any but unknown: the key itself says
			Version: 3, IsCA: true, BasicConstraintsValid: true, MaxPathLen: -1,
			NotAfter: forever, // a key has no dates
		})
	}
	return issuers
}

// chain holds that the host's own certificate leads to an anchor, and that it is
// not too early or too late for any on the way.
func chain(anchors, shown []*x509.Certificate, now time.Time) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, cert := range anchors {
		roots.AddCert(cert)
	}
	for _, cert := range shown[1:] {
		between.AddCert(cert)
	}
	_, err := shown[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now})
	return err
}

// named holds that cert is for one of names. One that has no names of the kind
// has its common name instead (RFC 7672 3.2.3).
func named(cert *x509.Certificate, names []string) error {
	if len(cert.DNSNames) == 0 && cert.Subject.CommonName != "" {
		cert = &x509.Certificate{Raw: cert.Raw, DNSNames: []string{cert.Subject.CommonName}}
	}
	err := errors.New("no name to look for in the certificate")
	for _, name := range names {
		if err = cert.VerifyHostname(strings.TrimSuffix(name, ".")); err == nil {
			return nil
		}
	}
	return err
}
