package queue

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/message"
	"onward/internal/smtpclient"
	"onward/internal/store"
)

func TestDelivers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, always(ok))
		w.run()
		start := time.Now()
		w.add(w.item("m1", "a@dest.test"))
		wait(time.Millisecond)
		if got := w.tries("m1"); len(got) != 1 || got[0].Sub(start) > time.Millisecond {
			t.Errorf("tried at %v", got)
		}
		if got := w.items(); len(got) != 0 || !slices.Equal(w.fates("m1"), []Fate{Delivered}) {
			t.Errorf("%v, %v", got, w.fates("m1"))
		}
		w.audit()
	})
}

// TestSchedule holds the times between attempts (RELIABILITY.md 5), over
// restarts too, and that no two items keep step.
func TestSchedule(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, always(greylist))
		w.run()
		start := time.Now()
		tried := w.item("tried in session", "a@dest.test")
		tried.Tried = 1
		w.add(w.item("new", "b@dest.test"), tried)
		for range 20 {
			wait(20 * time.Minute)
			w.restart()
		}
		want := []time.Duration{0, 2 * time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour}
		same := true
		for i, got := range gaps(start, w.tries("new")) {
			usual := want[min(i, len(want)-1)]
			low, high := usual*8/10, usual*12/10+2*time.Second
			if got < low || got > high {
				t.Errorf("attempt %d after %v, want %v to %v", i+1, got, low, high)
			}
			same = same && got.Round(time.Second) == usual
		}
		if n := len(w.tries("new")); n < 8 || same {
			t.Errorf("%d attempts, jitter: %v", n, !same)
		}
		if got := gaps(start, w.tries("tried in session"))[0]; got < 96*time.Second || got > 146*time.Second {
			t.Errorf("the first attempt after one in session came after %v", got)
		}
		w.audit()
	})
}

// TestUnknown holds that a message whose final dot was not answered is tried
// again, and counted as tried.
func TestUnknown(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
			if len(w.tries(tr.ID)) == 1 {
				return silent
			}
			return ok
		})
		w.run()
		w.add(w.item("m1", "a@dest.test"))
		wait(time.Minute)
		if item := w.items()["m1"]; item == nil || item.Tried != 1 || item.Said != "451 4.4.2 did not say" {
			t.Errorf("%+v", item)
		}
		wait(5 * time.Minute)
		if got := w.fates("m1"); !slices.Equal(got, []Fate{Waits, Delivered}) {
			t.Error(got)
		}
		w.audit()
	})
}

// TestFailures holds how each kind of item ends that cannot be delivered:
// refused, or not taken for all its lifetime.
func TestFailures(t *testing.T) {
	null := func(i *store.Item) { i.Sender, i.From = address.ReversePath{}, address.ReversePath{} }
	nobody := func(i *store.Item) { i.Bounceable = false }
	report := func(i *store.Item) { i.Kind, i.Bounceable = store.Report, false; null(i) }
	for _, tt := range []struct {
		name   string
		change func(*store.Item)
		out    smtpclient.Outcome
		after  time.Duration
		want   Fate
		reason string
	}{
		{"refused", func(*store.Item) {}, noUser, 0, Reported, "refused: 550 5.1.1 no such user"},
		{"refused, unbounceable", nobody, noUser, 0, Held, "refused: 550 5.1.1 no such user"},
		{"refused, null sender", null, noUser, 0, Held, "refused: 550 5.1.1 no such user"},
		{"refused, a report", report, noUser, 0, Dropped, "refused: 550 5.1.1 no such user"}, // RELIABILITY 30
		{"expired", func(*store.Item) {}, down, 5 * 24 * time.Hour, Reported, "not delivered since 2000-01-01 00:00:00: 451 4.4.1 cannot be reached"},
		{"expired, unbounceable", nobody, silent, 5 * 24 * time.Hour, Held, "not delivered since 2000-01-01 00:00:00: 451 4.4.2 did not say"},
		{"expired, null sender", null, greylist, 5 * 24 * time.Hour, Held, "not delivered since 2000-01-01 00:00:00: 451 4.7.1 later"},
		{"expired, a report", report, greylist, 24 * time.Hour, Dropped, "not delivered since 2000-01-01 00:00:00: 451 4.7.1 later"},
		{"expired, a notice", func(i *store.Item) { report(i); i.Kind = store.Notice }, greylist, 24 * time.Hour, Dropped, "not delivered since 2000-01-01 00:00:00: 451 4.7.1 later"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
					if tr.To.Domain != "dest.test" {
						return ok
					}
					return tt.out
				})
				w.queue.look = time.Minute // or five days take long
				w.run()
				item := w.item("m1", "a@dest.test")
				tt.change(item)
				w.add(item)
				wait(tt.after - time.Minute)
				if tt.after > 0 && slices.ContainsFunc(w.fates("m1"), func(f Fate) bool { return f != Waits }) {
					t.Errorf("before its time: %v", w.fates("m1"))
				}
				wait(2 * time.Hour)
				fates := w.fates("m1")
				if fates[len(fates)-1] != tt.want || slices.Contains(fates[:len(fates)-1], tt.want) {
					t.Fatalf("%v, want %s", fates, tt.want)
				}
				if last := w.events[slices.IndexFunc(w.events, func(e Event) bool { return e.Fate == tt.want })]; last.Reason != tt.reason {
					t.Errorf("because %q, want %q", last.Reason, tt.reason)
				}
				if got := len(w.reports()); got != map[Fate]int{Reported: 1}[tt.want] {
					t.Errorf("%d reports", got)
				}
				if held := w.items()["m1"]; tt.want == Held && (held.State != store.Held || held.Reason != tt.reason) || tt.want != Held && held != nil {
					t.Errorf("in the queue: %+v", held)
				}
				if tt.want == Dropped {
					delete(w.added, "m1") // no mail of anybody's
				}
				w.audit()
			})
		})
	}
}

// TestReport holds what a report is to the queue, and that the bytes that leave
// are what dsn composed, signed, about this item.
func TestReport(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var got string
		w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
			if tr.To.Domain == "dest.test" {
				return noUser
			}
			all, err := io.ReadAll(tr.Open())
			if got = string(all); err != nil || !tr.From.IsNull() || tr.To.String() != "ada@sender.test" || tr.EightBit || tr.UTF8 {
				t.Errorf("%+v, %v", tr, err)
			}
			return greylist
		})
		w.run()
		w.add(w.item("m1", "a@dest.test"))
		wait(time.Minute)
		for _, want := range []string{
			"DKIM-Signature: for a test\r\n", "From: Mail Delivery System <postmaster@mx.example.org>\r\nTo: <ada@sender.test>\r\n", "Auto-Submitted: auto-replied\r\n",
			"Final-Recipient: rfc822; alias-a@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\n", "\r\nSubject: m1\r\n",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in %s", want, got)
			}
		}
		if strings.Contains(got, "a@dest.test") || !strings.HasPrefix(got, "DKIM-") {
			t.Error(got)
		}
		for _, item := range w.items() {
			if item.Kind != store.Report || item.Bounceable || item.Expires.Sub(item.Arrived) != 24*time.Hour {
				t.Errorf("%+v", item)
			}
		}
		w.audit()
	})
}

// TestReportOfReport holds that no report causes another, whoever refuses it
// (RELIABILITY 30), and that a sender who is away hears when he is back.
func TestReportOfReport(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, always(noUser))
		w.queue.look = time.Minute
		w.run()
		for i := range 5 {
			w.add(w.item(fmt.Sprint("m", i), "a@dest.test"))
		}
		wait(24 * time.Hour)
		if got := w.items(); len(got) != 0 || len(w.reports()) != 5 || len(w.attempts) != 10 {
			t.Errorf("%d items, %d reports, %d attempts", len(got), len(w.reports()), len(w.attempts))
		}
		if log := w.log.String(); strings.Count(log, "level=WARN msg=dropped") != 5 {
			t.Error(log)
		}
		w.audit()
	})
}

// TestReportCaps holds the most reports in an hour, to one sender and to all;
// what is not reported is held (RELIABILITY.md 5).
func TestReportCaps(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
			if tr.To.Domain == "dest.test" {
				return noUser
			}
			return ok
		})
		w.run()
		count := func(f Fate) (n int) {
			for _, e := range w.events {
				if e.Fate == f && e.Item.Target.Domain == "dest.test" {
					n++
				}
			}
			return n
		}
		for i := range 15 { // in two spellings of one address
			item := w.item(fmt.Sprint("one", i), "a@dest.test")
			item.Sender.Local = []string{"ada", "Ada"}[i%2]
			w.add(item)
		}
		wait(time.Minute)
		if count(Reported) != 10 || count(Held) != 5 {
			t.Errorf("to one: %d reported, %d held", count(Reported), count(Held))
		}
		for i := range 100 {
			item := w.item(fmt.Sprint("all", i), "a@dest.test")
			item.Sender.Local = fmt.Sprint("sender", i)
			w.add(item)
		}
		wait(time.Minute)
		if count(Reported) != 100 || count(Held) != 15 {
			t.Errorf("to all: %d reported, %d held", count(Reported), count(Held))
		}
		if held := w.items()["all95"]; held == nil || held.Reason != "its sender was not told, as there were too many reports: refused: 550 5.1.1 no such user" {
			t.Errorf("%+v", held)
		}
		wait(time.Hour)
		w.add(w.item("later", "a@dest.test"))
		wait(time.Minute)
		if got := w.fates("later"); !slices.Equal(got, []Fate{Reported}) {
			t.Error(got)
		}
		w.audit()
	})
}

// TestUntried holds that an attempt that was none does not count against the
// item's lifetime, and comes again soon.
func TestUntried(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
			if len(w.tries(tr.ID)) <= 20 {
				return noSlot
			}
			return greylist
		})
		w.run()
		item := w.item("m1", "a@dest.test")
		item.Expires = time.Now().Add(time.Second)
		w.add(item)
		wait(4 * time.Minute)
		if n := len(w.tries("m1")); n < 8 || n > 17 {
			t.Errorf("%d attempts in 4 minutes, want one in 15 to 30 seconds", n)
		}
		if got := w.items()["m1"]; got == nil || got.Tried != 0 || got.Unfinished != 0 {
			t.Errorf("%+v", got)
		}
		wait(45 * time.Minute) // about four real ones: none is the fifth
		if got := w.items()["m1"]; got == nil || got.Tried < 3 || got.Tried > 4 {
			t.Errorf("%+v", got)
		}
		wait(90 * time.Minute)
		if got := w.fates("m1"); got[len(got)-1] != Reported {
			t.Error(got)
		}
		w.audit()
	})
}

// TestManyWaiting holds that items that wait cost no goroutines.
func TestManyWaiting(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, always(ok))
		w.run()
		before := runtime.NumGoroutine()
		w.addShared("m", 2000, "dest.test", time.Now().Add(time.Hour))
		wait(time.Minute)
		if after := runtime.NumGoroutine(); after > before+10 {
			t.Errorf("%d goroutines before, %d after", before, after)
		}
		if len(w.attempts) != 0 {
			t.Errorf("%d attempts", len(w.attempts))
		}
		w.audit()
	})
}

// TestFair holds that a domain whose destination hangs has 20 attempts at most,
// and that others go on meanwhile (RELIABILITY 75).
func TestFair(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
			if strings.HasPrefix(string(tr.To.Domain), "slow") {
				time.Sleep(5 * time.Minute)
			}
			return ok
		})
		w.run()
		for i := range 12 {
			w.addShared(fmt.Sprint("slow", i, "-"), 150, address.Domain(fmt.Sprintf("slow%d.test", i)), time.Now().Add(-time.Hour))
		}
		wait(12 * time.Minute)
		start := time.Now()
		w.addShared("quick", 200, "dest.test", start)
		wait(10 * time.Second)
		for i := range 200 {
			if got := w.tries(fmt.Sprint("quick", i)); len(got) != 1 {
				t.Fatalf("item %d of the others was tried %d times", i, len(got))
			}
		}
		wait(time.Hour)
		for domain, most := range w.most {
			if most > 20 || strings.HasPrefix(string(domain), "slow") && most < 10 {
				t.Errorf("%s: %d at once", domain, most)
			}
		}
		if total := w.mostInAll; total > maxWorkers {
			t.Errorf("%d at once in all", total)
		}
		w.audit()
	})
}

// TestRestartMany holds that a large queue starts at once, keeps its times and
// does not fall upon a destination: 5 at a time, one more with each message
// taken, never more than 20 (RELIABILITY 76).
func TestRestartMany(t *testing.T) {
	count := 100_000
	if testing.Short() || raceEnabled {
		count = 2000
	}
	w := newWorld(t, always(ok))
	soon, late := time.Now().Add(-time.Hour), time.Now().Add(30*time.Minute)
	w.addShared("due", count/2, "dest.test", soon)
	w.addShared("late", count/2, "dest.test", late)
	w.close()

	var most []int // at once, at each attempt
	w.answer = func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
		w.mu.Lock()
		most = append(most, w.inFlight["dest.test"])
		w.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
		return ok
	}
	before := heap()
	began := time.Now()
	w.open()
	w.run()
	for len(w.attemptsNow()) < 400 {
		if time.Since(began) > 30*time.Second {
			t.Fatal("it does not start")
		}
		time.Sleep(time.Millisecond)
	}
	w.stop()
	grown := heap() - before
	if grown > 4<<20 {
		t.Errorf("the heap has grown by %d octets for %d items", grown, count)
	}
	started := w.attempts[0].at.Sub(began)
	if t.Logf("%d items: first attempt after %v, heap grown by %d octets", count, started, grown); started > 5*time.Second {
		t.Errorf("it took %v to start", started)
	}
	for i, n := range most {
		if n > min(20, 5+i) {
			t.Errorf("attempt %d: %d at once", i, n)
		}
	}
	if slices.Max(most) < 15 {
		t.Errorf("never more than %d at once", slices.Max(most))
	}
	for _, a := range w.attempts {
		if strings.HasPrefix(a.id, "late") {
			t.Errorf("%s was tried at %v", a.id, a.at)
			break
		}
	}
	w.audit()
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestWake holds that all goes when a destination is back, told by a delivery of
// the queue or in session; what waits for the end of a rate limit sleeps on.
func TestWake(t *testing.T) {
	for _, inSession := range []bool{false, true} {
		t.Run(fmt.Sprint("in session ", inSession), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				away := true
				w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
					w.mu.Lock()
					defer w.mu.Unlock()
					switch {
					case tr.ID == "limited" && len(w.attempts) < 100:
						return limited(true, time.Now().Add(3*time.Hour))
					case away:
						return down
					}
					return ok
				})
				w.queue.look = 5 * time.Second
				w.run()
				w.add(w.item("limited", "x@dest.test"))
				w.addMany("m", 50, "dest.test", time.Now())
				wait(3 * time.Hour) // all wait an hour by now
				w.mu.Lock()
				away = false
				w.mu.Unlock()
				if inSession {
					w.queue.Recovered("elsewhere.test")
					w.queue.Recovered("dest.test")
				} else {
					item := w.item("next", "y@dest.test")
					w.add(item)
				}
				wait(10 * time.Second)
				if left := w.items(); len(left) != 1 || left["limited"] == nil || time.Until(left["limited"].Next) < 0 {
					t.Errorf("left: %d", len(left))
				}
				w.queue.Recovered("dest.test") // says nothing new
				w.audit()
			})
		})
	}
}

// TestAwayAfterSeveral holds that a domain that answers everybody 451 is away,
// and one that greylists a message is not: its other mail keeps its times.
func TestAwayAfterSeveral(t *testing.T) {
	for _, tt := range []struct {
		items int
		woken bool
	}{{2, false}, {20, true}} {
		inBubble(t, func(t *testing.T) {
			sick := true
			w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
				w.mu.Lock()
				defer w.mu.Unlock()
				if sick {
					return greylist
				}
				return ok
			})
			w.run()
			w.addMany("m", tt.items, "dest.test", time.Now())
			wait(time.Second)
			w.mu.Lock()
			sick = false
			w.mu.Unlock()
			w.add(w.item("other", "b@dest.test"))
			wait(10 * time.Second)
			if got := len(w.items()) == 0; got != tt.woken {
				t.Errorf("%d items: woken %v", tt.items, got)
			}
			w.audit()
		})
	}
}

// TestRateLimit holds that a destination which limits us hears next to nothing
// until its pause is over, then one message at a time, and that nothing of it
// counts against the items (RELIABILITY 77, G9).
func TestRateLimit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		until := time.Now().Add(15 * time.Minute)
		first := true
		var early, most int
		w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
			w.mu.Lock()
			defer w.mu.Unlock()
			if time.Now().Before(until) {
				early++
				tried := first
				first = false
				return limited(tried, until)
			}
			most = max(most, w.inFlight["dest.test"])
			if len(w.copies) == 0 && most > 1 {
				t.Error("more than one at once after the pause")
			}
			w.mu.Unlock()
			defer w.mu.Lock()
			time.Sleep(time.Second)
			return ok
		})
		w.run()
		w.addMany("m", 500, "dest.test", time.Now())
		wait(14 * time.Minute)
		if early == 0 || early > 10 {
			t.Errorf("%d attempts during the pause", early)
		}
		for _, item := range w.items() {
			if item.Tried > 1 || item.Paused && item.Next.Before(until) {
				t.Errorf("%s: tried %d times, next %v", item.Message, item.Tried, item.Next)
			}
		}
		wait(20 * time.Minute)
		if left := w.items(); len(left) != 0 || most > 20 || most < 10 {
			t.Errorf("%d left, %d at once", len(left), most)
		}
		w.audit()
	})
}

// TestMailboxLimit holds that a rate limit of one mailbox stops that mailbox,
// and nobody else at the same domain.
func TestMailboxLimit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		until := time.Now().Add(time.Hour)
		w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
			if tr.To.Local == "full" && time.Now().Before(until) {
				return limited(true, until)
			}
			return ok
		})
		w.run()
		for i := range 30 {
			w.add(w.item(fmt.Sprint("full", i), "full@dest.test"), w.item(fmt.Sprint("other", i), "other@dest.test"))
		}
		wait(time.Minute)
		left := w.items()
		for i := range 30 {
			if left[fmt.Sprint("other", i)] != nil || left[fmt.Sprint("full", i)] == nil {
				t.Fatalf("%d left", len(left))
			}
		}
		if full := left["full0"]; full.Next.Before(until) || full.Next.After(until.Add(12*time.Minute)) {
			t.Errorf("next at %v", full.Next)
		}
		wait(2 * time.Hour)
		w.audit()
	})
}

// TestPoison holds that an item on which we stumble three times is held, and
// that all others flow (RELIABILITY 89).
func TestPoison(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
			if tr.ID == "poison" {
				panic("stumbled")
			}
			return ok
		})
		w.run()
		w.add(w.item("poison", "a@dest.test"))
		w.addMany("m", 50, "dest.test", time.Now())
		wait(time.Minute)
		if left := w.items(); len(left) != 1 || left["poison"].Unfinished != 1 {
			t.Errorf("left: %v", left)
		}
		wait(time.Hour)
		if got := w.items()["poison"]; got.State != store.Held || got.Reason != "a mistake of ours stopped 3 attempts" || len(w.tries("poison")) != 3 {
			t.Errorf("%+v, %d attempts", got, len(w.tries("poison")))
		}
		if !strings.Contains(w.log.String(), "stumbled") || !slices.Equal(w.fates("poison"), []Fate{Held}) {
			t.Errorf("%v", w.fates("poison"))
		}
		w.audit()
	})
}

// TestPoisonKills holds the same for an item with which the process dies.
func TestPoisonKills(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, always(ok))
		w.add(w.item("killer", "a@dest.test"), w.item("m1", "a@dest.test"))
		for range 3 { // an attempt is begun, and nothing more is heard of it
			item := w.items()["killer"]
			lease := store.Lease{Owner: w.queue.Owner, Until: time.Now().Add(leaseTime), Next: time.Now().Add(2 * time.Minute)}
			if begun, err := w.store.Begin(t.Context(), item, time.Now(), lease); err != nil || !begun {
				t.Fatal(begun, err)
			}
			wait(leaseTime)
		}
		w.run()
		wait(time.Minute)
		if got := w.items()["killer"]; got.State != store.Held || len(w.tries("killer")) != 0 || got.Reason != "not tried again: 3 attempts were begun and never ended" {
			t.Errorf("%+v, %d attempts", got, len(w.tries("killer")))
		}
		if len(w.tries("m1")) != 1 {
			t.Error("the other item was not tried")
		}
		w.audit()
	})
}

// TestNotToBlame holds that an item past its lifetime does not end by an attempt
// that says nothing of its destination: one that we did not make, that our own
// stop cut off, or that trouble of ours spoilt. Such an attempt counts for none.
func TestNotToBlame(t *testing.T) {
	for _, name := range []string{"no slot", "stop", "our bytes"} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newWorld(t, always(ok))
				item := w.item("m1", "a@dest.test")
				item.Arrived = time.Now().Add(-6 * 24 * time.Hour)
				item.Attempts, item.Tried, item.Next = 7, 7, time.Now()
				w.add(item)
				switch name {
				case "no slot":
					w.answer = always(noSlot)
				case "stop":
					route := w.queue.Route()
					route.Deliverer = deliverer(func(ctx context.Context, _ *smtpclient.Transaction) smtpclient.Outcome {
						<-ctx.Done()
						return down
					})
					w.queue.Route = func() Route { return route }
				case "our bytes":
					w.meddle(`ALTER TABLE piece RENAME TO away`)
				}
				w.run()
				wait(5 * time.Second)
				w.stop()
				if got := w.items()["m1"]; got == nil || got.State != store.Waiting || got.Attempts != 8 || got.Tried != 7 || got.Unfinished != 0 {
					t.Errorf("%v, in the queue: %+v", w.fates("m1"), got)
				}
				w.audit()
			})
		})
	}
}

// TestClock holds that a clock which jumps ten days ahead bounces nothing that
// was not tried five times, and that one which jumps back delays nothing by more
// than four hours (RELIABILITY 90).
func TestClock(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var shift time.Duration
		w := newWorld(t, always(greylist))
		clock := func() time.Time {
			w.mu.Lock()
			defer w.mu.Unlock()
			return time.Now().Add(shift)
		}
		jump := func(to time.Duration) {
			w.mu.Lock()
			defer w.mu.Unlock()
			shift = to
		}
		w.queue.clock, w.queue.look = clock, 10*time.Second
		w.run()
		w.add(w.item("m1", "a@dest.test"))
		wait(10 * time.Minute)
		tried := len(w.tries("m1"))
		jump(10 * 24 * time.Hour)
		wait(10 * time.Minute)
		if got := len(w.tries("m1")); got <= tried || tried >= 5 {
			t.Errorf("%d attempts before, %d after", tried, got)
		}
		if got := w.items()["m1"]; got == nil || got.State != store.Waiting {
			t.Errorf("expired with %d attempts", len(w.tries("m1")))
		}
		jump(0) // its next time is ten days ahead
		wait(10 * time.Minute)
		tried = len(w.tries("m1"))
		wait(4*time.Hour + 10*time.Minute)
		if got := len(w.tries("m1")); got == tried {
			t.Errorf("not tried for 4 hours after the clock was set back")
		}
		wait(12 * time.Hour)
		if got := w.items()["m1"]; got == nil {
			t.Error("expired before its time")
		}
		w.audit()
	})
}

// TestStop holds that attempts under way get their time, a minute at most, and
// that none is begun (RELIABILITY 85).
func TestStop(t *testing.T) {
	for _, tt := range []struct {
		name       string
		took, want time.Duration
		left       int // items
	}{
		{"ends in time", 30 * time.Second, 20 * time.Second, 45},
		{"gives up", 0, 55 * time.Second, 50}, // at the end of its context
		{"hangs", time.Hour, 60 * time.Second, 50},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
					time.Sleep(tt.took)
					return ok
				})
				if tt.took == 0 {
					route := w.queue.Route()
					route.Deliverer = deliverer(func(ctx context.Context, tr *smtpclient.Transaction) smtpclient.Outcome {
						<-ctx.Done()
						return down
					})
					w.queue.Route = func() Route { return route }
				}
				w.run()
				w.addMany("m", 50, "dest.test", time.Now())
				wait(10 * time.Second)
				began := time.Now()
				w.stop()
				if took := time.Since(began); (took - tt.want).Abs() > 100*time.Millisecond { // writes may linger
					t.Errorf("it took %v to stop, want %v", took, tt.want)
				}
				tried := 0
				left := w.items()
				for _, item := range left {
					tried += item.Tried
				}
				if len(left) != tt.left || tried != 0 { // what we cut off counts for none
					t.Errorf("%d items left, %d tried", len(left), tried)
				}
				if got := len(w.attempts); got > firstWindow {
					t.Errorf("%d attempts", got)
				}
				w.audit()
			})
		})
	}
}

// TestNotice holds that the postmaster hears of held mail within ten minutes,
// then once a day as long as there is some, also over restarts.
func TestNotice(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var notices []time.Time
		var text bytes.Buffer
		w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
			if tr.To.String() == "boss@home.test" {
				text.Reset()
				io.Copy(&text, tr.Open())
				notices = append(notices, time.Now())
				return ok
			}
			return noUser
		})
		w.queue.look = time.Minute
		w.run()
		wait(25 * time.Hour)
		if len(notices) != 0 {
			t.Fatal("a notice of nothing")
		}
		item := w.item("m1", "a@dest.test")
		item.Sender = address.ReversePath{}
		w.add(item)
		start := time.Now()
		for range 75 {
			wait(time.Hour)
			w.restart()
		}
		if len(notices) != 4 || notices[0].Sub(start) > 11*time.Minute {
			t.Fatalf("notices at %v", gaps(start, notices))
		}
		for _, gap := range gaps(notices[0], notices[1:]) {
			if gap < 24*time.Hour || gap > 24*time.Hour+20*time.Minute {
				t.Errorf("after %v", gap)
			}
		}
		for _, want := range []string{
			"DKIM-Signature", "To: <postmaster@mx.example.org>\r\n", "Subject: mx.example.org holds 1 message\r\n", "from  <>", "to    alias-a@example.org", "why   refused: 550 5.1.1 no such user",
		} {
			if !strings.Contains(text.String(), want) {
				t.Errorf("no %q in %s", want, text.String())
			}
		}
		if err := w.store.Drop(t.Context(), w.items()["m1"].ID, time.Now()); err != nil {
			t.Error(err)
		}
		delete(w.added, "m1")
		wait(48 * time.Hour)
		if len(notices) != 4 {
			t.Errorf("notices at %v", gaps(start, notices))
		}
		w.audit()
	})
}

// TestReload holds that the route in force is used.
func TestReload(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, always(greylist))
		old := w.queue.Route()
		route := old
		w.queue.Route = func() Route {
			w.mu.Lock()
			defer w.mu.Unlock()
			return route
		}
		w.run()
		w.add(w.item("m1", "a@dest.test"))
		wait(time.Minute)
		w.mu.Lock()
		route.Deliverer = deliverer(func(context.Context, *smtpclient.Transaction) smtpclient.Outcome { return noUser })
		route.Sign = func(*message.Message) ([]byte, error) { return nil, errInjected }
		w.mu.Unlock()
		wait(5 * time.Minute)
		if got := w.items()["m1"]; got == nil || got.State != store.Held || got.Reason != "its sender was not told: report: injected: refused: 550 5.1.1 no such user" {
			t.Errorf("%+v", got)
		}
		w.audit()
	})
}

type deliverer func(context.Context, *smtpclient.Transaction) smtpclient.Outcome

func (d deliverer) Deliver(ctx context.Context, t *smtpclient.Transaction) smtpclient.Outcome {
	return d(ctx, t)
}

// TestEverything plays weeks at random: destinations in every mood, faults of the
// disk, restarts. Whatever comes, each item ends as one of what it may.
func TestEverything(t *testing.T) {
	seeds := uint64(3)
	if testing.Short() || raceEnabled {
		seeds = 1
	}
	for seed := range seeds {
		inBubble(t, func(t *testing.T) {
			dice, mood := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, 1))
			w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
				w.mu.Lock()
				defer w.mu.Unlock()
				until := time.Now().Add(time.Duration(mood.IntN(240)) * time.Minute)
				moods := []smtpclient.Outcome{ok, noUser, greylist, down, down, silent, noSlot, limited(true, until), limited(false, until)}
				if mood.IntN(200) == 0 {
					panic("stumbled")
				}
				return moods[mood.IntN(len(moods))]
			})
			w.queue.look = time.Minute
			w.run()
			for i := range 200 {
				item := w.item(fmt.Sprint("m", i), fmt.Sprintf("a@dest%d.test", i%7))
				item.Bounceable = i%3 > 0
				if i%10 == 0 {
					item.Sender = address.ReversePath{}
				}
				item.Next = time.Now().Add(time.Duration(dice.IntN(4000)) * time.Minute)
				w.add(item)
			}
			for range 60 {
				time.Sleep(time.Duration(dice.IntN(240)) * time.Minute)
				w.meddle(`CREATE TRIGGER fault BEFORE DELETE ON item BEGIN SELECT RAISE(ABORT, 'injected'); END`)
				time.Sleep(time.Duration(dice.IntN(60)) * time.Second)
				if dice.IntN(3) == 0 {
					w.stop()
					w.mu.Lock()
					for id := range w.items() {
						if w.copies[id] > w.unsure[id] {
							w.unsure[id]++ // delivered, and nobody will know of it
						}
					}
					w.mu.Unlock()
					w.meddle(`DROP TRIGGER fault`)
					w.restart()
				} else {
					w.meddle(`DROP TRIGGER fault`)
				}
			}
			wait(12 * 24 * time.Hour)
			for id, item := range w.items() {
				if item.State == store.Waiting && w.added[id] != nil { // notices come every day
					t.Errorf("%s waits still, after %d attempts", id, item.Tried)
				}
			}
			w.audit()
		})
	}
}
