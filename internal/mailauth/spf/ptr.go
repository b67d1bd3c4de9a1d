package spf

import (
	"context"
	"slices"
	"strings"

	"onward/internal/resolver"
)

// ptr reports whether a validated name of the client is target or below it
// (RFC 7208 5.5).
func (e *evaluation) ptr(ctx context.Context, step *Step, target string) (bool, error) {
	e.void(step, e.validate(ctx, step))
	if err := e.overVoids(); err != nil {
		return false, err
	}
	return slices.ContainsFunc(e.names, func(name string) bool { return isWithin(name, target) }), nil
}

// nameOfClient returns the validated name that %{p} stands for: the domain
// itself, else one below it, else any (RFC 7208 7.3).
func (e *evaluation) nameOfClient(ctx context.Context, domain string) string {
	e.validate(ctx, e.steps[len(e.steps)-1])
	best := "unknown"
	for i, name := range e.names {
		if strings.EqualFold(name, domain) {
			return name
		}
		if i == 0 || isWithin(name, domain) && !isWithin(best, domain) {
			best = name
		}
	}
	return best
}

// validate finds, once, the names of the client whose addresses include the
// client's. Its error is that of the PTR lookup, every time. Trouble on the way means fewer names (RFC 7208 5.5): whoever holds
// the address decides about those, not the domain that is checked.
func (e *evaluation) validate(ctx context.Context, step *Step) error {
	if e.validated {
		return e.reverseErr
	}
	e.validated = true
	answer, err := e.lookup(ctx, step, resolver.ReverseName(e.in.IP), resolver.TypePTR)
	if err != nil {
		e.reverseErr = err
		return err
	}
	family := resolver.TypeA
	if e.in.IP.Is6() {
		family = resolver.TypeAAAA
	}
	claims := answer.PTR()
	for _, name := range claims[:min(len(claims), maxNames)] { // F4
		found, err := e.lookup(ctx, step, name, family)
		if err == nil && slices.Contains(found.Addrs(), e.in.IP) {
			e.names = append(e.names, name)
		}
	}
	return nil
}

// isWithin reports whether name is domain or below it, without regard to case.
func isWithin(name, domain string) bool {
	name, domain = strings.ToLower(name), strings.ToLower(strings.TrimSuffix(domain, "."))
	return name == domain || strings.HasSuffix(name, "."+domain)
}
