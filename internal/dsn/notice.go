package dsn

import (
	"fmt"
	"strings"
	"time"

	"onward/internal/address"
)

// maxListed is how many held messages a notice tells of one by one.
const maxListed = 50

// A Notice tells the postmaster of mail that is held: it could neither be
// delivered nor be reported to its sender, and waits for somebody to decide
// (DESIGN.md 9.3).
type Notice struct {
	Hostname address.Domain
	ID       string // of the notice itself: message.NewID
	Now      time.Time
	To       address.Mailbox
	Total    int    // messages held
	Held     []Held // the first of them; more than 50 are not told
}

// A Held is one message that is held.
type Held struct {
	ID     string // what `onward queue` calls it
	Sender address.ReversePath
	Alias  address.Mailbox
	Since  time.Time // when it came
	Reason string
}

// Compose returns the notice. It fails as Report.Compose does.
func (n Notice) Compose() (Mail, error) {
	subject := fmt.Sprintf("%s holds %s", n.Hostname, messages(n.Total))
	e := envelope{hostname: n.Hostname, id: n.ID, date: n.Now, to: n.To, subject: subject, auto: "auto-generated"}
	return single(e.header(), text(n.text()))
}

func (n Notice) text() string {
	var b strings.Builder
	b.WriteString(wrap("", fmt.Sprintf("%s holds %s: what could neither be delivered nor be reported to its sender, and what somebody has set aside. Nothing happens to it until you decide.", n.Hostname, messages(n.Total))))
	listed := n.Held[:min(len(n.Held), maxListed)]
	for _, h := range listed {
		fmt.Fprintf(&b, "\r\n%s\r\n    came  %s\r\n    from  %s\r\n    to    %s\r\n    why   %s\r\n",
			clean(h.ID), day(h.Since), sender(h.Sender), h.Alias, clean(h.Reason))
	}
	if more := n.Total - len(listed); more > 0 {
		fmt.Fprintf(&b, "\r\nand %d more\r\n", more)
	}
	b.WriteString("\r\nOn that machine:\r\n\r\n" +
		"    onward queue list --held     all of them\r\n" +
		"    onward queue show ID         one message, and every attempt\r\n" +
		"    onward queue release ID      try again\r\n" +
		"    onward queue drop ID         throw it away\r\n")
	return b.String()
}

func sender(p address.ReversePath) string {
	if p.IsNull() {
		return "<> (a bounce or other automatic mail)"
	}
	return p.String()
}

func messages(n int) string {
	if n == 1 {
		return "1 message"
	}
	return fmt.Sprintf("%d messages", n)
}
