package dkim

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"slices"
	"strings"
	"time"

	"onward/internal/address"
)

// A Signature is what a field says that carries a signature over a message: a
// DKIM-Signature (RFC 6376 3.5) or an ARC-Message-Signature (RFC 8617 4.1.2).
// Texts are foreign; Domain and Selector are checked names.
type Signature struct {
	Tags      Tags             // the field as it stands, tag by tag
	Algorithm Algorithm        // a=
	Header    Canonicalization // c=, first word
	Body      Canonicalization // c=, second word
	Domain    string           // d=, in lower case, with A-labels (RFC 8616)
	Selector  string           // s=, likewise
	Identity  string           // i= decoded, or "@" and d=; of a DKIM-Signature only
	Names     []string         // h=
	Signed    int64            // l=, or NoLimit
	Timestamp time.Time        // t=, or zero
	Expires   time.Time        // x=, or zero
	BodyHash  []byte           // bh=
	Value     []byte           // b=
}

// ParseSignature reads the tags that both fields have, from one raw field.
// The error is a *Failure with PermError. The signature is never nil; beside an
// error it has what could be read.
func ParseSignature(raw []byte) (*Signature, error) {
	s := &Signature{Signed: NoLimit}
	_, value, _ := bytes.Cut(raw, []byte(":"))
	var err error
	if s.Tags, err = ParseTags(string(value)); err != nil {
		return s, permError("signature: %v", err)
	}
	algorithm, _ := s.Tags.Get("a")
	s.Algorithm = Algorithm(algorithm)
	return s, cmp.Or(s.readNames(), s.readAlgorithm(), s.readCanonicalization(), s.readQuery(),
		s.readTimes(), s.readHashes())
}

// readNames reads d=, s= and h=.
func (s *Signature) readNames() error {
	var err error
	if s.Domain, s.Selector, err = s.Tags.Signer(); err != nil {
		return err
	}
	if s.Names = s.Tags.List("h"); s.Names == nil || slices.Contains(s.Names, "") {
		return permError("signature: tag h= is missing or has an empty name")
	}
	return nil
}

// Signer returns d= and s= as names that can be asked for: in lower case, with
// A-labels (RFC 8616). The error is a *Failure with PermError.
func (t Tags) Signer() (domain, selector string, err error) {
	text, _ := t.Get("d")
	d, err := address.ParseDomain(text)
	if err != nil || d.IsLiteral() {
		return "", "", permError("signature: tag d= is not a domain name")
	}
	text, _ = t.Get("s")
	// A selector is a name, except that most end in a number.
	s, err := address.ParseDomain(text + ".x")
	if err != nil || s.IsLiteral() {
		return "", "", permError("signature: tag s= is not a selector")
	}
	return d.String(), strings.TrimSuffix(s.String(), ".x"), nil
}

func (s *Signature) readAlgorithm() error {
	switch s.Algorithm {
	case RSASHA256, Ed25519SHA256:
		return nil
	case "rsa-sha1":
		return permError("algorithm rsa-sha1 proves nothing (RFC 8301 3.1)") // K6
	default:
		return permError("algorithm %.40q is unknown", string(s.Algorithm))
	}
}

func (s *Signature) readCanonicalization() error {
	c, ok := s.Tags.Get("c")
	if !ok {
		return nil // simple/simple
	}
	header, body, both := strings.Cut(c, "/")
	if !both {
		body = "simple"
	}
	for _, part := range []struct {
		word string
		c    *Canonicalization
	}{{header, &s.Header}, {body, &s.Body}} {
		switch part.word {
		case "simple":
			*part.c = Simple
		case "relaxed":
			*part.c = Relaxed
		default:
			return permError("canonicalization %.40q is unknown", c)
		}
	}
	return nil
}

// readQuery wants a way to the key that we know among those of q=.
func (s *Signature) readQuery() error {
	if methods := s.Tags.List("q"); methods != nil && !slices.Contains(methods, "dns/txt") {
		return permError("signature: tag q= has no dns/txt")
	}
	return nil
}

// readTimes reads t=, x= and l=.
func (s *Signature) readTimes() error {
	t, errT := s.Tags.Number("t")
	x, errX := s.Tags.Number("x")
	l, errL := s.Tags.Number("l")
	if err := cmp.Or(errT, errX, errL); err != nil {
		return permError("signature: %v", err)
	}
	s.Signed = l
	if t >= 0 {
		s.Timestamp = time.Unix(t, 0)
	}
	if x >= 0 {
		s.Expires = time.Unix(x, 0)
	}
	if x >= 0 && x < t { // K2
		return permError("signature: expires (x=) before it was made (t=)")
	}
	return nil
}

func (s *Signature) readHashes() error {
	var err error
	if s.BodyHash, err = s.Tags.Base64("bh"); err != nil {
		return permError("signature: %v", err)
	}
	if s.Value, err = s.Tags.Base64("b"); err != nil {
		return permError("signature: %v", err)
	}
	return nil
}

// Digest returns the SHA-256 of the fields in s.Names and of the field that
// carries s, the one at position own, in that order (RFC 6376 3.7), and that
// text itself.
func (s *Signature) Digest(h *Header, own int) (sum [sha256.Size]byte, text []byte) {
	selected := h.Select(own, s.Names)
	size := len(h.fields[own].Raw)
	for _, i := range selected {
		size += len(h.fields[i].Raw)
	}
	text = make([]byte, 0, size)
	for _, i := range selected {
		text = s.Header.AppendField(text, h.fields[i].Raw)
	}
	text = s.Header.AppendSigned(text, h.fields[own].Raw)
	return sha256.Sum256(text), text
}

// CheckBody compares the digest of the body with bh=. The error is a *Failure:
// Fail when they differ, PermError when l= is longer than the body, Policy when
// it leaves out the end of the body (K4, RELIABILITY 51).
func (s *Signature) CheckBody(h *BodyHash) error {
	switch {
	case !bytes.Equal(s.BodyHash, h.Sum[:]):
		return &Failure{Result: Fail, Reason: "body hash did not verify"}
	case h.Limit > h.Length:
		return permError("l=%d is more than the %d octets of the body", h.Limit, h.Length)
	case !h.Covers():
		return &Failure{Result: Policy, Reason: "l= leaves the end of the body unsigned"}
	}
	return nil
}
