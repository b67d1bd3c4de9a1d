package main_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"onward/internal/testmail"
)

// TestSmugglingSequences puts every sequence of up to five CR, LF and dots between
// a message and one that is hidden in it (RELIABILITY 1). What is not the end must
// never be taken for it, in clear and over TLS, in one packet and in two.
func TestSmugglingSequences(t *testing.T) {
	const text, hidden = "From: eve@sender.example\r\n\r\nhello", "MAIL FROM:<ceo@victim.example>\r\nRCPT TO:<me@alias.example>\r\nDATA\r\nSubject: x\r\n\r\nsmuggled"
	var sequences []string
	for all := []string{""}; len(all[0]) < 5; sequences = append(sequences, all...) {
		var longer []string
		for _, s := range all {
			longer = append(longer, s+"\r", s+"\n", s+".")
		}
		all = longer
	}
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", secure), func(t *testing.T) {
			e := newEdge(t)
			var talk *testmail.Talk
			for i, s := range append(sequences, "\r\n\x00.\r\n", "\r\n.\x00\r\n", "\x00\r\n.\n", "\r\n.\r\x00\n") {
				octets := text + s + hidden + "\r\n"
				if strings.Contains(octets, "\r\n.\r\n") {
					continue // the end
				}
				if i%50 == 0 { // a session may have a hundred messages
					if talk = e.dial(t); secure {
						talk.Say("STARTTLS", "220 ")
						talk.StartTLS()
						talk.Say("EHLO mx.sender.example", "250")
					}
					defer talk.Close()
				}
				talk.Say("MAIL FROM:<eve@sender.example>", "250 ")
				talk.Say("RCPT TO:<me@alias.example>", "250 ")
				talk.Say("DATA", "354 ")
				if i%2 == 0 {
					talk.Send(octets + ".\r\n")
				} else {
					talk.Send(text + s)
					time.Sleep(2 * time.Millisecond)
					talk.Send(hidden + "\r\n.\r\n")
				}
				if strings.ContainsAny(strings.ReplaceAll(octets, "\r\n", ""), "\r\n") || strings.Contains(octets, "\n\x00") || strings.Contains(octets, "\n.\x00") {
					talk.Expect("550 5.6.0 ")
					continue
				}
				talk.Expect("250 2.0.0 ")
				e.pass(t, strings.ReplaceAll(octets, "\r\n.", "\r\n"))
			}
			e.honest(t)
		})
	}
}

// TestInjection sends commands behind STARTTLS in the clear, cut at every octet
// (RELIABILITY 6). They are never obeyed: not in the clear, and not after it.
func TestInjection(t *testing.T) {
	e := newEdge(t)
	const octets = "STARTTLS\r\nEHLO evil.example\r\nMAIL FROM:<eve@sender.example>\r\nRCPT TO:<me@alias.example>\r\nDATA\r\nSubject: x\r\n\r\ninjected\r\n.\r\n"
	for cut := 1; cut < len(octets); cut++ {
		talk := e.dial(t)
		talk.Send(octets[:cut])
		time.Sleep(2 * time.Millisecond)
		io.WriteString(talk.Conn(), octets[cut:])
		talk.Conn().SetDeadline(time.Now().Add(patience))
		answer := make([]byte, 4)
		io.ReadFull(talk.Conn(), answer)
		switch string(answer) {
		case "554 ":
		case "220 ":
			rest, err := io.ReadAll(talk.Conn())
			if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
				t.Fatalf("cut at %d: the connection stays open", cut)
			}
			if line, alert, _ := strings.Cut(string(rest), "\r\n"); line != "2.0.0 go ahead" || strings.Contains(alert, "250") {
				t.Fatalf("cut at %d: heard %q", cut, rest)
			}
		default:
			t.Fatalf("cut at %d: answer %q", cut, answer)
		}
		talk.Close()
	}
	e.honest(t)
}
