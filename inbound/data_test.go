package inbound

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/message"
	"onward/internal/reply"
)

// TestDataBytes holds that every octet arrives as it was sent, whatever the
// lines look like (STANDARDS.md P3, RELIABILITY 5).
func TestDataBytes(t *testing.T) {
	h := open(t, nil)
	c := h.dial()
	c.say("EHLO c", "250")
	for _, body := range []string{
		"",
		"\r\n",
		"x: y\r\n",
		"x: y\r\n\r\n",
		"x: y\r\n\r\n.\r\n..\r\n...\r\n.x\r\n x.\r\n",
		".x: y\r\n",
		"x: y\r\n\r\n" + strings.Repeat("\r\n", 1000),
		"x: y\r\n\r\na\x00\xff\x80 ü\r\n",
		"x: y\r\n\r\n" + strings.Repeat(".\r\n", blockSize),
		"x: y\r\n\r\n" + strings.Repeat("x", blockSize-16) + "\r\n.\r\n." + strings.Repeat("y", 3*blockSize) + "\r\n",
		"x: y\r\n\r\n" + strings.Repeat("x", 500_000) + "\r\n", // beyond memory
	} {
		c.envelope()
		c.send(strings.TrimPrefix(strings.ReplaceAll("\r\n"+body, "\r\n.", "\r\n.."), "\r\n") + ".\r\n")
		c.expect("250 2.0.0 ")
		got := h.owner.messages()
		if last := got[len(got)-1].bytes; last != body {
			t.Errorf("sent %.60q (%d octets), got %.60q (%d)", body, len(body), last, len(last))
		}
	}
}

// TestDataPieces cuts one message at every place, so that each state of the
// reader is crossed by the end of a packet.
func TestDataPieces(t *testing.T) {
	const wire, want = "x: y\r\n\r\n..a\r\n\r\n..\r\nb\r\n.\r\n", "x: y\r\n\r\n.a\r\n\r\n.\r\nb\r\n"
	for piece := 1; piece < len(wire); piece++ {
		buffer := message.NewBuffer(t.TempDir())
		r := &dataReader{room: anyRoom(), buffer: buffer, lineStart: true}
		block := make([]byte, 8) // smaller than the message, so lines are cut too
		have, sent := 0, 0
		for !r.ended {
			n := copy(block[have:], wire[sent:min(sent+piece, len(wire))])
			sent, have = sent+n, have+n
			used := r.take(block[:have], have == len(block))
			have = copy(block, block[used:have])
		}
		msg, err := buffer.Message()
		if err != nil || r.verdict() != nil || sent != len(wire) || have != 0 {
			t.Fatalf("pieces of %d: %v, %v, %d sent, %d left", piece, err, r.verdict(), sent, have)
		}
		b, _ := io.ReadAll(msg.Reader())
		if string(b) != want {
			t.Errorf("pieces of %d: %q, want %q", piece, b, want)
		}
	}
}

// TestSmuggling tries every end of data that is none (RELIABILITY 1). The
// second message inside must never be taken for one, and the whole is refused.
func TestSmuggling(t *testing.T) {
	ends := []string{"\n", "\r", "\r\n", "\r\r\n", "\n\r", "\x00\r\n", "\n\n"}
	for _, before := range ends {
		for _, after := range ends {
			if strings.HasSuffix(before, "\r\n") && strings.HasPrefix(after, "\r\n") {
				continue // the true end
			}
			t.Run(fmt.Sprintf("%q.%q", before, after), func(t *testing.T) {
				h := open(t, nil)
				c := h.dial()
				c.begin()
				c.send("x: y\r\n\r\nhello" + before + "." + after +
					"MAIL FROM:<ceo@victim.example>\r\nRCPT TO:<me@example.org>\r\nDATA\r\nx: smuggled\r\n.\r\n")
				want := "550 5.6.0"
				if before == "\x00\r\n" || !strings.ContainsAny(strings.ReplaceAll(before+after, "\r\n", ""), "\r\n") {
					want = "" // NUL is content; all lines are well formed
				}
				got, err := c.read()
				if !strings.HasPrefix(got, want) || err != nil {
					t.Fatalf("got %q, %v", got, err)
				}
				c.say("QUIT", "221")
				for _, m := range h.owner.messages() {
					if m.env.From.String() != "eve@sender.example" {
						t.Errorf("smuggled: %+v", m)
					}
				}
			})
		}
	}
}

// TestBareLines holds the answer to a bare CR or LF anywhere, at both sides of
// a block's end, and that the connection goes on.
func TestBareLines(t *testing.T) {
	h := open(t, nil)
	c := h.dial()
	c.say("EHLO c", "250")
	for _, body := range []string{
		"x: y\n", "x: y\r\n\r\na\rb\r\n", "\rx: y\r\n", "x: y\r\n\r\na\r\r\n", "\n",
		"x: y\r\n\r\n\x00.\r\n", "x: y\r\n\r\n..\x00\r\n", "x: y\r\n\r\n\x00\x00.\x00\r\n",
		"x: y\r\n\r\n" + strings.Repeat("z", blockSize-8) + "\rz\r\n",
		"x: y\r\n\r\n" + strings.Repeat("z", 2*blockSize) + "\r" + strings.Repeat("z", 2*blockSize) + "\r\n",
	} {
		c.envelope()
		c.send(body + "\r\n.\r\n")
		c.expect("550 5.6.0 ")
	}
	if n := len(h.owner.messages()); n != 0 {
		t.Errorf("%d messages were taken", n)
	}
	h.honest()
}

// TestTooLarge holds that what follows the limit is never read as commands
// (RELIABILITY 4).
func TestTooLarge(t *testing.T) {
	h := open(t, func(p *Policy) { p.Limits.Message = 10_000 })
	c := h.dial()
	c.begin()
	c.say("x: y\r\n\r\n"+strings.Repeat("a", 10_000-10)+"\r\n.", "250") // the limit itself
	c.envelope()
	c.say("x: y\r\n\r\n"+strings.Repeat("a", 10_000-9)+"\r\n.", "552 5.3.4")
	c.say("NOOP", "250")
	c.envelope()
	c.send("x: y\r\n\r\n" + strings.Repeat("a", 20_000) + "\r\nQUIT\r\n")
	c.expect("552 5.3.4")
	c.closed()
	h.honest()
}

func TestHeaderLimits(t *testing.T) {
	h := open(t, nil)
	c := h.dial()
	c.say("EHLO c", "250")
	c.envelope()
	c.say(strings.Repeat("x: y\r\n", message.MaxFields+1)+"\r\n.", "552 5.3.4")
	c.envelope()
	c.say("x: "+strings.Repeat("y", message.MaxHeaderSize)+"\r\n\r\n.", "552 5.3.4")
	c.envelope()
	c.say(strings.Repeat("Received: x\r\n", 51)+"\r\n.", "554 5.4.6")
	c.envelope()
	c.say(" x: y\r\n\r\n.", "550 5.6.0")
	c.envelope()
	c.say("F\x00rom: x@y.example\r\n\r\n.", "550 5.6.0")
	c.envelope()
	mark := h.server.Policy().Marker.Field(address.Mailbox{Local: "ME", Domain: "example.org"})
	c.say(string(mark)+"\r\n.", "554 5.4.6") // back again
	c.envelope()
	c.say("Delivered-To: me@example.org\r\n\r\n.", "554 5.4.6")
	c.envelope()
	c.say("X-Forwarded-For: other@example.com me@example.org\r\n\r\n.", "250") // forwarded to us by another
	c.envelope()
	c.say(strings.Repeat("Received: x\r\n", 50)+"\r\n.", "250")
}

// TestAnswers holds that the Acceptor's reply is relayed as it is, and that
// any other error is temporary and tells nothing (DEPENDENCIES.md A7).
func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{reply.New(250, "2.0.0", "forwarded: OK gsmtp"), "250 2.0.0 %s forwarded: OK gsmtp\r\n"},
		{reply.New(550, "5.1.1", "no such user"), "550 5.1.1 no such user (%s)\r\n"},
		{fmt.Errorf("wrapped: %w", reply.New(452, "4.2.2", "full")), "452 4.2.2 full (%s)\r\n"},
		{errors.New("/var/lib/onward: no space left on device"), "451 4.3.0 trouble on our side, please try again later (%s)\r\n"},
		{reply.New(550, "5.7.1", "two\r\n250 lines \x1b[1m"), "550 5.7.1 two  250 lines ?[1m (%s)\r\n"},
		{reply.New(554, "5.4.6", "again (01M8AVEWFC5RP0KWG9FJCN5BE5) (01M8AVEWFC5RP0KWG9FJCN5BE6)"), "554 5.4.6 again (%s)\r\n"},
		{reply.New(550, "5.1.1", "(01M8AVEWFC5RP0KWG9FJCN5BE5) gone (mx1) (8AVEWFC5RP0KWG9FJCN5BE5)"), "550 5.1.1 (01M8AVEWFC5RP0KWG9FJCN5BE5) gone (mx1) (8AVEWFC5RP0KWG9FJCN5BE5) (%s)\r\n"},
	} {
		h := open(t, nil)
		h.owner.answer = tt.err
		c := h.dial()
		c.begin()
		c.send("x: y\r\n.\r\n")
		got, _ := c.read()
		if want := fmt.Sprintf(tt.want, h.owner.messages()[0].env.ID); got != want {
			t.Errorf("%v: got %q, want %q", tt.err, got, want)
		}
	}
}

// TestPanic holds that a panic is 421 for one client and nothing for others.
func TestPanic(t *testing.T) {
	h := open(t, nil)
	h.server.Acceptor = nil
	c := h.dial()
	c.begin()
	c.send("x: y\r\n.\r\n")
	c.expect("421")
	c.closed()
	h.server.Acceptor = h.owner
	h.honest()
}

// FuzzData compares the reader of blocks with the plain meaning of RFC 5321:
// the end is the first CR LF . CR LF, doubled dots are undone, and any other
// CR or LF refuses the whole, as does a NUL that could hide a dot.
func FuzzData(f *testing.F) {
	for _, s := range []string{"x: y\r\n\r\n..\r\n.\r\n", ".\r\n", "\n.\r\n.\r\n", "a\r\r\n.\r\n", "a\r\n.\rb\r\n.\r\n"} {
		f.Add([]byte(s), uint8(5))
	}
	f.Fuzz(func(t *testing.T, wire []byte, piece uint8) {
		buffer := message.NewBuffer(t.TempDir())
		defer buffer.Close()
		r := &dataReader{room: anyRoom(), buffer: buffer, lineStart: true}
		block := make([]byte, 16)
		have, sent := 0, 0
		for !r.ended && (sent < len(wire)) {
			n := copy(block[have:], wire[sent:min(sent+1+int(piece%16), len(wire))])
			sent, have = sent+n, have+n
			used := r.take(block[:have], have == len(block))
			have = copy(block, block[used:have])
		}
		whole := "\r\n" + string(wire)
		end := strings.Index(whole, "\r\n.\r\n")
		if r.ended != (end >= 0) {
			t.Fatalf("%q: ended %v, want %v", wire, r.ended, end >= 0)
		}
		if !r.ended {
			return
		}
		content := whole[:end+2]
		bare := strings.ContainsAny(strings.ReplaceAll(content, "\r\n", ""), "\r\n")
		want := strings.ReplaceAll(content, "\r\n.", "\r\n")
		bare = bare || strings.Contains(want, "\r\n\x00") || strings.Contains(want, "\r\n.\x00")
		if r.bare != bare {
			t.Fatalf("%q: bare %v, want %v", wire, r.bare, bare)
		}
		if bare {
			return
		}
		want = strings.TrimPrefix(want, "\r\n")
		msg, err := buffer.Message()
		if err != nil {
			t.Skip() // header limits
		}
		got, _ := io.ReadAll(msg.Reader())
		if string(got) != want {
			t.Fatalf("%q: got %q, want %q", wire, got, want)
		}
	})
}

// anyRoom is enough for any message.
func anyRoom() *room { return &room{inFlight: new(atomic.Int64)} }

// TestInFlight holds that all messages together have so much room, that who does
// not get any hears 452, and that the room is given back (RELIABILITY 70, 73).
func TestInFlight(t *testing.T) {
	h := open(t, func(p *Policy) { p.Limits.InFlight = 3000 })
	text := strings.Repeat("x: y\r\n", 300) // 1800 octets
	waiting := h.dial()
	waiting.begin()
	waiting.send(text)
	for h.server.inFlight.Load() < 1800 {
		time.Sleep(time.Millisecond)
	}
	c := h.dial()
	c.begin()
	for i, now := range []int64{2700, 1800} { // what is spoilt makes room before its end
		c.send(text[900*i : 900*i+900])
		for h.server.inFlight.Load() != now {
			time.Sleep(time.Millisecond)
		}
	}
	c.say(".", "452 4.3.1")
	c.envelope()
	c.send("x: y\r\n" + text[:900])
	for h.server.inFlight.Load() < 2700 {
		time.Sleep(time.Millisecond)
	}
	c.send("\n")
	for h.server.inFlight.Load() != 1800 {
		time.Sleep(time.Millisecond)
	}
	c.say("\r\n.", "550 5.6.0")
	c.say("MAIL FROM:<a@b.example> SIZE=2000", "452 4.3.1")
	c.envelope()
	c.say("x: y\r\n.", "250")
	waiting.say(".", "250")
	c.envelope()
	c.say(text+".", "250")
}
