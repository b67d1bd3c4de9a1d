package main

import (
	"cmp"
	"context"
	"strings"

	"onward/forward"
	"onward/inbound"
	"onward/internal/address"
	"onward/internal/loop"
	"onward/internal/mailauth/authres"
	"onward/internal/message"
	"onward/internal/reply"
	"onward/srs"
)

// An outgoing is what would go on of a message, and where to.
type outgoing struct {
	recipient address.Mailbox
	refusal   error             // of the recipient; nothing goes on then
	targets   []address.Mailbox // in the order of the configuration
	from      address.ReversePath
	breaks    string          // what happens where DMARC would break
	rewritten bool            // From is ours then
	unsent    *reply.Reply    // why it does not go on after all; nil when it does
	fields    string          // ours, on top
	rewrote   []message.Field // all of them, when From is ours
	removed   []message.Field
	intact    int // signatures that passed and still do on the bytes that go on
	passed    int // signatures that passed
}

// The recipient and the target when nobody says whom a message is to.
var (
	someRecipient = address.Mailbox{Local: "me", Domain: "example.org"}
	someTarget    = address.Mailbox{Local: "old", Domain: "mailbox.example"}
)

// send makes the outgoing copies as the daemon would.
func (j *judgement) send(ctx context.Context, to address.Mailbox) error {
	out := &j.outgoing
	if j.route(to); out.refusal != nil || len(out.targets) == 0 {
		j.judgeFate(nil)
		return nil
	}
	forged := func(f message.Field) bool { return authres.Claims(f, j.site.config.Hostname) }
	for _, f := range j.message.Fields() {
		if forged(f) {
			out.removed = append(out.removed, f)
		}
	}
	kept := j.message.Without(forged)
	copies, err := forward.Preview(ctx, j.way(), j.envelope(), j.verdict, kept)
	if err != nil {
		return err
	}
	first := copies[0]
	out.from, out.rewritten, out.unsent = first.From, first.Rewritten, first.Refusal
	if out.rewritten {
		out.rewrote = first.Message.Fields()
	} else {
		for _, f := range first.Message.Fields()[:len(first.Message.Fields())-len(kept.Fields())] {
			out.fields += string(f.Raw)
		}
	}
	for _, s := range first.Survivors {
		out.passed++
		if s.Alive {
			out.intact++
		}
	}
	j.judgeFate(first.Survivors)
	return nil
}

// way is how mail leaves the daemon, but for the signature, whose key is the
// daemon's.
func (j *judgement) way() forward.Route {
	cfg := j.site.config
	if cfg.DKIM.Sign {
		j.note("The daemon puts a DKIM-Signature of the SRS domain (selector %s) above these fields.", cfg.DKIM.Selector)
	}
	return forward.Route{
		Hostname:   cfg.Hostname,
		ReturnPath: j.rewrite,
		ReplyAddress: func(_ context.Context, domain address.Domain, _, _ address.Mailbox) (address.Mailbox, error) {
			return address.Mailbox{Local: "reply-TOKEN", Domain: domain}, nil
		},
		Domain:      j.srsDomain,
		Marker:      loop.Marker{Secrets: []string{exampleSecret}},
		HideTargets: cfg.Delivery.HideTargets,
		RewriteAll:  cfg.Delivery.RelayFrom == "rewrite",
	}
}

const exampleSecret = "an example of a secret"

// srsDomain is the SRS domain for a recipient's domain, also of one that the
// configuration does not have.
func (j *judgement) srsDomain(recipient address.Domain) address.Domain {
	domains := srsDomains(j.site.config)
	return cmp.Or(domains[recipient], domains[""])
}

// route finds the targets of the recipient.
func (j *judgement) route(to address.Mailbox) {
	out := &j.outgoing
	out.recipient, out.breaks = to, j.site.config.Policy.Breaks
	if to == (address.Mailbox{}) {
		out.recipient = someRecipient
		j.note("The recipient is not known; %s stands for it, --to would name it.", someRecipient)
	}
	if to == (address.Mailbox{}) || j.site.aliases == nil {
		out.targets = []address.Mailbox{someTarget}
		return
	}
	match, err := j.site.aliases.Lookup(to, j.verdict.Now)
	out.targets, out.refusal = match.Targets, err
	if match.Alias != nil {
		out.breaks = cmp.Or(match.Alias.Breaks, out.breaks)
	}
}

// envelope is what the daemon would know of the message after receiving it.
// Its id is given on arrival; here it is all zeros.
func (j *judgement) envelope() *message.Envelope {
	v, host := j.verdict, j.site.config.Hostname
	env := &message.Envelope{
		ID:         strings.Repeat("0", 26),
		Arrived:    v.Now,
		Client:     v.Client,
		Helo:       cmp.Or(v.Sender.Helo, "unknown"),
		From:       v.From,
		Recipients: []message.Recipient{{Address: j.outgoing.recipient, Targets: j.outgoing.targets, Breaks: message.Breaks(j.outgoing.breaks)}},
	}
	env.Results, env.Received = v.Results(host).Field(), inbound.Received(env, host, true, nil)
	return env
}

// rewrite makes the return path. Without the secret of the daemon its hash is
// only an example.
func (j *judgement) rewrite(_ context.Context, from address.ReversePath, recipient address.Domain) (address.ReversePath, error) {
	if from.IsNull() {
		return from, nil
	}
	cfg := j.site.config
	codec := srs.Codec{Domain: j.srsDomain(recipient).String(), HashLength: cfg.SRS.HashLength, MaxAge: cfg.SRS.MaxAge}
	codec.Secrets = []string{exampleSecret}
	if j.site.aliases != nil {
		if secrets, err := loadSecrets(cfg, cfg.StateDir, false); err == nil {
			codec.Secrets = secrets
		} else {
			j.note("The SRS secret cannot be read (%v), so that the hash in the return path is only an example.", err)
		}
	}
	text, err := codec.Encode(from.String(), j.verdict.Now)
	if err != nil || from.Quoted() || !from.IsASCII() {
		j.note("The envelope sender does not fit into SRS, so that the daemon would store it under a token.")
		text = "SRS0=example=of=1=TOKEN@" + codec.Domain
	}
	return address.ParseReversePath(text)
}
