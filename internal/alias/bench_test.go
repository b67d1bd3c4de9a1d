package alias_test

import (
	"fmt"
	"runtime"
	"testing"

	"onward/internal/address"
	"onward/internal/alias"
	"onward/internal/config"
)

// many is n aliases as a large site has them.
func many(n int) *config.Config {
	c := &config.Config{Hostname: "mx.example.org", Postmaster: address.Mailbox{Local: "owner", Domain: "gmail.com"}}
	d, rule := &config.Domain{Name: "example.org"}, &config.Rule{}
	for i := range n {
		d.Aliases = append(d.Aliases, &config.Alias{Key: fmt.Sprintf("user-%d", i), To: []string{fmt.Sprintf("user.%d@gmail.com", i)}, Rule: rule})
	}
	c.Domains = []*config.Domain{d}
	return c
}

func BenchmarkNew100k(b *testing.B) {
	const n = 100_000
	c := many(n)
	before := heap()
	var tab *alias.Table
	for b.Loop() {
		tab, _ = alias.New(c)
	}
	b.StopTimer()
	b.ReportMetric(float64(heap()-before)/n, "B/alias")
	runtime.KeepAlive(tab)
	runtime.KeepAlive(c)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			tab, _ := alias.New(many(n))
			rcpt := mailbox(b, fmt.Sprintf("user-%d@example.org", n/2))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tab.Lookup(rcpt, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
