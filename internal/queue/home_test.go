package queue

import (
	"strings"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/smtpclient"
	"onward/internal/store"
)

// TestHome holds that mail of ours to one of our own users goes where the mail of
// that user goes, in as many copies: its domain would bring it back to us, and the
// sender would hear nothing. Where it leads nowhere, the message is held.
func TestHome(t *testing.T) {
	for _, tt := range []struct {
		targets []address.Mailbox
		want    Fate
	}{
		{[]address.Mailbox{{Local: "ada", Domain: "home.test"}, {Local: "ada", Domain: "work.test"}}, Reported},
		{nil, Held},
	} {
		inBubble(t, func(t *testing.T) {
			got := map[string]int{}
			w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
				if tr.To.Domain == "dest.test" {
					return noUser
				}
				w.mu.Lock()
				defer w.mu.Unlock()
				got[tr.To.String()]++
				return ok
			})
			route := w.queue.Route()
			route.Home = func(to address.Mailbox) []address.Mailbox {
				if to.Domain == "sender.test" {
					return tt.targets
				}
				return []address.Mailbox{to}
			}
			w.queue.Route = func() Route { return route }
			w.run()
			item := w.item("m1", "a@dest.test")
			w.add(item)
			wait(time.Minute)
			if fates := w.fates("m1"); len(fates) != 1 || fates[0] != tt.want || len(got) != len(tt.targets) {
				t.Errorf("%v, told %v, want %s", fates, got, tt.want)
			}
			for _, target := range tt.targets {
				if got[target.String()] != 1 {
					t.Errorf("%s got %d reports", target, got[target.String()])
				}
			}
			held := w.items()["m1"]
			if tt.want == Held && (held == nil || held.State != store.Held || !strings.Contains(held.Reason, "leads nowhere")) {
				t.Errorf("%+v", held)
			}
			w.audit()
		})
	}
}
