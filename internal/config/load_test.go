package config

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"onward/internal/problem"
)

var update = flag.Bool("update", false, "write the .want files and docs/configuration.md anew")

// TestGolden loads every file of testdata/config and compares what onward
// check would print with the .want file beside it.
func TestGolden(t *testing.T) {
	t.Chdir("../../testdata/config")
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) < 60 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(file, ".yaml"), func(t *testing.T) {
			_, problems := load(file)
			var b bytes.Buffer
			if err := problem.Write(&b, problems, false); err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".want", bytes.ReplaceAll(b.Bytes(), []byte(here), []byte("/here")))
		})
	}
}

// load is Load, with nil for a Config that is not to be used.
func load(path string) (*Config, problem.List) {
	return usable(Load(path))
}

func usable(cfg *Config, problems problem.List) (*Config, problem.List) {
	if len(problems.Fatal()) > 0 {
		return nil, problems
	}
	return cfg, problems
}

// golden compares got with a file, or writes it with -update.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got\n%s\nwant\n%s", path, got, want)
	}
}

// write makes a file in a directory of the test and returns its path.
func write(t testing.TB, path, text string) string {
	t.Helper()
	if !filepath.IsAbs(path) {
		path = filepath.Join(t.TempDir(), path)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const shortest = "hostname: mx.example.org\npostmaster: old@gmail.com\ndomains: {example.org: {aliases: {me: old@gmail.com}}}\n"

func TestDefaults(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/var/lib/onward:/var/lib/other")
	cfg, problems := load(write(t, "onward.yaml", shortest))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if cfg.StateDir != "/var/lib/onward" || cfg.SRS.Domain != "mx.example.org" || cfg.SRS.HashLength != 10 || cfg.SRS.MaxAge != 14*24*time.Hour ||
		cfg.Limits.Message != 50<<20 || !reflect.DeepEqual(cfg.Listen, []string{":25"}) || cfg.Delivery.Port != 25 {
		t.Errorf("defaults are %+v", cfg)
	}
	t.Setenv("STATE_DIRECTORY", "")
	cfg, _ = load(write(t, "onward.yaml", shortest))
	if dir, _ := os.Getwd(); cfg.StateDir != filepath.Join(dir, "state") {
		t.Errorf("state_dir is %s", cfg.StateDir)
	}
}

// TestDesign checks the values that come out of the example of DESIGN.md 5.1.
func TestDesign(t *testing.T) {
	cfg, problems := load("../../testdata/config/design.yaml")
	if len(problems.Fatal()) > 0 {
		t.Fatal(problems)
	}
	if len(cfg.Domains) != 3 || cfg.Domains[1].SameAs != "example.org" || cfg.Domains[2].Name != "example.com" || !cfg.Domains[2].Aliases[0].KeepTag {
		t.Errorf("domains are %+v", cfg.Domains)
	}
	shop := cfg.Domains[0].Aliases[2]
	want := Rule{From: []string{"@shop.example"}, Until: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), Breaks: "refuse"}
	if !reflect.DeepEqual(*shop.Rule, want) || shop.Key != "shop" || fmt.Sprint(shop.To) != "[old@gmail.com]" {
		t.Errorf("shop is %+v\nwant %+v", *shop, want)
	}
	place := problem.Position{File: "../../testdata/config/design.yaml", Line: 10, Column: 7}
	line := "      shop: {to: old@gmail.com, from: [\"@shop.example\"], until: 2027-01-01, when_dmarc_breaks: refuse}"
	if shop.Position() != place || shop.Source() != line {
		t.Errorf("shop stands at %s: %q", shop.Position(), shop.Source())
	}
	if dir, _ := filepath.Abs("../../testdata/config"); cfg.TLS.Cert != filepath.Join(dir, "tls/cert.pem") {
		t.Errorf("tls.cert is %s, not beside the file", cfg.TLS.Cert)
	}
	for i, key := range []string{"me", "team", "shop", "old-name", "trap", "/^inv-[0-9]+$/", "*"} {
		if cfg.Domains[0].Aliases[i].Key != key {
			t.Errorf("alias %d is %q, want %q", i, cfg.Domains[0].Aliases[i].Key, key)
		}
	}
}

// TestUnreadable is about the file itself rather than what it says.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	huge := write(t, filepath.Join(dir, "huge.yaml"), shortest)
	if err := os.Truncate(huge, 100<<20); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, path, want string }{
		{"missing", filepath.Join(dir, "nowhere.yaml"), "there is no such file"},
		{"directory", dir, "this is a directory"},
		{"pipe", pipe, "this is not a regular file"},
		{"100 MiB", huge, "is too large: all files together may have 32 MiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, problems := load(tt.path)
			if cfg != nil || len(problems) != 1 || !strings.Contains(problems[0].Text, tt.want) || problems[0].File != tt.path {
				t.Errorf("Load = %v, %v; want one problem: %s", cfg, problems, tt.want)
			}
		})
	}
}

// TestManyProblems: what is reported is bounded, and warnings hide no error.
func TestManyProblems(t *testing.T) {
	text := shortest + "limits:\n" + strings.Repeat("  x: {}\n", 3000)
	cfg, problems := load(write(t, "onward.yaml", text))
	if cfg != nil || len(problems) != maxProblems+1 {
		t.Errorf("%d problems, want %d", len(problems), maxProblems+1)
	}
}

// TestHostileTime: nothing of the permitted size takes long (brackets and
// flow keys are quadratic in YAML parsers that do not bound depth).
func TestHostileTime(t *testing.T) {
	for name, text := range map[string]string{
		"brackets":  "a: " + strings.Repeat("[", 1<<20),
		"braces":    "a: " + strings.Repeat("{a: ", 1<<18),
		"indents":   strings.Repeat("- ", 1<<19),
		"flow list": "a: " + strings.Repeat("[", 20) + strings.Repeat("a,", 1<<17) + strings.Repeat("]", 20),
		"comments":  strings.Repeat("#\n", 1<<18),
		"questions": strings.Repeat("? a\n", 1<<16),
		"one line":  shortest + "limits: {" + strings.Repeat("x: 1, ", 1<<15) + "}\n",
		"quotes":    "a: \"" + strings.Repeat("\\n", 1<<20),
		"anchors":   "a: [" + strings.Repeat("&a x, ", 1<<16) + "]",
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, "onward.yaml", text)
			start := cpu(t)
			if cfg, _ := load(path); cfg != nil {
				t.Error("accepted")
			}
			if took := cpu(t) - start; took > 20*time.Second {
				t.Errorf("took %v of processor time", took)
			} else {
				t.Logf("%v", took)
			}
		})
	}
}

// cpu is the processor time of this process so far: unlike the clock it says
// the same on a busy machine.
func cpu(t testing.TB) time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		t.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

func TestFind(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("ONWARD_CONFIG", "")
	if _, err := os.Stat(places[1]); err != nil {
		if path, err := Find(""); err == nil || !strings.Contains(err.Error(), "onward.yaml and /etc/onward/onward.yaml") {
			t.Errorf("Find in an empty directory = %q, %v", path, err)
		}
	}
	for _, tt := range []struct {
		name, flag, env, want string
	}{
		{"working directory", "", "", "onward.yaml"},
		{"environment", "", "env.yaml", "env.yaml"},
		{"flag", "flag.yaml", "env.yaml", "flag.yaml"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile("onward.yaml", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("ONWARD_CONFIG", tt.env)
			if path, err := Find(tt.flag); path != tt.want || err != nil {
				t.Errorf("Find = %q, %v; want %q", path, err, tt.want)
			}
		})
	}
}

// FuzzLoad: no bytes make Load panic, and every problem points into the file.
func FuzzLoad(f *testing.F) {
	files, _ := filepath.Glob("../../testdata/config/*.yaml")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	path := filepath.Join(f.TempDir(), "onward.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		write(t, path, string(data))
		_, problems := load(path)
		lines := bytes.Count(data, []byte("\n")) + 1
		for _, p := range problems {
			if p.Text == "" || strings.ContainsAny(p.Text, "\r\n\x1b") || p.Line < 0 || p.File == path && p.Line > lines {
				t.Fatalf("bad problem %+v", p)
			}
		}
	})
}

func benchmarkLoad(b *testing.B, line string) {
	var text strings.Builder
	text.WriteString("hostname: mx.example.org\npostmaster: old@gmail.com\ndomains:\n  example.org:\n    aliases:\n")
	for i := range 100_000 {
		fmt.Fprintf(&text, line, i, i)
	}
	path := write(b, "onward.yaml", text.String())
	b.ReportAllocs()
	start := cpu(b)
	var cfg *Config
	for b.Loop() {
		var problems problem.List
		if cfg, problems = load(path); len(problems) > 0 {
			b.Fatal(problems)
		}
	}
	b.ReportMetric((cpu(b)-start).Seconds()/float64(b.N), "cpu-s/op")
	var with, without runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&with)
	runtime.KeepAlive(cfg)
	cfg = nil
	runtime.GC()
	runtime.ReadMemStats(&without)
	b.ReportMetric(float64(with.HeapAlloc-without.HeapAlloc)/(1<<20), "MB-kept")
}

func BenchmarkLoad100k(b *testing.B) { benchmarkLoad(b, "      user%d: target%d@gmail.com\n") }

func BenchmarkLoad100kLong(b *testing.B) {
	benchmarkLoad(b, "      user%d: {to: target%d@gmail.com, keep_tag: true}\n")
}

// TestUnclosed holds that the line of a mistake is named, and not the one at
// which the YAML library stumbles.
func TestUnclosed(t *testing.T) {
	for _, tt := range []struct {
		entry, want string
		column      int
	}{
		{"me: [a@b.test", "list is not closed", 11},
		{"me: [a@b.test # x]", "list is not closed", 11},
		{"me: {to: a@b.test", "mapping is not closed", 11},
		{`me: "a@b.test`, "text is not closed", 11},
		{"me: 'a@b.test", "text is not closed", 11},
		{`me: "a\"b@b.test`, "text is not closed", 11},
		{"me: a@b.test: x", `":" too many`, 19},
		{"me a@b.test", `":" is missing`, 0},
	} {
		_, problems := load(write(t, "onward.yaml", "hostname: mx.example.org\npostmaster: a@b.test\nlisten: [\"127.0.0.1:25\",\n  \"[::1]:25\"]\ndomains:\n  example.org:\n    aliases:\n      "+
			tt.entry+"\n      you: b@b.test # it's\n\ndns: {resolvers: [\"127.0.0.1:53\"]}\nsrs: {domain: mx.example.org}\n"))
		if len(problems) != 1 || problems[0].Line != 8 || problems[0].Column != tt.column || !strings.Contains(problems[0].Text, tt.want) {
			t.Errorf("%s: %v", tt.entry, problems)
		}
	}
}
