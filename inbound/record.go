package inbound

import (
	"crypto/tls"

	"onward/internal/journal"
	"onward/internal/mailauth"
	"onward/internal/message"
	"onward/internal/reply"
)

// A finding is what is known of a message when it is answered.
type finding struct {
	recipients []message.Recipient
	size       int64
	subject    string
	verdict    *journal.Verdict // nil before there was one
	queued     bool
}

// record writes the journal's row of one answer.
func (c *conn) record(tx *transaction, found finding, r *reply.Reply) {
	c.server.Record(journal.Message{
		ID:         tx.id,
		Arrived:    tx.arrived,
		Client:     c.client,
		Helo:       c.helo,
		TLS:        describeTLS(c.tlsState()),
		From:       tx.from,
		Recipients: found.recipients,
		Subject:    found.subject,
		Size:       found.size,
		Verdict:    found.verdict,
		Outcome:    found.outcome(r),
		Answer:     journal.AnswerOf(r),
	})
}

// outcome names what the answer means.
func (f finding) outcome(r *reply.Reply) journal.Outcome {
	targets := 0
	for _, recipient := range f.recipients {
		targets += len(recipient.Targets)
	}
	switch {
	case r.Permanent():
		return journal.Rejected
	case !r.Positive():
		return journal.Deferred
	case f.queued:
		return journal.Queued
	case targets == 0:
		return journal.Discarded
	}
	return journal.Forwarded
}

// summary is what the journal keeps of a verdict.
func summary(v *mailauth.Verdict, d Decision) *journal.Verdict {
	sum := &journal.Verdict{
		SPF: string(v.MailFrom.Result), SPFDomain: v.MailFrom.Domain, SPFReason: v.MailFrom.Reason,
		ARC:   v.ARC.Result,
		DMARC: string(v.DMARC.Result), Author: v.DMARC.Domain.String(), Policy: string(v.DMARC.Policy),
		Why: d.Why,
	}
	for _, s := range v.DKIM {
		sum.DKIM = append(sum.DKIM, journal.Signature{Domain: s.Domain, Selector: s.Selector, Result: s.Result, Reason: s.Reason})
	}
	return sum
}

// subject returns the value of the Subject field, when there is one.
func subject(msg *message.Message) string {
	for _, f := range msg.Fields() {
		if f.Is("Subject") {
			return f.Value()
		}
	}
	return ""
}

// describeTLS names version and cipher suite, and is empty in clear.
func describeTLS(state *tls.ConnectionState) string {
	if state == nil {
		return ""
	}
	return tls.VersionName(state.Version) + " " + tls.CipherSuiteName(state.CipherSuite)
}
