package main_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"onward/internal/testpeer"
)

// A neighbourhood is onward among real mail servers, who know nothing of each
// other but what DNS says: the sender hands its mail for alias.example to
// onward, onward finds the destination by the MX record of dest.example, and a
// bounce finds its way to the sender by the MX record of sender.example.
//
// The sender also sends straight to dest.example, through a tap, to show what
// it gave to onward; that way is in clear, and STARTTLS is a must on the other.
type neighbourhood struct {
	onward      *daemon
	sender      *testpeer.Postfix
	destination *testpeer.Postfix
	straight    *testpeer.Tap
}

const (
	ann     = "ann@sender.example"
	joerg   = "jörg@sender.example"
	bob     = "bob@dest.example"
	witness = "copy@dest.example"
)

func newNeighbourhood(t *testing.T) *neighbourhood {
	t.Helper()
	testpeer.Need(t, "postfix", "unbound")
	port := testpeer.FreePort(t, "127.0.0.2", "127.0.0.3")
	dns := testpeer.StartUnbound(t,
		"sender.example. 60 IN MX 10 mx.sender.example.",
		"mx.sender.example. 60 IN A 127.0.0.2",
		"dest.example. 60 IN MX 10 mx.dest.example.",
		"mx.dest.example. 60 IN A 127.0.0.3")
	n := &neighbourhood{straight: testpeer.StartTap(t, fmt.Sprintf("127.0.0.3:%d", port))}
	n.onward = serve(t, fmt.Sprintf(`
hostname: mx.onward.example
postmaster: bob@dest.example
state_dir: DIR/state
listen: ["127.0.0.1:0"]
domains:
  alias.example:
    aliases:
      me: bob@dest.example
      ghost: nobody@dest.example
      full: full@dest.example
dns: {resolvers: [%q]}
delivery: {port: %d, allow_private: true}
`, dns, port))
	n.destination = testpeer.StartPostfix(t, testpeer.PostfixConfig{
		Hostname:  "mx.dest.example",
		Listen:    fmt.Sprintf("127.0.0.3:%d", port),
		Mailboxes: []string{bob, witness, "full@dest.example"},
		Params: map[string]string{
			"message_size_limit": "1000000",
			"transport_maps":     fmt.Sprintf("inline:{ {mx.onward.example = smtp:%s} }", bracketed(n.onward.addr)),
			// Taken at RCPT, and given up only later: the one way to get a bounce.
			"virtual_alias_maps": "inline:{ {full@dest.example = x@overflow.example} }",
			"default_transport":  "error:5.2.2 the mailbox is full",
		},
	})
	n.sender = testpeer.StartPostfix(t, testpeer.PostfixConfig{
		Hostname:  "mx.sender.example",
		Listen:    fmt.Sprintf("127.0.0.2:%d", port),
		Mailboxes: []string{ann, joerg},
		Params: map[string]string{
			"relayhost":               bracketed(n.onward.addr),
			"transport_maps":          fmt.Sprintf("inline:{ {dest.example = smtp:%s} }", bracketed(n.straight.Addr())),
			"smtp_tls_security_level": "encrypt",
			"smtp_tls_policy_maps":    fmt.Sprintf("inline:{ {%s = none} }", bracketed(n.straight.Addr())),
		},
	})
	return n
}

// bracketed writes an address the way Postfix wants a host that is not to be
// looked up.
func bracketed(addr string) string {
	host, port, _ := strings.Cut(addr, ":")
	return "[" + host + "]:" + port
}

func TestPostfix(t *testing.T) {
	n := newNeighbourhood(t)
	t.Run("forwards", n.forwards)
	t.Run("relays a refusal", n.relaysRefusal)
	t.Run("relays a refused size", n.relaysSize)
	t.Run("carries a bounce home", n.carriesBounce)
	t.Run("leaves mail to the sender", n.leavesMail)
}

// forwards sends messages of every shape both ways, and compares: what arrives
// through onward is what the sender sent, below the fields of the destination
// and ours.
func (n *neighbourhood) forwards(t *testing.T) {
	header := "From: Ann <ann@sender.example>\nTo: me@alias.example\nSubject: a message\nMessage-ID: <1@sender.example>\n"
	for _, tt := range []struct{ name, from, message string }{
		{"plain", ann, header + "\nhello\n"},
		{"dots", ann, header + "\n.\n..\n.x\n...\n\n.\n"},
		{"8 bit", ann, header + "MIME-Version: 1.0\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: 8bit\n\nGr\xfc\xdfe\n"},
		{"UTF-8", joerg, strings.Replace(header, "Ann <ann@", "Jörg <jörg@", 1) + "\nGrüße\n"},
		{"long lines", ann, header + "\n" + strings.Repeat("a word ", 500) + "\n." + strings.Repeat("x", 5000) + "\n"},
		{"odd header", ann, "X-Fold: a\n\tb\n  c \nx-case : yes\nX-Empty:\n" + header + "X-Long: " + strings.Repeat("y", 3000) + "\n\nhello\n"},
		{"many lines", ann, header + "\n" + strings.Repeat("\n.\nline\n", 5000)},
		{"attachment", ann, header + "\n" + strings.Repeat(strings.Repeat("QUJD", 19)+"\n", 200*1024/77)},
		{"empty body", ann, header + "\n"},
		{"header alone", ann, header},
	} {
		t.Run(tt.name, func(t *testing.T) {
			arrived, sent := len(n.destination.Mail(t, bob)), len(n.straight.Messages())
			n.sender.Submit(t, tt.message, tt.from, "me@alias.example", witness)
			got := newest(n.destination.WaitMail(t, bob, arrived+1))
			testpeer.Wait(t, "the straight copy", func() bool { return len(n.straight.Messages()) > sent })
			given := newest(n.straight.Messages())

			added, found := strings.CutSuffix(got, given)
			if !found {
				t.Fatalf("given %.3000q\narrived %.3000q", given, got)
			}
			want := []string{"Return-Path", "X-Original-To", "Delivered-To", "Received", "DKIM-Signature", "X-Forwarded-To", "X-Forwarded-For", "X-Onward-Loop", "Authentication-Results", "Received"}
			if names := fieldNames(added); !slices.Equal(names, want) {
				t.Errorf("fields on top: %v, want %v", names, want)
			}
			for _, trace := range []string{
				`(?m)^Return-Path: <SRS0=[^@]+@mx\.onward\.example>\r$`,
				`Received: from mx\.onward\.example [^;]*using TLS[^;]*by mx\.dest\.example`, // the second leg
				`Received: from mx\.sender\.example [^;]*by mx\.onward\.example with (ESMTP|UTF8SMTP)S\b[^;]*for <me@alias\.example>;`,
			} {
				if !regexp.MustCompile(trace).MatchString(added) {
					t.Errorf("no %q in %s", trace, added)
				}
			}
		})
	}
}

func newest(messages []string) string { return messages[len(messages)-1] }

// fieldNames returns the names of header fields in their order.
func fieldNames(header string) []string {
	var names []string
	for line := range strings.Lines(header) {
		if line[0] != ' ' && line[0] != '\t' {
			name, _, _ := strings.Cut(line, ":")
			names = append(names, name)
		}
	}
	return names
}

// relaysRefusal: the destination's 550 reaches the sender's server while it
// waits. So the bounce is made by that one, for its own user, and none by us.
func (n *neighbourhood) relaysRefusal(t *testing.T) {
	before, mark := len(n.sender.Mail(t, ann)), n.onward.log.mark()
	n.sender.Submit(t, "Subject: anybody there\n\nhello\n", ann, "ghost@alias.example")
	bounces := n.sender.WaitMail(t, ann, before+1)
	for _, want := range []string{
		`^Return-Path: <>\r\n`,
		`(?m)^Reporting-MTA: dns; mx\.sender\.example\r$`,
		`(?m)^Status: 5\.1\.1\r$`,
		`(?s)Diagnostic-Code: smtp; 550 5\.1\.1\s.*<ghost@alias\.example>.*\sunknown\s+in\s+virtual\s+mailbox\s+table`,
	} {
		if !regexp.MustCompile(want).MatchString(newest(bounces)) {
			t.Errorf("no %q in the bounce:\n%s", want, newest(bounces))
		}
	}
	if strings.Contains(newest(bounces), "nobody@dest.example") {
		t.Error("the bounce names the private target") // STANDARDS.md N3
	}
	n.onward.log.wait(t, mark, `from=ann@sender\.example .*code=550`)
	n.quiet(t)
	if after := n.sender.Mail(t, ann); len(after) != before+1 {
		t.Errorf("%d bounces, want 1", len(after)-before)
	}
}

// relaysSize: the destination's limit is the sender's to hear.
func (n *neighbourhood) relaysSize(t *testing.T) {
	before := len(n.sender.Mail(t, ann))
	n.sender.Submit(t, "Subject: big\n\n"+strings.Repeat(strings.Repeat("x", 70)+"\n", 2_000_000/71), ann, "me@alias.example")
	bounce := newest(n.sender.WaitMail(t, ann, before+1))
	if !strings.Contains(bounce, "552 5.3.4") {
		t.Errorf("no 552 5.3.4 in the bounce:\n%s", bounce)
	}
}

// carriesBounce: the destination takes a message and gives it up later. Its
// bounce goes to the SRS address, which leads to the first sender and nobody
// else.
func (n *neighbourhood) carriesBounce(t *testing.T) {
	for _, from := range []string{ann, joerg} {
		before := len(n.sender.Mail(t, from))
		n.sender.Submit(t, "From: me\nSubject: to a full mailbox\n\nhello\n", from, "full@alias.example")
		bounce := newest(n.sender.WaitMail(t, from, before+1))
		header, body, _ := strings.Cut(bounce, "\r\n\r\n")
		want := []string{"Return-Path", "X-Original-To", "Delivered-To", "Received", "DKIM-Signature", "Authentication-Results", "Received", "Received", "Date", "From"}
		if names := fieldNames(header); !slices.Equal(names[:len(want)], want) {
			t.Errorf("fields of the bounce: %v, want %v first", names, want)
		}
		for _, want := range []string{"Return-Path: <>\r\n", "Delivered-To: " + from + "\r\n", "<MAILER-DAEMON@mx.dest.example>\r\n"} {
			if !strings.Contains(header, want) {
				t.Errorf("no %q in the bounce:\n%s", want, header)
			}
		}
		if !strings.Contains(body, "the mailbox is full") || !strings.Contains(body, "Subject: to a full mailbox") {
			t.Errorf("bounce for %s:\n%s", from, body)
		}
	}
	n.quiet(t)
}

// leavesMail: while the destination is down every message stays with the
// sender's server, which delivers it when it is told to try again.
func (n *neighbourhood) leavesMail(t *testing.T) {
	before := len(n.destination.Mail(t, bob))
	n.destination.Stop(t)
	n.sender.Submit(t, "Subject: later\n\nhello\n", ann, "me@alias.example")
	testpeer.Wait(t, "the deferred message", func() bool {
		queue := n.sender.Queue(t)
		return len(queue) == 1 && queue[0].Queue == "deferred"
	})
	if reason := n.sender.Queue(t)[0].Recipients[0].Reason; !strings.Contains(reason, "said: 451 4.") {
		t.Errorf("the sender's server heard %q, want 451 4.x.x", reason)
	}
	n.destination.Start(t)
	n.sender.Flush(t)
	got := n.destination.WaitMail(t, bob, before+1)
	n.quiet(t)
	if !strings.Contains(newest(got), "Subject: later\r\n") || len(n.destination.Mail(t, bob)) != before+1 {
		t.Errorf("%d messages more, the last %q", len(got)-before, newest(got))
	}
}

// quiet waits until neither server has anything left to deliver.
func (n *neighbourhood) quiet(t *testing.T) {
	t.Helper()
	testpeer.Wait(t, "empty queues", func() bool { return len(n.sender.Queue(t))+len(n.destination.Queue(t)) == 0 })
}
