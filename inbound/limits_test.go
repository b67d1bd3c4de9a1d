package inbound

import (
	"bufio"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"net/netip"
	"onward/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipes is a network of net.Pipe, so that a bubble of testing/synctest can
// turn minutes into nothing.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// inBubble runs a test against a server on pipes in fake time.
func inBubble(t *testing.T, test func(h *house, dial func() *talk)) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
		h := newHouse(t, nil)
		h.serve(p)
		h.wire = func() net.Conn {
			ours, theirs := net.Pipe()
			p.conns <- theirs
			return ours
		}
		test(h, h.dial)
		h.stop()
	})
}

// TestStallIsFinal holds DEPENDENCIES.md A1: after a stall inside a message,
// what follows is neither message nor command, and the answer is not 5xx.
func TestStallIsFinal(t *testing.T) {
	inBubble(t, func(h *house, dial func() *talk) {
		c := dial()
		c.begin()
		c.send("Subject: x\r\n\r\nhalf a message")
		began := time.Now()
		c.expect("421 4.4.2")
		if waited := time.Since(began); waited > blockTimeout {
			t.Errorf("waited %v for a stalled sender", waited)
		}
		io.WriteString(c.conn, "\r\nRSET\r\nMAIL FROM:<ceo@victim.example>\r\nRCPT TO:<me@example.org>\r\nDATA\r\nx: forged\r\n.\r\n")
		c.closed()
		if m := h.owner.messages(); len(m) != 0 {
			t.Errorf("messages %+v", m)
		}
	})
}

// TestPace holds that a slow honest sender is not cut off and a dripping one
// is (RELIABILITY 74, DEPENDENCIES.md A1: no absolute deadline).
func TestPace(t *testing.T) {
	for _, tt := range []struct {
		name   string
		octets int // a line, every ten seconds
		want   string
	}{
		{"slow", 8000, "250 2.0.0 "},
		{"dripping", 50, "421 4.4.2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(h *house, dial func() *talk) {
				c := dial()
				c.begin()
				line := strings.Repeat("x", tt.octets) + "\r\n"
				var sending sync.WaitGroup
				defer sending.Wait()
				sending.Go(func() {
					io.WriteString(c.conn, "x: y\r\n\r\n")
					for range 100 { // a quarter of an hour
						if _, err := io.WriteString(c.conn, line); err != nil {
							return
						}
						time.Sleep(10 * time.Second)
					}
					io.WriteString(c.conn, ".\r\n")
				})
				c.expect(tt.want)
			})
		})
	}
}

func TestIdleClientIsSentAway(t *testing.T) {
	inBubble(t, func(h *house, dial func() *talk) {
		c := dial()
		c.say("EHLO c", "250")
		began := time.Now()
		c.expect("421 4.4.2")
		c.closed()
		if waited := time.Since(began); waited != commandTimeout {
			t.Errorf("waited %v, want %v", waited, commandTimeout)
		}
	})
}

func TestSessionEnds(t *testing.T) {
	inBubble(t, func(h *house, dial func() *talk) {
		c := dial()
		c.say("EHLO c", "250")
		began := time.Now()
		var sending sync.WaitGroup
		defer sending.Wait()
		sending.Go(func() {
			for {
				if _, err := io.WriteString(c.conn, "MAIL FROM:<a@b.example>\r\nRSET\r\n"); err != nil {
					return
				}
				time.Sleep(50 * time.Second)
			}
		})
		for {
			got, err := c.read()
			if strings.HasPrefix(got, "421") {
				break
			}
			if err != nil {
				t.Fatalf("got %q, %v", got, err)
			}
		}
		if d := time.Since(began); d < sessionTimeout-time.Minute || d > sessionTimeout+time.Minute {
			t.Errorf("the session ended after %v", d)
		}
	})
}

// TestShutdownEndsIdleSessions holds DEPENDENCIES.md B5.
func TestShutdownEndsIdleSessions(t *testing.T) {
	h := open(t, nil)
	idle, busy := h.dial(), h.dial()
	idle.say("EHLO c", "250")
	busy.begin()
	busy.send("x: half\r\n")
	began := time.Now()
	h.stop()
	idle.expect("421 4.3.2")
	idle.closed()
	busy.expect("421 4.3.2") // before the dot the message is the sender's (RELIABILITY 85)
	busy.closed()
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("stopping took %v", d)
	}
	if _, err := net.Dial("tcp", h.addr); err == nil {
		t.Error("still listening")
	}
	if n := len(h.owner.messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// TestShutdownFinishesMessage holds RELIABILITY 85: after the dot the answer
// is still given.
func TestShutdownFinishesMessage(t *testing.T) {
	h := open(t, nil)
	h.owner.hold = make(chan struct{})
	c := h.dial()
	c.begin()
	c.send("x: y\r\n.\r\n")
	for len(h.owner.messages()) == 0 {
		time.Sleep(time.Millisecond)
	}
	stopped := make(chan struct{})
	go func() { h.stop(); close(stopped) }()
	h.t.Cleanup(func() { <-stopped })
	for { // until the listener is closed
		conn, err := net.Dial("tcp", h.addr)
		if err != nil {
			break
		}
		conn.Close()
	}
	close(h.owner.hold)
	c.expect("250 2.0.0 ")
	c.expect("421")
	c.closed()
	<-stopped
}

// TestDrainTime holds that a stop waits no longer than limits.drain_time for a
// message that finds no owner.
func TestDrainTime(t *testing.T) {
	h := open(t, func(p *Policy) { p.Limits.DrainTime = time.Second })
	h.owner.hold = make(chan struct{})
	t.Cleanup(func() { close(h.owner.hold) })
	c := h.dial()
	c.begin()
	c.send("x: y\r\n.\r\n")
	for len(h.owner.messages()) == 0 {
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	h.stop()
	if d := time.Since(began); d < time.Second || d > grace/2 {
		t.Errorf("stopping took %v", d)
	}
}

// TestHangUpAnywhere lets a client go away after each line of a session.
func TestHangUpAnywhere(t *testing.T) {
	h := open(t, nil)
	lines := []string{"EHLO c\r\n", "MAIL FROM:<a@b.example>\r\n", "RCPT TO:<me@example.org>\r\n", "DATA\r\n", "x: y\r\n", "\r\nhello\r\n", ".\r", "\n"}
	for n := range lines {
		for _, cut := range []int{0, 1} {
			c := h.dial()
			for i, line := range lines[:n+1] {
				if i == n {
					line = line[:len(line)-cut]
				}
				c.send(line)
				if strings.HasSuffix(line, "\n") && i < 4 {
					c.read()
				}
			}
			c.conn.Close()
		}
	}
	h.honest()
	for _, m := range h.owner.messages() {
		if m.bytes != "x: y\r\n\r\nhello\r\n" && m.bytes != "Subject: honest\r\n\r\nhello\r\n" {
			t.Errorf("half a message was taken: %q", m.bytes)
		}
	}
}

// TestLimits holds the limits of RELIABILITY.md 5 that go-smtp leaves open
// (DEPENDENCIES.md B6), each with 0 as off.
func TestLimits(t *testing.T) {
	t.Run("sessions of a client", func(t *testing.T) {
		h := open(t, func(p *Policy) { p.Limits.ClientSessions = 1 })
		a := h.dial()
		h.connect().expect("421 4.7.0")
		a.say("QUIT", "221")
		a.closed()
		h.honest()
	})
	t.Run("recipients", func(t *testing.T) {
		h := open(t, func(p *Policy) { p.Limits.Recipients = 2 })
		c := h.dial()
		c.say("EHLO c", "250")
		c.say("MAIL FROM:<a@b.example>", "250")
		c.say("RCPT TO:<me@example.org>", "250")
		c.say("RCPT TO:<abuse@example.org>", "250")
		c.say("RCPT TO:<trap@example.org>", "452 4.5.3")
		c.say("DATA", "354")
		c.say("x: y\r\n.", "250")
	})
	t.Run("messages a session", func(t *testing.T) {
		h := open(t, func(p *Policy) { p.Limits.Messages = 1 })
		c := h.dial()
		c.begin()
		c.say("x: y\r\n.", "250")
		c.say("MAIL FROM:<a@b.example>", "421 4.7.0")
		c.closed()
	})
	t.Run("off", func(t *testing.T) {
		h := open(t, func(p *Policy) { p.Limits.Sessions, p.Limits.ClientSessions, p.Limits.Messages = 0, 0, 0 })
		for range 60 {
			h.dial()
		}
		h.honest()
	})
}

// TestMakesRoom holds that at the limit of all sessions a newcomer takes the place
// of the one that keeps us waiting longest, whatever that one does to look busy,
// and never of one whose message is being delivered (RELIABILITY 74).
func TestMakesRoom(t *testing.T) {
	inBubble(t, func(h *house, dial func() *talk) {
		h.server.Policy().Limits.Sessions = 4
		h.owner.hold = make(chan struct{})
		delivering := dial()
		delivering.begin()
		delivering.send("x: y\r\n.\r\n")
		time.Sleep(time.Second)
		dripping := dial()
		dripping.begin()
		time.Sleep(time.Second)
		typing := dial()
		sending := dial()
		sending.begin()
		for range 10 {
			dripping.send("x")
			typing.send("N")
			time.Sleep(time.Second)
			sending.send(strings.Repeat("x: y\r\n", 90)) // 540 octets
		}
		synctest.Wait()
		for _, slowest := range []*talk{dripping, typing} {
			newcomer := h.connect()
			slowest.expect("421 4.3.2")
			slowest.closed()
			newcomer.expect("220")
		}
		h.connect().expect("421 4.3.2") // nobody is slow
		h.server.clients.mu.Lock()
		if n := len(h.server.clients.open); n != 4 {
			t.Errorf("%d sessions", n)
		}
		h.server.clients.mu.Unlock()
		close(h.owner.hold)
		delivering.expect("250 2.0.0 ")
		sending.say("\r\n.", "250 2.0.0 ")
	})
}

// TestFairRoom holds that at the limit of all sessions nobody may have many while
// others have none, however busy they are.
func TestFairRoom(t *testing.T) {
	cs := newClients()
	now := time.Now()
	enter := func(address string) (*conn, bool) {
		c := &conn{client: netip.MustParseAddr(address), raw: &net.TCPConn{}}
		c.waiting.Store(now.Add(-time.Millisecond).UnixNano())
		return c, cs.enter(c, now, config.Limits{Sessions: 3}) == nil
	}
	first, _ := enter("192.0.2.1")
	first.waiting.Store(now.Add(-2 * time.Millisecond).UnixNano())
	enter("192.0.2.1")
	enter("192.0.2.2")
	for _, tt := range []struct {
		address string
		want    bool
	}{
		{"192.0.2.1", false},
		{"192.0.2.2", false},
		{"192.0.2.3", true}, // in the place of the first
		{"192.0.2.4", false},
	} {
		if _, ok := enter(tt.address); ok != tt.want {
			t.Errorf("%s: %v", tt.address, ok)
		}
	}
	if first.interrupted.Load() == nil {
		t.Error("not the one that waits longest")
	}
}

// BenchmarkSession measures one message of 10 KB on loopback, the owner doing
// nothing with it.
func BenchmarkSession(b *testing.B) {
	h := open(b, func(p *Policy) { p.Limits.Messages = 0 })
	message := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", 128) + ".\r\n"
	conn, err := net.Dial("tcp", h.addr)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	ask := func(s string, replies int) {
		io.WriteString(conn, s)
		for replies > 0 {
			line, err := r.ReadString('\n')
			if err != nil || line[0] > '3' {
				b.Fatalf("%q: %v", line, err)
			}
			if line[3] == ' ' {
				replies--
			}
		}
	}
	ask("EHLO c\r\n", 2)
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		ask("MAIL FROM:<a@b.example>\r\nRCPT TO:<me@example.org>\r\nDATA\r\n", 3)
		ask(message, 1)
	}
}

// TestMinuteLimits holds what one client may do in a minute, an IPv6 /64 being
// one, and that nobody is counted who stands for many (DESIGN.md 9.11).
func TestMinuteLimits(t *testing.T) {
	limits := config.Limits{ClientConnectionsPerMinute: 2, ClientMessagesPerMinute: 3, ClientSizePerMinute: 100}
	now := time.Now()
	for _, tt := range []struct {
		clients string
		counted bool
	}{
		{"192.0.2.1", true},
		{"2001:db8::1 2001:db8::2 2001:db8::3 2001:db8::4", true},
		{"127.0.0.1", false},
		{"10.0.0.1", false},
	} {
		cs := newClients()
		all := strings.Fields(tt.clients)
		client := func(i int) netip.Addr { return netip.MustParseAddr(all[i%len(all)]) }
		connections, messages := 0, 0
		for i := range 4 {
			if cs.enter(&conn{client: client(i)}, now, limits) == nil {
				connections++
			}
			if cs.message(client(i), now, limits) == nil {
				messages++
			}
		}
		if want := map[bool]int{true: 2, false: 4}[tt.counted]; connections != want {
			t.Errorf("%s: %d connections", tt.clients, connections)
		}
		if want := map[bool]int{true: 3, false: 4}[tt.counted]; messages != want {
			t.Errorf("%s: %d messages", tt.clients, messages)
		}
		later := now.Add(time.Minute)
		cs.took(client(0), later, 101)
		if r := cs.message(client(1), later, limits); (r != nil) != tt.counted {
			t.Errorf("%s: after 101 octets: %v", tt.clients, r)
		}
		if r := cs.message(client(0), later.Add(time.Minute), limits); r != nil {
			t.Errorf("%s: a minute later: %v", tt.clients, r)
		}
	}
}

// TestRefusedMail holds that a client hears its limit so often and no oftener.
func TestRefusedMail(t *testing.T) {
	h := open(t, func(p *Policy) { p.Limits.InFlight = 1000 })
	c := h.dial()
	c.say("EHLO c", "250")
	for range maxJunk - 1 {
		c.say("MAIL FROM:<a@b.example> SIZE=1001", "452")
	}
	c.say("MAIL FROM:<a@b.example> SIZE=1001", "421 4.7.0")
	c.closed()
	h.honest()
}

// TestAliasAndSenderLimits holds how often one alias may be written to in a minute,
// and how often a domain may write that is who it says.
func TestAliasAndSenderLimits(t *testing.T) {
	h := open(t, func(p *Policy) { p.Limits.AliasPerMinute, p.Limits.SenderDomainPerMinute = 3, 2 })
	send := func(from, to, rcpt, data string) {
		t.Helper()
		c := h.dial()
		c.say("EHLO c", "250")
		c.say("MAIL FROM:<"+from+">", "250")
		c.say("RCPT TO:<"+to+">", rcpt)
		if data != "" {
			c.say("DATA", "354")
			c.say("x: y\r\n.", data)
		}
	}
	send("a@b.example", "me@example.org", "250", "250")
	send("b@b.example", "abuse@example.org", "250", "250")
	send("c@b.example", "abuse@example.org", "250", "451 4.7.1")
	send("c@unknown.example", "me@example.org", "250", "250") // whoever that is
	send("d@unknown.example", "ME@example.org", "250", "250")
	send("e@unknown.example", "me@example.org", "450 4.2.1", "")
	send("e@unknown.example", "me+x@example.org", "450 4.2.1", "") // a tag makes no other mailbox
}
