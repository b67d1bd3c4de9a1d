package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"onward/internal/address"
	"onward/internal/mailauth/dkim"
	"onward/internal/mailauth/dmarc"
	"onward/internal/mailauth/spf"
	"onward/internal/resolver"
)

// advice is one thing to mend: a mistake changes what receivers do, the rest
// could be better.
type advice struct {
	Mistake bool   `json:"mistake"`
	Text    string `json:"text"`
}

func mistake(format string, args ...any) advice { return advice{true, fmt.Sprintf(format, args...)} }
func hint(format string, args ...any) advice    { return advice{false, fmt.Sprintf(format, args...)} }

// spfMistakes names what is wrong with the record that step has fetched. Of an
// included domain nothing may be missing either (RFC 7208 5.2).
func spfMistakes(step spf.Step) []advice {
	if step.Term != "" || step.Record == "" {
		if step.Term == "" && step.Depth > 0 && step.Answer != "found" {
			return []advice{mistake("%s is included or redirected to, but has no usable record (%s), so every check ends in permerror or temperror; take the term out or mend the name.", step.Domain, step.Answer)}
		}
		return nil
	}
	var found []advice
	_, errs := spf.Parse(step.Record)
	for _, err := range errs {
		found = append(found, mistake("In the record of %s, %v; one such term makes the whole record a permerror, so correct it or take it out.", step.Domain, err))
	}
	return found
}

// spfMissing says why a domain has no record, if that can be seen.
func spfMissing(first spf.Step, d address.Domain, txt []string) []advice {
	var near, records []string
	for _, t := range txt {
		switch version, _, _ := strings.Cut(strings.ToLower(t), " "); {
		case version == "v=spf1":
			records = append(records, t)
		case strings.Contains(version, "spf"):
			near = append(near, t)
		}
	}
	switch {
	case len(records) > 1:
		return []advice{mistake("%s publishes %d SPF records where one is allowed; join their terms in one record and remove the others.", d, len(records))}
	case len(near) > 0:
		return []advice{mistake("%q looks like an SPF record but does not begin with \"v=spf1\" and a space; correct its beginning.", near[0])}
	case isTemporary(first.Answer):
		return []advice{mistake("The DNS did not say (%s); ask again later, or mend the name servers of %s.", first.Answer, d)}
	}
	return []advice{mistake("%s has no SPF record: anybody may use it in MAIL FROM; publish a TXT record, \"v=spf1 mx -all\" when only its mail exchangers send, \"v=spf1 -all\" when nobody does.", d)}
}

func isTemporary(answer string) bool {
	return strings.Contains(answer, resolver.ErrTemporary.Error())
}

// spfAdvice looks at a record that can be read for what it may not mean.
func spfAdvice(record string, lookups int) []advice {
	terms, errs := spf.Parse(record)
	if len(errs) > 0 {
		return nil
	}
	var found []advice
	named := func(name string) int {
		return slices.IndexFunc(terms, func(t spf.Term) bool { return t.Name == name })
	}
	all, redirect := named("all"), named("redirect")
	switch {
	case all < 0 && redirect < 0:
		found = append(found, hint("The record says nothing about everybody else (neutral); end it with ~all, or with -all once you are sure."))
	case all >= 0 && terms[all].Result == spf.Pass:
		found = append(found, mistake("%q lets everybody send in your name; write -all or ~all.", terms[all].Text))
	case all >= 0 && terms[all].Result == spf.Neutral:
		found = append(found, hint("%q says nothing about everybody else; write ~all, or -all once you are sure.", terms[all].Text))
	}
	if all >= 0 && slices.ContainsFunc(terms[all+1:], func(t spf.Term) bool { return !t.IsModifier() }) {
		found = append(found, mistake("The mechanisms after %q are never reached; move it to the end.", terms[all].Text))
	}
	if all >= 0 && redirect >= 0 {
		found = append(found, mistake("%q is ignored because there is an \"all\"; take one of the two out.", terms[redirect].Text))
	}
	if i := named("ptr"); i >= 0 {
		found = append(found, hint("%q is slow and unreliable (RFC 7208 5.5); name the addresses instead.", terms[i].Text))
	}
	switch {
	case lookups > spf.MaxLookups:
		found = append(found, mistake("A client that no term matches costs %d lookups, of which %d are allowed (RFC 7208 4.6.4): mail that gets that far is a permerror; take out includes you no longer use, or replace them by ip4 and ip6.", lookups, spf.MaxLookups))
	case lookups == spf.MaxLookups:
		found = append(found, hint("All %d lookups are used up; one more include, anywhere below, breaks the record.", lookups))
	}
	return found
}

// dmarcMissing says why there is no record, unless that is known already.
func dmarcMissing(ctx context.Context, r resolver.Resolver, d address.Domain, known []advice) []advice {
	if len(known) > 0 {
		return nil
	}
	for _, t := range texts(ctx, r, "_dmarc."+d.String()) {
		if strings.Contains(strings.ToLower(t), "dmarc") {
			return []advice{mistake("%q looks like a DMARC record but does not begin with \"v=DMARC1;\" (in capitals); correct its beginning.", t)}
		}
	}
	return []advice{mistake("There is no DMARC record: receivers do not know what to do with mail that forges %s; publish a TXT record at _dmarc.%s, to begin with \"v=DMARC1; p=none; rua=mailto:dmarc@%s\".", d, d, d)}
}

// dmarcAdvice looks at the record for mistakes and for what it may not mean.
func dmarcAdvice(ctx context.Context, r resolver.Resolver, v dmarc.Verdict) []advice {
	var found []advice
	for _, tag := range v.Record.Tags {
		if tag.Mistake != "" {
			found = append(found, mistake("%s=%s: %s; correct it or take it out.", tag.Name, shortened(tag.Value), tag.Mistake))
		}
	}
	switch {
	case !v.Record.Usable():
		found = append(found, mistake("The record has no valid policy and wants no reports, so that it counts for nothing; write p=none, p=quarantine or p=reject."))
	case v.Record.P == "":
		found = append(found, mistake("There is no valid \"p\", which counts as p=none; write p=none, p=quarantine or p=reject."))
	case v.Policy == dmarc.PolicyNone:
		found = append(found, hint("The policy for %s is none: forged mail is delivered; when the reports show that your own mail passes, go on to quarantine and reject.", v.Domain))
	}
	if v.Record.Testing && v.Record.P != dmarc.PolicyNone {
		found = append(found, hint("t=y takes one step off the policy; take it out when your tests are over."))
	}
	if len(v.Record.RUA) == 0 {
		found = append(found, hint("Nobody sends you reports; add rua=mailto: and an address, to learn who sends in your name."))
	}
	return append(found, reportPermission(ctx, r, v)...)
}

// reportPermission checks that whoever is to receive reports of another
// organization has agreed to that (RFC 9990 4).
func reportPermission(ctx context.Context, r resolver.Resolver, v dmarc.Verdict) []advice {
	const most = 5 // questions about one record
	var found []advice
	asked := map[string]bool{}
	for _, uri := range slices.Concat(v.Record.RUA, v.Record.RUF) {
		receiver, err := address.ParseDomain(uri[strings.LastIndexByte(uri, '@')+1:])
		if err != nil || asked[string(receiver)] || len(asked) == most {
			continue
		}
		asked[string(receiver)] = true
		there := dmarc.Evaluate(ctx, r, dmarc.Input{From: dmarc.From{Domain: receiver, Fields: 1}})
		name := fmt.Sprintf("%s._report._dmarc.%s", v.PolicyDomain, receiver)
		if there.OrganizationalDomain == v.OrganizationalDomain || permits(texts(ctx, r, name)) {
			continue
		}
		found = append(found, mistake("%s has not agreed to receive reports about %s; there has to be a TXT record %s that says \"v=DMARC1\".", receiver, v.PolicyDomain, name))
	}
	return found
}

func permits(records []string) bool {
	return slices.ContainsFunc(records, func(t string) bool {
		_, ok := dmarc.ParseRecord(t)
		return ok
	})
}

// keyAdvice says what a key does not do, or should do better.
func keyAdvice(k *dkim.Key, err error) []advice {
	var found []advice
	p, hasKey := "", false
	if k != nil {
		p, hasKey = k.Tags.Get("p")
	}
	switch {
	case err == nil:
	case hasKey && p == "":
		found = append(found, mistake("The key was revoked (p= is empty): every signature with this selector fails; sign with another selector."))
	default:
		found = append(found, mistake("No signature with this selector can pass: %v; publish the record again as your signer prints it.", err))
	}
	if err == nil && k.Type == "rsa" && k.Bits < 2048 {
		found = append(found, hint("A key of %d bits is accepted, but weak; publish one of 2048 bits under a new selector.", k.Bits))
	}
	if k != nil && k.Testing {
		found = append(found, hint("t=y tells receivers that you are only testing; take it out when signing works."))
	}
	if err == nil && k.Type == "ed25519" {
		found = append(found, hint("Many receivers cannot verify Ed25519 yet; sign with an RSA key as well."))
	}
	return found
}
