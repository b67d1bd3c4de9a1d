package journal

import (
	"net/netip"
	"time"

	"onward/internal/address"
	"onward/internal/message"
	"onward/internal/reply"
)

// An Outcome is a word for what became of a message or of an item of the queue.
type Outcome string

// The outcomes of a Message: what the sender was told.
const (
	Forwarded Outcome = "forwarded" // every target has it
	Queued    Outcome = "queued"    // we have it, and owe it to at least one target
	Rejected  Outcome = "rejected"  // 5xx
	Deferred  Outcome = "deferred"  // 4xx: the sender tries again
	Discarded Outcome = "discarded" // accepted for an alias that drops its mail
)

// The outcomes of an Event: Queued, and what comes after it.
const (
	Delivered Outcome = "delivered"
	Held      Outcome = "held"     // tried no more until a person decides
	Released  Outcome = "released" // from being held
	Retried   Outcome = "retried"  // its next try was brought forward
	Reported  Outcome = "reported" // not delivered, and the sender is told by a report
	Dropped   Outcome = "dropped"  // not delivered, and nobody is told
)

// An Entry is a Message, an Attempt or an Event.
type Entry interface {
	// cut returns the entry with every text short enough to wait in memory.
	cut() Entry
	write(w *writing) error
}

// A Message is the final answer to a message: the one after its last dot, for
// all its recipients, or the one to a RCPT command that was refused, for that
// recipient. One message may have several of both.
type Message struct {
	ID         string // see message.NewID
	Arrived    time.Time
	Answered   time.Time // zero: now
	Client     netip.Addr
	Helo       string
	TLS        string // version and cipher suite; empty in clear
	From       address.ReversePath
	Recipients []message.Recipient // not to be changed after
	Subject    string              // value of the field, undecoded; empty when unknown
	Size       int64               // octets; 0 when the message never came
	Verdict    *Verdict            // nil when it was answered before any was found; not to be changed after
	Outcome    Outcome
	Answer     Answer
}

// An Answer is what one SMTP server said to another. The zero Answer is none.
type Answer struct {
	Code   int    `json:"code"`
	Status string `json:"status"` // RFC 3463; may be empty
	Text   string `json:"text"`
}

// AnswerOf returns r as an Answer, and none for nil.
func AnswerOf(r *reply.Reply) Answer {
	if r == nil {
		return Answer{}
	}
	return Answer{Code: r.Code, Status: r.Status, Text: r.Text}
}

// String returns the answer as it stood on the wire, or just its text where it
// has no code.
func (a Answer) String() string {
	switch {
	case a.Code == 0:
		return a.Text
	case a.Status == "":
		return (&reply.Reply{Code: a.Code, Text: a.Text}).String()
	}
	return (&reply.Reply{Code: a.Code, Status: a.Status, Text: a.Text}).String()
}

// A Verdict sums up what authentication found (words of RFC 8601), and why
// that was enough or not.
type Verdict struct {
	SPF       string      `json:"spf"` // of MAIL FROM
	SPFDomain string      `json:"spf_domain"`
	SPFReason string      `json:"spf_reason,omitempty"`
	DKIM      []Signature `json:"dkim"`
	ARC       string      `json:"arc"`
	DMARC     string      `json:"dmarc"`
	Author    string      `json:"author"` // domain of From
	Policy    string      `json:"policy"` // that is in force for it; may be empty
	Why       string      `json:"why"`    // the decision, in one sentence
}

// maxSignatures is the most signatures that are kept; as many are verified.
const maxSignatures = 8

// A Signature is the result of one DKIM signature.
type Signature struct {
	Domain   string `json:"domain"`
	Selector string `json:"selector"`
	Result   string `json:"result"`
	Reason   string `json:"reason,omitempty"` // why it is not pass
}

// An Attempt is one try at one target, in the destination's own words.
type Attempt struct {
	Message   string        `json:"id"`
	Began     time.Time     `json:"time"`
	Took      time.Duration `json:"-"`
	Queued    bool          `json:"queued"` // made by the queue, not while the sender waited
	Recipient string        `json:"to"`     // what was written to
	Target    string        `json:"target"` // where that goes
	Host      string        `json:"host"`   // of the destination; empty when none was found
	Peer      string        `json:"peer"`   // its address and port
	TLS       string        `json:"tls"`    // version and cipher suite; empty in clear
	Step      string        `json:"step"`   // how far it came
	Result    string        `json:"result"` // delivered, refused, deferred, unknown
	Answer    Answer        `json:"answer"` // in its own words; none when it said nothing
}

// An Event is one change in what is known about the fate of a message.
type Event struct {
	Number    int64     `json:"-"`         // given by the journal: rises
	Time      time.Time `json:"time"`      // zero: now
	Message   string    `json:"id"`        // of the message
	ToSender  bool      `json:"to_sender"` // Answer is our final answer to the sender; only a Message makes such
	From      string    `json:"from"`      // empty is the null sender
	Recipient string    `json:"to"`
	Targets   []string  `json:"targets"`
	Outcome   Outcome   `json:"outcome"`
	By        string    `json:"by"` // who wanted it; empty: onward itself
	Answer    Answer    `json:"answer"`
}
