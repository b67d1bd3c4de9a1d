package main_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"onward/internal/testmail"
)

// SIGTERM with nothing under way: clients hear 421, and it is over.
func TestStopIdle(t *testing.T) {
	s := newStand(t, "me: ann@dest.example")
	idle := s.dial(t)
	inside := s.dial(t)
	inside.Say("MAIL FROM:<ada@sender.example>", "250 ")
	inside.Say("RCPT TO:<me@alias.example>", "250 ")
	inside.Say("DATA", "354 ")
	inside.Send("Subject: half a mess")

	began := time.Now()
	s.signal(t, syscall.SIGTERM)
	idle.Expect("421 4.3.2 ")
	idle.ExpectClose()
	inside.Expect("421 4.3.2 ")
	inside.ExpectClose()
	if status := s.end(t); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if commands := s.sink.Commands(); len(commands) > 0 {
		t.Errorf("half a message went on: %q", commands)
	}
}

// SIGTERM while the destination thinks about a message: the sender still hears
// what it says, and nobody else gets in meanwhile.
func TestStopFinishesMessage(t *testing.T) {
	s := newStand(t, "me: ann@dest.example")
	s.sink.Do(".", testmail.Action{Reply: "250 2.0.0 taken at last", Delay: 2 * time.Second})
	talk := s.dial(t)
	talk.Say("MAIL FROM:<ada@sender.example>", "250 ")
	talk.Say("RCPT TO:<me@alias.example>", "250 ")
	talk.Say("DATA", "354 ")
	talk.Send(letter + ".\r\n")
	s.heard(t, ".")

	s.signal(t, syscall.SIGTERM)
	if strings.Contains(s.log.String(), "msg=attempt") {
		t.Fatal("the attempt was over before the signal")
	}
	talk.Expect("250 2.0.0 ")
	if status := s.end(t); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	s.arrived(t, 1)
}

// A crash never leaves a message with nobody: the sender heard no 250, so it
// has it still, and the daemon comes up again on what is left.
func TestKill(t *testing.T) {
	s := newStand(t, "me: ann@dest.example")
	for _, at := range []string{"DATA", "."} {
		s.sink.Reset()
		s.sink.Do(at, testmail.Action{Hang: true})
		talk := s.dial(t)
		talk.Say("MAIL FROM:<ada@sender.example>", "250 ")
		talk.Say("RCPT TO:<me@alias.example>", "250 ")
		talk.Say("DATA", "354 ")
		talk.Send(letter + ".\r\n")
		s.heard(t, at)

		s.kill(t)
		talk.ExpectClose()
		s.sink.Reset()
		s.start(t)
		send(s.dial(t), "ada@sender.example", "me@alias.example", "250 2.0.0 ")
		s.arrived(t, 1)
	}
}
