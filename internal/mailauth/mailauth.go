// Package mailauth finds out who is really writing: SPF, every DKIM signature,
// the ARC chain, DMARC and the client's name, as one Verdict.
//
// A Check begins at MAIL FROM with what the dialogue knows, and finishes with
// the message. The parts run side by side where they wait for DNS, share one
// pass over the body, and end within one deadline. A Verdict is plain data:
// the decision, the Authentication-Results field, the log and `onward explain`
// all read it. What to do about it is decided elsewhere (inbound.Decide).
package mailauth

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/mailauth/arc"
	"onward/internal/mailauth/dkim"
	"onward/internal/mailauth/dmarc"
	"onward/internal/mailauth/iprev"
	"onward/internal/mailauth/spf"
	"onward/internal/message"
	"onward/internal/parallel"
	"onward/internal/resolver"
)

// deadline bounds all DNS of one message, from its last octet (RELIABILITY.md
// 5), where Verifier.Time does not. SPF has as much from MAIL FROM, whatever that
// is. One query ends by the resolver's own timeout.
const deadline = 20 * time.Second

// A Verifier makes Checks. It is not changed after the first, and is then safe
// for concurrent use.
type Verifier struct {
	Resolver resolver.Resolver
	Hostname address.Domain // ours, for SPF explanations

	// Loopback clients are believed to be who they are. Otherwise they are, as
	// private addresses always are, taken for the mark of a proxy or container
	// that hides the sender (DESIGN.md 9.11).
	Loopback bool

	Time       time.Duration // for all DNS of one message, from its last octet; 0: 20 s
	Signatures int           // of DKIM that are verified; 0: dkim.MaxVerified

	// Text keeps the signed text of DKIM signatures, for people to read.
	Text bool
}

// A Sender is what is known of a message before its first octet.
type Sender struct {
	Client netip.Addr
	Helo   string
	From   address.ReversePath
	Now    time.Time
}

// A Verdict is what authentication found about one message.
type Verdict struct {
	Sender
	Hidden   bool // the client's address tells nothing about the sender
	IPRev    iprev.Verdict
	Helo     spf.Check
	MailFrom spf.Check
	DKIM     []dkim.Result // in header order
	ARC      arc.Result
	Author   dmarc.From
	DMARC    dmarc.Verdict
}

// A Check is one verification under way. Finish or Stop it.
type Check struct {
	verifier *Verifier
	verdict  Verdict
	cancel   context.CancelFunc
	begun    chan struct{} // closed when what Begin started is done
	broken   error         // a panic in that
}

// Begin starts what needs no message: SPF and the client's name.
func (v *Verifier) Begin(ctx context.Context, sender Sender) *Check {
	sender.Client = sender.Client.Unmap()
	ctx, cancel := context.WithTimeout(ctx, deadline)
	c := &Check{verifier: v, verdict: Verdict{Sender: sender, Hidden: v.hides(sender.Client)}, cancel: cancel, begun: make(chan struct{})}
	go func() {
		defer close(c.begun)
		defer caught(&c.broken)
		var parts parallel.Group
		parts.Go(func() { c.verdict.IPRev = iprev.Verify(ctx, v.Resolver, sender.Client) })
		parts.Go(func() { c.checkSPF(ctx) })
		parts.Wait()
	}()
	return c
}

// caught makes an error of a panic, in a deferred call: what strangers wrote into
// a message or the DNS ends one message at most (RELIABILITY 89).
func caught(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}

// checkSPF checks both identities. The record of a domain says nothing about
// an address that is not the sender's.
func (c *Check) checkSPF(ctx context.Context) {
	s := c.verdict.Sender
	if !c.verdict.Hidden {
		in := spf.Input{IP: s.Client, Helo: s.Helo, From: s.From, Hostname: string(c.verifier.Hostname), Now: s.Now}
		c.verdict.Helo, c.verdict.MailFrom = spf.Verify(ctx, c.verifier.Resolver, in)
		return
	}
	domain := strings.ToLower(s.Helo)
	c.verdict.Helo = spf.Check{Result: spf.TempError, Identity: "helo", Domain: domain, Reason: hiddenReason}
	if !s.From.IsNull() {
		domain = s.From.Domain.String()
	}
	c.verdict.MailFrom = spf.Check{Result: spf.TempError, Identity: "mailfrom", Domain: domain, Reason: hiddenReason}
}

const hiddenReason = "the client has a private address, so the real one is hidden from us"

// SPF waits for what SPF says of the envelope sender, which is there before the
// message.
func (c *Check) SPF() spf.Check {
	<-c.begun
	return c.verdict.MailFrom
}

// Stop ends a check whose message never came.
func (c *Check) Stop() {
	c.cancel()
	<-c.begun
}

// Finish verifies the message and returns the verdict. An error means that the
// message could not be read, or made us stumble, which is trouble of ours.
func (c *Check) Finish(ctx context.Context, msg *message.Message) (_ *Verdict, err error) {
	defer c.Stop()
	defer caught(&err)
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.verifier.Time, deadline))
	defer cancel()
	v, dns, now := &c.verdict, c.verifier.Resolver, c.verdict.Now
	v.Author = dmarc.ParseFrom(msg.Fields())
	search := dmarc.Begin(ctx, dns, v.Author)

	header, bodies := dkim.NewHeader(msg.Fields()), &dkim.BodyHashes{}
	signatures := dkim.Prepare(header, bodies, dkim.Options{Now: now, Prefer: v.ofAuthor, Max: c.verifier.Signatures, Text: c.verifier.Text})
	chain := arc.Prepare(header, bodies)
	var reading parallel.Group
	var unread error
	reading.Go(func() {
		if unread = bodies.Read(msg.Body()); unread != nil {
			cancel() // there is nothing to look keys up for
		}
	})
	signatures.Lookup(ctx, dns)
	reading.Wait()
	v.DKIM = signatures.Results(unread)
	if unread != nil {
		search.Stop()
		return nil, unread
	}
	for _, d := range v.DKIM {
		if d.Result == dkim.Pass {
			search.Expect(ctx, d.Domain)
		}
	}
	v.ARC = chain.Finish(ctx, dns, now)
	select {
	case <-c.begun:
	case <-ctx.Done():
		c.cancel()
		<-c.begun
	}
	if c.broken != nil {
		search.Stop()
		return nil, c.broken
	}
	v.DMARC = search.Finish(ctx, v.input())
	return v, nil
}

// Verify is Begin and Finish in one.
func (v *Verifier) Verify(ctx context.Context, sender Sender, msg *message.Message) (*Verdict, error) {
	return v.Begin(ctx, sender).Finish(ctx, msg)
}

// Bounceable reports whether a failure may be reported to the envelope sender:
// it authenticated itself, so no report can go to somebody who did not write
// (DESIGN.md 9.3, RELIABILITY 29).
func (v *Verdict) Bounceable() bool {
	if v.From.IsNull() {
		return false
	}
	return v.MailFrom.Result == spf.Pass || v.DMARC.Result == dmarc.Pass && v.Author.Mailbox.Fold() == v.From.Fold()
}

// Doubtful reports whether what was found speaks against the author, and not
// only fails to speak for it.
func (v *Verdict) Doubtful() bool {
	if v.DMARC.Result == dmarc.Fail {
		return true
	}
	signed := slices.ContainsFunc(v.DKIM, func(d dkim.Result) bool { return d.Result == dkim.Pass })
	return !signed && v.DMARC.Result != dmarc.Pass && (v.MailFrom.Result == spf.Fail || v.MailFrom.Result == spf.SoftFail)
}

// ForwardingBreaks reports whether the message passes DMARC here by SPF alone,
// with a policy that has it refused or set aside where it does not pass: SPF
// does not survive forwarding, as the client there is us (DESIGN.md 4). alive
// says whether a signature that passed still does on the bytes that go on. Only
// RSA-SHA256 counts: not all receivers verify Ed25519.
func (v *Verdict) ForwardingBreaks(alive func(*dkim.Result) bool) bool {
	if v.DMARC.Result != dmarc.Pass || v.DMARC.Policy != dmarc.PolicyQuarantine && v.DMARC.Policy != dmarc.PolicyReject {
		return false
	}
	for i := range v.DKIM {
		d := &v.DKIM[i]
		if d.Result == dkim.Pass && d.Algorithm == dkim.RSASHA256 && v.aligned(d.Domain) && alive(d) {
			return false
		}
	}
	return true
}

// MayBeSigned reports whether the DNS did not say of a signature for the author that
// it passes.
func (v *Verdict) MayBeSigned() bool {
	return slices.ContainsFunc(v.DKIM, func(d dkim.Result) bool { return d.Result == dkim.TempError && v.aligned(d.Domain) })
}

// aligned reports whether a pass of this signer counts for the author.
func (v *Verdict) aligned(signer string) bool {
	return slices.ContainsFunc(v.DMARC.Alignments, func(a dmarc.Alignment) bool {
		return a.Method == "dkim" && a.Aligned && a.Domain.String() == signer
	})
}

// ofAuthor reports whether a signature by this domain could be aligned with the
// author's: those are verified first (RELIABILITY 49).
func (v *Verdict) ofAuthor(domain string) bool {
	author := v.Author.Domain.String()
	return author != "" && (domain == author || strings.HasSuffix(author, "."+domain) || strings.HasSuffix(domain, "."+author))
}

// input is what DMARC needs to know of the rest.
func (v *Verdict) input() dmarc.Input {
	in := dmarc.Input{From: v.Author, SPF: dmarc.Identifier{Result: dmarc.Result(v.MailFrom.Result), Domain: v.MailFrom.Domain}}
	for _, d := range v.DKIM {
		in.DKIM = append(in.DKIM, dmarc.Identifier{Result: dmarc.Result(d.Result), Domain: d.Domain})
	}
	return in
}

// hides reports whether a client's address cannot be the sender's own
// (DESIGN.md 9.11).
func (v *Verifier) hides(ip netip.Addr) bool {
	if ip.IsLoopback() {
		return !v.Loopback
	}
	return ip.IsPrivate() || ip.IsLinkLocalUnicast() || sharedSpace.Contains(ip)
}

// sharedSpace is between a carrier's NAT and its customers (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")
