package dmarc

import (
	"context"

	"onward/internal/address"
)

// published is the policy found for one domain (RFC 9989 4.10.1).
type published struct {
	domain    address.Domain
	walk      []Step
	publisher address.Domain // "" when there is none
	record    *Record        // of publisher
	unsure    bool           // a temporary error hides which record it is
	existence Step           // zero when it did not matter
}

// discover walks from d and finds the policy that applies to it.
func (l *lookups) discover(ctx context.Context, d address.Domain) published {
	p := published{domain: d, walk: l.walk(ctx, d)}
	p.publisher, p.record, p.unsure = policyRecord(p.walk)
	if p.record == nil || p.publisher == d || p.record.missing() == p.record.below() {
		return p
	}
	if p.existence = p.walk[0]; p.existence.Status == StatusNoName { // of _dmarc.d; d itself may exist
		p.existence = l.exists(ctx, d)
	}
	return p
}

// policy returns the policy in force for p.domain, "" when there is none (DM8).
// It is the stricter one while the DNS does not say whether the domain exists.
func (p published) policy() Policy {
	switch {
	case p.record == nil || !p.record.Usable():
		return ""
	case p.publisher == p.domain:
		return p.record.own()
	case p.existence.Status == StatusNoName:
		return p.record.missing()
	case p.existence.Status == StatusTemporary && rank[p.record.missing()] > rank[p.record.below()]:
		return p.record.missing()
	default:
		return p.record.below()
	}
}

// verdict returns a Verdict with everything that p knows.
func (p published) verdict() Verdict {
	v := Verdict{
		Domain:       p.domain,
		PolicyDomain: p.publisher,
		Policy:       p.policy(),
		Record:       p.record,
		Walk:         p.walk,
	}
	if p.domain != "" {
		v.OrganizationalDomain = organizationalOf(p.walk)
	}
	if p.existence.Name != "" {
		v.Existence = &p.existence
	}
	return v
}

// organizationalOf returns the organizational domain by what the walk saw.
func organizationalOf(walk []Step) address.Domain {
	return organizational(path(walk[0].Domain), seen(walk))
}

// policyRecord returns the record that applies to the first name of the walk,
// nil when there is none, or unsure when a temporary error hides which it is.
func policyRecord(walk []Step) (publisher address.Domain, r *Record, unsure bool) {
	names := path(walk[0].Domain)
	publisher = policyDomain(names, seen(walk))
	if couldDiffer(walk, nil, func(p picture) bool { return policyDomain(names, p) != publisher }) {
		return "", nil, true
	}
	for _, s := range walk {
		if s.Domain == publisher {
			r = s.Record
		}
	}
	return publisher, r, false
}

// relaxed reports whether two walks came to the same organizational domain, or
// unsure when a temporary error hides that.
func relaxed(a, b []Step) (aligned, unsure bool) {
	from, to := path(a[0].Domain), path(b[0].Domain)
	if from[len(from)-1] != to[len(to)-1] {
		return false, false // not even the last label in common
	}
	same := func(p picture) bool { return organizational(from, p) == organizational(to, p) }
	aligned = same(seen(a, b))
	if couldDiffer(a, b, func(p picture) bool { return same(p) != aligned }) {
		return false, true
	}
	return aligned, false
}
