package message

import (
	"crypto/rand"
	"net/netip"
	"time"

	"onward/internal/address"
)

// An Envelope is everything the SMTP dialogue said about one message, as
// values. inbound fills it in, forward reads it, and nobody changes it after.
type Envelope struct {
	ID         string // see NewID; on every log line and in every final answer
	Arrived    time.Time
	Client     netip.Addr // who is connected to us
	Helo       string     // what it calls itself: a checked name, never raw text
	From       address.ReversePath
	Bounceable bool // a failure may be reported to From: it is who it says (DESIGN.md 9.3)
	Recipients []Recipient
	UTF8       bool   // the sender declared SMTPUTF8 (RFC 6531)
	Results    []byte // our Authentication-Results field, with CRLF (STANDARDS.md R2)
	Received   []byte // our Received field, with CRLF (P5)

	// Gone reports whether the sender has hung up: it has heard no answer then,
	// and still owns the message (RELIABILITY 2.2). Heard reports, once there was an
	// answer and while the connection lasts, whether it reached the sender's side.
	Gone, Heard func() bool
}

// A Recipient is one address the sender named, and what it stands for.
type Recipient struct {
	Address address.Mailbox   // as the sender wrote it
	Targets []address.Mailbox // where it goes; empty for mail to be discarded
	SRS     bool              // an SRS address of ours: the target is the first sender
	As      address.Mailbox   // of a reply address: the alias that the message goes on in the name of; else zero
	Breaks  Breaks
	Suspect bool // mail whose author is in doubt goes to user+suspect
}

// Breaks says what to do with mail that passes DMARC here and would fail it at
// the target (DESIGN.md 4, "Unforwardable mail").
type Breaks string

// The words of the configuration.
const (
	Rewrite Breaks = "rewrite" // its From
	Refuse  Breaks = "refuse"
	Forward Breaks = "forward" // as it is
)

// crockford is the alphabet of ULIDs: no I, L, O, U.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// NewID returns a new message id: 26 characters, 48 bits of time in
// milliseconds and 80 random bits (a ULID), so ids sort by age and nobody can
// guess one.
func NewID(now time.Time) string {
	var id [26]byte
	for i, ms := 9, now.UnixMilli(); i >= 0; i, ms = i-1, ms>>5 {
		id[i] = crockford[ms&31]
	}
	var random [16]byte
	rand.Read(random[:])
	for i, c := range random {
		id[10+i] = crockford[c&31]
	}
	return string(id[:])
}
