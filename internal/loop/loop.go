// Package loop marks what we forward, so that a message that comes back to an
// address it was already forwarded for is known at its first return
// (STANDARDS.md P7, RELIABILITY 33).
//
// The mark is keyed: nobody can make one for an address of ours and have its
// mail refused with it, nor learn from one which address it stands for. What
// went through another forwarder's hands on its way back may have lost its mark;
// the fields that others write, and the count of hops, are there for that.
package loop

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"fmt"

	"onward/internal/address"
	"onward/internal/message"
)

// name of the field that holds one mark.
const name = "X-Onward-Loop"

// marked is how many octets of the hash a mark has: 130 bits in 26 characters.
const marked = 26

// A Marker makes and knows marks. The first secret makes them, all of them know
// theirs; there is at least one.
type Marker struct{ Secrets []string }

// Field returns the field that marks a message as forwarded for recipient.
func (m Marker) Field(recipient address.Mailbox) []byte {
	return fmt.Appendf(nil, "%s: %s\r\n", name, mark(m.Secrets[0], recipient))
}

// Passed reports whether a message that came this way was forwarded before for
// recipient: it has our mark, or a mailbox along the way says so in Delivered-To
// (RFC 9228).
func (m Marker) Passed(w Way, recipient address.Mailbox) bool {
	if w.mailboxes[recipient.Fold()] {
		return true
	}
	for _, secret := range m.Secrets {
		if w.marks[mark(secret, recipient)] {
			return true
		}
	}
	return false
}

// A Way is what the header of a message says of where it was before.
type Way struct {
	marks     map[string]bool // ours, or what strangers made to look like them
	mailboxes map[address.Mailbox]bool
}

// Read reads a Way, once for all recipients: a stranger chooses how many fields
// there are.
func Read(fields []message.Field) Way {
	w := Way{map[string]bool{}, map[address.Mailbox]bool{}}
	for _, f := range fields {
		switch {
		case f.Is("Delivered-To"):
			if to, err := address.Parse(f.Value()); err == nil {
				w.mailboxes[to.Fold()] = true
			}
		case f.Is(name):
			w.marks[f.Value()] = true
		}
	}
	return w
}

func mark(secret string, recipient address.Mailbox) string {
	h := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(h, "loop\n%s", recipient.Fold())
	return base32.StdEncoding.EncodeToString(h.Sum(nil))[:marked]
}
