package testpeer

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

// An SMTPSink is smtp-sink, the destination that comes with Postfix and can be
// told to misbehave.
type SMTPSink struct{ dir string }

// StartSMTPSink starts smtp-sink on addr with further arguments.
func StartSMTPSink(t testing.TB, addr string, args ...string) *SMTPSink {
	t.Helper()
	s := &SMTPSink{tempDir(t, "smtp-sink")}
	if os.Geteuid() == 0 { // which it does not want to stay
		args = append(args, "-u", "nobody")
	}
	if err := os.Chmod(s.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	args = append(args, "-d", filepath.Join(s.dir, "message."), addr, "100")
	sink := start(t, filepath.Join(s.dir, "log"), "smtp-sink", args...)
	t.Cleanup(func() {
		if err := sink.stop(); err != nil {
			t.Error(err)
		}
	})
	Wait(t, "smtp-sink", func() bool { return listens(addr) })
	return s
}

// listens reports whether somebody takes connections at addr.
func listens(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// Messages returns what the sink has taken, in no particular order: fields of
// its own that say how, and below them the message, with LF line ends.
func (s *SMTPSink) Messages(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "message.*"))
	if err != nil {
		t.Fatal(err)
	}
	var messages []string
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, string(text))
	}
	return messages
}
