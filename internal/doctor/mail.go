package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"onward/internal/address"
	"onward/internal/mailauth/spf"
	"onward/internal/resolver"
)

// mx checks that mail for a domain comes here, and here first.
func (e *examination) mx(ctx context.Context, d address.Domain) []Check {
	check := "MX " + d.String()
	mend := mxRecord(d, e.hostname()).String()
	answer, err := e.lookup(ctx, d.String(), resolver.TypeMX)
	switch {
	case err != nil:
		return unanswered(check, d.String(), resolver.TypeMX, err)
	case answer == nil && d == e.hostname():
		return []Check{{check, OK, fmt.Sprintf("%s is this server and has no MX record, so mail comes here.", d), ""}}
	case answer == nil:
		return []Check{{check, Failure, fmt.Sprintf("%s has no MX record, so no mail for it comes here.", d), mend}}
	}
	hosts := answer.MX()
	slices.SortStableFunc(hosts, func(a, b resolver.MX) int { return int(a.Preference) - int(b.Preference) })
	var own, others []string
	rival := false // another is preferred as much or more
	for _, mx := range hosts {
		text := fmt.Sprintf("%d %s", mx.Preference, quote(orRoot(mx.Host)))
		if e.isUs(ctx, mx.Host) {
			own = append(own, text)
			continue
		}
		others = append(others, text)
		rival = rival || mx.Preference == hosts[0].Preference
	}
	switch {
	case len(own) == 0:
		return []Check{{check, Failure, fmt.Sprintf("Mail for %s goes to %s rather than to this server.", d, join(others)), mend}}
	case rival:
		return []Check{{check, Failure, fmt.Sprintf("Mail for %s goes to %s too, and not only to this server; take that record away.", d, join(others)), mend}}
	case len(others) > 0:
		return []Check{{check, Warning, fmt.Sprintf("Mail for %s goes to %s when this server is away, which must hand it on to us and hides who sends it; senders try again on their own.", d, join(others)), mend}}
	}
	return []Check{{check, OK, fmt.Sprintf("Mail for %s goes to %s, which is this server.", d, join(own)), ""}}
}

func orRoot(host string) string {
	if host == "" {
		return ". (nobody takes its mail)"
	}
	return host
}

// isUs reports whether the host of an MX record is this server: by its name, or
// by its addresses when they are not just taken to be ours.
func (e *examination) isUs(ctx context.Context, host string) bool {
	if host == e.hostname().String() {
		return true
	}
	if host == "" {
		return false
	}
	n := e.resolve(ctx, host)
	return len(n.addrs) > 0 && len(without(n.addrs, e.ours)) == 0
}

// bounces checks that mail for a domain of return paths comes here, where that is
// not checked as a domain or as our name: by its MX, or by its address (S10).
func (e *examination) bounces(ctx context.Context, srs address.Domain) []Check {
	if slices.Contains(e.names(), srs) {
		return nil
	}
	if srs != e.hostname() {
		return e.mx(ctx, srs)
	}
	answer, err := e.lookup(ctx, srs.String(), resolver.TypeMX)
	if err != nil || answer == nil { // then its address counts, which is looked at elsewhere
		return nil
	}
	return e.mx(ctx, srs)
}

// spf checks that SPF of a domain of return paths passes for every address that
// mail leaves from (D5, G2, DESIGN.md 9.14).
func (e *examination) spf(ctx context.Context, srs address.Domain) []Check {
	check := "SPF " + srs.String()
	existing, err := e.spfTexts(ctx, srs)
	if err != nil {
		return unanswered(check, srs.String(), resolver.TypeTXT, err)
	}
	egress := e.egress(e.ours)
	mend := spfRecord(srs, existing, e.spfTerms(egress)).String()
	switch {
	case len(existing) == 0:
		return []Check{{check, Failure, fmt.Sprintf("%s has no SPF record; the return paths of what we forward are in it, and Gmail wants one.", srs), mend}}
	case len(existing) > 1:
		return []Check{{check, Failure, fmt.Sprintf("%s has %d SPF records, so that none counts (RFC 7208 4.5); keep only this one.", srs, len(existing)), mend}}
	case e.Config.Delivery.Relay != "":
		return e.relaySPF(check, srs, existing[0], mend)
	case len(egress) == 0:
		return []Check{{check, Warning, "The address that mail leaves from is not known; name it with --ip.", ""}}
	}
	for _, ip := range egress {
		got := e.passes(ctx, srs, ip)
		if got.Result == spf.TempError {
			return unanswered(check, srs.String(), resolver.TypeTXT, errors.New(got.Reason))
		}
		if got.Result != spf.Pass {
			return []Check{{check, Failure, fmt.Sprintf("SPF of %s gives %s for %s, from which we send: %s.", srs, got.Result, ip, quote(got.Reason)), mend}}
		}
	}
	return []Check{{check, OK, fmt.Sprintf("SPF of %s passes for %s.", srs, list(egress)), ""}}
}

func (s *Subject) spfTexts(ctx context.Context, name address.Domain) ([]string, error) {
	all, err := s.texts(ctx, name.String(), "v=spf1")
	return slices.DeleteFunc(all, func(text string) bool { return len(text) > 6 && text[6] != ' ' }), err
}

// spfTerms are what the SPF record of our return paths has to allow.
func (s *Subject) spfTerms(egress []netip.Addr) []string {
	if host := s.relayHost(); host != "" {
		return []string{relayTerm(host)}
	}
	if len(egress) == 0 {
		return []string{"a:" + s.hostname().String()} // whatever that leads to
	}
	return spfTerms(egress)
}

// passes evaluates SPF as a destination will when our own name leads to our
// addresses: whether it does is another check.
func (e *examination) passes(ctx context.Context, srs address.Domain, ip netip.Addr) spf.Check {
	from := address.ReversePath{Mailbox: address.Mailbox{Local: "postmaster", Domain: srs}}
	_, got := spf.Verify(ctx, mended{e.Resolver, e.ownAddresses(), e.hostname().String()}, spf.Input{
		IP: ip, Helo: e.hostname().String(), From: from, Hostname: "mx.google.com", Now: e.Now,
	})
	return got
}

// mended is a resolver in which our name has our addresses.
type mended struct {
	resolver.Resolver
	own  *resolver.Zone
	name string
}

// Lookup implements resolver.Resolver.
func (m mended) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	if strings.EqualFold(strings.TrimSuffix(name, "."), m.name) && (t == resolver.TypeA || t == resolver.TypeAAAA) {
		return m.own.Lookup(ctx, name, t)
	}
	return m.Resolver.Lookup(ctx, name, t)
}

func (e *examination) ownAddresses() *resolver.Zone {
	zone := resolver.NewZone()
	for _, t := range []resolver.Type{resolver.TypeA, resolver.TypeAAAA} {
		var texts []string
		for _, ip := range e.ours {
			if family(ip) == t {
				texts = append(texts, ip.String())
			}
		}
		zone.Set(e.hostname().String(), t, texts...) // which are addresses
	}
	return zone
}

// relaySPF looks for the relay in the record: which addresses it sends from is
// its own business.
func (e *examination) relaySPF(check string, srs address.Domain, record, mend string) []Check {
	terms, mistakes := spf.Parse(record)
	if len(mistakes) > 0 {
		return []Check{{check, Failure, fmt.Sprintf("The SPF record of %s cannot be read: %s.", srs, quote(mistakes[0].Error())), mend}}
	}
	term := relayTerm(e.relayHost())
	for _, t := range terms {
		if strings.EqualFold(t.Text, term) {
			return []Check{{check, OK, fmt.Sprintf("SPF of %s names the relay (%s).", srs, term), ""}}
		}
	}
	if !strings.HasPrefix(term, "include:") {
		return []Check{{check, OK, fmt.Sprintf("SPF of %s is %s; whether that covers what %s sends from, its provider says.", srs, quote(record), e.relayHost()), ""}}
	}
	return []Check{{check, Failure, fmt.Sprintf("SPF of %s does not name the relay that everything goes through.", srs), mend}}
}
