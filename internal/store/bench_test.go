package store_test

import (
	"bytes"
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"onward/internal/store"
)

// deep is a queue of n items, of 10 KB each, for 1000 domains.
func deep(b *testing.B, dir string, n int) {
	b.Helper()
	s := openBench(b, dir)
	defer s.Close()
	var next atomic.Int64
	done := make(chan error)
	for range 64 {
		go func() {
			var err error
			for i := int(next.Add(1)); i <= n && err == nil; i = int(next.Add(1)) {
				it, rest := letter("deep", fmt.Sprintf("x@d%d.example", i%1000), 10_000)
				it.Next = start.Add(time.Hour + time.Duration(i)*time.Millisecond)
				err = s.Add(b.Context(), bytes.NewReader(rest), []*store.Item{it})
			}
			done <- err
		}()
	}
	for range 64 {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

func openBench(b *testing.B, dir string) *store.Store {
	b.Helper()
	s, err := store.Open(b.Context(), dir, store.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

// cpu is the processor time of this process so far.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// reportRate reports operations a second, and processor time for each, which
// depends less on what else the machine does.
func reportRate(b *testing.B, name string, used time.Duration) {
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), name+"/s")
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-µs/"+name)
}

// BenchmarkAdd is the durable acceptance of one message of 10 KB, by so many
// sessions at once: how many a second, and how many share a sync.
func BenchmarkAdd(b *testing.B) {
	for _, tt := range []struct{ callers, depth int }{{1, 0}, {16, 0}, {64, 0}, {64, 100_000}} {
		callers := tt.callers
		b.Run(fmt.Sprint(callers, "callers ", tt.depth, "queued"), func(b *testing.B) {
			dir := b.TempDir()
			deep(b, dir, tt.depth)
			d, syncs := newDisk(dir), 0
			s := openBench(b, dir)
			d.failing(func(o op) int32 {
				if d.ops = d.ops[:0]; o.kind == opSync {
					syncs++
				}
				return 0
			})
			_, rest := letter("m", "x@example.org", 10_000)
			b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
			if callers == 1 {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			}
			used := cpu(b)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					it, _ := letter("m", "x@example.org", 0)
					it.Size += int64(len(rest))
					if err := s.Add(b.Context(), bytes.NewReader(rest), []*store.Item{it}); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.StopTimer()
			reportRate(b, "add", cpu(b)-used)
			b.ReportMetric(float64(syncs)/float64(b.N), "syncs/add")
		})
	}
}

// BenchmarkAttempt is one item from the search for work to its end, by 16
// workers, with so many items of 1000 other domains waiting behind it.
func BenchmarkAttempt(b *testing.B) {
	for _, depth := range []int{0, 100_000} {
		b.Run(fmt.Sprint(depth, "queued"), func(b *testing.B) {
			dir := b.TempDir()
			deep(b, dir, depth)
			s := openBench(b, dir)
			for range b.N {
				it, rest := letter("m", "x@example.org", 1000)
				if err := s.Add(b.Context(), bytes.NewReader(rest), []*store.Item{it}); err != nil {
					b.Fatal(err)
				}
			}
			used := cpu(b)
			b.ResetTimer()
			work := make(chan *store.Item)
			ended := make(chan error)
			for range 16 {
				go func() {
					var err error
					for it := range work {
						if err == nil {
							err = attempt(b, s, it)
						}
					}
					ended <- err
				}()
			}
			for given := map[int64]bool{}; len(given) < b.N; {
				found, err := s.Destinations(b.Context(), start, 10)
				if err != nil {
					b.Fatal(err)
				}
				for _, d := range found {
					items, err := s.Due(b.Context(), d.Domain, start, 32)
					if err != nil {
						b.Fatal(err)
					}
					for _, it := range items {
						if !given[it.ID] { // not waiting in the channel
							given[it.ID] = true
							work <- it
						}
					}
				}
			}
			close(work)
			for range 16 {
				if err := <-ended; err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			reportRate(b, "attempt", cpu(b)-used)
		})
	}
}

func attempt(b *testing.B, s *store.Store, it *store.Item) error {
	ok, err := s.Begin(b.Context(), it, start, store.Lease{Owner: "me", Until: start.Add(10 * minute), Next: start.Add(minute)})
	if err != nil || !ok {
		return fmt.Errorf("begun: %v, %w", ok, err)
	}
	return s.Finish(b.Context(), it, nil, nil)
}

// BenchmarkOpen opens a queue of 100,000 items of 10 KB, with its check.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	deep(b, dir, 100_000)
	b.ResetTimer()
	for b.Loop() {
		s := openBench(b, dir)
		if _, err := s.Destinations(b.Context(), start, 10); err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkScheduler is what the scheduler asks when nothing is due, at 100,000
// items in 1000 domains, and what other whole-queue operations take.
func BenchmarkScheduler(b *testing.B) {
	dir := b.TempDir()
	deep(b, dir, 100_000)
	s := openBench(b, dir)
	for name, do := range map[string]func() error{
		"Destinations": func() error { _, err := s.Destinations(b.Context(), start, 100); return err },
		"Due":          func() error { _, err := s.Due(b.Context(), "d1.example", start, 20); return err },
		"Wake100":      func() error { _, err := s.Wake(b.Context(), "d1.example", start, 100); return err },
		"Stats":        func() error { _, err := s.Stats(b.Context()); return err },
		"ClampNext":    func() error { return s.ClampNext(b.Context(), start.Add(24*time.Hour)) },
		"FreeLeases":   func() error { return s.FreeLeases(b.Context(), "nobody") },
		"Items100":     func() error { _, err := s.Items(b.Context(), store.Filter{Limit: 100}); return err },
		"ItemsHeld":    func() error { _, err := s.Items(b.Context(), store.Filter{State: store.Held}); return err },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
