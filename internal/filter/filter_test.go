package filter

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"onward/internal/message"
)

// TestUnchecked holds that there is a line a minute, which counts the others.
func TestUnchecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		log, u := slog.New(slog.NewTextHandler(&text, nil)), Unchecked{}
		for range 60 {
			u.Add(log, "milter x", &message.Envelope{ID: "m"}, errors.New("gone\r\nMAIL"))
			time.Sleep(2 * time.Second)
		}
		lines := strings.Split(strings.TrimSpace(text.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "unchecked=1 ") || !strings.Contains(lines[1], "unchecked=30 ") ||
			!strings.Contains(lines[1], `filter="milter x"`) || !strings.Contains(lines[1], `err="gone  MAIL"`) {
			t.Errorf("%s", &text)
		}
	})
}
