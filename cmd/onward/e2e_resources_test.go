package main_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"onward/internal/testmail"
)

// stranger returns the n-th address of people who are not the honest client.
func stranger(n int) *net.TCPAddr { return &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(n+1))} }

// connect makes a connection as a stranger and reads the greeting. It returns an
// error when there is none, or another.
func connect(from *net.TCPAddr, addr string) (*talker, error) {
	dialer := net.Dialer{LocalAddr: from, Timeout: patience}
	conn, err := dialer.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	t := &talker{conn, bufio.NewReader(conn)}
	if _, err := t.hear("220 "); err != nil {
		conn.Close()
		return nil, err
	}
	return t, nil
}

// A talker is a client whose errors do not end the test.
type talker struct {
	net.Conn
	r *bufio.Reader
}

// hear reads a reply.
func (t *talker) hear(want string) (string, error) {
	t.SetReadDeadline(time.Now().Add(5 * time.Minute))
	for {
		line, err := t.r.ReadString('\n')
		if err == nil && len(line) > 3 && line[3] == '-' {
			continue
		}
		if err == nil && !strings.HasPrefix(line, want) {
			err = errors.New(line)
		}
		return strings.TrimRight(line, "\r\n"), err
	}
}

// begin goes as far as the message.
func (t *talker) begin(to string) error {
	for _, step := range [][2]string{{"EHLO mx.sender.example", "250"}, {"MAIL FROM:<eve@sender.example>", "250"}, {"RCPT TO:<" + to + ">", "250"}, {"DATA", "354"}} {
		if _, err := io.WriteString(t, step[0]+"\r\n"); err != nil {
			return err
		}
		if _, err := t.hear(step[1]); err != nil {
			return err
		}
	}
	return nil
}

// TestCrowd has as many connections idle as there may be, and fifty senders beside
// them that send an octet now and then. All come again when they are sent away.
// An honest client is served at once (RELIABILITY 74).
func TestCrowd(t *testing.T) {
	s := newStand(t, "me: ann@dest.example")
	ctx, cancel := context.WithCancel(t.Context())
	var crowd sync.WaitGroup
	defer crowd.Wait()
	defer cancel()
	var idle, slow, again atomic.Int32
	stay := func(n int, there *atomic.Int32, sit func(*talker) error) {
		crowd.Go(func() {
			for first := true; ctx.Err() == nil; first = false {
				if !first {
					again.Add(1)
					time.Sleep(100 * time.Millisecond)
				}
				c, err := connect(stranger(n/40), s.addr)
				if err != nil {
					continue
				}
				stop := context.AfterFunc(ctx, func() { c.Close() })
				there.Add(1)
				sit(c)
				there.Add(-1)
				stop()
				c.Close()
			}
		})
	}
	for n := range 1000 {
		stay(n, &idle, func(c *talker) error {
			_, err := io.Copy(io.Discard, c.r)
			return err
		})
	}
	for n := range 50 {
		stay(1000+n, &slow, func(c *talker) error {
			if err := c.begin("me@alias.example"); err != nil {
				return err
			}
			for {
				if _, err := c.Write([]byte("x")); err != nil {
					return err
				}
				time.Sleep(200 * time.Millisecond)
			}
		})
	}
	for end := time.Now().Add(patience); idle.Load()+slow.Load() < 990; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d idle and %d slow after %v", idle.Load(), slow.Load(), patience)
		}
	}
	t.Logf("%d idle, %d slow", idle.Load(), slow.Load())
	var waits []time.Duration
	for n := range 20 {
		began := time.Now()
		talk := s.dial(t)
		send(talk, "ada@sender.example", "me@alias.example", "250 2.0.0 ")
		talk.Say("QUIT", "221 ")
		talk.Close()
		waits = append(waits, time.Since(began))
		s.arrived(t, n+1)
		time.Sleep(50 * time.Millisecond)
	}
	open := len(s.descriptors(t))
	slices.Sort(waits)
	t.Logf("twenty honest messages, most within %v and each within %v; %d idle, %d slow, who came again %d times; %d descriptors, %d MB",
		waits[17], waits[19], idle.Load(), slow.Load(), again.Load(), open, s.memory(t)>>20)
	if waits[17] > atOnce() { // a busy machine may stumble
		t.Errorf("honest messages took %v", waits)
	}
	if open > 1100 {
		t.Errorf("%d descriptors", open)
	}
}

// A drain is a destination that keeps nothing but the number of whole messages.
type drain struct {
	listener net.Listener
	wg       sync.WaitGroup
	whole    atomic.Int64
	size     int64 // of a message at least
}

// startDrain starts a drain for messages of at least so many octets.
func startDrain(t testing.TB, size int) *drain {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &drain{listener: l, size: int64(size)}
	d.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			d.wg.Go(func() {
				defer conn.Close()
				d.talk(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		d.wg.Wait()
	})
	return d
}

func (d *drain) addr() netip.AddrPort { return d.listener.Addr().(*net.TCPAddr).AddrPort() }

func (d *drain) talk(conn net.Conn) {
	r := bufio.NewReaderSize(conn, 64<<10)
	io.WriteString(conn, "220 drain\r\n")
	for {
		line, err := r.ReadString('\n')
		answer := "250 ok\r\n"
		switch {
		case err != nil:
			return
		case strings.HasPrefix(line, "EHLO"):
			answer = "250-drain\r\n250-PIPELINING\r\n250 SIZE 100000000\r\n"
		case strings.HasPrefix(line, "DATA"):
			io.WriteString(conn, "354 go on\r\n")
			var size int64
			for piece := []byte(nil); string(piece) != ".\r\n"; size += int64(len(piece)) {
				if piece, err = r.ReadSlice('\n'); err != nil {
					return
				}
			}
			if size > d.size {
				d.whole.Add(1)
			}
		}
		if _, err := io.WriteString(conn, answer); err != nil {
			return
		}
	}
}

// TestLargeMessages has many clients send large messages at once: all of them
// arrive, or hear 452, and memory does not grow with them (RELIABILITY 73).
func TestLargeMessages(t *testing.T) {
	clients, size, limit := 40, 20<<20, 300<<20
	switch {
	case soaking:
		clients, size = 200, 50<<20-2000
	case raced:
		clients, size = 20, 5<<20
	}
	sink := startDrain(t, size)
	s := &stand{daemon: &daemon{}, settings: settings(t, sink.addr())}
	s.serve(t, s.yaml("me: ann@dest.example"))
	line := bytes.Repeat([]byte("x"), 76)
	block := bytes.Repeat(append(line, "\r\n"...), 1000)
	var sending sync.WaitGroup
	answers := make(chan string, clients)
	began := time.Now()
	for n := range clients {
		sending.Go(func() {
			c, err := connect(stranger(n/40), s.addr)
			if err == nil {
				defer c.Close()
				err = c.begin("me@alias.example")
			}
			if err == nil {
				_, err = fmt.Fprintf(c, "From: eve@sender.example\r\nSubject: %d\r\n\r\n", n)
			}
			for sent := 0; err == nil && sent < size; sent += len(block) {
				_, err = c.Write(block[:min(len(block), (size-sent)/78*78+78)])
			}
			if err == nil {
				io.WriteString(c, ".\r\n")
				answer, _ := c.hear("")
				answers <- answer
				return
			}
			answers <- err.Error()
		})
	}
	sending.Wait()
	close(answers)
	took := time.Since(began)
	count := map[string]int{}
	for a := range answers {
		count[a[:min(len(a), 9)]]++
		if !strings.HasPrefix(a, "250 2.0.0") && !strings.HasPrefix(a, "452 4.3.1") {
			t.Errorf("a client heard %q", a)
		}
	}
	memory := s.memory(t)
	t.Logf("%d messages of %d MiB in %v: %v; %d MB resident at most", clients, size>>20, took.Round(time.Millisecond), count, memory>>20)
	if n := sink.whole.Load(); n != int64(count["250 2.0.0"]) {
		t.Errorf("%d messages at the destination, want %d", n, count["250 2.0.0"])
	}
	if memory > limit && !raced {
		t.Errorf("%d MB resident, want less than %d", memory>>20, limit>>20)
	}
}

// TestFewDescriptors floods a daemon that may open few files (RELIABILITY 72).
// It takes what it can, and is well when the flood is over.
func TestFewDescriptors(t *testing.T) {
	d := &daemon{under: []string{"sh", "-c", `ulimit -n 64 && exec "$@"`, "sh"}}
	s := newStandOf(t, d, "", "me: ann@dest.example")
	var conns []net.Conn
	for range 400 {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			break
		}
		io.WriteString(conn, "GET / HTTP/1.0\r\n")
		conns = append(conns, conn)
	}
	most := 0
	for range 20 {
		most = max(most, len(s.descriptors(t)))
		time.Sleep(20 * time.Millisecond)
	}
	for _, conn := range conns {
		conn.Close()
	}
	began := time.Now()
	for n := 0; n < 3; {
		w := &testmail.Writer{Client: netip.MustParseAddr("127.0.0.2"), Helo: "mx.sender.example"}
		if try := w.Send(t.Context(), s.addr, "ada@sender.example", []string{"me@alias.example"}, []byte(fmt.Sprintf("%s%d\r\n", letter, n))); try.Code == 250 {
			n++
		} else if time.Since(began) > 10*time.Second {
			t.Fatalf("after the flood: %q", try.Text)
		}
	}
	s.arrived(t, 3)
	t.Logf("%d connections, %d descriptors at most, accept failed %d times, three messages within %v after", len(conns), most,
		strings.Count(s.log.String(), "accept error"), time.Since(began))
}
