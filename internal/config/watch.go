package config

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"onward/internal/problem"
)

// PollInterval is how often Watch looks at the files. A change is read after
// the files have stood still for one interval, so within twice this time.
const PollInterval = 500 * time.Millisecond

// Watch reads the configuration at path again whenever one of the files of cfg
// changes, one appears that an include pattern matches, or reload receives
// (SIGHUP), and hands changed what Load returned. It calls changed from its own
// goroutine only, one call at a time, and returns when ctx ends.
//
// It polls: notification by the kernel is lost on single files mounted into a
// container, and on the renames and symlink swaps by which editors and
// orchestrators replace a file. Half-written files are not read as long as the
// writer goes on; when it pauses, they are read again after it is finished.
func Watch(ctx context.Context, path string, cfg *Config, reload <-chan os.Signal, changed func(*Config, problem.List)) {
	ticker := time.NewTicker(PollInterval)
	defer ticker.Stop()
	last := cfg.stamp
	for {
		select {
		case <-ctx.Done():
			return
		case <-reload:
		case <-ticker.C:
			now := stampAll(cfg.Files)
			if still := now == last; !still || now == cfg.stamp {
				last = now
				continue
			}
		}
		next, problems := Load(path)
		if len(problems.Fatal()) > 0 {
			next.watchToo(cfg.Files) // it may have named less than there is
		}
		cfg, last = next, next.stamp
		changed(cfg, problems)
	}
}

// watch notes a file or pattern as part of the configuration, and its state
// before it is read, so that no later change is missed.
func (l *loader) watch(path string) {
	l.cfg.Files = append(l.cfg.Files, path)
	l.cfg.stamp += stamp(path)
}

// watchToo adds files that an earlier reading named.
func (c *Config) watchToo(files []string) {
	for _, path := range files {
		if !slices.Contains(c.Files, path) {
			c.Files = append(c.Files, path)
			c.stamp += stamp(path)
		}
	}
}

func stampAll(paths []string) string {
	var b strings.Builder
	for _, path := range paths {
		b.WriteString(stamp(path))
	}
	return b.String()
}

// stamp is what changes when a file, or the set of files of a pattern, does.
// Symlinks are followed, and replaced files have another inode.
func stamp(path string) string {
	paths := []string{path}
	if strings.ContainsAny(filepath.Base(path), "*?[") {
		matches, _ := list(filepath.Dir(path), filepath.Base(path))
		paths = append(paths, matches...)
	}
	var b strings.Builder
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", path, err)
			continue
		}
		var inode uint64
		if sys, ok := info.Sys().(*syscall.Stat_t); ok {
			inode = sys.Ino
		}
		fmt.Fprintf(&b, "%s: %d %d %d %v\n", path, info.ModTime().UnixNano(), info.Size(), inode, info.Mode())
	}
	return b.String()
}
