package inbound

import (
	"sync"
	"time"

	"onward/internal/mailauth"
)

// logVerdict writes what authentication found and what was decided.
func (c *conn) logVerdict(tx *transaction, v *mailauth.Verdict, d Decision) {
	var signers []string
	for _, r := range v.DKIM {
		signers = append(signers, r.Domain+"="+r.Result)
	}
	c.log.Info("verified", "id", tx.id, "spf", v.MailFrom.Result, "dkim", signers, "arc", v.ARC.Result,
		"dmarc", v.DMARC.Result, "policy", v.DMARC.Policy, "author", v.Author.Domain, "why", d.Why)
	if v.Hidden && c.server.hidden.turn(tx.arrived) {
		c.log.Warn("a client has a private address: unless it is a program of yours, such as doctor --send, a proxy or a container network hides who clients are, SPF cannot be checked and limits count all as one; use the host's network")
	}
}

// An hourglass lets something through once a minute (DESIGN.md 9.11).
type hourglass struct {
	mu   sync.Mutex
	last time.Time
}

func (h *hourglass) turn(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Sub(h.last) < time.Minute {
		return false
	}
	h.last = now
	return true
}
