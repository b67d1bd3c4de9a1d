package smtpclient

import (
	"errors"
	"regexp"
	"strings"

	"onward/internal/reply"
)

// judge completes out with what the conversation led to: the positive answer
// said, or err.
func judge(out Outcome, said *reply.Reply, err error) Outcome {
	if err == nil {
		out.Result, out.Reply, out.Said = Delivered, said, said
		return out
	}
	if no, ok := errors.AsType[*refusal](err); ok {
		return out.refused(no.said)
	}
	if _, ok := errors.AsType[*unanswered](err); ok {
		out.Result = Unknown
		out.Reply = &reply.Reply{Code: 451, Status: "4.4.2", Text: "the destination did not say whether it took the message", Err: err}
		return out
	}
	out.Result, out.Reply = Deferred, reply.From(err)
	if out.Reply.Permanent() {
		out.Result = Refused
	}
	return out
}

// refused completes o with a negative answer of the destination. 421 says that
// the peer is closing; relayed as it is it would say that of us.
func (o Outcome) refused(said *reply.Reply) Outcome {
	o.Result, o.Said, o.Reply = Deferred, said, said
	switch o.AboutUs = aboutUs(o.Step, said); {
	case o.AboutUs:
		o.Reply = temporary(said, "the destination refuses our server: ")
	case said.Code == 421:
		o.Reply = temporary(said, "")
	case said.Permanent():
		o.Result = Refused
	}
	return o
}

// temporary returns said as a 451.
func temporary(said *reply.Reply, prefix string) *reply.Reply {
	return &reply.Reply{Code: 451, Status: "4" + said.Status[1:], Text: prefix + said.Text}
}

// aboutUs tells whose fault a refusal is (DESIGN.md 9.8). What is about us,
// our address, its PTR record, its reputation, must not bounce somebody's mail.
// Everything else goes by the first digit of its code.
func aboutUs(step string, said *reply.Reply) bool {
	switch step {
	case stepGreeting, stepEHLO, stepSTARTTLS: // it does not know the message yet
		return true
	}
	if said.Code == 530 { // wants TLS or a password from us (RFC 3207 4, RFC 4954 6)
		return true
	}
	switch _, detail, _ := strings.Cut(said.Status, "."); detail {
	case "7.23", "7.24": // SPF of the host that is sending (RFC 7372)
		return true
	case "7.25": // its reverse DNS
		return true
	}
	subject, _, _ := strings.Cut(said.Status[2:], ".")
	if subject != "7" && subject != "0" {
		return false // 5.1.1 <spamhaus@example.org> is about that mailbox
	}
	return blocklist.MatchString(said.Text) && !contentList.MatchString(said.Text)
}

// blocklist matches texts that name a list of addresses that send bad mail.
var blocklist = regexp.MustCompile(`(?i)\b(block[- ]?list(s|ed|ing)?|black[- ]?list(s|ed|ing)?|deny[- ]?list(s|ed)?|[dr]nsbl|rbl|` +
	`spamhaus|spamcop|barracudacentral|sorbs|uceprotect|mailspike|invaluement|senderscore|banned sending ip)\b`)

// contentList matches the lists of domains and links found in messages: those
// are about the message.
var contentList = regexp.MustCompile(`(?i)\b(dbl\.spamhaus|spamhaus\.org/query/(dbl|domain)|surbl|uribl)\b`)
