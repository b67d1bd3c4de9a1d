package database_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"onward/internal/database"
)

func insert(x any) func(*database.Tx) error {
	return func(tx *database.Tx) error {
		_, err := tx.Exec(`INSERT INTO a (x) VALUES (?)`, x)
		return err
	}
}

// What the promise of a real sync rests on.
func TestSettings(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "x.db"), oneTable)
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "busy_timeout": "10000"} {
		var got string
		err := d.Write(t.Context(), func(tx *database.Tx) error { return tx.QueryRow("PRAGMA " + pragma).Scan(&got) })
		if err != nil || got != want {
			t.Errorf("%s = %s, %v; want %s", pragma, got, err, want)
		}
	}
}

func TestReadOnly(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "x.db"), oneTable)
	if _, err := d.Read().Exec(`INSERT INTO a (x) VALUES (1)`); err == nil {
		t.Error("a reading connection has written")
	}
	if err := d.Healthy(); err != nil {
		t.Error(err)
	}
}

// queueUp makes callers of Write that share one transaction: the first holds the
// writer until the others wait. It returns their errors in order.
func queueUp(t *testing.T, d *database.DB, members ...func(*database.Tx) error) []error {
	t.Helper()
	got := make([]error, len(members))
	started, goOn := make(chan bool), make(chan bool)
	var wg sync.WaitGroup
	for i, do := range members {
		wg.Go(func() {
			got[i] = d.Write(context.Background(), func(tx *database.Tx) error {
				if i == 0 {
					close(started)
					<-goOn
				}
				return do(tx)
			})
		})
		if i == 0 {
			<-started
		}
	}
	waitForWriters(len(members) - 1)
	close(goOn)
	wg.Wait()
	return got
}

// waitForWriters waits until n goroutines stand in Write.
func waitForWriters(n int) {
	for buf := make([]byte, 1<<20); ; {
		stacks := buf[:runtime.Stack(buf, true)]
		if bytes.Count(stacks, []byte("[select]:\nonward/internal/database.(*writer).write(")) >= n {
			return
		}
	}
}

// Whoever fails or panics is undone alone; the others are there.
func TestGroup(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "x.db"), oneTable)
	boom := errors.New("boom")
	after := func(x int, then func() error) func(*database.Tx) error {
		return func(tx *database.Tx) error {
			if err := insert(x)(tx); err != nil {
				return err
			}
			return then()
		}
	}
	got := queueUp(t, d,
		insert(1),
		after(2, func() error { return boom }),
		insert(3),
		after(4, func() error { panic("bang") }),
		insert(5),
		after(6, func() error { var p *int; *p = 1; return nil }),
		insert(7),
	)
	for i, err := range got {
		switch {
		case i%2 == 0 && err != nil:
			t.Errorf("member %d: %v", i, err)
		case i == 1 && !errors.Is(err, boom):
			t.Errorf("member %d: %v, want its own error", i, err)
		case i == 3 && (err == nil || !strings.Contains(err.Error(), "bang") || !strings.Contains(err.Error(), "database_test.go")):
			t.Errorf("member %d: %v, want the panic and where it was", i, err)
		case i == 5 && err == nil:
			t.Errorf("member %d: no error", i)
		}
	}
	var found string
	if err := d.Read().QueryRow(`SELECT group_concat(x ORDER BY x) FROM a`).Scan(&found); err != nil || found != "1,3,5,7" {
		t.Errorf("found %s, %v; want 1,3,5,7", found, err)
	}
	if err := d.Healthy(); err != nil {
		t.Error(err)
	}
}

// TestLinger holds that a group which follows a large one waits for those who come
// soon, and that one who is alone waits no longer than once.
func TestLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, filepath.Join(t.TempDir(), "x.db"), oneTable)
		defer d.Close()
		var last atomic.Int64
		write := func() time.Duration {
			began := time.Now()
			if err := d.Write(t.Context(), insert(last.Add(1))); err != nil {
				t.Error(err)
			}
			return time.Since(began)
		}
		if took := write(); took != 0 {
			t.Errorf("alone: %v", took)
		}
		var wg sync.WaitGroup
		goOn := make(chan bool)
		wg.Go(func() {
			d.Write(t.Context(), func(tx *database.Tx) error {
				<-goOn
				return nil
			})
		})
		synctest.Wait()
		for range 3 { // the next group
			wg.Go(func() { write() })
		}
		synctest.Wait()
		close(goOn)
		wg.Wait()
		var ends [20]time.Duration
		began := time.Now()
		for i := range ends {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				write()
				ends[i] = time.Since(began)
			})
		}
		wg.Wait()
		commits := map[time.Duration]int{}
		for i, end := range ends {
			if waited := end - time.Duration(i)*time.Millisecond; waited > 10*time.Millisecond {
				t.Errorf("%d waited %v", i, waited)
			}
			commits[end]++
		}
		if len(commits) > 3 {
			t.Errorf("%d commits for 20 writers that came each millisecond: %v", len(commits), commits)
		}
		write() // which waits for others once more
		if took := write(); took != 0 {
			t.Errorf("alone again: %v", took)
		}
	})
}

// TestLostTransaction holds that everybody hears of a transaction that is lost on the
// way, those too whose turn did not come.
func TestLostTransaction(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "x.db"), oneTable)
	nothing := func(*database.Tx) error { return nil }
	lose := func(tx *database.Tx) error {
		_, err := tx.Exec("ROLLBACK")
		return err
	}
	for i, err := range queueUp(t, d, nothing, lose, lose, lose, insert(1), insert(2))[1:] {
		if err == nil {
			t.Errorf("member %d heard that all is well", i)
		}
	}
	var n int
	if err := d.Read().QueryRow(`SELECT count(*) FROM a`).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows, %v", n, err)
	}
	if err := d.Write(t.Context(), insert(3)); err != nil {
		t.Error(err)
	}
}

// A constraint that is broken is the trouble of one member, too, and so is a
// statement that does not parse.
func TestGroupConstraint(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "x.db"), oneTable)
	wrong := func(tx *database.Tx) error { return tx.QueryRow(`SELECT nothing FROM nowhere`).Scan(new(int)) }
	got := queueUp(t, d, insert(1), insert(1), wrong, insert(2))
	if got[0] != nil || got[1] == nil || got[2] == nil || got[3] != nil {
		t.Error(got)
	}
	if n := count(d, "a"); n != "2" {
		t.Errorf("%s rows, want 2", n)
	}
}

// Whoever waits in line can leave it; nothing of him is done.
func TestCancelled(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "x.db"), oneTable)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Write(ctx, insert(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("Write = %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	if err := d.Write(ctx, func(tx *database.Tx) error {
		left := make(chan error)
		waiting, leave := context.WithCancel(t.Context())
		go func() { left <- d.Write(waiting, insert(2)) }()
		waitForWriters(1)
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("the one in line: %v", err)
		}
		cancel() // of the one that runs
		return insert(3)(tx)
	}); err != nil {
		t.Errorf("cancelled after it began: %v", err)
	}
	var found string
	if err := d.Read().QueryRow(`SELECT group_concat(x) FROM a`).Scan(&found); err != nil || found != "3" {
		t.Errorf("found %s, %v; want 3", found, err)
	}
}

func TestClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	d := open(t, path, oneTable)
	var wg sync.WaitGroup
	kept := make([]error, 50)
	for i := range kept {
		wg.Go(func() { kept[i] = d.Write(t.Context(), insert(i)) })
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	want := 0
	for _, err := range kept {
		if err == nil {
			want++
		} else if !errors.Is(err, database.ErrClosed) {
			t.Error(err)
		}
	}
	if err := d.Write(t.Context(), insert(99)); !errors.Is(err, database.ErrClosed) {
		t.Error(err)
	}
	if _, err := os.Stat(path + "-wal"); err == nil {
		t.Error("the log was not emptied")
	}
	if got := count(open(t, path, oneTable), "a"); got != fmt.Sprint(want) {
		t.Errorf("%s rows, want %d", got, want)
	}
}

// Two processes on one database, which wait for each other.
func TestTwoWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	both := []*database.DB{open(t, path, oneTable), open(t, path, oneTable)}
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if err := both[i%2].Write(t.Context(), insert(i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := count(both[0], "a"); got != "200" {
		t.Errorf("%s rows, want 200", got)
	}
}

// The log is copied into the database while the daemon runs, and does not grow
// with what is written.
func TestCheckpoint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	d := open(t, path, oneTable)
	for range 40 {
		if err := d.Write(t.Context(), insert(make([]byte, 1<<20))); err != nil && !strings.Contains(err.Error(), "UNIQUE") {
			t.Fatal(err)
		}
		if err := d.Write(t.Context(), func(tx *database.Tx) error { _, err := tx.Exec(`DELETE FROM a`); return err }); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path + "-wal")
	if err != nil || info.Size() > 12<<20 {
		t.Errorf("the log is %d octets, %v", info.Size(), err)
	}
}

// One flipped page is found at the start, and the error says what to do.
func TestDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	d := open(t, path, oneTable)
	for i := range 2000 {
		if err := d.Write(t.Context(), insert(fmt.Sprintf("%0500d", i))); err != nil {
			t.Fatal(err)
		}
	}
	d.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"a page of zeros": func(b []byte) []byte { clear(b[5*4096 : 6*4096]); return b },
		"the first page":  func(b []byte) []byte { clear(b[100:4096]); return b },
		"cut short":       func(b []byte) []byte { return b[:len(b)/2] },
		"something else":  func(b []byte) []byte { return bytes.Repeat([]byte("hello "), 1000) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.db")
			if err := os.WriteFile(path, damage(bytes.Clone(whole)), 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := database.Open(t.Context(), path, oneTable)
			if err == nil {
				d.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), ".recover") || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want one line with the file and what to do", err)
			}
		})
	}
}
