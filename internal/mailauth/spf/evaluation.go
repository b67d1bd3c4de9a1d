package spf

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"onward/internal/address"
	"onward/internal/resolver"
)

// An evaluation is one check under way. Its counts run through all records
// (RFC 7208 4.6.4).
type evaluation struct {
	resolver resolver.Resolver
	in       Input
	sender   address.Mailbox
	lookups  int
	voids    int
	steps    []*Step

	validated  bool     // the next two are known
	names      []string // of the client, that lead back to it
	reverseErr error    // of the lookup of those
}

// A decision is the outcome of one record.
type decision struct {
	result Result
	reason string
	term   Term   // that decided, if one did
	domain string // of the record, and
	exp    string // the domain-spec of its explanation, if it has one
}

// A trouble ends the evaluation with something that is not the domain's word.
type trouble struct {
	result Result // None, TempError or PermError
	reason string
}

func (t trouble) Error() string { return t.reason }

// record fetches and evaluates the record of domain. This is check_host() of
// RFC 7208 4.
func (e *evaluation) record(ctx context.Context, domain string, depth int) decision {
	domain = strings.TrimSuffix(domain, ".")
	terms, err := e.fetch(ctx, domain, depth)
	if err != nil {
		return failed(err, Term{}, domain)
	}
	for _, t := range terms {
		if t.IsModifier() {
			continue
		}
		matched, err := e.try(ctx, t, domain, depth)
		if err != nil {
			return failed(err, t, domain)
		}
		if matched {
			exp, _ := find(terms, "exp")
			reason := fmt.Sprintf("%v matches %.200q in the record of %s", e.in.IP, t.Text, domain)
			return decision{t.Result, reason, t, domain, exp.Target}
		}
	}
	if t, ok := find(terms, "redirect"); ok {
		return e.redirect(ctx, t, domain, depth)
	}
	return decision{result: Neutral, reason: "no term of the record of " + domain + " matches", domain: domain}
}

// failed returns the decision that err, from fetch or try, stands for.
func failed(err error, t Term, domain string) decision {
	if tr, ok := errors.AsType[trouble](err); ok {
		return decision{result: tr.result, reason: tr.reason, term: t, domain: domain}
	}
	return decision{result: TempError, reason: err.Error(), term: t, domain: domain}
}

// fetch returns the terms of the one record of domain (RFC 7208 4.3 to 4.6).
func (e *evaluation) fetch(ctx context.Context, domain string, depth int) ([]Term, error) {
	step := e.begin(Step{Depth: depth, Domain: domain})
	text, err := e.text(ctx, step, domain)
	if err != nil {
		step.Answer = shown(err.Error(), maxText)
		return nil, err
	}
	step.Record = shown(text, maxRecord)
	step.Answer = "found"
	terms, errs := Parse(text)
	if errs != nil {
		step.Answer = shown(errs[0].Error(), maxText)
		return nil, trouble{PermError, "record of " + domain + ": " + errs[0].Error()}
	}
	return terms, nil
}

// text returns the SPF record of domain.
func (e *evaluation) text(ctx context.Context, step *Step, domain string) (string, error) {
	if !isName(domain) {
		return "", trouble{None, fmt.Sprintf("%.200q is not a domain name of two labels or more", domain)}
	}
	answer, err := e.lookup(ctx, step, domain, resolver.TypeTXT)
	switch {
	case isNo(err):
		return "", trouble{None, err.Error()}
	case err != nil:
		return "", err
	}
	var records []string
	for _, txt := range answer.TXT() {
		if isRecord(txt) {
			records = append(records, txt)
		}
	}
	switch len(records) {
	case 0:
		return "", trouble{None, domain + " publishes no SPF record"}
	case 1:
		return records[0], nil
	default: // F3
		return "", trouble{PermError, domain + " publishes more than one SPF record"}
	}
}

// isName reports whether the record of s can be asked for (RFC 7208 4.3): two
// labels at least, and no address literal.
func isName(s string) bool {
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 {
			return false
		}
	}
	return len(labels) > 1 && len(s) <= 253 && !strings.HasPrefix(s, "[")
}

// try reports whether t matches, and notes how it came to that.
func (e *evaluation) try(ctx context.Context, t Term, domain string, depth int) (bool, error) {
	step := e.begin(Step{Depth: depth, Domain: domain, Term: t.Text})
	matched, err := e.match(ctx, step, t, domain, depth)
	switch {
	case err != nil:
		step.Answer = shown(err.Error(), maxText)
	case matched:
		step.Answer = "match"
	default:
		step.Answer = "no match"
	}
	return matched, err
}

// match reports whether the mechanism t of the record of domain matches the
// client (RFC 7208 5).
func (e *evaluation) match(ctx context.Context, step *Step, t Term, domain string, depth int) (bool, error) {
	if err := e.count(ctx, step, t); err != nil {
		return false, err
	}
	switch t.Name {
	case "all":
		return true, nil
	case "ip4", "ip6":
		return t.Prefix.Contains(e.in.IP), nil
	}
	target, err := e.target(ctx, t, domain)
	if err != nil {
		return false, err
	}
	if strings.IndexFunc(target, notASCII) >= 0 { // from the sender's local part (RFC 8616 4)
		return false, nil
	}
	switch t.Name {
	case "include":
		return e.include(ctx, target, depth)
	case "ptr":
		return e.ptr(ctx, step, target)
	default: // a, mx, exists
		return e.ask(ctx, step, t, target)
	}
}

// count notes that t is about to be evaluated, if there is a limit on that.
func (e *evaluation) count(ctx context.Context, step *Step, t Term) error {
	if ctx.Err() != nil {
		return trouble{TempError, "out of time"} // F5
	}
	if t.AsksDNS() {
		if e.lookups == MaxLookups {
			return trouble{PermError, fmt.Sprintf("more than %d terms ask the DNS", MaxLookups)} // F4
		}
		e.lookups++
		step.Lookups = e.lookups
	}
	return nil
}

// target returns the name that t is about, cut from the left to what fits into
// the DNS (RFC 7208 7.3).
func (e *evaluation) target(ctx context.Context, t Term, domain string) (string, error) {
	if t.Target == "" {
		return domain, nil
	}
	name, err := e.expand(ctx, t.Target, domain)
	if err != nil {
		return "", trouble{PermError, fmt.Sprintf("%.200q %v", t.Text, err)}
	}
	name = strings.TrimSuffix(name, ".")
	for len(name) > 253 {
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			break
		}
		name = rest
	}
	return name, nil
}

// include reports whether the record of target gives a pass (RFC 7208 5.2).
func (e *evaluation) include(ctx context.Context, target string, depth int) (bool, error) {
	d := e.record(ctx, target, depth+1)
	switch d.result {
	case Pass:
		return true, nil
	case Fail, SoftFail, Neutral:
		return false, nil
	case None:
		return false, trouble{PermError, "include: " + d.reason}
	default:
		return false, trouble{d.result, d.reason}
	}
}

// redirect takes the record of another domain in place of this one
// (RFC 7208 6.1).
func (e *evaluation) redirect(ctx context.Context, t Term, domain string, depth int) decision {
	step := e.begin(Step{Depth: depth, Domain: domain, Term: t.Text})
	if err := e.count(ctx, step, t); err != nil {
		step.Answer = shown(err.Error(), maxText)
		return failed(err, t, domain)
	}
	target, err := e.target(ctx, t, domain)
	if err != nil {
		step.Answer = shown(err.Error(), maxText)
		return failed(err, t, domain)
	}
	d := e.record(ctx, target, depth+1)
	if d.result == None {
		d = decision{result: PermError, reason: "redirect: " + d.reason, term: t, domain: domain}
	}
	step.Answer = string(d.result)
	return d
}

// explanation returns the text that the domain publishes for a fail, or nothing
// (RFC 7208 6.2). Its queries count towards no limit.
func (e *evaluation) explanation(ctx context.Context, d decision) string {
	if d.exp == "" {
		return ""
	}
	step := e.begin(Step{Domain: d.domain, Term: "exp=" + d.exp, Answer: "ignored"})
	target, err := e.target(ctx, Term{Target: d.exp}, d.domain)
	if err != nil {
		return ""
	}
	answer, err := e.lookup(ctx, step, target, resolver.TypeTXT)
	if err != nil || len(answer.TXT()) != 1 || len(answer.TXT()[0]) > maxExpansion {
		return ""
	}
	text, err := e.expand(ctx, answer.TXT()[0], d.domain)
	if err != nil || text != printable(text) { // US-ASCII, and fit for an SMTP reply
		return ""
	}
	step.Answer = "found"
	return text
}
