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

// profile writes profiles of the daemon under load, delivering messages of 10 KB
// in one and queuing them in the other, into dir.
func (b *bench) profile(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	s, err := onward(aliases)(b)
	if err != nil {
		return err
	}
	defer s.stop()
	letters := b.world.write(b.n(2000), 10*kb)
	for _, kind := range []struct {
		name   string
		behave behaviour
	}{
		{"deliver", behaviour{}},
		{"queue", behaviour{allLater: true}},
	} {
		b.sink.reset(letters, kind.behave)
		ctx, stop := context.WithCancel(b.ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				l := load{s.addr, letters, 16, b.perSession}
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
