package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"onward/internal/address"
	"onward/internal/mailauth/dkim"
	"onward/internal/mailauth/dmarc"
	"onward/internal/resolver"
	"onward/internal/signing"
)

// dkim holds the keys in the DNS against ours.
func (e *examination) dkim(ctx context.Context) []Check {
	if e.KeysErr != nil {
		return []Check{{"DKIM", Failure, fmt.Sprintf("The key that mail is signed with cannot be read: %s.", quote(e.KeysErr.Error())), ""}}
	}
	if len(e.Keys) == 0 {
		return []Check{{"DKIM", Warning, "Nothing is signed (dkim.sign is false); Gmail and Yahoo want a signature.", "dkim: {sign: true}"}}
	}
	var checks []Check
	for _, key := range e.Keys {
		checks = append(checks, e.key(ctx, key)...)
	}
	return checks
}

func (e *examination) key(ctx context.Context, key signing.Record) []Check {
	_, domain, _ := strings.Cut(key.Name, "._domainkey.")
	check := "DKIM " + domain
	mend := textRecord(key.Name, key.Value).String()
	answer, err := e.lookup(ctx, key.Name, resolver.TypeTXT)
	if err != nil {
		return unanswered(check, key.Name, resolver.TypeTXT, err)
	}
	if answer == nil {
		return []Check{{check, Failure, fmt.Sprintf("There is no key at %s, so our signatures do not verify.", key.Name), mend}}
	}
	if n := len(answer.TXT()); n > 1 {
		return []Check{{check, Failure, fmt.Sprintf("There are %d TXT records at %s where one is allowed; keep only this one.", n, key.Name), mend}}
	}
	found, err := dkim.ParseKey(answer.TXT()[0])
	if err != nil {
		return []Check{{check, Failure, fmt.Sprintf("The key at %s cannot be used: %s.", key.Name, quote(err.Error())), mend}}
	}
	own, err := dkim.ParseKey(key.Value)
	if err != nil || own.Type != found.Type || public(own) != public(found) {
		return []Check{{check, Failure, fmt.Sprintf("The key at %s is another than ours, so our signatures do not verify.", key.Name), mend}}
	}
	if found.Testing {
		return []Check{{check, Warning, fmt.Sprintf("The key at %s says that it is being tested (t=y), so our signatures need not count.", key.Name), mend}}
	}
	return []Check{{check, OK, fmt.Sprintf("%s is our key (%s, %d bits).", key.Name, found.Type, found.Bits), ""}}
}

func public(k *dkim.Key) string {
	p, _ := k.Tags.Base64("p") // ParseKey has read it
	return string(p)
}

// dmarc checks the policy of a domain, and that what we forward does not count
// as the domain's own: our return paths and signatures are in the SRS domain, and
// where that is related, mail that others forge in the name of the domain would
// pass DMARC at the mailbox because we handed it on. What fails p=quarantine or
// p=reject gets another From from us (docs/journey.md); with p=none only strict
// alignment helps (docs/dns.md).
func (e *examination) dmarc(ctx context.Context, d address.Domain) []Check {
	check := "DMARC " + d.String()
	srs := e.srsOf(d)
	signs := dmarc.Identifier{Result: dmarc.Pass, Domain: srs.String()}
	in := dmarc.Input{From: dmarc.From{Domain: d, Candidates: []address.Domain{d}, Fields: 1}, SPF: signs}
	if len(e.Keys) > 0 {
		in.DKIM = []dmarc.Identifier{signs}
	}
	v := dmarc.Evaluate(ctx, e.Resolver, in)
	related := below(srs, d) || v.SPFAligned || v.DKIMAligned
	name := "_dmarc." + d.String()
	existing, err := e.texts(ctx, name, "v=DMARC1")
	if err != nil {
		return unanswered(check, name, resolver.TypeTXT, err)
	}
	if i := slices.IndexFunc(v.Walk, func(s dmarc.Step) bool { return s.Status == dmarc.StatusTemporary }); i >= 0 && v.Record == nil {
		return unanswered(check, v.Walk[i].Name, resolver.TypeTXT, errors.New(v.Walk[i].Err))
	}
	switch {
	case len(existing) > 1:
		return []Check{{check, Failure, fmt.Sprintf("%s has %d DMARC records, so that none counts; keep only this one.", name, len(existing)), dmarcRecord(d, strictest(existing), related).String()}}
	case len(existing) == 1 && v.Record != nil && !v.Record.Usable():
		return []Check{{check, Failure, fmt.Sprintf("The DMARC record at %s has no valid policy, so it says nothing.", name), dmarcRecord(d, existing[0], related).String()}}
	case v.Record == nil && related:
		return []Check{{check, Warning, fmt.Sprintf("%s publishes no DMARC policy; Gmail wants one, and it has to be strict, as our return paths are in %s.", d, srs), dmarcRecord(d, "", true).String()}}
	case v.Record == nil:
		return []Check{{check, OK, fmt.Sprintf("%s publishes no DMARC policy; forwarding needs none.", d), ""}}
	}
	policy := fmt.Sprintf("The policy of %s is %s", d, v.Policy)
	strict := v.Record.StrictSPF && (v.Record.StrictDKIM || len(e.Keys) == 0)
	switch {
	case !related:
		return []Check{{check, OK, policy + ", and what we forward does not count as its own.", ""}}
	case v.Policy != dmarc.PolicyNone && strict:
		return []Check{{check, OK, policy + ", and strict; answers to mail whose From we rewrote do not pass it.", ""}}
	case v.Policy != dmarc.PolicyNone:
		return []Check{{check, OK, policy + "; what fails it here goes on under another From, if at all.", ""}}
	case srs == d:
		return []Check{{check, Failure, policy + fmt.Sprintf(", and its return paths are in %s itself: mail that others forge in its name passes DMARC at the mailbox once we have forwarded it.", d), e.ownSRS(d)}}
	case strict:
		return []Check{{check, OK, policy + fmt.Sprintf(", and strict, so that what we forward under %s does not count as its own.", srs), ""}}
	}
	return []Check{{check, Failure, policy + fmt.Sprintf(", but not strict: mail that others forge in its name passes DMARC at the mailbox once we have forwarded it under %s.", srs), dmarcRecord(v.PolicyDomain, existingOf(v, existing), true).String()}}
}

// existingOf is the text of the record that is in force, which may be a parent's.
func existingOf(v dmarc.Verdict, existing []string) string {
	if len(existing) > 0 {
		return existing[0]
	}
	return v.Record.Text
}

// ownSRS takes the return paths out of an alias domain.
func (e *examination) ownSRS(d address.Domain) string {
	srs := e.hostname()
	if srs == d {
		srs = "srs." + d
	}
	if e.Config.SRS.Domain == d {
		return fmt.Sprintf("srs: {domain: %s}", srs)
	}
	return fmt.Sprintf("domains: {%s: {srs_domain: %s}}", d, srs)
}

// below reports whether a domain is another or stands below it.
func below(d, of address.Domain) bool {
	return d == of || strings.HasSuffix(d.String(), "."+of.String())
}

// srsPolicy checks that a domain of return paths has a DMARC policy (S10), where
// none of our domains stands above it and is looked at itself.
func (e *examination) srsPolicy(ctx context.Context, srs address.Domain) []Check {
	if slices.ContainsFunc(e.names(), func(d address.Domain) bool { return below(srs, d) }) {
		return nil
	}
	check := "DMARC " + srs.String()
	v := dmarc.Evaluate(ctx, e.Resolver, dmarc.Input{From: dmarc.From{Domain: srs, Candidates: []address.Domain{srs}, Fields: 1}})
	for _, step := range v.Walk {
		if step.Status == dmarc.StatusTemporary {
			return unanswered(check, step.Name, resolver.TypeTXT, errors.New(step.Err))
		}
	}
	if v.Record == nil || !v.Record.Usable() {
		return []Check{{check, Warning, fmt.Sprintf("%s, which return paths and rewritten senders are in, has no DMARC policy.", srs), srsPolicyRecord(srs).String()}}
	}
	return []Check{{check, OK, fmt.Sprintf("The policy of %s is %s, by the record of %s.", srs, v.Policy, v.PolicyDomain), ""}}
}

// srsPolicyRecord refuses everything in the name of a domain in which nobody
// writes but us.
func srsPolicyRecord(srs address.Domain) Record {
	return textRecord("_dmarc."+srs, "v=DMARC1; p=reject; adkim=s; aspf=s")
}

// dnssec says which of our names are signed. Nothing depends on it.
func (e *examination) dnssec(ctx context.Context) []Check {
	var signed, unsigned []string
	for _, d := range e.names() {
		answer, err := e.lookup(ctx, d.String(), resolver.TypeMX)
		if err != nil || answer == nil {
			continue // which is said elsewhere
		}
		if answer.AuthenticatedData {
			signed = append(signed, d.String())
		} else {
			unsigned = append(unsigned, d.String())
		}
	}
	switch {
	case len(signed)+len(unsigned) == 0:
		return nil
	case len(signed) == 0:
		return []Check{{"DNSSEC", OK, "No domain is signed, which is no trouble.", ""}}
	case len(unsigned) == 0:
		return []Check{{"DNSSEC", OK, fmt.Sprintf("%s: signed and validated.", join(signed)), ""}}
	}
	return []Check{{"DNSSEC", OK, fmt.Sprintf("%s: signed and validated; %s: not.", join(signed), join(unsigned)), ""}}
}
