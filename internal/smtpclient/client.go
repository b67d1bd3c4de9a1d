// Package smtpclient holds the SMTP conversation with destinations: it finds
// the hosts of a target's domain, talks to them, and says what became of one
// message for one target.
//
// Rules for a caller:
//   - Deliver is one attempt: one message, one target, at most five addresses,
//     or MaxHosts of them. It never waits and tries again; that is the queue's
//     business. It may wait for its turn, and it may find that the destination wants
//     to be left alone: then nothing is sent, and Outcome.Tried is false.
//   - All Clients of a process share one Destinations, which outlives them.
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
	"onward/internal/tlspolicy"
)

// maxAddresses is the most addresses tried for one message (RELIABILITY.md 5), where
// MaxHosts is not more.
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

	// Listening are our own listeners. Mail for them comes back to us, also where
	// AllowPrivate lets us dial every other address of this machine.
	Listening []netip.AddrPort

	Relay *Relay // everything goes there; nil: to the hosts of each domain

	MaxHosts int // sessions held for one message; 0 means 2 (RELIABILITY.md 5)
	Timeouts Timeouts

	Destinations *Destinations // shared by all Clients; nil: no limits, no pauses, a connection for each message
	Limits       Limits
	SlotWait     time.Duration // how long an attempt waits for a free slot; 0: until its context ends

	TLS *tlspolicy.Finder // what TLS destinations ask for; nil: whatever their hosts offer

	Log *slog.Logger // one line an attempt; nil means none
}

// Timeouts are for one step each; zero means the default. All but Answer are
// cut short by the end of the context. The defaults are RFC 5321 4.5.3.2's,
// but for Connect, Hello and Answer, which must leave room within a sender's patience
// (RELIABILITY.md 5).
type Timeouts struct {
	Connect time.Duration // TCP connection: 10 s
	Hello   time.Duration // greeting, EHLO and TLS handshake: 15 s, so that a host which hangs leaves time for the next
	Command time.Duration // every other command: 5 min
	Data    time.Duration // the answer to DATA: 2 min, and at most Command
	Reply   time.Duration // a reply's first octet to its last: 30 s (RELIABILITY 64)
	Block   time.Duration // every write of message bytes: 3 min
	Answer  time.Duration // the answer to the final dot: 240 s
}

// QueueTimeouts are for attempts that no sender waits for. They go with MaxHosts
// 5 (RELIABILITY.md 5).
var QueueTimeouts = Timeouts{
	Connect: 30 * time.Second,
	Hello:   5 * time.Minute,
	Command: 5 * time.Minute,
	Data:    2 * time.Minute,
	Reply:   30 * time.Second,
	Block:   3 * time.Minute,
	Answer:  10 * time.Minute,
}

// withDefaults returns t with nothing left at zero.
func (t Timeouts) withDefaults() Timeouts {
	command := cmp.Or(t.Command, 5*time.Minute)
	return Timeouts{
		Connect: cmp.Or(t.Connect, 10*time.Second),
		Hello:   cmp.Or(t.Hello, 15*time.Second),
		Command: command,
		Data:    cmp.Or(t.Data, min(2*time.Minute, command)),
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

	// AnyTLS sends it with whatever TLS there is: it is itself the report that
	// TLS is broken (RFC 8460 3).
	AnyTLS bool

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
	Step    string         // how far it came: "wait", "lookup", "connect", "greeting", "EHLO" ... "dot"

	TLS        string // version and cipher suite; empty in clear
	TLSFailure error  // why it was in clear although TLS was offered

	relayed bool  // the destination is our relay host
	alarm   bool  // about the message, and still worth a warning
	rest    scope // of the pause it led to
}

// Deliver tries the hosts of t.To's domain in their order until one of them
// takes the message or refuses it, and returns the outcome that says most. A
// host without a free slot is passed by as long as another has one. What a host
// refuses by not being there, or not taking such messages, is final only when there
// was room and time to ask the others.
func (c *Client) Deliver(ctx context.Context, t *Transaction) Outcome {
	hosts, mx, err := c.route(ctx, t.To.Domain)
	if err != nil {
		return c.record(t, time.Now(), judge(Outcome{Step: stepLookup, Tried: true}, nil, err))
	}
	turn := c.Destinations.begin(t.To, hosts, c.Limits)
	defer turn.end()
	rules := c.rules(t, mx)
	tour := tour{sessions: cmp.Or(c.MaxHosts, 2), addresses: max(maxAddresses, c.MaxHosts)}
	for len(turn.left) > 0 && !tour.over() {
		began := time.Now()
		host, held := turn.next(ctx, c.SlotWait)
		if held != nil {
			if tour.best.Result != Deferred {
				tour.best = c.record(t, began, held.outcome())
			}
			break
		}
		turn.rules = rules
		c.tryHost(ctx, t, host, turn, &tour)
		if ctx.Err() != nil && tour.best.Result == Deferred {
			break
		}
	}
	if best := &tour.best; best.Result == Refused && best.Said == nil && !tour.final && len(turn.left) > 0 {
		best.Result, best.Reply = Deferred, temporary(best.Reply, "") // a host not asked may yet take it
	}
	return tour.best
}

// rules returns what TLS the destination of t asks for, or nil when that does not
// matter. To a relay host it is the relay's own that does.
func (c *Client) rules(t *Transaction, mx *resolver.Answer) *tlspolicy.Domain {
	if c.TLS == nil || c.Relay != nil || t.AnyTLS {
		return nil
	}
	return c.TLS.Find(t.To.Domain, mx)
}

// tryHost tries the addresses of the host where turn is, until it has answered
// at one of them: at the others it would say the same. A host that its domain's
// policy rules out is passed by (T2, T3).
func (c *Client) tryHost(ctx context.Context, t *Transaction, host string, turn *turn, tour *tour) {
	for addr, err := range c.candidates(ctx, host) {
		began := time.Now()
		out := Outcome{Step: stepLookup, Host: host, Addr: addr, Tried: true, relayed: c.Relay != nil}
		skip := err == nil && turn.rule(ctx, host).Skip != nil
		if skip {
			err = turn.rule(ctx, host).Skip
		}
		switch {
		case err != nil && ctx.Err() != nil && tour.best.Result == Deferred:
			return // time is up: that says nothing about this host
		case err != nil && c.Relay != nil:
			out = judge(out, nil, &trouble{err})
		case err != nil:
			out = judge(out, nil, err)
		default:
			out = turn.learn(c.visit(ctx, t, out, turn), c.Hostname, t.From.Domain.String())
		}
		tour.note(c.record(t, began, out))
		if out.Reply == errOurs {
			tour.final = true // the rest would send it to us (RFC 5321 5.1)
		}
		if tour.over() || ctx.Err() != nil || out.Said != nil || out.Result == Refused || skip {
			return
		}
	}
}

// A tour is the addresses tried for one message, and what came of it.
type tour struct {
	addresses int // that may still be dialled
	sessions  int // that may still be held
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

// visit tries the address in out. When TLS cannot be set up there, and no policy
// asks for it, it is tried once more in clear: the peer would have taken clear
// text from anybody (T1, RELIABILITY 84).
func (c *Client) visit(ctx context.Context, t *Transaction, out Outcome, turn *turn) Outcome {
	said, err := c.converse(ctx, t, &out, turn)
	if errors.Is(err, errHandshake) && c.Relay == nil && ctx.Err() == nil {
		said, err = c.connect(ctx, t, &out, turn, err)
	}
	return judge(out, said, err)
}

// converse holds one transaction, over a connection that is still open from an
// earlier one if it can. That it can not is no failed attempt.
func (c *Client) converse(ctx context.Context, t *Transaction, out *Outcome, turn *turn) (*reply.Reply, error) {
	if conn := turn.reuse(c.key(out.Addr, turn.rule(ctx, out.Host))); conn != nil {
		conn.again(ctx, c.Timeouts.withDefaults())
		said, stale, err := c.transact(ctx, t, out, turn, conn)
		if end, ok := ctx.Deadline(); !stale || ctx.Err() != nil || ok && !time.Now().Before(end) {
			return said, err
		}
	}
	return c.connect(ctx, t, out, turn, nil)
}

// connect opens a connection for one transaction, in clear if tlsFailure says
// why TLS is not to be had.
func (c *Client) connect(ctx context.Context, t *Transaction, out *Outcome, turn *turn, tlsFailure error) (*reply.Reply, error) {
	if c.ourselves(ctx, out.Addr) {
		return nil, errOurs
	}
	out.Step = stepConnect
	conn, err := c.dial(ctx, out.Addr, turn.rule(ctx, out.Host))
	if err != nil {
		return nil, err
	}
	conn.tlsFailure = tlsFailure
	if err := conn.open(ctx); err != nil {
		conn.report(out)
		conn.close()
		return nil, err
	}
	said, _, err := c.transact(ctx, t, out, turn, conn)
	return said, err
}

// transact holds one transaction on conn, and leaves conn for the next one or
// ends it. It returns the destination's positive answer, or what went wrong and
// whether that says more of the connection than of the message, and notes in out
// how far it came. From then on conn is another's.
func (c *Client) transact(ctx context.Context, t *Transaction, out *Outcome, turn *turn, conn *conn) (said *reply.Reply, stale bool, err error) {
	again := false
	defer func() {
		conn.report(out)
		if again {
			turn.keep(conn)
		} else {
			conn.close()
		}
	}()
	said, err = conn.send(ctx, t)
	stale = conn.stale(err)
	again = turn.d != nil && conn.finish(ctx, err)
	return said, stale, err
}

// key returns what a connection to addr has to have been opened with.
func (c *Client) key(addr netip.AddrPort, rule *tlspolicy.Rule) connKey {
	return connKey{addr: addr, source: c.Source, hello: c.Hostname, relay: c.Relay.account(), tls: rule.Key}
}

// record writes the log line of one attempt, a warning when it is about us, and
// returns its outcome.
func (c *Client) record(t *Transaction, began time.Time, out Outcome) Outcome {
	if c.Log == nil {
		return out
	}
	level, words := slog.LevelInfo, out.Reply
	if out.AboutUs || out.alarm {
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
