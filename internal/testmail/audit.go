package testmail

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Evidence is all that is known after a run, from everybody but the daemon's
// word: what senders heard, what arrived, and what lies in the queue
// (RELIABILITY.md 4.3). The daemon must stand still while it is collected.
type Evidence struct {
	Ledger  *Ledger
	Targets func(recipient string) []string // where mail for a recipient must go; nil: nowhere
	Sink    []Delivery                      // everything that any sink took, reports too
	Queue   []Pending

	// Postmaster is where notices go, which are about no message of the ledger.
	Postmaster string

	// Rewritten tells copies whose From is ours, by their header: only the body is
	// held against what was sent. Nil: there are none.
	Rewritten func(header []byte) bool

	// Moment is how long before a kill something may have been done by the daemon
	// and not written down yet.
	Moment time.Duration

	// Recorded returns when the daemon said about a delivery out of the queue that it
	// is written down: a kill after that explains nothing. Nil: it is not known.
	Recorded func(d Delivery, to string) []time.Time
}

// Pending is one message in the daemon's queue.
type Pending struct {
	To     string // the target, or whoever a report is for
	Held   bool
	Header []byte // of the outgoing message
	Body   []byte // of a report; may be nil otherwise
}

// An Audit is what became of everything. Pairs are of a message and a target.
type Audit struct {
	Sent, Accepted, Refused, Deferred int // messages, by the last answer
	Kills                             int
	Owed                              int // pairs that the daemon has answered 250 for
	Delivered, Queued, Held, Reported int // pairs; the first that applies of this order
	Lost                              int // pairs owed, and none of that
	Duplicates                        int // copies beyond the first of a pair
	Explained                         int // of those, how many an ambiguous fault explains
	Ambiguous                         int // faults that may have led to a copy more
	Findings                          []string
}

// Clean reports whether nothing was found.
func (a *Audit) Clean() bool { return len(a.Findings) == 0 }

// String returns the summary, one line, and the findings, a line each.
func (a *Audit) String() string {
	s := fmt.Sprintf("kills %d, sent %d, accepted %d, refused %d, deferred %d; owed %d: delivered %d, queued %d, held %d, reported %d, lost %d; duplicates %d, explained %d, by %d ambiguous faults",
		a.Kills, a.Sent, a.Accepted, a.Refused, a.Deferred, a.Owed, a.Delivered, a.Queued, a.Held, a.Reported, a.Lost, a.Duplicates, a.Explained, a.Ambiguous)
	for _, f := range a.Findings {
		s += "\n" + f
	}
	return s
}

// An auditor works through the evidence.
type auditor struct {
	Audit
	evidence Evidence
	letters  map[string]*dossier // by id
	kills    []time.Time
}

// A dossier is one letter, and all that was found of it.
type dossier struct {
	Letter
	copies  map[string][]Delivery // by target
	pending map[string][]Pending  // by target
	reports map[string][]Delivery // by recipient
	drafts  map[string][]Pending  // reports in the queue, by recipient
}

// Check holds the evidence against the promise:
//
//   - every pair that was answered 250 is delivered, queued, held or reported
//   - a pair has one copy, and at most one more for each ambiguous fault: an
//     answer to a final dot that never came, here or there, or a kill within
//     Moment of a delivery out of the queue
//   - what arrives is what was sent, below whole header fields of ours, and goes
//     where its recipient leads
//   - nothing is reported that was refused or delivered, nor to anybody who is
//     not the authenticated sender, and no report names a target (N3)
//   - nothing is queued for an unauthenticated sender, unless another target has
//     taken the message (DESIGN.md 9.3)
//   - nobody hears 5xx about a message that was delivered
func (e Evidence) Check() *Audit {
	a := &auditor{evidence: e, letters: map[string]*dossier{}, kills: e.Ledger.Kills()}
	for id, l := range e.Ledger.Letters() {
		a.letters[id] = &dossier{l, map[string][]Delivery{}, map[string][]Pending{}, map[string][]Delivery{}, map[string][]Pending{}}
	}
	a.Kills = len(a.kills)
	a.sort()
	for _, id := range slices.Sorted(maps.Keys(a.letters)) {
		a.letter(a.letters[id])
	}
	return &a.Audit
}

func (a *auditor) find(format string, args ...any) {
	a.Findings = append(a.Findings, fmt.Sprintf(format, args...))
}

// sort puts everything that arrived or waits to the letter it belongs to.
func (a *auditor) sort() {
	for _, d := range a.evidence.Sink {
		for _, rcpt := range d.Rcpt {
			to := path(rcpt)
			l, recipients := a.identify(to, path(d.Mail) == "", d.Data)
			for _, r := range recipients {
				l.reports[r] = append(l.reports[r], d)
			}
			if l != nil && recipients == nil {
				l.copies[to] = append(l.copies[to], d)
			}
		}
	}
	for _, q := range a.evidence.Queue {
		to := strings.ToLower(q.To)
		l, recipients := a.identify(to, true, slices.Concat(q.Header, q.Body))
		for _, r := range recipients {
			l.drafts[r] = append(l.drafts[r], q)
		}
		if l != nil && recipients == nil {
			l.pending[to] = append(l.pending[to], q)
		}
	}
}

// identify finds out what data is: a copy of a letter by its own Message-ID, or a
// report by the one it quotes, about the recipients it names.
func (a *auditor) identify(to string, null bool, data []byte) (l *dossier, reportsAbout []string) {
	header, body, _ := bytes.Cut(data, []byte("\r\n\r\n"))
	if l := a.letters[messageID(header)]; l != nil {
		return l, nil
	}
	l = a.letters[messageID(body)]
	if l == nil || !null {
		if !null || to != a.evidence.Postmaster {
			a.find("to %s: a message that nobody sent: %.300q", to, data)
		}
		return nil, nil
	}
	for _, final := range finalRecipient.FindAllSubmatch(body, -1) {
		reportsAbout = append(reportsAbout, strings.ToLower(string(final[1])))
	}
	if reportsAbout == nil {
		a.find("%s: a report to %s that names no recipient", l.ID, to)
		return nil, nil
	}
	if to != strings.ToLower(l.From) {
		a.find("%s: a report for %s, and the sender is <%s>", l.ID, to, l.From)
	}
	a.privacy(l, to, data)
	return l, reportsAbout
}

var (
	messageIDField = regexp.MustCompile(`(?im)^Message-ID:[ \t]*(?:\r\n[ \t]+)?<([^>\r\n]+)>`)
	finalRecipient = regexp.MustCompile(`(?im)^Final-Recipient:[ \t]*[-a-z0-9]+;[ \t]*(\S+)`)
)

func messageID(text []byte) string {
	if m := messageIDField.FindSubmatch(text); m != nil {
		return string(m[1])
	}
	return ""
}

// path returns the address of a MAIL or RCPT line, in lower case.
func path(line string) string {
	_, s, _ := strings.Cut(line, "<")
	s, _, _ = strings.Cut(s, ">")
	return strings.ToLower(s)
}
