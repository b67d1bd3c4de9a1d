package inbound

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/reply"
)

// TestDialogues holds each answer on the wire, command by command. After each
// dialogue an honest client is served.
func TestDialogues(t *testing.T) {
	for name, script := range map[string]string{
		"what EHLO offers": `
			S: 220 mx.example.org ESMTP
			C: EHLO client.example
			S: 250-mx.example.org
			C: QUIT
			S: 221
			S!`,
		"HELO": `
			S: 220
			C: HELO client.example
			S: 250 mx.example.org
			C: MAIL FROM:<>
			S: 250 2.1.0
			C: RCPT TO:<me@example.org>
			S: 250 2.1.5
			C: DATA
			S: 354
			C: Subject: x
			C: .
			S: 250 2.0.0 `,
		"order": `
			S: 220
			C: MAIL FROM:<a@b.example>
			S: 503 5.5.1
			C: RCPT TO:<me@example.org>
			S: 503 5.5.1
			C: DATA
			S: 503 5.5.1
			C: EHLO c
			S: 250
			C: RCPT TO:<me@example.org>
			S: 503 5.5.1
			C: DATA
			S: 503 5.5.1
			C: MAIL FROM:<a@b.example>
			S: 250
			C: DATA
			S: 554 5.5.1
			C: RSET
			S: 250
			C: RCPT TO:<me@example.org>
			S: 503
			C: NOOP hello
			S: 250`,
		"nested MAIL (DEPENDENCIES.md B1)": `
			S: 220
			C: EHLO c
			S: 250
			C: MAIL FROM:<a@b.example>
			S: 250
			C: RCPT TO:<me@example.org>
			S: 250
			C: MAIL FROM:<ceo@victim.example>
			S: 503 5.5.1
			C: DATA
			S: 354
			C: x: y
			C: .
			S: 250`,
		"EHLO begins afresh": `
			S: 220
			C: EHLO c
			S: 250
			C: MAIL FROM:<a@b.example>
			S: 250
			C: RCPT TO:<me@example.org>
			S: 250
			C: EHLO c
			S: 250
			C: DATA
			S: 503
			C: RCPT TO:<me@example.org>
			S: 503`,
		"recipients": `
			S: 220
			C: EHLO c
			S: 250
			C: MAIL FROM:<a@b.example>
			S: 250
			C: RCPT TO:<nobody@example.org>
			S: 550 5.1.1 <nobody@example.org>: no such alias here
			C: RCPT TO:<old@example.org>
			S: 550 5.1.1
			C: RCPT TO:<me@elsewhere.example>
			S: 550 5.7.1
			C: RCPT TO:<me%example.org@elsewhere.example>
			S: 550 5.7.1
			C: RCPT TO:<elsewhere.example!me@example.org>
			S: 550 5.1.1
			C: RCPT TO:<"me@example.org"@elsewhere.example>
			S: 550 5.7.1
			C: RCPT TO:<me@[127.0.0.1]>
			S: 550 5.7.1
			C: RCPT TO:<shop@example.org>
			S: 550 5.7.1
			C: RCPT TO:<ME+tag@EXAMPLE.org>
			S: 250
			C: RCPT TO:<"m\e"@example.org>
			S: 250
			C: RCPT TO:<"me@example.org>"@example.org>
			S: 550 5.1.1
			C: RCPT TO:<@relay.example:me@example.org>
			S: 250
			C: RCPT TO:<Postmaster>
			S: 250
			C: RCPT TO:<abuse@example.org>
			S: 250`,
		"from lock": `
			S: 220
			C: EHLO c
			S: 250
			C: MAIL FROM:<bounce@mail.shop.example>
			S: 250
			C: RCPT TO:<shop@example.org>
			S: 250`,
		"addresses (DEPENDENCIES.md A4)": `
			S: 220
			C: EHLO c
			S: 250
			C: MAIL FROM:<"victim@evil.test> SIZE=9 X"@x>
			S: 250
			C: RSET
			S: 250
			C: MAIL FROM:<a@b@c.example>
			S: 501 5.1.7
			C: MAIL FROM:<a..b@c.example>
			S: 501 5.1.7
			C: MAIL FROM:<\xff\xfe@c.example>
			S: 501 5.1.7
			C: MAIL FROM:a@b.example
			S: 501 5.5.4
			C: MAIL FROM:<a@b.example>X
			S: 501 5.5.4
			C: MAIL FROM: <a@b.example>
			S: 250
			C: RCPT TO:<me@example.org> NOTIFY=NEVER
			S: 555 5.5.4`,
		"long addresses": `
			S: 220
			C: EHLO c
			S: 250
			C: MAIL FROM:<` + strings.Repeat("a", 65) + `@b.example>
			S: 501 5.1.7 sender address is too long
			C: MAIL FROM:<a@` + strings.Repeat("abcdefghi.", 25) + `example>
			S: 501 5.1.7 sender address is too long
			C: MAIL FROM:<` + strings.Repeat("a", 64) + `@b.example>
			S: 250`,
		"control characters": `
			S: 220
			C: EHLO a\rX-Inj:y
			S: 500 5.5.2
			S!`,
		"NUL": `
			S: 220
			C: EHLO a\0b
			S: 500 5.5.2
			S!`,
		"bare LF ends no command": `
			S: 220
			R: EHLO c\n
			S: 500 5.5.2
			S!`,
		"HELO needs a name": `
			S: 220
			C: EHLO
			S: 501 5.5.4
			C: EHLO a(b)c
			S: 501 5.5.4
			C: EHLO \xff
			S: 501 5.5.4
			C: EHLO [127.0.0.1]
			S: 250`,
		"parameters": `
			S: 220
			C: EHLO c
			S: 250
			C: MAIL FROM:<a@b.example> SIZE=99999999
			S: 552 5.3.4
			C: MAIL FROM:<a@b.example> SIZE=99999999999999999999999
			S: 552 5.3.4
			C: MAIL FROM:<a@b.example> SIZE=-1
			S: 501 5.5.4
			C: MAIL FROM:<a@b.example> BODY=BINARYMIME
			S: 501 5.5.4
			C: MAIL FROM:<a@b.example> RET=FULL
			S: 555 5.5.4
			C: MAIL FROM:<a@b.example> AUTH=<>
			S: 555 5.5.4
			C: MAIL FROM:<a@b.example> SIZE=1 SIZE=2
			S: 501 5.5.4
			C: MAIL FROM:<a@b.example> SIZE=1000 BODY=8BITMIME SMTPUTF8
			S: 250`,
		"SMTPUTF8": `
			S: 220
			C: EHLO c
			S: 250
			C: MAIL FROM:<jürgen@b.example>
			S: 553 5.6.7
			C: MAIL FROM:<a@b.example>
			S: 250
			C: RCPT TO:<jürgen@example.org>
			S: 553 5.6.7
			C: RSET
			S: 250
			C: MAIL FROM:<jürgen@b.example> SMTPUTF8
			S: 250
			C: RCPT TO:<JÜRGEN@example.org>
			S: 250`,
		"other commands": `
			S: 220
			C: VRFY me
			S: 252
			C: EXPN list
			S: 502
			C: HELP
			S: 214
			C: AUTH PLAIN x
			S: 502
			C: FROB
			S: 500 5.5.1
			C: STARTTLSFOO
			S: 500
			C: noop
			S: 250
			C: RSET x
			S: 501`,
		"BDAT is not offered, its octets are no commands (DEPENDENCIES.md B3)": `
			S: 220
			C: EHLO c
			S: 250
			R: BDAT 30 LASTX\r\nMAIL FROM:<a@b.example>\r\n
			S: 500
			S!`,
		"a web request": `
			S: 220
			C: GET / HTTP/1.1
			S: 500
			S!`,
		"a TLS hello": `
			S: 220
			C: \x16\0\0\0
			S: 500
			S!`,
		"too many errors (DEPENDENCIES.md B8)": `
			S: 220
			C: EHLO c
			S: 250
			C: MAIL FROM:<a@b.example>
			S: 250` + strings.Repeat(`
			C: RCPT TO:<nobody@example.org>
			S: 550`, 10) + `
			S: 421 4.7.0
			S!`,
		"too many commands that lead nowhere (DEPENDENCIES.md B8)": `
			S: 220` + strings.Repeat(`
			C: NOOP
			S: 250`, maxJunk) + `
			C: NOOP
			S: 421
			S!`,
		"too many recipients that have to wait": `
			S: 220
			C: EHLO c
			S: 250
			C: MAIL FROM:<a@unknown.example>
			S: 250
			C: RCPT TO:<me@example.org>
			S: 250` + strings.Repeat(`
			C: RCPT TO:<abuse@example.org>
			S: 452 4.5.3`, maxDeferred) + `
			C: RCPT TO:<abuse@example.org>
			S: 421
			S!`,
		"a header of a proxy that nobody told us of": `
			S: 220
			C: PROXY TCP4 192.0.2.1 192.0.2.2 56324 25
			S: 500
			S!`,
		"a command past EHLO": `
			S: 220
			R: EHLO c\r\nMAIL FROM:<a@b.example>\r\n
			S: 554 5.5.0
			S!`,
		"a message past DATA": `
			S: 220
			C: EHLO c
			S: 250
			R: MAIL FROM:<a@b.example>\r\nRCPT TO:<me@example.org>\r\nDATA\r\nx: y\r\n.\r\n
			S: 250
			S: 250
			S: 554 5.5.0
			S!`,
		"plain text past STARTTLS": `
			S: 220
			C: EHLO c
			S: 250
			R: STARTTLS\r\nMAIL FROM:<a@b.example>\r\n
			S: 554 5.5.0
			S!`,
		"STARTTLS and then no TLS": `
			S: 220
			C: EHLO c
			S: 250
			C: STARTTLS
			S: 220
			C: MAIL FROM:<a@b.example>
			S!`,
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t, nil)
			if name == "STARTTLS and then no TLS" { // the alert of the TLS layer comes before the end
				script = strings.TrimSuffix(strings.TrimSpace(script), "S!")
			}
			h.dialog(script)
			h.honest()
		})
	}
}

// A lateListener accepts when a client has had time to speak.
type lateListener struct{ net.Listener }

func (l lateListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	time.Sleep(50 * time.Millisecond)
	return conn, err
}

// TestEarlyTalkers holds that whoever speaks before the greeting is not listened
// to (RFC 5321 4.3.1, RELIABILITY 9).
func TestEarlyTalkers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, nil)
	h.connectTo(l.Addr().String())
	h.serve(lateListener{l})
	for _, early := range []string{"EHLO c\r\n", "\r\n", "E", "PROXY TCP4 192.0.2.1 192.0.2.2 56324 25\r\n", "\x16\x03\x01\x00"} {
		c := h.connect()
		c.send(early)
		c.expect("554 5.5.0 ")
		c.closed()
	}
	h.honest()
}

// TestSRSRecipient holds STANDARDS.md S3 and S4: bounces only, and only to
// addresses of ours.
func TestSRSRecipient(t *testing.T) {
	h := open(t, nil)
	good := srsAddress(t)
	c := h.dial()
	c.say("EHLO c", "250")
	c.say("MAIL FROM:<eve@sender.example>", "250")
	c.say("RCPT TO:<"+good+">", "550 5.1.1")
	c.say("RSET", "250")
	c.say("MAIL FROM:<>", "250")
	local, domain, _ := strings.Cut(good, "@")
	for i := range 5 { // change characters of the hash, one at a time
		b := []byte(local)
		at := len("SRS0=") + i
		if b[at] == 'Q' || b[at] == 'q' {
			b[at] = '7'
		} else {
			b[at] = 'Q'
		}
		c.say(fmt.Sprintf("RCPT TO:<%s@%s>", b, domain), "550 5.1.1")
	}
	c.say("RCPT TO:<srs0"+strings.ToUpper(good[4:])+">", "250")
	c.say("RCPT TO:<"+good+">", "250")
	c.say("DATA", "354")
	c.say("Subject: your mail\r\n\r\nbounced\r\n.", "250")
	got := h.owner.messages()[0].env
	if !got.From.IsNull() || len(got.Recipients) != 2 || !got.Recipients[1].SRS || got.Recipients[1].Targets[0].String() != "Bob@sender.example" {
		t.Errorf("envelope %+v", got)
	}
}

// TestHome holds that what goes back to a sender who is one of our own users
// goes where the mail of that user goes, since its MX is this server: a bounce,
// which no from lock keeps out, and an answer to a rewritten From.
func TestHome(t *testing.T) {
	h := open(t, nil)
	c := h.dial()
	c.say("EHLO c", "250")
	c.say("MAIL FROM:<>", "250")
	c.say("RCPT TO:<"+srsAddressOf(t, "nobody@example.org")+">", "550 5.1.1")
	c.say("RCPT TO:<"+srsAddressOf(t, "shop@example.org")+">", "250")
	c.say("DATA", "354")
	c.say("Subject: your mail\r\n\r\nbounced\r\n.", "250")
	got := h.owner.messages()[0].env.Recipients[0]
	if !got.SRS || formatMailboxes(got.Targets) != "[ada@gmail.com]" {
		t.Errorf("recipient %+v", got)
	}
	tx := &transaction{policy: testPolicy(t), arrived: time.Now()}
	author := address.Mailbox{Local: "Me+news", Domain: "example.org"}
	if match, err := tx.home(author); err != nil || formatMailboxes(match.Targets) != "[ada@gmail.com]" {
		t.Errorf("an author of ours: %v, %v", match.Targets, err)
	}
}

func TestStartTLS(t *testing.T) {
	h := open(t, nil)
	c := h.dial()
	if ehlo := c.say("EHLO c", "250-mx.example.org\r\n"); !strings.Contains(ehlo, "STARTTLS") || strings.Contains(ehlo, "CHUNKING") {
		t.Errorf("EHLO: %q", ehlo)
	}
	c.say("MAIL FROM:<a@b.example>", "250")
	c.say("STARTTLS", "220")
	secure := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	c.conn = secure
	c.r.Reset(secure)
	c.say("MAIL FROM:<a@b.example>", "503") // all is forgotten
	c.say("RCPT TO:<me@example.org>", "503")
	if ehlo := c.say("EHLO c", "250"); strings.Contains(ehlo, "STARTTLS") {
		t.Errorf("STARTTLS is offered twice: %q", ehlo)
	}
	c.say("STARTTLS", "503")
	c.envelope()
	c.say("Subject: x\r\n\r\nsecret\r\n.", "250")
	c.say("QUIT", "221")
	trace := string(h.owner.messages()[0].env.Received)
	if !strings.Contains(trace, "with ESMTPS") || !strings.Contains(trace, "TLS 1.3") {
		t.Errorf("trace %q", trace)
	}
	state := secure.ConnectionState()
	if state.Version < tls.VersionTLS12 {
		t.Errorf("TLS version %x", state.Version)
	}
	h.honest()
}

// TestPipelining holds that a whole envelope in one packet is answered in
// order, and that commands may follow the final dot (RFC 2920 3.1).
func TestPipelining(t *testing.T) {
	h := open(t, nil)
	c := h.dial()
	c.say("EHLO c", "250")
	for range 3 {
		c.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<me@example.org>\r\nRCPT TO:<nobody@example.org>\r\nDATA\r\n")
		c.expect("250 2.1.0")
		c.expect("250 2.1.5")
		c.expect("550 5.1.1")
		c.expect("354")
		c.send("x: y\r\n\r\nhello\r\n.\r\nRSET\r\nNOOP\r\n")
		c.expect("250 2.0.0 ")
		c.expect("250")
		c.expect("250")
	}
	if n := len(h.owner.messages()); n != 3 {
		t.Errorf("%d messages", n)
	}
}

// TestLongLines holds DEPENDENCIES.md B4: commands are bounded, body lines are
// not cut, split or refused.
func TestLongLines(t *testing.T) {
	h := open(t, nil)
	c := h.dial()
	c.say("NOOP "+strings.Repeat("x", maxCommandLine-8), "250")
	c.send("NOOP " + strings.Repeat("x", maxCommandLine))
	c.expect("500 5.5.6")
	c.closed()

	c = h.dial()
	c.begin()
	body := "Subject: x\r\n\r\n" + strings.Repeat("y", 200_000) + "\r\n"
	c.say(body+".", "250")
	if got := h.owner.messages()[0].bytes; got != body {
		t.Errorf("%d octets came, %d were sent", len(got), len(body))
	}
	h.honest()
}

// TestReceived holds the form of the trace field (STANDARDS.md P5).
func TestReceived(t *testing.T) {
	h := open(t, nil)
	c := h.dial()
	c.begin()
	got := c.say("x: y\r\n.", "250 2.0.0 ")
	env := h.owner.messages()[0].env
	want := fmt.Sprintf("Received: from client.example ([127.0.0.1])\r\n\tby mx.example.org with ESMTP\r\n\tid %s\r\n\tfor <me@example.org>;\r\n\t%s\r\n",
		env.ID, env.Arrived.Format(time.RFC1123Z))
	if string(env.Received) != want || !strings.HasPrefix(string(env.Results), "Authentication-Results: mx.example.org;\r\n") {
		t.Errorf("got %q and %q, want results and %q", env.Results, env.Received, want)
	}
	if !strings.Contains(got, env.ID) {
		t.Errorf("the id %s is not in the answer %q", env.ID, got)
	}
	c.say("MAIL FROM:<a@b.example>", "250")
	c.say("RCPT TO:<me@example.org>", "250")
	c.say("RCPT TO:<abuse@example.org>", "250")
	c.say("DATA", "354")
	c.say("x: y\r\n.", "250")
	if trace := h.owner.messages()[1].env.Received; strings.Contains(string(trace), "me@") {
		t.Errorf("one recipient is told of another: %q", trace)
	}
}

// FuzzCommand holds that a line of the wire gives either a refusal or values
// that are safe to write again (RELIABILITY 13, 61).
func FuzzCommand(f *testing.F) {
	for _, s := range []string{
		"EHLO client.example", "MAIL FROM:<a@b.example> SIZE=10 BODY=8BITMIME SMTPUTF8", `RCPT TO:<"a>b"@c.example>`,
		"RCPT TO:<@r.example:a@b.example>", "MAIL FROM:<>", "RCPT TO:<Postmaster>", "R\u017fET", "BDAT 3 LAST", "GET / HTTP/1.1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		c, err := parseCommand(line)
		if err != nil {
			if r := reply.From(err); r.Code/100 != 5 || r.Status == "" {
				t.Fatalf("%q: %v", line, err)
			}
			return
		}
		for _, s := range []string{c.from.String(), c.to.String()} {
			if strings.ContainsAny(s, "\r\n\x00") || len(s) > address.MaxPath {
				t.Fatalf("%q gives %q", line, s)
			}
		}
		if (c.verb == "EHLO" || c.verb == "HELO") && strings.ContainsAny(c.arg, " \r\n()<>") {
			t.Fatalf("%q gives the name %q", line, c.arg)
		}
		if c.utf8 == false && !c.from.IsASCII() {
			t.Fatalf("%q: UTF-8 without SMTPUTF8", line)
		}
	})
}
