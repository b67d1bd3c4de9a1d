package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A goal is one line of the table: what is wanted and what came out.
type goal struct {
	name      string
	value     float64 // NaN: not measured
	must, aim float64 // NaN: none
	atMost    bool    // smaller is better
	shown     string  // how value came about
	unit      string
	spread    string // from the least to the most of all rounds
}

// verdict says which of the two was reached.
func (g *goal) verdict() string {
	reached := func(want float64) bool {
		return g.atMost && g.value <= want || !g.atMost && g.value >= want
	}
	switch {
	case math.IsNaN(g.value):
		return "not measured"
	case math.IsNaN(g.must):
		return "-"
	case !math.IsNaN(g.aim) && reached(g.aim):
		return "aim"
	case reached(g.must):
		return "must"
	}
	return "MISSED"
}

func (g *goal) number(f float64) string {
	if math.IsNaN(f) {
		return "-"
	}
	digits := 1
	if math.Abs(f) < 10 {
		digits = 2
	}
	return fmt.Sprintf("%.*f%s", digits, f, g.unit)
}

// A table is all goals, in the order they are shown.
type table []goal

// ratio compares one number of two systems, in favour of ours when above 1: the
// median of what it is in each round. Less is better where it is inverse.
func (t *table) ratio(name string, ours, theirs []*result, of func(*result) float64, inverse bool, must, aim float64) {
	var each []float64
	for i := range min(len(ours), len(theirs)) {
		x, y := of(ours[i]), of(theirs[i])
		if inverse {
			x, y = y, x
		}
		each = append(each, x/y)
	}
	g := goal{name: name, value: middle(each), must: must, aim: aim, unit: "x"}
	if len(each) > 0 {
		g.shown = fmt.Sprintf("%.4g : %.4g", median(ours, of), median(theirs, of))
	}
	if len(each) > 1 {
		g.spread = fmt.Sprintf("%s to %s", g.number(slices.Min(each)), g.number(slices.Max(each)))
	}
	*t = append(*t, g)
}

// most is a number that should be small.
func (t *table) most(name string, value, must, aim float64, unit, shown string) {
	*t = append(*t, goal{name: name, value: value, must: must, aim: aim, atMost: true, shown: shown, unit: unit})
}

func (t table) print(w io.Writer) {
	fmt.Fprintf(w, "\n%-58s %10s %15s %26s %9s %9s  %s\n", "measure (10 KB signed messages unless said)", "result", "least to most", "onward : other", "must", "aim", "reached")
	for _, g := range t {
		fmt.Fprintf(w, "%-58s %10s %15s %26s %9s %9s  %s\n", g.name, g.number(g.value), g.spread, g.shown, g.number(g.must), g.number(g.aim), g.verdict())
	}
}

// goals holds the results against issue 8.
func (b *bench) goals() table {
	none := math.NaN()
	var all table
	ours := func(n int) []*result { return b.find("onward", "10 KB", n) }
	plain := func(n int) []*result { return b.find("unsigned", "10 KB", n) }
	bare := func(n int) []*result { return b.find("postfix", "10 KB", n) }
	glue := func(n int) []*result { return b.find("stack", "10 KB", n) }
	putOff := func(system string) []*result { return b.find(system, "all put off", 64) }
	cpuOf := (*result).cpuPerLetter
	rate := (*result).deliveredRate
	peakMB := func(r *result) float64 { return float64(r.peak) / 1e6 }

	all.ratio("messages per CPU second, stack (ms a message)", ours(8), glue(8), cpuOf, true, 4, 6)
	all.ratio("the same, bare Postfix", ours(8), bare(8), cpuOf, true, 1, 2)
	all.ratio("stack, both without a signature of theirs", plain(8), glue(8), cpuOf, true, none, none)
	all.ratio("bare Postfix, both without a signature", plain(8), bare(8), cpuOf, true, none, none)
	for _, n := range []int{8, 64} {
		all.ratio(fmt.Sprintf("messages a second, %d sessions, stack", n), ours(n), glue(n), rate, false, 4, 6)
		all.ratio(fmt.Sprintf("messages a second, %d sessions, bare Postfix", n), ours(n), bare(n), rate, false, 1, 1.5)
	}
	for _, other := range []string{"Exim", "chasquid"} { // nothing is asked for here
		theirs := func(n int) []*result { return b.find(strings.ToLower(other), "10 KB", n) }
		all.ratio("messages per CPU second, "+other+" (ms a message)", ours(8), theirs(8), cpuOf, true, none, none)
		for _, n := range []int{8, 64} {
			all.ratio(fmt.Sprintf("messages a second, %d sessions, %s", n, other), ours(n), theirs(n), rate, false, none, none)
		}
	}
	all.most("final answer p50, 1 session", median(ours(1), func(r *result) float64 { return milliseconds(r.answer50) }), 3, 1.5, " ms", "")
	stack50 := median(glue(64), func(r *result) float64 { return milliseconds(r.answer50) })
	all.most("final answer p99, 64 sessions; must: stack's p50", median(ours(64), slowest), stack50, 60, " ms", "")
	all.most("resident, idle", float64(b.idle)/1e6, 30, 20, " MB", "")
	all.most("resident, 64 sessions", median(ours(64), peakMB), 100, 60, " MB", "")
	all.ratio("resident, 64 sessions, stack (MB)", ours(64), glue(64), peakMB, true, 4, none)
	all.ratio("the same, Exim", ours(64), b.find("exim", "10 KB", 64), peakMB, true, none, none)
	all.ratio("the same, chasquid", ours(64), b.find("chasquid", "10 KB", 64), peakMB, true, none, none)
	all.ratio("accepted a second, destination answers 451, Postfix", putOff("onward"), putOff("postfix"), (*result).acceptedRate, false, 2, 5)
	all.ratio("the same, both without a signature", putOff("unsigned"), putOff("postfix"), (*result).acceptedRate, false, none, none)
	all = append(all, goal{name: "syncs a queued message, 1 session (at least)", value: orNone(b.syncsPer[0]), must: 1, aim: none})
	all.most("syncs a queued message, 64 sessions", orNone(b.syncsPer[1]), 0.3, 0.1, "", "")
	all.most("10 to 100,000 aliases: CPU a message", 100*b.aliasCost, 5, 1, " %", "")
	all.most("10 to 100,000 aliases: start", b.aliasLoad.Seconds(), 1, 0.3, " s", "")
	all.most("10 to 100,000 aliases: memory", float64(b.aliasMemory)/1e6, 30, none, " MB", "")
	perGB := func(r *result) float64 { return r.cpu.Seconds() / (float64(r.octets) / 1e9) }
	all.most("25 MiB messages: CPU seconds a GB", median(b.find("onward", "25 MiB", 2), perGB), 8, 5, " s",
		fmt.Sprintf("stack %.3g, Postfix %.3g", median(b.find("stack", "25 MiB", 2), perGB), median(b.find("postfix", "25 MiB", 2), perGB)))
	all.most("25 MiB messages: one more in flight", float64(b.inFlight)/mb, 2, 1, " MiB", "")
	all.deep(&b.deep)
	all.distant(b.find("onward", "300 ms away", 1000), ours(64))
	return all
}

func orNone(f float64) float64 {
	if f == 0 {
		return math.NaN()
	}
	return f
}

// slowest is the slowest hundredth of the answers, in milliseconds.
func slowest(r *result) float64 { return milliseconds(r.answer99) }

// deep is about a queue that is many times as deep as another one.
func (t *table) deep(d *deep) {
	none := math.NaN()
	rate := func(name string, p [2]pace) {
		*t = append(*t, goal{name: name, value: p[many].rate() / p[few].rate(), must: 0.9, aim: 0.97, unit: "x",
			shown: fmt.Sprintf("%.4g : %.4g", p[many].rate(), p[few].rate())})
	}
	perCPU := func(name string, p [2]pace) {
		*t = append(*t, goal{name: name, value: p[few].cost() / p[many].cost(), must: none, aim: none, unit: "x",
			shown: fmt.Sprintf("%.4g : %.4g", p[many].cost(), p[few].cost())})
	}
	rate(fmt.Sprintf("few to %d queued: messages a second into the queue", d.queued), d.comes)
	perCPU("the same, per CPU second (ms a message)", d.comes)
	rate("the same: messages a second out of the queue", d.goes)
	perCPU("the same, per CPU second (ms a message)", d.goes)
	t.most("the same: memory a message", orNone(d.memory/kb), 1, none, " KB", "")
	t.most("the same: restart, until it takes mail", orNone(d.start.Seconds()), 5, 2, " s", "")
	t.most("the same: restart, until the first message is tried", orNone(d.firstTried.Seconds()), 5, 2, " s", "")
}

// distant is about the destination 300 ms away: 1,000 sessions can do no more than
// 1,000 messages in 300 ms, and need not do more than half of what CPU allows.
func (t *table) distant(far, near []*result) {
	possible := min(1000/0.3, median(near, (*result).deliveredRate)/2)
	reached := median(far, (*result).deliveredRate)
	*t = append(*t, goal{name: "300 ms away, 1,000 sessions: of the possible rate", value: reached / possible, must: 0.9, aim: math.NaN(), unit: "x",
		shown: fmt.Sprintf("%.4g : %.4g", reached, possible)})
	t.most("the same: resident", median(far, func(r *result) float64 { return float64(r.peak) / 1e6 }), 200, 120, " MB", "")
}

// print writes the table, with what is needed to judge it.
func (b *bench) print(w io.Writer, took time.Duration) {
	fmt.Fprintf(w, "onward beside other ways to forward mail, %s, in %v\n\n", time.Now().UTC().Format(time.DateOnly), took.Round(time.Second))
	b.describe(w)
	b.goals().print(w)
	fmt.Fprintf(w, "\nLimits of this machine: %s\n\nThe runs behind it:\n%s\n", b.ceiling, resultHead)
	for i := range b.results {
		r := &b.results[i]
		if all := b.find(r.system, r.task, r.sessions); all[0] == r {
			fmt.Fprintln(w, merge(all))
		}
	}
	if f := b.faults(); f != "" {
		fmt.Fprintf(w, "\nWhat must not be:\n%s\n", f)
	}
	for _, err := range b.troubles {
		fmt.Fprintf(w, "\nNot measured: %v\n", err)
	}
	fmt.Fprint(w, footnotes)
}

// footnotes say what the numbers do not.
const footnotes = `
onward   checks SPF, DKIM, DMARC, ARC and PTR, refuses what fails, rewrites the sender (SRS), signs what it
         passes on (RSA-2048), and answers when the destination has the message, or when it is on disk.
         ARC sealing is off.
stack    Postfix, policyd-spf (SPF), opendkim (DKIM), opendmarc (DMARC, refuses what fails), postsrsd (SRS).
         Does not sign what it passes on, checks no ARC and no PTR. Answers when the message is in its queue;
         what the destination refuses becomes a bounce.
postfix  Postfix alone: checks, signs and rewrites nothing. Answers when the message is in its queue.
exim     Exim checks SPF (refuses what fails) and DKIM, rewrites the sender (SRS) and signs what it passes on
         (RSA-2048). No DMARC, no ARC, no PTR. Answers when the message is in its queue; what the
         destination refuses becomes a bounce.
chasquid checks SPF (refuses what fails), and sends from the address of the alias, where bounces then go; no
         DKIM, no DMARC, no ARC, no PTR, no signature. Answers when the message is in its queue, which it
         never syncs and which ends at 200; what the destination refuses becomes a bounce.
Same messages, DNS server, destination and disk for all; no TLS; limits of clients and destinations lifted.
Load generator, destination and DNS run on the same processors and are in no number but the rates and times.
del/s: until the last arrival. CPU: all processes, to the last arrival. MB: Pss of all processes, the
largest seen, every 0.1 s or, with many processes, less often. forged: no signature, SPF fails, p=reject.
Rows of 10 KB and of 451 are medians of five rounds, in each of which all systems have their turns; a
ratio is the median of those within a round, not that of the two medians beside it. The runs behind
them are all rounds together: quantiles are medians, MB the largest.
unsigned: onward without its signature (dkim: {sign: false}).
few and many queued: 1 KB, without our signature (dkim: {sign: false}), so that the queue is most of the cost.
`

// describe writes what was measured on and what was measured.
func (b *bench) describe(w io.Writer) {
	kernel, _ := output("uname", "-sr")
	disk, _ := output("df", "--output=fstype,source", b.dir)
	fmt.Fprintf(w, "machine  %s, %d processors, %s, %s\n", cpuModel(), runtime.NumCPU(), memTotal(), kernel)
	fmt.Fprintf(w, "quiet    programs of others used %.2f processors meanwhile; above 0.1, believe no rate and no time\n", b.others)
	fmt.Fprintf(w, "files    %s\n", strings.Join(strings.Fields(disk)[2:], " "))
	version, _ := output(b.onward, "version")
	fmt.Fprintf(w, "onward   %s, commit %s\n", strings.TrimPrefix(version, "onward "), b.commit)
	const format = "${Package} ${Version}, "
	packages, _ := output("dpkg-query", "-W", "-f", format, "postfix", "postfix-policyd-spf-python", "opendkim", "opendmarc", "postsrsd")
	for _, deb := range slices.Concat(debs("exim4-daemon-heavy"), debs("chasquid")) {
		unpacked, _ := output("dpkg-deb", "-W", "--showformat="+format, deb)
		packages += " " + unpacked
	}
	fmt.Fprintf(w, "others   %s\n", strings.TrimSuffix(packages, ","))
	fmt.Fprintf(w, "load     %d domains, each with DKIM (RSA-2048), SPF and p=reject; %d messages a connection\n", senders, b.perSession)
}

func cpuModel() string { return procField("/proc/cpuinfo", "model name") }

func memTotal() string { return procField("/proc/meminfo", "MemTotal") }

// procField returns the first value of that name in a file.
func procField(path, name string) string {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown " + name
}
