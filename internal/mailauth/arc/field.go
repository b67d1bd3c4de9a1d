package arc

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"onward/internal/address"
	"onward/internal/mailauth/authres"
	"onward/internal/mailauth/dkim"
	"onward/internal/message"
)

// A seal is an ARC-Seal (RFC 8617 4.1.3).
type seal struct {
	raw              []byte
	algorithm        dkim.Algorithm
	domain, selector string
	cv               string
	value            []byte // b=
}

func parseSeal(f message.Field, _ int) (instance int, s seal, err error) {
	tags, err := dkim.ParseTags(f.Value())
	if err != nil {
		return 0, s, err
	}
	if _, ok := tags.Get("h"); ok { // what a seal covers is fixed
		return 0, s, errors.New("tag h= is not allowed")
	}
	if _, err := tags.Number("t"); err != nil {
		return 0, s, err
	}
	a, _ := tags.Get("a")
	if s.algorithm = dkim.Algorithm(a); s.algorithm != dkim.RSASHA256 && s.algorithm != dkim.Ed25519SHA256 {
		return 0, s, fmt.Errorf("algorithm %.40q is unknown", a)
	}
	s.cv, _ = tags.Get("cv")
	if s.cv != None && s.cv != Pass && s.cv != Fail {
		return 0, s, fmt.Errorf("cv=%.40q is not none, pass or fail", s.cv)
	}
	if s.value, err = tags.Base64("b"); err != nil || len(s.value) == 0 {
		return 0, s, errors.New("tag b= is missing, empty or not base64")
	}
	s.raw = f.Raw
	if s.domain, s.selector, err = parseSigner(tags); err != nil {
		return 0, s, err
	}
	instance, err = parseInstance(tags)
	return instance, s, err
}

// parseSigner reads d= and s=, which must make a name that can be asked for.
func parseSigner(tags dkim.Tags) (domain, selector string, err error) {
	given, _ := tags.Get("d")
	d, err := address.ParseDomain(given)
	if err != nil || d.IsLiteral() {
		return "", "", errors.New("tag d= is not a domain name")
	}
	given, _ = tags.Get("s")
	name, err := address.ParseDomain(given + "." + d.String())
	if err != nil || name.IsLiteral() {
		return "", "", errors.New("tag s= is not a selector")
	}
	return d.String(), strings.TrimSuffix(name.String(), "."+d.String()), nil
}

// parseInstance reads i=, of which place judges the range.
func parseInstance(tags dkim.Tags) (int, error) {
	digits, _ := tags.Get("i")
	i, err := strconv.ParseUint(digits, 10, 8)
	if err != nil || len(digits) > 2 {
		return 0, fmt.Errorf("instance i=%.40q is no number of at most two digits", digits)
	}
	return int(i), nil
}

// A signature is an ARC-Message-Signature (RFC 8617 4.1.2).
type signature struct {
	*dkim.Signature
	raw      []byte
	position int // among the fields of the message
}

func parseMessageSignature(f message.Field, position int) (instance int, s signature, err error) {
	s.raw, s.position = f.Raw, position
	if s.Signature, err = dkim.ParseSignature(f.Raw); err != nil {
		return 0, s, err
	}
	is := func(want string) func(string) bool {
		return func(name string) bool { return strings.EqualFold(name, want) }
	}
	switch {
	case len(s.Value) == 0:
		return 0, s, errors.New("tag b= is empty")
	case !slices.ContainsFunc(s.Names, is("From")): // RFC 6376 5.4
		return 0, s, errors.New("tag h= does not cover From")
	case slices.ContainsFunc(s.Names, is(sealName)):
		return 0, s, errors.New("tag h= covers ARC-Seal")
	}
	instance, err = parseInstance(s.Tags)
	return instance, s, err
}

// results is an ARC-Authentication-Results (RFC 8617 4.1.1). What it says is the
// sealer's affair: only the instance must be right.
type results struct {
	raw    []byte
	text   string
	header authres.Header
}

func parseResults(f message.Field, _ int) (instance int, r results, err error) {
	r.raw = f.Raw
	if instance, r.text, err = authres.ParseInstance(f.Value()); err != nil {
		return 0, r, err
	}
	r.text = strings.TrimSpace(r.text)
	r.header, _ = authres.Parse(r.text)
	return instance, r, nil
}
