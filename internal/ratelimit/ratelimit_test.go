package ratelimit

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// allowed counts how many of n uses at one moment are allowed.
func allowed(l *Limiter, key string, most, n int, now time.Time) (count int) {
	for range n {
		if l.Allow(key, most, now) {
			count++
		}
	}
	return count
}

func TestAllow(t *testing.T) {
	l := New(time.Minute, 100)
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	for _, tt := range []struct {
		name string
		when float64
		key  string
		most int
		want int // of 1000 tries
	}{
		{"all at once", 0, "a", 30, 30},
		{"no more then", 0, "a", 30, 0},
		{"another key", 0, "b", 30, 30},
		{"just before the next", 1.9, "a", 30, 0},
		{"the next", 2, "a", 30, 1},
		{"three later", 8, "a", 30, 3},
		{"tries that failed do not count", 10, "a", 30, 1},
		{"nothing is left", 10, "a", 60, 0},
		{"a greater limit is paid off faster", 11, "a", 60, 1},
		{"off", 11, "a", 0, 1000},
		{"off does not count", 13, "a", 30, 1},
		{"one a minute", 12, "c", 1, 1},
		{"not yet", 71, "c", 1, 0},
		{"the clock goes back", 60, "c", 1, 0},
		{"again", 72, "c", 1, 1},
		{"after a long time no more than once", 10_000, "a", 30, 30},
	} {
		if got := allowed(l, tt.key, tt.most, 1000, at(tt.when)); got != tt.want {
			t.Errorf("%s: %d allowed, want %d", tt.name, got, tt.want)
		}
	}
}

// TestPace holds that over a long time the limit is the limit.
func TestPace(t *testing.T) {
	l := New(time.Minute, 10)
	count := 0
	for tick := range 100_000 { // 60 ms each: 100 minutes
		if l.Allow("a", 7, start.Add(time.Duration(tick)*60*time.Millisecond)) {
			count++
		}
	}
	if want := 7 * 101; count < want-2 || count > want {
		t.Errorf("%d in 100 minutes, want %d", count, want)
	}
}

// TestBounds uses a million keys: memory stays bounded, a busy key stays
// limited, and all is forgotten afterwards.
func TestBounds(t *testing.T) {
	const room = 10_000
	l := New(time.Hour, room)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	busy := 0
	for i := range 1_000_000 {
		if !l.Allow(fmt.Sprintf("%d.%s.example", i, strings.Repeat("x", 200)), 10, start) {
			t.Fatal("a new key is refused")
		}
		if i%(room/2) == 0 && l.Allow("busy", 10, start) {
			busy++
		}
		if len(l.keys) > room || l.recent.Len() != len(l.keys) {
			t.Fatalf("%d keys, %d in order", len(l.keys), l.recent.Len())
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > room*1000 {
		t.Errorf("%d octets are held", used)
	}
	if busy != 10 {
		t.Errorf("the busy key was allowed %d times", busy)
	}
	for range room {
		l.Allow("busy", 10, start.Add(3*time.Hour))
	}
	if len(l.keys) != 1 {
		t.Errorf("%d keys are remembered for nothing", len(l.keys))
	}
}

func TestConcurrent(t *testing.T) {
	l := New(time.Minute, 50)
	var count atomic.Int32
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 1000 {
				if l.Allow("shared", 100, start) {
					count.Add(1)
				}
				l.Allow(fmt.Sprint(worker, i%5), 100, start)
			}
		})
	}
	wg.Wait()
	if n := count.Load(); n != 100 {
		t.Errorf("%d allowed of 100", n)
	}
}

func BenchmarkAllow(b *testing.B) {
	l := New(time.Minute, 10_000)
	keys := make([]string, 20_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("%d.example", i)
	}
	for i := 0; b.Loop(); i++ {
		l.Allow(keys[i%len(keys)], 100, start)
	}
}
