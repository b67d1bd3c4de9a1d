package main

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"onward/internal/address"
	"onward/internal/config"
	"onward/internal/doctor"
)

// TestChecksFit: whatever the width and whatever is said, prose stays within the
// terminal, and a record is one line that can be copied.
func TestChecksFit(t *testing.T) {
	record := "mx.example.org. 3600 IN TXT \"" + strings.Repeat("x", 300) + "\""
	for _, columns := range []int{60, 80, 120, 200} {
		s, out := terminal(columns)
		s.checks([]doctor.Check{
			{Name: "MX example.org", State: doctor.OK, Sentence: "Mail for example.org goes to 10 mx.example.org, which is this server."},
			{Name: "reverse 2001:db8:1234:5678:9abc:def0:1234:5678", State: doctor.Warning, Sentence: "a\x1b[31m\r\nb\u202e" + strings.Repeat(" word", 40)},
			{Name: "SPF mx.example.org", State: doctor.Failure, Sentence: "There is none.", Mend: record},
		})
		s.Flush()
		text := out.String()
		if !strings.Contains(text, "\n    "+record+"\n") {
			t.Errorf("%d columns: the record is broken:\n%s", columns, text)
		}
		tame(t, strings.Replace(text, record, "", 1), columns)
		for _, want := range []string{"\x1b[32mok\x1b[0m ", "\x1b[33mwarning\x1b[0m ", "\x1b[31mfailure\x1b[0m ", "1 ok, 1 warning, 1 failure."} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is missing in %q", want, text)
			}
		}
	}
	var plain bytes.Buffer
	if err := printChecks(&plain, []doctor.Check{{Name: "a", State: doctor.Failure, Sentence: "b", Mend: "c\nd"}}, false); err != nil {
		t.Fatal(err)
	}
	if want := "failure  a  b\n    c\n    d\n\n0 ok, 0 warnings, 1 failure.\n"; plain.String() != want {
		t.Errorf("%q, want %q", plain.String(), want)
	}
}

// TestRecordsAreTame: what stands in the DNS of a domain, and in a file that is
// imported, reaches the terminal as text only.
func TestRecordsAreTame(t *testing.T) {
	for _, columns := range []int{0, 80} {
		s, out := terminal(columns)
		b := &begun{
			Config: hostile, Deaf: true, Lost: []loss{{hostile, hostile, hostile}},
			Records: []doctor.Record{{Name: hostile, Zone: "example.org", Type: "TXT", Value: hostile, Instead: []string{hostile}, Note: hostile, TTL: 1}},
			cfg:     &config.Config{Hostname: "mx.example.org", StateDir: hostile},
		}
		b.show(s)
		s.Flush()
		tame(t, out.String(), 0)
	}
}

// TestAsk: answers are asked for until they are good, and an empty one is the
// standard.
func TestAsk(t *testing.T) {
	good := func(s string) error {
		if s == "bad" {
			return fmt.Errorf("%q is %s", s, hostile)
		}
		return nil
	}
	var out bytes.Buffer
	a := &asker{there: true, in: bufio.NewReader(strings.NewReader("bad\n\n  word  \n\n\n")), out: &out}
	if got, err := a.ask("What", "", "--what", good); got != "word" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := a.ask("What", "usual", "--what", good); got != "usual" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := a.ask("What", "", "", good); got != "" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := a.ask("What", "usual", "--what", good); err == nil {
		t.Errorf("%q after the end of input", got)
	}
	tame(t, out.String(), 0)
	if !strings.Contains(out.String(), "What [usual]: ") {
		t.Errorf("%q", out.String())
	}

	d := &newDomain{name: "example.org"}
	a = &asker{there: true, in: bufio.NewReader(strings.NewReader("\nme\nme=you@gmail.com\n*=a@gmail.com, b@outlook.com\n/^x=(.*)$/=y@gmail.com\n\n")), out: &out}
	if err := a.aliases(d); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(d.aliasLines(""), "\n"); got != "me: you@gmail.com\n'*': [a@gmail.com, b@outlook.com]\n'/^x=(.*)$/': y@gmail.com" {
		t.Error(got)
	}
}

// TestYAMLText: a text is read back as it was, whatever YAML would make of it.
func TestYAMLText(t *testing.T) {
	for _, key := range []string{"me", "yes", "No", "null", "y", "1", "007", "1e3", "0x10", "a.b", "a'b", "a-b", "-", "~", "a+b", "#x", "a#b", "&a", "!a", "%a", "a=b", "{a}", "ñandú", "*", "/^a'b: (.+)$/", "/^\\d+$/", "2026-11-22", "=", "true"} {
		d := &newDomain{name: "example.org"}
		d.alias(key).to = []string{"you@gmail.com", "o'neil@gmail.com", "1@gmail.com"}
		path := t.TempDir() + "/onward.yaml"
		s := setup{hostname: "mx.example.org", postmaster: "o'neil@gmail.com", stateDir: "/var/lib/it's here", domains: []*newDomain{d}}
		if _, err := s.write(path, false, nil); err != nil {
			t.Errorf("%q: %v", key, err)
			continue
		}
		cfg, _ := config.Load(path)
		if got := cfg.Domains[0].Aliases[0]; got.Key != key || strings.Join(got.To, " ") != "you@gmail.com o'neil@gmail.com 1@gmail.com" || cfg.StateDir != "/var/lib/it's here" {
			t.Errorf("%q is read as %q %q, %q", key, got.Key, got.To, cfg.StateDir)
		}
	}
}

// TestTargetDomains: mail hosts that are looked at are those of other people,
// the most used first.
func TestTargetDomains(t *testing.T) {
	cfg := &config.Config{Hostname: "mx.example.org", Postmaster: address.Mailbox{Local: "you", Domain: "a.example"}, Domains: []*config.Domain{{
		Name: "example.org",
		Aliases: []*config.Alias{
			{To: []string{"x@b.example", "me@example.org"}}, {To: []string{"y@b.example", "$1@c.example"}},
		},
	}}}
	if got := fmt.Sprint(targetDomains(cfg)); got != "[b.example a.example c.example]" {
		t.Error(got)
	}
}
