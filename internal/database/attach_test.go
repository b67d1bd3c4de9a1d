package database

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// Attach uses what is there, and only that: a command must not make a file that
// the daemon's user cannot open, nor change the schema under a daemon at work.
func TestAttach(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	one := fstest.MapFS{"migrations/0001_a.sql": &fstest.MapFile{Data: []byte("CREATE TABLE a (x INTEGER)")}}
	two := fstest.MapFS{"migrations/0001_a.sql": one["migrations/0001_a.sql"], "migrations/0002_b.sql": &fstest.MapFile{Data: []byte("CREATE TABLE b (x INTEGER)")}}
	if _, err := Attach(t.Context(), path, one); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("attached to nothing: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("made a file")
	}
	daemon, err := Open(t.Context(), path, one)
	if err != nil {
		t.Fatal(err)
	}
	defer daemon.Close()
	if _, err := Attach(t.Context(), path, two); err == nil || !strings.Contains(err.Error(), "older onward") {
		t.Errorf("attached to an older schema: %v", err)
	}
	command, err := Attach(t.Context(), path, one)
	if err != nil {
		t.Fatal(err)
	}
	defer command.Close()
	for _, db := range []*DB{daemon, command, daemon} {
		if err := db.Write(t.Context(), func(tx *Tx) error { _, err := tx.Exec("INSERT INTO a VALUES (1)"); return err }); err != nil {
			t.Fatal(err)
		}
	}
	var n int
	if err := daemon.Read().QueryRow("SELECT count(*) FROM a").Scan(&n); err != nil || n != 3 {
		t.Errorf("%d rows, %v", n, err)
	}
	if daemon, err = Open(t.Context(), path, two); err != nil {
		t.Fatal(err)
	}
	defer daemon.Close()
	if _, err := Attach(t.Context(), path, one); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("attached to a newer schema: %v", err)
	}
}

func TestLazy(t *testing.T) {
	db, err := OpenLazy(t.Context(), filepath.Join(t.TempDir(), "test.db"), fstest.MapFS{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var synchronous string
	err = db.Write(t.Context(), func(tx *Tx) error { return tx.QueryRow("PRAGMA synchronous").Scan(&synchronous) })
	if err != nil || synchronous != "1" {
		t.Errorf("synchronous = %s, %v; want 1", synchronous, err)
	}
}

// A damaged file is told from a disk that is full or cannot be written.
func TestErrDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("this is no database. ", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path, fstest.MapFS{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("no database: %v", err)
	}
	if _, err := Open(t.Context(), filepath.Join(path, "none"), fstest.MapFS{}); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("no directory: %v", err)
	}
}

// TestEmptied holds that a file that was emptied beside its log is no new
// database: what was in it would be gone without a word.
func TestEmptied(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	for _, file := range []string{path, path + "-wal"} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := Open(t.Context(), path, fstest.MapFS{})
	if err != nil {
		t.Fatal(err) // an empty log says nothing
	}
	d.Close()
	os.Truncate(path, 0)
	os.WriteFile(path+"-wal", []byte("what was written last"), 0o600)
	if _, err := Open(t.Context(), path, fstest.MapFS{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("Open says %v", err)
	}
}
