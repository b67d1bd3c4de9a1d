package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// heedNetwork runs twice as many threads as there are processors. Go looks at the
// network when a thread has nothing to do, and every 10 ms: while each makes one
// signature after the other, whatever a peer says would wait so long. Signatures take
// no more than half of the threads (see package signing), and the kernel gives a
// processor to who has just been woken. An operator's GOMAXPROCS is left alone.
func heedNetwork() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(2 * runtime.GOMAXPROCS(0))
	}
}

// heapGrowth is by how many octets the heap grows before it is collected, and a
// fourth of what lives in it.
const heapGrowth = 16 << 20

// paceCollector has the heap grow by heapGrowth between two collections, much or
// little as lives in it. By as much as lives, which is Go's way, it would be
// collected thirty times a second at a thousand messages with few aliases, and hold
// as much again as 100,000 of them take. An operator's GOGC is left alone.
func paceCollector() {
	if os.Getenv("GOGC") == "" {
		afterEachCollection(func() { debug.SetGCPercent(growthPercent(heapLive())) })
	}
}

// growthPercent is how much that is in per cent of what lives, and no more than 400,
// from which Go makes a least heap of 16 MB.
func growthPercent(live uint64) int {
	return int(min(400, 25+100*heapGrowth/max(1, live)))
}

// heapLive returns how many octets the last collection found in use.
func heapLive() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// afterEachCollection calls do after every one from now on: each frees an object
// that is made for that.
func afterEachCollection(do func()) {
	type freed struct{ self *freed } // a pointer, so that it shares its memory with no other
	runtime.AddCleanup(&freed{}, func(do func()) {
		do()
		afterEachCollection(do)
	}, do)
}
