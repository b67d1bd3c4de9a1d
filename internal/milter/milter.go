// Package milter shows messages to a mail filter that speaks sendmail's protocol
// for such (libmilter), as Postfix does: clamav-milter and many others.
//
// Check shows the message as it was received, without holding it in memory, and
// returns an Opinion, which is the decision:
//
//	reject, discard           550 5.7.1: nothing disappears (STANDARDS.md P17)
//	temporary failure         451 4.7.1
//	a reply code of its own   the one or the other, in the milter's words
//	quarantine                accepted, and Junk
//	accept, continue          accepted
//
// What it says of one recipient counts for the message. What it would change in
// message or envelope is not changed: the bytes stay as they are. It has to be
// offered all the same, as libmilter ends a conversation in which it is not.
//
// A milter that is away, slow or talks nonsense refuses nothing. That is logged
// once a minute.
package milter

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/filter"
	"onward/internal/message"
	"onward/internal/reply"
)

// Limits of one conversation.
const (
	timeout       = 10 * time.Second // from the first octet to the last
	maxAtOnce     = 50               // connections; further messages wait within the timeout
	maxRecipients = 100              // told to the milter
)

// A Client shows messages to one milter. It is safe for concurrent use, and
// holds nothing that must be closed.
type Client struct {
	network, address string
	hostname         address.Domain // of this server
	log              *slog.Logger
	slots            chan struct{} // one for each connection

	unchecked filter.Unchecked
}

// New returns a Client of the milter at "unix:/run/clamav/clamav-milter.ctl" or
// "127.0.0.1:8891". hostname is the name of this server.
func New(milter string, hostname address.Domain, log *slog.Logger) *Client {
	c := &Client{network: "tcp", address: milter, hostname: hostname, log: log, slots: make(chan struct{}, maxAtOnce)}
	if file, ok := strings.CutPrefix(milter, "unix:"); ok {
		c.network, c.address = "unix", file
	}
	return c
}

// Check shows a message. client is the confirmed name of the client, or empty.
// It returns no later than ctx ends or 10 s are over.
func (c *Client) Check(ctx context.Context, env *message.Envelope, client address.Domain, msg *message.Message) filter.Opinion {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	opinion, err := c.ask(ctx, env, client, msg)
	if err != nil {
		c.failed(env, cmp.Or(ctx.Err(), err)) // the end of ctx closes the connection
		return filter.Opinion{}
	}
	return opinion
}

// ask holds one conversation.
func (c *Client) ask(ctx context.Context, env *message.Envelope, client address.Domain, msg *message.Message) (filter.Opinion, error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return filter.Opinion{}, ctx.Err()
	}
	conn, err := new(net.Dialer).DialContext(ctx, c.network, c.address)
	if err != nil {
		return filter.Opinion{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	d := &dialogue{hostname: c.hostname, r: bufio.NewReader(conn), w: bufio.NewWriter(conn)}
	d.show(env, client, msg)
	if d.err != nil {
		return filter.Opinion{}, d.err
	}
	d.send(quit, nil)
	d.w.Flush() // a courtesy
	return c.opinion(d)
}

// opinion is the decision.
func (c *Client) opinion(d *dialogue) (filter.Opinion, error) {
	permanent, text := d.answer != tempFail, ""
	switch d.answer {
	case goOn, accept:
		if d.quarantined {
			return filter.Opinion{Junk: true, Why: c.name()}, nil
		}
		return filter.Opinion{}, nil
	case replyCode:
		var err error
		if permanent, text, err = words(d.said); err != nil {
			return filter.Opinion{}, err
		}
	}
	r := reply.New(451, "4.7.1", "%s", cmp.Or(text, "not now, please try again later"))
	if permanent {
		r = reply.New(550, "5.7.1", "%s", cmp.Or(text, "a filter refuses this message"))
	}
	return filter.Opinion{Reply: r, Why: c.name()}, nil
}

// words reads a reply such as "554 5.7.1 no", which may have several lines in the
// form of RFC 5321 4.2.1, and each percent sign doubled.
func words(said []byte) (permanent bool, text string, err error) {
	text, _, _ = strings.Cut(string(said), "\x00")
	if text == "" || text[0] != '4' && text[0] != '5' {
		return false, "", fmt.Errorf("it refuses with %.80q", said)
	}
	var texts []string
	for line := range strings.Lines(strings.ReplaceAll(text, "%%", "%")) {
		line = strings.TrimSpace(line)
		if r := reply.Parse(line[:min(len(line), 3)] + " " + line[min(len(line), 4):]); r != nil {
			line = r.Text
		}
		texts = append(texts, line)
	}
	return text[0] == '5', reply.Clean(strings.Join(texts, " ")), nil
}

// failed notes that a message goes on unchecked. The end of the daemon's own patience
// with it says nothing about the milter.
func (c *Client) failed(env *message.Envelope, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	c.unchecked.Add(c.log, c.name(), env, err)
}

// name is how the milter is called in our log: as in the configuration.
func (c *Client) name() string {
	if c.network == "unix" {
		return "milter unix:" + c.address
	}
	return "milter " + c.address
}
