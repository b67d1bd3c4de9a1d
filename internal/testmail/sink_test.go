package testmail_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"onward/internal/testmail"
)

func startSink(t testing.TB) *testmail.Sink {
	t.Helper()
	sink, err := testmail.StartSink("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sink.Close)
	return sink
}

func TestSinkKeepsEveryOctet(t *testing.T) {
	sink := startSink(t)
	talk := testmail.Dial(t, sink.Addr().String())
	defer talk.Close()
	talk.Expect("220 ")
	talk.Say("EHLO client.test", "250-sink.test\r\n250-PIPELINING\r\n")
	talk.Say("STARTTLS", "220")
	talk.StartTLS()
	if got := talk.Say("EHLO client.test", "250-"); strings.Contains(got, "STARTTLS") {
		t.Errorf("STARTTLS offered again inside TLS: %q", got)
	}
	talk.Send("mail FROM:<a@client.test> SIZE=15\r\nRCPT TO:<b@sink.test>\r\nRCPT TO:<c@sink.test>\r\nDATA\r\n")
	for _, code := range []string{"250", "250", "250", "354"} {
		talk.Expect(code)
	}
	talk.Say("..\r\n.. \r\n.\x00\r\n...\r\n.", "250 2.0.0 taken")
	talk.Say("QUIT", "221")
	talk.ExpectClose()

	got := sink.Messages()
	if len(got) != 1 {
		t.Fatalf("%d messages, want 1", len(got))
	}
	d := got[0]
	if string(d.Data) != ".\r\n. \r\n\x00\r\n..\r\n" {
		t.Errorf("data %q", d.Data)
	}
	if d.Mail != "mail FROM:<a@client.test> SIZE=15" || !slices.Equal(d.Rcpt, []string{"RCPT TO:<b@sink.test>", "RCPT TO:<c@sink.test>"}) {
		t.Errorf("envelope %q %q", d.Mail, d.Rcpt)
	}
	if d.Helo != "EHLO client.test" || d.TLS != "TLS 1.3" || d.Session != 1 || !d.Peer.Addr().IsLoopback() || d.Reply != "250 2.0.0 taken" {
		t.Errorf("circumstances %+v", d)
	}
	// The third line's dot was not doubled, so the size is not as declared either.
	if got := sink.Faults(); len(got) != 2 || !strings.Contains(got[0], "not doubled") || !strings.Contains(got[1], "SIZE=15 for 14") {
		t.Errorf("faults %q", got)
	}
}

func TestSinkNotesFaults(t *testing.T) {
	open := []string{"EHLO c"}
	begun := []string{"EHLO c", "MAIL FROM:<a@c>", "RCPT TO:<b@s>", "DATA"}
	for _, tt := range []struct {
		name     string
		said     []string // each answered before the next
		sent     string   // then this, and no more
		offer    []string
		want     string // in the only fault
		messages int
	}{
		{"bare LF in a command", nil, "EHLO c\n", nil, "bare LF", 0},
		{"CR in a command", nil, "EHLO c\rd\r\n", nil, "CR or NUL", 0},
		{"long command", open, "NOOP " + strings.Repeat("x", 1020) + "\r\n", nil, "1027 octets", 0},
		{"half a command", open, "MAIL FR", nil, "half a command", 0},
		{"unknown command", open, "XYZZY\r\n", nil, "unknown command", 0},
		{"MAIL before EHLO", nil, "MAIL FROM:<a@c>\r\n", nil, "MAIL before EHLO", 0},
		{"nested MAIL", []string{"EHLO c", "MAIL FROM:<a@c>"}, "MAIL FROM:<b@c>\r\n", nil, "inside a transaction", 0},
		{"no path", open, "MAIL FROM: a@c\r\n", nil, "malformed", 0},
		{"no argument", open, "MAIL\r\n", nil, "malformed", 0},
		{"parameter not offered", open, "MAIL FROM:<a@c> SIZE=4\r\n", []string{"8BITMIME"}, "not offered", 0},
		{"UTF-8 not offered", open, "MAIL FROM:<ä@c>\r\n", []string{"SIZE"}, "non-ASCII", 0},
		{"STARTTLS not offered", open, "STARTTLS\r\n", []string{"SIZE"}, "not offered", 0},
		{"pipelining not offered", open, "MAIL FROM:<a@c>\r\nRCPT TO:<b@s>\r\n", []string{"SIZE"}, "PIPELINING is not", 0},
		{"pipelining after EHLO", nil, "EHLO c\r\nEHLO c\r\n", nil, "PIPELINING is not", 0},
		{"pipelining after DATA", begun[:3], "DATA\r\na\r\n.\r\n", nil, "sent after DATA", 1},
		{"bare LF", begun, "a\nb\r\n.\r\n", nil, "bare CR or LF", 1},
		{"bare CR", begun, "a\rb\r\n.\r\n", nil, "bare CR or LF", 1},
		{"LF.CRLF does not end it", begun, "a\n.\r\nb\r\n.\r\n", nil, "bare CR or LF", 1},
		{"LF.LF does not end it", begun, "a\n.\nb\r\n.\r\n", nil, "bare CR or LF", 1},
		{"CRLF.CR does not end it", begun, "a\r\n..\rb\r\n.\r\n", nil, "bare CR or LF", 1},
		{"8-bit", begun, "ä\r\n.\r\n", nil, "8-bit", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sink := startSink(t)
			if tt.offer != nil {
				sink.Offer(tt.offer...)
			}
			talk := testmail.Dial(t, sink.Addr().String())
			defer talk.Close()
			talk.Expect("220")
			for _, line := range tt.said {
				talk.Say(line, "")
			}
			talk.Send(tt.sent)
			talk.Conn().(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, talk.Conn()) // until the sink is done
			if got := sink.Faults(); len(got) != 1 || !strings.Contains(got[0], tt.want) {
				t.Errorf("faults %q, want one with %q", got, tt.want)
			}
			if got := sink.Count(); got != tt.messages || len(sink.Cuts()) != 0 {
				t.Errorf("%d messages and %d cut, want %d and 0", got, len(sink.Cuts()), tt.messages)
			}
		})
	}
}

func TestSinkDoesAsTold(t *testing.T) {
	sink := startSink(t)
	sink.Answer("CONNECT", "220-hello\r\n220 you")
	sink.Answer("RCPT", "250 2.1.5 fine")
	sink.Answer("rcpt to:<no@sink.test>", "550 5.1.1 no such user")
	sink.Do("RCPT TO:<later@sink.test>", testmail.Action{Reply: "451 4.7.1 later", Times: 1})
	sink.Do(".", testmail.Action{Reply: "452 4.2.2 full", Times: 1})
	talk := testmail.Dial(t, sink.Addr().String())
	defer talk.Close()
	if got := talk.Expect("220"); got != "220-hello\r\n220 you" {
		t.Errorf("greeting %q", got)
	}
	talk.Say("EHLO c", "250")
	talk.Say("MAIL FROM:<>", "250")
	talk.Say("RCPT TO:<no@sink.test>", "550 5.1.1 no such user")
	talk.Say("DATA", "503")
	talk.Say("RCPT TO:<later@sink.test>", "451 4.7.1")
	talk.Say("RCPT TO:<later@sink.test>", "250 2.1.5 fine")
	talk.Say("DATA", "354")
	talk.Say(".", "452")
	talk.Say("MAIL FROM:<>", "250")
	talk.Say("RCPT TO:<b@sink.test>", "250")
	talk.Say("DATA", "354")
	talk.Say(".", "250")
	if got := sink.Messages(); len(got) != 1 || len(got[0].Rcpt) != 1 || got[0].Rcpt[0] != "RCPT TO:<b@sink.test>" {
		t.Errorf("messages %+v", got)
	}
	sink.Do("NOOP", testmail.Action{Reply: "421 4.3.2 bye", Drop: true})
	talk.Say("NOOP", "421")
	talk.ExpectClose()

	sink.Reset()
	sink.Do("EHLO", testmail.Action{Drop: true})
	silent := testmail.Dial(t, sink.Addr().String())
	defer silent.Close()
	silent.Expect("220 sink.test")
	silent.Send("EHLO c\r\n")
	silent.ExpectClose()
}

// TestSinkLimits: an offered SIZE is a limit, declared or not.
func TestSinkLimits(t *testing.T) {
	sink := startSink(t)
	sink.Offer("SIZE 10")
	talk := testmail.Dial(t, sink.Addr().String())
	defer talk.Close()
	talk.Expect("220")
	talk.Say("EHLO c", "250")
	talk.Say("MAIL FROM:<> SIZE=11", "552")
	talk.Say("MAIL FROM:<>", "250")
	talk.Say("RCPT TO:<b@s>", "250")
	talk.Say("DATA", "354")
	talk.Say("123456789\r\n.", "552")
	if sink.Count() != 0 {
		t.Error("kept a message that it refused")
	}
}

// TestSinkManySessions: every message of many sessions is there, once, and Wait
// returns when it is.
func TestSinkManySessions(t *testing.T) {
	const sessions, messages = 20, 50
	sink := startSink(t)
	var wg sync.WaitGroup
	for i := range sessions {
		wg.Go(func() {
			talk := testmail.Dial(t, sink.Addr().String())
			defer talk.Close()
			talk.Expect("220")
			talk.Say("EHLO c", "250")
			for j := range messages {
				talk.Send("MAIL FROM:<>\r\nRCPT TO:<b@s>\r\nDATA\r\n")
				talk.Expect("250")
				talk.Expect("250")
				talk.Expect("354")
				talk.Say(fmt.Sprintf("%d of %d\r\n.", j, i), "250")
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := sink.Wait(ctx, sessions*messages)
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, d := range got {
		seen[string(d.Data)] = true
	}
	if len(seen) != sessions*messages || len(sink.Faults()) != 0 {
		t.Errorf("%d different messages, faults %q", len(seen), sink.Faults())
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	if _, err := sink.Wait(ended, sessions*messages+1); err == nil {
		t.Error("Wait for too many messages returned nil")
	}
}

// TestSinkMood: a mood sees where the dialogue is, and a message can be taken
// without its sender hearing of it.
func TestSinkMood(t *testing.T) {
	sink := startSink(t)
	var steps []string
	sink.Answer("RCPT", "451 4.0.0 the script")
	sink.Behave(func(s testmail.Step) testmail.Action {
		steps = append(steps, fmt.Sprintf("%s|%s|%d|%s|%v", s.Text, s.Mail, len(s.Rcpt), s.Data, s.Early))
		switch {
		case s.Text == "RCPT TO:<b@s>":
			return testmail.Action{Reply: "250 2.1.5 the mood"}
		case strings.Contains(string(s.Data), "silent"):
			return testmail.Action{Drop: true}
		case strings.Contains(string(s.Data), "lost"):
			return testmail.Action{Keep: true, Reset: true}
		}
		return testmail.Action{}
	})
	for _, body := range []string{"usual", "silent", "lost"} {
		talk := testmail.Dial(t, sink.Addr().String())
		defer talk.Close()
		talk.Expect("220")
		talk.Say("EHLO c", "250")
		talk.Send("MAIL FROM:<a@c>\r\nRCPT TO:<x@s>\r\nRCPT TO:<b@s>\r\nDATA\r\n")
		for _, prefix := range []string{"250", "451 4.0.0 the script", "250 2.1.5 the mood", "354"} {
			talk.Expect(prefix)
		}
		talk.Send(body + "\r\n.\r\n")
		if body == "usual" {
			talk.Expect("250")
		} else {
			talk.ExpectClose()
		}
	}
	got, refused := sink.Messages(), sink.Refusals()
	if len(got) != 2 || got[0].Unheard || !got[1].Unheard || got[1].Reply != "" || string(got[1].Data) != "lost\r\n" {
		t.Errorf("taken %+v", got)
	}
	if len(refused) != 1 || !refused[0].Unheard || string(refused[0].Data) != "silent\r\n" {
		t.Errorf("not taken %+v", refused)
	}
	for _, want := range []string{"CONNECT||0||false", "RCPT TO:<b@s>|MAIL FROM:<a@c>|0||true", ".|MAIL FROM:<a@c>|1|lost\r\n|false"} {
		if !slices.Contains(steps, want) {
			t.Errorf("no step %q in %q", want, steps)
		}
	}
}
