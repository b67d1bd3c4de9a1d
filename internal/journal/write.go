package journal

import (
	"encoding/json"

	"onward/internal/database"
	"onward/internal/message"
)

// A writing is the transaction that entries go into.
type writing struct{ tx *database.Tx }

// write notes the message, and one event for each recipient. A recipient that
// was refused may have come before: what is known later counts.
func (m Message) write(w *writing) error {
	verdict := ""
	if m.Verdict != nil {
		text, err := json.Marshal(m.Verdict.clean())
		if err != nil {
			return err
		}
		verdict = string(text)
	}
	client := ""
	if m.Client.IsValid() {
		client = m.Client.Unmap().String()
	}
	_, err := w.tx.Exec(`INSERT INTO message (id, time, client, helo, tls, sender, subject, size, verdict)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET subject = excluded.subject, size = excluded.size, verdict = excluded.verdict`,
		clean(m.ID), m.Arrived.UnixMilli(), client, clean(m.Helo), clean(m.TLS), clean(m.From.String()), clean(m.Subject), m.Size, verdict)
	if err != nil {
		return err
	}
	for _, r := range m.Recipients {
		err := w.event(Event{
			Time: m.Answered, Message: m.ID, ToSender: true,
			From: m.From.String(), Recipient: r.Address.String(), Targets: targets(r), Outcome: m.Outcome, Answer: m.Answer,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func targets(r message.Recipient) []string {
	list := make([]string, len(r.Targets))
	for i, t := range r.Targets {
		list[i] = t.String()
	}
	return list
}

func (a Attempt) write(w *writing) error {
	_, err := w.tx.Exec(`INSERT INTO attempt (message, time, took, queued, recipient, target, host, peer, tls, step, result, code, status, text)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		clean(a.Message), a.Began.UnixMilli(), a.Took.Milliseconds(), a.Queued, clean(a.Recipient), clean(a.Target), clean(a.Host), clean(a.Peer),
		clean(a.TLS), clean(a.Step), clean(a.Result), a.Answer.Code, clean(a.Answer.Status), clean(a.Answer.Text))
	return err
}

func (e Event) write(w *writing) error {
	e.ToSender = false
	return w.event(e)
}

func (w *writing) event(e Event) error {
	list := make([]string, len(e.Targets))
	for i, t := range e.Targets {
		list[i] = clean(t)
	}
	targets, err := json.Marshal(list)
	if err != nil {
		return err
	}
	_, err = w.tx.Exec(`INSERT INTO event (message, time, answer, sender, recipient, targets, outcome, by_whom, code, status, text)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		clean(e.Message), e.Time.UnixMilli(), e.ToSender, clean(e.From), clean(e.Recipient), string(targets), clean(string(e.Outcome)), clean(e.By),
		e.Answer.Code, clean(e.Answer.Status), clean(e.Answer.Text))
	return err
}
