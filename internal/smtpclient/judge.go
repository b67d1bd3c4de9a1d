package smtpclient

import (
	"errors"
	"time"

	"onward/internal/reply"
)

// judge completes out with what the conversation led to: the positive answer
// said, or err.
func judge(out Outcome, said *reply.Reply, err error) Outcome {
	if err == nil {
		out.Result, out.Reply, out.Said = Delivered, said, said
		return out
	}
	if ours, ok := errors.AsType[*trouble](err); ok {
		out.Result, out.Reply, out.AboutUs = Deferred, reply.Trouble(ours), true
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
	v := verdictOn(o.Step, said, o.relayed)
	o.Result, o.Said, o.Reply = Deferred, said, said
	o.AboutUs, o.alarm = v.us, v.alarm
	switch {
	case v.us && o.relayed: // what a relay says of our account, no sender should read
		o.Reply = reply.Trouble(&refusal{said})
	case v.us:
		o.Reply = temporary(said, "the destination refuses our server: ")
	case said.Code == 421:
		o.Reply = temporary(said, "")
	case said.Permanent():
		o.Result = Refused
	}
	if v.rest != nobody {
		o.rest, o.Limited, o.NotBefore = v.rest, true, time.Now().Add(shortestPause)
	}
	return o
}

// temporary returns said as a 451.
func temporary(said *reply.Reply, prefix string) *reply.Reply {
	return &reply.Reply{Code: 451, Status: "4" + said.Status[1:], Text: prefix + said.Text}
}
