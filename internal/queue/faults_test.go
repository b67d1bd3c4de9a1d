package queue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/reply"
	"onward/internal/smtpclient"
	"onward/internal/store"
)

// meddle changes the database behind the store's back: it damages rows, or makes
// a statement fail by a trigger.
func (w *world) meddle(statements ...string) {
	w.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(w.dir, "onward.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			w.t.Fatalf("%s: %v", s, err)
		}
	}
}

// other opens the store as another process does, for `onward queue`.
func (w *world) other() *store.Store {
	w.t.Helper()
	s, err := store.Open(context.Background(), w.dir, store.Limits{})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// TestNotRecorded holds that a message whose delivery cannot be written down is
// not tried again, not even when its lease is over or the operator says so, and
// that it is written down as soon as that works (RELIABILITY 40).
func TestNotRecorded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, always(ok))
		w.meddle(`CREATE TRIGGER fault BEFORE DELETE ON item WHEN OLD.message = 'm1' BEGIN SELECT RAISE(ABORT, 'injected'); END`)
		w.run()
		w.add(w.item("m1", "a@dest.test"))
		w.addMany("other", 50, "dest.test", time.Now())
		wait(15 * time.Minute)
		operator := w.other()
		defer operator.Close()
		if err := operator.Retry(t.Context(), w.items()["m1"].ID, time.Now()); err != nil {
			t.Error(err)
		}
		wait(15 * time.Minute)
		if left := w.items(); len(left) != 1 || len(w.tries("m1")) != 1 || len(w.fates("m1")) != 0 {
			t.Errorf("%d items left, %d attempts, %v", len(left), len(w.tries("m1")), w.fates("m1"))
		}
		w.meddle(`DROP TRIGGER fault`)
		wait(31 * time.Second)
		if left := w.items(); len(left) != 0 || len(w.tries("m1")) != 1 || !slices.Equal(w.fates("m1"), []Fate{Delivered}) {
			t.Errorf("%d items left, %d attempts, %v", len(left), len(w.tries("m1")), w.fates("m1"))
		}
		w.audit()
	})
}

// TestNotRecordedRestart holds what happens when that does not work before the
// daemon ends: the item is there, and is tried again after its time.
func TestNotRecordedRestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, always(ok))
		w.meddle(`CREATE TRIGGER fault BEFORE DELETE ON item BEGIN SELECT RAISE(ABORT, 'injected'); END`)
		w.run()
		w.add(w.item("m1", "a@dest.test"))
		wait(time.Second)
		w.stop()
		w.meddle(`DROP TRIGGER fault`)
		began := time.Now()
		w.restart()
		wait(5 * time.Minute)
		at := w.tries("m1")
		if len(at) != 2 || at[1].Before(began) || len(w.items()) != 0 {
			t.Errorf("attempts at %v", at)
		}
		w.unsure["m1"]++ // nobody knew of the first one
		w.audit()
	})
}

// TestReportWithResult holds that the result and the report are one: when the
// daemon ends before they are on the disk, there is neither, and when it ends
// right after, there are both, once (RELIABILITY 39).
func TestReportWithResult(t *testing.T) {
	answer := func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
		if tr.To.Domain == "dest.test" {
			return noUser
		}
		return greylist
	}
	for _, fault := range []string{
		`CREATE TRIGGER fault BEFORE INSERT ON item WHEN NEW.kind = 'report' BEGIN SELECT RAISE(ABORT, 'injected'); END`,
		`CREATE TRIGGER fault BEFORE DELETE ON item BEGIN SELECT RAISE(ABORT, 'injected'); END`,
		`CREATE TRIGGER fault BEFORE INSERT ON piece BEGIN SELECT RAISE(ABORT, 'injected'); END`,
	} {
		inBubble(t, func(t *testing.T) {
			w := newWorld(t, answer)
			w.add(w.item("m1", "a@dest.test"))
			w.meddle(fault)
			w.run()
			wait(time.Minute)
			if left := w.items(); len(left) != 1 || left["m1"] == nil {
				t.Errorf("with %s: %v", fault, left)
			}
			w.stop()
			w.meddle(`DROP TRIGGER fault`)
			for range 3 {
				w.restart()
				wait(5 * time.Minute)
			}
			if left := w.items(); len(left) != 1 || left["m1"] != nil || len(w.reports()) != 1 || len(w.tries("m1")) != 2 {
				t.Errorf("with %s: %v, %d reports, %d attempts", fault, left, len(w.reports()), len(w.tries("m1")))
			}
			w.audit()
		})
	}
}

// TestNotBegun holds that nothing is attempted that could not be written down
// before, and that it goes on when the store does.
func TestNotBegun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, always(ok))
		w.meddle(`CREATE TRIGGER fault BEFORE UPDATE ON item BEGIN SELECT RAISE(ABORT, 'injected'); END`)
		w.run()
		w.addMany("m", 100, "dest.test", time.Now())
		wait(time.Hour)
		if len(w.attempts) != 0 {
			t.Errorf("%d attempts", len(w.attempts))
		}
		if n := strings.Count(w.log.String(), "\n"); n > 20*3600/5 {
			t.Errorf("%d lines in the log", n)
		}
		w.meddle(`DROP TRIGGER fault`)
		wait(time.Minute)
		if left := w.items(); len(left) != 0 || len(w.attempts) != 100 {
			t.Errorf("%d left, %d attempts", len(left), len(w.attempts))
		}
		w.audit()
	})
}

// TestClockInTrouble holds that trouble is over when it is, also for a clock that
// was set back meanwhile.
func TestClockInTrouble(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var shift time.Duration
		w := newWorld(t, always(ok))
		w.queue.clock = func() time.Time {
			w.mu.Lock()
			defer w.mu.Unlock()
			return time.Now().Add(shift)
		}
		w.meddle(`CREATE TRIGGER fault BEFORE UPDATE ON item BEGIN SELECT RAISE(ABORT, 'injected'); END`)
		w.run()
		w.add(w.item("m1", "a@dest.test"))
		wait(time.Minute)
		w.mu.Lock()
		shift = -10 * 24 * time.Hour
		w.mu.Unlock()
		w.meddle(`DROP TRIGGER fault`)
		w.add(w.item("m2", "a@dest.test"))
		wait(10 * time.Second)
		if n := len(w.tries("m2")); n != 1 {
			t.Errorf("%d attempts", n)
		}
		w.audit()
	})
}

// TestDamaged holds that no damaged message is delivered, and that it stops
// nobody else (RELIABILITY 91).
func TestDamaged(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, always(ok))
		damage := map[string]string{
			"flipped":   `UPDATE piece SET bytes = CAST('xxHello..' AS BLOB) WHERE rest = %d`,
			"short":     `UPDATE piece SET bytes = substr(bytes, 1, 4) WHERE rest = %d`,
			"empty":     `UPDATE piece SET bytes = x'' WHERE rest = %d`,
			"gone":      `DELETE FROM piece WHERE rest = %d`,
			"sum":       `UPDATE rest SET sha256 = x'00' WHERE id = %d`,
			"header":    `UPDATE header SET bytes = CAST('X: y' AS BLOB) WHERE item = %d`,
			"no header": `DELETE FROM header WHERE item = %d`,
			"target":    `UPDATE item SET target = 'no address' WHERE id = %d`,
			"sender":    `UPDATE item SET sender = x'ff' || '@@' WHERE id = %d`,
		}
		for name, statement := range damage {
			w.add(w.item(name, "a@dest.test"))
			w.meddle(fmt.Sprintf(statement, w.added[name].ID))
		}
		large := w.item("large", "a@dest.test")
		body := "\r\n" + strings.Repeat("0123456789abcdef\r\n", 40_000)
		large.Size = int64(len(large.Header) + len(body))
		w.added["large"] = large
		if err := w.store.Add(t.Context(), strings.NewReader(body), []*store.Item{large}); err != nil {
			t.Fatal(err)
		}
		w.meddle(fmt.Sprintf(`UPDATE piece SET bytes = substr(bytes, 1, 100) WHERE rest = %d AND number = 2`, large.ID))
		w.addMany("m", 50, "dest.test", time.Now())
		w.run()
		wait(time.Minute)
		left := w.items()
		for name := range damage {
			if left[name] == nil || left[name].State != store.Held || !strings.Contains(left[name].Reason, "damaged") {
				t.Errorf("%s: %+v", name, left[name])
			}
		}
		if len(left) != len(damage)+1 || left["large"].State != store.Held || len(w.copies) != 50 {
			t.Errorf("%d left, %d delivered", len(left), len(w.copies))
		}
		w.audit()
	})
}

// TestOtherProcess holds that what `onward queue` does is noticed within two
// seconds.
func TestOtherProcess(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		answer := greylist
		w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
			w.mu.Lock()
			defer w.mu.Unlock()
			return answer
		})
		w.run()
		w.add(w.item("retry", "a@dest.test"), w.item("hold", "b@dest.test"), w.item("drop", "c@dest.test"))
		wait(time.Minute)
		operator := w.other()
		defer operator.Close()
		do := func(what func(context.Context, int64, time.Time) error, id string) {
			t.Helper()
			if err := what(t.Context(), w.items()[id].ID, time.Now()); err != nil {
				t.Error(err)
			}
		}
		hold := func(ctx context.Context, id int64, now time.Time) error { return operator.Hold(ctx, id, now, "wait") }
		do(operator.Retry, "retry")
		do(hold, "hold")
		do(operator.Drop, "drop")
		delete(w.added, "drop")
		wait(2 * time.Second)
		if n := len(w.tries("retry")); n != 2 {
			t.Errorf("%d attempts at what was to be retried", n)
		}
		w.mu.Lock()
		answer = ok
		w.mu.Unlock()
		wait(2 * time.Hour)
		if len(w.tries("hold")) != 1 || len(w.tries("drop")) != 1 || len(w.items()) != 1 {
			t.Errorf("%d, %d attempts, %d items", len(w.tries("hold")), len(w.tries("drop")), len(w.items()))
		}
		do(operator.Retry, "hold")
		wait(2 * time.Second)
		if len(w.items()) != 0 || w.copies["hold"] != 1 {
			t.Error("it was not released")
		}
		w.audit()
	})
}

// TestReadAhead holds that an item which the schedule has read already, and the
// operator takes away before its turn, is not tried; and that its turn passes on.
func TestReadAhead(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
			time.Sleep(time.Minute)
			return ok
		})
		w.addMany("m", 60, "dest.test", time.Now())
		w.run()
		operator := w.other()
		defer operator.Close()
		wait(90 * time.Second) // the window grows, and more is read than there is room for
		var dropped, held int
		for id, item := range w.items() {
			switch {
			case len(w.tries(id)) > 0:
			case id == "m59": // nothing changes for it
				if err := operator.Retry(t.Context(), item.ID, time.Now()); err != nil {
					t.Error(err)
				}
			case dropped <= held:
				if err := operator.Drop(t.Context(), item.ID, time.Now()); err != nil {
					t.Error(err)
				}
				delete(w.added, id)
				dropped++
			default:
				if err := operator.Hold(t.Context(), item.ID, time.Now(), "wait"); err != nil {
					t.Error(err)
				}
				held++
			}
		}
		if dropped < 20 || held < 20 {
			t.Fatalf("%d dropped, %d held: too few for this test", dropped, held)
		}
		w.addMany("late", 20, "dest.test", time.Now())
		wait(5 * time.Minute)
		if n := len(w.attemptsNow()); n != 60-dropped-held+20 {
			t.Errorf("%d attempts, with %d dropped and %d held", n, dropped, held)
		}
		if left := w.items(); len(left) != held {
			t.Errorf("%d items are left, %d are held", len(left), held)
		}
		w.audit()
	})
}

// TestReadAheadBounds: much is read ahead for a domain that takes much, and never
// more than is worth it; nothing where the domain is away, and nothing is kept for
// one that comes to be away or is paused.
func TestReadAheadBounds(t *testing.T) {
	w := newWorld(t, always(ok))
	defer w.close()
	now := time.Now()
	w.addShared("m", 500, "dest.test", now)
	s := newSchedule(w.queue)
	for _, tt := range []struct {
		window, busy, limit int
		away                bool
		want                int
	}{
		{firstWindow, 0, 20, false, 2 * firstWindow},
		{20, 20, 20, false, 40},
		{20, 10, 20, true, 20},
		{1000, 0, 0, false, 2 * maxWorkers},
	} {
		d := &destination{domain: "dest.test", window: tt.window, busy: tt.busy, away: tt.away}
		s.readAhead(t.Context(), &offer{domain: d.domain, known: d}, now, tt.limit, maxWorkers)
		if len(d.ahead) != tt.want {
			t.Errorf("%+v: %d read", tt, len(d.ahead))
		}
		first := d.ahead[0]
		if tt.away {
			s.learn(t.Context(), result{at: d, item: first, outcome: down})
			if d.ahead != nil {
				t.Error("kept for a domain that is away")
			}
			continue
		}
		until := now.Add(time.Hour)
		for _, target := range []string{"a@dest.test", "b@dest.test"} {
			d.busy++
			item := *first
			item.Target, _ = address.ParsePath(target)
			s.learn(t.Context(), result{at: d, item: &item, outcome: limited(true, until)})
		}
		if d.ahead != nil {
			t.Errorf("%+v: kept for a domain that is paused", tt)
		}
	}
}

// TestPoisonLetGo holds that an item which has been read as poison, and is let go
// before its turn, is tried.
func TestPoisonLetGo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
			time.Sleep(time.Minute)
			return ok
		})
		var items []*store.Item
		for i := range 40 {
			item := w.item(fmt.Sprint("m", i), "box@dest.test")
			item.Next = time.Now().Add(time.Duration(i))
			items = append(items, item)
		}
		items[16].Unfinished = poison
		w.add(items...)
		w.run()
		operator := w.other()
		defer operator.Close()
		wait(90 * time.Second) // ten are under way, and the two after them have been read
		if err := operator.Retry(t.Context(), w.items()["m16"].ID, time.Now()); err != nil {
			t.Fatal(err)
		}
		wait(10 * time.Minute)
		if len(w.items()) != 0 || w.copies["m16"] != 1 {
			t.Errorf("%d items are left, and it came %d times", len(w.items()), w.copies["m16"])
		}
		w.audit()
	})
}

// TestLease holds that nobody else can have an item while an attempt lasts,
// however long that is.
func TestLease(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
			time.Sleep(45 * time.Minute)
			return ok
		})
		w.run()
		w.add(w.item("m1", "a@dest.test"))
		operator := w.other()
		defer operator.Close()
		wait(time.Second)
		for range 44 {
			item := w.items()["m1"]
			if left := time.Until(item.Until); left <= 0 || left > 10*time.Minute {
				t.Errorf("the lease lasts %v", left)
			}
			lease := store.Lease{Owner: "thief", Until: time.Now().Add(time.Minute), Next: time.Now()}
			if begun, err := operator.Begin(t.Context(), item, time.Now(), lease); begun || err != nil {
				t.Error(begun, err)
			}
			if err := operator.Drop(t.Context(), item.ID, time.Now()); !errors.Is(err, store.ErrBusy) {
				t.Error(err)
			}
			wait(time.Minute)
		}
		wait(10 * time.Minute)
		if n := len(w.items()); n != 0 {
			t.Errorf("%d items", n)
		}
		w.audit()
	})
}

// TestStoodStill holds that a process that stood still until its lease was over
// does not send the final dot when somebody else has the item (RELIABILITY 87).
func TestStoodStill(t *testing.T) {
	for _, taken := range []bool{false, true} {
		inBubble(t, func(t *testing.T) {
			var shift time.Duration
			w := newWorld(t, nil)
			w.queue.clock = func() time.Time {
				w.mu.Lock()
				defer w.mu.Unlock()
				return time.Now().Add(shift)
			}
			w.answer = func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
				w.mu.Lock()
				shift = 15 * time.Minute
				w.mu.Unlock()
				if taken {
					now := w.queue.clock()
					lease := store.Lease{Owner: "thief", Until: now.Add(leaseTime), Next: now.Add(time.Hour)}
					if begun, err := w.store.Begin(t.Context(), w.items()["m1"], now, lease); err != nil || !begun {
						t.Error(begun, err)
					}
				}
				return ok
			}
			w.run()
			w.add(w.item("m1", "a@dest.test"))
			wait(time.Minute)
			item := w.items()["m1"]
			if got := w.copies["m1"]; taken && (got != 0 || item == nil || item.Owner != "thief") || !taken && (got != 1 || item != nil) {
				t.Errorf("taken %v: %d copies, %+v", taken, got, item)
			}
			w.audit()
		})
	}
}

// TestTakenBack holds that what a process was trying when it died is tried again
// after the restart, at the time that was written before, not when its lease ends.
func TestTakenBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, always(ok))
		w.add(w.item("m1", "a@dest.test"))
		lease := store.Lease{Owner: w.queue.Owner, Until: time.Now().Add(leaseTime), Next: time.Now().Add(2 * time.Minute)}
		if begun, err := w.store.Begin(t.Context(), w.items()["m1"], time.Now(), lease); err != nil || !begun {
			t.Fatal(begun, err)
		}
		start := time.Now()
		w.run()
		wait(4 * time.Minute)
		if got := gaps(start, w.tries("m1")); len(got) != 1 || got[0] < 2*time.Minute || got[0] > 2*time.Minute+2*time.Second {
			t.Errorf("tried after %v", got)
		}
		w.audit()
	})
}

// TestRace runs adders, the queue, and an impatient operator in another process
// against each other on a real clock: no item is ever tried twice at a time, and
// each arrives once (RELIABILITY 37).
func TestRace(t *testing.T) {
	var mu sync.Mutex
	under := map[string]bool{}
	w := newWorld(t, func(w *world, tr *smtpclient.Transaction) smtpclient.Outcome {
		mu.Lock()
		if under[tr.ID] {
			t.Errorf("%s is tried twice at a time", tr.ID)
		}
		under[tr.ID] = true
		mu.Unlock()
		time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		under[tr.ID] = false
		return []smtpclient.Outcome{ok, greylist, down}[rand.IntN(3)]
	})
	w.queue.look = time.Millisecond
	w.run()
	operator := w.other()
	defer operator.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var impatient sync.WaitGroup
	for range 2 {
		impatient.Go(func() {
			for ctx.Err() == nil {
				items, err := operator.Items(ctx, store.Filter{Limit: 20})
				for _, item := range items {
					err = errors.Join(err, operator.Retry(ctx, item.ID, time.Now()))
				}
				if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrBusy) && !errors.Is(err, store.ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
	for i := range 10 {
		w.addMany(fmt.Sprint("m", i, "-"), 30, fmt.Sprintf("dest%d.test", i%3), time.Now())
	}
	for ctx.Err() == nil && len(w.items()) > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	if n := len(w.items()); n > 0 {
		t.Errorf("%d items are left", n)
	}
	cancel()
	impatient.Wait()
	w.stop()
	t.Logf("%d items, %d attempts", len(w.added), len(w.attempts))
	w.audit()
}

// reading takes a message's bytes as fast as they come, and nothing else.
func reading(_ context.Context, tr *smtpclient.Transaction) smtpclient.Outcome {
	if _, err := io.Copy(io.Discard, tr.Open()); err != nil {
		return smtpclient.Outcome{Result: smtpclient.Deferred, Tried: true, Reply: reply.Trouble(err)}
	}
	return ok
}

// fill puts n messages of 10 KB into the queue, for 20 domains.
func fill(b *testing.B, w *world, n int, next time.Time) {
	body := "\r\n" + strings.Repeat("0123456789abcdef 0123456789abcdef 0123456789abcdef\r\n", 188)
	var wg sync.WaitGroup
	for part := range 64 {
		wg.Go(func() {
			for i := part; i < n; i += 64 {
				item := w.item(fmt.Sprint("m", i), fmt.Sprintf("box%d@dest%d.test", i%100, i%20))
				item.Size, item.Next = int64(len(item.Header)+len(body)), next
				if err := w.store.Add(context.Background(), strings.NewReader(body), []*store.Item{item}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkDrain is how fast the queue delivers where destinations take no time,
// with so many items left behind.
func BenchmarkDrain(b *testing.B) {
	for _, depth := range []int{1000, 100_000} {
		b.Run(fmt.Sprint("depth=", depth), func(b *testing.B) {
			w := newWorld(b, nil)
			fill(b, w, depth+b.N, time.Now().Add(-time.Minute))
			syscall.Sync() // what filling it has left for the disk to do is no part of what follows
			route := w.queue.Route()
			route.Deliverer = deliverer(reading)
			w.queue.Route = func() Route { return route }
			delivered := make(chan struct{}, 1000)
			w.queue.Record = func(Event) { delivered <- struct{}{} }
			b.ResetTimer()
			w.run()
			for range b.N {
				<-delivered
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			go func() {
				for range delivered {
				}
			}()
			w.close()
			close(delivered)
		})
	}
}
