package dkim

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"onward/internal/message"
)

// A Proof is what is needed to see whether the signatures that passed on arrival
// pass on what goes out (DESIGN.md 9.4). Once the body that all copies of the
// message share has been read, Confirm costs a copy no more than its header. Nothing
// is asked of the DNS, and times are not judged again: only bytes are.
type Proof struct {
	passed []proven
}

// A proven is a signature that passed, and the body it is to pass with.
type proven struct {
	result *Result
	body   *BodyHash
}

// Prove asks bodies, which is then to read the body of the outgoing copies, for the
// hashes of all signatures that passed.
func Prove(results []Result, bodies *BodyHashes) *Proof {
	p := &Proof{}
	for i := range results {
		if r := &results[i]; r.Result == Pass {
			p.passed = append(p.passed, proven{r, bodies.Ask(r.Signature.Body, r.Signed)})
		}
	}
	return p
}

// A Survivor is a signature that passed on arrival, and what becomes of it.
type Survivor struct {
	Result *Result // the one given to Prove
	Alive  bool    // it passes on the outgoing bytes
	Reason string  // why it does not; one line

	// Expected says that it does not because of a field that a forwarder adds, or
	// has to take away. Otherwise we have changed what we must not change.
	Expected bool
}

// removable are the fields that are taken away when they bear our name (R1, R5).
// Package authres knows them.
var removable = []string{"authentication-results", "received-spf"}

// Confirm verifies the signatures on the header of an outgoing copy, whose first
// added fields are ours. A signature is known by its field, wherever that is now.
func (p *Proof) Confirm(fields []message.Field, added int) []Survivor {
	var survivors []Survivor
	outgoing, below := NewHeader(fields), NewHeader(fields[added:])
	from := 0
	for _, s := range p.passed {
		v := Survivor{Result: s.result}
		at := s.find(fields, from)
		if at < 0 {
			v.Reason = "its field is not there any more"
			survivors = append(survivors, v)
			continue
		}
		from = at + 1 // of two equal fields each is found once
		err := s.verify(outgoing, at)
		if v.Alive = err == nil; !v.Alive {
			v.Reason = err.Error()
			v.Expected = s.bodyIntact() && (s.covers(removable) || at >= added && s.verify(below, at-added) == nil)
		}
		survivors = append(survivors, v)
	}
	return survivors
}

// find returns the position of the signature's field, from that position on, or
// -1.
func (s proven) find(fields []message.Field, from int) int {
	for i := from; i < len(fields); i++ {
		if !fields[i].Is("DKIM-Signature") {
			continue
		}
		_, value, _ := bytes.Cut(fields[i].Raw, []byte(":"))
		if tags, err := ParseTags(string(value)); err == nil && slices.Equal(tags, s.result.Tags) {
			return i
		}
	}
	return -1
}

// verify checks the signature where it stands. The digest that it was verified for
// on arrival needs no arithmetic again, only to be the same.
func (s proven) verify(h *Header, at int) error {
	if err := s.result.CheckBody(s.body); err != nil {
		return err
	}
	if h.Malformed() {
		return errors.New("the header has a line that is no field")
	}
	digest, _ := s.result.Digest(h, at)
	if digest == s.result.digest {
		return nil
	}
	return s.result.Key.Verify(s.result.Algorithm, digest, s.result.Value)
}

func (s proven) bodyIntact() bool { return s.result.CheckBody(s.body) == nil }

// covers reports whether h= has one of names, which are in lower case.
func (s proven) covers(names []string) bool {
	return slices.ContainsFunc(s.result.Names, func(n string) bool { return slices.Contains(names, strings.ToLower(n)) })
}
