package database_test

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"onward/internal/database"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

// oneTable is a schema for tests that need no more.
var oneTable = fstest.MapFS{"migrations/0001_a.sql": file("CREATE TABLE a (x INTEGER UNIQUE);")}

func open(t testing.TB, path string, files fs.FS) *database.DB {
	t.Helper()
	d, err := database.Open(context.Background(), path, files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func count(d *database.DB, table string) string {
	var n int
	if err := d.Read().QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
		return err.Error()
	}
	return fmt.Sprint(n)
}

// A step that fails leaves nothing of itself, and everything of those before it;
// once mended, it is taken, and no step is taken twice.
func TestMigrate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	files := fstest.MapFS{
		"migrations/0001_a.sql": oneTable["migrations/0001_a.sql"],
		"migrations/0002_b.sql": file("CREATE TABLE b (x INTEGER); INSERT INTO b VALUES (1);"),
		"migrations/0003_c.sql": file("CREATE TABLE c (x INTEGER); INSERT INTO c VALUES (1); INSERT INTO nowhere VALUES (1);"),
	}
	if _, err := database.Open(t.Context(), path, files); err == nil || !strings.Contains(err.Error(), "0003_c.sql") {
		t.Fatalf("Open: %v, want the name of the step that failed", err)
	}
	d := open(t, path, fstest.MapFS{"migrations/0001_a.sql": files["migrations/0001_a.sql"], "migrations/0002_b.sql": files["migrations/0002_b.sql"]})
	if got := count(d, "b"); got != "1" {
		t.Errorf("step 2: %s", got)
	}
	if got := count(d, "c"); !strings.Contains(got, "no such table") {
		t.Errorf("step 3 has left something: %s", got)
	}
	files["migrations/0003_c.sql"] = file("CREATE TABLE c (x INTEGER); INSERT INTO c VALUES (1);")
	for range 2 {
		d = open(t, path, files)
	}
	for _, table := range []string{"b", "c"} {
		if got := count(d, table); got != "1" {
			t.Errorf("table %s: %s", table, got)
		}
	}
	if got := count(d, "migration"); got != "3" {
		t.Errorf("%s steps recorded, want 3", got)
	}
	if _, err := database.Open(t.Context(), path, oneTable); err == nil || !strings.Contains(err.Error(), "number 3") {
		t.Errorf("the older program: %v", err)
	}
}
