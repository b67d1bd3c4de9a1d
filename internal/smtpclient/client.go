// Package smtpclient holds the SMTP conversation with destinations: it finds
// the hosts of a target's domain, talks to them, and says what became of one
// message for one target.
//
// Rules for a caller:
//   - Deliver is one attempt: one message, one target, at most five addresses.
//     It never waits and tries again; that is the queue's business.
//   - The end of ctx stops an attempt only until the final dot has been sent.
//     From then on the answer is awaited for Timeouts.Answer whatever happens
//     to ctx, because the destination may already have the message
//     (RELIABILITY 2.2).
//   - Outcome.Reply may be given to the sender as it is: its first digit always
//     agrees with Outcome.Result. Trouble of ours and refusals of our address
//     are 4xx there, whatever the destination said (DESIGN.md 9.8).
//   - Before the final dot, the only way out after a failure inside the message
//     is to reset the connection, so that half a message is never the whole of
//     one (DEPENDENCIES.md A2).
package smtpclient

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"onward/internal/address"
	"onward/internal/reply"
	"onward/internal/resolver"
)

// maxAddresses is the most addresses tried for one message (RELIABILITY.md 5).
const maxAddresses = 5

// A Client delivers to destinations. Its fields are set before the first
// Deliver and not changed after; it is then safe for concurrent use.
type Client struct {
	Resolver resolver.Resolver
	Hostname string // our name in EHLO, and the one that means us in an MX record
	Port     int    // 0 means 25

	IPv6         string     // "auto": after IPv4; "on": before IPv4; "off": never; empty means auto
	AllowPrivate bool       // dial loopback and private addresses too (RELIABILITY 67)
	Source       netip.Addr // our end of every connection; then only this family is dialled

	MaxHosts int // sessions held for one message; 0 means 2 (RELIABILITY.md 5)
	Timeouts Timeouts
	Log      *slog.Logger // one line an attempt; nil means none
}

// Timeouts are for one step each; zero means the default. All but Answer are
// cut short by the end of the context. The defaults are RFC 5321 4.5.3.2's,
// but for Connect, Hello and Answer, which must leave room within a sender's patience
// (RELIABILITY.md 5).
type Timeouts struct {
	Connect time.Duration // TCP connection: 10 s
	Hello   time.Duration // greeting, EHLO and TLS handshake: 15 s, so that a host which hangs leaves time for the next
	Command time.Duration // every other command: 5 min
	Reply   time.Duration // a reply's first octet to its last: 30 s (RELIABILITY 64)
	Block   time.Duration // every write of message bytes: 3 min
	Answer  time.Duration // the answer to the final dot: 240 s
}

// withDefaults returns t with nothing left at zero.
func (t Timeouts) withDefaults() Timeouts {
	return Timeouts{
		Connect: cmp.Or(t.Connect, 10*time.Second),
		Hello:   cmp.Or(t.Hello, 15*time.Second),
		Command: cmp.Or(t.Command, 5*time.Minute),
		Reply:   cmp.Or(t.Reply, 30*time.Second),
		Block:   cmp.Or(t.Block, 3*time.Minute),
		Answer:  cmp.Or(t.Answer, 240*time.Second),
	}
}

// A Transaction is one message for one target.
type Transaction struct {
	ID   string // for the log
	From address.ReversePath
	To   address.Mailbox

	// Size is the exact number of octets Open's reader yields. A reader that
	// yields any other number is an error, so a file cut short is never sent.
	Size int64

	EightBit bool // some octet is above 127 (RFC 6152)
	UTF8     bool // some header field is; addresses are looked at here (RFC 6531)

	// Open returns the message from its first octet, once for each host tried.
	// Every line ends in CRLF, and there is no other CR or LF.
	Open func() io.Reader
}

// A Result is what became of a message.
type Result int

// The results. The zero Result is none of them.
const (
	Delivered Result = iota + 1 // the destination owns it
	Refused                     // it never will: trying again is pointless
	Deferred                    // it did not now; the final dot was not sent, or was answered 4xx
	Unknown                     // the final dot was sent, and no answer came: it may have it
)

// String returns the word used in logs.
func (r Result) String() string {
	return [...]string{"none", "delivered", "refused", "deferred", "unknown"}[r]
}

// An Outcome is how one attempt ended.
type Outcome struct {
	Result Result

	// Reply is for the sender: 2xx when Delivered, 5xx when Refused, 4xx when
	// Deferred or Unknown. It is in the destination's words where it spoke.
	Reply *reply.Reply

	// Said is the destination's own answer with its own code, which differs
	// from Reply after 421 and when it refuses us rather than the message. Nil
	// when it never answered the step that decided.
	Said *reply.Reply

	// Tried is false when we held the message back ourselves, and neither the
	// destination nor its DNS failed it: its breaker is open, its mailbox is
	// paused, or no slot came free in time. Such an attempt counts for nothing
	// against the message's lifetime (RELIABILITY 90).
	Tried bool

	// Limited is true when a rate limit of the destination is why, heard just
	// now or still in force, and false when it is our own lack of a free slot.
	Limited bool

	// NotBefore is when the destination may be asked again for this target, as
	// far as it wants a pause; set exactly when Limited.
	NotBefore time.Time

	AboutUs bool           // it refuses us, not the message: somebody must look into it
	Host    string         // the destination's name; empty when none was found
	Addr    netip.AddrPort // where we were connected, or tried to be
	Step    string         // how far it came: "lookup", "connect", "greeting", "EHLO" ... "dot"

	TLS        string // version and cipher suite; empty in clear
	TLSFailure error  // why it was in clear although TLS was offered
}

// Deliver tries the hosts of t.To's domain in their order until one of them
// takes the message or refuses it, and returns the outcome that says most.
func (c *Client) Deliver(ctx context.Context, t *Transaction) Outcome {
	hosts, err := c.route(ctx, t.To.Domain)
	if err != nil {
		return c.record(t, time.Now(), judge(Outcome{Step: stepLookup, Tried: true}, nil, err))
	}
	tour := tour{sessions: cmp.Or(c.MaxHosts, 2), addresses: maxAddresses}
	for at, err := range c.candidates(ctx, hosts) {
		if tour.over() {
			break
		}
		if at.host == tour.answered {
			continue
		}
		began := time.Now()
		var out Outcome
		if err != nil {
			out = judge(Outcome{Step: stepLookup, Host: at.host, Tried: true}, nil, err)
		} else {
			out = c.visit(ctx, t, at)
		}
		if err != nil && ctx.Err() != nil && tour.best.Result != 0 {
			break // time is up: that says nothing about this host
		}
		tour.note(c.record(t, began, out))
		if ctx.Err() != nil {
			break
		}
	}
	return tour.best
}

// A tour is the addresses tried for one message, and what came of it.
type tour struct {
	addresses int    // that may still be dialled
	sessions  int    // that may still be held
	answered  string // the host that has answered; its other addresses say the same
	final     bool
	best      Outcome
}

func (t *tour) over() bool { return t.final || t.addresses == 0 || t.sessions == 0 }

// note takes the outcome at one address. A final one counts whatever came
// before. Otherwise a deferral outweighs a refusal of our own making, because
// another day another host may answer, and the destination's own words outweigh
// ours.
func (t *tour) note(out Outcome) {
	if out.Step != stepLookup {
		t.addresses--
	}
	if out.Step != stepLookup && out.Step != stepConnect {
		t.sessions--
	}
	if out.Said != nil || out.Result == Refused {
		t.answered = out.Host
	}
	t.final = out.final()
	better := out.Result == Deferred && (t.best.Result != Deferred || out.Said != nil || t.best.Said == nil)
	if t.final || t.best.Result == 0 || better {
		t.best = out
	}
}

// final reports whether no other host may be asked: this one has decided, or
// has had the whole message, so that asking another could make two of it.
func (o Outcome) final() bool {
	return o.Step == stepDot || o.Result == Refused && o.Said != nil
}

// visit tries one address. When TLS cannot be set up there, it is tried once
// more in clear: the peer would have taken clear text from anybody, and no
// policy of its domain asks for more yet (T1, RELIABILITY 84).
func (c *Client) visit(ctx context.Context, t *Transaction, at candidate) Outcome {
	out := Outcome{Host: at.host, Addr: at.addr, Tried: true}
	said, err := c.converse(ctx, t, &out, true)
	if failure := err; errors.Is(err, errHandshake) && ctx.Err() == nil {
		said, err = c.converse(ctx, t, &out, false)
		out.TLSFailure = failure
	}
	return judge(out, said, err)
}

// converse is one connection and one transaction on it. It returns the
// destination's positive answer, or what went wrong, and notes in out how far
// it came.
func (c *Client) converse(ctx context.Context, t *Transaction, out *Outcome, secure bool) (*reply.Reply, error) {
	out.Step = stepConnect
	conn, err := c.dial(ctx, out.Host, out.Addr)
	if err != nil {
		return nil, err
	}
	defer conn.close()
	defer func() { out.Step, out.TLS, out.TLSFailure = conn.step, conn.tls, conn.tlsFailure }()
	if err := conn.open(ctx, secure); err != nil {
		return nil, err
	}
	return conn.send(ctx, t)
}

// record writes the log line of one attempt, a warning when it is about us, and
// returns its outcome.
func (c *Client) record(t *Transaction, began time.Time, out Outcome) Outcome {
	if c.Log == nil {
		return out
	}
	level, words := slog.LevelInfo, out.Reply
	if out.AboutUs {
		level = slog.LevelWarn
	}
	if out.Said != nil {
		words = out.Said
	}
	attrs := []slog.Attr{
		slog.String("id", t.ID), slog.String("to", t.To.String()), slog.String("result", out.Result.String()),
		slog.String("dest", out.Host), slog.Any("peer", out.Addr), slog.String("tls", out.TLS), slog.String("step", out.Step),
		slog.Int("code", words.Code), slog.String("status", words.Status), slog.String("text", words.Text),
		slog.Bool("about_us", out.AboutUs), slog.Duration("took", time.Since(began)),
	}
	if err := out.Reply.Err; err != nil {
		attrs = append(attrs, slog.Any("err", err))
	}
	if out.TLSFailure != nil {
		attrs = append(attrs, slog.Any("tls_err", out.TLSFailure))
	}
	c.Log.LogAttrs(context.Background(), level, "attempt", attrs...)
	return out
}
