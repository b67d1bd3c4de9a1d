package main

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// A task is one thing to measure.
type task struct {
	name     string
	letters  []*letter
	sessions int
	behave   behaviour
}

// A result is what came out of a task for one system.
type result struct {
	system, task string
	sessions     int
	letters      int
	octets       int // of all letters

	accepted, refused, deferred, broken int // letters, by their last answer
	fate                                tally
	lost                                int // accepted, and neither taken nor refused by the destination
	complaint                           string

	took        time.Duration // to the last answer
	arrivedTook time.Duration // to the last arrival
	cpu         time.Duration // of all processes until then
	peak        int           // octets resident
	answer50    time.Duration
	answer99    time.Duration
	arrival50   time.Duration
	arrival99   time.Duration
}

// cpuPerLetter is in milliseconds.
func (r *result) cpuPerLetter() float64 { return 1000 * r.cpu.Seconds() / float64(r.letters) }

// acceptedRate and deliveredRate are messages a second.
func (r *result) acceptedRate() float64 { return float64(r.accepted) / r.took.Seconds() }
func (r *result) deliveredRate() float64 {
	if r.fate.delivered == 0 {
		return 0
	}
	return float64(r.fate.delivered) / r.arrivedTook.Seconds()
}

// measure runs a task against a system.
func (b *bench) measure(s *system, t task) *result {
	b.sink.reset(t.letters, t.behave)
	r := &result{system: s.name, task: t.name, sessions: t.sessions, letters: len(t.letters)}
	peak := watch(s.roots)
	before, began := cpu(s.roots), time.Now()
	l := load{s.addr, t.letters, t.sessions, b.perSession}
	answers := l.run(b.ctx)
	r.took = time.Since(began)
	r.count(answers)
	later := t.behave.allLater || t.behave.later > 0
	if !later {
		r.lost = b.sink.wait(t.letters, answers, 20*time.Second)
	}
	r.cpu = cpu(s.roots) - before
	r.peak = peak()
	if later && !t.behave.forever {
		r.lost = b.drain(s, t, r, answers)
	}
	r.fate = b.sink.tally()
	r.times(answers, b.sink.arrived(t.letters), began)
	for _, l := range t.letters {
		r.octets += l.size()
	}
	b.results = append(b.results, *r)
	fmt.Fprintln(os.Stderr, r)
	return r
}

// count sorts the answers.
func (r *result) count(answers []answer) {
	for _, a := range answers {
		switch a.code / 100 {
		case 2:
			r.accepted++
			continue
		case 4:
			r.deferred++
		case 5:
			r.refused++
		default:
			r.broken++
		}
		r.complaint = a.text
	}
}

// drain lets the destination take what it has put off, and returns how many
// letters are missing in the end.
func (b *bench) drain(s *system, t task, r *result, answers []answer) (missing int) {
	b.sink.wait(t.letters, answers, time.Second) // the first attempts
	b.sink.change(behaviour{never: t.behave.never})
	for range 3 {
		if err := s.flush(); err != nil {
			r.complaint = err.Error()
		}
		if missing = b.sink.wait(t.letters, answers, 3*time.Second); missing == 0 {
			break
		}
	}
	return missing
}

// times fills in what is measured by the clock of each message.
func (r *result) times(answers []answer, arrived []time.Time, began time.Time) {
	var answer, arrival []time.Duration
	last := began
	for i, a := range answers {
		if a.code/100 != 2 {
			continue
		}
		answer = append(answer, a.took)
		if !arrived[i].IsZero() {
			arrival = append(arrival, arrived[i].Sub(a.began))
			if arrived[i].After(last) {
				last = arrived[i]
			}
		}
	}
	r.arrivedTook = last.Sub(began)
	r.answer50, r.answer99 = quantile(answer, 0.5), quantile(answer, 0.99)
	r.arrival50, r.arrival99 = quantile(arrival, 0.5), quantile(arrival, 0.99)
}

// merge returns the results of several rounds as one. Its quantiles are the medians
// of theirs, and its memory is the largest.
func merge(all []*result) *result {
	one := *all[0]
	for _, r := range all[1:] {
		one.letters += r.letters
		one.accepted += r.accepted
		one.refused += r.refused
		one.deferred += r.deferred
		one.broken += r.broken
		one.lost += r.lost
		one.fate.add(r.fate)
		one.complaint = cmp.Or(one.complaint, r.complaint)
		one.took += r.took
		one.arrivedTook += r.arrivedTook
		one.cpu += r.cpu
		one.peak = max(one.peak, r.peak)
	}
	middle := func(of func(*result) time.Duration) time.Duration {
		return time.Duration(median(all, func(r *result) float64 { return float64(of(r)) }))
	}
	one.answer50 = middle(func(r *result) time.Duration { return r.answer50 })
	one.answer99 = middle(func(r *result) time.Duration { return r.answer99 })
	one.arrival50 = middle(func(r *result) time.Duration { return r.arrival50 })
	one.arrival99 = middle(func(r *result) time.Duration { return r.arrival99 })
	return &one
}

// median returns the one in the middle, or NaN of none.
func median(all []*result, of func(*result) float64) float64 {
	var numbers []float64
	for _, r := range all {
		numbers = append(numbers, of(r))
	}
	return middle(numbers)
}

// middle returns the median, NaN of none. It sorts all.
func middle(all []float64) float64 {
	if len(all) == 0 {
		return math.NaN()
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// resultHead is over the lines of results.
const resultHead = `system   task           sessions accepted refused deferred broken | delivered twice lost bounces |   acc/s   del/s | CPU ms/msg | answer p50     p99 | arrival p50     p99 | peak MB`

// String returns a line of the detailed table.
func (r *result) String() string {
	line := fmt.Sprintf("%-8s %-14s %8d %8d %7d %8d %6d | %9d %5d %4d %7d | %7.0f %7.0f | %10.2f | %10s %7s | %11s %7s | %7.1f",
		r.system, r.task, r.sessions, r.accepted, r.refused, r.deferred, r.broken,
		r.fate.delivered, r.fate.duplicates, r.lost, r.fate.bounces,
		r.acceptedRate(), r.deliveredRate(), r.cpuPerLetter(),
		ms(r.answer50), ms(r.answer99), ms(r.arrival50), ms(r.arrival99), float64(r.peak)/1e6)
	if r.complaint != "" {
		line += " (" + strings.Join(strings.Fields(r.complaint), " ") + ")"
	}
	return line
}

func milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }

func ms(d time.Duration) string { return fmt.Sprintf("%.1f", milliseconds(d)) }

// try measures one system a little and shows the header of a message that came through.
func (b *bench) try(name string) error {
	i := slices.IndexFunc(peers, func(p peer) bool { return p.name == name })
	if i < 0 {
		return fmt.Errorf("no system %q", name)
	}
	s, err := peers[i].make(b)
	if err != nil {
		return err
	}
	defer s.stop()
	fmt.Fprintf(os.Stderr, "idle: %.1f MB\n%s\n", float64(memory(s.roots))/1e6, resultHead)
	var header bytes.Buffer
	b.sink.keepHeader(&header)
	letters := b.world.write(b.n(100), 10<<10)
	b.measure(s, task{"10 KB", letters, 4, behaviour{}})
	b.measure(s, task{"some refused", letters, 4, behaviour{later: 20, never: 10}})
	b.measure(s, task{"all put off", letters, 4, behaviour{allLater: true}})
	b.measure(s, task{"forged", b.world.forge(10), 1, behaviour{}})
	fmt.Fprintf(os.Stderr, "\n%s\n%s", header.String(), s.logs())
	return nil
}

// n scales a number of messages.
func (b *bench) n(messages int) int { return max(1, int(b.scale*float64(messages))) }
