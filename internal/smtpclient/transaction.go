package smtpclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"onward/internal/reply"
)

// dot ends a message (RFC 5321 4.1.1.4). The CRLF before it is the message's own.
const dot = ".\r\n"

// send holds one transaction. It returns the answer to the final dot when that
// is positive, and an error in every other case.
func (c *conn) send(ctx context.Context, t *Transaction) (*reply.Reply, error) {
	mail, err := c.mail(t)
	if err != nil {
		return nil, err
	}
	if err := c.envelope(ctx, mail, "RCPT TO:<"+t.To.String()+">"); err != nil {
		return nil, err
	}
	if err := c.body(ctx, t); err != nil {
		return nil, err
	}
	return c.verdict(ctx)
}

// mail returns the MAIL command. What this host cannot take is refused here and
// never sent: too large (RFC 1870), eight bits (DESIGN.md 9.1: converting would
// break signatures), UTF-8 (RFC 6531). Another host of the domain may still be
// able to.
func (c *conn) mail(t *Transaction) (string, error) {
	line := "MAIL FROM:<" + t.From.String() + ">"
	if limit, ok := c.extensions["SIZE"]; ok {
		if n, err := strconv.ParseInt(limit, 10, 64); err == nil && n > 0 && t.Size > n {
			return "", reply.New(552, "5.3.4", "message of %d octets is larger than the destination takes (%d)", t.Size, n)
		}
		line += " SIZE=" + strconv.FormatInt(t.Size, 10)
	}
	if t.EightBit {
		if _, ok := c.extensions["8BITMIME"]; !ok {
			return "", reply.New(554, "5.6.3", "the destination does not take 8-bit messages, and this one is")
		}
		line += " BODY=8BITMIME"
	}
	if t.UTF8 || !t.From.IsASCII() || !t.To.IsASCII() {
		if _, ok := c.extensions["SMTPUTF8"]; !ok {
			return "", reply.New(550, "5.6.7", "the destination does not take internationalised addresses or header fields")
		}
		line += " SMTPUTF8"
	}
	return line, nil
}

// envelope sends MAIL, RCPT and DATA, in one write where the peer takes that
// (RFC 2920), and returns nil after 354. The first answer that is not as it
// should be decides. Later ones are then not waited for and the connection is
// given up: DATA may be answered 354 all the same, and the lone dot of RFC 2920
// 3.1 would be an empty message to some servers.
func (c *conn) envelope(ctx context.Context, mail, rcpt string) error {
	commands := []command{
		{stepMAIL, mail, 250, c.times.Command},
		{stepRCPT, rcpt, 250, c.times.Command},
		{stepDATA, "DATA", 354, c.times.Data},
	}
	if c.refused {
		// Some servers keep what they refused until they are told.
		commands = slices.Insert(commands, 0, command{stepMAIL, "RSET", 250, c.times.Command})
	}
	if c.reused {
		commands[0].wait = c.times.Hello // as for a greeting: is anybody there still?
	}
	c.messages++
	_, pipelining := c.extensions["PIPELINING"]
	if pipelining {
		if err := c.say(ctx, lines(commands)...); err != nil {
			return err
		}
	}
	for _, cmd := range commands {
		c.step = cmd.step
		if !pipelining {
			if err := c.say(ctx, cmd.line); err != nil {
				return err
			}
		}
		a, err := c.read(ctx, cmd.wait)
		if err != nil {
			return err
		}
		if err := a.want(cmd.code); err != nil {
			return err
		}
		c.accepted = c.accepted || cmd.line == mail
	}
	c.owed++ // 354 was half an answer
	return nil
}

// A command is a command line with the answer due to it.
type command struct {
	step, line string
	code       int
	wait       time.Duration
}

func lines(commands []command) []string {
	all := make([]string, len(commands))
	for i, cmd := range commands {
		all[i] = cmd.line
	}
	return all
}

// stale reports whether err says more of the connection than of the message: it
// is not new, and MAIL was not accepted on it. Servers end it without a word, or
// answer that it has had enough messages. Only a rate limit is as good on it as
// on a new one.
func (c *conn) stale(err error) bool {
	if err == nil || !c.reused || c.accepted {
		return false
	}
	if no, ok := errors.AsType[*refusal](err); ok {
		return verdictOn(stepMAIL, no.said, c.relay != nil).rest == nobody
	}
	return !reply.From(err).Permanent() // our own refusal to send what the peer does not take
}

// finish reports, after a transaction that ended with err, whether another can
// be held on the connection. It has to be at rest for that: a refusal of MAIL or
// RCPT leaves answers behind that are due already. After 354 or a failure inside
// the message nothing but a reset will do (DEPENDENCIES.md A2).
func (c *conn) finish(ctx context.Context, err error) bool {
	no, refused := errors.AsType[*refusal](err)
	switch {
	case c.messages >= c.mostMessages(), c.reused && !c.accepted, err != nil && !refused, refused && no.said.Code == 421:
		return false
	case c.tlsFailure != nil: // the next one may have more luck
		return false
	case c.step != stepMAIL && c.step != stepRCPT && c.step != stepDATA && c.step != stepDot:
		return false
	}
	for c.owed > 0 {
		a, err := c.read(ctx, min(time.Second, c.times.Command))
		if err != nil {
			return false
		}
		if a.code < 400 || a.code == 421 {
			c.owed++ // 354 above all: QUIT would be a message
			return false
		}
	}
	c.refused = refused
	c.commit()
	return c.r.Buffered() == 0
}

// mostMessages returns how many messages may be begun on the connection
// (RFC 9422 3.1: MAILMAX counts MAIL commands).
func (c *conn) mostMessages() int {
	for limit := range strings.FieldsSeq(strings.ToUpper(c.extensions["LIMITS"])) {
		if value, ok := strings.CutPrefix(limit, "MAILMAX="); ok {
			if n, err := strconv.Atoi(value); err == nil {
				return min(n, maxMessages)
			}
		}
	}
	return maxMessages
}

// blocks are the buffers of one message on its way out.
type blocks struct {
	in  [32 << 10]byte
	out [64<<10 + len(dot)]byte
}

var blockPool = sync.Pool{New: func() any { return new(blocks) }}

// body sends the message and the final dot. The last block and the dot go out
// in one write, after everything about the message has been checked. When that
// write ends, the destination may have the message, and ctx matters no more.
func (c *conn) body(ctx context.Context, t *Transaction) error {
	c.step = stepBody
	b := blockPool.Get().(*blocks)
	defer blockPool.Put(b)
	message := &counter{r: io.LimitReader(t.Open(), t.Size+1)}
	rest, err := b.stuff(message, func(p []byte) error {
		if _, err := c.write(ctx, c.times.Block, p); err != nil {
			return c.early(ctx, err)
		}
		return nil
	})
	if err == nil && message.n != t.Size {
		err = reply.Trouble(fmt.Errorf("message has %d octets or more, not %d", message.n, t.Size))
	}
	if err != nil {
		return err
	}
	p := append(rest, dot...)
	n, err := c.write(ctx, c.times.Block, p)
	if err != nil && n <= len(p)-len(dot) {
		return c.early(ctx, err) // nothing of the dot has left: TCP and TLS count what they sent
	}
	c.step = stepDot
	c.commit()
	if err != nil {
		return &unanswered{err}
	}
	return nil
}

// early returns what the peer said while we were sending, if that is why
// sending failed: some refuse a large message half way and hang up. Only a
// refusal counts; nobody can take a message before its end.
func (c *conn) early(ctx context.Context, err error) error {
	c.owed++ // whatever it says now, the message is not at its end
	a, readErr := c.read(ctx, min(time.Second, c.times.Command))
	if readErr != nil || a.code < 400 {
		return err
	}
	return &refusal{a.reply()}
}

// verdict reads the answer to the final dot. Anything but a clear yes or no
// leaves us not knowing who has the message (RELIABILITY 2.2).
func (c *conn) verdict(ctx context.Context) (*reply.Reply, error) {
	a, err := c.read(context.WithoutCancel(ctx), c.times.Answer)
	if err != nil {
		return nil, &unanswered{err}
	}
	switch a.code / 100 {
	case 2:
		return a.reply(), nil
	case 3:
		return nil, &unanswered{a.want(250)}
	}
	return nil, &refusal{a.reply()}
}

// unanswered means that the final dot was sent and that err came instead of an
// answer.
type unanswered struct{ err error }

func (u *unanswered) Error() string { return "no answer to the final dot: " + u.err.Error() }
func (u *unanswered) Unwrap() error { return u.err }

// A counter counts what is read through it.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
