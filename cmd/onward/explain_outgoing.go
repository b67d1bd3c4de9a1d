package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"onward/forward"
	"onward/inbound"
	"onward/internal/address"
	"onward/internal/mailauth/authres"
	"onward/internal/mailauth/dkim"
	"onward/internal/message"
	"onward/internal/reply"
	"onward/internal/resolver"
	"onward/internal/smtpclient"
	"onward/srs"
)

// An outgoing is what would go on of a message, and where to.
type outgoing struct {
	recipient address.Mailbox
	refusal   error             // of the recipient; nothing goes on then
	targets   []address.Mailbox // in the order of the configuration
	from      address.ReversePath
	fields    string // ours, on top
	removed   []message.Field
	intact    int // signatures that passed and still do on the bytes that go on
	passed    int // signatures that passed
}

// The recipient and the target when nobody says whom a message is to.
var (
	someRecipient = address.Mailbox{Local: "me", Domain: "example.org"}
	someTarget    = address.Mailbox{Local: "old", Domain: "mailbox.example"}
)

// send makes the outgoing copy by letting a real Forwarder deliver to a
// Deliverer that only looks, and verifies the signatures again on its bytes.
func (j *judgement) send(ctx context.Context, dns resolver.Resolver, to address.Mailbox) error {
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
	looker := &looker{}
	f := forward.Forwarder{
		Route: func() forward.Route { return forward.Route{Deliverer: looker, ReturnPath: j.rewrite} },
		Log:   slog.New(slog.DiscardHandler),
	}
	kept := j.message.Without(forged)
	if err := f.Accept(ctx, j.envelope(), kept); err != nil && !reply.From(err).Positive() {
		return err
	}
	tx := looker.first(out.targets)
	ours := make([]byte, tx.Size-kept.Size())
	if _, err := io.ReadFull(tx.Open(), ours); err != nil {
		return err
	}
	out.from, out.fields = tx.From, string(ours)
	after, err := j.verifyCopy(ctx, dns, tx)
	if err != nil {
		return err
	}
	j.judgeFate(after)
	return nil
}

// route finds the targets of the recipient.
func (j *judgement) route(to address.Mailbox) {
	out := &j.outgoing
	out.recipient = to
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
		Recipients: []message.Recipient{{Address: j.outgoing.recipient, Targets: j.outgoing.targets}},
	}
	env.Trace = append(v.Results(host).Field(), inbound.Received(env, host, true, nil)...)
	return env
}

// rewrite makes the return path. Without the secret of the daemon its hash is
// only an example.
func (j *judgement) rewrite(_ context.Context, from address.ReversePath, recipient address.Domain) (address.ReversePath, error) {
	if from.IsNull() {
		return from, nil
	}
	cfg := j.site.config
	codec := srs.Codec{Domain: srsDomains(cfg)[recipient].String(), HashLength: cfg.SRS.HashLength, MaxAge: cfg.SRS.MaxAge}
	if codec.Domain == "" {
		codec.Domain = srsDomains(cfg)[""].String()
	}
	codec.Secrets = []string{"an example of a secret"}
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

// A looker is a Deliverer that delivers nothing, and keeps what it was given.
type looker struct {
	mu  sync.Mutex
	all []*smtpclient.Transaction
}

func (l *looker) Deliver(_ context.Context, t *smtpclient.Transaction) smtpclient.Outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, t)
	return smtpclient.Outcome{Result: smtpclient.Delivered, Reply: reply.New(250, "2.0.0", "looked at")}
}

// first returns the transaction with the first of the targets.
func (l *looker) first(targets []address.Mailbox) *smtpclient.Transaction {
	i := slices.IndexFunc(l.all, func(t *smtpclient.Transaction) bool { return t.To.Fold() == targets[0].Fold() })
	return l.all[i]
}

// verifyCopy verifies the signatures on the bytes that would be sent.
func (j *judgement) verifyCopy(ctx context.Context, dns resolver.Resolver, tx *smtpclient.Transaction) ([]dkim.Result, error) {
	b := message.NewBuffer("")
	defer b.Close()
	if _, err := io.Copy(b, tx.Open()); err != nil {
		return nil, err
	}
	sent, err := b.Message()
	if errors.Is(err, message.ErrHeaderTooLarge) {
		j.note("With our fields the header is too large to be verified again.")
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	author := j.verdict.Author.Domain.String()
	after := dkim.Verify(ctx, dns, sent, dkim.Options{Now: j.verdict.Now, Prefer: func(d string) bool { return d == author }})
	for i, s := range j.verdict.DKIM {
		if s.Result == dkim.Pass {
			j.outgoing.passed++
			if n := len(after) - len(j.verdict.DKIM) + i; n >= 0 && after[n].Result == dkim.Pass {
				j.outgoing.intact++
			}
		}
	}
	return after, nil
}
