package queue

import (
	"math/rand/v2"
	"time"

	"onward/internal/smtpclient"
)

// When the next attempt is (RELIABILITY.md 5, P11). The first ones are for
// greylisting, the others are kind.
var delays = []time.Duration{2 * time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour}

const (
	longestWait = 4 * time.Hour    // a Next further away comes from a wrong clock (RELIABILITY 90)
	limitedWait = 15 * time.Minute // after a rate limit that names no time
	slotWait    = 15 * time.Second // for a free slot
	minTried    = 5                // real attempts before an item expires (RELIABILITY 90)
)

// backoff returns how long to wait after so many real attempts, with 20 % of
// jitter both ways, so that what came together does not come back together
// (RELIABILITY 76).
func backoff(tried int) time.Duration {
	if tried == 0 {
		return 0
	}
	d := delays[min(tried, len(delays))-1]
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// nextAttempt returns when an item is tried again after an outcome that was not
// final; tried counts the real attempts, this one included. A pause that a
// destination wants is kept to its end, and a little more, as everybody waits for
// that moment (RELIABILITY 77).
func nextAttempt(out smtpclient.Outcome, tried int, now time.Time) time.Time {
	wait := backoff(max(tried, 1))
	switch {
	case out.Limited && out.NotBefore.After(now):
		pause := out.NotBefore.Sub(now)
		wait = pause + time.Duration(rand.Float64()*0.2*float64(pause))
	case out.Limited:
		wait = limitedWait
	case !out.Tried:
		wait = slotWait + time.Duration(rand.Float64()*float64(slotWait))
	}
	return now.Add(min(wait, longestWait))
}

// expired reports whether an item that still could not be delivered has had its
// time: by the clock, which may be wrong, and by real attempts.
func expired(expires time.Time, tried int, now time.Time) bool {
	return now.After(expires) && tried >= minTried
}

// within reports whether now is in the time of that length before end. When the
// clock was set back, it is not (RELIABILITY 90).
func within(end time.Time, length time.Duration, now time.Time) bool {
	left := end.Sub(now)
	return 0 < left && left <= length
}
