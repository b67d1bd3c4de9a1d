package loop

import (
	"strings"
	"testing"

	"onward/internal/address"
	"onward/internal/message"
)

func fields(t *testing.T, header string) []message.Field {
	t.Helper()
	b := message.NewBuffer(t.TempDir())
	b.Write([]byte(header + "\r\nbody\r\n"))
	m, err := b.Message()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m.Fields()
}

func TestPassed(t *testing.T) {
	me := address.Mailbox{Local: "Me", Domain: "example.org"}
	other := address.Mailbox{Local: "you", Domain: "example.org"}
	now := Marker{Secrets: []string{"new secret", "old secret"}}
	before := Marker{Secrets: []string{"old secret"}}
	strange := Marker{Secrets: []string{"somebody else's"}}
	for _, tt := range []struct {
		name   string
		header string
		want   bool
	}{
		{"nothing", "Subject: x\r\n", false},
		{"ours", string(now.Field(me)), true},
		{"ours under others", "Received: a\r\n" + string(strange.Field(me)) + string(now.Field(me)), true},
		{"from before the secret changed", string(before.Field(me)), true},
		{"of another address", string(now.Field(other)), false},
		{"made by somebody else", string(strange.Field(me)), false},
		{"cut short", strings.TrimRight(string(now.Field(me)), "\r\n")[:20] + "\r\n", false},
		{"delivered before", "Delivered-To: mE@Example.org\r\n", true},
		{"delivered to somebody else", "Delivered-To: mem@example.org\r\n", false},
		{"not an address", "Delivered-To: <me@example.org>, x\r\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := now.Passed(Read(fields(t, tt.header)), me); got != tt.want {
				t.Errorf("Passed(%q) = %v, want %v", tt.header, got, tt.want)
			}
		})
	}
	if strings.Contains(string(now.Field(me)), "example") {
		t.Error("the mark tells whom it is for")
	}
}
