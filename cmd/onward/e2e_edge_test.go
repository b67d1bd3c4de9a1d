package main_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"onward/internal/testmail"
	"onward/internal/testpeer"
)

// An edge is a stand that strangers come to. It holds at its end that nothing went
// on but the honest messages and what a test says besides, that nobody but the
// target of the alias ever got anything, and that the daemon is none the worse: no
// panic, no strange line in its log, no session left.
type edge struct {
	*stand
	passed int // messages that are to be at the destination
}

// newEdge starts an edge. Messages may have 1 MiB.
func newEdge(t *testing.T) *edge {
	t.Helper()
	e := &edge{stand: newStandOf(t, &daemon{}, "limits: {message: 1MiB}\n", "me: ann@dest.example", "dürer: ann@dest.example")}
	t.Cleanup(func() { e.inspect(t) })
	e.honest(t)
	return e
}

// atOnce is how long an honest client may wait for everything together.
func atOnce() time.Duration {
	if raced {
		return 5 * time.Second
	}
	return time.Second
}

// honest shows that an honest client is served at once, and that nothing came
// through meanwhile.
func (e *edge) honest(t testing.TB) {
	t.Helper()
	began := time.Now()
	talk := e.dial(t)
	send(talk, "ada@sender.example", "me@alias.example", "250 2.0.0 ")
	talk.Say("QUIT", "221 ")
	talk.Close()
	if took := time.Since(began); took > 3*atOnce() { // whoever had to wait for others would wait for ten
		t.Errorf("an honest client was served in %v", took)
	}
	e.pass(t, letter)
}

// pass expects that one more message has gone on, with these octets at its end,
// and no other.
func (e *edge) pass(t testing.TB, octets string) {
	t.Helper()
	e.passed++
	if d := e.arrived(t, e.passed); !strings.HasSuffix(string(d.Data), octets) {
		t.Errorf("another message than was sent: %.300q", d.Data)
	}
}

// play holds a dialogue. "C: " lines are sent, "R: " ones without CRLF, "S: " is
// the beginning of the reply that is due, "S!" the end of the connection. Octets
// are written as in Go.
func play(t testing.TB, talk *testmail.Talk, script string) {
	t.Helper()
	for line := range strings.Lines(strings.TrimSpace(script)) {
		kind, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		octets, err := strconv.Unquote(`"` + strings.ReplaceAll(text, `"`, `\"`) + `"`)
		if err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		switch kind {
		case "C:":
			talk.Send(octets + "\r\n")
		case "R:":
			talk.Send(octets)
		case "S:":
			talk.Expect(octets)
		case "S!":
			talk.ExpectClose()
		}
	}
}

// inspect stops the daemon in the way that makes it tell what it is doing.
func (e *edge) inspect(t *testing.T) {
	t.Helper()
	if t.Failed() {
		return
	}
	testpeer.Wait(t, "the sessions to end", func() bool { return e.sessions(t) == 0 })
	time.Sleep(100 * time.Millisecond) // from the last one's close to its end
	if n := e.sink.Count(); n != e.passed {
		t.Errorf("%d messages at the destination, want %d", n, e.passed)
	}
	for _, d := range e.sink.Messages() {
		if len(d.Rcpt) != 1 || d.Rcpt[0] != "RCPT TO:<ann@dest.example>" || strings.Contains(d.Mail, "victim") {
			t.Errorf("a message went from %q to %q", d.Mail, d.Rcpt)
		}
	}
	mark := e.log.mark()
	e.signal(t, syscall.SIGQUIT)
	e.end(t)
	text := e.log.String()
	if dump := text[mark:]; !strings.Contains(dump, "goroutine ") || strings.Contains(dump, "inbound.(*conn)") {
		t.Errorf("sessions are left: %s", dump)
	}
	text = text[:mark]
	for line := range strings.Lines(text) {
		if !logLine.MatchString(line) {
			t.Errorf("in the log: %.500q", line)
		}
	}
	if strings.Contains(text, "panic") {
		t.Error("a panic")
	}
}

// logLine is one event in printable characters.
var logLine = regexp.MustCompile(`^time=\S+ level=(INFO|WARN) msg=[\PC]+\n$`)

// descriptors returns what the daemon has open.
func (d *daemon) descriptors(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", d.cmd.Process.Pid))
	if err != nil || len(files) == 0 { // of a daemon that has died too
		t.Fatalf("no files of onward in /proc: %v", err)
	}
	return files
}

// sessions returns how many connections the daemon has to its clients.
func (d *daemon) sessions(t testing.TB) (n int) {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	const established, closeWait = "01", "08"
	_, port, _ := net.SplitHostPort(d.addr)
	number, _ := strconv.Atoi(port)
	for line := range strings.Lines(string(table)) { // of which the second field is our address, and the fourth the state
		f := strings.Fields(line)
		if strings.HasSuffix(f[1], fmt.Sprintf(":%04X", number)) && (f[3] == established || f[3] == closeWait) {
			n++
		}
	}
	return n
}

// TestAbuse plays what programs that are no mail servers say, and worse ones.
func TestAbuse(t *testing.T) {
	e := newEdge(t)
	const envelope = `
		S: 220
		C: EHLO evil.example
		S: 250
		C: MAIL FROM:<eve@sender.example>
		S: 250
		C: RCPT TO:<me@alias.example>
		S: 250
		`
	const hidden = `MAIL FROM:<ceo@victim.example>\r\nRCPT TO:<me@alias.example>\r\nDATA\r\nSubject: x\r\n\r\nsmuggled\r\n.\r\n`
	for name, script := range map[string]string{
		"a web request with a message in it (RELIABILITY 11)": `
			S: 220
			R: POST / HTTP/1.1\r\nHost: mx.onward.example\r\n\r\nEHLO evil.example\r\n` + hidden + `
			S: 500
			S!`,
		"a proxy request": `
			S: 220
			R: CONNECT victim.example:25 HTTP/1.0\r\n\r\n` + hidden + `
			S: 500
			S!`,
		"a TLS hello": `
			S: 220
			R: \x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n` + hidden + `
			S: 500
			S!`,
		"SSH": `
			S: 220
			R: SSH-2.0-OpenSSH_9.6\r\n` + hidden + `
			S: 500
			S!`,
		"BDAT that is sent anyway (RELIABILITY 10)": envelope + `
			R: BDAT 600 LAST\r\n` + hidden + `
			S: 500
			S!`,
		"BDAT of nothing": envelope + `
			R: BDAT 0\r\nBDAT 0\r\nBDAT 0 LAST\r\n
			S: 500
			S!`,
		"pipelining past DATA (RELIABILITY 9)": envelope + `
			R: DATA\r\nSubject: x\r\n\r\n.\r\n` + hidden + `
			S: 554 5.5.0
			S!`,
		"pipelining past EHLO": `
			S: 220
			R: EHLO evil.example\r\n` + hidden + `
			S: 554 5.5.0
			S!`,
		"a message that is too large, and commands behind it (RELIABILITY 4)": envelope + `
			C: DATA
			S: 354
			R: ` + strings.Repeat("x", 1_200_000) + `\r\n.\n` + hidden + `
			S: 55
			C: RCPT TO:<me@alias.example>
			S: 503
			C: DATA
			S: 503`,
		"a message without end": envelope + `
			C: DATA
			S: 354
			R: ` + strings.Repeat("x", 3_000_000) + `\r\n` + hidden + `
			S: 552 5.3.4
			S!`,
		"a transaction that outlives its refusal (RELIABILITY 8)": envelope + `
			C: DATA
			S: 354
			C: Subject: bare\n
			C: .
			S: 550 5.6.0
			C: RCPT TO:<me@alias.example>
			S: 503
			C: DATA
			S: 503
			C: MAIL FROM:<eve@sender.example>
			S: 250
			C: DATA
			S: 554`,
		"DATA without a recipient, and the message all the same": `
			S: 220
			C: EHLO evil.example
			S: 250
			C: MAIL FROM:<eve@sender.example>
			S: 250
			C: RCPT TO:<nobody@alias.example>
			S: 550
			C: DATA
			S: 554
			C: Subject: x
			S: 50`,
		"octets that are no text (RELIABILITY 13)": `
			S: 220
			C: EHLO evil.example
			S: 250
			C: MAIL FROM:<\xff\xfe@sender.example>
			S: 501
			C: MAIL FROM:<\xc3\xa4@sender.example>
			S: 553 5.6.7
			C: MAIL FROM:<\xc3\xa4@sender.example> SMTPUTF8
			S: 250
			C: RCPT TO:<d\xfcrer@alias.example>
			S: 501
			C: RCPT TO:<me\x00@alias.example>
			S: 500
			S!`,
		"a UTF-8 address without SMTPUTF8 (RELIABILITY 14)": `
			S: 220
			C: EHLO evil.example
			S: 250
			C: MAIL FROM:<eve@sender.example>
			S: 250
			C: RCPT TO:<dürer@alias.example>
			S: 553 5.6.7`,
		"parameters (RELIABILITY 61)": `
			S: 220
			C: EHLO evil.example
			S: 250
			C: MAIL FROM:<eve@sender.example> AUTH=x+0D+0AX-Injected:+20y
			S: 555
			C: MAIL FROM:<eve@sender.example> SIZE=1\x0bX
			S: 500
			S!`,
		"a name with more in it": `
			S: 220
			C: EHLO evil.example)\tby mx.onward.example
			S: 500
			S!`,
		"a line end that is none, in a command": `
			S: 220
			R: EHLO evil.example\nMAIL FROM:<ceo@victim.example>\n
			S: 500
			S!`,
		"a header with a NUL": envelope + `
			C: DATA
			S: 354
			C: Sub\x00ject: x
			C: .
			S: 550 5.6.0`,
		"a header without end": envelope + `
			C: DATA
			S: 354
			C: Subject: ` + strings.Repeat("x", 500_000) + `
			C: .
			S: 552 5.3.4`,
		"a header of a thousand and one fields": envelope + `
			C: DATA
			S: 354
			R: ` + strings.Repeat(`x: y\r\n`, 1001) + `
			C: .
			S: 552 5.3.4`,
		"a header that goes on from ours (RELIABILITY 52)": envelope + `
			C: DATA
			S: 354
			C:  folded: into the field above
			C: .
			S: 550 5.6.0`,
	} {
		t.Run(name, func(t *testing.T) {
			talk := testmail.Dial(t, e.addr)
			defer talk.Close()
			play(t, talk, script)
			talk.Close()
			e.honest(t)
		})
	}
}

// Quotes and the like in addresses are just that, also where they are stored
// (RELIABILITY 63, 66, 68).
func TestHostileAddresses(t *testing.T) {
	e := newEdge(t)
	for _, sender := range []string{
		`"'; DROP TABLE items; --"@sender.example`,
		`"` + strings.Repeat("'", 60) + `"@sender.example`, // too long for SRS, so it is stored
		"$1%s%n{}`id`@sender.example",
		`"a\"><script>"@sender.example`,
		`"../../../etc/passwd"@sender.example`,
	} {
		send(e.dial(t), sender, "me@alias.example", "250 2.0.0 ")
		e.pass(t, letter)
	}
	talk := e.dial(t)
	talk.Say("MAIL FROM:<eve@sender.example>", "250 ")
	for _, local := range []string{`'--`, `"' OR ''='"`, `*`, `"/^m/"`, `"\*"`, `me\`, `"me "`, `..`} {
		talk.Say("RCPT TO:<"+local+"@alias.example>", "5")
	}
	talk.Close()
	e.honest(t)
}

// TestTLSEdge holds what TLS we offer: no tickets (RELIABILITY 16), nothing
// before version 1.2.
func TestTLSEdge(t *testing.T) {
	e := newEdge(t)
	for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12, tls.VersionTLS11} {
		talk := e.dial(t)
		talk.Say("STARTTLS", "220 ")
		tickets := &ticketCounter{}
		conn := tls.Client(talk.Conn(), &tls.Config{InsecureSkipVerify: true, ServerName: "mx.onward.example", ClientSessionCache: tickets, MinVersion: version, MaxVersion: version})
		err := conn.Handshake()
		if (err == nil) != (version >= tls.VersionTLS12) {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			fmt.Fprint(conn, "EHLO mx.sender.example\r\nQUIT\r\n")
			io.ReadAll(conn)
		}
		if tickets.n > 0 {
			t.Errorf("%s: %d tickets", tls.VersionName(version), tickets.n)
		}
		talk.Close()
	}
	e.honest(t)
}

// A ticketCounter counts session tickets.
type ticketCounter struct{ n int }

func (c *ticketCounter) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (c *ticketCounter) Put(string, *tls.ClientSessionState)        { c.n++ }
