package queue

import (
	"strings"
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

// TestWakesWhatSessionsLeft holds that what sessions could not deliver, and the
// queue has not tried yet, goes as soon as a session delivers to that domain again.
func TestWakesWhatSessionsLeft(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, always(ok))
		w.run()
		defer w.audit()
		for _, id := range []string{"a", "b", "c", "d", "e"} {
			item := w.item(id, id+"@gmail.test")
			item.Attempts, item.Tried, item.Next = 1, 1, w.queue.clock().Add(2*time.Minute)
			w.add(item)
		}
		wait(time.Second)
		if got := w.fates("a"); len(got) != 0 {
			t.Fatalf("before: %v", got)
		}
		w.queue.Recovered("gmail.test")
		wait(5 * time.Second)
		if got := w.fates("e"); len(got) != 1 || got[0] != Delivered {
			t.Errorf("after: %v", got)
		}
	})
}

// TestStrangersDoNotFillTheQueue holds that where the queue is more than half full,
// final refusals of senders whom nobody may tell are kept in the journal alone.
func TestStrangersDoNotFillTheQueue(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, always(ok))
		stranger := w.item("stranger", "old@gmail.test")
		stranger.Bounceable, stranger.Refused, stranger.Said = false, true, "550 5.1.1 no such user"
		w.queue.Size = 2*stranger.Size - 2
		w.queue.Add(t.Context(), strings.NewReader(rest), []*store.Item{stranger})
		w.run()
		wait(time.Minute)
		if got := w.fates("stranger"); len(got) != 1 || got[0] != Dropped {
			t.Errorf("%v", got)
		}
		w.close()
	})
}
