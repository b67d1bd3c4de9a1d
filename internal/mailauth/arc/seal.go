package arc

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"onward/internal/mailauth/authres"
	"onward/internal/mailauth/dkim"
	"onward/internal/message"
)

// A Sealer adds ARC sets in the name of one domain.
type Sealer struct {
	Key              crypto.Signer // RSA of 1024 bits or more: not every verifier knows Ed25519
	Domain, Selector string        // where its public key is published, in ASCII form

	// Headers are the names of the fields that the message signature covers; nil
	// for the usual ones that the message has.
	Headers []string
}

// usual are the fields that make up a message for its reader, and those that
// tell who signed it before (RFC 6376 5.4.1, RFC 8617 4.1.2). Fields of the
// way, such as Received and Authentication-Results, change.
var usual = []string{
	"from", "reply-to", "subject", "date", "to", "cc", "message-id", "in-reply-to", "references",
	"mime-version", "content-type", "content-transfer-encoding", "resent-from", "resent-to", "resent-date",
	"list-id", "list-help", "list-unsubscribe", "list-unsubscribe-post", "list-post", "dkim-signature",
}

// Seal returns the three fields of the next set, ready to stand above fields,
// or nil when none may be added: the chain is full, or broken in a way that
// another set cannot describe, or ended by cv=fail, or no verdict was reached
// (A3, RFC 8617 5.1). It is done last, after every other field (A3).
//
// The fields are those of the message as it goes out; body is the digest of
// its whole body in relaxed form. The chain is what Finish said of it when it
// came in, and results what goes into ARC-Authentication-Results.
func (s *Sealer) Seal(fields []message.Field, body [sha256.Size]byte, chain Result, results authres.Header, now time.Time) ([]byte, error) {
	if _, ok := s.Key.Public().(*rsa.PublicKey); !ok {
		return nil, errors.New("ARC key is not RSA")
	}
	header := dkim.NewHeader(fields)
	before := read(header)
	n := len(before.sets)
	if before.fault != "" || chain.Result == TempError || n == MaxSets {
		return nil, nil
	}
	cv := Pass
	switch {
	case n == 0:
		cv = None
	case chain.Result != Pass:
		cv = Fail
	}
	set := newSet{Sealer: s, instance: n + 1, time: now.Unix()}
	set.results = results.ARCField(set.instance)
	if err := set.signMessage(header, body); err != nil {
		return nil, fmt.Errorf("ARC-Message-Signature: %w", err)
	}
	if err := set.sign(before, cv); err != nil {
		return nil, fmt.Errorf("ARC-Seal: %w", err)
	}
	return append(append(set.seal, set.message...), set.results...), nil
}

// A newSet is a set that is being made, from results to seal. A value of b= stays
// whole, up to 688 octets for a key of 4096 bits: the seal covers the folds of the
// message signature too, and some programs undo them.
type newSet struct {
	*Sealer
	instance               int
	time                   int64
	results, message, seal []byte
}

// signMessage makes the message signature.
func (n *newSet) signMessage(header *dkim.Header, body [sha256.Size]byte) (err error) {
	names := n.Headers
	if names == nil {
		names = present(header)
	}
	n.message, err = dkim.Sign(n.Key, header, names, func(value string) []byte {
		return dkim.LayOut("ARC-Message-Signature", // tags in the order of the alphabet, as the published suite has them
			"a=rsa-sha256", "b="+value, "bh="+base64.StdEncoding.EncodeToString(body[:]),
			"c=relaxed/relaxed", "d="+n.Domain, "h="+dkim.NameList(names),
			fmt.Sprintf("i=%d", n.instance), "s="+n.Selector, fmt.Sprintf("t=%d", n.time))
	})
	return err
}

// sign makes the seal. One that says fail covers its own set only, as what
// came before is in doubt (RFC 8617 5.1.2).
func (n *newSet) sign(before *Chain, cv string) error {
	field := func(value string) []byte {
		return dkim.LayOut("ARC-Seal",
			"a=rsa-sha256", "b="+value, "cv="+cv, "d="+n.Domain,
			fmt.Sprintf("i=%d", n.instance), "s="+n.Selector, fmt.Sprintf("t=%d", n.time))
	}
	next := set{results: results{raw: n.results}, message: signature{raw: n.message}, seal: seal{raw: field("")}}
	chain := Chain{sets: append(before.sets, next)}
	if cv == Fail {
		chain.sets = []set{next}
	}
	digests := chain.sealDigests()
	value, err := n.Key.Sign(rand.Reader, digests[len(digests)-1][:], crypto.SHA256)
	n.seal = field(base64.StdEncoding.EncodeToString(value))
	return err
}

// present returns the usual names as often as the message has each, and From
// in any case: a signature must cover it (RFC 6376 5.4).
func present(header *dkim.Header) []string {
	var names []string
	for _, name := range usual {
		n := len(header.Named(name))
		if name == "from" {
			n = max(n, 1)
		}
		for range n {
			names = append(names, name)
		}
	}
	return names
}
