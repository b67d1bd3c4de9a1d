package inbound

import (
	"bufio"
	"bytes"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"onward/internal/reply"
)

// words are what single octets of a fuzzed stream stand for, so that most streams
// say something. All others stand for themselves; '|' ends a packet.
var words = map[byte]string{
	0x80: "EHLO c\r\n", 0x81: "HELO c\r\n", 0x82: "MAIL FROM:<a@b.example>\r\n", 0x83: "MAIL FROM:<>\r\n",
	0x84: "RCPT TO:<me@example.org>\r\n", 0x85: "RCPT TO:<trap@example.org>\r\n", 0x86: "RCPT TO:<nobody@example.org>\r\n",
	0x87: "RCPT TO:<a@victim.example>\r\n", 0x88: "DATA\r\n", 0x89: "RSET\r\n", 0x8a: "NOOP\r\n", 0x8b: "QUIT\r\n",
	0x8c: "x: y\r\n", 0x8d: "\r\n.\r\n", 0x8e: ".\r\n", 0x8f: "\r\n", 0x90: "STARTTLS\r\n", 0x91: "BDAT 9 LAST\r\n",
	0x92: "VRFY x\r\n", 0x93: "FROB\r\n", 0x94: "GET / HTTP/1.1\r\n", 0x95: "MAIL FROM:<a@b.example> SIZE=99999999\r\n",
	0x96: "From: a@b.example\r\n", 0x97: "\n.\r\n", 0x98: "\r\n.\n", 0x99: "\r.\r", 0x9a: "..\r\n",
}

// A machine is the server as RFC 5321 has it, in a few lines: what it must answer
// next, in each state, and which messages there are. It knows the daemon's rules
// only for when a session ends.
type machine struct {
	t      *testing.T
	conn   net.Conn
	r      *bufio.Reader
	rest   []byte // of the packet
	helo   bool
	mail   bool
	rcpt   int
	over   bool
	data   []byte   // nil outside a message
	passed []string // messages that were taken

	errors, junk, mails, deferred int
}

// packet has the machine hear what arrives at once.
func (m *machine) packet(octets []byte) {
	m.rest = append(m.rest, octets...)
	for !m.over {
		if m.data != nil {
			whole := append(append([]byte("\r\n"), m.data...), m.rest...)
			end := bytes.Index(whole, []byte("\r\n.\r\n"))
			if end < 0 {
				m.data, m.rest = append(m.data, m.rest...), nil
				return
			}
			m.rest = whole[end+5:]
			m.message(string(whole[:end+2]))
			continue
		}
		i := bytes.IndexByte(m.rest, '\n')
		if i < 0 || i >= maxCommandLine {
			if len(m.rest) >= maxCommandLine {
				m.hear("500", true)
			}
			return
		}
		line := string(m.rest[:i+1])
		m.rest = m.rest[i+1:]
		if text, ok := strings.CutSuffix(line, "\r\n"); ok && !strings.Contains(text, "\r") {
			m.command(text)
		} else {
			m.hear("500", true)
		}
	}
}

// command is one line. What is wrong with it alone is FuzzCommand's business.
func (m *machine) command(line string) {
	c, err := parseCommand(line)
	if err != nil {
		m.hear(reply.From(err).String()[:3], c.fatal)
		return
	}
	if c.verb != "RCPT" && c.verb != "DATA" && c.verb != "QUIT" {
		if m.junk++; m.junk > maxJunk {
			m.hear("421", true)
			return
		}
	}
	early := len(m.rest) > 0
	switch c.verb {
	case "EHLO", "HELO":
		if early {
			m.hear("554", true)
			return
		}
		m.hear("250", false)
		m.helo, m.mail, m.rcpt = true, false, 0
	case "STARTTLS":
		if early {
			m.hear("554", true)
			return
		}
		m.hear("220", false)
		m.over = true // no client of TLS here
	case "MAIL":
		switch {
		case !m.helo, m.mail:
			m.hear("503", false)
		case c.size > 1<<20:
			m.hear("552", false)
		case m.mails == 100:
			m.hear("421", true)
		default:
			m.hear("250", false)
			m.mail, m.rcpt, m.junk = true, 0, 0
			m.mails++
		}
	case "RCPT":
		if !m.mail {
			m.hear("503", false)
		} else if m.deferred == maxDeferred {
			m.hear("250 421 550 553", false)
		} else if m.hear("250 452 550 553", false) {
			m.rcpt++
			if d := c.to.Domain; d != "" && d != "example.org" && d != "mx.example.org" {
				m.t.Fatalf("a relay: %q", line)
			}
		}
	case "DATA":
		switch {
		case early:
			m.hear("554", true)
		case !m.mail:
			m.hear("503", false)
		case m.rcpt == 0:
			m.hear("554", false)
		default:
			m.hear("354", false)
			m.data = []byte{}
		}
	case "RSET":
		m.hear("250", false)
		m.mail, m.rcpt = false, 0
	case "QUIT":
		m.hear("221", true)
	default:
		m.hear("250 252 214", false)
	}
}

// message is one message, whose octets begin with a CR LF too many.
func (m *machine) message(octets string) {
	errors := m.errors // what is wrong with a message is no error of the dialogue
	bare := strings.ContainsAny(strings.ReplaceAll(octets, "\r\n", ""), "\r\n")
	if m.hear("250 550 552 554", false) {
		m.passed = append(m.passed, strings.ReplaceAll(octets, "\r\n.", "\r\n")[2:])
		if bare {
			m.t.Fatalf("taken: %q", octets)
		}
	}
	m.errors = errors
	m.data, m.mail, m.rcpt = nil, false, 0
}

// hear reads a reply, which must have one of the codes, and reports whether it is
// positive. With the last one the session is over, as it is with too many errors.
func (m *machine) hear(codes string, last bool) bool {
	code := m.read()
	if !strings.Contains(codes, code) {
		m.t.Fatalf("got %q, want %s", code, codes)
	}
	switch {
	case code[0] == '5' && m.data == nil:
		if m.errors++; m.errors == maxErrors {
			if code := m.read(); code != "421" {
				m.t.Fatalf("after %d errors: %q", m.errors, code)
			}
			last = true
		}
	case code[0] == '4' && m.mail && m.data == nil:
		m.deferred++
	}
	m.over = m.over || last || code == "421"
	return code[0] == '2'
}

// read returns the code of the next reply, all its lines read.
func (m *machine) read() string {
	m.conn.SetReadDeadline(time.Now().Add(time.Minute)) // on a busy machine too
	for {
		line, err := m.r.ReadString('\n')
		if err != nil || len(line) < 5 || !strings.HasSuffix(line, "\r\n") {
			m.t.Fatalf("a reply %q, %v", line, err)
		}
		if line[3] == ' ' {
			return line[:3]
		}
	}
}

// FuzzDialogue holds the whole dialogue against the machine (RELIABILITY 8): any
// octets in any packets, of which some make commands and messages.
func FuzzDialogue(f *testing.F) {
	for _, s := range []string{
		"\x80|\x82\x84\x88|\x96\x8fhello\x8d\x8b",
		"\x80|\x82|\x84|\x86|\x88|\x96\x8f\x9a\x8d\x84\x88\x82\x84\x88|\x8e\x8b",
		"\x80|\x82\x84\x88|\x96\x8f\x97\x82\x84\x88\x96\x8f\x8d\x8b",
		"\x80|\x82\x84\x88|\x96\x98\x82\x84\x88\x99|\x8d\x8b",
		"\x81|\x83\x84\x85\x87\x88|\x96\x8d\x89\x88\x83\x88",
		"\x80\x82", "\x80|\x82\x84\x88\x96\x8d", "\x80|\x90\x82", "\x91\x82", "\x94", "EHLO c\n",
		"\x80|\x95\x92\x84\x82\x82|\x88|\x84\x82|\x88|\x96\x8d\x84|\x88|\x82\x89\x84",
		"\x80|\x82\x86\x93\x93\x93\x93\x93\x93\x93\x93\x93\x93\x84", "\x82\x84|\x88|\x80|\x82\x84|\x80|\x84|\x88",
		"\x80|" + strings.Repeat("\x8a", 30) + "|" + strings.Repeat("\x8a", 80),
		strings.Repeat("a", 1500) + "|" + strings.Repeat("b", 1500),
	} {
		f.Add(s)
	}
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	h := newHouse(f, func(p *Policy) { p.Limits.ClientSessions = 0 }) // those of before may still be ending
	h.serve(p)
	f.Fuzz(func(t *testing.T, stream string) {
		h.owner.mu.Lock()
		h.owner.taken, h.owner.heard = nil, nil
		h.owner.mu.Unlock()
		ours, theirs := net.Pipe()
		p.conns <- theirs
		defer ours.Close()
		m := &machine{t: t, conn: ours, r: bufio.NewReader(ours)}
		m.hear("220", false)
		for _, packet := range strings.Split(stream, "|") {
			var octets []byte
			for _, b := range []byte(packet) {
				if word, ok := words[b]; ok {
					octets = append(octets, word...)
				} else {
					octets = append(octets, b)
				}
			}
			if len(octets) > 0 && len(octets) <= maxCommandLine && !m.over { // what the guard reads at once
				sent := make(chan struct{})
				go func() { ours.Write(octets); close(sent) }()
				m.packet(octets)
				if m.over {
					ours.Close()
				}
				<-sent
			}
		}
		var got []string
		for _, taken := range h.owner.messages() {
			got = append(got, taken.bytes)
		}
		if !slices.Equal(got, m.passed) {
			t.Fatalf("%q taken, want %q", got, m.passed)
		}
	})
}
