package inbound

import (
	"sync"
	"time"
)

// maxBudgets bounds the keys of one budget; more wait for the next period.
const maxBudgets = 100_000

// A budget counts what each of many spends in one period after another. The
// zero value is ready.
type budget struct {
	mu    sync.Mutex
	since time.Time
	spent map[string]int
}

// spend takes one from what key may spend in a period, and reports whether
// there was one left. A limit of 0 is no limit.
func (b *budget) spend(key string, limit int, period time.Duration, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if limit == 0 {
		return true
	}
	if b.spent == nil || now.Sub(b.since) >= period {
		b.since, b.spent = now, map[string]int{}
	}
	if b.spent[key] == 0 && len(b.spent) >= maxBudgets {
		return false
	}
	b.spent[key]++
	return b.spent[key] <= limit
}
