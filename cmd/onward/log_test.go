package main_test

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/journal"
	"onward/internal/message"
)

// forwarded is a message to an alias that was delivered at once.
func forwarded(id, from, to string, at time.Time) journal.Message {
	m := journal.Message{
		ID: id, Arrived: at, Answered: at, Recipients: []message.Recipient{{Address: mailbox(to), Targets: []address.Mailbox{mailbox("ann@dest.example")}}},
		Outcome: journal.Forwarded, Answer: journal.Answer{Code: 250, Status: "2.0.0", Text: "taken"},
	}
	if from != "" {
		m.From.Mailbox = mailbox(from)
	}
	return m
}

// TestLog: where did it go?
func TestLog(t *testing.T) {
	d := newDesk(t)
	now := time.Now()
	var entries []journal.Entry
	for i := range 100 {
		entries = append(entries, forwarded(fmt.Sprintf("01OLD%021d", i), "ada@sender.example", "me@alias.example", now.Add(-time.Duration(200-i)*time.Hour)))
	}
	entries = append(entries, forwarded(idA, "", "shop@alias.example", now.Add(-time.Minute)))
	entries = append(entries, queued(idB, "ann@dest.example")...)
	entries = append(entries, journal.Event{Message: idB, From: "ada@sender.example", Recipient: "me@alias.example", Targets: []string{"ann@dest.example"}, Outcome: journal.Held, Answer: journal.Answer{Text: "nobody to tell"}})
	note(t, d.state, entries...)
	for _, tt := range []struct {
		args  []string
		lines int
		last  string
	}{
		{nil, 50, "ada@sender.example -> me@alias.example            held       nobody to tell"},
		{[]string{"--limit", "3"}, 3, "held "},
		{[]string{"--limit", "0"}, 103, "held "},
		{[]string{"--since", "200d"}, 103, "held "},
		{[]string{"--since", "2h"}, 3, "held "},
		{[]string{"--since", "200d", "--limit", "7"}, 7, "held "},
		{[]string{"--until", "2h", "--limit", "0"}, 100, "01OLD000000000000000000099"},
		{[]string{"--to", "shop@alias.example"}, 1, idA + "  <> -> shop@alias.example"},
		{[]string{"--to", "alias.example", "--since", "2h"}, 3, "held "},
		{[]string{"--from", "<>"}, 1, idA},
		{[]string{"--from", "ADA@sender.example", "--since", "2h"}, 2, "held "},
		{[]string{"--text", "to tell"}, 1, "held "},
		{[]string{"--to", "nobody@alias.example"}, 0, ""},
	} {
		lines := strings.Split(d.does(t, append([]string{"log"}, tt.args...)...), "\n")
		n := len(lines) - 1
		if n != tt.lines || n > 0 && !strings.Contains(lines[n-1], tt.last) {
			t.Errorf("log %v: %d lines, want %d with %q last:\n%s", tt.args, n, tt.lines, tt.last, strings.Join(lines, "\n"))
		}
	}
	got := objects(t, d.does(t, "log", "--json", "--limit", "2"))
	if len(got) != 2 || got[0]["outcome"] != "queued" || got[0]["to_sender"] != true || got[0]["answer"].(map[string]any)["code"] != 250.0 || got[1]["id"] != idB || got[1]["from"] != "ada@sender.example" {
		t.Errorf("as data: %v", got)
	}
}

// TestLogStory: one message, by its ID or the beginning of it.
func TestLogStory(t *testing.T) {
	d := newDesk(t)
	note(t, d.state, append(queued(idA, "ann@dest.example"), forwarded(idB, "", "me@alias.example", time.Now()))...)
	text := d.does(t, "log", idA)
	for _, want := range []string{
		"Message " + idA, "me@alias.example -> ann@dest.example\n    queued  452 4.2.2 mailbox full", "mx.sender.example [192.0.2.1], in clear", "ada@sender.example", "Grüße", "2.0 KiB",
		"pass  sender.example", "because of this", "deferred  ann@dest.example at mx.dest.example [192.0.2.9:25]; tried while the", "queued  told to the sender, for me@alias.example",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if got := d.does(t, "log", strings.ToLower(idA[:12])); got != text {
		t.Errorf("by the beginning of the ID:\n%s", got)
	}
	d.fails(t, 1, "several messages begin with \"01KB0S8E\": "+idA+", "+idB, "log", "01KB0S8E")
	d.fails(t, 1, `the journal knows no message "01X"`, "log", "01X")
	d.fails(t, 1, `the journal knows no message ""`, "log", "")
	got := objects(t, d.does(t, "log", "--json", idA))
	if len(got) != 1 || got[0]["id"] != idA || len(got[0]["attempts"].([]any)) != 1 || len(got[0]["events"].([]any)) != 2 || got[0]["fates"].([]any)[0].(map[string]any)["outcome"] != "queued" {
		t.Errorf("as data: %v", got)
	}
}

// TestLogFollow: what comes while it is watched is shown within seconds, once,
// also what another process adds; an interrupt ends it well.
func TestLogFollow(t *testing.T) {
	d := newDesk(t)
	note(t, d.state, forwarded("01A", "", "me@alias.example", time.Now()), forwarded("01B", "", "me@alias.example", time.Now()))
	cmd := exec.CommandContext(t.Context(), program, "log", "--follow", "--limit", "1", "--to", "me@alias.example", "-c", d.config)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer timer.Stop()
	lines := bufio.NewScanner(pipe)
	next := func(id string) {
		t.Helper()
		if !lines.Scan() || strings.Fields(lines.Text())[2] != id {
			t.Fatalf("%q, want %s", lines.Text(), id)
		}
	}
	next("01B")
	note(t, d.state, forwarded("01C", "", "me@alias.example", time.Now()), forwarded("01D", "", "you@alias.example", time.Now()))
	next("01C")
	if err := journal.Append(t.Context(), d.state, journal.Event{Message: "01E", Recipient: "me@alias.example", Outcome: journal.Dropped}); err != nil {
		t.Fatal(err)
	}
	next("01E")
	cmd.Process.Signal(syscall.SIGINT)
	if lines.Scan() {
		t.Errorf("more: %q", lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
}
