package store_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"onward/internal/store"

	"pgregory.net/rapid"
)

// Whatever is done in whatever order, by two processes: the totals and the due
// times of destinations, which are kept apart, agree with the items, and Due
// returns exactly the items whose time has come.
func TestAnyOrder(t *testing.T) {
	if raceEnabled {
		t.Skip("ten times as slow, and one goroutine has no races")
	}
	rapid.Check(t, func(rt *rapid.T) {
		dir := inMemory(t)
		both := []*store.Store{open(t, dir), open(t, dir)}
		defer both[0].Close()
		defer both[1].Close()
		now, names := start, 0
		known := map[int64]*store.Item{}
		pick := func() *store.Item {
			if len(known) == 0 {
				rt.Skip("nothing queued")
			}
			ids := []int64{}
			for id := int64(1); len(ids) < len(known); id++ {
				if known[id] != nil {
					ids = append(ids, id)
				}
			}
			return known[rapid.SampledFrom(ids).Draw(rt, "id")]
		}
		later := func() time.Time { return now.Add(time.Duration(rapid.IntRange(-5, 30).Draw(rt, "minutes")) * minute) }
		s := func() *store.Store { return both[rapid.IntRange(0, 1).Draw(rt, "process")] }
		// done reads an item again after a change, which may well have been refused.
		done := func(it *store.Item, _ error) {
			fresh, gone := both[0].Item(t.Context(), it.ID)
			if gone != nil {
				delete(known, it.ID)
				return
			}
			known[it.ID] = fresh
		}
		domain := rapid.SampledFrom([]string{"a.example", "b.example", "c.example"})
		rt.Repeat(map[string]func(*rapid.T){
			"add": func(rt *rapid.T) {
				names++
				var items []*store.Item
				var rest []byte
				for range rapid.IntRange(1, 3).Draw(rt, "targets") {
					it, r := letter(fmt.Sprint("m", names), "x@"+domain.Draw(rt, "domain"), 100)
					it.Next = later()
					items, rest = append(items, it), r
				}
				if err := s().Add(t.Context(), bytes.NewReader(rest), items); err != nil {
					rt.Fatal(err)
				}
				for _, it := range items {
					known[it.ID] = it
				}
			},
			"begin": func(rt *rapid.T) {
				it := pick()
				_, err := s().Begin(t.Context(), it, now, store.Lease{Owner: "me", Until: later(), Next: later()})
				done(it, err)
			},
			"extend":   func(rt *rapid.T) { it := pick(); done(it, s().Extend(t.Context(), it, later())) },
			"postpone": func(rt *rapid.T) { it := pick(); done(it, s().Postpone(t.Context(), it, store.Attempt{Next: later()})) },
			"setaside": func(rt *rapid.T) { it := pick(); done(it, s().SetAside(t.Context(), it, "x", store.Attempt{})) },
			"hold":     func(rt *rapid.T) { it := pick(); done(it, s().Hold(t.Context(), it.ID, now, "x")) },
			"retry":    func(rt *rapid.T) { it := pick(); done(it, s().Retry(t.Context(), it.ID, now)) },
			"drop":     func(rt *rapid.T) { it := pick(); done(it, s().Drop(t.Context(), it.ID, now)) },
			"finish": func(rt *rapid.T) {
				it := pick()
				if rapid.Bool().Draw(rt, "report") {
					names++
					report, rest := letter(fmt.Sprint("r", names), "x@"+domain.Draw(rt, "domain"), 10)
					err := s().Finish(t.Context(), it, []*store.Item{report}, bytes.NewReader(rest))
					if err == nil {
						known[report.ID] = report
					}
					done(it, err)
					return
				}
				done(it, s().Finish(t.Context(), it, nil, nil))
			},
			"time": func(rt *rapid.T) { now = now.Add(time.Duration(rapid.IntRange(0, 20).Draw(rt, "minutes")) * minute) },
			"free": func(rt *rapid.T) {
				if err := s().FreeLeases(t.Context(), "me"); err != nil {
					rt.Fatal(err)
				}
				for _, it := range known {
					done(it, nil)
				}
			},
			"clamp": func(rt *rapid.T) {
				if err := s().ClampNext(t.Context(), now.Add(20*minute)); err != nil {
					rt.Fatal(err)
				}
			},
			"wake": func(rt *rapid.T) {
				for _, d := range []string{"a.example", "b.example", "c.example"} {
					if _, err := s().Wake(t.Context(), sender(t, "x@"+d).Domain, now, 3); err != nil {
						rt.Fatal(err)
					}
				}
			},
			"": func(rt *rapid.T) {
				checkTotals(t, dir)
				all, err := both[0].Items(t.Context(), store.Filter{})
				if err != nil || len(all) != len(known) {
					rt.Fatalf("%d items, %v; want %d", len(all), err, len(known))
				}
				for _, d := range []string{"a.example", "b.example", "c.example"} {
					want := 0
					for _, it := range all {
						if string(it.Target.Domain) == d && it.State == store.Waiting && !it.Next.After(now) && !it.Until.After(now) {
							want++
						}
					}
					if got := due(t, both[1], sender(t, "x@"+d).Domain, now); len(got) != want {
						rt.Fatalf("%d due for %s, want %d", len(got), d, want)
					}
				}
				if t.Failed() {
					rt.Fatal("see above")
				}
			},
		})
	})
}
