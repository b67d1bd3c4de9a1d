package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadSurvivesEveryFile builds the alias table of every sample, good or
// bad: what could not be understood must not be missed later.
func TestReadSurvivesEveryFile(t *testing.T) {
	files, _ := filepath.Glob("../../testdata/config/*.yaml")
	if len(files) < 60 {
		t.Fatalf("%d files", len(files))
	}
	for _, file := range files {
		if _, table, problems := read(file); (table == nil) != (len(problems.Fatal()) > 0) {
			t.Errorf("%s: table %v, %d fatal problems", file, table, len(problems.Fatal()))
		}
	}
}

// TestEverythingAtOnce holds that faults of form and of meaning are told
// together, each once.
func TestEverythingAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "onward.yaml")
	text := `hostname: mx.example.org
postmaster: old@gmail.com
listn: [":25"]
domains:
  example.org:
    aliases:
      me: old@gmail.com
      ME: other@gmail.com
      a: b@example.org
      b: a@example.org
      c: nobody@example.org
      d: "no address"
      /^(x$/: old@gmail.com
      /^(.+)-list$/: "$2@gmail.com"
      shop: {to: old@gmail.com, untl: 2027-01-01}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, problems := read(path)
	var lines []string
	for _, p := range problems {
		lines = append(lines, p.String())
	}
	all := strings.Join(lines, "\n")
	for _, want := range []string{":3:", ":8:", ":9:", ":11:", ":12:", ":13:", ":14:", ":15:"} {
		if n := strings.Count(all, "onward.yaml"+want); n != 1 {
			t.Errorf("%d problems at %s, want 1\n%s", n, want, all)
		}
	}
	if len(problems) != 8 {
		t.Errorf("%d problems, want 8\n%s", len(problems), all)
	}
}
