package status

import (
	"slices"
	"strings"
	"sync"
	"time"

	"onward/internal/journal"
)

// maxOperators is how many destinations have a name of their own in metrics; all
// further ones share "other" (RELIABILITY 69). Who sends a bounce to one of our
// return paths chooses a destination.
const maxOperators = 50

// Metrics counts what happens to mail, for Prometheus. Give Record every entry
// that the journal gets; it may be called by several goroutines. A nil *Metrics
// counts nothing.
type Metrics struct {
	// Operator names who runs the mail host that an attempt at target went to,
	// or is empty where that is a stranger, whom nobody needs in a graph. Nil:
	// nobody is named.
	Operator func(host string) string

	mu        sync.Mutex
	operators []string

	messages, refusals, secured, authenticated, attempts, ended counter
	answered, tried                                             histogram
}

// NewMetrics returns Metrics in which all that can be known beforehand stands at
// zero, so that the first refusal is a rise.
func NewMetrics(operator func(host string) string) *Metrics {
	m := &Metrics{
		Operator: operator,
		messages: counter{name: "onward_messages_total", labels: []string{"outcome"},
			help: "Answers to senders about messages, also about single recipients that were refused, by what they meant."},
		refusals: counter{name: "onward_refusals_total", labels: []string{"outcome", "reason"},
			help: "Messages and recipients that were rejected or deferred, by the class of the answer (RFC 3463)."},
		secured: counter{name: "onward_tls_total", labels: []string{"direction", "version"},
			help: "Messages that came in, and attempts that reached a destination, by the version of TLS."},
		authenticated: counter{name: "onward_authentication_total", labels: []string{"method", "result"},
			help: "Results of authentication (RFC 8601); DKIM once for each signature."},
		attempts: counter{name: "onward_attempts_total", labels: []string{"operator", "result"},
			help: "Attempts at destinations, by who runs them and how they ended."},
		ended: counter{name: "onward_queue_ended_total", labels: []string{"outcome"},
			help: "What became of items of the queue."},
		answered: histogram{name: "onward_answer_seconds", label: "outcome",
			help: "Time from MAIL to the answer to the sender's last dot, for messages that came whole."},
		tried: histogram{name: "onward_attempt_seconds", label: "by",
			help: "Time that one attempt at a destination took, while the sender waited or by the queue."},
	}
	for _, o := range []journal.Outcome{journal.Forwarded, journal.Queued, journal.Rejected, journal.Deferred, journal.Discarded} {
		m.messages.add(0, string(o))
	}
	for _, o := range ends {
		m.ended.add(0, string(o))
	}
	return m
}

// ends are the outcomes that are counted of items of the queue.
var ends = []journal.Outcome{journal.Delivered, journal.Reported, journal.Held, journal.Dropped}

// Record counts an entry of the journal.
func (m *Metrics) Record(e journal.Entry) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e := e.(type) {
	case journal.Message:
		m.message(e)
	case journal.Attempt:
		m.attempt(e)
	case journal.Event:
		if slices.Contains(ends, e.Outcome) {
			m.ended.add(1, string(e.Outcome))
		}
	}
}

func (m *Metrics) message(e journal.Message) {
	outcome := string(e.Outcome)
	m.messages.add(1, outcome)
	if e.Outcome == journal.Rejected || e.Outcome == journal.Deferred {
		m.refusals.add(1, outcome, reason(e.Answer))
	}
	if e.Size == 0 {
		return // it never came
	}
	m.secured.add(1, "in", tlsVersion(e.TLS))
	answered := e.Answered
	if answered.IsZero() {
		answered = time.Now()
	}
	m.answered.observe(max(0, answered.Sub(e.Arrived).Seconds()), outcome)
	if v := e.Verdict; v != nil {
		m.authenticated.add(1, "spf", result(v.SPF))
		m.authenticated.add(1, "arc", result(v.ARC))
		m.authenticated.add(1, "dmarc", result(v.DMARC))
		for _, s := range v.DKIM {
			m.authenticated.add(1, "dkim", result(s.Result))
		}
		if len(v.DKIM) == 0 {
			m.authenticated.add(1, "dkim", "none")
		}
	}
}

func (m *Metrics) attempt(e journal.Attempt) {
	m.attempts.add(1, m.operator(e), e.Result)
	by := "session"
	if e.Queued {
		by = "queue"
	}
	m.tried.observe(e.Took.Seconds(), by)
	if e.Peer != "" {
		m.secured.add(1, "out", tlsVersion(e.TLS))
	}
}

// operator names the destination of an attempt.
func (m *Metrics) operator(e journal.Attempt) string {
	if m.Operator == nil || e.Host == "" {
		return "other"
	}
	name := m.Operator(e.Host)
	switch {
	case slices.Contains(m.operators, name):
		return name
	case name == "" || len(m.operators) == maxOperators:
		return "other"
	}
	m.operators = append(m.operators, name)
	return name
}

// reason names the class of a refusal: the subject of its status (RFC 3463 4),
// with loops apart, which mean a mistake in somebody's configuration.
func reason(a journal.Answer) string {
	if strings.HasSuffix(a.Status, ".4.6") {
		return "loop"
	}
	words := map[string]string{"1": "address", "2": "mailbox", "3": "system", "4": "network", "5": "protocol", "6": "content", "7": "policy"}
	if parts := strings.Split(a.Status, "."); len(parts) == 3 && words[parts[1]] != "" {
		return words[parts[1]]
	}
	return "other"
}

// tlsVersion cuts the cipher suite off.
func tlsVersion(s string) string {
	for _, version := range []string{"TLS 1.3", "TLS 1.2", "TLS 1.1", "TLS 1.0"} {
		if strings.HasPrefix(s, version) {
			return version
		}
	}
	if s == "" {
		return "none"
	}
	return "other"
}

// result lets only the words of RFC 8601 2.7 through.
func result(s string) string {
	if slices.Contains([]string{"pass", "fail", "softfail", "neutral", "none", "policy", "temperror", "permerror"}, s) {
		return s
	}
	return "other"
}

// named are the destinations that are counted by name.
func (m *Metrics) named() []string {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(slices.Values(m.operators))
}
