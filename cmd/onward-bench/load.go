package main

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A load is a number of clients that send letters as fast as they are answered.
type load struct {
	addr       string
	letters    []*letter
	sessions   int
	perSession int // messages before a client says QUIT and connects anew
}

// An answer is how the sending of one letter ended.
type answer struct {
	code  int           // of the final answer; 0 without one
	text  string        // of an answer that is not 2xx, or the error
	began time.Time     // when the letter was about to be written, after 354
	took  time.Duration // from there to the answer
}

// run sends every letter once, and returns the answers in the order of letters.
func (l *load) run(ctx context.Context) []answer {
	answers := make([]answer, len(l.letters))
	var next atomic.Int64
	var wg sync.WaitGroup
	for n := range l.sessions {
		wg.Go(func() {
			c := &client{addr: l.addr, ip: clientIP(n % clientIPs)}
			defer c.quit()
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(l.letters) {
					return
				}
				answers[i] = c.send(l.letters[i])
				if c.sent >= l.perSession {
					c.quit()
				}
			}
		})
	}
	wg.Wait()
	return answers
}

// A client is one sender, which has a connection most of the time.
type client struct {
	addr string
	ip   net.IP
	conn net.Conn
	r    *bufio.Reader
	sent int // on this connection
}

// patience is how long a client waits for one answer.
const patience = 2 * time.Minute

// send sends one letter, on a new connection if there is none, or if the server
// has closed the old one since the last letter.
func (c *client) send(l *letter) answer {
	old := c.conn != nil
	a, err := c.transact(l)
	if err != nil && old && a.code == 0 && a.began.IsZero() {
		c.drop()
		a, err = c.transact(l)
	}
	if err != nil {
		a.text = err.Error()
		c.drop()
	}
	return a
}

func (c *client) transact(l *letter) (a answer, err error) {
	if c.conn == nil {
		if err := c.connect(); err != nil {
			return a, err
		}
	}
	c.sent++
	c.conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c.conn, "MAIL FROM:<%s> SIZE=%d\r\nRCPT TO:<%s>\r\nDATA\r\n", l.from, l.size(), l.to); err != nil {
		return a, err
	}
	for range 2 {
		code, text, err := c.read()
		if err != nil {
			return a, err
		}
		if code/100 != 2 && a.code == 0 {
			a.code, a.text = code, text
		}
	}
	code, text, err := c.read()
	if err != nil {
		return a, err
	}
	if a.code != 0 || code != 354 {
		if a.code == 0 {
			a.code, a.text = code, text
		}
		c.drop()
		return a, nil
	}
	a.began = time.Now()
	octets := net.Buffers{l.header, l.body, []byte(".\r\n")}
	if _, err := octets.WriteTo(c.conn); err != nil {
		return a, err
	}
	a.code, a.text, err = c.read()
	a.took = time.Since(a.began)
	return a, err
}

// connect connects and says EHLO.
func (c *client) connect() error {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: c.ip}, Timeout: patience}
	conn, err := dialer.Dial("tcp", c.addr)
	if err != nil {
		return err
	}
	c.conn, c.r, c.sent = conn, bufio.NewReader(conn), 0
	c.conn.SetDeadline(time.Now().Add(patience))
	if code, text, err := c.read(); err != nil || code != 220 {
		return fmt.Errorf("greeting: %s, %v", text, err)
	}
	fmt.Fprintf(c.conn, "EHLO c%d.writer.example\r\n", c.ip[15]-1)
	if code, text, err := c.read(); err != nil || code != 250 {
		return fmt.Errorf("EHLO: %s, %v", text, err)
	}
	return nil
}

// quit ends the connection politely.
func (c *client) quit() {
	if c.conn != nil {
		fmt.Fprint(c.conn, "QUIT\r\n")
		c.read()
		c.drop()
	}
}

func (c *client) drop() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// read reads one reply.
func (c *client) read() (code int, text string, err error) {
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, "", err
		}
		if len(line) < 4 {
			return 0, "", fmt.Errorf("no reply: %q", line)
		}
		if line[3] != '-' {
			code := int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
			return code, strings.TrimSpace(string(line)), nil
		}
	}
}

// quantile returns the time that the q-th part of all did not exceed, 0.5 being
// the median.
func quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	times = slices.Sorted(slices.Values(times))
	return times[int(math.Ceil(q*float64(len(times))))-1]
}
