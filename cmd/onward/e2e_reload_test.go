package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"onward/internal/testpeer"
)

// An edited configuration is in force within two seconds, for the next message
// on a connection that was open all the time (DESIGN.md 5.1).
func TestReload(t *testing.T) {
	s := newStand(t, "me: ann@dest.example", "other: other@dest.example")
	open := s.dial(t) // through all that follows
	goesTo := func(target string, n int) {
		t.Helper()
		send(open, "ada@sender.example", "me@alias.example", "250 2.0.0 ")
		if got := s.arrived(t, n).Rcpt[0]; got != "RCPT TO:<"+target+">" {
			t.Errorf("message %d went to %s, want %s", n, got, target)
		}
	}
	goesTo("ann@dest.example", 1)

	mark, edited := s.log.mark(), time.Now()
	if out, status := testpeer.Run(t, "", "sed", "-i", "s/ann@dest/bob@dest/", s.config()); status != 0 {
		t.Fatal(out)
	}
	s.log.wait(t, mark, `configuration reloaded`)
	if took := time.Since(edited); took > 3*time.Second { // 2 s, and a busy machine
		t.Errorf("the edit was in force after %v", took)
	}
	goesTo("bob@dest.example", 2)

	// A broken file: the log names the line, mail flows as before.
	mark = s.log.mark()
	s.configure(t, s.yaml("me: carl@dest.example", "other: [other@dest.example", "third: third@dest.example"))
	s.log.wait(t, mark, fmt.Sprintf(`level=ERROR .*onward\.yaml:(%d|%d|%d)`, aliasLine+1, aliasLine+2, aliasLine+3))
	s.log.wait(t, mark, `not reloaded, the old one stays in force`)
	goesTo("bob@dest.example", 3)

	mark = s.log.mark()
	s.configure(t, s.yaml("me: carl@dest.example", "other: nowhere@alias.example"))
	at := fmt.Sprintf(`onward\.yaml:%d:\d+`, aliasLine+1)
	s.log.wait(t, mark, `level=ERROR .*`+at+`.*nowhere`)
	goesTo("bob@dest.example", 4)
	stdout, stderr, status := onward(t, "check", "-c", s.config())
	if want := fmt.Sprintf("%s:%d:", s.config(), aliasLine+1); status != 1 || stdout != "" || !strings.Contains(stderr, want) || !strings.Contains(stderr, "other: nowhere@alias.example") {
		t.Errorf("check: exit status %d, %q, %q; want 1, %q and the line itself", status, stdout, stderr, want)
	}

	// The repaired file is in force again, and SIGHUP reads it once more.
	mark = s.log.mark()
	s.configure(t, s.yaml("me: carl@dest.example"))
	s.log.wait(t, mark, `configuration reloaded`)
	goesTo("carl@dest.example", 5)
	if _, stderr, status := onward(t, "check", "-c", s.config()); status != 0 {
		t.Errorf("check: exit status %d, %q; want 0", status, stderr)
	}
	mark = s.log.mark()
	s.signal(t, syscall.SIGHUP)
	s.log.wait(t, mark, `configuration reloaded`)
	goesTo("carl@dest.example", 6)
}

// What a file includes is watched too, and a file that is new to a pattern.
func TestReloadIncluded(t *testing.T) {
	s := newStand(t, "me: ann@dest.example")
	if err := os.Mkdir(filepath.Join(s.dir, "aliases.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	include := func(text string) {
		t.Helper()
		mark := s.log.mark()
		if err := os.WriteFile(filepath.Join(s.dir, "aliases.d", "second.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		s.log.wait(t, mark, `configuration reloaded`)
	}
	mark := s.log.mark()
	s.configure(t, s.yaml("me: ann@dest.example")+"include: [aliases.d/*.yaml]\n")
	s.log.wait(t, mark, `configuration reloaded`)
	for i, target := range []string{"bob@dest.example", "carl@dest.example"} {
		include("domains: {second.example: {aliases: {me: " + target + "}}}\n")
		send(s.dial(t), "ada@sender.example", "me@second.example", "250 2.0.0 ")
		if got := s.arrived(t, i+1).Rcpt[0]; got != "RCPT TO:<"+target+">" {
			t.Errorf("went to %s, want %s", got, target)
		}
	}
}

// A transaction ends under the configuration it began with: what RCPT promised
// is what happens.
func TestReloadInsideTransaction(t *testing.T) {
	s := newStand(t, "me: ann@dest.example")
	talk := s.dial(t)
	talk.Say("MAIL FROM:<ada@sender.example>", "250 ")
	talk.Say("RCPT TO:<me@alias.example>", "250 ")
	mark := s.log.mark()
	s.configure(t, s.yaml("you: bob@dest.example"))
	s.log.wait(t, mark, `configuration reloaded`)
	talk.Say("DATA", "354 ")
	talk.Say(letter+".", "250 2.0.0 ")
	if got := s.arrived(t, 1).Rcpt[0]; got != "RCPT TO:<ann@dest.example>" {
		t.Errorf("went to %s, want the target of its time", got)
	}
	talk.Say("MAIL FROM:<ada@sender.example>", "250 ")
	talk.Say("RCPT TO:<me@alias.example>", "550 5.1.1 ")
	talk.Say("RCPT TO:<you@alias.example>", "250 ")
}
