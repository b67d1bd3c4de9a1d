package main

import (
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

// TestPaceCollector holds that the heap grows by heapGrowth and a fourth of what
// lives before it is collected. The pace stays for the tests that follow.
func TestPaceCollector(t *testing.T) {
	t.Setenv("GOGC", "")
	paceCollector()
	for _, size := range []int{10 << 20, 100 << 20} {
		alive := make([]byte, size)
		want, grows := heapGrowth+size/4, 0
		near := func() bool { return want*9/10 < grows && grows < want*3/2 }
		for end := time.Now().Add(10 * time.Second); !near() && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			runtime.GC()
			sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/goal:bytes"}}
			metrics.Read(sample)
			grows = int(sample[1].Value.Uint64()) - int(sample[0].Value.Uint64())
		}
		if !near() {
			t.Errorf("with %d octets the heap may grow by %d, want about %d", size, grows, want)
		}
		runtime.KeepAlive(alive)
	}
}
