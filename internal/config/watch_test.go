package config

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"onward/internal/problem"
)

// watched starts Watch on a configuration in a directory of its own, and
// returns the directory and a function that waits for the next reload.
func watched(t *testing.T, reload <-chan os.Signal) (dir string, next func() (*Config, problem.List)) {
	t.Helper()
	dir = t.TempDir()
	path := filepath.Join(dir, "onward.yaml")
	for _, sub := range []string{"more", "v1"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "v1/linked.yaml"), domain("linked1.example"))
	if err := os.Symlink("v1", filepath.Join(dir, "current")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "cert.pem"), "1")
	write(t, path, shortest+"include: [more/*.yaml, current/linked.yaml]\ntls: {cert: cert.pem, key: cert.pem}\n")
	cfg, problems := load(path)
	if cfg == nil {
		t.Fatal(problems)
	}
	type result struct {
		*Config
		problem.List
	}
	results := make(chan result, 100)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		Watch(ctx, path, cfg, reload, func(c *Config, l problem.List) { c, l = usable(c, l); results <- result{c, l} })
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return dir, func() (*Config, problem.List) {
		t.Helper()
		select {
		case r := <-results:
			return r.Config, r.List
		case <-time.After(20 * time.Second): // 2 s is promised; a busy machine gets more
			t.Fatal("the change was not noticed")
			return nil, nil
		}
	}
}

func domain(name string) string { return "domains: {" + name + ": {aliases: {me: old@gmail.com}}}\n" }

func TestWatch(t *testing.T) {
	replace := func(t *testing.T, path, text string) {
		write(t, path+".new", text)
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, dir string)
		good   func(c *Config) bool
	}{
		{"sed -i", func(t *testing.T, dir string) {
			if out, err := exec.Command("sed", "-i", "s/old@gmail.com}/new@gmail.com}/", filepath.Join(dir, "onward.yaml")).CombinedOutput(); err != nil {
				t.Skipf("sed -i is needed: %v %s", err, out)
			}
		}, func(c *Config) bool { return c.Domains[0].Aliases[0].To[0] == "new@gmail.com" }},
		{"rename", func(t *testing.T, dir string) {
			replace(t, filepath.Join(dir, "onward.yaml"), strings.Replace(shortest, "old@gmail.com}", "new@gmail.com}", 1))
		}, func(c *Config) bool { return c.Domains[0].Aliases[0].To[0] == "new@gmail.com" }},
		{"same length, same time", func(t *testing.T, dir string) {
			path := filepath.Join(dir, "onward.yaml")
			info, _ := os.Stat(path)
			data, _ := os.ReadFile(path)
			replace(t, path, strings.Replace(string(data), "old@gmail.com}", "new@gmail.com}", 1))
			if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		}, func(c *Config) bool { return c.Domains[0].Aliases[0].To[0] == "new@gmail.com" }},
		{"new included file", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "more/a.yaml"), domain("a.example"))
		}, func(c *Config) bool { return len(c.Domains) == 3 && c.Domains[1].Name == "a.example" }},
		{"symlink swap", func(t *testing.T, dir string) {
			if err := os.Mkdir(filepath.Join(dir, "v2"), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "v2/linked.yaml"), domain("linked2.example"))
			if err := os.Symlink("v2", filepath.Join(dir, "next")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "current")); err != nil {
				t.Fatal(err)
			}
		}, func(c *Config) bool { return c.Domains[1].Name == "linked2.example" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, next := watched(t, nil)
			tt.change(t, dir)
			for {
				cfg, problems := next() // a slow change may show its first half, and must then show its end
				if cfg != nil && tt.good(cfg) {
					return
				}
				t.Logf("not yet: %v", problems)
			}
		})
	}
}

// TestWatchHalfWritten: while a file is being written the old configuration
// stays, and its end is not lost, even in a file that only the broken one names.
func TestWatchHalfWritten(t *testing.T) {
	t.Parallel()
	dir, next := watched(t, nil)
	path := filepath.Join(dir, "onward.yaml")
	write(t, path, shortest+"include: [late.yaml")
	if cfg, problems := next(); cfg != nil || len(problems) != 1 {
		t.Fatalf("half a file gave %v, %v", cfg, problems)
	}
	write(t, path, shortest+"include: [late.yaml]\n")
	if cfg, problems := next(); cfg != nil || !strings.Contains(problems.Error(), "no file") {
		t.Fatalf("a missing include gave %v, %v", cfg, problems)
	}
	write(t, filepath.Join(dir, "late.yaml"), domain("late.example"))
	if cfg, problems := next(); cfg == nil || len(cfg.Domains) != 2 {
		t.Fatalf("the finished file gave %v, %v", cfg, problems)
	}
}

func TestWatchSignal(t *testing.T) {
	t.Parallel()
	reload := make(chan os.Signal, 1)
	_, next := watched(t, reload)
	reload <- syscall.SIGHUP
	if cfg, problems := next(); cfg == nil {
		t.Fatalf("reload gave %v, %v", cfg, problems)
	}
}
