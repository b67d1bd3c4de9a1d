package main

import (
	"cmp"
	"fmt"
	"strings"

	"onward/internal/address"
	"onward/internal/mailauth/authres"
	"onward/internal/mailauth/dmarc"
	"onward/internal/mailauth/iprev"
	"onward/internal/mailauth/spf"
	"onward/internal/message"
	"onward/internal/reply"
)

// print explains a message to somebody who knows nothing of DMARC.
func (j *judgement) print(p *page) {
	j.printSender(p)
	j.printSPF(p)
	j.printDKIM(p)
	j.printARC(p)
	j.printDMARC(p)
	j.printDecision(p)
	j.printOutgoing(p)
}

func (j *judgement) printSender(p *page) {
	v := j.verdict
	fmt.Fprintln(p.w, paint(p.colour, bold, "Who is sending"))
	p.entry(2, 14, "shown", "", "From: "+cmp.Or(j.field("From"), "(there is none)"))
	p.entry(2, 14, "envelope", "", "MAIL FROM:<"+v.From.String()+">")
	p.entry(2, 14, "client", "", joined(cmp.Or(addrText(v.Client), "not known"), "calls itself "+cmp.Or(v.Sender.Helo, "nothing (no HELO name given)")))
	if j.hasIP {
		p.entry(2, 14, "reverse DNS", string(v.IPRev.Result), j.reverseText())
	}
	if v.Hidden {
		p.text(2, "This is a private address: a proxy or a container's network hides the real one, so SPF can say nothing.")
	}
	for _, n := range j.notes {
		p.entry(2, 14, "note", "", n)
	}
}

// reverseText says what the address is called, and whether that is true.
func (j *judgement) reverseText() string {
	switch v := j.verdict.IPRev; v.Result {
	case iprev.Pass:
		return v.Name.String() + ", which leads back to this address"
	case iprev.Fail:
		return "the names of this address do not lead back to it"
	case iprev.PermError:
		return "this address has no name"
	default:
		return v.Reason
	}
}

// field returns the value of the first field of that name.
func (j *judgement) field(name string) string {
	for _, f := range j.message.Fields() {
		if f.Is(name) {
			return f.Value()
		}
	}
	return ""
}

func (j *judgement) printSPF(p *page) {
	v := j.verdict
	p.section("SPF", "Does the domain of the envelope allow this client to send for it? RFC 7208.")
	p.entry(2, 14, "HELO", string(v.Helo.Result), v.Helo.Reason)
	if v.From.IsNull() {
		p.entry(2, 14, "MAIL FROM", string(v.MailFrom.Result), "the null sender stands for postmaster at the HELO name")
	} else {
		p.entry(2, 14, "MAIL FROM", string(v.MailFrom.Result), v.MailFrom.Reason)
	}
	if v.MailFrom.Explanation != "" {
		p.entry(2, 14, "explanation", "", v.MailFrom.Explanation)
	}
	printCheck(p, "How MAIL FROM came to that:", v.MailFrom)
	if !v.From.IsNull() {
		printCheck(p, "How HELO came to that:", v.Helo)
	}
}

func printCheck(p *page, title string, c spf.Check) {
	if len(c.Steps) == 0 {
		return
	}
	p.text(2, title)
	spfSteps(p, c.Steps)
	last := c.Steps[len(c.Steps)-1]
	p.text(4, fmt.Sprintf("%d of %d lookups, %d of %d empty answers.", last.Lookups, spf.MaxLookups, last.Voids, spf.MaxVoids))
}

func (j *judgement) printDMARC(p *page) {
	v := j.verdict.DMARC
	p.section("DMARC", "Does SPF or DKIM prove the domain that the reader sees in From, and what does its owner want done if not? RFC 9989.")
	p.entry(2, 14, "result", string(v.Result), v.Reason)
	p.entry(2, 14, "author", "", cmp.Or(v.Domain.String(), "no domain"))
	if len(v.Walk) > 0 {
		p.text(2, "The search for a policy and for the organization, from the author domain up:")
		dmarcWalk(p, v.Walk, v.Existence)
	}
	dmarcRecord(p, v.PolicyDomain, v.Record)
	if v.Domain != "" {
		p.entry(2, 24, "organizational domain", "", v.OrganizationalDomain.String())
		p.entry(2, 24, "policy in force", string(v.Policy), policyOrigin(v.Domain, v.PolicyDomain, v.Record, v.Existence))
	}
	j.printAlignment(p)
}

// printAlignment sets the author beside everybody who authenticated.
func (j *judgement) printAlignment(p *page) {
	v := j.verdict.DMARC
	if j.verdict.Author.Domain == "" {
		return
	}
	rows := [][]string{
		{"", "domain", "organizational domain", "result", "aligned"},
		{"From", v.Domain.String(), v.OrganizationalDomain.String(), "", ""},
	}
	for _, a := range v.Alignments {
		rows = append(rows, []string{strings.ToUpper(a.Method), a.Domain.String(), a.OrganizationalDomain.String(), string(a.Result), alignedWord(a)})
	}
	p.text(2, "Who authenticated, beside the author:")
	p.table(4, rows)
	if len(v.Alignments) == 0 {
		p.text(4, "Nobody: neither SPF nor any signature passed.")
	} else {
		p.text(2, "DMARC passes when one of them has a pass and is aligned: it belongs to the author's organization.")
	}
	told := map[address.Domain]bool{v.Domain: true}
	for _, a := range v.Alignments {
		if !told[a.Domain] && len(a.Walk) > 0 && !a.Strict {
			told[a.Domain] = true
			p.text(2, "The search for the organization of "+a.Domain.String()+":")
			dmarcWalk(p, a.Walk, nil)
		}
	}
}

func alignedWord(a dmarc.Alignment) string {
	switch {
	case a.Unsure:
		return "unknown"
	case a.Aligned:
		return "yes"
	case a.Strict:
		return "no (strict: the names differ)"
	}
	return "no"
}

func (j *judgement) printDecision(p *page) {
	name, code := outcome(j.decision)
	p.section("Decision", "What this server answers, with policy.dmarc: "+j.site.config.Policy.DMARC+".")
	answer := fmt.Sprint(code)
	if r := j.decision.Reply; r != nil {
		answer = fmt.Sprintf("%d %s", r.Code, r.Status)
	}
	p.entry(2, 0, "", name, answer+"  "+j.decision.Why)
}

func (j *judgement) printOutgoing(p *page) {
	o := j.outgoing
	p.section("What goes on", "")
	switch {
	case o.refusal != nil:
		p.entry(2, 0, "", "refuse", "the recipient "+o.recipient.String()+" is refused: "+refusalText(o.refusal))
		return
	case len(o.targets) == 0:
		p.text(2, "Mail to "+o.recipient.String()+" is accepted and dropped.")
		return
	case j.decision.Reply != nil:
		p.text(2, "Nothing, as the message is not accepted. If it were:")
	}
	p.entry(2, 14, "to", "", strings.Join(mailboxes(o.targets), " "))
	p.entry(2, 14, "envelope", "", "MAIL FROM:<"+o.from.String()+">")
	p.entry(2, 14, "DMARC after", survivesWord(j.survives), j.fate)
	if o.passed > 0 {
		p.entry(2, 14, "signatures", "", fmt.Sprintf("%d of %d that pass here still pass on the bytes that are sent.", o.intact, o.passed))
	}
	for _, f := range o.removed {
		p.entry(2, 14, "removed", "", f.Name+", which claims to be ours: "+shortened(f.Value()))
	}
	switch {
	case o.unsent != nil:
		p.text(2, "It is refused instead (when_dmarc_breaks: refuse): "+refusalText(o.unsent))
	case o.rewritten:
		p.text(2, "Its From is rewritten, so that DMARC passes for us (when_dmarc_breaks: rewrite). The header:")
		p.fields(o.rewrote)
		return
	}
	p.text(2, "The header, ours above the line, the message as it came below:")
	p.verbatim(4, o.fields)
	fmt.Fprintf(p.w, "    %s\n", paint(p.colour, dim, strings.Repeat("-", 60)))
	j.printOriginal(p)
}

func survivesWord(survives bool) string {
	if survives {
		return "survives"
	}
	return "fails"
}

// printOriginal shows the fields that came, one line each.
func (j *judgement) printOriginal(p *page) {
	removed := func(f message.Field) bool { return authres.Claims(f, j.site.config.Hostname) }
	p.fields(j.message.Without(removed).Fields())
}

// fields shows fields, one line each.
func (p *page) fields(fields []message.Field) {
	for _, f := range fields {
		line := visible(f.Name + ": " + f.Value())
		if room := pageWidth - 4; len(line) > room {
			line = strings.ToValidUTF8(line[:room-3], "?") + "..."
		}
		p.verbatim(4, line)
	}
}

func refusalText(err error) string { return reply.From(err).String() }
