package inbound

import (
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"onward/internal/reply"
)

// errPipelined ends a connection whose client did not wait where it must
// (RFC 2920 3.1): its next octets may be meant for another listener.
var errPipelined = reply.New(554, "5.5.0", "you did not wait for the reply, closing")

// dispatch does one well-formed command: it answers alone, or hands go-smtp
// the plain form of it. A command out of order never reaches go-smtp, whose
// own state therefore always agrees with ours.
func (c *conn) dispatch(cmd command) error {
	c.command = cmd
	switch cmd.verb {
	case "RCPT", "DATA", "QUIT":
	default: // MAIL is forgiven when it begins a message
		if c.junk++; c.junk > maxJunk {
			return reply.New(421, "4.7.0", "too many commands without a message, closing")
		}
	}
	switch cmd.verb {
	case "EHLO", "HELO":
		return c.greet(cmd)
	case "STARTTLS":
		return c.startTLS()
	case "MAIL":
		return c.mail(cmd)
	case "RCPT":
		return c.rcpt()
	case "DATA":
		return c.data()
	case "RSET", "NOOP", "QUIT":
		c.pass = cmd.verb + "\r\n"
	case "VRFY":
		c.answer(reply.New(252, "2.5.0", "cannot verify, but will take the message"))
	case "HELP":
		c.answer(reply.New(214, "2.0.0", "this is onward, a mail forwarder; write to postmaster"))
	}
	return nil
}

// greet answers EHLO and HELO (RFC 5321 4.1.1.1), which also begin afresh.
func (c *conn) greet(cmd command) error {
	if len(c.rest) > 0 {
		c.closing = true
		return errPipelined
	}
	c.helo, c.esmtp = cmd.arg, cmd.verb == "EHLO"
	lines := []string{c.server.Policy().Hostname.String()}
	if c.esmtp {
		lines = append(lines, c.extensions()...)
	}
	var b strings.Builder
	for _, line := range lines[:len(lines)-1] {
		fmt.Fprintf(&b, "250-%s\r\n", line)
	}
	fmt.Fprintf(&b, "250 %s\r\n", lines[len(lines)-1])
	c.ours = b.String()
	c.pass = "EHLO client\r\n"
	return nil
}

// extensions lists what EHLO offers. CHUNKING is not among them: its octets
// would need line checks of their own, and no sender needs it (RELIABILITY 10,
// DEPENDENCIES.md B2, B3).
func (c *conn) extensions() []string {
	list := []string{
		"PIPELINING",
		fmt.Sprintf("SIZE %d", c.server.Policy().Limits.Message),
		"8BITMIME",
		"SMTPUTF8",
		"ENHANCEDSTATUSCODES",
	}
	if c.tlsState() == nil {
		list = append(list, "STARTTLS")
	}
	return list
}

// startTLS changes to TLS (RFC 3207). Octets that came with the command in the
// clear are an attack (RELIABILITY 6); a failed handshake leaves nothing to go
// on with. All that was said before is forgotten.
func (c *conn) startTLS() error {
	if c.tlsState() != nil {
		return reply.New(503, "5.5.1", "TLS is already on")
	}
	if len(c.rest) > 0 {
		c.closing = true
		return errPipelined
	}
	c.answer(reply.New(220, "2.0.0", "go ahead"))
	if err := c.flush(); err != nil {
		return err
	}
	secure := tls.Server(c.raw, c.server.Policy().TLS)
	c.raw.SetDeadline(time.Now().Add(c.server.patience()))
	c.waiting.Store(time.Now().UnixNano())
	defer c.waiting.Store(0)
	if c.interrupted.Load() != nil { // after the deadline is set: see interrupt
		c.closing = true // the client hears nothing but TLS now
		return nil
	}
	if err := secure.Handshake(); err != nil {
		c.log.Info("TLS handshake failed", "err", err)
		c.closing = true
		c.out = nil
		return nil
	}
	c.wire = secure
	c.helo = ""
	c.endTransaction()
	return nil
}

// mail begins a transaction. The session decides; go-smtp sees a null sender.
func (c *conn) mail(cmd command) error {
	limits := c.server.Policy().Limits
	switch {
	case c.helo == "":
		return reply.New(503, "5.5.1", "say EHLO first")
	case c.tx != nil:
		return reply.New(503, "5.5.1", "a message is already begun") // DEPENDENCIES.md B1
	case limits.Message > 0 && cmd.size > limits.Message:
		return errTooLarge(limits.Message)
	case over(c.server.inFlight.Load()+cmd.size, limits.InFlight):
		return errNoRoom(nil)
	case limits.Messages > 0 && c.messages >= limits.Messages:
		return reply.New(421, "4.7.0", "%d messages are enough for one connection, please connect again", c.messages)
	}
	c.ours = "250 2.1.0 sender ok\r\n"
	c.pass = "MAIL FROM:<>\r\n"
	return nil
}

// rcpt names a recipient. The session decides; go-smtp sees a stand-in.
func (c *conn) rcpt() error {
	if c.tx == nil {
		return reply.New(503, "5.5.1", "say MAIL first")
	}
	c.ours = "250 2.1.5 recipient ok\r\n"
	c.pass = "RCPT TO:<stand@in>\r\n"
	return nil
}

// data begins the message itself; see receive.
func (c *conn) data() error {
	switch {
	case len(c.rest) > 0:
		c.closing = true
		return errPipelined
	case c.tx == nil:
		return reply.New(503, "5.5.1", "say MAIL first")
	case len(c.tx.recipients) == 0:
		return reply.New(554, "5.5.1", "no valid recipient")
	}
	c.pass = "DATA\r\n"
	return nil
}

func errTooLarge(limit int64) *reply.Reply {
	return reply.New(552, "5.3.4", "message is larger than %d octets", limit)
}
