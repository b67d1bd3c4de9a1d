// Package arc verifies and adds ARC sets (RFC 8617): what forwarders before us
// saw when the message reached them, each sealed over all that came before.
//
// Verification has two halves, so that one pass over the body serves DKIM and
// ARC alike:
//
//	chain := arc.Prepare(header, bodies) // says which body hashes it wants
//	err := bodies.Read(body) // after an error there is nothing to Finish
//	result := chain.Finish(ctx, resolver, now)
//
// Rules for a caller:
//   - A pass proves who handled the message, not that they are honest. It never
//     overrides DMARC by itself (A2); DESIGN.md 4 says whom to trust.
//   - Fields of a chain are left where and as they are (A1).
//   - Cost is bounded: at most 50 sets, each field hashed once for all seals, no
//     DNS for a chain whose structure is wrong (RELIABILITY 56).
package arc

import "onward/internal/mailauth/authres"

// MaxSets is the longest chain (RFC 8617 5.2).
const MaxSets = 50

// The results of a chain (RFC 8617 4.4), which are also the values of cv=, and
// one more for us: TempError is no verdict, for want of an answer from DNS.
const (
	None      = "none"
	Pass      = "pass"
	Fail      = "fail"
	TempError = "temperror"
)

// A Result is what the chain of one message is worth.
type Result struct {
	Result string // None, Pass, Fail or TempError
	Reason string // one line, unless Result is None or Pass

	// Sets are in order, the oldest first: Sets[0] is i=1. Nil when there is no
	// chain, or its fields do not make up one.
	Sets []Set

	// OldestPass is the lowest instance from which all message signatures
	// verify, or 0 when every one does (RFC 8617 5.2). Only for Pass.
	OldestPass int
}

// A Set is one handler's three fields.
type Set struct {
	Instance int
	Seal     Signature // ARC-Seal
	CV       string    // what the sealer found of the chain before it
	Message  Signature // ARC-Message-Signature

	// Text is what ARC-Authentication-Results says after its instance, unfolded;
	// Results is the same read, empty when it cannot be (RFC 8617 asks for no more
	// than the instance).
	Text    string
	Results authres.Header
}

// A Signature is one of the two in a set.
type Signature struct {
	Domain, Selector string // d= in ASCII form, s=
	Algorithm        string // a=
	Bits             int    // size of the key; 0 when it was not looked at

	// Result is a word of RFC 8601 2.7.1 as in package dkim, or "" when it was not
	// looked at, as the verdict was clear without it.
	Result string
	Reason string // one line, when Result is neither "pass" nor ""
}
