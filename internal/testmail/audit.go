package testmail

import (
	"bytes"
	"crypto/sha256"
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

	// Moment is how long before a kill something may have been done by the
	// daemon and not written down yet.
	Moment time.Duration
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
//     Moment of a delivery
//   - what arrives is what was sent, below whole header fields of ours, and goes
//     where its recipient leads
//   - nothing is reported that was refused or delivered, nor to anybody who is
//     not the authenticated sender, and no report names a target (N3)
//   - nothing is queued for an unauthenticated sender, unless another target has
//     taken the message (DESIGN.md 9.3)
//   - nobody hears 5xx about a message that was delivered
func (e Evidence) Check() *Audit {
	a := &auditor{evidence: e, letters: map[string]*dossier{}}
	for id, l := range e.Ledger.Letters() {
		a.letters[id] = &dossier{l, map[string][]Delivery{}, map[string][]Pending{}, map[string][]Delivery{}, map[string][]Pending{}}
	}
	a.Kills = len(e.Ledger.Kills())
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

// letter looks into one message.
func (a *auditor) letter(l *dossier) {
	a.count(l)
	may := map[string]bool{}  // where it may go
	owed := map[string]bool{} // where the daemon has promised to bring it
	for _, t := range l.Tries {
		for _, recipient := range t.Recipients {
			for _, target := range a.evidence.Targets(recipient) {
				may[target] = may[target] || t.Dot
				owed[target] = owed[target] || t.Accepted()
			}
		}
	}
	for _, target := range slices.Sorted(maps.Keys(may)) {
		a.target(l, target, owed[target])
	}
	for _, target := range slices.Sorted(maps.Keys(l.copies)) {
		if !may[target] {
			a.find("%s: went to %s, where it must not go; %s", l.ID, target, l)
		}
		for _, d := range l.copies[target] {
			a.octets(l, d)
		}
	}
	for _, target := range slices.Sorted(maps.Keys(l.pending)) {
		if !may[target] {
			a.find("%s: queued for %s, where it must not go; %s", l.ID, target, l)
		}
		a.rightToQueue(l, target)
	}
	a.refusedYetDelivered(l)
	for _, recipient := range slices.Sorted(maps.Keys(l.reports)) {
		if n := len(l.reports[recipient]); n-1 > a.unrecorded(l.reports[recipient]) {
			a.find("%s: %d reports about %s", l.ID, n, recipient)
		}
		a.rightToReport(l, recipient)
	}
	for _, recipient := range slices.Sorted(maps.Keys(l.drafts)) {
		a.rightToReport(l, recipient)
	}
}

// count counts a message by the last answer its sender heard.
func (a *auditor) count(l *dossier) {
	a.Sent++
	last := Try{}
	for _, t := range l.Tries {
		if t.Code != 0 || last.Code == 0 {
			last = t
		}
	}
	a.Accepted += one(last.Accepted())
	a.Refused += one(last.Code/100 == 5)
	a.Deferred += one(last.Code/100 == 4)
	a.Ambiguous += l.unanswered()
	for _, copies := range l.copies {
		a.Ambiguous += a.unrecorded(copies)
	}
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// target looks into one message for one target.
func (a *auditor) target(l *dossier, target string, owed bool) {
	copies, pending := len(l.copies[target]), l.pending[target]
	held := slices.ContainsFunc(pending, func(q Pending) bool { return q.Held })
	switch {
	case !owed:
	case copies > 0:
		a.Delivered++
	case held:
		a.Held++
	case len(pending) > 0:
		a.Queued++
	case a.reportedFor(l, target):
		a.Reported++
	default:
		a.Lost++
		a.find("%s: LOST: answered 250, and neither delivered to %s nor queued, held or reported; %s", l.ID, target, l)
	}
	a.Owed += one(owed)
	faults := a.faults(l, target)
	a.Duplicates += max(0, copies-1)
	a.Explained += max(0, min(copies-1, faults))
	if copies+len(pending)-1 > faults {
		a.find("%s: %d copies at %s and %d in the queue, and %d ambiguous faults; %s", l.ID, copies, target, len(pending), faults, l)
	}
}

// faults counts what may have led to a second copy for a target.
func (a *auditor) faults(l *dossier, target string) int {
	return l.unanswered() + a.unrecorded(l.copies[target])
}

// unanswered counts the tries of which the sender does not know the end.
func (l *dossier) unanswered() int {
	n := 0
	for _, t := range l.Tries {
		n += one(t.Unanswered())
	}
	return n
}

// unrecorded counts deliveries that the daemon may not know of: it did not hear
// the answer, or was killed before it had written it down.
func (a *auditor) unrecorded(copies []Delivery) int {
	n := 0
	for _, d := range copies {
		n += one(d.Unheard || slices.ContainsFunc(a.evidence.Ledger.Kills(), func(kill time.Time) bool {
			return !d.Time.After(kill) && d.Time.Add(a.evidence.Moment).After(kill)
		}))
	}
	return n
}

// String tells what the sender heard.
func (l *dossier) String() string {
	s := l.Class.String() + " sender, heard"
	for _, t := range l.Tries {
		s += fmt.Sprintf(" [%q for %v, dot %v]", t.Text, t.Recipients, t.Dot)
	}
	return s
}

// reportedFor reports whether a report about some recipient that leads to target
// has arrived or is on its way.
func (a *auditor) reportedFor(l *dossier, target string) bool {
	return slices.ContainsFunc(l.recipients(), func(recipient string) bool {
		return slices.Contains(a.evidence.Targets(recipient), target) && len(l.reports[recipient])+len(l.drafts[recipient]) > 0
	})
}

// recipients returns whom a letter was accepted for at RCPT in any try.
func (l *dossier) recipients() []string {
	var all []string
	for _, t := range l.Tries {
		all = append(all, t.Recipients...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// octets holds what arrived against what was sent.
func (a *auditor) octets(l *dossier, d Delivery) {
	at := len(d.Data) - l.Size
	if at < 0 || sha256.Sum256(d.Data[at:]) != l.Sum {
		a.find("%s: CHANGED: what %v took is not what was sent: %.2000q", l.ID, d.Rcpt, d.Data)
		return
	}
	if !wholeFields.Match(d.Data[:at]) {
		a.find("%s: what stands above it is no header: %.2000q", l.ID, d.Data[:at])
	}
}

// wholeFields matches header fields, each with its CRLF.
var wholeFields = regexp.MustCompile(`\A(?:[!-9;-~]+:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)*\z`)

// refusedYetDelivered: whoever hears 5xx tells somebody that the message did not
// arrive.
func (a *auditor) refusedYetDelivered(l *dossier) {
	for _, t := range l.Tries {
		for _, recipient := range t.Recipients {
			if t.Code/100 != 5 || l.acceptedFor(recipient) {
				continue
			}
			for _, target := range a.evidence.Targets(recipient) {
				if len(l.copies[target]) > 0 && a.faults(l, target) == 0 {
					a.find("%s: refused, and %s has it; %s", l.ID, target, l)
				}
			}
		}
	}
}

// acceptedFor reports whether some try was answered 250 for a recipient.
func (l *dossier) acceptedFor(recipient string) bool {
	return slices.ContainsFunc(l.Tries, func(t Try) bool { return t.Accepted() && slices.Contains(t.Recipients, recipient) })
}

// rightToQueue: what could never be reported is taken only where another target
// has it already (RELIABILITY 29, DESIGN.md 9.3).
func (a *auditor) rightToQueue(l *dossier, target string) {
	if _, here := l.copies[target]; l.Class == Unbounceable && len(l.copies)-one(here) == 0 {
		a.find("%s: queued for %s, and nobody could be told of a failure; %s", l.ID, target, l)
	}
}

// rightToReport: only the authenticated sender hears, only of what was taken, and
// only of what did not arrive.
func (a *auditor) rightToReport(l *dossier, recipient string) {
	taken := slices.ContainsFunc(l.Tries, func(t Try) bool {
		return (t.Accepted() || t.Unanswered()) && slices.Contains(t.Recipients, recipient)
	})
	missing, faults := 0, 0
	for _, target := range a.evidence.Targets(recipient) {
		missing += one(len(l.copies[target]) == 0)
		faults += a.faults(l, target)
	}
	switch {
	case l.Class != Bounceable:
		a.find("%s: BACKSCATTER: a report about %s; %s", l.ID, recipient, l)
	case !taken:
		a.find("%s: a report about %s, which was never accepted; %s", l.ID, recipient, l)
	case missing == 0 && faults == 0:
		a.find("%s: a report about %s, and all of it was delivered; %s", l.ID, recipient, l)
	}
}

// privacy: a report shows what the sender wrote to, never where that leads
// (STANDARDS.md N3).
func (a *auditor) privacy(l *dossier, to string, report []byte) {
	for _, recipient := range l.recipients() {
		for _, target := range a.evidence.Targets(recipient) {
			if target != recipient && target != to && bytes.Contains(bytes.ToLower(report), []byte(strings.ToLower(target))) {
				a.find("%s: the report names the target %s", l.ID, target)
			}
		}
	}
}
