package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

// TestPaceCollector holds that the heap grows by about heapGrowth before it is
// collected, whatever lives in it.
func TestPaceCollector(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	paceCollector()
	for _, size := range []int{10 << 20, 100 << 20} {
		alive := make([]byte, size)
		var live, goal uint64
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			runtime.GC()
			sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/goal:bytes"}}
			metrics.Read(sample)
			live, goal = sample[0].Value.Uint64(), sample[1].Value.Uint64()
			if grows := goal - live; live >= uint64(size) && heapGrowth*9/10 < grows-live/4 && grows-live/4 < heapGrowth*3/2 {
				live = 0
				break
			}
		}
		if live != 0 {
			t.Errorf("%d octets live, and the heap may grow to %d", live, goal)
		}
		runtime.KeepAlive(alive)
	}
}
