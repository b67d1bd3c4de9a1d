package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// imported shows what was read as the .want files have it.
func imported(i *importing) string {
	var b strings.Builder
	for _, d := range i.domains {
		tag := ""
		if d.keepTag {
			tag = " keep_tag"
		}
		fmt.Fprintf(&b, "%s:%s\n%s\n", d.name, tag, strings.Join(d.aliasLines("  "), "\n"))
	}
	if len(i.lost) > 0 {
		b.WriteString("lost:\n")
	}
	for _, l := range i.lost {
		fmt.Fprintf(&b, "  %s: %s\n", l.Where, l.Why)
	}
	return b.String()
}

// TestImport reads each sample, and what is made of it is good for a
// configuration.
func TestImport(t *testing.T) {
	samples, _ := filepath.Glob("../../testdata/import/*.want")
	if len(samples) < 7 {
		t.Fatalf("%d samples", len(samples))
	}
	for _, want := range samples {
		stem := strings.TrimSuffix(want, ".want")
		t.Run(filepath.Base(stem), func(t *testing.T) {
			file := stem + ".txt"
			if _, err := os.Stat(file); err != nil {
				file = stem + ".json"
			}
			own := "example.org"
			if !strings.Contains(stem, "chasquid") && !strings.Contains(stem, "plain") && !strings.Contains(stem, "-aliases") {
				own = ""
			}
			domain, _ := parseOwnDomain(own)
			got, err := importFile(file, nil, domain)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if imported(got) != string(text) {
				t.Errorf("read as\n%s\nwant\n%s", imported(got), text)
			}
			path := filepath.Join(t.TempDir(), "onward.yaml")
			s := setup{hostname: "mx.example.org", postmaster: "you@gmail.com", domains: got.domains}
			lost, err := s.write(path, true, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, problems := read(path); len(problems.Fatal()) > 0 {
				t.Error(problems)
			}
			if len(lost) > 0 {
				t.Errorf("left out: %v", lost)
			}
		})
	}
}

// TestImportRefuses: a file that is none of these, or does not say for which
// domain it is, is no empty configuration.
func TestImportRefuses(t *testing.T) {
	for _, tt := range []struct{ name, text, own, want string }{
		{"prose", "Dear Sir or Madam\n", "", "of no kind"},
		{"empty", "", "", "of no kind"},
		{"other JSON", `{"users": []}`, "", "neither of Cloudflare"},
		{"broken JSON", `{"result": [`, "", "unexpected EOF"},
		{"chasquid without a domain", "me: you@gmail.com\n", "", "which domain"},
		{"Forward Email without a domain", "forward-email=you@gmail.com\n", "", "which domain"},
		{"ImprovMX without a domain", `{"aliases": [{"alias": "me", "forward": "you@gmail.com"}]}`, "", "which domain"},
		{"catch-all without a domain", `{"result": {"matchers": [{"type": "all"}], "actions": [{"type": "drop"}]}}`, "", "which domain"},
		{"nothing left", "me@example.org me\n", "", "line 1: me@example.org me"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			own, _ := parseOwnDomain(tt.own)
			got, err := importFile("-", strings.NewReader(tt.text), own)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, %v; want an error with %q", got, err, tt.want)
			}
		})
	}
}

// TestImportLeavesOut: what the configuration cannot have is left out and told,
// and the rest is written.
func TestImportLeavesOut(t *testing.T) {
	got, err := importFile("-", strings.NewReader(`me@example.org you@gmail.com
a@example.org b@example.org
b@example.org a@example.org
lonely@example.org nobody@example.org
bad..dots@example.org you@gmail.com
yes@example.org you@gmail.com
`), "")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "onward.yaml")
	s := setup{hostname: "mx.example.org", postmaster: "you@gmail.com", domains: got.domains}
	lost, err := s.write(path, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	var where []string
	for _, l := range lost {
		where = append(where, l.Where)
	}
	slices.Sort(where)
	cfg, _, problems := read(path)
	if len(problems.Fatal()) > 0 {
		t.Fatal(problems)
	}
	var keys []string
	for _, a := range cfg.Domains[0].Aliases {
		keys = append(keys, a.Key)
	}
	if !slices.Equal(keys, []string{"me", "yes"}) || !slices.Equal(where, []string{"line 2", "line 3", "line 4", "line 5"}) {
		t.Errorf("kept %q, left out %q: %+v", keys, where, lost)
	}
}

// FuzzImport: whatever a file holds, what is made of it can be read again, or is
// refused.
func FuzzImport(f *testing.F) {
	samples, _ := filepath.Glob("../../testdata/import/*")
	for _, file := range samples {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := importFile("-", strings.NewReader(text), "example.org")
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "onward.yaml")
		s := setup{hostname: "mx.example.org", postmaster: "you@gmail.com", domains: got.domains}
		if _, err := s.write(path, true, nil); err != nil {
			t.Skip(err)
		}
		if _, _, problems := read(path); len(problems.Fatal()) > 0 {
			t.Errorf("%q became a configuration with problems: %v", text, problems)
		}
	})
}
