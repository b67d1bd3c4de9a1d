package main

import (
	"time"

	"onward/internal/address"
	"onward/internal/journal"
	"onward/internal/queue"
	"onward/internal/smtpclient"
)

// record keeps an entry in the journal, and counts it.
func (d *daemon) record(e journal.Entry) {
	d.state.journal.Record(e)
	d.metrics.Record(e)
}

// recordAttempt writes the journal's row of an attempt in the session. When the
// destination took the message, what waits for it in the queue may go too.
func (d *daemon) recordAttempt(id string, recipient, target address.Mailbox, out smtpclient.Outcome, began time.Time) {
	d.record(attempt(id, recipient, target, out, began, time.Since(began)))
	if out.Result == smtpclient.Delivered {
		d.queue.Recovered(target.Domain)
	}
}

// recordFate writes what became of an item of the queue: the attempt, if there
// was one, and its end, if that was it.
func (d *daemon) recordFate(e queue.Event) {
	i := e.Item
	if e.Outcome.Result != 0 {
		row := attempt(i.Message, i.Recipient, i.Target, e.Outcome, e.Began, e.Took)
		row.Queued = true
		d.record(row)
	}
	fate, ends := map[queue.Fate]journal.Outcome{
		queue.Delivered: journal.Delivered, queue.Reported: journal.Reported, queue.Held: journal.Held, queue.Dropped: journal.Dropped,
	}[e.Fate]
	if !ends {
		return
	}
	answer := journal.Answer{Text: e.Reason}
	if e.Outcome.Result != 0 {
		answer = said(e.Outcome)
	}
	for _, recipient := range append([]address.Mailbox{i.Recipient}, i.Also...) {
		d.record(journal.Event{
			Message: i.Message, From: i.Sender.String(), Recipient: recipient.String(), Targets: []string{i.Target.String()}, Outcome: fate, Answer: answer,
		})
	}
}

func attempt(id string, recipient, target address.Mailbox, out smtpclient.Outcome, began time.Time, took time.Duration) journal.Attempt {
	a := journal.Attempt{
		Message: id, Recipient: recipient.String(), Target: target.String(), Began: began, Took: took,
		Host: out.Host, TLS: out.TLS, Step: out.Step, Result: out.Result.String(), Answer: said(out),
	}
	if out.Addr.IsValid() {
		a.Peer = out.Addr.String()
	}
	return a
}

// said is the answer in the destination's own words where it spoke.
func said(out smtpclient.Outcome) journal.Answer {
	if out.Said != nil {
		return journal.AnswerOf(out.Said)
	}
	answer := journal.AnswerOf(out.Reply)
	if out.Reply != nil && out.Reply.Err != nil { // only the operator reads it
		answer.Text += ": " + out.Reply.Err.Error()
	}
	return answer
}
