package srs

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"strings"
	"time"
)

const day = 24 * time.Hour

// base32 is the alphabet of stamps, without the digits that look like letters.
const base32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

// wrap is the number of days that a stamp of two characters can tell apart.
const wrap = len(base32) * len(base32)

// stampOf returns the UTC day of now, modulo wrap.
func stampOf(now time.Time) string {
	n := daysOf(now) % wrap
	return string([]byte{base32[n/len(base32)], base32[n%len(base32)]})
}

// daysSince returns the age of a stamp of two characters, 0 to wrap-1. One from
// tomorrow is as old as can be.
func daysSince(stamp string, now time.Time) (int, error) {
	stamp = strings.ToUpper(stamp)
	high, low := strings.IndexByte(base32, stamp[0]), strings.IndexByte(base32, stamp[1])
	if high < 0 || low < 0 {
		return 0, ErrSyntax
	}
	return (daysOf(now)%wrap + wrap - high*len(base32) - low) % wrap, nil
}

// daysOf counts from 1970-01-01; a clock before that is taken for that day.
func daysOf(now time.Time) int {
	return int(max(now.Unix(), 0) / int64(day/time.Second))
}

// sign returns the hash that we write.
func (c Codec) sign(parts ...string) string {
	return mac(c.Secrets[0], parts)[:c.HashLength]
}

// verify compares every character of hash under every secret, in a time that
// does not tell how many were right.
func (c Codec) verify(hash string, parts ...string) error {
	if len(hash) < c.HashLength || len(hash) > MaxHashLength {
		return ErrHash
	}
	given, right := foldHash(hash), 0
	for _, secret := range c.Secrets {
		want := foldHash(mac(secret, parts)[:len(hash)])
		right |= subtle.ConstantTimeCompare(given, want)
	}
	if right == 0 {
		return ErrHash
	}
	return nil
}

// mac returns all 27 characters of a hash. The alphabet is base64url, since
// some mail servers refuse the "/" of base64 (STANDARDS.md D11). Only ASCII
// comes this far, so that lower case means the same to every implementation.
func mac(secret string, parts []string) string {
	h := hmac.New(sha1.New, []byte(secret))
	for _, part := range parts {
		h.Write([]byte(strings.ToLower(part)))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// foldHash makes hashes equal that differ in case or base64 alphabet.
func foldHash(hash string) []byte {
	folded := []byte(strings.ToLower(hash))
	for i, c := range folded {
		switch c {
		case '+':
			folded[i] = '-'
		case '/':
			folded[i] = '_'
		}
	}
	return folded
}

// cutTag returns '0' or '1' and what follows "SRS0" or "SRS1" in local, which
// begins with a separator; or 0.
func cutTag(local string) (version byte, rest string) {
	const n = len("SRS0")
	if len(local) <= n || !strings.EqualFold(local[:n-1], "SRS") || !isSeparator(local[n]) {
		return 0, ""
	}
	if version = local[n-1]; version != '0' && version != '1' {
		return 0, ""
	}
	return version, local[n:]
}

func isSeparator(c byte) bool { return c == '=' || c == '+' || c == '-' }

// splitSRS0 takes what cutTag returned apart. The local part may contain "=".
// The stamp has two characters, or it could lend some to the domain unnoticed.
func splitSRS0(rest string) (hash, stamp, domain, local string, err error) {
	fields := strings.SplitN(rest[1:], "=", 4)
	if len(fields) < 4 || len(fields[1]) != 2 || fields[2] == "" || fields[3] == "" {
		return "", "", "", "", ErrSyntax
	}
	return fields[0], fields[1], fields[2], fields[3], nil
}

// splitSRS1 does the same for SRS1. What follows the host is the rest of an SRS0
// address: a separator and at least one character.
func splitSRS1(rest string) (hash, host, inner string, err error) {
	fields := strings.SplitN(rest[1:], "=", 3)
	if len(fields) < 3 || !validDomain(fields[1]) || len(fields[2]) < 2 || !isSeparator(fields[2][0]) {
		return "", "", "", ErrSyntax
	}
	return fields[0], fields[1], fields[2], nil
}

// split takes an address apart that SRS can carry: no quotes, nothing outside
// ASCII, no "=" in the domain (STANDARDS.md S7).
func split(address string) (local, domain string, err error) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 || !validLocal(address[:at]) || !validDomain(address[at+1:]) {
		return "", "", ErrSyntax
	}
	return address[:at], address[at+1:], nil
}

// join is the reverse of split, and as strict: a right hash does not make an
// address of what is none.
func join(local, domain string) (string, error) {
	if !validLocal(local) || !validDomain(domain) {
		return "", ErrSyntax
	}
	return local + "@" + domain, nil
}

// validLocal takes the dot-strings of RFC 5321 4.1.2.
func validLocal(s string) bool { return validDots(s, "!#$%&'*+-/=?^_`{|}~") }

// validDomain takes names, with the underscore that real hosts use, and of any
// length: whether it exists is not decided here. "1" is one.
func validDomain(s string) bool { return validDots(s, "-_") }

// validDots reports whether s is letters, digits and others, with single dots
// between them.
func validDots(s, others string) bool {
	previous := byte('.')
	for i := range len(s) {
		c := s[i]
		switch {
		case c == '.' && previous != '.':
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c != '.' && strings.IndexByte(others, c) >= 0:
		default:
			return false
		}
		previous = c
	}
	return previous != '.'
}
