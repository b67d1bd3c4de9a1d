// Package alias is the alias table: what each address of our domains stands for.
//
// An address is read in this order, and the first that fits decides: the alias
// of that very name; the alias named by what stands before the first "+"; the
// regular expressions in file order; the catch-all "*". Names match whatever
// their case and Unicode form. Nothing but this table turns a recipient into a
// target: "%", "!" and quotes in a local part mean nothing (STANDARDS.md P13).
//
// A target in a domain of ours is looked up again, so aliases may lead to
// aliases, at most 10 in a row and to at most 100 targets. The tag goes along;
// it does not choose another alias on the way, so a sender cannot steer. An
// alias that has ended is not followed, and the mail goes to what is left. Who
// writes must satisfy the from lock of every alias that was passed.
//
// A Table is checked by New with the very walk that Lookup takes, is never
// changed afterwards and may be used from many goroutines. It points into the
// Config rather than copying it, and reads a target's text when it is used:
// that costs a lookup a fraction of a microsecond and keeps the table at 35
// bytes an alias (BenchmarkNew100k).
package alias

import (
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/config"
)

// A Table is every alias of one configuration.
type Table struct {
	hostname   address.Domain
	domains    map[address.Domain]*names
	postmaster *config.Alias // stands behind postmaster and abuse; not in the file
}

// A Match is what an address stands for, and how that was found.
type Match struct {
	Alias   *config.Alias     // the alias written to; nil for a built-in postmaster or abuse
	Targets []address.Mailbox // each once, none in a domain of ours; empty only with Discard or an error
	Discard bool              // accept the message and drop it
	Steps   []Step            // the aliases passed, in the order they were looked up
}

// A Step is one alias on the way. Its place in the file is in Alias.
type Step struct {
	Address address.Mailbox   // what was looked up
	By      By                // how it was found
	Alias   *config.Alias     // what decided; nil for a built-in postmaster or abuse
	Ended   bool              // its until has passed, so it was not followed
	Targets []address.Mailbox // what it turned into; empty with Ended, Reject and Discard
}

// By is the kind of match that decided, in words.
type By string

// The kinds of match, in order of precedence.
const (
	ByName     By = "name"
	ByTag      By = "name and tag"
	ByPattern  By = "regular expression"
	ByCatchAll By = "catch-all"
)

// Owns reports whether d is one of `domains:`.
func (t *Table) Owns(d address.Domain) bool {
	n := t.domains[d]
	return n != nil && n.listed
}

// Lookup returns what rcpt stands for at the given time. A Mailbox without a
// domain is the bare postmaster of RFC 5321 4.5.1 (STANDARDS.md P14).
//
// An error is always a *reply.Reply for the sender, and the Match beside it
// holds the Steps that led there: 550 5.7.1 when the domain is not ours, 550
// 5.1.1 when nothing matches, or the alias refuses or has ended, and 451 4.3.5
// when the table sends this address in circles (RELIABILITY.md T7: not 5xx).
// What a pattern makes of the sender's text is answered as if written to: where
// one of its targets is no address or nobody's, the whole is refused.
func (t *Table) Lookup(rcpt address.Mailbox, now time.Time) (Match, error) {
	first := rcpt
	if rcpt.Domain == "" && strings.EqualFold(rcpt.Local, "postmaster") {
		first.Domain = t.hostname
	}
	w := walk{table: t, rcpt: rcpt, now: now}
	if t.domains[first.Domain] == nil {
		return Match{}, w.refuse("5.7.1", "relaying refused, this server takes mail for its own domains only", nil)
	}
	err := w.pass(first, "")
	if err == nil && len(w.targets) == 0 && !w.discard {
		err = w.refuse("5.1.1", "this alias leads only to aliases that have ended", nil)
	}
	return w.result(err)
}

// Admits reports whether sender may write to the alias: whether it satisfies
// the from lock of every alias passed. The null sender, a zero Mailbox,
// satisfies no lock, as anybody can send from it.
func (m Match) Admits(sender address.Mailbox) bool {
	for _, s := range m.Steps {
		if s.Alias != nil && !s.Ended && !opens(s.Alias.From, sender) {
			return false
		}
	}
	return true
}
