package spf

import (
	"context"
	"fmt"
	"strings"

	"onward/internal/resolver"
)

// maxSurvey is the count of lookups at which a survey stops to follow: enough
// to show by how much a record is over MaxLookups.
const maxSurvey = 4 * MaxLookups

// Survey reads the record of domain for a person, and the records that it
// includes or redirects to, as far as that does not depend on the message. No
// client is checked: the Answer of a term is its Meaning, and the last Lookups
// is what a client costs that no term matches. Where a record cannot be read,
// the step that fetched it says so; Parse names every mistake in it.
func Survey(ctx context.Context, r resolver.Resolver, domain string) []Step {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	e := &evaluation{resolver: r}
	e.survey(ctx, domain, 0)
	return e.history()
}

func (e *evaluation) survey(ctx context.Context, domain string, depth int) {
	domain = strings.TrimSuffix(domain, ".")
	terms, err := e.fetch(ctx, domain, depth)
	if err != nil {
		return
	}
	_, ends := find(terms, "all")
	for _, t := range terms {
		step := e.begin(Step{Depth: depth, Domain: domain, Term: t.Text})
		step.Answer = shown(t.Meaning(), maxText)
		if t.Name == "redirect" && ends {
			step.Answer = `ignored, because the record has "all"` // F7
			continue
		}
		if !t.AsksDNS() {
			continue
		}
		e.lookups++
		step.Lookups = e.lookups
		if follows := t.Name == "include" || t.Name == "redirect"; follows && e.lookups <= maxSurvey && !strings.Contains(t.Target, "%") {
			e.survey(ctx, t.Target, depth+1)
		}
	}
}

// Meaning says what t does, in one phrase.
func (t Term) Meaning() string {
	target := t.Target
	if target == "" {
		target = "this domain"
	}
	target = printable(target)
	switch t.Name {
	case "redirect":
		return "when nothing matches, the record of " + target + " decides"
	case "exp":
		return "the text at " + target + " tells a refused sender why"
	}
	if t.IsModifier() {
		return "unknown, ignored"
	}
	return string(t.Result) + " for " + t.who(target)
}

// who names the clients that a mechanism matches.
func (t Term) who(target string) string {
	switch t.Name {
	case "all":
		return "everybody else"
	case "include":
		return "every client that the record of " + target + " passes"
	case "a":
		return "the addresses of " + target + t.width()
	case "mx":
		return "the mail exchangers of " + target + t.width()
	case "ptr":
		return "clients whose own name is " + target + " or below it (slow and unreliable, RFC 7208 5.5)"
	case "exists":
		return "any client, if " + target + " has an address"
	default: // ip4, ip6
		return t.Prefix.String()
	}
}

// width names the networks around a host, if they count.
func (t Term) width() string {
	switch {
	case t.Bits4 == 32 && t.Bits6 == 128:
		return ""
	case t.Bits6 == 128:
		return fmt.Sprintf(" and their /%d networks", t.Bits4)
	case t.Bits4 == 32:
		return fmt.Sprintf(" and their IPv6 /%d networks", t.Bits6)
	}
	return fmt.Sprintf(" and their /%d and IPv6 /%d networks", t.Bits4, t.Bits6)
}
