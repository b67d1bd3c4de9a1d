// Package dmarc says whether a message is by the domain that its From field
// shows, and what the owner of that domain wants done when it is not
// (RFC 9989).
//
// ParseFrom finds the author domain. Evaluate asks the DNS who speaks for it,
// by a tree walk for each identifier and without a list of public suffixes,
// and holds it against what SPF and DKIM have verified. What to do about the
// Verdict is the caller's decision.
//
// Rules for a caller:
//   - Evaluate runs for every message, also for one with a null sender or
//     without any signature (RELIABILITY 46).
//   - A Verdict of temperror is no verdict: such mail is neither refused for
//     good nor taken as genuine (DM14, RELIABILITY 45). It is only given where
//     the missing answer could have changed the outcome.
//   - Texts in a Record are foreign. They are bounded, but not escaped.
package dmarc

import (
	"context"
	"fmt"
	"strings"

	"onward/internal/address"
	"onward/internal/parallel"
	"onward/internal/resolver"
)

// maxSigners is the most domains of DKIM signatures that are looked at, as many
// as signatures are verified (RELIABILITY 49).
const maxSigners = 8

// A Result is a word of RFC 8601 2.7.
type Result string

// The results of DMARC. SPF and DKIM have more; of theirs only pass and
// temperror count here.
const (
	Pass      Result = "pass"
	Fail      Result = "fail"
	None      Result = "none"      // no policy is published: DMARC does not apply
	PermError Result = "permerror" // no single author domain
	TempError Result = "temperror" // the DNS did not say
)

// An Identifier is a domain and what SPF or DKIM found about it.
type Identifier struct {
	Result Result `json:"result"`
	Domain string `json:"domain"` // in any spelling
}

// Input is everything that an evaluation needs to know of a message.
type Input struct {
	From From

	// SPF is about the MAIL FROM identity, never HELO (DM13, RELIABILITY 48).
	// For the null sender that is postmaster at the HELO name (RFC 7208 2.4).
	SPF Identifier

	DKIM []Identifier // the d= of each signature
}

// A Verdict is what came out, with the steps that led there.
type Verdict struct {
	Result Result `json:"result"`
	Reason string `json:"reason"` // one sentence for people; quotes nothing but names from the DNS

	// Domain is the author domain. Where there are several, it is the one whose
	// policy is shown here: the strictest of all.
	Domain               address.Domain `json:"domain"`
	OrganizationalDomain address.Domain `json:"organizational_domain"`
	PolicyDomain         address.Domain `json:"policy_domain"` // who published Record
	Policy               Policy         `json:"policy"`        // in force for Domain, after sp, np and t; may be empty
	Record               *Record        `json:"record,omitempty"`

	SPFAligned  bool `json:"spf_aligned"`  // SPF passed for an aligned domain
	DKIMAligned bool `json:"dkim_aligned"` // so did a signature

	Alignments []Alignment `json:"alignments,omitempty"` // SPF first, then DKIM in order
	Walk       []Step      `json:"walk,omitempty"`       // of Domain
	Existence  *Step       `json:"existence,omitempty"`  // whether Domain exists, where "np" made us ask
}

// An Alignment is one identifier beside the author domain (RFC 9989 4.10.2).
type Alignment struct {
	Method               string         `json:"method"` // "spf" or "dkim"
	Result               Result         `json:"result"`
	Domain               address.Domain `json:"domain"`
	OrganizationalDomain address.Domain `json:"organizational_domain"`
	Strict               bool           `json:"strict"`  // the record wants equal names
	Aligned              bool           `json:"aligned"` // with the author domain, whatever Result is
	Unsure               bool           `json:"unsure"`  // the DNS did not say; Aligned is false
	Walk                 []Step         `json:"walk,omitempty"`
}

// Evaluate asks r what it needs, at most eight questions for each of at most
// ten domains (one more for the author domain), those of different domains in
// parallel, and returns no later than ctx ends.
func Evaluate(ctx context.Context, r resolver.Resolver, in Input) Verdict {
	return Begin(ctx, r, in.From).Finish(ctx, in)
}

// A Search is an evaluation that has begun before SPF and DKIM are done, so
// that a slow DNS of theirs does not keep the author's policy from being found.
// Finish or Stop it.
type Search struct {
	lookups *lookups
	author  published
	wg      parallel.Group
}

// Begin starts to look for the policy of the author domain.
func Begin(ctx context.Context, r resolver.Resolver, from From) *Search {
	s := &Search{lookups: newLookups(r)}
	if from.Domain != "" {
		s.wg.Go(func() { s.author = s.lookups.discover(ctx, from.Domain) })
	}
	return s
}

// Expect starts the walk of a domain that Finish will hear of.
func (s *Search) Expect(ctx context.Context, domain string) {
	if d, err := parseDomain(domain); err == nil {
		s.wg.Go(func() { s.lookups.walk(ctx, d) })
	}
}

// Stop waits for what was begun; end its context before.
func (s *Search) Stop() { s.wg.Wait() }

// Finish holds what SPF and DKIM found against the author domain, which is that
// of Begin.
func (s *Search) Finish(ctx context.Context, in Input) Verdict {
	if in.From.Domain == "" {
		s.wg.Wait()
		return s.lookups.withoutAuthor(ctx, in.From)
	}
	alignments := identifiers(in)
	for i := range alignments {
		s.wg.Go(func() { alignments[i].Walk = s.lookups.walk(ctx, alignments[i].Domain) })
	}
	s.wg.Wait()
	v := s.author.verdict()
	v.Alignments = alignments
	for i := range v.Alignments {
		v.align(&v.Alignments[i], s.author)
	}
	v.judge(s.author)
	return v
}

// identifiers returns those of in that could pass, now or on another try.
func identifiers(in Input) []Alignment {
	var all []Alignment
	signers := make(map[address.Domain]bool)
	add := func(method string, id Identifier) {
		d, err := parseDomain(id.Domain)
		if err != nil || d.IsLiteral() || id.Result != Pass && id.Result != TempError {
			return
		}
		if method == "dkim" && !signers[d] && len(signers) == maxSigners {
			return
		}
		signers[d] = signers[d] || method == "dkim"
		all = append(all, Alignment{Method: method, Result: id.Result, Domain: d})
	}
	add("spf", in.SPF)
	for _, id := range in.DKIM {
		add("dkim", id)
	}
	return all
}

// align compares a with the author domain (DM12).
func (v *Verdict) align(a *Alignment, p published) {
	a.OrganizationalDomain = organizationalOf(a.Walk)
	if p.record != nil {
		a.Strict = a.Method == "spf" && p.record.StrictSPF || a.Method == "dkim" && p.record.StrictDKIM
	}
	switch {
	case a.Domain == v.Domain:
		a.Aligned = true // in either mode, whatever the DNS says
	case a.Strict:
	default:
		a.Aligned, a.Unsure = relaxed(v.Walk, a.Walk)
		// A mode that is not known may be strict.
		a.Unsure = a.Unsure || a.Aligned && p.unsure
		a.Aligned = a.Aligned && !a.Unsure
	}
	if a.Aligned && a.Result == Pass {
		v.SPFAligned = v.SPFAligned || a.Method == "spf"
		v.DKIMAligned = v.DKIMAligned || a.Method == "dkim"
	}
}

// judge draws the conclusion, in the order of RELIABILITY 45: what is certain
// to pass passes, also where the record could not be had; what might have
// passed, or might not have had to, is a temperror.
func (v *Verdict) judge(p published) {
	undecided := undecidedOf(v.Alignments)
	switch {
	case !p.unsure && p.record == nil:
		v.Result, v.Reason = None, fmt.Sprintf("neither %s nor a domain above it publishes a DMARC policy", v.Domain)
	case !p.unsure && !p.record.Usable():
		v.Result, v.Reason = None, fmt.Sprintf("the DMARC record of %s has no valid policy and wants no reports", v.PolicyDomain)
	case v.SPFAligned || v.DKIMAligned:
		v.Result, v.Reason = Pass, "passed by "+v.passedBy()
	case p.unsure || p.existence.Status == StatusTemporary:
		v.Result, v.Reason = TempError, fmt.Sprintf("the DNS did not say which DMARC policy applies to %s", v.Domain)
	case undecided != nil:
		v.Result, v.Reason = TempError, fmt.Sprintf("%s for %s could have passed, but the DNS did not answer", strings.ToUpper(undecided.Method), undecided.Domain)
	default:
		v.Result, v.Reason = Fail, fmt.Sprintf("nothing that passed SPF or DKIM is aligned with %s", v.Domain)
	}
}

// undecidedOf returns an identifier that another answer of the DNS could have
// made an aligned pass, or nil.
func undecidedOf(all []Alignment) *Alignment {
	for i, a := range all {
		if a.Unsure || a.Aligned && a.Result == TempError {
			return &all[i]
		}
	}
	return nil
}

func (v *Verdict) passedBy() string {
	switch {
	case v.SPFAligned && v.DKIMAligned:
		return "SPF and DKIM"
	case v.SPFAligned:
		return "SPF"
	default:
		return "DKIM"
	}
}

// withoutAuthor judges a message whose From does not name one author domain.
// Several From fields fail whatever the DNS says (DESIGN.md 9.13), and so does a
// choice of domains of which one wants failing mail refused (RELIABILITY 47).
func (l *lookups) withoutAuthor(ctx context.Context, from From) Verdict {
	strictest, unsure := l.strictest(ctx, from.Candidates)
	v := strictest.verdict()
	v.Reason = from.Mistake
	switch {
	case from.Fields > 1 || from.TooMany:
		v.Result = Fail
	case v.Policy == PolicyReject:
		v.Result = Fail
		v.Reason = fmt.Sprintf("%s, and %s wants failing mail refused", from.Mistake, v.Domain)
	case unsure:
		v.Result = TempError
	default:
		v.Result = PermError
	}
	return v
}

// rank orders policies by how strict they are.
var rank = map[Policy]int{PolicyNone: 1, PolicyQuarantine: 2, PolicyReject: 3}

// strictest returns what is published for the candidate with the strictest
// policy, and whether any could not be found out.
func (l *lookups) strictest(ctx context.Context, candidates []address.Domain) (strictest published, unsure bool) {
	all := make([]published, len(candidates))
	var wg parallel.Group
	for i, d := range candidates {
		wg.Go(func() { all[i] = l.discover(ctx, d) })
	}
	wg.Wait()
	for i, p := range all {
		unsure = unsure || p.unsure || p.existence.Status == StatusTemporary
		if i == 0 || rank[p.policy()] > rank[strictest.policy()] {
			strictest = p
		}
	}
	return strictest, unsure
}
