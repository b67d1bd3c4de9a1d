package store

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

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
