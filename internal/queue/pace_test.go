package queue

import (
	"testing"
	"time"

	"onward/internal/address"
)

// TestPause holds what a pause of a whole domain is: two mailboxes that wait for
// the same moment; and that a clock set back does not make it longer.
func TestPause(t *testing.T) {
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	until := now.Add(time.Hour)
	ada, bob := address.Mailbox{Local: "ada", Domain: "dest.test"}, address.Mailbox{Local: "bob", Domain: "dest.test"}
	d := newDestination("dest.test", false)
	for _, tt := range []struct {
		target address.Mailbox
		until  time.Time
		paused bool
	}{
		{ada, until, false}, {ada, until, false}, {bob, until.Add(time.Minute), false}, {ada, until, false}, {bob, until, true},
	} {
		d.note(tt.target, limited(false, tt.until), 20)
		if paused := d.room(now, 20) == 0; paused != tt.paused {
			t.Errorf("after %s until %v: paused %v", tt.target, tt.until, paused)
		}
	}
	for at, paused := range map[time.Duration]bool{59 * time.Minute: true, time.Hour: false, -time.Hour: true, -24 * time.Hour: false} {
		if got := d.room(now.Add(at), 20) == 0; got != paused {
			t.Errorf("at %v: paused %v", at, got)
		}
	}
}
