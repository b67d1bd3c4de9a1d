package inbound

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"onward/internal/address"
	"onward/internal/alias"
	"onward/internal/filter"
	"onward/internal/loop"
	"onward/internal/mailauth"
	"onward/internal/mailauth/authres"
	"onward/internal/mailauth/dmarc"
	"onward/internal/mailauth/spf"
	"onward/internal/message"
	"onward/internal/parallel"
	"onward/internal/reply"
	"onward/internal/replyaddr"
)

// A transaction is one message on its way in, from MAIL to the final answer.
// The policy is the one in force at MAIL: a reload changes the next message.
type transaction struct {
	policy     *Policy
	id         string
	arrived    time.Time
	from       address.ReversePath
	utf8       bool
	check      *mailauth.Check // under way since MAIL
	recipients []message.Recipient
	pairs      []replyaddr.Pair // behind those recipients that are reply addresses
}

// A session is what go-smtp calls back. It takes the parsed command from the
// conn and never looks at the library's arguments.
type session struct {
	c *conn
}

// Reset ends the transaction: RSET, EHLO, or the message is done.
func (s *session) Reset() { s.c.endTransaction() }

// Logout ends the session.
func (s *session) Logout() error {
	s.c.endTransaction()
	return nil
}

func (c *conn) endTransaction() {
	if c.tx != nil {
		c.tx.check.Stop()
		c.tx = nil
	}
}

// Mail begins a transaction.
func (s *session) Mail(string, *smtp.MailOptions) error {
	c := s.c
	now := time.Now()
	if r := c.server.clients.message(c.client, now, c.server.Policy().Limits); r != nil {
		return wire(r)
	}
	c.messages++
	c.junk = 0
	c.askLists()
	c.tx = &transaction{
		policy:  c.server.Policy(),
		id:      message.NewID(now),
		arrived: now,
		from:    c.command.from,
		utf8:    c.command.utf8,
	}
	c.tx.check = c.tx.policy.Verifier.Begin(c.server.ctx, mailauth.Sender{Client: c.client, Helo: c.helo, From: c.tx.from, Now: now})
	return nil
}

// Rcpt finds out what a recipient stands for, or refuses it.
func (s *session) Rcpt(string, *smtp.RcptOptions) error {
	c, tx, to := s.c, s.c.tx, s.c.command.to
	recipient, err := s.recipient(tx, to)
	if err == nil && len(tx.recipients) > 0 && tx.alone() {
		err = reply.New(452, "4.5.3", "one recipient at a time, please send the rest in another message")
	}
	if err != nil {
		r := reply.From(err)
		if !r.Permanent() {
			if c.deferred++; c.deferred > maxDeferred {
				return wire(reply.New(421, "4.7.0", "too many recipients that have to wait, closing"))
			}
		}
		c.event(r, tx, "to", to)
		c.record(tx, finding{recipients: []message.Recipient{{Address: to}}}, r)
		return wire(r)
	}
	tx.recipients = append(tx.recipients, recipient)
	return nil
}

// recipient decides who may write to what. Errors are *reply.Reply.
func (s *session) recipient(tx *transaction, to address.Mailbox) (message.Recipient, error) {
	p := tx.policy
	switch {
	case p.Limits.Recipients > 0 && len(tx.recipients) >= p.Limits.Recipients:
		return message.Recipient{}, reply.New(452, "4.5.3", "%d recipients are enough, send the rest in another message", len(tx.recipients))
	case !to.IsASCII() && !tx.utf8:
		return message.Recipient{}, reply.New(553, "5.6.7", "an address in UTF-8 needs SMTPUTF8")
	case p.Returns.Is(to):
		return s.bounce(tx, to)
	case p.Replies.Is(to):
		return s.answer(tx, to)
	}
	match, err := p.Aliases.Lookup(to, tx.arrived)
	if err != nil {
		return message.Recipient{}, err
	}
	switch {
	case !match.Admits(tx.from.Mailbox):
		return message.Recipient{}, reply.New(550, "5.7.1", "<%s>: does not take mail from you", to)
	case !s.c.server.aliases.Allow(counted(to, match), p.Limits.AliasPerMinute, tx.arrived):
		return message.Recipient{}, reply.New(450, "4.2.1", "<%s>: too many messages a minute, please try again later", to)
	}
	if match.Alias != nil { // postmaster and abuse take mail from anybody (RFC 5321 4.5.1)
		if r := s.c.listed(); r != nil {
			return message.Recipient{}, r
		}
	}
	return tx.forAlias(to, match), nil
}

// counted is the alias that mail to an address counts for: whoever writes chooses
// the tag.
func counted(to address.Mailbox, match alias.Match) string {
	if match.Steps[0].By == alias.ByTag {
		to.Local, _, _ = strings.Cut(to.Local, "+")
	}
	return to.Fold().String()
}

// alone reports whether a transaction has one recipient only: its sender could
// not rightly be told of a failure later, so that each recipient's own answer
// must be the answer to the message (DESIGN.md 9.3). Of a bounce there is
// nothing to tell.
func (tx *transaction) alone() bool {
	return !tx.from.IsNull() && (tx.check.SPF().Result != spf.Pass || tx.recipients[0].SRS)
}

// forAlias records what an alias stands for, and how it wants its mail.
func (tx *transaction) forAlias(to address.Mailbox, match alias.Match) message.Recipient {
	r := message.Recipient{Address: to, Targets: match.Targets, Breaks: tx.policy.Breaks}
	if a := match.Alias; a != nil {
		r.Breaks = message.Breaks(cmp.Or(a.Breaks, string(r.Breaks)))
		r.Suspect = a.Suspect
	}
	return r
}

// bounce takes mail to an SRS address of ours: a bounce on its way back to the
// first sender, so from the null sender only (STANDARDS.md S3, S4; RELIABILITY
// 20), or where the configuration says so an automatic reply, which data looks
// at. It goes to the sender's own MX (S6), which may be this server.
func (s *session) bounce(tx *transaction, to address.Mailbox) (message.Recipient, error) {
	if !tx.from.IsNull() && (!tx.policy.AutoReplies || len(tx.recipients) > 0) {
		return message.Recipient{}, reply.New(550, "5.1.1", "<%s>: takes bounces only", to)
	}
	sender, err := tx.policy.Returns.Restore(s.c.server.ctx, to)
	if err != nil {
		return message.Recipient{}, err
	}
	limit := tx.policy.Limits.ReturnPathPerDay
	if !s.c.server.returns.Allow(to.Fold().String(), limit, tx.arrived) {
		return message.Recipient{}, reply.New(450, "4.2.1", "<%s>: has had its %d bounces for today", to, limit) // S5
	}
	match, err := tx.home(sender)
	if err != nil {
		return message.Recipient{}, err
	}
	return message.Recipient{Address: to, Targets: match.Targets, SRS: true}, nil
}

// home returns where mail to somebody who wrote through us goes: to that address,
// or, if it is one of our own users, to what it stands for. Sent to its domain it
// would only come back to us.
func (tx *transaction) home(sender address.Mailbox) (alias.Match, error) {
	if !tx.policy.Aliases.Owns(sender.Domain) {
		return alias.Match{Targets: []address.Mailbox{sender}}, nil
	}
	return tx.policy.Aliases.Lookup(sender, tx.arrived)
}

// answer takes mail to an address that stands for an author in a From which we
// rewrote. Whether it may be used is seen when the message is here (DESIGN.md 9.5).
func (s *session) answer(tx *transaction, to address.Mailbox) (message.Recipient, error) {
	pair, err := tx.policy.Replies.Open(s.c.server.ctx, to)
	if err != nil {
		return message.Recipient{}, err
	}
	match, err := tx.home(pair.Author)
	if err != nil {
		return message.Recipient{}, err
	}
	tx.pairs = append(tx.pairs, pair)
	return message.Recipient{Address: to, Targets: match.Targets, As: pair.Alias, Breaks: message.Forward}, nil
}

// permitAnswers decides whether the message may use its reply addresses: it has to
// come from who reads the mail of the alias. Errors are *reply.Reply.
func (tx *transaction) permitAnswers(v *mailauth.Verdict) error {
	for _, pair := range tx.pairs {
		match, err := tx.policy.Aliases.Lookup(pair.Alias, tx.arrived)
		if err != nil {
			return err
		}
		if err := tx.policy.Replies.Permit(pair, v.Author, v.DMARC, match.Targets); err != nil {
			return err
		}
	}
	return nil
}

// Data takes one message: read it, look at it, find it an owner. The reply
// that it returns is the truth about the message, whatever became of the
// connection meanwhile.
func (s *session) Data(end io.Reader) error {
	c, tx := s.c, s.c.tx
	buffer := message.NewBuffer(c.server.TempDir)
	defer buffer.Close()
	room := &room{inFlight: &c.server.inFlight, limit: tx.policy.Limits.InFlight}
	defer room.give()
	size, err := c.receive(buffer, room, tx.policy.Limits)
	c.server.clients.took(c.client, time.Now(), size)
	if _, whole := err.(*reply.Reply); err != nil && !whole {
		c.end(err)
		return err // heard by nobody
	}
	if _, e := io.Copy(io.Discard, end); e != nil {
		return e
	}
	c.heard(true) // the answer to the message before: the client has waited for 354 since
	found := finding{recipients: tx.recipients, size: size}
	if err == nil {
		err = s.accept(tx, buffer, &found)
	}
	r := reply.From(err)
	c.event(r, tx, "size", size)
	c.record(tx, found, r)
	c.unheard = tx.id
	return wire(withID(r, tx.id))
}

// idGroups are what withID of the forwarders behind us has put at the end.
var idGroups = regexp.MustCompile(`( \([0-7][0-9A-HJKMNP-TV-Z]{25}\))+$`)

// withID puts the id of the message into its final answer: before the words of
// success, and behind those of a refusal. There ours takes the place of those of
// other forwarders, which our log has: in a loop they would be many.
func withID(r *reply.Reply, id string) *reply.Reply {
	text := id + " " + r.Text
	if r.Code/100 != 2 {
		id = " (" + id + ")"
		words := idGroups.ReplaceAllString(reply.Clean(r.Text), "")
		text = words[:min(len(words), reply.MaxText-len(id))] + id
	}
	return &reply.Reply{Code: r.Code, Status: r.Status, Text: text}
}

// accept judges a received message, and gives it to the Acceptor. It notes what
// it finds on the way.
func (s *session) accept(tx *transaction, buffer *message.Buffer, found *finding) error {
	msg, err := buffer.Message()
	if err != nil {
		return headerReply(err)
	}
	if limits := tx.policy.Limits; over(int64(len(msg.Header())), limits.HeaderSize) || over(len(msg.Fields()), limits.HeaderFields) {
		return headerReply(message.ErrHeaderTooLarge)
	}
	found.subject = subject(msg)
	if err := checkForm(tx, msg); err != nil {
		return err
	}
	verdict, err := tx.check.Finish(s.c.server.ctx, msg)
	if err != nil {
		return err
	}
	decision := tx.policy.Judge.Decide(verdict, ListID(msg))
	s.c.logVerdict(tx, verdict, decision)
	found.verdict = summary(verdict, decision)
	if decision.Reply != nil {
		return decision.Reply
	}
	if err := tx.permitAnswers(verdict); err != nil {
		return err
	}
	if by := verified(verdict); by != "" && !s.c.server.senders.Allow(by, tx.policy.Limits.SenderDomainPerMinute, tx.arrived) {
		return reply.New(451, "4.7.1", "too many messages a minute from %s, please try again later", by)
	}
	env := s.envelope(tx, verdict)
	junk, refusal := s.filter(tx, env, verdict, msg)
	if refusal != nil {
		return refusal
	}
	if junk || verdict.Doubtful() {
		tx.tag()
	}
	answer, queued := s.c.server.Acceptor.Accept(s.c.server.ctx, env, verdict, msg.Without(s.forged(tx)))
	found.queued = queued
	return answer
}

// filter asks all filters at once, as each may take ten seconds and the sender waits.
// The first refusal counts, in the order of the configuration; else whether any takes
// the message for junk.
func (s *session) filter(tx *transaction, env *message.Envelope, verdict *mailauth.Verdict, msg *message.Message) (junk bool, refusal *reply.Reply) {
	opinions := make([]filter.Opinion, len(tx.policy.Filters))
	var asking parallel.Group
	for i, f := range tx.policy.Filters {
		asking.Go(func() { opinions[i] = f.Check(s.c.server.ctx, env, verdict.IPRev.Name, msg) })
	}
	asking.Wait()
	for _, o := range opinions {
		switch {
		case o.Reply != nil:
			o.Reply.Err = errors.New(o.Why)
			return false, o.Reply
		case o.Junk:
			junk = true
			s.c.log.Info("a filter takes it for junk", "id", env.ID, "why", o.Why)
		}
	}
	return junk, nil
}

// verified is the domain that a message is by, as far as that is sure: nobody can
// use up the limit of another. It is empty where nothing is.
func verified(v *mailauth.Verdict) string {
	switch {
	case v.DMARC.Result == dmarc.Pass:
		return v.DMARC.Domain.String()
	case v.MailFrom.Result == spf.Pass:
		return v.MailFrom.Domain
	}
	return ""
}

// tag leads mail that is in doubt to user+suspect, where the alias asks for that.
func (tx *transaction) tag() {
	for _, recipient := range tx.recipients {
		for i, to := range recipient.Targets {
			if recipient.Suspect {
				recipient.Targets[i] = alias.Suspect(to)
			}
		}
	}
}

// CheckForm refuses what no verdict could make better: more hops than the
// limit (STANDARDS.md D14, P7), and a header that two readers would read in
// two ways (RELIABILITY 13, 52). Errors are *reply.Reply.
func CheckForm(msg *message.Message, maxHops int) error {
	if hops := msg.Hops(); maxHops > 0 && hops > maxHops {
		return reply.New(554, "5.4.6", "%d hops, this message is going round in circles", hops)
	}
	if startsFolded(msg) {
		return reply.New(550, "5.6.0", "the message begins with a continuation line")
	}
	for _, f := range msg.Fields() {
		if bytes.IndexByte(f.Raw, 0) >= 0 {
			return reply.New(550, "5.6.0", "a NUL in the header of the message")
		}
	}
	return nil
}

// checkForm adds to CheckForm what depends on the recipients.
func checkForm(tx *transaction, msg *message.Message) error {
	if err := CheckForm(msg, tx.policy.Limits.Hops); err != nil {
		return err
	}
	way := loop.Read(msg.Fields())
	for _, recipient := range tx.recipients {
		switch {
		case recipient.SRS && !tx.from.IsNull() && !autoReply(msg):
			return reply.New(550, "5.7.1", "<%s>: takes bounces and automatic replies only (RFC 3834)", recipient.Address)
		case !recipient.SRS && tx.policy.Marker.Passed(way, recipient.Address):
			return reply.New(554, "5.4.6", "<%s> has forwarded this message before, it is going round in circles", recipient.Address)
		}
	}
	return nil
}

// autoReply reports whether a message says that no person wrote it (RFC 3834 5).
func autoReply(msg *message.Message) bool {
	for _, f := range msg.Fields() {
		if f.Is("Auto-Submitted") {
			return strings.HasPrefix(strings.ToLower(f.Value()), "auto-")
		}
	}
	return false
}

// forged finds the fields that pretend to be results of ours (STANDARDS.md R1,
// R5). One that a signature covers goes all the same (DESIGN.md 9.4).
func (s *session) forged(tx *transaction) func(message.Field) bool {
	return func(f message.Field) bool {
		claims := authres.Claims(f, tx.policy.Hostname)
		if claims {
			s.c.log.Info("removed a field in our name", "id", tx.id, "field", f.Name)
		}
		return claims
	}
}

// ListID returns the value of the List-Id field, when there is one (RFC 2919).
func ListID(msg *message.Message) string {
	for _, f := range msg.Fields() {
		if f.Is("List-Id") {
			return f.Value()
		}
	}
	return ""
}

// envelope records what the dialogue said, and what we found: our fields on top
// of the message are in the order of DESIGN.md 4.
func (s *session) envelope(tx *transaction, verdict *mailauth.Verdict) *message.Envelope {
	env := &message.Envelope{
		ID:         tx.id,
		Arrived:    tx.arrived,
		Client:     s.c.client,
		Helo:       s.c.helo,
		From:       tx.from,
		Bounceable: verdict.Bounceable(),
		Recipients: tx.recipients,
		UTF8:       tx.utf8,
		Gone:       s.c.gone,
		Heard:      s.c.hears(tx.id),
	}
	env.Results = verdict.Results(tx.policy.Hostname).Field()
	env.Received = Received(env, tx.policy.Hostname, s.c.esmtp, s.c.tlsState())
	return env
}

// headerReply answers a message whose header could not be read.
func headerReply(err error) error {
	if err == message.ErrHeaderTooLarge {
		return reply.New(552, "5.3.4", "header is larger than %d octets or %d fields", message.MaxHeaderSize, message.MaxFields)
	}
	return reply.Trouble(err)
}

// startsFolded reports whether the first line would become part of the field
// that we put above it, which would change both (RELIABILITY 52).
func startsFolded(msg *message.Message) bool {
	first := make([]byte, 1)
	n, _ := msg.Reader().Read(first)
	return n == 1 && (first[0] == ' ' || first[0] == '\t')
}

// event writes the log line of one answer.
func (c *conn) event(r *reply.Reply, tx *transaction, more ...any) {
	name := map[int]string{2: "accepted", 5: "rejected"}[r.Code/100]
	if name == "" {
		name = "deferred"
	}
	attrs := append([]any{"id", tx.id, "from", tx.from}, more...)
	attrs = append(attrs, "code", r.Code, "status", r.Status, "text", r.Text)
	if r.Err != nil {
		attrs = append(attrs, "err", r.Err)
	}
	c.log.Info(name, attrs...)
}

// wire turns a reply into the one error type that go-smtp relays as it is: any
// other would become a permanent 554 with our error text (DEPENDENCIES.md A7).
func wire(r *reply.Reply) error {
	e := &smtp.SMTPError{Code: r.Code, EnhancedCode: smtp.NoEnhancedCode, Message: reply.Clean(r.Text)}
	parts := strings.SplitN(r.Status, ".", 3)
	if len(parts) == 3 {
		for i, part := range parts {
			e.EnhancedCode[i], _ = strconv.Atoi(part)
		}
	}
	return e
}
