// Package ratelimit holds what each of many keys may do in a time: so many at
// once, and as many again, evenly, in every period.
//
// Keys are what strangers choose (a sender's domain, an alias), so what is
// remembered is bounded: a key that is back within its means is forgotten, and
// beyond that the one not heard of for longest. To have a key forgotten while it
// is over its limit somebody must use up as many others as there is room for.
package ratelimit

import (
	"container/list"
	"sync"
	"time"
)

// A Limiter is the memory of one kind of limit. It is safe for concurrent use.
type Limiter struct {
	period time.Duration
	room   int

	mu     sync.Mutex
	keys   map[string]*list.Element // of *debt
	recent *list.List               // front: heard of last
}

// A debt is what one key has used: by that moment it is paid off. That is a
// token bucket in one number (the generic cell rate algorithm).
type debt struct {
	key  string
	paid time.Time
}

// New returns a Limiter of limits a period, with room for so many keys.
func New(period time.Duration, room int) *Limiter {
	return &Limiter{period: period, room: room, keys: map[string]*list.Element{}, recent: list.New()}
}

// Allow counts one use of a key and reports whether it is within the limit of
// most a period; what is not does not count. A limit of 0 is off. It may change
// from call to call.
func (l *Limiter) Allow(key string, most int, now time.Time) bool {
	if most <= 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(now)
	paid := now
	el := l.keys[key]
	if el != nil {
		l.recent.MoveToFront(el)
		if d := el.Value.(*debt); d.paid.After(now) {
			paid = d.paid
		}
	}
	paid = paid.Add(l.period / time.Duration(most))
	if paid.Sub(now) > l.period {
		return false
	}
	if el == nil {
		el = l.recent.PushFront(&debt{key: key})
		l.keys[key] = el
	}
	el.Value.(*debt).paid = paid
	if len(l.keys) > l.room {
		l.remove(l.recent.Back())
	}
	return true
}

// forget drops up to two keys without debt, from the old end: one more than
// comes, so that memory shrinks after a flood without ever a long pause.
func (l *Limiter) forget(now time.Time) {
	for range 2 {
		if oldest := l.recent.Back(); oldest != nil && !oldest.Value.(*debt).paid.After(now) {
			l.remove(oldest)
		}
	}
}

func (l *Limiter) remove(el *list.Element) {
	delete(l.keys, l.recent.Remove(el).(*debt).key)
}
