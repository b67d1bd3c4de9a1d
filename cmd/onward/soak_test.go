package main_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"onward/internal/testmail"
)

// soaking is whether this is `make soak`, which takes its time.
var soaking = os.Getenv("ONWARD_SOAK") != ""

// TestSoak kills the daemon at random moments while everybody writes and the
// destinations fail at random, and asks the auditor whether anything was lost
// (RELIABILITY.md T2). Some lives end before the daemon listens. At the end the
// destinations are well, and the queue must empty.
func TestSoak(t *testing.T) {
	kills := 20
	if soaking {
		kills = 200
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	s := newTrial(t)
	s.dest.Behave(testmail.Fickle(seed, 20, true))
	s.other.Behave(testmail.Fickle(seed+1, 20, true))
	s.writers.Behave(testmail.Fickle(seed+2, 20, false))

	load := s.load(s.cast.SPF, s.cast.Signed, s.cast.Forged, s.cast.Null)
	enough := make(chan struct{})
	load.Enough, load.Rate, load.Retry, load.Seed = enough, 60, 500*time.Millisecond, seed
	load.Size = func(r *rand.Rand) int { return []int{200, 2000, 20_000, 300_000}[r.IntN(4)] }
	load.To = func(r *rand.Rand) []string {
		to := []string{fmt.Sprintf("box.%d@alias.example", r.IntN(100))}
		if r.IntN(3) == 0 {
			to = append(to, fmt.Sprintf("fan.%d@alias.example", r.IntN(100)))
		}
		return to
	}
	done := make(chan testmail.Totals, 1)
	ctx := within(t, time.Duration(kills)*10*time.Second+2*time.Minute)
	go func() { done <- load.Run(ctx) }()

	for n := range kills {
		if n%5 == 4 {
			s.stillborn(t, time.Duration(r.IntN(200))*time.Millisecond)
		} else {
			time.Sleep(time.Duration(100+r.IntN(900)) * time.Millisecond) // the random moment
			s.crash(t)
		}
		if n%5 != 3 { // the next one is stillborn
			s.start(t)
		}
		if n%5 == 1 {
			s.hurry(t)
		}
	}
	close(enough)
	s.dest.Behave(nil)
	s.other.Behave(nil)
	s.writers.Behave(nil)
	t.Log(<-done)
	s.empty(t)
	t.Log(s.audit(t))
}

// hurry has everything in the queue tried now, as an operator may at any time.
func (s *trial) hurry(t *testing.T) {
	t.Helper()
	if stdout, stderr, status := onward(t, "queue", "retry", "--all", "-c", s.config()); status != 0 {
		t.Errorf("onward queue retry: exit status %d, %q, %q", status, stdout, stderr)
	}
}

// empty has everything in the queue tried until nothing waits any more.
func (s *trial) empty(t *testing.T) {
	t.Helper()
	const limit = 90 * time.Second
	for end := time.Now().Add(limit); ; time.Sleep(500 * time.Millisecond) {
		pending, err := testmail.ReadQueue(t.Context(), filepath.Join(s.dir, "state"))
		if err != nil {
			t.Fatal(err)
		}
		waiting := slices.DeleteFunc(pending, func(p testmail.Pending) bool { return p.Held })
		if len(waiting) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("%d messages still in the queue %v after every destination is well, the first for %s", len(waiting), limit, waiting[0].To)
			return
		}
		s.hurry(t)
	}
}
