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

// heapGrowth is by how many octets the heap grows before it is collected, beside a
// fourth of what lives in it.
const heapGrowth = 16 << 20

// paceCollector has the heap grow by heapGrowth and a fourth of what lives between
// two collections. By as much as lives, which is Go's way, it would be collected
// thirty times a second at a thousand messages a second with few aliases, and with
// 100,000 hold as much again as they take; without the fourth, looking at all of them
// each time would cost 2 % of the CPU. An operator's GOGC is left alone.
func paceCollector() {
	if os.Getenv("GOGC") != "" {
		return
	}
	// What happens when an object is found dead happens after each collection. It has a
	// pointer in it, so that it shares its memory with no other one.
	type freed struct{ self *freed }
	runtime.AddCleanup(&freed{}, func(struct{}) {
		debug.SetGCPercent(growthPercent(alive()))
		paceCollector()
	}, struct{}{})
}

// growthPercent is that growth in per cent of what lives, at most 400: above that
// Go's least heap would be more than 16 MB.
func growthPercent(live uint64) int {
	return int(min(400, 25+100*heapGrowth/max(1, live)))
}

// alive returns how many octets the last collection found in use, as Go counts them
// for its percentage: with the stacks and what is global.
func alive() (octets uint64) {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(sample)
	for _, s := range sample {
		octets += s.Value.Uint64()
	}
	return octets
}
