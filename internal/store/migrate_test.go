package store

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

// A step that fails leaves nothing of itself, and everything of those before it;
// once mended, it is taken, and no step is taken twice.
func TestMigrate(t *testing.T) {
	s, err := Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	first, err := fs.ReadFile(migrations, "migrations/0001_sender_token.sql")
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{
		"migrations/0001_sender_token.sql": file(string(first)),
		"migrations/0002_b.sql":            file("CREATE TABLE b (x INTEGER); INSERT INTO b VALUES (1);"),
		"migrations/0003_c.sql":            file("CREATE TABLE c (x INTEGER); INSERT INTO c VALUES (1); INSERT INTO nowhere VALUES (1);"),
	}
	if err := s.migrate(t.Context(), files); err == nil || !strings.Contains(err.Error(), "0003_c.sql") {
		t.Fatalf("migrate: %v, want the name of the step that failed", err)
	}
	if got := count(s, "b"); got != "1" {
		t.Errorf("step 2: %s", got)
	}
	if got := count(s, "c"); !strings.Contains(got, "no such table") {
		t.Errorf("step 3 has left something: %s", got)
	}
	files["migrations/0003_c.sql"] = file("CREATE TABLE c (x INTEGER); INSERT INTO c VALUES (1);")
	for range 2 {
		if err := s.migrate(t.Context(), files); err != nil {
			t.Fatal(err)
		}
	}
	for _, table := range []string{"b", "c"} {
		if got := count(s, table); got != "1" {
			t.Errorf("table %s: %s", table, got)
		}
	}
	if got := count(s, "migration"); got != "3" {
		t.Errorf("%s steps recorded, want 3", got)
	}
	if err := s.migrate(t.Context(), migrations); err == nil || !strings.Contains(err.Error(), "number 3") {
		t.Errorf("the older program: %v", err)
	}
}

func count(s *Store, table string) string {
	var n int
	if err := s.db.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
		return err.Error()
	}
	return fmt.Sprint(n)
}

// Steps are numbered by their names, without a gap, as their order decides.
func TestMigrationNames(t *testing.T) {
	steps, err := fs.Glob(migrations, "migrations/*")
	if err != nil || len(steps) == 0 {
		t.Fatal(steps, err)
	}
	for i, step := range steps {
		if !strings.HasPrefix(step, fmt.Sprintf("migrations/%04d_", i+1)) || !strings.HasSuffix(step, ".sql") {
			t.Errorf("step %d is called %s", i+1, step)
		}
	}
}

// What the promise of a real sync rests on. A connection that is made anew has
// the same settings.
func TestSettings(t *testing.T) {
	s, err := Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.db.SetMaxIdleConns(0)
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "busy_timeout": "10000"} {
		var got string
		if err := s.db.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %s, %v; want %s", pragma, got, err, want)
		}
	}
}
