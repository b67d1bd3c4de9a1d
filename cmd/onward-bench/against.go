package main

import (
	"fmt"
	"io"
	"math"
	"os"
)

// against measures another build of onward beside this one, in turns, to see what
// a change does: what differs by a hundredth shows on a machine whose speed
// differs by a third from minute to minute.
func (b *bench) against(w io.Writer, other string) error {
	b.letters = b.world.write(b.n(1500), 10*kb)
	var systems []*system
	for i, program := range []string{b.onward, other} {
		b.onward = program
		s, err := onward(aliases)(b)
		if err != nil {
			return err
		}
		defer s.stop()
		s.name, s.share = []string{"onward", "other"}[i], 1
		systems = append(systems, s)
	}
	fmt.Fprintln(os.Stderr, resultHead)
	b.inTurns(systems)
	var t table
	none := math.NaN()
	for _, task := range []struct {
		name     string
		sessions int
	}{{"10 KB", 1}, {"10 KB", 8}, {"10 KB", 64}, {"all put off", 64}} {
		ours, theirs := b.find("onward", task.name, task.sessions), b.find("other", task.name, task.sessions)
		what := fmt.Sprintf("%s by %d: ", task.name, task.sessions)
		t.ratio(what+"CPU a message (ms)", ours, theirs, (*result).cpuPerLetter, true, none, none)
		t.ratio(what+"accepted a second", ours, theirs, (*result).acceptedRate, false, none, none)
		t.ratio(what+"the slowest hundredth (ms)", ours, theirs, slowest, true, none, none)
	}
	t.print(w)
	return nil
}
