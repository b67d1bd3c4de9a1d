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
//   - ErrBlankLines is about the message, and it may go unsigned. Any other error
//     is trouble of ours.
//
// Signatures are made by go-msgauth, which is safe on hostile input only as it is
// used here (DEPENDENCIES.md A3): it sees the few fields that are signed, each in
// one line, and no body for which it would need much memory.
package signing

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	library "github.com/emersion/go-msgauth/dkim"

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

// maxNamed is how often h= has one name. The library writes h= in one line,
// which this keeps below the 998 octets of RFC 5322 2.1.1. Of a field that stands
// more often, the topmost are not signed.
const maxNamed = 5

// maxBlank is how many octets of line ends in a row the library is given. It
// keeps them in memory until something else comes.
const maxBlank = 256 << 10

// ErrBlankLines means that a body has so many empty lines in a row that it
// cannot be signed in little memory. No real message has.
var ErrBlankLines = errors.New("a body with too many empty lines in a row to be signed")

// A Signer signs in the name of one domain. It is safe for concurrent use.
type Signer struct {
	domain string
	keys   []key // RSA, then Ed25519 when it is wanted
}

// Sign returns the DKIM-Signature fields, with CRLF, that are to stand on top
// of msg: relaxed/relaxed, SHA-256, without l=, x= and z=. It reads the body once
// and keeps none of it.
func (s *Signer) Sign(msg *message.Message) ([]byte, error) {
	header := dkim.NewHeader(msg.Fields())
	names := signedNames(header)
	var writers []io.Writer
	var signers []*library.Signer
	for _, k := range s.keys {
		signer, err := library.NewSigner(&library.SignOptions{
			Domain: s.domain, Selector: k.selector, Signer: k.private, Hash: crypto.SHA256, HeaderKeys: names,
			HeaderCanonicalization: library.CanonicalizationRelaxed, BodyCanonicalization: library.CanonicalizationRelaxed,
		})
		if err != nil {
			return nil, fmt.Errorf("sign for %s: %w", s.domain, err)
		}
		defer signer.Close() // its goroutine ends whatever happens here
		writers, signers = append(writers, signer), append(signers, signer)
	}
	if err := feed(io.MultiWriter(writers...), header, names, msg.Body()); err != nil {
		return nil, fmt.Errorf("sign for %s: %w", s.domain, err)
	}
	var fields []byte
	for _, signer := range signers {
		if err := signer.Close(); err != nil {
			return nil, fmt.Errorf("sign for %s: %w", s.domain, err)
		}
		fields = append(fields, signer.Signature()...)
	}
	return fields, nil
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

// feed writes the fields that names stand for, in the order of the header, from
// the bottom of which the library will choose the same; then the body. Relaxed
// form stays as it is when it is made relaxed again, and is one line, on which
// the library needs no more than linear time.
func feed(w io.Writer, header *dkim.Header, names []string, body io.Reader) error {
	var text []byte
	for _, i := range slices.Sorted(slices.Values(header.Select(-1, names))) {
		text = dkim.Relaxed.AppendField(text, header.Field(i).Raw)
	}
	if _, err := w.Write(append(text, "\r\n"...)); err != nil {
		return err
	}
	_, err := io.Copy(&blankGuard{w: w}, body)
	return err
}

// A blankGuard passes a body on as long as it has no more than maxBlank octets
// of white space in a row, give or take a piece.
type blankGuard struct {
	w     io.Writer
	blank int
}

func (g *blankGuard) Write(p []byte) (int, error) {
	text := len(bytes.TrimRight(p, " \t\r\n"))
	if text > 0 {
		g.blank = 0
	}
	if g.blank += len(p) - text; g.blank > maxBlank {
		return 0, ErrBlankLines
	}
	return g.w.Write(p)
}

// Seal returns the fields of an ARC set to stand on top of msg, or nil when
// none may be added. The chain is what was found of it on arrival, and results
// what was found of the rest; see arc.Sealer. It reads the body once.
func (s *Signer) Seal(msg *message.Message, chain arc.Result, results authres.Header, now time.Time) ([]byte, error) {
	var bodies dkim.BodyHashes
	body := bodies.Ask(dkim.Relaxed, dkim.NoLimit)
	if err := bodies.Read(msg.Body()); err != nil {
		return nil, fmt.Errorf("seal for %s: %w", s.domain, err)
	}
	sealer := arc.Sealer{Key: s.keys[0].private, Domain: s.domain, Selector: s.keys[0].selector}
	set, err := sealer.Seal(msg.Fields(), body.Sum, chain, results, now)
	if err != nil {
		return nil, fmt.Errorf("seal for %s: %w", s.domain, err)
	}
	return set, nil
}
