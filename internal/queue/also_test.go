package queue

import (
	"io"
	"strings"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/smtpclient"
)

// TestReportNamesAllAliases holds that where several recipients of a message led
// to one target, its sender is told that it reached none of them, also after a
// restart.
func TestReportNamesAllAliases(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var got string
		w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
			if tr.To.Domain == "dest.test" {
				return noUser
			}
			all, _ := io.ReadAll(tr.Open())
			got = string(all)
			return ok
		})
		item := w.item("m1", "a@dest.test")
		item.Also = []address.Mailbox{{Local: "with space", Domain: "example.org"}, {Local: "c", Domain: "example.net"}}
		w.add(item)
		w.restart()
		wait(time.Minute)
		for _, want := range []string{"rfc822; alias-a@example.org\r\n", "rfc822; \"with space\"@example.org\r\n", "rfc822; c@example.net\r\n"} {
			if !strings.Contains(got, "Final-Recipient: "+want) {
				t.Errorf("no %q in %s", want, got)
			}
		}
		w.audit()
	})
}
