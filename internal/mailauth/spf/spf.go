// Package spf checks by SPF (RFC 7208) whether a client may use a domain in
// HELO and MAIL FROM, and tells how it came to that, step by step.
//
// The walk through the records is ours: syntax before anything else, macros,
// include, redirect, exp and every count, because each step is shown to people
// and the published suite wants syntax errors, %{p} and explanations that the
// library below does not give. What a, mx and exists find in the DNS is judged
// by blitiri.com.ar/go/spf, one mechanism at a time (library.go). Literal
// networks and ptr are ours: the first are parsed for the syntax anyhow, and
// the names that ptr validates are those of %{p}.
//
// Rules for a caller:
//   - Verify always gives two results. Trouble of the DNS or of time is
//     TempError, never Fail or None (RELIABILITY 44).
//   - The two identities are apart: a pass of HELO says nothing about the
//     sender (RELIABILITY 48). For the null sender alone both are the same (F1).
//   - Fail is no reason to refuse before DATA, SoftFail never is one (F8).
//   - Text in a Check came from the network. It is printable ASCII and bounded,
//     and needs no more than the quoting of the place it goes to. The Steps of a
//     usual check are 2 KB; a sender can make them 400 KB, so do not keep them
//     for every message.
package spf

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/parallel"
	"onward/internal/resolver"
)

// A Result is the outcome of one check (RFC 7208 2.6).
type Result string

// The results, as Authentication-Results spells them (RFC 8601 2.7.2).
const (
	None      Result = "none"      // no domain to check, or it publishes no record
	Neutral   Result = "neutral"   // the domain says that it says nothing
	Pass      Result = "pass"      // the client is authorised
	Fail      Result = "fail"      // the client is not
	SoftFail  Result = "softfail"  // probably not; a reason for nothing alone
	TempError Result = "temperror" // the DNS did not answer, or not in time
	PermError Result = "permerror" // the record cannot be read, or costs too much
)

// Limits of one check (F4, F5, RFC 7208 4.6.4).
const (
	MaxLookups = 10               // terms that ask the DNS: include, a, mx, ptr, exists, redirect
	MaxVoids   = 2                // of those, terms whose answer may be empty
	maxNames   = 10               // names of a PTR answer that are looked at; the library has the same for mx
	deadline   = 20 * time.Second // for everything
)

// An Input is what the client said and who it is.
type Input struct {
	IP       netip.Addr          // of the client; an IPv4-mapped one counts as IPv4 (F2)
	Helo     string              // as given in HELO or EHLO
	From     address.ReversePath // as given in MAIL FROM
	Hostname string              // ours, for %{r} in explanations
	Now      time.Time           // for %{t} in explanations
}

// A Check is the outcome for one identity, and how it came about.
type Check struct {
	Result      Result `json:"result"`
	Identity    string `json:"identity"`              // "helo" or "mailfrom"
	Domain      string `json:"domain"`                // whose record was asked for, in lower case
	Mechanism   string `json:"mechanism,omitempty"`   // the term that decided, as published
	Reason      string `json:"reason"`                // why, in one phrase
	Explanation string `json:"explanation,omitempty"` // of a fail, in the domain's own words (RFC 7208 6.2)
	Steps       []Step `json:"steps,omitempty"`       // at most maxSteps, in order
}

// A Step is the fetching of one record, or the trying of one of its terms. The
// steps of an included or redirected record follow the term that named it,
// one Depth further in.
type Step struct {
	Depth   int     `json:"depth"`
	Domain  string  `json:"domain"`            // whose record it is
	Record  string  `json:"record,omitempty"`  // its text, when this step fetched it
	Term    string  `json:"term,omitempty"`    // the term tried, as published; empty for a fetch
	Answer  string  `json:"answer"`            // "found", "match", "no match", "ignored", or the trouble in a phrase
	Queries []Query `json:"queries,omitempty"` // asked for this step alone
	Lookups int     `json:"lookups"`           // of MaxLookups, up to and with this term
	Voids   int     `json:"voids"`             // empty answers so far, of which MaxVoids are allowed
}

// A Query is one question to the DNS.
type Query struct {
	Name   string `json:"name"`
	Type   string `json:"type"`   // "TXT", "A", ...
	Answer string `json:"answer"` // the number of records, or why there are none
}

// Verify checks the HELO name and the sender, both at once and within 20 s
// (F1, F5). The null sender stands for postmaster at the HELO name (RFC 7208 2.4).
func Verify(ctx context.Context, r resolver.Resolver, in Input) (helo, mailfrom Check) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	in.IP = in.IP.Unmap().WithZone("")
	in.Helo = asciiName(in.Helo)

	var wg parallel.Group
	wg.Go(func() {
		helo = check(ctx, r, in, "helo", address.Mailbox{Domain: address.Domain(in.Helo)})
	})
	if !in.From.IsNull() {
		mailfrom = check(ctx, r, in, "mailfrom", in.From.Mailbox)
	}
	wg.Wait()
	if in.From.IsNull() {
		mailfrom = helo
		mailfrom.Identity = "mailfrom"
	}
	return helo, mailfrom
}

// asciiName returns a HELO name with A-labels (F9). Any other oddity stays for
// the check to see.
func asciiName(helo string) string {
	if d, err := address.ParseDomain(helo); err == nil && strings.IndexFunc(helo, notASCII) >= 0 {
		return string(d)
	}
	return helo
}

func notASCII(r rune) bool { return r > '~' }

// check judges one identity. A sender without a local part is its domain's
// postmaster (RFC 7208 4.3).
func check(ctx context.Context, r resolver.Resolver, in Input, identity string, sender address.Mailbox) Check {
	if sender.Local == "" {
		sender.Local = "postmaster"
	}
	domain := string(sender.Domain)
	e := &evaluation{resolver: r, in: in, sender: sender}
	d := decision{result: TempError, reason: "the address of the client is not known"}
	if in.IP.IsValid() {
		d = e.record(ctx, domain, 0)
	}
	c := Check{
		Result:    d.result,
		Identity:  identity,
		Domain:    strings.ToLower(shown(strings.TrimSuffix(domain, "."), address.MaxDomain)),
		Mechanism: shown(d.term.Text, maxText),
		Reason:    shown(d.reason, maxText),
	}
	if d.result == Fail {
		c.Explanation = e.explanation(ctx, d)
	}
	c.Steps = e.history()
	return c
}
