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
		if n := len(l.reports[recipient]); n-1 > a.unrecorded(l, l.reports[recipient]) {
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
		a.Ambiguous += a.unrecorded(l, copies)
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
	return l.unanswered() + a.unrecorded(l, l.copies[target])
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
// the answer, or was killed before it had written it down. While a sender waits
// a kill leaves that one without an answer, and is counted there.
func (a *auditor) unrecorded(l *dossier, copies []Delivery) int {
	n := 0
	for _, d := range copies {
		n += one(d.Unheard || l.ownedBefore(d.Answered) && a.forgotten(d))
	}
	return n
}

// forgotten reports whether a kill may have kept the daemon from writing a
// delivery down.
func (a *auditor) forgotten(d Delivery) bool {
	at := slices.IndexFunc(a.kills, func(kill time.Time) bool { return !d.Time.After(kill) })
	if at < 0 || !d.Answered.Add(a.evidence.Moment).After(a.kills[at]) {
		return false
	}
	return a.evidence.Recorded == nil || !slices.ContainsFunc(a.evidence.Recorded(d, path(d.Rcpt[0])), func(recorded time.Time) bool {
		return !recorded.Before(d.Time) && recorded.Before(a.kills[at])
	})
}

// ownedBefore reports whether the daemon may have had the letter in its queue at
// that time, whoever was sending it then. A sender may need a moment to notice.
func (l *dossier) ownedBefore(at time.Time) bool {
	const moment = 50 * time.Millisecond
	return slices.ContainsFunc(l.Tries, func(t Try) bool {
		return (t.Accepted() || t.Unanswered()) && t.Ended.Add(-moment).Before(at)
	})
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
	header, body, _ := bytes.Cut(d.Data, []byte("\r\n\r\n"))
	if a.evidence.Rewritten != nil && a.evidence.Rewritten(append(slices.Clone(header), "\r\n"...)) {
		if sha256.Sum256(body) != l.Body {
			a.find("%s: CHANGED: the body that %v took is not what was sent: %.2000q", l.ID, d.Rcpt, body)
		}
		return
	}
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
