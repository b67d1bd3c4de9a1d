package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Story is all that is known of one message.
type Story struct {
	ID      string    `json:"id"`
	Arrived time.Time `json:"arrived"` // and all up to Verdict: zero for what onward wrote itself, such as reports
	Client  string    `json:"client"`
	Helo    string    `json:"helo"`
	TLS     string    `json:"tls"`  // empty in clear
	From    string    `json:"from"` // empty is the null sender
	Subject string    `json:"subject"`
	Size    int64     `json:"size"`
	Verdict *Verdict  `json:"verdict"` // nil when it was answered before any was found

	Attempts []Attempt `json:"attempts"` // in the order in which they ended
	Events   []Event   `json:"events"`   // in their order, the answers to the sender among them
	Fates    []Fate    `json:"fates"`
}

// A Fate is how things stand with one target of a message, or with a recipient
// that has none.
type Fate struct {
	Recipient string    `json:"to"`
	Target    string    `json:"target"` // empty for a recipient that was refused or is discarded
	Outcome   Outcome   `json:"outcome"`
	Since     time.Time `json:"since"`
	Answer    Answer    `json:"answer"` // that decided; may be none
}

// ErrUnknown means that the journal knows nothing of a message.
var ErrUnknown = errors.New("the journal knows no such message")

// Story returns everything about one message.
func (r *Reader) Story(ctx context.Context, id string) (*Story, error) {
	s := &Story{ID: id}
	found, err := r.message(ctx, s)
	if err != nil {
		return nil, err
	}
	if s.Attempts, err = r.attempts(ctx, id); err != nil {
		return nil, err
	}
	if s.Events, err = r.events(ctx, selectEvents+` WHERE message = ? ORDER BY number`, id); err != nil {
		return nil, err
	}
	if !found && len(s.Attempts) == 0 && len(s.Events) == 0 {
		return nil, fmt.Errorf("%s: %w", id, ErrUnknown)
	}
	s.Fates = s.fates()
	return s, nil
}

// message reads what is known of the message itself.
func (r *Reader) message(ctx context.Context, s *Story) (found bool, err error) {
	var ms int64
	var verdict string
	const ask = `SELECT time, client, helo, tls, sender, subject, size, verdict FROM message WHERE id = ?`
	err = r.db.Read().QueryRowContext(ctx, ask, s.ID).Scan(&ms, &s.Client, &s.Helo, &s.TLS, &s.From, &s.Subject, &s.Size, &verdict)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	s.Arrived = time.UnixMilli(ms).UTC()
	if verdict == "" {
		return true, nil
	}
	s.Verdict = &Verdict{}
	if err := json.Unmarshal([]byte(verdict), s.Verdict); err != nil {
		return false, fmt.Errorf("message %s: verdict: %w", s.ID, err)
	}
	return true, nil
}

func (r *Reader) attempts(ctx context.Context, id string) ([]Attempt, error) {
	const ask = `SELECT message, time, took, queued, recipient, target, host, peer, tls, step, result, code, status, text FROM attempt WHERE message = ? ORDER BY number`
	rows, err := r.db.Read().QueryContext(ctx, ask, id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []Attempt{}
	for rows.Next() {
		var a Attempt
		var ms, took int64
		err := rows.Scan(&a.Message, &ms, &took, &a.Queued, &a.Recipient, &a.Target, &a.Host, &a.Peer, &a.TLS, &a.Step, &a.Result, &a.Answer.Code, &a.Answer.Status, &a.Answer.Text)
		if err != nil {
			return nil, err
		}
		a.Began, a.Took = time.UnixMilli(ms).UTC(), time.Duration(took)*time.Millisecond
		list = append(list, a)
	}
	return list, rows.Err()
}

// fates says how it ended with each target, in the order in which they are
// first named. A target that took the message has it, whatever was said or
// decided later.
func (s *Story) fates() []Fate {
	list := []Fate{}
	at := func(recipient, target string) *Fate {
		i := slices.IndexFunc(list, func(f Fate) bool { return f.Target == target && (target != "" || f.Recipient == recipient) })
		if i < 0 {
			i = len(list)
			list = append(list, Fate{Recipient: recipient, Target: target})
		}
		return &list[i]
	}
	for _, a := range s.Attempts {
		if f := at(a.Recipient, a.Target); f.Outcome != Delivered {
			f.Outcome, f.Since, f.Answer = Outcome(a.Result), a.Began.Add(a.Took), a.Answer
		}
	}
	for _, e := range s.Events {
		targets := e.Targets
		if len(targets) == 0 {
			targets = []string{""}
		}
		for _, target := range targets {
			if f := at(e.Recipient, target); f.Outcome != Delivered {
				f.follow(e)
			}
		}
	}
	return list
}

// follow notes what an event says. The destination's words tell more than our
// answer to the sender.
func (f *Fate) follow(e Event) {
	f.Outcome, f.Since = e.Outcome, e.Time
	if e.Outcome == Released || e.Outcome == Retried {
		f.Outcome = Queued
	}
	none := Answer{}
	if f.Answer == none || !e.ToSender && e.Answer != none {
		f.Answer = e.Answer
	}
}
