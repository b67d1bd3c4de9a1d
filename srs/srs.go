// Package srs writes a mail sender's address into one of our own, so that what
// we forward passes SPF under our name and a bounce still finds its way back
// (the Sender Rewriting Scheme, wire-compatible with Mail::SRS, libsrs2 and
// PostSRSd):
//
//	ada@example.org  ->  SRS0=hash=stamp=example.org=ada@srs.example.net
//	SRS0... of another forwarder  ->  SRS1=hash=first.example==...@srs.example.net
//
// Encoding and decoding are pure functions of the Codec, the address and the
// time. The hash is an HMAC, so that nobody can have us mail an address of his
// choice; the stamp ends its life after Codec.MaxAge. What a caller must know:
//
//   - Accept mail to an SRS address from the null sender only: a genuine one
//     that was harvested is otherwise a free relay for MaxAge.
//   - Only plain ASCII senders fit, and only short ones: with the default hash,
//     up to 45 octets. The rest needs a form that is stored.
//   - Mail servers on the way may change the case of the whole address. Then
//     the sender comes back in that case too.
//   - The format hashes stamp, domain and local part without delimiters, so
//     somebody who holds a valid address can move the border of the last two
//     (ab@c.de for b@c.dea). He could have forged that sender to begin with.
//   - The stamp counts days modulo 1024, so an address is valid again after 1024
//     days; change the secret sooner than that.
package srs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What a Codec takes for fields that are zero, and the limits of the hash: one
// with less than 4 characters protects nothing, and 27 are a whole HMAC-SHA1.
const (
	DefaultHashLength = 10 // about 52 bits, as case is ignored
	DefaultMaxAge     = 14 * 24 * time.Hour
	MinHashLength     = 4
	MaxHashLength     = 27
)

// Limits of RFC 5321 4.5.3.1 on what Encode returns, in octets.
const (
	maxLocal = 64
	maxPath  = 254
)

// maxDays keeps MaxAge clear of the wrap at 1024 days.
const maxDays = 1000

// Reasons for which an address is refused, to be tested with errors.Is.
var (
	ErrSyntax  = errors.New("not an address that SRS can carry")
	ErrNotSRS  = errors.New("not an SRS address of this domain")
	ErrHash    = errors.New("the SRS hash is wrong: forged or damaged")
	ErrExpired = errors.New("the SRS address has expired")
	ErrTooLong = errors.New("the SRS address would be longer than SMTP allows")
)

// A Codec encodes and decodes the addresses of one SRS domain. It may be used
// by several goroutines.
type Codec struct {
	Secrets    []string      // the first signs, all verify; at least one
	Domain     string        // what stands after the "@"
	HashLength int           // characters written, and the fewest accepted; 0: DefaultHashLength
	MaxAge     time.Duration // whole days, 1 to 1000; 0: DefaultMaxAge
	Separator  byte          // written after the tag: '=', '+' or '-'; 0: '='. All are read
}

// Is reports whether a local part has the form of an SRS address: SRS0 or SRS1
// in any case, and one of "=+-". It says nothing about its hash.
func Is(local string) bool {
	version, _ := cutTag(local)
	return version != 0
}

// Encode returns the address in c.Domain for the sender address ("ada@example.org").
// An address that is in c.Domain already stays as it is, unless it is an SRS
// address that would not decode. Errors are ErrSyntax, ErrTooLong (local part
// above 64 octets or path above 254), and for addresses in c.Domain those of Decode.
func (c Codec) Encode(address string, now time.Time) (string, error) {
	c, err := c.complete()
	if err != nil {
		return "", err
	}
	encoded, err := c.encode(address, now)
	if err != nil {
		return "", fmt.Errorf("%.80q: %w", address, err)
	}
	if len(encoded) > maxPath || strings.LastIndexByte(encoded, '@') > maxLocal {
		return "", fmt.Errorf("%.80q: %w", address, ErrTooLong)
	}
	return encoded, nil
}

// Decode returns the address that Encode was given, or for SRS1 the SRS0
// address at the first forwarder. Addresses longer than SMTP allows are read.
// Errors are ErrSyntax, ErrNotSRS, ErrHash and ErrExpired, which also stands for
// a stamp in the future.
func (c Codec) Decode(address string, now time.Time) (string, error) {
	c, err := c.complete()
	if err != nil {
		return "", err
	}
	decoded, err := c.decode(address, now)
	if err != nil {
		return "", fmt.Errorf("%.80q: %w", address, err)
	}
	return decoded, nil
}

// complete returns c with its defaults filled in, or what is wrong with it.
func (c Codec) complete() (Codec, error) {
	if c.HashLength == 0 {
		c.HashLength = DefaultHashLength
	}
	if c.MaxAge == 0 {
		c.MaxAge = DefaultMaxAge
	}
	if c.Separator == 0 {
		c.Separator = '='
	}
	switch {
	case len(c.Secrets) == 0 || slices.Contains(c.Secrets, ""):
		return c, errors.New("SRS needs a secret")
	case !validDomain(c.Domain):
		return c, fmt.Errorf("SRS domain %q is not a domain name", c.Domain)
	case c.HashLength < MinHashLength || c.HashLength > MaxHashLength:
		return c, fmt.Errorf("SRS hash length %d is not within %d to %d", c.HashLength, MinHashLength, MaxHashLength)
	case c.MaxAge < day || c.MaxAge > maxDays*day:
		return c, fmt.Errorf("SRS maximum age %v is not within 1 to %d days", c.MaxAge, maxDays)
	case !isSeparator(c.Separator):
		return c, fmt.Errorf("SRS separator %q is none of = + -", c.Separator)
	}
	return c, nil
}

func (c Codec) encode(address string, now time.Time) (string, error) {
	local, domain, err := split(address)
	if err != nil {
		return "", err
	}
	version, rest := cutTag(local)
	switch {
	case strings.EqualFold(domain, c.Domain):
		if version != 0 {
			_, err = c.decode(address, now)
		}
		return address, err
	case version == '0':
		return c.encode1(domain, rest)
	case version == '1':
		_, host, rest, err := splitSRS1(rest)
		if err != nil {
			return "", err
		}
		return c.encode1(host, rest)
	}
	return c.encode0(domain, local, now), nil
}

// encode0 writes the first hop.
func (c Codec) encode0(domain, local string, now time.Time) string {
	stamp := stampOf(now)
	hash := c.sign(stamp, domain, local)
	return fmt.Sprintf("SRS0%c%s=%s=%s=%s@%s", c.Separator, hash, stamp, domain, local, c.Domain)
}

// encode1 writes every later hop. It names the first forwarder and what that
// one wrote after its tag, so that a chain of forwarders does not lengthen it.
func (c Codec) encode1(host, rest string) (string, error) {
	if len(rest) < 2 {
		return "", ErrSyntax
	}
	hash := c.sign(host, rest)
	return fmt.Sprintf("SRS1%c%s=%s=%s@%s", c.Separator, hash, host, rest, c.Domain), nil
}

func (c Codec) decode(address string, now time.Time) (string, error) {
	local, domain, err := split(address)
	if err != nil {
		return "", err
	}
	version, rest := cutTag(local)
	switch {
	case version == 0 || !strings.EqualFold(domain, c.Domain):
		return "", ErrNotSRS
	case version == '0':
		return c.decode0(rest, now)
	}
	return c.decode1(rest)
}

// decode0 believes nothing, the stamp included, before the hash is right.
func (c Codec) decode0(rest string, now time.Time) (string, error) {
	hash, stamp, domain, local, err := splitSRS0(rest)
	if err != nil {
		return "", err
	}
	if err := c.verify(hash, stamp, domain, local); err != nil {
		return "", err
	}
	age, err := daysSince(stamp, now)
	if err != nil {
		return "", err
	}
	if age > int(c.MaxAge/day) {
		return "", ErrExpired
	}
	return join(local, domain)
}

func (c Codec) decode1(rest string) (string, error) {
	hash, host, rest, err := splitSRS1(rest)
	if err != nil {
		return "", err
	}
	if err := c.verify(hash, host, rest); err != nil {
		return "", err
	}
	return join("SRS0"+rest, host)
}
