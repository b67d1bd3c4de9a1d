package reply_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"onward/internal/reply"
)

func TestFrom(t *testing.T) {
	refusal := reply.New(550, "5.1.1", "no %s", "user")
	if got := reply.From(fmt.Errorf("wrapped: %w", refusal)); got != refusal {
		t.Errorf("From lost the reply: %v", got)
	}
	got := reply.From(errors.New("/var/lib: disk full"))
	if got.Code != 451 || got.String() != "451 4.3.0 trouble on our side, please try again later" {
		t.Errorf("our own trouble became %q", got)
	}
	if got.Error() != got.String()+": /var/lib: disk full" {
		t.Errorf("the log reads %q", got.Error())
	}
}

// FuzzClean holds what Clean is for: whatever a stranger said can stand in one
// reply line, one log value, one field (RELIABILITY 65, 68).
func FuzzClean(f *testing.F) {
	for _, s := range []string{"ok", "two\r\n250 lines", "\x1b[31mred\x00", "ünïcode\u2028", "\xff\xfe", "a\tb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := reply.Clean(s)
		if len(got) > reply.MaxText {
			t.Fatalf("%d octets", len(got))
		}
		for i := range len(got) {
			if got[i] < ' ' || got[i] > '~' {
				t.Fatalf("%q has %q in it", got, got[i])
			}
		}
		if reply.Clean(got) != got {
			t.Fatalf("%q is not clean", got)
		}
	})
}

// TestCleanWhole holds that of a long text no word is left half.
func TestCleanWhole(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{strings.Repeat("x", reply.MaxText-10) + " old.name@gmail.com", strings.Repeat("x", reply.MaxText-10)},
		{strings.Repeat("x", reply.MaxText-4) + " old name", strings.Repeat("x", reply.MaxText-4) + " old"},
		{strings.Repeat("x", reply.MaxText-4) + " old", strings.Repeat("x", reply.MaxText-4) + " old"},
		{strings.Repeat("x", reply.MaxText+1), strings.Repeat("x", reply.MaxText)},
	} {
		if got := reply.Clean(tt.text); got != tt.want {
			t.Errorf("%q becomes %q", tt.text[reply.MaxText-12:], got[min(len(got), reply.MaxText-12):])
		}
	}
}

// TestParse holds that Parse reads back what String wrote.
func TestParse(t *testing.T) {
	for _, r := range []*reply.Reply{reply.New(550, "5.1.1", "no such user"), reply.New(250, "2.0.0", ""), reply.New(421, "", "closing"), reply.New(550, "", "1.2.3.4 is listed")} {
		if got := reply.Parse(r.String()); got == nil || got.Code != r.Code || got.String() != r.String() {
			t.Errorf("Parse(%q) = %+v", r, got)
		}
	}
	for _, s := range []string{"", "no code", "99 x", "600 x"} {
		if got := reply.Parse(s); got != nil {
			t.Errorf("Parse(%q) = %+v", s, got)
		}
	}
}
