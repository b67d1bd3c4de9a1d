package inbound

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"onward/internal/dnsbl"
	"onward/internal/parallel"
	"onward/internal/reply"
)

// Limits of RELIABILITY.md 5 that have no key in the configuration, and those of
// a Policy that does not say.
const (
	maxCommandLine = 2048
	maxErrors      = 10 // refused commands in one session
	writeTimeout   = time.Minute
	commandTimeout = time.Minute
	stressTimeout  = 10 * time.Second // the same above 80 % of all sessions
	sessionTimeout = 30 * time.Minute
	lingerTimeout  = time.Second
	arrivalTimeout = 3 * time.Second // of an answer, until it is acknowledged
	lingerOctets   = 1 << 20
	maxJunk        = 100  // RSET, NOOP and the like without a message between them, MAIL that is refused too
	maxDeferred    = 1000 // RCPT that are answered 4xx in one session; each is a line in the log and the journal
)

var (
	errLineTooLong = errors.New("line too long")
	errDraining    = errors.New("shutting down")
	errEarly       = errors.New("it spoke before the greeting; if it is a proxy, name it in policy.proxy_protocol_from")
	errCrowdedOut  = errors.New("others find no room, and this client keeps us waiting longest")
)

// A conn is the guarded connection of one client: everything go-smtp reads or
// writes goes through it.
//
// Reading gives go-smtp one command at a time, after the command was parsed
// and checked here; what go-smtp would get wrong is answered here and go-smtp
// never sees it. Addresses never reach it at all: the session takes the parsed
// command from the conn (DEPENDENCIES.md A4). Writing collects the reply until
// the next read, so that pipelined commands are answered in one packet and a
// fixed text of the library can be replaced by ours.
//
// The first error is final. Once reading failed nothing is read again, so the
// rest of a message can never be taken for commands (DEPENDENCIES.md A1).
//
// All methods but interrupt belong to the goroutine of the connection.
type conn struct {
	server *Server
	client netip.Addr
	raw    net.Conn // below TLS
	wire   net.Conn // raw, or TLS over it
	since  time.Time
	log    *slog.Logger

	buf  [2 * maxCommandLine]byte
	rest []byte // received and not yet read
	pass string // the line that go-smtp reads next
	said []byte // go-smtp's reply to it, so far
	ours string // replaces said when that is positive
	out  []byte // replies on their way to the wire

	greeted  bool
	listing  *parallel.Group // asks DNS lists about the client; nil before the first MAIL
	found    dnsbl.Finding   // what they say, when that has ended
	command  command         // the one go-smtp is handling
	helo     string          // the client's name; empty before EHLO and after STARTTLS
	esmtp    bool            // it said EHLO
	tx       *transaction
	errors   int
	junk     int // commands since the last message that lead nowhere
	deferred int // RCPT that were answered 4xx
	messages int
	unheard  string                 // the id of a message whose answer the client may not have heard
	answered atomic.Pointer[string] // the id of the message whose answer was written last
	closing  bool                   // close once out is flushed
	quit     bool                   // the client said QUIT and sends no more
	brief    bool                   // others wait for the room: no farewell
	ended    bool                   // reading failed or is over: nothing is read or sent again
	once     sync.Once

	waiting     atomic.Int64          // since when it is the client's turn, in Unix ns; 0: it is ours
	interrupted atomic.Pointer[error] // set by interrupt
}

func newConn(s *Server, raw net.Conn, client netip.Addr) *conn {
	c := &conn{server: s, client: client, raw: raw, wire: raw, since: time.Now(), log: s.Log.With("peer", client)}
	c.ours = fmt.Sprintf("220 %s ESMTP onward\r\n", s.Policy().Hostname)
	return c
}

// Read implements io.Reader for go-smtp: it returns the next command that is
// for go-smtp to handle.
func (c *conn) Read(p []byte) (int, error) {
	if !c.greeted {
		c.greeted = true
		c.refuseEarly()
	}
	c.settle()
	for c.pass == "" {
		if c.ended {
			return 0, net.ErrClosed
		}
		if err := c.next(); err != nil {
			c.end(err)
		}
	}
	n := copy(p, c.pass)
	c.pass = c.pass[n:]
	return n, nil
}

// refuseEarly greets with a refusal whoever has spoken already (RFC 5321 4.3.1,
// RELIABILITY 9). What sends mail waits for the greeting; what does not is a
// program that listens to nothing, or a proxy that nobody told us of.
func (c *conn) refuseEarly() {
	if c.unread() > 0 {
		c.said = c.said[:0]
		c.end(errEarly)
	}
}

// Write implements io.Writer for go-smtp. Its errors appear at the next read.
func (c *conn) Write(p []byte) (int, error) {
	c.said = append(c.said, p...)
	return len(p), nil
}

// settle takes go-smtp's whole reply, or ours in its place, for sending.
func (c *conn) settle() {
	if len(c.said) == 0 {
		return
	}
	said := string(c.said)
	if c.ours != "" && said[0] == '2' {
		said = c.ours
	}
	c.said, c.ours = c.said[:0], ""
	c.say(said, c.command.verb != "DATA")
}

// answer replies to a command without go-smtp.
func (c *conn) answer(r *reply.Reply) { c.say(r.String()+"\r\n", true) }

// say queues reply lines. 421 closes, as it promises (DEPENDENCIES.md B7);
// so do too many refusals, which count only where they are the client's own
// doing: not what a destination says of a message (DEPENDENCIES.md B8).
func (c *conn) say(lines string, counts bool) {
	c.out = append(c.out, lines...)
	if lines[0] == '5' && counts {
		if c.errors++; c.errors >= c.server.patienceWithErrors() {
			c.out = append(c.out, "421 4.7.0 too many errors, closing\r\n"...)
			c.closing = true
		}
	}
	c.quit = strings.HasPrefix(lines, "221")
	c.closing = c.closing || c.quit || strings.HasPrefix(lines, "421")
}

// next reads one command line and answers it or passes it on.
func (c *conn) next() error {
	line, err := c.readLine()
	if err != nil {
		return err
	}
	if c.isAnswered(c.unheard) { // or the command came ahead of the answer (RFC 2920)
		c.heard(true)
	}
	cmd, err := parseCommand(line)
	if err == nil {
		err = c.dispatch(cmd)
	}
	if err != nil {
		c.answer(reply.From(err))
		c.closing = c.closing || cmd.fatal
	}
	return nil
}

// readLine returns the next line without its CRLF. Replies are sent only when
// there is nothing left to read, which is what makes pipelining pay (RFC 2920).
func (c *conn) readLine() (string, error) {
	defer c.waiting.Store(0)
	for {
		if c.closing {
			return "", net.ErrClosed
		}
		longest := min(cmp.Or(c.server.Policy().Limits.CommandLine, maxCommandLine), maxCommandLine)
		if i := bytes.IndexByte(c.rest, '\n'); i >= 0 && i < longest {
			line := string(c.rest[:i+1])
			c.rest = c.rest[i+1:]
			text, ok := strings.CutSuffix(line, "\r\n")
			if !ok || strings.Contains(text, "\r") {
				return "", reply.New(500, "5.5.2", "lines end in CR LF, and only there")
			}
			return text, nil
		}
		if len(c.rest) >= longest {
			return "", errLineTooLong
		}
		c.waiting.CompareAndSwap(0, time.Now().UnixNano()) // single octets gain no time
		if err := c.fill(c.server.patience()); err != nil {
			return "", err
		}
	}
}

// fill sends what is to be sent and reads more. Less than one command line is
// unread by then, so buf has room for another.
func (c *conn) fill(patience time.Duration) error {
	if err := c.flush(); err != nil {
		return err
	}
	have := copy(c.buf[:], c.rest)
	n, err := c.readWire(c.buf[have:], time.Now().Add(patience))
	c.rest = c.buf[:have+n]
	return err
}

// readWire reads what has arrived, waiting until deadline at the latest.
func (c *conn) readWire(p []byte, deadline time.Time) (int, error) {
	if end := c.since.Add(cmp.Or(c.server.Policy().Limits.SessionTime, sessionTimeout)); deadline.After(end) {
		deadline = end
	}
	c.raw.SetReadDeadline(deadline)
	if why := c.interrupted.Load(); why != nil { // after the deadline is set: see interrupt
		return 0, *why
	}
	n, err := c.wire.Read(p)
	if n > 0 {
		return n, nil
	}
	if why := c.interrupted.Load(); err != nil && why != nil {
		return 0, *why
	}
	return 0, err
}

// waited returns for how long it has been the client's turn. Anybody may ask.
func (c *conn) waited(now time.Time) time.Duration {
	since := c.waiting.Load()
	if since == 0 {
		return 0
	}
	return now.Sub(time.Unix(0, since))
}

// flush puts the collected replies on the wire.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	c.raw.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := c.wire.Write(c.out)
	c.out = c.out[:0]
	if id := c.unheard; err == nil && id != "" {
		c.answered.Store(&id)
	}
	return err
}

// end tells the client why the connection ends, where it can still hear it.
// Every later read gives net.ErrClosed, the one error that makes go-smtp close
// without a word of its own (DEPENDENCIES.md A1).
func (c *conn) end(err error) {
	if c.ended {
		return
	}
	c.brief = errors.Is(err, errCrowdedOut)
	if r := lastWords(err); r != nil {
		c.answer(r)
		c.log.Info("connection ended", "err", err)
	}
	c.flush()
	c.ended = true
}

// lastWords returns the farewell for err, or nil where nobody listens.
func lastWords(err error) *reply.Reply {
	switch r, ok := errors.AsType[*reply.Reply](err); {
	case ok:
		return r
	case errors.Is(err, errLineTooLong):
		return reply.New(500, "5.5.6", "line too long, closing")
	case errors.Is(err, errDraining):
		return reply.New(421, "4.3.2", "shutting down, please come back")
	case errors.Is(err, errEarly):
		return reply.New(554, "5.5.0", "you did not wait for the greeting, closing")
	case errors.Is(err, errCrowdedOut):
		return errFull
	case errors.Is(err, os.ErrDeadlineExceeded):
		return reply.New(421, "4.4.2", "too slow, closing")
	}
	return nil
}

// Close sends the last reply and closes the connection. Where the client may
// still be sending, the reply gets a moment to arrive: closing with octets
// unread makes the kernel reset the connection and throw the reply away.
func (c *conn) Close() error {
	var err error
	c.once.Do(func() {
		c.settle()
		if !c.ended {
			c.flush()
		}
		c.server.clients.leave(c) // before the client can know and come again
		c.heard(c.isAnswered(c.unheard) && c.arrives())
		if half, ok := c.raw.(interface{ CloseWrite() error }); ok && c.tlsState() == nil && !c.quit && !c.brief {
			half.CloseWrite()
			c.raw.SetReadDeadline(time.Now().Add(lingerTimeout))
			io.CopyN(io.Discard, c.raw, lingerOctets)
		}
		err = c.wire.Close()
	})
	return err
}

// interrupt asks the connection to end: at once while it waits for the client,
// after the answer while a message is being delivered (RELIABILITY 85). The
// reason is set before the deadline and readWire looks at them in the other
// order, so one of the two always stops it.
func (c *conn) interrupt(why error) {
	c.interrupted.Store(&why)
	c.raw.SetReadDeadline(time.Unix(1, 0))
}

// hears returns who knows whether the answer to a message has reached the
// client's machine. Whoever hung up before it was sent resets the connection
// instead; whoever vanished acknowledges nothing. Others may ask at any time.
func (c *conn) hears(id string) func() bool {
	return func() bool { return c.isAnswered(id) && c.acknowledged() }
}

// isAnswered reports whether the answer to a message was the last to be written.
func (c *conn) isAnswered(id string) bool {
	last := c.answered.Load()
	return last != nil && *last == id
}

// heard tells the Acceptor whether the client heard its last answer to a
// message: it did when it goes on speaking.
func (c *conn) heard(yes bool) {
	if c.unheard != "" {
		c.server.Acceptor.Answered(c.unheard, yes)
		c.unheard = ""
	}
}

// LocalAddr and RemoteAddr implement net.Conn. The deadlines are not for
// go-smtp to set: one absolute deadline for a whole message cuts slow honest
// senders off (DEPENDENCIES.md A1).
func (c *conn) LocalAddr() net.Addr              { return c.raw.LocalAddr() }
func (c *conn) RemoteAddr() net.Addr             { return c.raw.RemoteAddr() }
func (c *conn) SetDeadline(time.Time) error      { return nil }
func (c *conn) SetReadDeadline(time.Time) error  { return nil }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// tlsState returns the state of the TLS layer, or nil without one.
func (c *conn) tlsState() *tls.ConnectionState {
	t, ok := c.wire.(*tls.Conn)
	if !ok {
		return nil
	}
	state := t.ConnectionState()
	return &state
}
