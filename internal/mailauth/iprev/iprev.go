// Package iprev checks whether the name that an address claims to have leads
// back to that address (RFC 8601 3).
//
// Anybody can write any name into the PTR record of their own address, so a
// name counts only with Pass. The result says something about how a machine is
// kept, nothing about the message.
package iprev

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"onward/internal/address"
	"onward/internal/parallel"
	"onward/internal/resolver"
)

// maxNames is how many of an address's names are looked at. Few have two.
const maxNames = 5

// A Result is a word of RFC 8601 2.7.3.
type Result string

// The results.
const (
	Pass      Result = "pass"
	Fail      Result = "fail"      // there are names, but none leads back
	PermError Result = "permerror" // there is no name
	TempError Result = "temperror" // the DNS did not say
)

// A Verdict is what was found. Name is empty unless Result is Pass.
type Verdict struct {
	Result Result         `json:"result"`
	Name   address.Domain `json:"name,omitempty"`
	Reason string         `json:"reason,omitempty"` // the DNS error behind TempError, for our log and explain
}

// Verify asks r for the names of ip, and for the addresses of the first five of
// them at the same time. It returns no later than ctx ends.
func Verify(ctx context.Context, r resolver.Resolver, ip netip.Addr) Verdict {
	ip = ip.Unmap().WithZone("")
	names, err := claimed(ctx, r, ip)
	switch {
	case errors.Is(err, resolver.ErrTemporary):
		return Verdict{Result: TempError, Reason: err.Error()}
	case err != nil:
		return Verdict{Result: PermError}
	}
	results := make([]error, len(names))
	var wg parallel.Group
	for i, name := range names {
		wg.Go(func() { results[i] = confirm(ctx, r, name, ip) })
	}
	wg.Wait()
	return conclude(names, results)
}

// claimed returns the usable names in the PTR records of ip. Those that cannot
// be host names are left out: they are foreign text.
func claimed(ctx context.Context, r resolver.Resolver, ip netip.Addr) ([]address.Domain, error) {
	answer, err := r.Lookup(ctx, resolver.ReverseName(ip), resolver.TypePTR)
	if err != nil {
		return nil, err
	}
	var names []address.Domain
	for _, claim := range answer.PTR() {
		name, err := address.ParseDomain(claim)
		if err == nil && !name.IsLiteral() && len(names) < maxNames {
			names = append(names, name)
		}
	}
	return names, nil
}

// errElsewhere says that a name leads to other addresses only.
var errElsewhere = errors.New("the name has other addresses")

// confirm returns nil when one of the addresses of name is ip.
func confirm(ctx context.Context, r resolver.Resolver, name address.Domain, ip netip.Addr) error {
	t := resolver.TypeA
	if ip.Is6() {
		t = resolver.TypeAAAA
	}
	answer, err := r.Lookup(ctx, string(name), t)
	if err != nil {
		return err
	}
	if !slices.Contains(answer.Addrs(), ip) {
		return errElsewhere
	}
	return nil
}

// conclude takes the first name that is confirmed. Without one, a name that the
// DNS kept silent about may be the right one.
func conclude(names []address.Domain, results []error) Verdict {
	if i := slices.Index(results, nil); i >= 0 {
		return Verdict{Result: Pass, Name: names[i]}
	}
	for _, err := range results {
		if errors.Is(err, resolver.ErrTemporary) {
			return Verdict{Result: TempError, Reason: err.Error()}
		}
	}
	return Verdict{Result: Fail}
}
