package store_test

import (
	"bytes"
	"errors"
	"testing"

	"onward/internal/reply"
	"onward/internal/store"

	sqlite3 "modernc.org/sqlite/lib"
)

// nth fails the nth operation of a kind on a file, and all that follow for as
// long as they are asked for.
func nth(n int, kind opKind, file string, code int32) func(op) int32 {
	return func(o op) int32 {
		if o.kind != kind || o.file != file {
			return 0
		}
		if n--; n > 0 {
			return 0
		}
		return code
	}
}

// once fails one operation only: the kernel reports a failed write-back once.
func once(n int, kind opKind, file string, code int32) func(op) int32 {
	all := nth(n, kind, file, code)
	failed := false
	return func(o op) int32 {
		if failed {
			return 0
		}
		code := all(o)
		failed = code != 0
		return code
	}
}

// checkLeft holds what is on the disk against the ledger: as it is after a
// restart, and after a power cut with every choice of what was not synced.
func checkLeft(t *testing.T, l *ledger) {
	t.Helper()
	work, all := inMemory(t), l.disk.now()
	l.disk.moments(func(k int, m *moment) {
		if k == all {
			for _, r := range m.remains() {
				checkCut(t, work, r.files(m), l, k)
			}
		}
	})
}

// When a sync fails, at any time in the life of some mail, its writers hear so,
// nothing acknowledged is lost, and from then on nothing is written and nothing
// attempted (RELIABILITY.md 2.3, 94), until the next start.
func TestFailedSync(t *testing.T) {
	for n := 1; n <= 5; n++ { // there are as many at least
		dir := t.TempDir()
		l := &ledger{disk: newDisk(dir), told: map[string][]entry{}}
		s := open(t, dir)
		before := add(t, s, "before", 10, "x@before.example")[0]
		l.told["before"] = []entry{{"waiting 0/0 ", 0, 0}}
		l.disk.failing(once(n, opSync, "onward.db-wal", sqlite3.SQLITE_IOERR_FSYNC))
		lifeOfMail(s, l, func() {})

		if err := s.Healthy(); !errors.Is(err, store.ErrUnhealthy) {
			t.Fatalf("sync %d: healthy: %v", n, err)
		}
		ops := l.disk.now()
		after, rest := letter("after", "x@example.org", 10)
		for name, err := range map[string]error{
			"Add":      s.Add(t.Context(), bytes.NewReader(rest), []*store.Item{after}),
			"Remember": s.Remember(t.Context(), [32]byte{1}, reply.New(250, "2.0.0", "x"), start),
			"Hold":     s.Hold(t.Context(), before.ID, start, "x"),
		} {
			if !errors.Is(err, store.ErrUnhealthy) {
				t.Errorf("sync %d: %s: %v", n, name, err)
			}
		}
		if ok, err := s.Begin(t.Context(), before, start, store.Lease{Owner: "me", Until: start.Add(minute)}); ok || !errors.Is(err, store.ErrUnhealthy) {
			t.Errorf("sync %d: begun: %v, %v", n, ok, err)
		}
		if got := l.disk.now(); got != ops {
			t.Errorf("sync %d: %d operations after it", n, got-ops)
		}
		if _, err := s.Items(t.Context(), store.Filter{}); err != nil {
			t.Errorf("sync %d: cannot be read: %v", n, err)
		}
		checkLeft(t, l)
		s.Close()
		s = open(t, dir)
		if err := s.Add(t.Context(), bytes.NewReader(rest), []*store.Item{after}); err != nil {
			t.Errorf("sync %d: after a restart: %v", n, err)
		}
	}
}

// When the disk is full, at any write, the writers hear so, and the store goes
// on as soon as there is room.
func TestDiskFull(t *testing.T) {
	for n := 1; n < 60; n += 7 {
		dir := t.TempDir()
		l := &ledger{disk: newDisk(dir), told: map[string][]entry{}}
		s := open(t, dir)
		l.disk.failing(nth(n, opWrite, "onward.db-wal", sqlite3.SQLITE_FULL))
		lifeOfMail(s, l, func() {})
		it, rest := letter("full", "x@example.org", 10)
		if err := s.Add(t.Context(), bytes.NewReader(rest), []*store.Item{it}); !errors.Is(err, store.ErrNoRoom) {
			t.Errorf("write %d: Add: %v", n, err)
		}
		if err := s.Healthy(); err != nil {
			t.Errorf("write %d: %v", n, err)
		}
		l.disk.failing(nil)
		l.write("full", "waiting 0/0 ", func() error { return s.Add(t.Context(), bytes.NewReader(rest), []*store.Item{it}) })
		if l.told["full"][0].end < 0 {
			t.Errorf("write %d: no item is added when there is room again", n)
		}
		checkLeft(t, l)
	}
}

// The other errors of a disk, also those of a checkpoint, which no writer sees.
func TestSickDisk(t *testing.T) {
	for name, fail := range map[string]func(op) int32{
		"a write fails":              once(3, opWrite, "onward.db-wal", sqlite3.SQLITE_IOERR_WRITE),
		"read-only":                  nth(1, opWrite, "onward.db-wal", sqlite3.SQLITE_READONLY),
		"a checkpoint cannot write":  once(1, opWrite, "onward.db", sqlite3.SQLITE_IOERR_WRITE),
		"a checkpoint is not synced": once(1, opSync, "onward.db", sqlite3.SQLITE_IOERR_FSYNC),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := &ledger{disk: newDisk(dir), told: map[string][]entry{}}
			s := open(t, dir)
			l.disk.failing(fail)
			large, rest := letter("large", "x@large.example", 5<<20)
			l.write("large", "waiting 0/0 ", func() error { return s.Add(t.Context(), bytes.NewReader(rest), []*store.Item{large}) })
			lifeOfMail(s, l, func() {})
			if err := s.Healthy(); !errors.Is(err, store.ErrUnhealthy) {
				t.Errorf("healthy: %v", err)
			}
			checkLeft(t, l)
		})
	}
}
