package main

import (
	"errors"
	"syscall"
	"time"
)

// A deep is what came out for a daemon with many messages in its queue, beside
// one with few.
type deep struct {
	queued     int     // in the deep queue, before anything was measured
	comes      [2]pace // into the queue: few, many
	goes       [2]pace // out of it
	memory     float64 // for each message, in octets
	start      time.Duration
	firstTried time.Duration // since that start began
}

const few, many = 0, 1

// A pace is how fast messages go somewhere, in several turns.
type pace struct {
	messages  int
	took, cpu time.Duration
}

func (p *pace) add(messages int, took, cpu time.Duration) {
	p.messages += messages
	p.took += took
	p.cpu += cpu
}

// rate is in messages a second, and cost in milliseconds of CPU for each.
func (p *pace) rate() float64 { return float64(p.messages) / p.took.Seconds() }
func (p *pace) cost() float64 { return 1000 * p.cpu.Seconds() / float64(p.messages) }

// depth fills the queue of one daemon and compares it with another one. Messages
// are small and have no signature of ours, so that most of their cost is the queue.
func (b *bench) depth() error {
	var s [2]*system
	for i := range s {
		var err error
		if s[i], err = unsigned(b); err != nil {
			return err
		}
		defer s[i].stop()
	}
	letters := b.world.write(b.n(2000), kb)
	warm := b.fill(s[few], letters, b.n(2000))
	b.deep.queued = b.fill(s[many], letters, b.n(100_000))
	syscall.Sync() // what filling it has left for the disk to do is no part of what follows
	b.comes(s, letters)
	b.deep.memory = float64(memory(s[many].roots)-memory(s[few].roots)) / float64(b.deep.queued-warm)
	if err := b.goes(s, letters); err != nil {
		return err
	}
	s[few].halt()
	return b.restart(s[many], letters)
}

// fill puts n messages into the queue and returns how many were accepted.
func (b *bench) fill(s *system, letters []*letter, n int) (queued int) {
	b.sink.reset(letters, behaviour{allLater: true})
	for left := n; left > 0 && b.ctx.Err() == nil; left -= len(letters) {
		l := load{s.addr, letters[:min(left, len(letters))], 64, len(letters)}
		for _, a := range l.run(b.ctx) {
			if a.code == 250 {
				queued++
			}
		}
	}
	return queued
}

// turns is how often the two queues are measured.
const turns = 6

// comes measures how fast messages come into the queues, in turns, so that both
// meet the same machine.
func (b *bench) comes(s [2]*system, letters []*letter) {
	for range turns {
		for i, name := range []string{"few queued", "many queued"} {
			r := b.measure(s[i], task{name, letters, 64, behaviour{allLater: true, forever: true}})
			b.deep.comes[i].add(len(letters), r.took, r.cpu)
		}
	}
}

// goes measures how fast messages leave the queues once all is due and the
// destination takes it, on a part of what comes has put into them, and in turns
// again: the other one is frozen meanwhile. The beginning does not count: the
// database is busy with the change of every row by flush.
func (b *bench) goes(s [2]*system, letters []*letter) error {
	b.sink.reset(letters, behaviour{})
	done := 0
	for i := range s {
		if err := s[i].flush(); err != nil {
			return err
		}
		done += 2 * len(letters)
		if _, err := b.tried(done); err != nil {
			return err
		}
		if err := freeze(s[i].roots, true); err != nil {
			return err
		}
	}
	for range turns {
		for i := range s {
			used, began := cpu(s[i].roots), time.Now()
			if err := freeze(s[i].roots, false); err != nil {
				return err
			}
			n := len(letters) / 2
			ended, err := b.tried(b.sink.answered() + n)
			if err := errors.Join(err, freeze(s[i].roots, true)); err != nil {
				return err
			}
			b.deep.goes[i].add(n, ended.Sub(began), cpu(s[i].roots)-used)
		}
	}
	return nil
}

// restart measures how long the daemon needs until it takes mail again, and
// until it tries the first message of the queue, all of which is due.
func (b *bench) restart(s *system, letters []*letter) error {
	s.halt()
	b.sink.reset(letters, behaviour{})
	began := time.Now()
	if err := s.run(s.path("onward"), "serve", "-c", s.path("onward.yaml")); err != nil {
		return err
	}
	err := s.await()
	b.deep.start = time.Since(began)
	tried, wrong := b.tried(1)
	b.deep.firstTried = tried.Sub(began)
	return errors.Join(err, wrong)
}

// tried returns when the destination had answered n messages.
func (b *bench) tried(n int) (time.Time, error) {
	for end := time.Now().Add(time.Minute); b.ctx.Err() == nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
		if b.sink.answered() >= n {
			return time.Now(), nil
		}
	}
	return time.Now(), errors.New("the queue does not go out within a minute")
}
