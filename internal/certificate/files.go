package certificate

import (
	"context"
	"crypto/tls"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"onward/internal/reply"
)

// pollInterval is how often files are looked at. Like package config this polls:
// notification by the kernel is lost on mounted files and swapped symlinks.
const pollInterval = time.Second

// files is a certificate in two files that somebody else renews.
type files struct {
	cert, key string
	log       *slog.Logger
	stop      context.CancelFunc
	wg        sync.WaitGroup

	mu   sync.Mutex
	good *tls.Certificate
	err  error // of the last reading
}

func openFiles(cert, key string, log *slog.Logger) (*files, error) {
	f := &files{cert: cert, key: key, log: log}
	read := f.state()
	if f.read(); f.err != nil {
		return nil, f.err
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	f.wg.Go(func() { f.watch(ctx, read) })
	return f, nil
}

func (f *files) current() *tls.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.good
}

func (f *files) trouble() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *files) close() {
	f.stop()
	f.wg.Wait()
}

// watch reads the files again when they have changed and then stood still for
// one interval: the two are seldom replaced in one moment. read is their state
// before they were read for the first time, so that no change is missed.
func (f *files) watch(ctx context.Context, read state) {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for last := read; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := f.state()
		if moving := !now.same(last); moving || now.same(read) {
			last = now
			continue
		}
		read = now
		f.reread()
	}
}

func (f *files) reread() {
	if err := f.read(); err != nil {
		f.log.Error("certificate not reloaded, the old one stays in use", "err", reply.Clean(err.Error()))
		return
	}
	f.log.Info("certificate reloaded", "file", f.cert, "expires", f.current().Leaf.NotAfter)
}

// read takes what is in the files when it is good.
func (f *files) read() error {
	c, err := load(f.cert, f.key)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err = err; err == nil {
		f.good = &c
	}
	return err
}

func load(cert, key string) (tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		err = fmt.Errorf("tls.cert %s, tls.key %s: %w; both must be PEM and belong together", cert, key, err)
	}
	return c, err
}

// A state is what changes when a file does. Symlinks are followed; a missing
// file is nil.
type state [2]fs.FileInfo

func (f *files) state() (s state) {
	for i, path := range []string{f.cert, f.key} {
		s[i], _ = os.Stat(path)
	}
	return s
}

func (s state) same(other state) bool {
	for i, a := range s {
		b := other[i]
		if (a == nil) != (b == nil) {
			return false
		}
		if a != nil && !(os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && a.Mode() == b.Mode()) {
			return false
		}
	}
	return true
}
