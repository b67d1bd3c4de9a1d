package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"onward/internal/address"
	"onward/internal/mailauth/dkim"
	"onward/internal/mailauth/dmarc"
	"onward/internal/mailauth/spf"
	"onward/internal/resolver"
)

// A domainReport is what a domain publishes about its mail. It is what
// "explain --domain --json" prints.
type domainReport struct {
	Domain address.Domain `json:"domain"`
	SPF    spfReport      `json:"spf"`
	DMARC  dmarcReport    `json:"dmarc"`
	DKIM   []keyReport    `json:"dkim"`
}

type spfReport struct {
	Record  string     `json:"record"`
	Lookups int        `json:"lookups"` // what a client costs that no term matches
	Steps   []spf.Step `json:"steps"`
	Advice  []advice   `json:"advice"`
}

type dmarcReport struct {
	Domain               address.Domain `json:"policy_domain"` // who publishes the record
	OrganizationalDomain address.Domain `json:"organizational_domain"`
	Policy               dmarc.Policy   `json:"policy"` // in force for the domain
	Record               *dmarc.Record  `json:"record,omitempty"`
	Walk                 []dmarc.Step   `json:"walk"`
	Existence            *dmarc.Step    `json:"existence,omitempty"`
	Advice               []advice       `json:"advice"`
}

type keyReport struct {
	Selector string   `json:"selector"`
	Name     string   `json:"name"`
	Record   string   `json:"record"`
	Type     string   `json:"type,omitempty"`
	Bits     int      `json:"bits,omitempty"`
	Tags     []keyTag `json:"tags"`
	Advice   []advice `json:"advice"`
}

type keyTag struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	Meaning string `json:"meaning"`
}

// readDomain asks for everything that is explained about a domain.
func readDomain(ctx context.Context, r resolver.Resolver, d address.Domain, selectors []string) domainReport {
	report := domainReport{Domain: d, DKIM: []keyReport{}}
	report.SPF = readSPF(ctx, r, d)
	report.DMARC = readDMARC(ctx, r, d)
	for _, selector := range selectors {
		report.DKIM = append(report.DKIM, readKey(ctx, r, selector, d))
	}
	return report
}

// texts returns the TXT records at a name, none when the DNS did not say.
func texts(ctx context.Context, r resolver.Resolver, name string) []string {
	answer, err := r.Lookup(ctx, name, resolver.TypeTXT)
	if err != nil {
		return nil
	}
	return answer.TXT()
}

func readSPF(ctx context.Context, r resolver.Resolver, d address.Domain) spfReport {
	report := spfReport{Steps: spf.Survey(ctx, r, d.String()), Advice: []advice{}}
	first := report.Steps[0]
	report.Record = first.Record
	for _, step := range report.Steps {
		report.Lookups = max(report.Lookups, step.Lookups)
		report.Advice = append(report.Advice, spfMistakes(step)...)
	}
	if first.Record == "" {
		report.Advice = append(report.Advice, spfMissing(first, d, texts(ctx, r, d.String()))...)
	} else {
		report.Advice = append(report.Advice, spfAdvice(first.Record, report.Lookups)...)
	}
	return report
}

func readDMARC(ctx context.Context, r resolver.Resolver, d address.Domain) dmarcReport {
	v := dmarc.Evaluate(ctx, r, dmarc.Input{From: dmarc.From{Domain: d, Candidates: []address.Domain{d}, Fields: 1}})
	report := dmarcReport{Domain: v.PolicyDomain, OrganizationalDomain: v.OrganizationalDomain, Policy: v.Policy,
		Record: v.Record, Walk: v.Walk, Existence: v.Existence, Advice: []advice{}}
	for _, step := range v.Walk {
		switch step.Status {
		case dmarc.StatusSeveral:
			report.Advice = append(report.Advice, mistake("%s has more than one DMARC record, so that none counts; remove all but one.", step.Name))
		case dmarc.StatusTemporary:
			report.Advice = append(report.Advice, mistake("The DNS did not say what is at %s; ask again later, or mend the name servers.", step.Name))
		}
	}
	if v.Record == nil {
		report.Advice = append(report.Advice, dmarcMissing(ctx, r, d, report.Advice)...)
		return report
	}
	report.Advice = append(report.Advice, dmarcAdvice(ctx, r, v)...)
	return report
}

func readKey(ctx context.Context, r resolver.Resolver, selector string, d address.Domain) keyReport {
	report := keyReport{Selector: selector, Name: selector + "._domainkey." + d.String(), Tags: []keyTag{}, Advice: []advice{}}
	answer, err := r.Lookup(ctx, report.Name, resolver.TypeTXT)
	switch {
	case errors.Is(err, resolver.ErrTemporary):
		report.Advice = append(report.Advice, mistake("The DNS did not say (%v); ask again later, or mend the name servers.", err))
		return report
	case err != nil:
		report.Advice = append(report.Advice, mistake("There is no key at %s; look up the selector in the s= tag of a DKIM-Signature, and publish its key there.", report.Name))
		return report
	case len(answer.TXT()) > 1:
		report.Advice = append(report.Advice, mistake("There are %d TXT records at %s where one is allowed; remove all but the key.", len(answer.TXT()), report.Name))
	}
	report.Record = answer.TXT()[0]
	key, err := dkim.ParseKey(report.Record)
	if key != nil {
		report.Type, report.Bits, report.Tags = key.Type, key.Bits, keyTags(key)
	}
	report.Advice = append(report.Advice, keyAdvice(key, err)...)
	return report
}

// keyTags explains a key record attribute by attribute (RFC 6376 3.6.1).
func keyTags(k *dkim.Key) []keyTag {
	tags := []keyTag{}
	for _, t := range k.Tags {
		tags = append(tags, keyTag{t.Name, t.Value, keyMeaning(k, t)})
	}
	return tags
}

func keyMeaning(k *dkim.Key, t dkim.Tag) string {
	switch t.Name {
	case "v":
		return "This is a DKIM key."
	case "k":
		return "The kind of key."
	case "p":
		switch {
		case t.Value == "":
			return "No key: it was revoked."
		case k.Bits > 0:
			return fmt.Sprintf("The public key: %s, %d bits.", k.Type, k.Bits)
		}
		return "The public key, which cannot be read."
	case "h":
		return "The hashes that signatures may use."
	case "s":
		return "What the key is for: email, or * for everything."
	case "t":
		return flagMeaning(k)
	case "n":
		return "A note for people."
	}
	return "Not known to RFC 6376, ignored."
}

func flagMeaning(k *dkim.Key) string {
	var said []string
	if k.Testing {
		said = append(said, "y: the owner is testing.")
	}
	if k.Strict {
		said = append(said, "s: an identity (i=) in a subdomain does not count.")
	}
	if said == nil {
		return "Flags, of which none is known."
	}
	return strings.Join(said, " ")
}
