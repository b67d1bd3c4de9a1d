package dkim

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"onward/internal/resolver"
)

// Bounds of keys (RFC 8301 3.2, RELIABILITY 50).
const (
	MinRSABits   = 1024
	MaxRSABits   = 4096
	maxKeyRecord = 8 << 10 // octets of a TXT record
)

// An Algorithm is the value of an a= tag that this package can verify.
type Algorithm string

// The algorithms in use: RFC 6376 3.3.2 and RFC 8463. Rsa-sha1 is not one of
// them: RFC 8301 3.1 forbids to verify it (K6).
const (
	RSASHA256     Algorithm = "rsa-sha256"
	Ed25519SHA256 Algorithm = "ed25519-sha256"
)

// A Key is one key record (RFC 6376 3.6.1, RFC 8463 4).
type Key struct {
	Tags     Tags     // the record as it stands, attribute by attribute
	Type     string   // k=: "rsa" or "ed25519"
	Hashes   []string // h=: allowed hashes; nil allows all
	Services []string // s=: nil or "*" is every service, else "email" must be there
	Testing  bool     // t=y: the owner is trying it out
	Strict   bool     // t=s: i= must be in d= itself, not below it
	Bits     int      // size of the key

	rsa     *rsa.PublicKey
	ed25519 ed25519.PublicKey
}

// A Failure is why something did not verify, as RFC 8601 2.7.1 puts it.
type Failure struct {
	Result string // Fail, PermError, TempError or Policy
	Reason string // one line; what it quotes from the message is escaped
	Err    error  // what the resolver said, or nil
}

// Error returns the reason.
func (f *Failure) Error() string { return f.Reason }

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

func permError(format string, args ...any) *Failure {
	return &Failure{Result: PermError, Reason: fmt.Sprintf(format, args...)}
}

// LookupKey finds the key record at selector._domainkey.domain (RFC 6376 3.6.2.1).
// The error is a *Failure: TempError when the DNS could not tell, else PermError.
func LookupKey(ctx context.Context, r resolver.Resolver, selector, domain string) (*Key, error) {
	answer, err := r.Lookup(ctx, selector+"._domainkey."+domain, resolver.TypeTXT)
	switch {
	case errors.Is(err, resolver.ErrNotFound), errors.Is(err, resolver.ErrNoData):
		return nil, &Failure{PermError, "no key for signature", err}
	case err != nil:
		return nil, &Failure{TempError, "key not available", err}
	}
	records := answer.TXT()
	if len(records) != 1 {
		return nil, permError("%d key records where one is allowed", len(records)) // K7
	}
	return known.parse(records[0])
}

// known remembers what key records say: reading one costs a twentieth of a
// verification, and a busy signer's comes with every message. It holds texts,
// not names, so a changed record is another entry, and it may forget anything.
var known keyring

const maxKnown = 1000 // some megabytes at most

type keyring struct {
	mu   sync.Mutex
	keys map[string]*Key
}

// parse is ParseKey. Keys are shared: nobody changes one.
func (k *keyring) parse(record string) (*Key, error) {
	k.mu.Lock()
	key := k.keys[record]
	k.mu.Unlock()
	if key != nil {
		return key, nil
	}
	key, err := ParseKey(record)
	if err != nil {
		return key, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil || len(k.keys) >= maxKnown {
		k.keys = map[string]*Key{}
	}
	k.keys[record] = key
	return key, nil
}

// ParseKey reads a key record. The error is a *Failure with PermError; the key
// beside it is not nil when the tags could be read, so that they can be shown.
func ParseKey(record string) (*Key, error) {
	if len(record) > maxKeyRecord {
		return nil, permError("key record longer than %d octets", maxKeyRecord)
	}
	tags, err := ParseTags(record)
	if err != nil {
		return nil, permError("key record: %v", err)
	}
	k := &Key{Tags: tags, Type: "rsa", Hashes: tags.List("h"), Services: tags.List("s")}
	if kind, ok := tags.Get("k"); ok {
		k.Type = kind
	}
	flags := tags.List("t")
	k.Testing, k.Strict = slices.Contains(flags, "y"), slices.Contains(flags, "s")
	if err := k.check(); err != nil {
		return k, err
	}
	return k, k.readPublic()
}

// check applies what RFC 6376 3.6.1 says of the tags but p=.
func (k *Key) check() error {
	for i, tag := range k.Tags {
		if tag.Name == "v" && (i != 0 || tag.Value != "DKIM1") {
			return permError("key record: v= must be DKIM1 and come first")
		}
	}
	if k.Hashes != nil && !slices.Contains(k.Hashes, "sha256") {
		return permError("key does not allow sha256")
	}
	if k.Services != nil && !slices.Contains(k.Services, "*") && !slices.Contains(k.Services, "email") {
		return permError("key is not for email")
	}
	return nil
}

// readPublic reads p=.
func (k *Key) readPublic() error {
	if p, ok := k.Tags.Get("p"); ok && p == "" {
		return permError("key was revoked")
	}
	public, err := k.Tags.Base64("p")
	if err != nil {
		return permError("key record: %v", err)
	}
	switch k.Type {
	case "rsa":
		return k.readRSA(public)
	case "ed25519":
		if len(public) != ed25519.PublicKeySize {
			return permError("ed25519 key of %d octets", len(public))
		}
		k.ed25519, k.Bits = public, 256
		return nil
	default:
		return permError("key type %.20q is unknown", k.Type)
	}
}

// readRSA takes a SubjectPublicKeyInfo, or the bare RSAPublicKey that the
// words of RFC 6376 3.6.1 also fit. The size is judged before any arithmetic.
func (k *Key) readRSA(der []byte) error {
	n, e, ok := parseRSA(der)
	if !ok {
		return permError("rsa key cannot be read")
	}
	k.Bits = n.BitLen()
	if k.Bits < MinRSABits || k.Bits > MaxRSABits {
		return permError("rsa key of %d bits, not %d to %d", k.Bits, MinRSABits, MaxRSABits)
	}
	if n.Bit(0) == 0 || e < 3 || e > math.MaxInt32 || e&1 == 0 {
		return permError("rsa key is not valid")
	}
	k.rsa = &rsa.PublicKey{N: n, E: e}
	return nil
}

// Verify checks a signature over a SHA-256 digest (RFC 6376 3.3, RFC 8463 3).
// The error is a *Failure: PermError when key and algorithm do not fit, Fail
// when the signature is wrong.
func (k *Key) Verify(a Algorithm, digest [sha256.Size]byte, signature []byte) error {
	switch {
	case a == RSASHA256 && k.rsa != nil:
		if rsa.VerifyPKCS1v15(k.rsa, crypto.SHA256, digest[:], signature) == nil {
			return nil
		}
	case a == Ed25519SHA256 && k.ed25519 != nil:
		if ed25519.Verify(k.ed25519, digest[:], signature) {
			return nil
		}
	default:
		return permError("algorithm %s does not fit a key of type %.20q", a, k.Type)
	}
	return &Failure{Result: Fail, Reason: "signature did not verify"}
}
