package queue

import (
	"slices"
	"time"

	"onward/internal/address"
	"onward/internal/smtpclient"
	"onward/internal/store"
)

const (
	firstWindow = 5 // attempts at once for a domain that has proved nothing (RELIABILITY.md 5)
	awayAfter   = 5 // messages in a row that a domain did not take
)

// A destination is what the schedule knows of one domain. It is lost at a
// restart, and learned again.
type destination struct {
	domain address.Domain
	busy   int           // attempts under way
	window int           // how many there may be: one more with each message taken, until the limit
	ahead  []*store.Item // what is due next, as it was when it was read

	failures int  // in a row
	away     bool // it cannot be reached, or takes nothing from anybody

	// What everybody at this domain has to wait for. One mailbox that is paused
	// is not enough; two that wait for the same moment are.
	pausedUntil time.Time
	notBefore   time.Time       // that an item heard last
	target      address.Mailbox // whose that was

	used time.Time // last
}

// newDestination returns what is known of a domain before the first attempt.
// When the item has been tried in vain, the domain may have been away.
func newDestination(domain address.Domain, triedInVain bool) *destination {
	return &destination{domain: domain, window: firstWindow, away: triedInVain}
}

// room returns how many more attempts may be begun.
func (d *destination) room(now time.Time, limit int) int {
	if within(d.pausedUntil, longestWait, now) {
		return 0
	}
	window := d.window
	if limit > 0 {
		window = min(window, limit)
	}
	return max(0, window-d.busy)
}

// next returns what is due next, as it was when it was read, or nil.
func (d *destination) next() *store.Item {
	if d == nil || len(d.ahead) == 0 {
		return nil
	}
	item := d.ahead[0]
	d.ahead = slices.Delete(d.ahead, 0, 1) // not [1:], which would keep it in memory
	return item
}

// note learns from the outcome of an attempt, and reports whether the domain was
// away and is back.
func (d *destination) note(target address.Mailbox, out smtpclient.Outcome, limit int) (back bool) {
	switch {
	case takesMail(out):
		return d.took(limit)
	case out.Limited:
		d.window = 1 // G9
		if out.NotBefore.Equal(d.notBefore) && target != d.target {
			d.pausedUntil = out.NotBefore
		}
		d.notBefore, d.target = out.NotBefore, target
	case !out.Tried: // others have all slots
		d.window = max(1, d.window-1)
	default:
		d.failures++
		if out.Said == nil || d.failures >= awayAfter {
			d.away = true
			d.window = min(d.window, firstWindow)
		}
	}
	return false
}

// took notes that the domain takes mail.
func (d *destination) took(limit int) (back bool) {
	back = d.away
	d.away, d.failures = false, 0
	if d.window++; limit > 0 {
		d.window = min(d.window, limit)
	}
	return back
}

// takesMail reports whether a destination has done its work on a message.
func takesMail(out smtpclient.Outcome) bool {
	return out.Result == smtpclient.Delivered || out.Result == smtpclient.Refused && out.Said != nil
}
