package queue

import (
	"fmt"
	"testing"
	"time"

	"onward/internal/smtpclient"
	"onward/internal/store"
)

// TestLimits holds that the limits of the route in force are kept: how many reports
// there are in an hour, to one sender and to all, how long one is tried, and how long
// a stop may take.
func TestLimits(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, func(_ *world, tr *smtpclient.Transaction) smtpclient.Outcome {
			switch tr.To.Domain {
			case "dest.test":
				return noUser
			case "slow.test":
				time.Sleep(time.Hour)
			}
			return greylist
		})
		route := w.queue.Route()
		route.SenderReports, route.Reports, route.ReportLifetime, route.Drain = 2, 3, 2*time.Hour, 20*time.Second
		w.queue.Route = func() Route { return route }
		w.run()
		for i, sender := range []string{"ada", "ada", "ada", "bob", "cyd"} {
			wait(time.Second)
			item := w.item(fmt.Sprint("m", i), "a@dest.test")
			item.Sender.Local = sender
			w.add(item)
		}
		wait(time.Minute)
		count := func(kind store.Kind, fate Fate) (n int) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, e := range w.events {
				if e.Item.Kind == kind && e.Fate == fate {
					n++
				}
			}
			return n
		}
		if got := w.fates("m2"); len(got) != 1 || got[0] != Held {
			t.Errorf("the third of one sender: %v", got)
		}
		if count(store.Mail, Reported) != 3 || count(store.Mail, Held) != 2 {
			t.Errorf("%d reported, %d held", count(store.Mail, Reported), count(store.Mail, Held))
		}
		wait(100 * time.Minute)
		if n := count(store.Report, Dropped); n != 0 {
			t.Errorf("%d reports dropped within two hours", n)
		}
		wait(3 * time.Hour)
		if n := count(store.Report, Dropped); n != 3 {
			t.Errorf("%d reports dropped after them", n)
		}
		w.add(w.item("slow", "a@slow.test"))
		wait(time.Minute)
		began := time.Now()
		w.stop()
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("it took %v to stop", took)
		}
		w.audit()
	})
}
