package status

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// What follows writes metrics in the text form of Prometheus, version 0.0.4. A
// name, its help and the names of labels are constants of ours; values of labels
// are bounded sets of words (RELIABILITY 69), quoted all the same.

// A counter is a number for each combination of the values of its labels.
type counter struct {
	name, help string
	labels     []string
	values     map[string]float64 // by the labels as they are written
}

func (c *counter) add(n float64, values ...string) {
	if c.values == nil {
		c.values = map[string]float64{}
	}
	c.values[labels(c.labels, values)] += n
}

func (c *counter) write(b *bytes.Buffer) {
	head(b, c.name, c.help, "counter")
	for _, at := range slices.Sorted(maps.Keys(c.values)) {
		sample(b, c.name+at, c.values[at])
	}
}

// A histogram counts times by how long they were.
type histogram struct {
	name, help string
	label      string
	series     map[string]*spread
}

// bounds are the upper ends of the buckets, in seconds: from a destination next
// door to the longest a sender waits for an answer (280 s unless limits.answer_time
// says otherwise, DESIGN.md 9.1).
var bounds = [...]float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 280}

type spread struct {
	counts [len(bounds) + 1]uint64 // the last one is above all bounds
	sum    float64
}

func (h *histogram) observe(seconds float64, value string) {
	if h.series == nil {
		h.series = map[string]*spread{}
	}
	s := h.series[value]
	if s == nil {
		s = &spread{}
		h.series[value] = s
	}
	i, _ := slices.BinarySearch(bounds[:], seconds)
	s.counts[i]++
	s.sum += seconds
}

func (h *histogram) write(b *bytes.Buffer) {
	head(b, h.name, h.help, "histogram")
	for _, value := range slices.Sorted(maps.Keys(h.series)) {
		s, n := h.series[value], uint64(0)
		for i, count := range s.counts {
			n += count
			le := "+Inf"
			if i < len(bounds) {
				le = number(bounds[i])
			}
			sample(b, h.name+"_bucket"+labels([]string{h.label, "le"}, []string{value, le}), float64(n))
		}
		at := labels([]string{h.label}, []string{value})
		sample(b, h.name+"_sum"+at, s.sum)
		sample(b, h.name+"_count"+at, float64(n))
	}
}

// gauge writes values that are read when they are asked for, in the order given.
func gauge(b *bytes.Buffer, name, help string, samples ...gaugeSample) {
	head(b, name, help, "gauge")
	for _, s := range samples {
		sample(b, name+s.at, s.value)
	}
}

type gaugeSample struct {
	at    string // labels as they are written
	value float64
}

func head(b *bytes.Buffer, name, help, kind string) {
	fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func sample(b *bytes.Buffer, series string, value float64) {
	b.WriteString(series + " " + number(value) + "\n")
}

func number(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

var quoteLabel = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// labels writes names and values as they stand behind the name of a metric.
func labels(names, values []string) string {
	if len(names) == 0 {
		return ""
	}
	pairs := make([]string, len(names))
	for i, name := range names {
		pairs[i] = name + `="` + quoteLabel.Replace(values[i]) + `"`
	}
	return "{" + strings.Join(pairs, ",") + "}"
}
