package main_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"onward/internal/testpeer"
)

// swaks as a client: what it says about us on its exit status and screen, and
// what arrives.
func TestSwaks(t *testing.T) {
	testpeer.Need(t, "swaks")
	s := newStand(t, "me: ann@dest.example")
	const dots = "From: ada@sender.example\r\nSubject: dots\r\n\r\n.\r\n..\r\n.x\r\n\r\n.\r\nend\r\n"
	for _, tt := range []struct {
		name   string
		args   []string
		status int    // swaks's own: 0 sent, 24 no recipient, 28 no AUTH, 29 no TLS
		want   string // on the screen
	}{
		{"plain", nil, 0, "<-  250 2.0.0 "},
		{"HELO", []string{"--protocol", "SMTP"}, 0, "<-  250 2.0.0 "},
		{"TLS", []string{"--tls"}, 0, "<~  250 2.0.0 "},
		{"TLS 1.2", []string{"--tls", "--tls-protocol", "tlsv1_2"}, 0, "TLS started with cipher TLSv1.2"},
		{"TLS 1.1", []string{"--tls", "--tls-protocol", "tlsv1_1"}, 29, "TLS startup failed"},
		{"pipelined", []string{"--pipeline"}, 0, "<-  250 2.0.0 "},
		{"pipelined in TLS", []string{"--pipeline", "--tls"}, 0, "<~  250 2.0.0 "},
		{"null sender", []string{"--from", "<>"}, 0, "<-  250 2.0.0 "},
		{"unknown alias", []string{"--to", "you@alias.example"}, 24, "<** 550 5.1.1 <you@alias.example>: no such alias here"},
		{"relaying", []string{"--to", "ann@dest.example"}, 24, "<** 550 5.7.1 "},
		{"relaying by route", []string{"--to", "@alias.example:ann@dest.example"}, 24, "<** 550 5.7.1 "},
		{"relaying by percent", []string{"--to", "ann%dest.example@alias.example"}, 24, "<** 550 5.1.1 "},
		{"some recipients", []string{"--to", "you@alias.example,me@alias.example"}, 0, "<** 550 5.1.1 <you@alias.example>"},
		{"some recipients pipelined", []string{"--pipeline", "--to", "you@alias.example,me@alias.example"}, 0, "<** 550 5.1.1 <you@alias.example>"},
		{"authentication", []string{"--auth", "PLAIN", "--auth-user", "u", "--auth-password", "p"}, 28, "Host did not advertise authentication"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := s.sink.Count()
			args := append([]string{"--server", s.addr, "--helo", "mx.sender.example", "--from", "ada@sender.example", "--to", "me@alias.example",
				"--data", strings.ReplaceAll(dots, "\r\n", `\n`)}, tt.args...)
			out, status := testpeer.Run(t, "", "swaks", args...)
			if status != tt.status || !strings.Contains(out, tt.want) {
				t.Errorf("exit status %d, want %d and %q in\n%s", status, tt.status, tt.want, out)
			}
			if tt.status != 0 {
				if s.sink.Count() != before {
					t.Error("and yet something was forwarded")
				}
				return
			}
			got := string(s.arrived(t, before+1).Data)
			added, found := strings.CutSuffix(got, dots+"\r\n") // swaks ends with an empty line
			if names := fieldNames(added); !found || !slices.Equal(names, ours) {
				t.Errorf("arrived %q", got)
			}
			if secure := strings.Contains(tt.name, "TLS"); strings.Contains(added, " with ESMTPS") != secure {
				t.Errorf("Received says otherwise about TLS: %s", added)
			}
		})
	}
}

// ours are the fields we put on top, in their order (DESIGN.md 4).
var ours = []string{"DKIM-Signature", "X-Forwarded-To", "X-Forwarded-For", "X-Onward-Loop", "Authentication-Results", "Received"}

// smtp-source sends at us as fast as it can. What it sent is known from a tap
// between it and us.
func TestSMTPSource(t *testing.T) {
	testpeer.Need(t, "smtp-source")
	const kB = 1000
	for _, tt := range []struct {
		name                       string
		length, messages, sessions int
		more                       []string
	}{
		{"10 KB", 10 * kB, 1000, 20, nil},
		{"10 KB, many in a session", 10 * kB, 200, 4, []string{"-d"}},
		{"1 KB", 1 * kB, 20, 4, nil},
		{"256 KiB", 256 << 10, 8, 4, nil}, // the most that is kept in memory, or just over
		{"1 MB", 1000 * kB, 8, 4, nil},
		{"30 MB", 30_000 * kB, 3, 3, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStand(t, "me: ann@dest.example")
			tap := testpeer.StartTap(t, s.addr)
			began := time.Now()
			out, status := testpeer.Run(t, "", "smtp-source", append(tt.more, "-f", "ada@sender.example", "-t", "me@alias.example",
				"-l", fmt.Sprint(tt.length), "-m", fmt.Sprint(tt.messages), "-s", fmt.Sprint(tt.sessions), tap.Addr())...)
			took := time.Since(began)
			if status != 0 {
				t.Fatalf("smtp-source: exit status %d, %s", status, out)
			}
			testpeer.Wait(t, "the end of all sessions", func() bool { return len(tap.Messages()) == tt.messages })
			s.arrived(t, tt.messages)
			sent := map[string]bool{}
			for _, message := range tap.Messages() {
				if len(message) < tt.length {
					t.Fatalf("smtp-source sent %d octets, want at least %d", len(message), tt.length)
				}
				sent[message] = true
			}
			for _, d := range s.sink.Messages() {
				added, message := cutAdded(string(d.Data))
				if !sent[message] || !slices.Equal(fieldNames(added), ours) {
					t.Fatalf("not as it was sent, or a second time: %.1000q", d.Data)
				}
				delete(sent, message)
			}
			t.Logf("%d messages of %d octets in %v: %.0f a second", tt.messages, tt.length, took, float64(tt.messages)/took.Seconds())
		})
	}
}

// cutAdded parts the fields we put on top from what we were given. The last of
// ours ends with the date of its Received.
func cutAdded(message string) (added, given string) {
	end := len(onTop.FindString(message))
	return message[:end], message[end:]
}

var onTop = regexp.MustCompile(`^(?s:.*?)\nReceived: (?s:.*?);\r\n\t.*\r\n`)

// smtp-sink as the destination, in all its moods: what each makes of a message,
// and what the sender hears of it.
func TestSMTPSink(t *testing.T) {
	testpeer.Need(t, "smtp-sink")
	const plain, eightBit = letter, "From: ada@sender.example\r\nSubject: 8 bit\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
	destination := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.3"), uint16(testpeer.FreePort(t, "127.0.0.3")))
	d := serve(t, settings(t, destination)+"domains: {alias.example: {aliases: {me: ann@dest.example}}}\n")
	for _, tt := range []struct {
		name, args, message string
		want                string // the answer to the final dot
	}{
		{"good", "", plain, "250 2.0.0 "},
		{"good with 8 bit", "", eightBit, "250 2.0.0 "},
		{"without ESMTP", "-e", plain, "250 2.0.0 "},
		{"without PIPELINING", "-p", plain, "250 2.0.0 "},
		{"without enhanced status codes", "-E", plain, "250 2.0.0 "},
		{"behind a PIX", "-P", plain, "250 2.0.0 "},
		{"without 8BITMIME", "-8", plain, "250 2.0.0 "},
		{"without 8BITMIME, 8 bit", "-8", eightBit, "554 5.6.3 "},
		{"no EHLO", "-f EHLO", plain, "250 2.0.0 "},
		{"no EHLO for now", "-r EHLO", plain, "451 4."},
		{"slow", "-w 1", plain, "250 2.0.0 "},

		// About us, not about the message (DESIGN.md 9.8).
		{"refuses the connection", "-f CONNECT", plain, "451 4."},
		{"refuses EHLO and HELO", "-f EHLO,HELO", plain, "451 4."},

		{"refuses MAIL", "-f MAIL", plain, "500 5.3.0 "},
		{"refuses RCPT", "-f RCPT", plain, "500 5.3.0 "},
		{"refuses DATA", "-f DATA", plain, "500 5.3.0 "},
		{"refuses the message", "-f .", plain, "500 5.3.0 "},
		{"not now at MAIL", "-r MAIL", plain, "450 4.3.0 "},
		{"not now at RCPT", "-r RCPT", plain, "450 4.3.0 "},
		{"not now at DATA", "-r DATA", plain, "450 4.3.0 "},
		{"not now for the message", "-r .", plain, "450 4.3.0 "},

		{"hangs up at once", "-q CONNECT", plain, "451 4."},
		{"hangs up at EHLO", "-q EHLO", plain, "451 4."},
		{"hangs up at MAIL", "-q MAIL", plain, "451 4."},
		{"hangs up at RCPT", "-q RCPT", plain, "451 4."},
		{"hangs up at DATA", "-q DATA", plain, "451 4."},
		{"hangs up at the message", "-q .", plain, "451 4."},
		{"closes at RCPT", "-Q RCPT", plain, "451 4."},
		{"closes at the message", "-Q .", plain, "451 4."},
		{"hangs up at QUIT", "-q QUIT", plain, "250 2.0.0 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sink := testpeer.StartSMTPSink(t, destination.String(), strings.Fields(tt.args)...)
			talk := d.dial(t)
			talk.Say("MAIL FROM:<ada@sender.example>", "250 ")
			talk.Say("RCPT TO:<me@alias.example>", "250 ")
			talk.Say("DATA", "354 ")
			talk.Say(tt.message+".", tt.want)
			if !strings.HasPrefix(tt.want, "2") {
				return
			}
			if got := sink.Messages(t); len(got) != 1 || !strings.HasSuffix(got[0], "\n"+strings.ReplaceAll(tt.message, "\r\n", "\n")+"\n") { // it ends with an empty line
				t.Errorf("smtp-sink has %q", got)
			}
		})
	}
}
