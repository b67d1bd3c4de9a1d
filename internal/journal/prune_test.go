package journal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"onward/internal/journal"
)

// story records all there is about one message, which arrived so long ago.
func story(j *journal.Journal, id string, ago time.Duration) {
	at := time.Now().Add(-ago)
	m, a, e := letter(id, journal.Queued, fine), try(id, "ann@dest.example", "deferred", full), event(id, "ann@dest.example", journal.Delivered, fine)
	m.Arrived, m.Answered, a.Began, e.Time = at, at, at, at
	for _, entry := range []journal.Entry{a, m, a, a, e} {
		j.Record(entry)
	}
}

// whole reports what is left of a message.
func whole(t *testing.T, r *journal.Reader, id string) string {
	t.Helper()
	s, err := r.Story(t.Context(), id)
	if err != nil {
		return "nothing"
	}
	return fmt.Sprintf("%t %d %d", s.Size > 0, len(s.Attempts), len(s.Events))
}

const everything = "true 3 2"

// TestKeepDays: what is older goes, in several steps, and no more than that. A
// row from a clock that was ahead holds up nothing but what came after it.
func TestKeepDays(t *testing.T) {
	dir := t.TempDir()
	j, _ := start(t, dir, unlimited)
	const old = 600
	for i := range old {
		story(j, fmt.Sprintf("old-%04d", i), 31*24*time.Hour)
	}
	story(j, "young", 29*24*time.Hour)
	must(t, j.Close())

	j, log := start(t, dir, func() journal.Limits { return journal.Limits{Keep: 30 * 24 * time.Hour} })
	r := reader(t, dir)
	wait(t, "the last to go", func() bool { return whole(t, r, fmt.Sprintf("old-%04d", old-1)) == "nothing" })
	must(t, j.Close())
	for i := range old {
		if got := whole(t, r, fmt.Sprintf("old-%04d", i)); got != "nothing" {
			t.Fatalf("of old message %d there is %s", i, got)
		}
	}
	if got := whole(t, r, "young"); got != everything {
		t.Errorf("of the young message there is %s", got)
	}
	if log.String() != "" {
		t.Error(log)
	}
}

// TestKeepSize: the file stops growing, the oldest goes, whole messages at a
// time, and what is recorded meanwhile is written.
func TestKeepSize(t *testing.T) {
	dir := t.TempDir()
	const limit = 512 << 10
	j, _ := start(t, dir, unlimited)
	const all = 800
	for i := range all {
		story(j, fmt.Sprintf("%05d", i), time.Duration(all-i)*time.Minute)
	}
	must(t, j.Close())
	path := filepath.Join(dir, "journal.db")
	before, err := os.Stat(path)
	must(t, err)
	if before.Size() < 2*limit {
		t.Fatalf("only %d octets", before.Size())
	}
	j, log := start(t, dir, func() journal.Limits { return journal.Limits{Size: limit} })
	r := reader(t, dir)
	first := func() int { // the oldest that is left
		events, err := r.Newest(t.Context(), journal.Filter{})
		must(t, err)
		n, err := strconv.Atoi(events[0].Message)
		must(t, err)
		return n
	}
	last := -1
	wait(t, "pruning to end", func() bool {
		was := last
		last = first()
		time.Sleep(300 * time.Millisecond)
		return last > 0 && last == was
	})
	story(j, "new", 0)
	must(t, j.Close())
	if last < all/4 || last >= all-100 {
		t.Errorf("the oldest of %d is %d now", all, last)
	}
	halves := 0
	for i := last - 50; i < all; i++ {
		if got := whole(t, r, fmt.Sprintf("%05d", i)); i > last && got != everything || i < last-1 && got != "nothing" {
			halves++
			t.Logf("of message %d there is %s", i, got)
		}
	}
	if got := whole(t, r, "new"); halves > 0 || got != everything {
		t.Errorf("%d are not whole; of the new one there is %s", halves, got)
	}
	after, err := os.Stat(path)
	must(t, err)
	if after.Size() > before.Size()+64<<10 || strings.Contains(log.String(), "ERROR") {
		t.Errorf("%d octets before, %d after; %s", before.Size(), after.Size(), log)
	}
}

// TestNumbersAreNotGivenAgain: whoever follows a journal that was pruned to
// nothing does not miss what comes next.
func TestNumbersAreNotGivenAgain(t *testing.T) {
	dir := t.TempDir()
	j, _ := start(t, dir, unlimited)
	for range 3 {
		story(j, "old", 100*24*time.Hour)
	}
	must(t, j.Close())
	r := reader(t, dir)
	newest, err := r.Last(t.Context())
	must(t, err)
	j, _ = start(t, dir, func() journal.Limits { return journal.Limits{Keep: 24 * time.Hour} })
	wait(t, "pruning", func() bool { return whole(t, r, "old") == "false 0 1" })
	story(j, "new", 0)
	must(t, j.Close())
	events, err := r.After(t.Context(), newest, journal.Filter{})
	must(t, err)
	if len(events) != 2 || events[0].Message != "new" {
		t.Errorf("%+v", events)
	}
}
