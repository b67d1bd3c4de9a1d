package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// pprofURL is where a daemon built with the tag pprof shows its profiles.
const pprofURL = "http://127.0.0.1:6060/debug/pprof/"

// profile writes profiles of the daemon under load into dir: delivering messages
// of 10 KB, queuing them, and delivering large ones.
func (b *bench) profile(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	s, err := onward(aliases)(b)
	if err != nil {
		return err
	}
	defer s.stop()
	usual := b.world.write(b.n(2000), 10*kb)
	for _, kind := range []task{
		{"deliver", usual, 16, behaviour{}},
		{"queue", usual, 16, behaviour{allLater: true}},
		{"large", b.world.write(b.n(8), 25*mb), 4, behaviour{}},
	} {
		b.sink.reset(kind.letters, kind.behave)
		ctx, stop := context.WithCancel(b.ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				l := load{s.addr, kind.letters, kind.sessions, b.perSession}
				l.run(ctx)
			}
		}()
		err := errors.Join(
			fetch("profile?seconds=10", filepath.Join(dir, kind.name+".cpu.pprof")),
			fetch("allocs", filepath.Join(dir, kind.name+".allocs.pprof")),
			fetch("heap?gc=1", filepath.Join(dir, kind.name+".heap.pprof")))
		stop()
		<-done
		if err != nil {
			return err
		}
	}
	fmt.Printf("go tool pprof -http : %s\n", filepath.Join(dir, "deliver.cpu.pprof"))
	return nil
}

// fetch writes one profile into a file.
func fetch(name, path string) error {
	client := http.Client{Timeout: time.Minute}
	response, err := client.Get(pprofURL + name)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", name, response.Status)
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, response.Body)
	return errors.Join(err, file.Close())
}
