package smtpclient

import (
	"time"

	"onward/internal/reply"
)

// How long a rate limit makes us leave a destination or a mailbox alone
// (RELIABILITY.md 5, G9).
const (
	shortestPause = 15 * time.Minute
	longestPause  = 4 * time.Hour
	pauseMemory   = 4 * time.Hour // from its end; a limit within it doubles the next pause
)

// A pause is the breaker of one destination or mailbox. It opens at a rate
// limit, and nothing is sent until its end. For pauseMemory from then on the
// limits per mailbox hold, and another rate limit means twice the pause. The
// zero pause is none.
type pause struct {
	until  time.Time
	step   int    // how many in a row
	reason string // the destination's words: they name what it is that it limits
	ramp   int    // connections at once after it: one, and one more with each success (G9); 0: no longer bound
}

// begin opens the breaker. It changes nothing when that is so already: those
// are the answers to what was on its way.
func (p *pause) begin(now time.Time, said *reply.Reply) (opened bool) {
	if p.open(now) {
		return false
	}
	if !p.remembered(now) {
		p.step = 0
	}
	length := longestPause
	if p.step < 4 { // 15, 30, 60, 120 min
		length = shortestPause << p.step
	}
	*p = pause{until: now.Add(length), step: p.step + 1, reason: said.String(), ramp: 1}
	return true
}

// open reports whether nothing may be sent.
func (p *pause) open(now time.Time) bool { return now.Before(p.until) }

// remembered reports whether the pause is open, or was not long ago.
func (p *pause) remembered(now time.Time) bool { return now.Before(p.until.Add(pauseMemory)) }

// room reports whether one more connection may be used beside inUse others.
func (p *pause) room(now time.Time, inUse int) bool {
	return p.ramp == 0 || inUse < p.ramp || !p.remembered(now)
}

// succeed notes that a message was taken: one more connection may be used, and
// from full on as many as otherwise.
func (p *pause) succeed(now time.Time, full int) {
	if p.ramp == 0 || p.open(now) {
		return
	}
	if p.ramp++; p.ramp >= full {
		p.ramp = 0
	}
}
