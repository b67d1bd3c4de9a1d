package queue

import (
	"testing"
	"time"

	"onward/internal/smtpclient"
	"onward/internal/store"
)

// TestRefusedInSession holds that an item whose destination refused it while the
// sender waited is not tried again: its sender is told, or where that may not be
// it is held (RELIABILITY.md 2.2, 39).
func TestRefusedInSession(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, func(_ *world, tx *smtpclient.Transaction) smtpclient.Outcome {
			if tx.To.String() == "old@gmail.test" {
				t.Error("it was tried again")
			}
			return ok
		})
		told, held := w.item("told", "old@gmail.test"), w.item("held", "old@gmail.test")
		held.Bounceable = false
		for _, item := range []*store.Item{told, held} {
			item.Refused, item.Said = true, "550 5.1.1 no such user"
		}
		w.add(told, held)
		w.run()
		wait(time.Minute)
		defer w.audit()
		if got := w.fates("told"); len(got) != 1 || got[0] != Reported {
			t.Errorf("the bounceable one: %v", got)
		}
		if got := w.fates("held"); len(got) != 1 || got[0] != Held {
			t.Errorf("the other one: %v", got)
		}
	})
}
