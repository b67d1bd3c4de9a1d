package testmail

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// clientPatience is how long a sender waits for an answer. The daemon promises
// 280 s (DESIGN.md 9.1); RFC 5321 4.5.3.2.6 asks for 600 s.
const clientPatience = 5 * time.Minute

// Send makes one try at one message, on a connection of its own. What the message
// says of its author is the caller's business; octets end in CRLF.
func (w *Writer) Send(ctx context.Context, addr, from string, to []string, octets []byte) Try {
	c, t, err := newClient(ctx, addr, w)
	defer c.close()
	if err == nil {
		t, err = c.transact(from, to, octets)
	}
	if err != nil && t.Code == 0 {
		t.Text = fmt.Sprintf("%s: %v", t.Text, err)
	}
	return t
}

// A client is one connection of a Writer to the daemon. It ends with the context
// it was made with.
type client struct {
	addr string
	conn net.Conn
	r    *bufio.Reader
	stop func() bool // stops waiting for the context
}

// newClient connects and says EHLO. On an error there may be a client, to be
// closed.
func newClient(ctx context.Context, addr string, w *Writer) (*client, Try, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: w.Client.AsSlice()}, Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, Try{Text: "no connection"}, err
	}
	c := &client{addr: addr, conn: conn, r: bufio.NewReader(conn)}
	c.stop = context.AfterFunc(ctx, func() { conn.Close() })
	code, text, err := c.read(220)
	if err == nil {
		code, text, err = c.say(250, "EHLO "+w.Helo)
	}
	if err == nil && code != 250 {
		err = errors.New(text)
	}
	return c, Try{Code: code, Text: text}, err
}

func (c *client) close() {
	if c != nil {
		c.stop()
		c.conn.Close()
	}
}

// transact is one transaction. An error means that the connection is of no more
// use.
func (c *client) transact(from string, to []string, octets []byte) (Try, error) {
	t := Try{Refused: map[string]int{}}
	var err error
	if t.Code, t.Text, err = c.say(250, "MAIL FROM:<"+from+"> BODY=8BITMIME"); err != nil || t.Code != 250 {
		return t, c.after(err)
	}
	for _, recipient := range to {
		code, text, err := c.say(250, "RCPT TO:<"+recipient+">")
		switch {
		case err != nil:
			t.Code, t.Text = code, text
			return t, err
		case code == 250:
			t.Recipients = append(t.Recipients, recipient)
		default:
			t.Refused[recipient] = code
			t.Code, t.Text = code, text
		}
	}
	if len(t.Recipients) == 0 {
		return t, c.after(nil)
	}
	if t.Code, t.Text, err = c.say(354, "DATA"); err != nil || t.Code != 354 {
		return t, c.after(err)
	}
	t.Code, t.Text = 0, "in the message"
	c.conn.SetDeadline(time.Now().Add(clientPatience))
	if _, err = c.conn.Write(stuffed(octets)); err != nil {
		return t, err
	}
	t.Dot, t.Text = true, "after the dot"
	if _, err = io.WriteString(c.conn, ".\r\n"); err != nil {
		return t, err
	}
	code, text, err := c.read(250)
	if code != 0 {
		t.Code, t.Text = code, text
	}
	return t, err
}

// after clears the way for the next transaction after a command was not
// answered as it should be.
func (c *client) after(err error) error {
	if err != nil {
		return err
	}
	code, text, err := c.say(250, "RSET")
	if err == nil && code != 250 {
		err = fmt.Errorf("after RSET: %s", text)
	}
	return err
}

// stuffed doubles the dots at the beginnings of lines.
func stuffed(octets []byte) []byte {
	s := bytes.ReplaceAll(octets, []byte("\r\n."), []byte("\r\n.."))
	if bytes.HasPrefix(s, []byte(".")) {
		s = slices.Insert(slices.Clone(s), 0, '.')
	}
	return s
}

// say sends a command and reads its answer; see read.
func (c *client) say(want int, line string) (int, string, error) {
	c.conn.SetDeadline(time.Now().Add(clientPatience))
	if _, err := io.WriteString(c.conn, line+"\r\n"); err != nil {
		return 0, "at " + line, err
	}
	code, text, err := c.read(want)
	if code == 0 {
		text = "after " + line
	}
	return code, text, err
}

// read reads one reply. What is no reply, and 421 where something else is wanted,
// is an error: the connection is over.
func (c *client) read(want int) (code int, text string, err error) {
	c.conn.SetDeadline(time.Now().Add(clientPatience))
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return 0, "", err
		}
		line = strings.TrimSuffix(line, "\r\n")
		code, err = strconv.Atoi(line[:min(3, len(line))])
		if err != nil {
			return 0, "", fmt.Errorf("no reply: %q", line)
		}
		if text = line; len(line) < 4 || line[3] != '-' {
			break
		}
	}
	if code == 421 || want == 220 && code != 220 {
		return code, text, fmt.Errorf("%s", text)
	}
	return code, text, nil
}
