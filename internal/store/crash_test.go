package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/reply"
	"onward/internal/store"
)

// start is a time of day in tests.
var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// letter makes an item and the rest of its message, with bytes that follow from
// its name, so that they can be made again for comparison.
func letter(name, target string, size int) (*store.Item, []byte) {
	to, err := address.Parse(target)
	if err != nil {
		panic(err)
	}
	seed := sha256.Sum256([]byte(name))
	rest := make([]byte, size)
	rand.NewChaCha8(seed).Read(rest)
	item := &store.Item{
		Message: name, Sender: address.ReversePath{Mailbox: address.Mailbox{Local: name, Domain: "sender.example"}}, Bounceable: true,
		From:      address.ReversePath{Mailbox: address.Mailbox{Local: "SRS0=" + name, Domain: "srs.example"}},
		Recipient: address.Mailbox{Local: "alias", Domain: "alias.example"}, Target: to,
		Header: fmt.Appendf(nil, "Subject: %s\r\n", name), Arrived: start, Expires: start.Add(5 * 24 * time.Hour), Next: start,
	}
	item.Size = int64(len(item.Header) + len(rest))
	return item, rest
}

// A ledger is what the callers of a store on a disk were told.
type ledger struct {
	disk *disk
	mu   sync.Mutex
	told map[string][]entry // by what it is about, in order
}

// An entry is a change: the state after it, as describe puts it, and between
// which operations of the disk it was made.
type entry struct {
	state      string
	begun, end int // end is -1 when the caller got an error
}

// write runs a change of what subject is about, which leaves state.
func (l *ledger) write(subject, state string, change func() error) error {
	begun := l.disk.now()
	err := change()
	end := l.disk.now()
	if err != nil {
		end = -1
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told[subject] = append(l.told[subject], entry{state, begun, end})
	return err
}

// allowed returns the states in which a subject may be after k operations: what
// the last finished change left, or one that had begun.
func (l *ledger) allowed(subject string, k int) []string {
	states := []string{"nothing"}
	for _, e := range l.told[subject] {
		switch {
		case e.end >= 0 && e.end <= k:
			states = []string{e.state}
		case e.begun <= k:
			states = append(states, e.state)
		}
	}
	return states
}

// describe reads everything from a database file without the store: what is
// there about every subject.
func describe(t *testing.T, db *sql.DB) map[string]string {
	t.Helper()
	found := map[string]string{}
	each(t, db, `SELECT id, message, state, attempts, tried, owner, said, rest, size FROM item ORDER BY id`, func(rows *sql.Rows) {
		var id, rest, size int64
		var attempts, tried int
		var message, state, owner, said string
		if err := rows.Scan(&id, &message, &state, &attempts, &tried, &owner, &said, &rest, &size); err != nil {
			t.Fatal(err)
		}
		name, report := strings.CutPrefix(message, "report-")
		line := fmt.Sprintf("%s %d/%d %s%s", state, tried, attempts, owner, said)
		if report {
			line = "report"
		}
		header, body := bytesOf(t, db, id, rest)
		item, want := letter(message, "x@example.org", int(size)-len(header))
		if !bytes.Equal(header, item.Header) || !bytes.Equal(body, want) {
			line += " DAMAGED"
		}
		found[name] = strings.TrimPrefix(found[name]+", "+line, ", ")
	})
	each(t, db, `SELECT key, text FROM reply`, func(rows *sql.Rows) {
		var key []byte
		var text string
		if err := rows.Scan(&key, &text); err != nil {
			t.Fatal(err)
		}
		found[strings.TrimRight(string(key), "\x00")] = text
	})
	return found
}

func bytesOf(t *testing.T, db *sql.DB, id, rest int64) (header, body []byte) {
	t.Helper()
	each(t, db, fmt.Sprintf(`SELECT bytes FROM header WHERE item = %d`, id), func(rows *sql.Rows) { rows.Scan(&header) })
	each(t, db, fmt.Sprintf(`SELECT bytes FROM piece WHERE rest = %d ORDER BY number`, rest), func(rows *sql.Rows) {
		var piece []byte
		rows.Scan(&piece)
		body = append(body, piece...)
	})
	return header, body
}

func each(t *testing.T, db *sql.DB, query string, do func(*sql.Rows)) {
	t.Helper()
	rows, err := db.Query(query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		do(rows)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

// checkTotals holds the rows that are kept beside the items against the items.
func checkTotals(t *testing.T, dir string) {
	t.Helper()
	db := raw(t, dir)
	defer db.Close()
	checkTotalsOf(t, db)
}

func checkTotalsOf(t *testing.T, db *sql.DB) {
	t.Helper()
	for name, query := range map[string]string{
		"items":        `SELECT (SELECT items FROM queue) - (SELECT count(*) FROM item)`,
		"bytes":        `SELECT (SELECT bytes FROM queue) - (SELECT coalesce(sum(length(bytes)), 0) FROM header) - (SELECT coalesce(sum(length(bytes)), 0) FROM piece)`,
		"last":         `SELECT coalesce((SELECT max(id) FROM item) > (SELECT last FROM queue), 0)`,
		"headers":      `SELECT count(*) FROM header FULL JOIN item ON item.id = header.item WHERE item.id IS NULL OR header.item IS NULL`,
		"rests":        `SELECT count(*) FROM rest WHERE uses <> (SELECT count(*) FROM item WHERE item.rest = rest.id)`,
		"no rest":      `SELECT count(*) FROM item WHERE rest NOT IN (SELECT id FROM rest)`,
		"pieces":       `SELECT count(*) FROM piece WHERE rest NOT IN (SELECT id FROM rest)`,
		"destinations": `SELECT count(*) FROM (SELECT domain, min(due) AS due FROM item WHERE state = 'waiting' GROUP BY domain) AS a FULL JOIN destination AS b ON a.domain = b.domain WHERE a.due IS NOT b.due`,
	} {
		each(t, db, query, func(rows *sql.Rows) {
			var wrong int
			if err := rows.Scan(&wrong); err != nil || wrong != 0 {
				t.Errorf("%s: wrong by %d, %v", name, wrong, err)
			}
		})
	}
	each(t, db, `PRAGMA integrity_check`, func(rows *sql.Rows) {
		var found string
		if rows.Scan(&found); found != "ok" {
			t.Errorf("integrity: %s", found)
		}
	})
}

// lifeOfMail is what the crash tests interrupt: messages that are added and
// attempted side by side, each ending in its own way, and everything else that
// is written meanwhile. What fails goes no further.
func lifeOfMail(s *store.Store, l *ledger, checkpoint func()) {
	ctx := context.Background()
	add := func(name string, size int) *store.Item {
		item, rest := letter(name, name+"@target.example", size)
		if l.write(name, "waiting 0/0 ", func() error { return s.Add(ctx, bytes.NewReader(rest), []*store.Item{item}) }) != nil {
			return nil
		}
		return item
	}
	begin := func(item *store.Item) bool {
		lease := store.Lease{Owner: "me", Until: start.Add(10 * time.Minute), Next: start.Add(2 * time.Minute)}
		state := fmt.Sprintf("waiting %d/%d me", item.Tried, item.Attempts+1)
		return l.write(item.Message, state, func() error {
			ok, err := s.Begin(ctx, item, start, lease)
			if err == nil && !ok {
				return store.ErrLost
			}
			return err
		}) == nil
	}
	later := store.Attempt{Tried: true, Next: start.Add(time.Hour), Said: "451 later"}
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() { // delivered
			if item := add(fmt.Sprint("delivered", i), 3000); item != nil && begin(item) {
				l.write(item.Message, "nothing", func() error { return s.Finish(ctx, item, nil, nil) })
			}
		})
		wg.Go(func() { // refused
			if item := add(fmt.Sprint("refused", i), 700); item != nil && begin(item) {
				report, rest := letter("report-"+item.Message, item.Sender.String(), 400)
				report.Kind = store.Report
				l.write(item.Message, "report", func() error { return s.Finish(ctx, item, []*store.Item{report}, bytes.NewReader(rest)) })
			}
		})
	}
	wg.Go(func() { // deferred, in two pieces
		if item := add("deferred", 270_000); item != nil && begin(item) {
			l.write(item.Message, "waiting 1/1 451 later", func() error { return s.Postpone(ctx, item, later) })
			checkpoint()
		}
	})
	wg.Go(func() { // held, then retried and removed by the operator
		item := add("held", 0)
		if item == nil || !begin(item) {
			return
		}
		if l.write(item.Message, "held 1/1 451 later", func() error { return s.SetAside(ctx, item, "five days", later) }) == nil &&
			l.write(item.Message, "waiting 0/1 451 later", func() error { return s.Retry(ctx, item.ID, start) }) == nil {
			l.write(item.Message, "nothing", func() error { return s.Drop(ctx, item.ID, start) })
		}
	})
	wg.Go(func() {
		key := [32]byte{'k', 'e', 'y'}
		said := reply.New(250, "2.0.0", "taken")
		if l.write("key", "taken", func() error { return s.Remember(ctx, key, said, start.Add(time.Hour)) }) == nil {
			l.write("key", "nothing", func() error { return s.Forget(ctx, key) })
		}
	})
	wg.Wait()
}

// TestPowerCut lives the life of some mail, and then cuts the power after every
// single operation on the disk, in each of the ways in which unsynced writes may
// or may not have reached it. Whatever was acknowledged must be there, whole,
// and nothing may be half done (RELIABILITY.md 4.1).
func TestPowerCut(t *testing.T) {
	dir := t.TempDir()
	l := &ledger{disk: newDisk(dir), told: map[string][]entry{}}
	s := open(t, dir)
	checkpoint := func() {
		db := raw(t, dir)
		defer db.Close()
		if _, err := db.Exec(`PRAGMA wal_checkpoint(RESTART)`); err != nil {
			t.Error(err)
		}
	}
	lifeOfMail(s, l, checkpoint)
	checkpoint()
	more, rest := letter("more", "more@target.example", 100)
	l.write("more", "waiting 0/0 ", func() error { return s.Add(t.Context(), bytes.NewReader(rest), []*store.Item{more}) })
	s.Close()

	last := map[string]int{} // the moment of each remains with most acknowledged
	l.disk.moments(func(k int, m *moment) {
		for _, r := range m.remains() {
			last[r.key(m)] = k
		}
	})
	work := inMemory(t)
	l.disk.moments(func(k int, m *moment) {
		if raceEnabled && k%16 != 0 {
			return // ten times as slow, and there are no more races to see
		}
		for _, r := range m.remains() {
			if key := r.key(m); last[key] == k && !t.Failed() {
				last[key] = -1 // two cuts may leave the same
				if checkCut(t, work, r.files(m), l, k); t.Failed() {
					t.Errorf("after %d operations of %d; of the unsynced ones are kept: %v", k, len(l.disk.ops), r)
				}
			}
		}
	})
	t.Logf("%d operations, %d different remains", len(l.disk.ops), len(last))
}

// inMemory makes a directory where a sync takes no time.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "onward")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// checkCut opens what a power cut has left, and holds it against the ledger.
func checkCut(t *testing.T, dir string, files map[string][]byte, l *ledger, k int) {
	t.Helper()
	for _, name := range []string{"onward.db", "onward.db-wal", "onward.db-shm", "onward.db-journal"} {
		os.Remove(filepath.Join(dir, name))
		if content, ok := files[name]; ok {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	s, err := store.Open(t.Context(), dir, store.Limits{})
	if err != nil {
		t.Error(err)
		return
	}
	defer s.Close()
	db := raw(t, dir)
	defer db.Close()
	found := describe(t, db)
	for subject := range l.told {
		state, ok := found[subject]
		if !ok {
			state = "nothing"
		}
		if allowed := l.allowed(subject, k); !slices.Contains(allowed, state) {
			t.Errorf("%s is %q, want one of %q", subject, state, allowed)
		}
		delete(found, subject)
	}
	if len(found) != 0 {
		t.Errorf("what is this? %q", found)
	}
	checkTotalsOf(t, db)
}
