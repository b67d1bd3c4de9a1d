package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"onward/inbound"
	"onward/internal/address"
	"onward/internal/mailauth"
	"onward/internal/mailauth/dkim"
	"onward/internal/mailauth/dmarc"
	"onward/internal/mailauth/spf"
	"onward/internal/message"
	"onward/internal/reply"
	"onward/internal/resolver"
)

// A judgement is everything that explain tells of one message.
type judgement struct {
	site     *site
	notes    []string // what had to be assumed
	hasIP    bool
	message  *message.Message
	verdict  *mailauth.Verdict
	decision inbound.Decision
	outgoing outgoing
	survives bool
	fate     string // why it survives forwarding, or does not
}

// explainMessage reads a message, judges it as the daemon would, and prints how
// it came to that.
func explainMessage(cmd *cobra.Command, f explainFlags, s *site, dns resolver.Resolver, path string) error {
	sender, err := f.sender(cmd.Flags().Changed("from"))
	if err != nil {
		return err
	}
	to, err := f.recipient()
	if err != nil {
		return err
	}
	msg, notes, err := readMessage(path, cmd.InOrStdin(), s.config.Limits.Message)
	if err != nil {
		return err
	}
	defer msg.Close()
	j := &judgement{site: s, notes: notes, message: msg, hasIP: f.ip != ""}
	if s.aliases == nil {
		j.note("There is no configuration; %s stands for this server.", standIn)
	}
	if !cmd.Flags().Changed("from") {
		sender.From = j.returnPath()
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), explainTime)
	defer cancel()
	if err := j.judge(ctx, dns, sender); err != nil {
		return err
	}
	if err := j.send(ctx, to); err != nil {
		return err
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), j.report())
	}
	return printPage(cmd.OutOrStdout(), j.print)
}

// sender reads the flags that stand for the SMTP dialogue.
func (f explainFlags) sender(fromGiven bool) (s mailauth.Sender, err error) {
	if s.Now, err = parseNow(f.now); err != nil {
		return s, err
	}
	if f.ip != "" {
		if s.Client, err = netip.ParseAddr(f.ip); err != nil {
			return s, misuse{fmt.Errorf("--ip %q is no IP address", f.ip)}
		}
	}
	if fromGiven {
		if s.From, err = address.ParseReversePath(strings.TrimSuffix(strings.TrimPrefix(f.from, "<"), ">")); err != nil {
			return s, misuse{fmt.Errorf("--from: %w", err)}
		}
	}
	if s.Helo = f.helo; strings.ContainsFunc(s.Helo, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return s, misuse{fmt.Errorf("--helo %q is no name", f.helo)}
	}
	return s, nil
}

// recipient reads --to; the zero Mailbox when it was not given.
func (f explainFlags) recipient() (to address.Mailbox, err error) {
	if f.to == "" {
		return to, nil
	}
	if to, err = address.ParsePath(strings.TrimSuffix(strings.TrimPrefix(f.to, "<"), ">")); err != nil {
		return to, misuse{fmt.Errorf("--to: %w", err)}
	}
	return to, nil
}

// returnPath finds the envelope sender in the field in which the last server
// has left it (RFC 5321 4.4), and says what it took.
func (j *judgement) returnPath() address.ReversePath {
	for _, f := range j.message.Fields() {
		if !f.Is("Return-Path") {
			continue
		}
		text := strings.TrimSuffix(strings.TrimPrefix(f.Value(), "<"), ">")
		if from, err := address.ParseReversePath(text); err == nil {
			j.note("The envelope sender is taken from the Return-Path field; --from would name it.")
			return from
		}
		j.note("The Return-Path field cannot be read.")
		break
	}
	j.note("The envelope sender is not known and taken for the null sender; --from would name it.")
	return address.ReversePath{}
}

func (j *judgement) note(format string, args ...any) {
	j.notes = append(j.notes, fmt.Sprintf(format, args...))
}

// judge does to the message what the daemon does when it arrives.
func (j *judgement) judge(ctx context.Context, dns resolver.Resolver, sender mailauth.Sender) error {
	verifier := verifier(j.site.config, dns)
	verifier.Loopback = verifier.Loopback || j.site.aliases == nil
	verifier.Text = true
	var err error
	if j.verdict, err = verifier.Verify(ctx, sender, j.message); err != nil {
		return err
	}
	if !j.hasIP {
		j.note("The address that the message came from is not known, so SPF is not checked; --ip would name it.")
		j.withoutSPF(ctx, dns)
	}
	if err := inbound.CheckForm(j.message, j.site.config.Limits.Hops); err != nil {
		r := reply.From(err)
		j.decision = inbound.Decision{Reply: r, Why: r.Text}
		return nil
	}
	j.decision = inbound.NewJudge(j.site.config, inbound.NewLists()).Decide(j.verdict, inbound.ListID(j.message))
	return nil
}

// withoutSPF takes SPF out of a verdict. In the daemon there is always a
// client; here its absence is no trouble that might pass.
func (j *judgement) withoutSPF(ctx context.Context, dns resolver.Resolver) {
	v := j.verdict
	for _, c := range []*spf.Check{&v.Helo, &v.MailFrom} {
		c.Result, c.Reason = spf.None, "not checked: the address of the client is not known"
	}
	in := dmarc.Input{From: v.Author}
	for _, s := range v.DKIM {
		in.DKIM = append(in.DKIM, dmarc.Identifier{Result: dmarc.Result(s.Result), Domain: s.Domain})
	}
	v.DMARC = dmarc.Evaluate(ctx, dns, in)
}

// outcome names a decision, and the code that SMTP has for it.
func outcome(d inbound.Decision) (name string, code int) {
	switch {
	case d.Reply == nil:
		return "accept", 250
	case d.Reply.Permanent():
		return "refuse", d.Reply.Code
	}
	return "defer", d.Reply.Code
}

// judgeFate says whether DMARC will pass at the destination: SPF does not
// survive forwarding, as the client there is us, so a signature has to. One of
// RSA-SHA256 that is aligned with the author, since not all verify Ed25519.
func (j *judgement) judgeFate(survivors []dkim.Survivor) {
	v := j.verdict.DMARC
	other := ""
	for _, s := range survivors {
		switch {
		case !j.aligned(s.Result.Domain):
		case !s.Alive:
			other = fmt.Sprintf("The signature of %s covers a field that has to be added or removed.", s.Result.Domain)
		case s.Result.Algorithm == dkim.RSASHA256:
			j.survives, j.fate = true, fmt.Sprintf("The signature of %s is aligned with From and stays intact.", s.Result.Domain)
			return
		default:
			other = fmt.Sprintf("The signature of %s stays intact, but is made with %s, which many receivers cannot verify.", s.Result.Domain, s.Result.Algorithm)
		}
	}
	if v.Result == dmarc.None {
		j.survives, j.fate = true, "No DMARC policy applies to this message."
		return
	}
	if j.verdict.Author.Domain == "" {
		j.fate = "There is no single author that anything could be aligned with: " + j.verdict.Author.Mistake + "."
		return
	}
	j.fate = cmp.Or(other, "No aligned signature passes, and SPF cannot: to the destination the message comes from us.")
}

// aligned reports whether a pass of this signer counts for the author.
func (j *judgement) aligned(signer string) bool {
	for _, a := range j.verdict.DMARC.Alignments {
		if a.Method == "dkim" && a.Aligned && a.Domain.String() == signer {
			return true
		}
	}
	return false
}
