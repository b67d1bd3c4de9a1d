package main_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"onward/internal/testmail"
)

// TestFloods sends too much of everything. Some wait all the time meanwhile, and
// type an octet now and then, or nothing.
func TestFloods(t *testing.T) {
	e := newEdge(t)
	stop := make(chan struct{})
	slow := make(chan struct{})
	go func() {
		defer close(slow)
		var conns []net.Conn
		for range 20 {
			conn, err := net.Dial("tcp", e.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			conns = append(conns, conn)
		}
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				io.WriteString(conns[n%10], "N")
			}
		}
	}()
	before := e.memory(t)
	t.Run("a command of a gigabyte (RELIABILITY 12)", func(t *testing.T) {
		talk := e.dial(t)
		defer talk.Close()
		talk.Conn().SetDeadline(time.Now().Add(patience))
		sent, block := 0, bytes.Repeat([]byte("x"), 1<<20)
		var err error
		for err == nil && sent < 1<<30 {
			_, err = talk.Conn().Write(block)
			sent += len(block)
		}
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d octets were taken, %v", sent, err)
		}
		e.honest(t)
	})
	t.Run("ten thousand recipients", func(t *testing.T) {
		talk := e.dial(t)
		defer talk.Close()
		talk.Say("MAIL FROM:<eve@sender.example>", "250 ")
		go io.WriteString(talk.Conn(), strings.Repeat("RCPT TO:<me@alias.example>\r\n", 10_000))
		answers, _ := io.ReadAll(talk.Conn())
		if n := strings.Count(string(answers), "\n250 ") + 1; n != 1 {
			t.Errorf("%d recipients were taken", n)
		}
		if n := strings.Count(string(answers), "\n452 "); n == 0 || n > 1000 || !strings.Contains(string(answers), "\n421 ") {
			t.Errorf("%d answers of 452, and at the end %q", n, answers[max(0, len(answers)-100):])
		}
		e.honest(t)
	})
	for name, flood := range map[string]string{
		"guesses": "RCPT TO:<%d@alias.example>\r\n", "resets": "RSET\r\n", "verbs": "FROB\r\n", "messages that are not sent": "MAIL FROM:<eve@sender.example>\r\nRSET\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			talk := e.dial(t)
			defer talk.Close()
			talk.Say("MAIL FROM:<eve@sender.example>", "250 ")
			go func() {
				for n := range 2000 {
					if _, err := io.WriteString(talk.Conn(), strings.ReplaceAll(flood, "%d", strconv.Itoa(n))); err != nil {
						return
					}
				}
			}()
			answers, _ := io.ReadAll(talk.Conn())
			if n := strings.Count(string(answers), "\n"); n > 300 || !strings.Contains(string(answers), "421 ") {
				t.Errorf("%d answers, and at the end %q", n, answers[max(0, len(answers)-100):])
			}
			e.honest(t)
		})
	}
	t.Run("half a million empty lines (RELIABILITY 54)", func(t *testing.T) {
		talk := e.dial(t)
		defer talk.Close()
		talk.Say("MAIL FROM:<eve@sender.example>", "250 ")
		talk.Say("RCPT TO:<me@alias.example>", "250 ")
		talk.Say("DATA", "354 ")
		text := "From: eve@sender.example\r\n" + strings.Repeat("\r\n", 500_000)
		talk.Send(text + ".\r\n")
		talk.Expect("250 2.0.0 ")
		e.pass(t, text)
		e.honest(t)
	})
	close(stop)
	<-slow
	if grown := e.memory(t) - before; grown > 30<<20 && !raced {
		t.Errorf("%d MB more memory than before", grown>>20)
	}
}

// TestVanish ends a session at every octet, by a reset and by closing one side.
// What has no end is no message.
func TestVanish(t *testing.T) {
	e := newEdge(t)
	lines := []string{"EHLO evil.example\r\n", "MAIL FROM:<eve@sender.example>\r\n", "RCPT TO:<me@alias.example>\r\n", "DATA\r\n", letter + "half a message\r\n.\r"}
	for n, line := range lines {
		for cut := range len(line) {
			talk := testmail.Dial(t, e.addr)
			talk.Expect("220 ")
			for _, whole := range lines[:n] {
				talk.Say(strings.TrimSuffix(whole, "\r\n"), "")
			}
			talk.Send(line[:cut+1])
			conn := talk.Conn().(*net.TCPConn)
			if cut%2 == 0 {
				conn.SetLinger(0)
			} else {
				conn.CloseWrite()
				conn.SetDeadline(time.Now().Add(patience))
				if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("after %q the session goes on", line[:cut+1])
				}
			}
			talk.Close()
		}
	}
	e.honest(t)
}
