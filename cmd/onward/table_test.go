package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/journal"
	"onward/internal/problem"
	"onward/internal/status"
	"onward/internal/store"
)

// terminal is a screen of so many columns, with colour.
func terminal(columns int) (*screen, *bytes.Buffer) {
	var out bytes.Buffer
	return &screen{Writer: bufio.NewWriter(&out), colour: true, columns: columns}, &out
}

// hostile is what a stranger may write anywhere.
const hostile = "a\x1b[31mb\x1b]0;title\x07\r\nc\u2028d\u202ee\x00f\x80g\u0085h\u200bi"

var paints = regexp.MustCompile("\x1b\\[[0-9]+m")

// tame fails the test unless the output holds nothing that a terminal would
// obey but line ends and our own colours, and no line is too long.
func tame(t *testing.T, output string, columns int) {
	t.Helper()
	for line := range strings.SplitSeq(paints.ReplaceAllString(output, ""), "\n") {
		if visible(line) != line {
			t.Errorf("%q", line)
		}
		if columns > 0 && problem.Cells(line) > columns {
			t.Errorf("%d cells in %d columns: %q", problem.Cells(line), columns, line)
		}
	}
}

// TestRowsFit: whatever the width of the terminal and of what there is to say,
// rows stay within it, and every colour is ended.
func TestRowsFit(t *testing.T) {
	long := strings.Repeat("x", 200)
	for _, columns := range []int{60, 80, 100, 119, 120, 140, 200, 1000} {
		for _, text := range []string{"", "ada", hostile, long, strings.Repeat("日本", 60), strings.Repeat("é", 100)} {
			s, out := terminal(columns)
			l := &logView{screen: s}
			q := &queueView{screen: s, now: time.Now()}
			mailbox := address.Mailbox{Local: text, Domain: "example.org"}
			for range 2 {
				l.row(journal.Event{Time: time.Now(), Message: "01KB0S8EPVWC0123456789ABCD", From: text, Recipient: text, Outcome: journal.Forwarded, By: text, Answer: journal.Answer{Code: 250, Text: text}})
				q.row(&store.Item{ID: 123456, Message: "01KB0S8EPVWC0123456789ABCD", Recipient: mailbox, Target: mailbox, Host: text, Said: text, Arrived: time.Now().Add(-40 * 24 * time.Hour), Next: time.Now().Add(time.Hour), Attempts: 99999})
				q.row(&store.Item{ID: 1, Message: text, Recipient: mailbox, Target: mailbox, State: store.Held, Reason: text, Arrived: time.Now()})
			}
			s.Flush()
			tame(t, out.String(), columns)
			if strings.Count(out.String(), "\x1b[0m")*2 != strings.Count(out.String(), "\x1b[") && text != hostile {
				t.Errorf("colours do not end: %q", out)
			}
			want := 6 + 2 // rows and heads
			if columns < narrow {
				want = 6*2 + 2
			}
			if n := strings.Count(out.String(), "\n"); n != want {
				t.Errorf("%d columns: %d lines, want %d\n%s", columns, n, want, out)
			}
		}
	}
}

// TestElsewhere: into a file or a pipe nothing is cut, and nothing coloured.
func TestElsewhere(t *testing.T) {
	var out bytes.Buffer
	l := &logView{screen: newScreen(&out)}
	long := strings.Repeat("x", 300)
	if err := l.print([]journal.Event{{Message: "01KB0S8EPVWC0123456789ABCD", From: long + "@sender.example", Recipient: "me@example.org", Outcome: journal.Rejected, Answer: journal.Answer{Code: 550, Status: "5.1.1", Text: long}}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"01KB0S8EPVWC0123456789ABCD", long + "@sender.example -> me@example.org  rejected", "550 5.1.1 " + long} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, &out)
		}
	}
	if strings.Contains(out.String(), "\x1b") || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("%q", &out)
	}
}

// TestHostileStory: a message whose every word is hostile is told in words.
func TestHostileStory(t *testing.T) {
	answer := journal.Answer{Code: 250, Status: hostile, Text: hostile}
	story := &journal.Story{
		ID: hostile, Arrived: time.Now(), Client: hostile, Helo: hostile, TLS: hostile, From: hostile, Subject: "=?utf-8?Q?=1B[31m=E2=80=AE?= " + hostile, Size: 1,
		Verdict:  &journal.Verdict{SPF: hostile, SPFDomain: hostile, SPFReason: hostile, DKIM: []journal.Signature{{Domain: hostile, Selector: hostile, Result: hostile, Reason: hostile}}, ARC: hostile, DMARC: hostile, Author: hostile, Policy: hostile, Why: hostile},
		Attempts: []journal.Attempt{{Recipient: hostile, Target: hostile, Host: hostile, Peer: hostile, TLS: hostile, Step: hostile, Result: hostile, Answer: answer}},
		Events:   []journal.Event{{From: hostile, Recipient: hostile, Targets: []string{hostile}, Outcome: hostile, By: hostile, Answer: answer}, {ToSender: true, Recipient: hostile, Outcome: hostile}},
		Fates:    []journal.Fate{{Recipient: hostile, Target: hostile, Outcome: hostile, Answer: answer}, {Recipient: hostile, Outcome: hostile}},
	}
	for _, columns := range []int{0, 80, 140} {
		s, out := terminal(columns)
		s.story(story)
		s.item(&store.Item{Message: hostile, State: store.Held, Reason: hostile, Host: hostile, Said: hostile, Recipient: address.Mailbox{Local: hostile}, Sender: address.ReversePath{Mailbox: address.Mailbox{Local: hostile}}})
		s.verbatim("Subject: " + hostile + "\r\n\tfolded\r\n")
		s.loss(&store.Item{Recipient: address.Mailbox{Local: hostile}}, hostile)
		s.Flush()
		tame(t, out.String(), 0) // a word may be longer than a line
	}
}

func TestShorten(t *testing.T) {
	for _, tt := range []struct {
		in   string
		n    int
		want string
	}{
		{"ada@example.org", 15, "ada@example.org"},
		{"ada@example.org", 9, "ada@….org"},
		{"ada@example.org", 1, "…"},
		{"日本語日本語", 6, "日…語"},
		{"", 5, ""},
	} {
		if got := shorten(tt.in, tt.n); got != tt.want {
			t.Errorf("shorten(%q, %d) = %q, want %q", tt.in, tt.n, got, tt.want)
		}
	}
}

func TestParseTime(t *testing.T) {
	was := time.Local
	time.Local = time.FixedZone("here", 3600)
	defer func() { time.Local = was }()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.Local)
	for _, tt := range []struct {
		in   string
		end  bool
		want string
	}{
		{"2h", false, "2026-11-22 10:00:00 +0100"},
		{"14d", true, "2026-11-08 12:00:00 +0100"},
		{"2026-11-20", false, "2026-11-20 00:00:00 +0100"},
		{"2026-11-20", true, "2026-11-21 00:00:00 +0100"},
		{"2026-11-20 09:30", true, "2026-11-20 09:30:00 +0100"},
		{"2026-11-20T09:30:15", false, "2026-11-20 09:30:15 +0100"},
		{"2026-11-20T09:30:15Z", false, "2026-11-20 09:30:15 +0000"},
		{"yesterday", false, ""},
		{"-2h", false, ""},
		{"2026-13-01", false, ""},
	} {
		got, err := parseTime("--since", tt.in, now, tt.end)
		switch _, misused := err.(misuse); {
		case tt.want == "" && !misused:
			t.Errorf("%s: %v, %v; want misuse", tt.in, got, err)
		case tt.want != "" && (err != nil || got.Format("2006-01-02 15:04:05 -0700") != tt.want):
			t.Errorf("%s: %v, %v; want %s", tt.in, got, err, tt.want)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59 * time.Second: "59s", time.Minute: "1m", 119 * time.Minute: "1h", 47 * time.Hour: "47h", 48 * time.Hour: "2d", 120 * 24 * time.Hour: "120d",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 octets", 1023: "1023 octets", 1536: "1.5 KiB", 3 << 20: "3.0 MiB", 5 << 30: "5.0 GiB"} {
		if got := status.Octets(n); got != want {
			t.Errorf("octets(%d) = %s, want %s", n, got, want)
		}
	}
}

// TestPrintable holds that JSON of ours says the same and moves no terminal.
func TestPrintable(t *testing.T) {
	want := map[string]string{"text": "a\x7fb\u009b2Jc\u202ed\u2028e 王 🔬 \U000e0001 \"\n<>"}
	for name, print := range map[string]func(io.Writer, any) error{"page": printJSON, "line": printLine} {
		var b bytes.Buffer
		if err := print(&b, want); err != nil {
			t.Fatal(err)
		}
		var got map[string]string
		if err := json.Unmarshal(b.Bytes(), &got); err != nil || got["text"] != want["text"] {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		for _, r := range strings.ReplaceAll(b.String(), "\n", "") {
			if !strconv.IsPrint(r) {
				t.Errorf("%s: %q in %q", name, r, b.String())
			}
		}
	}
}
