package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

const (
	kb = 1 << 10
	mb = 1 << 20
)

// compare measures everything and prints it.
func (b *bench) compare(w io.Writer) error {
	began := time.Now()
	all, own := busy(b.group)
	fmt.Fprintln(os.Stderr, resultHead)
	b.letters = b.world.write(b.n(4000), 10*kb)
	b.large = b.world.write(b.n(12), 25*mb)
	b.limits()
	for _, do := range []func() error{
		b.usual, b.syncs, b.manyAliases, func() error { return b.each(b.sizes) }, b.distant, b.depth,
	} {
		if b.ctx.Err() != nil {
			return b.ctx.Err()
		}
		b.trouble(do())
	}
	allNow, ownNow := busy(b.group)
	b.others = float64(allNow-all-(ownNow-own)) / float64(time.Since(began))
	b.print(w, time.Since(began))
	return nil
}

// trouble notes what could not be measured.
func (b *bench) trouble(err error) {
	if err != nil {
		b.troubles = append(b.troubles, err)
		fmt.Fprintln(os.Stderr, err)
	}
}

// each does something with all peers. One with which it fails, as there is no package
// of it, is not measured from then on.
func (b *bench) each(do func(p peer) error) error {
	var left []peer
	for _, p := range b.peers {
		if b.ctx.Err() != nil {
			return b.ctx.Err()
		}
		if err := do(p); err != nil {
			b.trouble(err)
			continue
		}
		left = append(left, p)
	}
	b.peers = left
	return nil
}

// rounds is how often all systems are measured in turns. A machine that is slow for
// a minute is so for all of them, and what they are compared by is of one round.
const rounds = 5

// usual is messages of 10 KB by 1, 8 and 64 clients, a destination that puts off
// everything, and, once, what the destination refuses and what a forger sends. All
// systems run all the time, with one more: the daemon without its signature, which of
// the peers only Exim makes.
func (b *bench) usual() error {
	var systems []*system
	defer func() {
		for _, s := range systems {
			s.stop()
		}
	}()
	launch := func(p peer) error {
		s, err := p.make(b)
		if err != nil {
			return err
		}
		s.name, s.share = p.name, p.share
		systems = append(systems, s)
		if p.name == "onward" {
			time.Sleep(time.Second)
			b.idle = memory(s.roots)
		}
		return nil
	}
	if err := errors.Join(b.each(launch), launch(peer{"unsigned", unsigned, 1})); err != nil {
		return err
	}
	b.inTurns(systems)
	for _, s := range systems {
		b.measure(s, task{"some refused", b.some(s, 500), 8, behaviour{later: 10, never: 10}})
		b.measure(s, task{"forged", b.world.forge(10), 1, behaviour{}})
	}
	return nil
}

// some returns the share of a system of n letters.
func (b *bench) some(s *system, n int) []*letter {
	return b.letters[:max(1, int(s.share*b.scale*float64(n)))]
}

// inTurns measures systems that run.
func (b *bench) inTurns(systems []*system) {
	for _, s := range systems {
		warm := load{s.addr, b.some(s, 1000), 64, b.perSession}
		b.sink.reset(warm.letters, behaviour{})
		b.sink.wait(warm.letters, warm.run(b.ctx), 10*time.Second)
	}
	turn := func(name string, n, sessions int, behave behaviour) {
		for _, s := range systems {
			if b.ctx.Err() == nil {
				b.measure(s, task{name, b.some(s, n), sessions, behave})
			}
		}
	}
	for range rounds {
		turn("10 KB", 200, 1, behaviour{})
		turn("10 KB", 1000, 8, behaviour{})
		turn("10 KB", 1500, 64, behaviour{})
		turn("all put off", 1000, 64, behaviour{allLater: true})
	}
}

// syncs counts the syncs of a queued message, in runs whose speed means nothing.
// With one client they are those of the log of the queue, as each message waits
// for one; with many they are all of the daemon, those of its journal too.
func (b *bench) syncs() error {
	for i, sessions := range []int{1, 64} {
		s, err := traced(b)
		if err != nil {
			return err
		}
		file := []string{queueLog, anyFile}[i]
		letters := b.letters[:b.n(200*(1+4*i))]
		b.sink.reset(letters, behaviour{allLater: true})
		time.Sleep(time.Second)
		before := syncsOf(s.path("syncs"), file)
		l := load{s.addr, letters, sessions, b.perSession}
		l.run(b.ctx)
		b.syncsPer[i] = float64(syncsOf(s.path("syncs"), file)-before) / float64(len(letters))
		s.stop()
	}
	return nil
}

// How the path of a file shows in a trace: once for each call, though one that
// another thread interrupts has two lines.
const (
	anyFile  = "</"
	queueLog = "/onward.db-wal>"
)

// syncsOf counts the syncs of a file in a trace.
func syncsOf(trace, file string) int {
	text, _ := os.ReadFile(trace)
	return bytes.Count(text, []byte(file))
}

// manyAliases compares two daemons in turns, so that both meet the same machine.
func (b *bench) manyAliases() error {
	const few, many = 0, 1
	var s [2]*system
	for i, n := range []int{10, 100_000} {
		var err error
		if s[i], err = onward(n)(b); err != nil {
			return err
		}
		defer s[i].stop()
	}
	letters := b.world.write(b.n(1500), 10*kb)
	for i, l := range letters {
		l.to = fmt.Sprintf("a%d@%s", i%10, domain)
	}
	var costs []float64
	for range rounds {
		cheap := b.measure(s[few], task{"10 aliases", letters, 8, behaviour{}}).cpu
		dear := b.measure(s[many], task{"100,000", letters, 8, behaviour{}}).cpu
		costs = append(costs, float64(dear)/float64(cheap)-1)
	}
	b.aliasCost = middle(costs)
	b.aliasLoad = s[many].ready - s[few].ready
	b.aliasMemory = memory(s[many].roots) - memory(s[few].roots)
	return nil
}

// sizes is messages from 1 KB to 25 MiB, and what one more large one in flight
// needs.
func (b *bench) sizes(p peer) error {
	s, err := p.make(b)
	if err != nil {
		return err
	}
	defer s.stop()
	b.measure(s, task{"1 KB", b.world.write(b.n(600), kb), 8, behaviour{}})
	b.measure(s, task{"1 MB", b.world.write(b.n(50), mb), 4, behaviour{}})
	two := b.measure(s, task{"25 MiB", b.large[:min(len(b.large), 4)], 2, behaviour{}})
	twelve := b.measure(s, task{"25 MiB", b.large, 12, behaviour{}})
	if p.name == "onward" {
		b.inFlight = (twelve.peak - two.peak) / 10
	}
	return nil
}

// distant is a destination that takes 300 ms to answer, as large providers do.
func (b *bench) distant() error {
	s, err := onward(aliases)(b)
	if err != nil {
		return err
	}
	defer s.stop()
	b.measure(s, task{"300 ms away", b.letters, 1000, behaviour{delay: 300 * time.Millisecond}})
	return nil
}

// find returns the results of a task, one of each round.
func (b *bench) find(system, task string, sessions int) (found []*result) {
	for i := range b.results {
		if r := &b.results[i]; r.system == system && r.task == task && r.sessions == sessions {
			found = append(found, r)
		}
	}
	return found
}

// faults returns what no run may show.
func (b *bench) faults() string {
	var all []string
	for _, r := range b.results {
		if r.lost > 0 || r.broken > 0 || r.fate.strangers > 0 || r.task == "forged" && r.accepted > 0 && r.system != "postfix" {
			all = append(all, fmt.Sprintf("%s, %s, %d sessions: %d accepted, %d lost, %d without answer, %d unknown; %s",
				r.system, r.task, r.sessions, r.accepted, r.lost, r.broken, r.fate.strangers, r.complaint))
		}
	}
	return strings.Join(all, "\n")
}
