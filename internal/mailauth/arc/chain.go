package arc

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"

	"onward/internal/mailauth/dkim"
	"onward/internal/message"
)

// The names of the fields of a set, as the index of a header knows them.
const (
	sealName    = "arc-seal"
	messageName = "arc-message-signature"
	resultsName = "arc-authentication-results"
)

// A Chain is the ARC sets of a message, read but not yet verified.
type Chain struct {
	header *dkim.Header
	sets   []set // by instance; nil when the fields make up none

	// fault is what no signature could mend: RFC 8617 5.2 steps 1 to 3.
	fault string
}

// A set is the three fields with one instance number.
type set struct {
	seal    seal
	message signature
	results results
	body    *dkim.BodyHash // what bh= of the message signature should be
}

// Prepare reads the chain of a message and asks bodies for the hashes that
// Finish compares.
func Prepare(header *dkim.Header, bodies *dkim.BodyHashes) *Chain {
	c := read(header)
	if c.fault != "" {
		return c
	}
	for i := range c.sets {
		s := &c.sets[i]
		s.body = bodies.Ask(s.message.Body, s.message.Signed)
	}
	return c
}

// read collects the sets and checks all that needs no cryptography.
func read(header *dkim.Header) *Chain {
	c := &Chain{header: header}
	if err := c.collect(); err != nil {
		c.fault = err.Error()
	} else if err := c.checkCV(); err != nil {
		c.fault = err.Error()
	}
	return c
}

// collect reads the fields of each kind and joins those of one instance.
func (c *Chain) collect() error {
	n := [3]int{}
	for i, name := range []string{sealName, messageName, resultsName} {
		n[i] = len(c.header.Named(name))
	}
	switch {
	case max(n[0], n[1], n[2]) > MaxSets:
		return fmt.Errorf("more than %d sets", MaxSets)
	case n[0] > 0 && c.header.Malformed():
		return errors.New("a line of the header is no field, so programs differ about where it ends")
	case n[0] != n[1] || n[0] != n[2]:
		return fmt.Errorf("%d seals, %d message signatures and %d results do not make sets", n[0], n[1], n[2])
	}
	seals, err := place(c.header, sealName, parseSeal)
	if err != nil {
		return err
	}
	messages, err := place(c.header, messageName, parseMessageSignature)
	if err != nil {
		return err
	}
	results, err := place(c.header, resultsName, parseResults)
	if err != nil {
		return err
	}
	for i := range seals {
		c.sets = append(c.sets, set{seal: seals[i], message: messages[i], results: results[i]})
	}
	return nil
}

// place reads the n fields of one name and puts each where its instance says.
// The instances 1 to n are all there when none stands twice or outside.
func place[T any](h *dkim.Header, name string, parse func(message.Field, int) (int, T, error)) ([]T, error) {
	positions := h.Named(name)
	found := make([]T, len(positions))
	taken := make([]bool, len(positions))
	for _, position := range positions {
		f := h.Field(position)
		instance, v, err := parse(f, position)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		case instance < 1 || instance > len(found):
			return nil, fmt.Errorf("%s: instance %d in a chain of %d sets", f.Name, instance, len(found))
		case taken[instance-1]:
			return nil, fmt.Errorf("%s: instance %d stands twice", f.Name, instance)
		}
		found[instance-1], taken[instance-1] = v, true
	}
	return found, nil
}

// checkCV wants none in the first seal and pass in all others. One that says
// fail ends the chain, whatever came before it.
func (c *Chain) checkCV() error {
	if n := len(c.sets); n > 0 && c.sets[n-1].seal.cv == Fail {
		return fmt.Errorf("the seal of set %d says cv=fail", n)
	}
	for i, s := range c.sets {
		want := Pass
		if i == 0 {
			want = None
		}
		if s.seal.cv != want {
			return fmt.Errorf("the seal of set %d says cv=%s instead of cv=%s", i+1, s.seal.cv, want)
		}
	}
	return nil
}

// sealDigests returns what each seal signs: all sets from the first to its own,
// with its own b= emptied (RFC 8617 5.1.1). Each field is hashed once, as every
// seal continues where the one before it stood.
func (c *Chain) sealDigests() [][sha256.Size]byte {
	sums := make([][sha256.Size]byte, len(c.sets))
	h := sha256.New()
	var buf []byte
	for i, s := range c.sets {
		buf = dkim.Relaxed.AppendField(buf[:0], s.results.raw)
		h.Write(dkim.Relaxed.AppendField(buf, s.message.raw))
		own, _ := h.(hash.Cloner).Clone() // never fails for SHA-256
		own.Write(dkim.Relaxed.AppendSigned(nil, s.seal.raw))
		own.Sum(sums[i][:0])
		h.Write(dkim.Relaxed.AppendField(buf[:0], s.seal.raw))
	}
	return sums
}
