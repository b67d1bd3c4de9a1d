package queue

import (
	"io"
	"strings"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/reply"
	"onward/internal/smtpclient"
)

// TestReportHidesOtherTargets holds that a report tells nothing of the other targets
// of a message, which a destination may know as it forwards there: neither when it
// refused in the session, nor later and after a restart, and also when those targets
// have long been served and left the queue.
func TestReportHidesOtherTargets(t *testing.T) {
	for _, inSession := range []bool{true, false} {
		inBubble(t, func(t *testing.T) {
			said := reply.New(550, "5.1.1", "a@dest.test goes to Secret@Other.Test. and <second@xn--bcher-kva.test>, who are unknown")
			var got string
			w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
				if tr.To.Domain == "dest.test" {
					return smtpclient.Outcome{Result: smtpclient.Refused, Tried: true, Reply: said, Said: said, Host: "mx.test", Step: "RCPT"}
				}
				all, _ := io.ReadAll(tr.Open())
				got = string(all)
				return ok
			})
			item := w.item("m1", "a@dest.test")
			item.Private = []address.Domain{"other.test", "xn--bcher-kva.test"}
			if item.Refused = inSession; inSession {
				item.Said = said.String()
			}
			w.add(item)
			w.restart()
			wait(time.Minute)
			if !strings.Contains(got, "are unknown") {
				t.Errorf("no words of the destination in %s", got)
			}
			for _, private := range []string{"secret", "second", "other.test", "xn--bcher", "dest.test"} {
				if strings.Contains(strings.ToLower(got), private) {
					t.Errorf("%q in %s", private, got)
				}
			}
			w.audit()
		})
	}
}
