package journal_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"onward/internal/journal"
)

// TestDamaged: a journal that cannot be used is moved aside, which is said, and
// a new one has all that is recorded from then on.
func TestDamaged(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"no database": func([]byte) []byte {
			return bytes.Repeat([]byte("this is no database, but it is long enough to be one. "), 200)
		},
		"overwritten":   func(b []byte) []byte { return append(b[:100:100], bytes.Repeat([]byte{0xff}, len(b)-100)...) },
		"cut off":       func(b []byte) []byte { return b[:len(b)/2&^0xfff] },
		"header of old": func(b []byte) []byte { copy(b[16:], "\xff\xff"); return b },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "journal.db")
			j, _ := start(t, dir, unlimited)
			for i := range 300 {
				story(j, fmt.Sprint(i), time.Hour)
			}
			must(t, j.Close())
			before, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, damage(bytes.Clone(before)), 0o600))

			j, log := start(t, dir, unlimited)
			story(j, "new", 0)
			wait(t, "the new journal", func() bool {
				r, err := journal.OpenReader(t.Context(), dir)
				if err != nil {
					return false
				}
				defer r.Close()
				s, err := r.Story(t.Context(), "new")
				return err == nil && len(s.Attempts) == 3 && len(s.Events) == 2
			})
			must(t, j.Close())
			if _, err := os.Stat(path + ".damaged"); err != nil {
				t.Errorf("%v", err)
			}
			if !strings.Contains(log.String(), "begun anew") || !strings.Contains(log.String(), "journal.db.damaged") {
				t.Errorf("the log: %s", log)
			}
		})
	}
}
