package forward

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/mailauth"
	"onward/internal/mailauth/dkim"
	"onward/internal/mailauth/dmarc"
	"onward/internal/message"
	"onward/internal/reply"
	"onward/internal/rewrite"
	"onward/internal/signing"
	"onward/internal/smtpclient"
)

// prepare makes the copy of every target before the first attempt, so that
// trouble of ours finds nobody served yet. An error is a *reply.Reply for the
// whole message.
func (f *Forwarder) prepare(ctx context.Context, m *mail) error {
	err := m.listTargets(ctx)
	if err != nil {
		return err
	}
	if err := m.hashBody(); err != nil {
		return reply.Trouble(err)
	}
	m.signatures = map[signed][]byte{}
	for _, d := range m.deliveries {
		if err := f.makeCopy(ctx, m, d); err != nil {
			return err
		}
	}
	return nil
}

// hashBody reads the body once, for the proof and for our own signatures.
func (m *mail) hashBody() error {
	var bodies dkim.BodyHashes
	m.proof = dkim.Prove(m.verdict.DKIM, &bodies)
	if m.route.Signer != nil {
		m.body = signing.Ask(&bodies)
	}
	return bodies.Read(m.msg.Body())
}

// listTargets lists the targets of the envelope, each once (RELIABILITY.md 2.2,
// STANDARDS.md 3.1: the same message twice to one mailbox costs quota).
func (m *mail) listTargets(ctx context.Context) error {
	byTarget := map[address.Mailbox]*delivery{}
	for _, recipient := range m.env.Recipients {
		for _, target := range recipient.Targets {
			d := byTarget[target.Fold()]
			if d == nil {
				d = &delivery{target: target}
				byTarget[target.Fold()] = d
				m.deliveries = append(m.deliveries, d)
			}
			d.recipients = append(d.recipients, recipient)
		}
	}
	for _, d := range m.deliveries {
		slices.SortStableFunc(d.recipients, mildestFirst)
		var err error
		if d.from, err = m.returnPath(ctx, d.recipients[0]); err != nil {
			return err
		}
	}
	return nil
}

// mildestFirst orders the recipients that lead to one target. The first decides for
// all how the copy is made, whatever order the sender named them in: no alias may
// lose what another one of the same mailbox would have let through. A reply address
// comes before an alias as mild, since it keeps the mailbox behind it private.
func mildestFirst(a, b message.Recipient) int {
	return cmp.Or(
		cmp.Compare(harshness[a.Breaks], harshness[b.Breaks]),
		strings.Compare(b.As.String(), a.As.String()),
		strings.Compare(a.Address.Fold().String(), b.Address.Fold().String()),
	)
}

// harshness is 0 for mail that is forwarded as it is.
var harshness = map[message.Breaks]int{message.Rewrite: 1, message.Refuse: 2}

// returnPath is the null sender for what goes back through a return path, an
// automatic reply too: an answer to it would have nowhere to go. What goes to an
// author in the name of an alias tells nothing of the mailbox behind it.
func (m *mail) returnPath(ctx context.Context, to message.Recipient) (address.ReversePath, error) {
	switch {
	case to.SRS:
		return address.ReversePath{}, nil
	case to.As != (address.Mailbox{}):
		return m.route.Conceal(ctx, m.env.From, to.Address.Domain)
	}
	return m.route.ReturnPath(ctx, m.env.From, to.Address.Domain)
}

// makeCopy makes what goes out to one target: our fields on top, From rewritten
// where the message could not pass DMARC otherwise, the proof that what was
// signed still is, and our own signature over all of it. A target that is refused
// for what the message is gets its outcome here.
func (f *Forwarder) makeCopy(ctx context.Context, m *mail, d *delivery) error {
	to := d.recipients[0]
	d.copy = m.msg.With(append(m.fields(d), m.msg.Header()...))
	alive, err := f.prove(m, d)
	if err != nil {
		return err
	}
	breaks := m.verdict.ForwardingBreaks(alive)
	switch {
	case to.As != (address.Mailbox{}):
		reply := rewrite.Reply{Alias: to.As, Address: to.Address, Author: d.target}
		d.copy = m.msg.With(append(m.fields(d), reply.Header(m.msg.Fields(), m.verdict.Author)...))
	case m.route.RewriteAll || breaks && to.Breaks == message.Rewrite || m.vouches(to):
		if err := f.rewriteFrom(ctx, m, d); err != nil {
			return err
		}
	case breaks && to.Breaks == message.Refuse && m.verdict.MayBeSigned():
		return reply.New(451, "4.7.0", "DMARC: the DNS does not say just now whether the DKIM signature of %s is good; please try again later", m.verdict.Author.Domain)
	case breaks && to.Breaks == message.Refuse:
		d.outcome = smtpclient.Outcome{Result: smtpclient.Refused, Reply: reply.New(550, "5.7.1",
			"DMARC: %s would fail at the mailbox behind <%s>, since only SPF vouches for it, which ends here; a DKIM signature of %s would arrive (RFC 7960)",
			m.verdict.Author.Domain, to.Address, m.verdict.Author.Domain)}
		return nil
	}
	if err := f.sign(m, d); err != nil {
		return reply.Trouble(err)
	}
	return nil
}

// vouches reports whether our own SPF and DKIM would make a message pass DMARC
// that failed here: its From claims a domain in whose organization our SRS domain
// is, such as mx.example.org in example.org, and relaxed alignment asks for no more
// (RFC 9989 4.10.2). That would take from the owner of the domain what the policy
// asks for, so that From may not stay.
func (m *mail) vouches(to message.Recipient) bool {
	v := m.verdict.DMARC
	if v.Result != dmarc.Fail && v.Result != dmarc.TempError || v.Policy != dmarc.PolicyQuarantine && v.Policy != dmarc.PolicyReject {
		return false
	}
	ours := m.route.Domain(to.Address.Domain)
	for _, organization := range []address.Domain{v.OrganizationalDomain, v.Domain} {
		if organization != "" && (ours == organization || strings.HasSuffix(ours.String(), "."+organization.String())) {
			return true
		}
	}
	return false
}

// fields composes what stands above the original bytes, in the order of
// DESIGN.md 4. Gmail asks forwarders for X-Forwarded-To and X-Forwarded-For
// (STANDARDS.md G5), each address on a line of its own so that none is longer
// than RFC 5322 2.1.1 wants. Mail on its way back to somebody who wrote through
// us is not forwarded mail and gets our trace alone (N5, DESIGN.md 9.5).
func (m *mail) fields(d *delivery) []byte {
	var b bytes.Buffer
	if to := d.recipients[0]; !to.SRS && to.As == (address.Mailbox{}) {
		if !m.route.HideTargets {
			fmt.Fprintf(&b, "X-Forwarded-To: %s\r\n", d.target)
		}
		b.WriteString("X-Forwarded-For:")
		for _, recipient := range d.recipients {
			fmt.Fprintf(&b, " %s\r\n", recipient.Address)
		}
		if !m.route.HideTargets {
			fmt.Fprintf(&b, " %s\r\n", d.target)
		}
		for _, recipient := range d.recipients {
			b.Write(m.route.Marker.Field(recipient.Address))
		}
	}
	if d.recipients[0].As != (address.Mailbox{}) { // the results name the private mailbox, and the client is its server
		fmt.Fprintf(&b, "Received: by %s id %s;\r\n\t%s\r\n", m.route.Hostname, m.env.ID, m.env.Arrived.Format(time.RFC1123Z))
		return b.Bytes()
	}
	b.Write(m.env.Results)
	b.Write(m.env.Received)
	return b.Bytes()
}

// prove verifies on the outgoing bytes the signatures that passed when the
// message came (DESIGN.md 9.4), and returns which of them still do. One that is
// lost for a reason that was to be expected counts as gone; any other loss is a
// bug of ours, and a message that we broke is not sent.
func (f *Forwarder) prove(m *mail, d *delivery) (alive func(*dkim.Result) bool, err error) {
	added := len(d.copy.Fields()) - len(m.msg.Fields())
	d.survivors = m.proof.Confirm(d.copy.Fields(), added)
	lost := map[*dkim.Result]bool{}
	for _, c := range d.survivors {
		if c.Alive {
			continue
		}
		lost[c.Result] = true
		if !c.Expected {
			f.Log.Error("a signature would not survive our copy; this is a bug of onward", "id", m.env.ID, "to", d.target, "signer", c.Result.Domain, "why", c.Reason)
			return nil, reply.Trouble(errors.New("the outgoing copy breaks a signature"))
		}
	}
	return func(r *dkim.Result) bool { return !lost[r] }, nil
}

// rewriteFrom puts an address of ours in the place of the author's, through
// which an answer reaches the author (DESIGN.md 4, 9.5).
func (f *Forwarder) rewriteFrom(ctx context.Context, m *mail, d *delivery) error {
	to := d.recipients[0]
	domain := m.route.Domain(to.Address.Domain)
	stand := address.Mailbox{Local: "postmaster", Domain: domain} // where there is nobody to answer
	if author := cmp.Or(m.verdict.Author.Mailbox, m.env.From.Mailbox); author != (address.Mailbox{}) {
		var err error
		if stand, err = m.route.ReplyAddress(ctx, domain, to.Address, author); err != nil {
			return err
		}
	}
	header := rewrite.From(m.msg.Fields(), m.verdict.Author, to.Address.Domain, stand)
	d.copy, d.rewritten = m.msg.With(append(m.fields(d), header...)), true
	f.Log.Info("From rewritten, since DMARC would fail at the mailbox", "id", m.env.ID, "to", d.target, "author", m.verdict.Author.Domain)
	return nil
}

// sign puts our signature on top, and above it the ARC set that the target
// wants, last of all (A3). Every copy is signed in the name of the SRS domain,
// which From is aligned with where it was rewritten (D9).
func (f *Forwarder) sign(m *mail, d *delivery) error {
	if m.route.Signer == nil {
		return nil
	}
	signer, err := m.route.Signer(m.route.Domain(d.recipients[0].Address.Domain))
	if err != nil {
		return err
	}
	signature, err := f.signature(m, d, signer)
	if err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	d.copy = d.copy.With(append(bytes.Clone(signature), d.copy.Header()...))
	if m.route.Seal == nil || !m.route.Seal(d.target.Domain) || m.env.From.IsNull() && d.recipients[0].SRS ||
		d.recipients[0].As != (address.Mailbox{}) { // a set has results in it
		return nil
	}
	set, err := signer.Seal(d.copy.Fields(), m.body.Sum, m.verdict.ARC, m.verdict.Results(m.route.Hostname), time.Now())
	if err != nil {
		return fmt.Errorf("sealing: %w", err)
	}
	d.copy = d.copy.With(append(set, d.copy.Header()...))
	return nil
}

// A signed is what copies have in common that one signature serves: it covers
// the body, and what a reader sees of the header.
type signed struct {
	domain address.Domain
	from   address.Mailbox // the alias whose reply address is in From, where that was rewritten
}

// signature signs a copy, or returns the signature of one like it: RSA costs a
// millisecond.
func (f *Forwarder) signature(m *mail, d *delivery, signer *signing.Signer) ([]byte, error) {
	to := d.recipients[0]
	key := signed{domain: m.route.Domain(to.Address.Domain)}
	if d.rewritten {
		key.from = to.Address.Fold()
	}
	one, known := m.signatures[key]
	if known && to.As == (address.Mailbox{}) {
		return one, nil
	}
	signature, err := signer.SignHashed(d.copy.Fields(), m.body.Sum)
	if err == nil && to.As == (address.Mailbox{}) {
		m.signatures[key] = signature
	}
	return signature, err
}

// A Copy is what would go out to one target, for `onward explain`.
type Copy struct {
	Target    address.Mailbox
	From      address.ReversePath
	Message   *message.Message // shares the bytes of the message it was made of
	Survivors []dkim.Survivor  // what became of the signatures that passed, before From was rewritten
	Rewritten bool             // its From is ours
	Refusal   *reply.Reply     // when it would not go out; else nil
}

// Preview makes the copies of a message as Accept does, and sends none. Errors are
// *reply.Reply.
func Preview(ctx context.Context, route Route, env *message.Envelope, verdict *mailauth.Verdict, msg *message.Message) ([]Copy, error) {
	f := &Forwarder{Log: slog.New(slog.DiscardHandler)}
	m := &mail{env: env, verdict: verdict, msg: msg, route: route}
	if err := f.prepare(ctx, m); err != nil {
		return nil, err
	}
	var copies []Copy
	for _, d := range m.deliveries {
		c := Copy{Target: d.target, From: d.from, Message: d.copy, Survivors: d.survivors, Rewritten: d.rewritten}
		if d.outcome.Result == smtpclient.Refused {
			c.Refusal = d.outcome.Reply
		}
		copies = append(copies, c)
	}
	return copies, nil
}
