package replyaddr

import (
	"sync"
	"time"
)

// MaxUses is how many messages an hour one address takes (DESIGN.md 9.5).
const MaxUses = 20

// window is the hour that counts, which ends now.
const window = time.Hour

// Uses counts the messages to each reply address. Its zero value is ready, and is
// as large as what was permitted in the last two hours.
type Uses struct {
	mu    sync.Mutex
	times map[string][]time.Time // by token, oldest first
	swept time.Time
}

// take counts a message now, unless there were too many.
func (u *Uses) take(token string, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sweep(now)
	recent := after(u.times[token], now.Add(-window))
	if len(recent) >= MaxUses {
		return false
	}
	u.times[token] = append(recent, now)
	return true
}

// sweep forgets once in a window what does not count any more.
func (u *Uses) sweep(now time.Time) {
	if u.times != nil && now.Sub(u.swept) < window {
		return
	}
	kept := make(map[string][]time.Time)
	for token, times := range u.times {
		if recent := after(times, now.Add(-window)); len(recent) > 0 {
			kept[token] = recent
		}
	}
	u.times, u.swept = kept, now
}

// after returns the times after start.
func after(times []time.Time, start time.Time) []time.Time {
	for len(times) > 0 && !times[0].After(start) {
		times = times[1:]
	}
	return times
}
