package smtpclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"onward/internal/dialguard"
	"onward/internal/reply"
	"onward/internal/tlspolicy"
)

// The steps of an attempt, as in Outcome.Step.
const (
	stepWait     = "wait" // for a slot, or for the end of a pause
	stepLookup   = "lookup"
	stepConnect  = "connect"
	stepTLS      = "TLS" // before the greeting of a relay host
	stepGreeting = "greeting"
	stepEHLO     = "EHLO"
	stepSTARTTLS = "STARTTLS"
	stepAUTH     = "AUTH" // to a relay host
	stepMAIL     = "MAIL"
	stepRCPT     = "RCPT"
	stepDATA     = "DATA"
	stepBody     = "body" // the message, up to its last block
	stepDot      = "dot"  // the final dot has been sent
)

// errHandshake means that STARTTLS was agreed and TLS did not come about.
var errHandshake = errors.New("TLS handshake")

// A conn is one connection to a destination. It knows nothing of messages but
// for the one transaction that send holds on it at a time.
//
// Every read and write has its own deadline (DEPENDENCIES.md A5), and the end
// of the context given to open ends whatever is going on, until commit.
type conn struct {
	tcp      net.Conn // the connection itself
	stream   net.Conn // what we speak on: tcp, or TLS over it
	r        *bufio.Reader
	key      connKey
	hostname string          // ours
	rule     *tlspolicy.Rule // what TLS the peer must offer; not a relay host
	relay    *Relay          // the peer is this one; nil: a mail host of a domain
	times    Timeouts

	extensions map[string]string // EHLO keyword in upper case, to its parameters
	tls        string
	step       string
	tlsFailure error
	owed       int    // replies the peer still owes us; from 354 on, the one to the dot
	commit     func() // from here on the end of the context does not matter

	messages int           // begun on this connection
	reused   bool          // not opened for the transaction at hand
	accepted bool          // MAIL of the transaction at hand was
	refused  bool          // the transaction before it was: RSET comes first
	rested   chan struct{} // closed when the watcher of the pool has left
	silent   bool          // the peer said nothing while it watched
}

// dial connects to one address. Its errors are temporary: the guard's too,
// because an address of nobody is a fault in the destination's DNS that may be
// mended, or in our own resolver, and no mail should bounce for either.
func (c *Client) dial(ctx context.Context, to netip.AddrPort, rule *tlspolicy.Rule) (*conn, error) {
	times := c.Timeouts.withDefaults()
	d := net.Dialer{Timeout: times.Connect}
	if c.Source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.Source, 0))
	}
	tcp, err := dialguard.Guard{AllowPrivate: c.AllowPrivate || c.Relay != nil}.Dial(ctx, d, to)
	switch {
	case errors.Is(err, dialguard.ErrPrivate), errors.Is(err, dialguard.ErrOwn):
		return nil, &reply.Reply{Code: 451, Status: "4.4.4", Text: "the destination's address is not a public one", Err: err}
	case err != nil:
		return nil, &reply.Reply{Code: 451, Status: "4.4.1", Text: "the destination cannot be reached just now", Err: err}
	}
	return &conn{
		tcp: tcp, stream: tcp, r: bufio.NewReaderSize(tcp, maxReplyLine),
		key: c.key(to, rule), hostname: c.Hostname, rule: rule, relay: c.Relay, times: times,
		step: stepGreeting, owed: 1, commit: func() {},
	}, nil
}

// open hears the greeting, introduces us, and turns TLS on where it is offered
// and has not failed before. A relay host has to offer it, and is told who we
// are.
func (c *conn) open(ctx context.Context) error {
	c.watch(ctx)
	if c.relay != nil {
		return c.openRelay(ctx)
	}
	if err := c.greeting(ctx); err != nil {
		return err
	}
	if c.tlsFailure != nil {
		return nil
	}
	if _, ok := c.extensions["STARTTLS"]; !ok {
		return c.withoutTLS(tlspolicy.ErrNotOffered)
	}
	return c.startTLS(ctx)
}

// greeting hears the greeting and introduces us.
func (c *conn) greeting(ctx context.Context) error {
	c.step = stepGreeting
	if a, err := c.read(ctx, c.times.Hello); err != nil {
		return err
	} else if err := a.want(220); err != nil {
		return err
	}
	return c.hello(ctx)
}

// report notes in out how far the connection has come.
func (c *conn) report(out *Outcome) {
	out.Step, out.TLS, out.TLSFailure = c.step, c.tls, c.tlsFailure
}

// watch makes the end of ctx end every read and write, now or later, until
// commit. After commit returns, ctx cannot touch the deadlines again.
func (c *conn) watch(ctx context.Context) {
	touched := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(touched)
		c.tcp.SetDeadline(time.Unix(1, 0))
	})
	c.commit = sync.OnceFunc(func() {
		if !stop() {
			<-touched
		}
	})
}

// hello sends EHLO, or HELO to a server so old that it refuses EHLO (RFC 5321
// 3.2, 4.1.1.1), and learns the extensions. It is always our own name we give,
// before and after STARTTLS (DEPENDENCIES.md B9).
func (c *conn) hello(ctx context.Context) error {
	c.step, c.extensions = stepEHLO, nil
	a, err := c.command(ctx, "EHLO "+c.hostname)
	if err != nil {
		return err
	}
	if a.code/100 != 5 {
		c.extensions = a.extensions()
		return a.want(250)
	}
	if a, err = c.command(ctx, "HELO "+c.hostname); err != nil {
		return err
	}
	return a.want(250)
}

// withoutTLS returns nil when the peer may have the message in clear; why says
// why there is no TLS.
func (c *conn) withoutTLS(why error) error {
	if c.relay != nil {
		return nil
	}
	c.rule.Went(c.tcp, nil, why)
	if no := c.rule.Refuse(why); no != nil {
		return no
	}
	return nil
}

// startTLS turns TLS on (RFC 3207). A peer that offers it and then refuses gets
// clear text, unless it is a relay host or its domain requires TLS.
func (c *conn) startTLS(ctx context.Context) error {
	c.step = stepSTARTTLS
	a, err := c.command(ctx, "STARTTLS")
	if err != nil {
		return err
	}
	if c.r.Buffered() > 0 {
		// Somebody in between wants these read as if TLS had protected them
		// (RELIABILITY 7). Nothing on this connection can be trusted.
		return nonsense("the peer sent octets between its STARTTLS reply and TLS")
	}
	if a.code == 421 {
		return &refusal{a.reply()}
	}
	if c.tlsFailure = a.want(220); c.tlsFailure != nil {
		return c.withoutTLS(fmt.Errorf("%w: %v", tlspolicy.ErrNotOffered, c.tlsFailure))
	}
	if err := c.handshake(ctx); err != nil {
		return err
	}
	return c.hello(ctx) // what was offered in clear counts for nothing (RFC 3207 4.2)
}

// handshake puts TLS over the connection. Without a policy of the destination the
// certificate of a mail host is not looked at: anybody could as well have removed
// STARTTLS from its offer.
func (c *conn) handshake(ctx context.Context) error {
	config := c.rule.Config()
	if c.relay != nil {
		config = &tls.Config{ServerName: c.relay.certified(), MinVersion: tls.VersionTLS12, RootCAs: c.relay.RootCAs}
	}
	stream := tls.Client(c.tcp, config)
	if err := c.arm(ctx, c.times.Hello); err != nil {
		return broken(err)
	}
	c.owed++ // a handshake; without it there is nobody to say QUIT to
	if err := stream.Handshake(); err != nil {
		if ctx.Err() == nil {
			if err := c.withoutTLS(err); err != nil {
				return err
			}
		}
		return broken(fmt.Errorf("%w: %w", errHandshake, err))
	}
	c.owed--
	state := stream.ConnectionState()
	if c.relay == nil {
		c.rule.Went(c.tcp, &state, nil)
	}
	c.tls = tls.VersionName(state.Version) + " " + tls.CipherSuiteName(state.CipherSuite)
	c.stream = stream
	c.r.Reset(stream)
	return nil
}

// command sends one command line before the transaction and reads its reply.
func (c *conn) command(ctx context.Context, line string) (answer, error) {
	if err := c.say(ctx, line); err != nil {
		return answer{}, err
	}
	return c.read(ctx, c.times.Hello)
}

// say sends command lines in one write. Each is owed a reply.
func (c *conn) say(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return reply.Trouble(fmt.Errorf("control character in command %q", line)) // P1
		}
	}
	c.owed += len(lines)
	_, err := c.write(ctx, c.times.Command, []byte(strings.Join(lines, "\r\n")+"\r\n"))
	return err
}

// write sends p within d. A peer that has already answered what we are about to
// say is out of step, and its next answers would be taken for the wrong ones.
func (c *conn) write(ctx context.Context, d time.Duration, p []byte) (int, error) {
	if c.r.Buffered() > 0 {
		return 0, nonsense("the peer answered before it was asked")
	}
	if err := c.arm(ctx, d); err != nil {
		return 0, broken(err)
	}
	n, err := c.stream.Write(p)
	if err != nil {
		return n, broken(err)
	}
	return n, nil
}

// read returns the next reply, which has to begin within d and to end within
// times.Reply of that (RELIABILITY 64).
func (c *conn) read(ctx context.Context, d time.Duration) (answer, error) {
	if err := c.arm(ctx, d); err != nil {
		return answer{}, broken(err)
	}
	if _, err := c.r.Peek(1); err != nil {
		return answer{}, broken(err)
	}
	if err := c.arm(ctx, c.times.Reply); err != nil {
		return answer{}, broken(err)
	}
	a, err := readAnswer(c.r)
	if err != nil {
		return answer{}, err
	}
	c.owed--
	return a, nil
}

// arm sets the deadline of what comes next: in d, or at the end of ctx. The
// context is looked at after that, so that the deadline watch sets in the past
// is never put off.
func (c *conn) arm(ctx context.Context, d time.Duration) error {
	deadline := time.Now().Add(d)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	if err := c.tcp.SetDeadline(deadline); err != nil {
		return err
	}
	return ctx.Err()
}

// close ends the connection. Where the peer owes us nothing it is told, and not
// listened to. Otherwise, and so always inside a message, nothing is said and
// the connection is reset: not even a server that takes the end of a connection
// for the end of a message may believe that it has all of it (DEPENDENCIES.md
// A2).
func (c *conn) close() {
	c.commit()
	if c.owed == 0 {
		c.tcp.SetDeadline(time.Now().Add(time.Second))
		c.stream.Write([]byte("QUIT\r\n"))
	} else if tcp, ok := c.tcp.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.tcp.Close()
}
