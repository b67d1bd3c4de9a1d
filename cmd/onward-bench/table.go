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

// goals holds the results against issue 8.
func (b *bench) goals() []goal {
	none := math.NaN()
	var all []goal
	// ratio compares one number of two results, in favour of onward when above 1.
	ratio := func(name string, ours, theirs *result, of func(*result) float64, inverse bool, must, aim float64) {
		g := goal{name: name, value: none, must: must, aim: aim, unit: "x"}
		if ours != nil && theirs != nil {
			x, y := of(ours), of(theirs)
			g.value = x / y
			if inverse {
				g.value = y / x
			}
			g.shown = fmt.Sprintf("%.4g : %.4g", x, y)
		}
		all = append(all, g)
	}
	most := func(name string, value, must, aim float64, unit, shown string) {
		all = append(all, goal{name, value, must, aim, true, shown, unit})
	}
	get := func(r *result, of func(*result) float64) float64 {
		if r == nil {
			return none
		}
		return of(r)
	}
	ours := func(n int) *result { return b.find("onward", "10 KB", n) }
	bare := func(n int) *result { return b.find("postfix", "10 KB", n) }
	glue := func(n int) *result { return b.find("stack", "10 KB", n) }
	cpuOf := func(r *result) float64 { return float64(r.cpuPerLetter) / 1e6 }
	rate := func(r *result) float64 { return r.deliveredRate() }
	peakMB := func(r *result) float64 { return float64(r.peak) / 1e6 }

	ratio("messages per CPU second, stack (ms a message)", ours(8), glue(8), cpuOf, true, 4, 6)
	ratio("the same, bare Postfix", ours(8), bare(8), cpuOf, true, 1, 2)
	ratio("stack, both without a signature of theirs", b.find("onward", "unsigned", 8), glue(8), cpuOf, true, none, none)
	ratio("bare Postfix, both without a signature", b.find("onward", "unsigned", 8), bare(8), cpuOf, true, none, none)
	for _, n := range []int{8, 64} {
		ratio(fmt.Sprintf("messages a second, %d sessions, stack", n), ours(n), glue(n), rate, false, 4, 6)
		ratio(fmt.Sprintf("messages a second, %d sessions, bare Postfix", n), ours(n), bare(n), rate, false, 1, 1.5)
	}
	for _, other := range []string{"Exim", "chasquid"} { // nothing is asked for here
		theirs := func(n int) *result { return b.find(strings.ToLower(other), "10 KB", n) }
		ratio("messages per CPU second, "+other+" (ms a message)", ours(8), theirs(8), cpuOf, true, none, none)
		for _, n := range []int{8, 64} {
			ratio(fmt.Sprintf("messages a second, %d sessions, %s", n, other), ours(n), theirs(n), rate, false, none, none)
		}
	}
	most("final answer p50, 1 session", get(ours(1), func(r *result) float64 { return float64(r.answer50) / 1e6 }), 3, 1.5, " ms", "")
	stack50 := get(glue(64), func(r *result) float64 { return float64(r.answer50) / 1e6 })
	most("final answer p99, 64 sessions; must: stack's p50", get(ours(64), func(r *result) float64 { return float64(r.answer99) / 1e6 }), stack50, 60, " ms", "")
	most("resident, idle", float64(b.idle)/1e6, 30, 20, " MB", "")
	most("resident, 64 sessions", get(ours(64), peakMB), 100, 60, " MB", "")
	ratio("resident, 64 sessions, stack (MB)", ours(64), glue(64), peakMB, true, 4, none)
	ratio("the same, Exim", ours(64), b.find("exim", "10 KB", 64), peakMB, true, none, none)
	ratio("the same, chasquid", ours(64), b.find("chasquid", "10 KB", 64), peakMB, true, none, none)
	ratio("accepted a second, destination answers 451, Postfix", b.find("onward", "all put off", 64), b.find("postfix", "all put off", 64),
		func(r *result) float64 { return r.acceptedRate() }, false, 2, 5)
	ratio("the same, both without a signature", b.find("onward", "unsigned, off", 64), b.find("postfix", "all put off", 64),
		func(r *result) float64 { return r.acceptedRate() }, false, none, none)
	all = append(all, goal{"syncs a queued message, 1 session (at least)", orNone(b.syncsPer[0]), 1, none, false, "", ""})
	most("syncs a queued message, 64 sessions", orNone(b.syncsPer[1]), 0.3, 0.1, "", "")
	most("10 to 100,000 aliases: CPU a message", 100*b.aliasCost, 5, 1, " %", "")
	most("10 to 100,000 aliases: start", b.aliasLoad.Seconds(), 1, 0.3, " s", "")
	most("10 to 100,000 aliases: memory", float64(b.aliasMemory)/1e6, 30, none, " MB", "")
	perGB := func(r *result) float64 { return r.cpu.Seconds() / (float64(r.octets) / 1e9) }
	most("25 MiB messages: CPU seconds a GB", get(b.find("onward", "25 MiB", 2), perGB), 8, 5, " s",
		fmt.Sprintf("stack %.3g, Postfix %.3g", get(b.find("stack", "25 MiB", 2), perGB), get(b.find("postfix", "25 MiB", 2), perGB)))
	most("25 MiB messages: one more in flight", float64(b.inFlight)/mb, 2, 1, " MiB", "")
	all = append(all, b.deep.goals()...)
	all = append(all, b.distantGoal()...)
	return all
}

func orNone(f float64) float64 {
	if f == 0 {
		return math.NaN()
	}
	return f
}

// goals are about a queue that is many times as deep as another one.
func (d *deep) goals() []goal {
	rate := func(name string, p [2]pace) goal {
		return goal{name, p[many].rate / p[few].rate, 0.9, 0.97, false, fmt.Sprintf("%.4g : %.4g", p[many].rate, p[few].rate), "x"}
	}
	perCPU := func(name string, p [2]pace) goal {
		ms := [2]float64{float64(p[few].cpu) / 1e6, float64(p[many].cpu) / 1e6}
		return goal{name, ms[few] / ms[many], math.NaN(), math.NaN(), false, fmt.Sprintf("%.4g : %.4g", ms[many], ms[few]), "x"}
	}
	return []goal{
		rate(fmt.Sprintf("few to %d queued: messages a second into the queue", d.queued), d.comes),
		perCPU("the same, per CPU second (ms a message)", d.comes),
		rate("the same: messages a second out of the queue", d.goes),
		perCPU("the same, per CPU second (ms a message)", d.goes),
		{"the same: memory a message", orNone(d.memory / kb), 1, math.NaN(), true, "", " KB"},
		{"the same: restart, until it takes mail", orNone(d.start.Seconds()), 5, 2, true, "", " s"},
		{"the same: restart, until the first message is tried", orNone(d.firstTried.Seconds()), 5, 2, true, "", " s"},
	}
}

// distantGoal is the destination 300 ms away: 1,000 sessions can do no more than
// 1,000 messages in 300 ms, and need not do more than half of what CPU allows.
func (b *bench) distantGoal() []goal {
	far, near := b.find("onward", "300 ms away", 1000), b.find("onward", "10 KB", 64)
	if far == nil || near == nil {
		return nil
	}
	possible := min(1000/0.3, near.deliveredRate()/2)
	return []goal{
		{"300 ms away, 1,000 sessions: of the possible rate", far.deliveredRate() / possible, 0.9, math.NaN(), false,
			fmt.Sprintf("%.4g : %.4g", far.deliveredRate(), possible), "x"},
		{"the same: resident", float64(far.peak) / 1e6, 200, 120, true, "", " MB"},
	}
}

// print writes the table, with what is needed to judge it.
func (b *bench) print(w io.Writer, took time.Duration) {
	fmt.Fprintf(w, "onward beside other ways to forward mail, %s, in %v\n\n", time.Now().UTC().Format(time.DateOnly), took.Round(time.Second))
	b.describe(w)
	fmt.Fprintf(w, "\n%-58s %12s %26s %9s %9s  %s\n", "measure (10 KB signed messages unless said)", "result", "onward : other", "must", "aim", "reached")
	for _, g := range b.goals() {
		fmt.Fprintf(w, "%-58s %12s %26s %9s %9s  %s\n", g.name, g.number(g.value), g.shown, g.number(g.must), g.number(g.aim), g.verdict())
	}
	fmt.Fprintf(w, "\nLimits of this machine: %s\n\nThe runs behind it:\n%s\n", b.ceiling, resultHead)
	for i := range b.results {
		fmt.Fprintln(w, b.results[i].String())
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
