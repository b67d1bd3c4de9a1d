package alias

import (
	"fmt"
	"strings"

	"onward/internal/address"
)

// opens reports whether sender is among those a from lock names. No lock is
// open to all.
func opens(lock []string, sender address.Mailbox) bool {
	for _, text := range lock {
		allowed, err := parseSender(text)
		if err == nil && covers(allowed, sender) {
			return true
		}
	}
	return len(lock) == 0
}

// parseSender reads one entry of a from lock. The Mailbox of "@shop.example"
// has no local part.
func parseSender(s string) (address.Mailbox, error) {
	if name, ok := strings.CutPrefix(s, "@"); ok {
		domain, err := address.ParseDomain(name)
		return address.Mailbox{Domain: domain}, err
	}
	if !strings.Contains(s, "@") {
		return address.Mailbox{}, fmt.Errorf("%.80q has no @", s)
	}
	return address.Parse(s)
}

// covers reports whether sender is the allowed address, or in the allowed
// domain or below it.
func covers(allowed, sender address.Mailbox) bool {
	if allowed.Local == "" {
		return sender.Domain == allowed.Domain ||
			strings.HasSuffix(string(sender.Domain), "."+string(allowed.Domain))
	}
	return sender.Domain == allowed.Domain && fold(sender.Local) == fold(allowed.Local)
}
