// Package tlspolicy says what TLS a destination asks for, and whether it got it
// (STANDARDS.md T1 to T3). It connects to no mail host: the SMTP client asks for
// the Rule of each host and keeps to it.
//
//	domain := finder.Find(target's domain, its MX answer)
//	rule := domain.Host(ctx, host)         // for each host that is tried
//	rule.Skip                              // not nil: do not connect, this is why
//	tls.Client(conn, rule.Config())        // after STARTTLS
//	rule.Refuse(why)                       // no TLS: nil means clear text will do
//	rule.Went(conn, state, why)            // for Finder.Report, whatever came of it
//
// What stands behind the rules:
//   - DANE (RFC 7672) where the MX records, the host's address and its TLSA
//     records were all validated with DNSSEC. It beats MTA-STS, for better and
//     for worse. Trouble with TLSA records is never "no DANE": the host is
//     skipped (RELIABILITY 59).
//   - MTA-STS (RFC 8461) otherwise, in testing only for the report.
//   - TLS with any certificate where it is offered, and clear text, otherwise.
//   - A policy that is not met is a reason to try again later (4.7.x), with a
//     sentence that names the domain and what is wrong, never to bounce.
package tlspolicy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/reply"
	"onward/internal/resolver"
	"onward/internal/tlspolicy/dane"
	"onward/internal/tlspolicy/mtasts"
	"onward/internal/webclient"
)

// A Finder finds the policies of domains. Its fields are set before the first
// Find and not changed after; it is then safe for concurrent use.
type Finder struct {
	Resolver resolver.Resolver
	Policies *mtasts.Cache
	Web      *webclient.Client // fetches policies
	Port     int               // of the mail hosts; 0 means 25
	Roots    *x509.CertPool    // who may vouch for mail hosts under MTA-STS; nil means the system's

	// Report hears of every connection, by Rule.Went, and of every host that is
	// skipped. It does not wait; nil means nobody.
	Report func(Session)
}

// A Domain is what one destination asks for, during one attempt. It is not safe
// for concurrent use.
type Domain struct {
	finder *Finder
	name   string
	names  []string      // of the destination, which a certificate may have under DANE-TA
	signed bool          // the mail hosts were found securely
	sts    *mtasts.Found // nil until it is asked for
	rules  map[string]*Rule
}

// Find returns the policy of a destination, with the MX answer in which its
// hosts stand; nil when the domain is its own host. Without validated MX records
// there is no DANE. Where there is no MX record, that the host's own records
// are validated says the same of its absence.
func (f *Finder) Find(domain address.Domain, mx *resolver.Answer) *Domain {
	d := &Domain{finder: f, name: string(domain), names: []string{string(domain)}, rules: map[string]*Rule{}}
	switch {
	case domain.IsLiteral():
		d.sts = &mtasts.Found{}
	case mx == nil:
		d.signed = true
	default:
		d.signed = mx.AuthenticatedData
		d.names = append(d.names, mx.Name)
	}
	return d
}

// Host returns the rule for one of the hosts, the same one each time. It may ask
// the DNS and fetch the domain's policy. When ctx ends meanwhile, the rule means
// nothing.
func (d *Domain) Host(ctx context.Context, host string) *Rule {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	r := d.rules[host]
	if r == nil {
		r = d.rule(ctx, host)
		d.rules[host] = r
		if r.Skip != nil && ctx.Err() == nil {
			r.Went(nil, nil, nil)
		}
	}
	return r
}

// rule finds out what d.Host is to return: DANE, else MTA-STS, else nothing.
func (d *Domain) rule(ctx context.Context, host string) *Rule {
	base, records, err := d.tlsa(ctx, host)
	if err != nil {
		return d.unknown(host, err)
	}
	if records == nil {
		return d.byMTASTS(ctx, host, d.plain(host))
	}
	usable := dane.Usable(records)
	if len(usable) > 0 {
		return d.byDANE(host, base, usable)
	}
	// TLS is a must, and nothing there to tell a good certificate by (RFC 7672
	// 2.2). Where MTA-STS asks for more than that, it shall have it.
	unverified := d.plain(host)
	unverified.by, unverified.Required, unverified.Key = "DANE", true, "tls"
	unverified.policy = Policy{Type: PolicyTLSA, Domain: base, Lines: lines(records)}
	unverified.failures = []Failure{{TLSAInvalid, "no usable TLSA record"}}
	if found := d.found(ctx); found.Policy != nil && found.Policy.Mode == mtasts.Enforce {
		return d.byMTASTS(ctx, host, unverified)
	}
	return unverified
}

// Opportunistic returns the rule for a host that nobody asks anything of, nor
// wants to hear about: what a TLS report itself is sent under (RFC 8460 3).
func Opportunistic(host string) *Rule {
	r := &Rule{host: host}
	if !address.Domain(host).IsLiteral() {
		r.serverName = host
	}
	return r
}

// plain is the rule for a host without any policy.
func (d *Domain) plain(host string) *Rule {
	r := Opportunistic(host)
	r.domain, r.report, r.policy = d.name, d.finder.Report, Policy{Type: PolicyNone, Domain: d.name}
	return r
}

// unknown is the rule for a host of which we could not learn what it asks for.
func (d *Domain) unknown(host string, err error) *Rule {
	r := d.plain(host)
	r.by = "DANE"
	r.policy = Policy{Type: PolicyTLSA, Domain: host}
	r.failures = []Failure{{DNSSECInvalid, reason(err)}}
	r.Skip = &reply.Reply{Code: 451, Status: "4.7.5", Err: err,
		Text: fmt.Sprintf("the TLSA records of %s, a mail host of %s, cannot be looked up just now, or are forged", host, d.name)}
	return r
}

// byDANE is the rule for a host with usable records.
func (d *Domain) byDANE(host, base string, records []resolver.TLSA) *Rule {
	r := d.plain(host)
	r.by, r.Required, r.serverName = "DANE", true, base
	r.policy = Policy{Type: PolicyTLSA, Domain: base, Lines: lines(records)}
	names := append([]string{base, host}, d.names...) // RFC 7672 3.2.2
	r.Key = strings.Join(slices.Concat([]string{"dane"}, names, r.policy.Lines), "\n")
	r.verify = func(state tls.ConnectionState) error {
		return dane.Verify(records, names, state.PeerCertificates, time.Now())
	}
	return r
}

// byMTASTS returns the rule that the domain's MTA-STS policy makes of r.
func (d *Domain) byMTASTS(ctx context.Context, host string, r *Rule) *Rule {
	found := d.found(ctx)
	if found.Policy == nil || found.Policy.Mode == mtasts.None {
		if found.Policy == nil && found.Err != nil {
			r.failures = append(r.failures, policyFailure(found.Err))
		}
		return r
	}
	r.by = "MTA-STS"
	r.policy = Policy{Type: PolicySTS, Domain: d.name, Lines: found.Policy.Lines(), MX: found.Policy.MX}
	r.verify = func(state tls.ConnectionState) error { return d.finder.trusted(host, state) }
	if found.Policy.Mode == mtasts.Enforce {
		r.Required, r.Key = true, "pkix"
	} else {
		r.testing = true
	}
	if !found.Policy.Matches(host) {
		r.failures = append(r.failures, Failure{ValidationFailure, "the policy does not name this host"})
		if !r.testing {
			r.Skip = reply.New(451, "4.7.5", "the MTA-STS policy of %s does not name its mail host %s", d.name, host)
		}
	}
	return r
}

// found returns the domain's MTA-STS policy.
func (d *Domain) found(ctx context.Context) mtasts.Found {
	if d.sts == nil {
		found := d.finder.Policies.Lookup(ctx, d.finder.Web, d.name)
		d.sts = &found
	}
	return *d.sts
}

// trusted holds that the certificate of host is valid for its name (RFC 8461
// 4.2).
func (f *Finder) trusted(host string, state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	between := x509.NewCertPool()
	for _, cert := range state.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: f.Roots, Intermediates: between, DNSName: host})
	return err
}

// tlsa returns the validated TLSA records of host, and the name under which they
// stand; none when there is no DANE. An error means that nobody knows.
func (d *Domain) tlsa(ctx context.Context, host string) (base string, records []resolver.TLSA, err error) {
	if !d.signed || address.Domain(host).IsLiteral() {
		return "", nil, nil
	}
	bases, err := d.bases(ctx, host)
	if err != nil {
		return "", nil, err
	}
	port := d.finder.Port
	if port == 0 {
		port = 25
	}
	for _, base := range bases {
		answer, err := d.finder.Resolver.Lookup(ctx, fmt.Sprintf("_%d._tcp.%s", port, base), resolver.TypeTLSA)
		switch {
		case errors.Is(err, resolver.ErrTemporary):
			return "", nil, err
		case err == nil && answer.AuthenticatedData:
			return base, answer.TLSA(), nil
		}
	}
	return "", nil, nil
}

// bases returns the names under which TLSA records of host count, to be asked
// for in this order: none when its address is not validated, because then
// neither are they, and many a server that knows nothing of DNSSEC fails when
// it is asked for them (RFC 7672 2.2.2). Where host is an alias, RFC 7672 2.2.3
// has its target asked first, if the DNS vouches for all the way there.
func (d *Domain) bases(ctx context.Context, host string) ([]string, error) {
	var owner string
	var trouble error
	for _, family := range []resolver.Type{resolver.TypeA, resolver.TypeAAAA} {
		answer, err := d.finder.Resolver.Lookup(ctx, host, family)
		switch {
		case errors.Is(err, resolver.ErrTemporary):
			trouble = err
		case err == nil && answer.AuthenticatedData:
			return slices.Compact([]string{answer.Name, host}), nil
		case err == nil:
			owner = answer.Name
		}
	}
	if owner == "" { // no address at all, or none any more
		return nil, trouble
	}
	if owner == host {
		return nil, nil
	}
	answer, err := d.finder.Resolver.Lookup(ctx, host, resolver.TypeCNAME)
	switch {
	case errors.Is(err, resolver.ErrTemporary):
		return nil, err
	case err == nil && answer.AuthenticatedData:
		return []string{host}, nil
	}
	return nil, nil
}

// lines returns TLSA records as they stand in a zone file.
func lines(records []resolver.TLSA) []string {
	all := make([]string, len(records))
	for i, r := range records {
		all[i] = fmt.Sprintf("%d %d %d %x", r.Usage, r.Selector, r.Matching, r.Data)
	}
	slices.Sort(all) // the DNS has no order
	return all
}
