package main

import (
	"cmp"
	"fmt"
	"strings"

	"onward/internal/address"
	"onward/internal/mailauth/dmarc"
	"onward/internal/mailauth/spf"
)

// printDomain explains what a domain publishes, for people.
func printDomain(p *page, r domainReport) {
	fmt.Fprintf(p.w, "%s\n", paint(p.colour, bold, "What "+r.Domain.String()+" publishes about its mail"))
	p.section("SPF", "Who may use "+r.Domain.String()+" as the sender of the envelope (MAIL FROM). RFC 7208.")
	spfSteps(p, r.SPF.Steps)
	spfBroken(p, r.SPF.Steps[0])
	if r.SPF.Steps[0].Answer == "found" {
		p.text(2, fmt.Sprintf("A client that no term matches costs %d lookups; %d are allowed.", r.SPF.Lookups, spf.MaxLookups))
	}
	printAdvice(p, r.SPF.Advice)

	p.section("DMARC", "What to do with mail that shows "+r.Domain.String()+" in From and is not by it. RFC 9989.")
	dmarcWalk(p, r.DMARC.Walk, r.DMARC.Existence)
	dmarcRecord(p, r.DMARC.Domain, r.DMARC.Record)
	p.entry(2, 24, "organizational domain", "", r.DMARC.OrganizationalDomain.String())
	p.entry(2, 24, "policy in force", string(r.DMARC.Policy), policyOrigin(r.Domain, r.DMARC.Domain, r.DMARC.Record, r.DMARC.Existence))
	printAdvice(p, r.DMARC.Advice)

	p.section("DKIM", "The keys with which "+r.Domain.String()+" signs. RFC 6376.")
	if len(r.DKIM) == 0 {
		p.text(2, "Keys cannot be listed. Take the selector from the s= tag of a DKIM-Signature and name it with --selector.")
	}
	for _, k := range r.DKIM {
		printKey(p, k)
	}
}

// policyOrigin says which tag of which record made the policy for d.
func policyOrigin(d, publisher address.Domain, r *dmarc.Record, existence *dmarc.Step) string {
	switch {
	case r == nil:
		return "none is published"
	case !r.Usable():
		return "none: the record is not valid"
	case r.P == "":
		return "as there is no valid p="
	}
	tag := "p="
	if d != publisher && r.SP != "" {
		tag = "sp="
	}
	if d != publisher && r.NP != "" && existence != nil && existence.Status == dmarc.StatusNoName {
		tag = "np="
	}
	origin := "by " + tag + " of " + publisher.String()
	if r.Testing {
		origin += ", one step milder because of t=y"
	}
	return origin
}

func printKey(p *page, k keyReport) {
	name := k.Name
	if k.Record == "" {
		name += ": no record"
	}
	p.text(2, name)
	for _, t := range k.Tags {
		p.entry(4, 22, t.Name+"="+brief(t.Value), "", t.Meaning)
	}
	if len(k.Tags) == 0 && k.Record != "" {
		p.text(4, shortened(k.Record))
	}
	printAdvice(p, k.Advice)
}

// brief keeps a value short enough for a column.
func brief(s string) string {
	if len(s) > 18 {
		return strings.ToValidUTF8(s[:15], "?") + "..."
	}
	return s
}

func printAdvice(p *page, list []advice) {
	for _, a := range list {
		kind := "advice"
		if a.Mistake {
			kind = "mistake"
		}
		p.entry(2, 0, "", kind, a.Text)
	}
}

// spfBroken explains the rest of a record that is void because of a mistake.
func spfBroken(p *page, s spf.Step) {
	if s.Record == "" || s.Answer == "found" {
		return
	}
	terms, _ := spf.Parse(s.Record)
	for _, t := range terms {
		p.entry(4, 30, t.Text, "", t.Meaning())
	}
}

// spfSteps shows the records and terms that were tried, nested as they include
// each other.
func spfSteps(p *page, steps []spf.Step) {
	const most = 48
	column := 0 // of the answers
	for _, s := range steps {
		if s.Term != "" {
			column = max(column, min(most, 4+4*s.Depth+len(s.Term)+2))
		}
	}
	lookups := 0
	for _, s := range steps {
		indent := 2 + 4*s.Depth
		if s.Term == "" {
			p.entry(indent, len(s.Domain)+2, s.Domain, "", cmp.Or(s.Record, s.Answer))
			if s.Record != "" && s.Answer != "found" {
				p.entry(indent+2, 0, "", "mistake", s.Answer)
			}
			continue
		}
		result, text := s.Answer, ""
		if resultColour(result) == "" && result != "no match" {
			result, text = "", s.Answer
		}
		p.entry(indent+2, max(2, column-indent-2), s.Term, result, joined(text, asked(s), lookup(s, lookups)))
		lookups = s.Lookups
	}
}

// asked tells what a term asked the DNS, and what it cost.
func asked(s spf.Step) string {
	var said []string
	for _, q := range s.Queries {
		said = append(said, fmt.Sprintf("%s %s: %s", q.Name, q.Type, q.Answer))
	}
	return strings.Join(said, ", ")
}

// lookup numbers the terms that count as one.
func lookup(s spf.Step, before int) string {
	if s.Lookups <= before {
		return ""
	}
	return fmt.Sprintf("lookup %d", s.Lookups)
}

func joined(parts ...string) string {
	var said []string
	for _, part := range parts {
		if part != "" {
			said = append(said, part)
		}
	}
	return strings.Join(said, "; ")
}

// dmarcWalk shows each question of a tree walk and its answer.
func dmarcWalk(p *page, walk []dmarc.Step, existence *dmarc.Step) {
	width := 0
	for _, s := range walk {
		width = max(width, len(s.Name)+2)
	}
	for _, s := range walk {
		text := string(s.Status)
		if s.Record != nil {
			text = s.Record.Text
		}
		p.entry(2, width, s.Name, "", joined(text, s.Err))
	}
	if existence != nil {
		p.text(2, fmt.Sprintf("Does %s itself exist? %s", existence.Name, existenceAnswer(existence.Status)))
	}
}

func existenceAnswer(s dmarc.Status) string {
	switch s {
	case dmarc.StatusNoName:
		return "No: np= is meant, or what stands for it."
	case dmarc.StatusTemporary:
		return "The DNS did not say."
	}
	return "Yes: sp= is meant, or what stands for it."
}

// dmarcRecord explains a record tag by tag.
func dmarcRecord(p *page, publisher fmt.Stringer, r *dmarc.Record) {
	if r == nil {
		return
	}
	p.text(2, fmt.Sprintf("The record of %s says:", publisher))
	for _, t := range r.Tags {
		meaning := t.Meaning
		if meaning == "" {
			meaning = strings.ToUpper(t.Mistake[:1]) + t.Mistake[1:] + "."
		}
		p.entry(4, 18, t.Name+"="+shortened(t.Value), "", meaning)
	}
}
