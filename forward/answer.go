package forward

import (
	"fmt"
	"strings"

	"onward/internal/message"
	"onward/internal/reply"
	"onward/internal/smtpclient"
)

// conclude makes one answer of what became of all targets (RELIABILITY.md 2.2,
// as far as it goes without a queue):
//
//	all delivered           the destination's 2xx
//	none, one refused or
//	all refused             the destination's 5xx
//	none, any other way     4xx, the destination's where it spoke, else 451
//	some, the rest refused  554 with the refusal: the sender must hear of it
//	some, others not yet    4xx; those delivered are remembered, so that the
//	                        next try brings them no second copy
//
// A target whose answer to the final dot never came (unknown) counts as not
// yet: a second copy is possible, loss is not.
func (f *Forwarder) conclude(env *message.Envelope, msg *message.Message, deliveries []*delivery) *reply.Reply {
	by := map[smtpclient.Result][]*delivery{}
	for _, d := range deliveries {
		by[d.outcome.Result] = append(by[d.outcome.Result], d)
	}
	done, refused := by[smtpclient.Delivered], by[smtpclient.Refused]
	pending := append(by[smtpclient.Deferred], by[smtpclient.Unknown]...)
	for _, d := range done {
		if k := f.key(env, msg, d); len(pending) > 0 {
			f.delivered.remember(k, d.outcome.Reply)
		} else {
			f.delivered.forget(k)
		}
	}
	switch {
	case len(deliveries) == 0:
		return reply.New(250, "2.0.0", "accepted")
	case len(pending) > 0:
		return relay(pending[0])
	case len(done) == 0:
		return relay(refused[0])
	case len(refused) > 0:
		r := relay(refused[0])
		return &reply.Reply{Code: 554, Status: r.Status, Text: fmt.Sprintf("delivered to %d of %d mailboxes, but not to all: %s", len(done), len(deliveries), r.Text), Err: r.Err}
	case len(done) == 1:
		return &reply.Reply{Code: 250, Status: "2.0.0", Text: "forwarded: " + relay(done[0]).Text}
	default:
		return reply.New(250, "2.0.0", "forwarded to %d mailboxes", len(done))
	}
}

// relay is the destination's answer as the sender may hear it: code, status
// and words kept, the private target replaced by the address that was written
// to (STANDARDS.md N3).
func relay(d *delivery) *reply.Reply {
	r := *d.outcome.Reply
	r.Text = replaceFold(reply.Clean(r.Text), d.target.String(), d.recipients[0].Address.String())
	return &r
}

// replaceFold replaces every occurrence of old, compared without case.
func replaceFold(s, old, with string) string {
	var b strings.Builder
	lower := strings.ToLower(s)
	old = strings.ToLower(old)
	for {
		i := strings.Index(lower, old)
		if i < 0 {
			return b.String() + s
		}
		b.WriteString(s[:i])
		b.WriteString(with)
		s, lower = s[i+len(old):], lower[i+len(old):]
	}
}
