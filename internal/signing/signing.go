// Package signing signs what we forward and write, in the name of our own
// domains: DKIM (RFC 6376, 8301, 8463; STANDARDS.md K8, D9) and, where it is
// switched on, ARC.
//
// A key is one file of the state directory, made when its domain is first signed
// for, and never replaced: whoever changes the selector gets a new one, and mail
// signed with the old one still verifies as long as its record is published.
//
// Rules for a caller:
//   - Sign last, and put what comes out on top (DESIGN.md 4); Seal after that.
//   - A signature covers the body and the fields that make up the message for its
//     reader, never those of its way. So one serves all copies of a message that
//     have the same From, and is worth being made once: RSA costs a millisecond.
//   - Who has hashed the body in relaxed form already, for a proof, gives the digest
//     to SignHashed: a body of 25 MiB costs more to read again than to sign.
//   - Every error is trouble of ours.
//
// Go-msgauth could sign too, but only with a pass over the body of its own, octet by
// octet: that was 41 % of what a message of 25 MiB cost. It verifies ours in the tests.
package signing

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"onward/internal/mailauth/arc"
	"onward/internal/mailauth/authres"
	"onward/internal/mailauth/dkim"
	"onward/internal/message"
)

// oversigned are the fields that make up a message for its reader (K8). Each is
// named once more than the message has it, so that none can be added without
// breaking the signature (RFC 6376 8.15). Fields of the way are not among them,
// nor those that mailing lists behind us add.
var oversigned = []string{
	"From", "Reply-To", "Subject", "Date", "To", "Cc", "Message-ID", "In-Reply-To", "References",
	"MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Content-Disposition", "Content-ID", "Content-Description",
}

// maxNamed is how often h= has one name, to keep it short whatever the message. Of
// a field that stands more often, the topmost are not signed.
const maxNamed = 5

// turns are as many as there are processors when the program begins, and are taken
// first come, first served. RSA holds a processor for a millisecond: with sixty of
// them ready at once, whatever a destination or sender says would be heard behind
// them all, each time it speaks.
var turns = make(chan struct{}, runtime.GOMAXPROCS(0))

// A Signer signs in the name of one domain. It is safe for concurrent use.
type Signer struct {
	domain string
	keys   []key // RSA, then Ed25519 when it is wanted
}

// Sign returns the DKIM-Signature fields, with CRLF, that are to stand on top
// of msg. It reads the body once and keeps none of it.
func (s *Signer) Sign(msg *message.Message) ([]byte, error) {
	var bodies dkim.BodyHashes
	body := Ask(&bodies)
	if err := bodies.Read(msg.Body()); err != nil {
		return nil, fmt.Errorf("sign for %s: %w", s.domain, err)
	}
	return s.SignHashed(msg.Fields(), body.Sum)
}

// Ask orders the digest that SignHashed and Seal want of the body.
func Ask(bodies *dkim.BodyHashes) *dkim.BodyHash { return bodies.Ask(dkim.Relaxed, dkim.NoLimit) }

// SignHashed returns the DKIM-Signature fields, with CRLF, that are to stand on
// top of fields and a body with that digest: relaxed/relaxed, SHA-256, without l=,
// x= and z= (K8).
func (s *Signer) SignHashed(fields []message.Field, body [sha256.Size]byte) ([]byte, error) {
	header, now := dkim.NewHeader(fields), time.Now().Unix()
	names := signedNames(header)
	turns <- struct{}{}
	defer func() { <-turns }()
	var signatures []byte
	for _, k := range s.keys {
		signature, err := dkim.Sign(k.private, header, names, func(b string) []byte {
			return dkim.LayOut("DKIM-Signature",
				"v=1; a="+string(k.algorithm)+"; c=relaxed/relaxed; t="+strconv.FormatInt(now, 10),
				"d="+s.domain, "s="+k.selector, "h="+dkim.NameList(names),
				"bh="+base64.StdEncoding.EncodeToString(body[:]), "b="+fold(b))
		})
		if err != nil {
			return nil, fmt.Errorf("sign for %s: %w", s.domain, err)
		}
		signatures = append(signatures, signature...)
	}
	return signatures, nil
}

// fold breaks a value of b= into lines that RFC 5322 2.1.1 would like.
func fold(value string) string {
	const width = 72
	var lines []string
	for ; len(value) > width; value = value[width:] {
		lines = append(lines, value[:width])
	}
	return strings.Join(append(lines, value), "\r\n ")
}

// signedNames returns what h= says.
func signedNames(header *dkim.Header) []string {
	var names []string
	for _, name := range oversigned {
		n := min(len(header.Named(strings.ToLower(name)))+1, maxNamed)
		names = append(names, slices.Repeat([]string{name}, n)...)
	}
	return names
}

// Seal returns the fields of an ARC set to stand on top of fields and a body with
// that digest, or nil when none may be added. The chain is what was found of it on
// arrival, and results what was found of the rest; see arc.Sealer.
func (s *Signer) Seal(fields []message.Field, body [sha256.Size]byte, chain arc.Result, results authres.Header, now time.Time) ([]byte, error) {
	turns <- struct{}{}
	defer func() { <-turns }()
	sealer := arc.Sealer{Key: s.keys[0].private, Domain: s.domain, Selector: s.keys[0].selector}
	set, err := sealer.Seal(fields, body, chain, results, now)
	if err != nil {
		return nil, fmt.Errorf("seal for %s: %w", s.domain, err)
	}
	return set, nil
}
