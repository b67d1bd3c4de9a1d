// Package dkim verifies DKIM signatures (RFC 6376, 8301, 8463, 8616), and has
// the pieces that ARC (RFC 8617) shares: canonicalization, body hashes, the
// choice of header fields, tag lists and keys.
//
// Rules for a caller:
//   - Verify does everything. A caller that has more to hash uses the three steps
//     it is made of: Prepare says which body hashes are wanted, BodyHashes.Read
//     makes one pass over the body for everybody, Results finishes; Lookup asks
//     for the keys and may run beside the pass.
//   - Every signature is reported on its own, in the order of the header. One
//     that did not pass means as much as none at all (RFC 6376 6.1).
//   - Cost is bounded whatever the message: Options.Max signatures, one pass, each
//     field looked at once, no field or line treated in more than linear time
//     (RELIABILITY 49, 50, 54). Memory does not depend on the body.
//   - Only what the DNS could not tell is TempError; a signature is permanently
//     wrong only because of what it says, or what its key says (K7).
//   - Texts in results come from strangers. Whoever writes them to a header or
//     terminal escapes them.
package dkim

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/message"
	"onward/internal/parallel"
	"onward/internal/resolver"
)

// MaxVerified is how many signatures of a message are verified (DESIGN.md 9.1), where
// Options do not say.
const MaxVerified = 8

// maxSkew is how far the clock of a signer may be ahead of ours.
const maxSkew = 24 * time.Hour

// The results of RFC 8601 2.7.1.
const (
	None      = "none"
	Pass      = "pass"
	Fail      = "fail"
	Policy    = "policy"
	TempError = "temperror"
	PermError = "permerror"
)

// Options are what Verify must know beside the message.
type Options struct {
	Now    time.Time                // when the message arrived, for t= and x= (RFC 6376 3.5)
	Prefer func(domain string) bool // which d= to verify first when there are too many; may be nil
	Max    int                      // signatures to verify; 0: MaxVerified
	Text   bool                     // keep the signed text in the results, for people to read
}

// A Result is what became of one signature.
type Result struct {
	*Signature        // what it says; never nil
	Result     string // one of the words of RFC 8601 2.7.1
	Reason     string // why it is not Pass; one line
	Err        error  // of the resolver, for the log
	Position   int    // of its field in the header

	Key        *Key      // nil when none was found or could be read
	Computed   *BodyHash // as computed; nil when it was not looked at: unreadable, expired, or one too many
	Text       []byte    // canonical form of what b= signs (Options.Text)
	Duplicated []string  // fields that may stand once, of which this signs fewer than there are

	digest [sha256.Size]byte // that Value was verified for
}

// B returns the first eight characters of b=, by which RFC 6008 tells two
// signatures of one domain from each other.
func (r *Result) B() string {
	value, _ := r.Tags.Get("b")
	value = withoutSpace(value)
	return value[:min(len(value), 8)]
}

// Verify verifies the signatures of a message. It waits for the DNS no longer
// than ctx.
func Verify(ctx context.Context, r resolver.Resolver, msg *message.Message, opts Options) []Result {
	var bodies BodyHashes
	v := Prepare(NewHeader(msg.Fields()), &bodies, opts)
	v.Lookup(ctx, r)
	return v.Results(bodies.Read(msg.Body()))
}

// A Verification is the signatures of one message between the steps of Verify.
type Verification struct {
	header  *Header
	opts    Options
	results []Result // Result is empty while nothing is wrong
}

// Prepare reads the signatures, and asks bodies for the hashes it will need.
func Prepare(h *Header, bodies *BodyHashes, opts Options) *Verification {
	v := &Verification{header: h, opts: opts}
	for _, i := range h.Named("dkim-signature") {
		s, err := parse(h, i)
		r := Result{Signature: s, Position: i}
		if err == nil {
			err = s.checkTime(opts.Now)
		}
		r.fail(err)
		v.results = append(v.results, r)
	}
	v.choose()
	for i := range v.results {
		if r := &v.results[i]; r.Result == "" {
			r.Computed = bodies.Ask(r.Signature.Body, r.Signed)
			r.Duplicated = h.duplicated(r.Names)
		}
	}
	return v
}

// parse reads a DKIM-Signature: what it shares with ARC, v= and i= (K2).
func parse(h *Header, at int) (*Signature, error) {
	s, err := ParseSignature(h.Field(at).Raw)
	if err != nil {
		return s, err
	}
	if h.Malformed() {
		return s, permError("the header has a line that is no field")
	}
	if v, _ := s.Tags.Get("v"); v != "1" {
		return s, permError("signature: tag v= is not 1")
	}
	if !slices.ContainsFunc(s.Names, func(n string) bool { return strings.EqualFold(n, "from") }) {
		return s, permError("signature: From is not signed")
	}
	return s, s.readIdentity()
}

// readIdentity reads i=, whose domain is d= or below it.
func (s *Signature) readIdentity() error {
	i, ok := s.Tags.Get("i")
	if !ok {
		s.Identity = "@" + s.Domain
		return nil
	}
	s.Identity = unquote(i)
	domain := s.identityDomain()
	if domain != s.Domain && !strings.HasSuffix(domain, "."+s.Domain) {
		return permError("signature: the domain of i= is not d= or below it")
	}
	return nil
}

// identityDomain returns the domain of i=, in the form of d=, or "".
func (s *Signature) identityDomain() string {
	domain, _ := address.ParseDomain(s.Identity[strings.LastIndexByte(s.Identity, '@')+1:])
	return domain.String()
}

// checkTime applies x= and t=.
func (s *Signature) checkTime(now time.Time) error {
	switch {
	case !s.Expires.IsZero() && now.After(s.Expires):
		return &Failure{Result: Fail, Reason: "signature has expired"} // DESIGN.md 9.9
	case s.Timestamp.After(now.Add(maxSkew)):
		return &Failure{Result: Policy, Reason: "signature is from the future"} // K2
	}
	return nil
}

// choose leaves Options.Max signatures to be verified: the preferred ones, then
// the ones nearest to the top (RELIABILITY 49).
func (v *Verification) choose() {
	left := cmp.Or(v.opts.Max, MaxVerified)
	for _, preferred := range []bool{true, false} {
		for i := range v.results {
			r := &v.results[i]
			if r.Result != "" || preferred != (v.opts.Prefer != nil && v.opts.Prefer(r.Domain)) {
				continue
			}
			if left--; left < 0 {
				r.fail(&Failure{Result: Policy, Reason: "not verified: too many signatures"})
			}
		}
	}
}

// fail notes that a signature came to nothing; err is a *Failure, or nil.
func (r *Result) fail(err error) {
	if f, ok := errors.AsType[*Failure](err); ok && r.Result == "" {
		r.Result, r.Reason, r.Err = f.Result, f.Reason, f.Err
	}
}

// Lookup fetches the keys, all at the same time. It returns no later than ctx.
func (v *Verification) Lookup(ctx context.Context, dns resolver.Resolver) {
	var wg parallel.Group
	defer wg.Wait()
	var last *Result // is looked up here: most messages have one
	for i := range v.results {
		r := &v.results[i]
		if r.Result != "" {
			continue
		}
		if prior := last; prior != nil {
			wg.Go(func() { prior.lookup(ctx, dns) })
		}
		last = r
	}
	if last != nil {
		last.lookup(ctx, dns)
	}
}

func (r *Result) lookup(ctx context.Context, dns resolver.Resolver) {
	var err error
	r.Key, err = LookupKey(ctx, dns, r.Selector, r.Domain)
	if err == nil && r.Key.Strict && r.identityDomain() != r.Domain {
		err = permError("the key (t=s) forbids a subdomain in i=")
	}
	r.fail(err)
}

// Results finishes, after Lookup and the pass over the body. With the error of
// that pass nothing could be verified, and it is our trouble.
func (v *Verification) Results(read error) []Result {
	for i := range v.results {
		r := &v.results[i]
		if r.Computed != nil && read != nil {
			r.Result = ""
			r.fail(&Failure{TempError, "the message could not be read", read})
		}
		if r.Computed != nil {
			r.finish(v.header, v.opts)
		}
	}
	return v.results
}

// finish checks the hashes. What l= leaves out is worth a word only when the
// signature is right.
func (r *Result) finish(h *Header, opts Options) {
	if r.Result != "" && !opts.Text {
		return
	}
	var text []byte
	r.digest, text = r.Digest(h, r.Position)
	if opts.Text {
		r.Text = text
	}
	if r.Result != "" {
		return
	}
	body := r.CheckBody(r.Computed)
	if f, ok := errors.AsType[*Failure](body); ok && f.Result != Policy {
		r.fail(body)
		return
	}
	r.fail(r.Key.Verify(r.Algorithm, r.digest, r.Value))
	r.fail(body)
	if r.Result == "" {
		r.Result = Pass
	}
}
