package status

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"onward/internal/journal"
	"onward/internal/smtpclient"
	"onward/internal/store"
)

// An overview is the first page.
type overview struct {
	Problems []problem
	Chart    chart
	Queue    store.Stats
	Oldest   time.Time // when the oldest item came that still waits; zero: none does
	Latest   []day
}

// A problem is something that a person should look at.
type problem struct {
	Text string
	Link string // may be empty
}

// latest is how many messages the first page shows.
const latest = 12

func (p *Page) overview(r *http.Request) (view, error) {
	ctx, o := r.Context(), overview{}
	var err error
	if o.Queue, err = p.Store.Stats(ctx); err != nil {
		return view{}, err
	}
	if o.Oldest, err = p.oldest(ctx); err != nil {
		return view{}, err
	}
	o.Problems = p.problems(o.Queue, o.Oldest)
	if err := p.recall(ctx, &o); err != nil {
		o.Problems = append(o.Problems, problem{"The journal cannot be read: " + err.Error(), ""})
	}
	return view{Name: "overview", Title: "Overview", Data: o}, nil
}

// recall adds what the journal knows.
func (p *Page) recall(ctx context.Context, o *overview) error {
	j, err := p.read(ctx)
	if err != nil {
		return err
	}
	defer j.Close()
	now := p.now()
	hours, err := j.Hours(ctx, now.Add(-chartTime))
	if err != nil {
		return err
	}
	o.Chart = draw(hours, now)
	rows, err := p.rows(ctx, j, journal.Filter{Limit: latest}, 0)
	o.Latest = byDay(rows)
	return err
}

// problems are what is wrong, the worst first.
func (p *Page) problems(queue store.Stats, oldest time.Time) (list []problem) {
	add := func(link, format string, args ...any) {
		list = append(list, problem{fmt.Sprintf(format, args...), link})
	}
	if err := p.ready(); err != nil {
		add("", "This server is not ready: %v.", err)
	}
	if p.Troubles != nil {
		for _, t := range p.Troubles() {
			add("", "%s", t)
		}
	}
	if queue.Held > 0 {
		add("/queue?state=held", "%s for you to decide what becomes of it.", plural(int(queue.Held), "message is held", "messages are held"))
	}
	now := p.now()
	if age := now.Sub(oldest); !oldest.IsZero() && age > 24*time.Hour {
		add("/queue?state=waiting", "The oldest message in the queue has waited for %s.", span(age))
	}
	for _, d := range paused(p.Destinations(), now) {
		add("/destinations", "%s wants no mail for another %s.", d.Operator, span(d.Until.Sub(now)))
	}
	if end, known := p.certificateEnd(); known && end.Sub(now) < 14*24*time.Hour {
		add("/doctor", "The certificate ends in %s.", span(end.Sub(now)))
	}
	if lost := p.Journal.Lost(); lost > 0 {
		add("", "The journal could not keep up: %s missing since the start.", plural(int(lost), "entry is", "entries are"))
	}
	if failures := p.doctor.count(Failure); failures > 0 {
		add("/doctor", "The doctor found %s.", plural(failures, "thing that keeps mail from arriving", "things that keep mail from arriving"))
	}
	return list
}

// oldest returns when the oldest item came that waits. Held ones wait for a person,
// and may do so for long.
func (p *Page) oldest(ctx context.Context) (time.Time, error) {
	items, err := p.Store.Items(ctx, store.Filter{State: store.Waiting, Limit: 1})
	if err != nil || len(items) == 0 {
		return time.Time{}, err
	}
	return items[0].Arrived, nil
}

// certificateEnd returns when the certificate does, if there is one to speak of.
func (p *Page) certificateEnd() (end time.Time, known bool) {
	if p.Expires == nil {
		return time.Time{}, false
	}
	end = p.Expires()
	return end, !end.IsZero()
}

// paused are the operators whose breaker is open, each once.
func paused(all []smtpclient.DestinationState, now time.Time) (list []smtpclient.DestinationState) {
	for _, d := range all {
		if d.Until.After(now) && (len(list) == 0 || list[len(list)-1].Operator != d.Operator) {
			list = append(list, d)
		}
	}
	return list
}

// chartTime is how far back the picture of mail per hour goes.
const chartTime = 48 * time.Hour

// A chart is mail per hour as bars: what was accepted stands on the line, what was
// refused hangs from it. Each side has a scale of its own, as the refusals of one
// bad night would leave nothing to see of the mail.
type chart struct {
	Bars              []bar
	Marks             []mark
	Accepted, Refused peak
	Day               sums // of the last 24 hours
}

type peak struct{ Sum, Most int64 }

type sums struct{ Forwarded, Queued, Refused, Deferred int64 }

// A bar is one hour. Where it begins, and its lengths from the line, are in
// per cent of the picture.
type bar struct {
	X, Up, Down       float64
	Accepted, Refused int64
	From              time.Time
}

// Top is where it ends upwards.
func (b bar) Top() float64 { return line - b.Up }

// A mark is a time below the bars.
type mark struct {
	X    float64
	Text string
}

// The picture downwards, in per cent: up to line what was accepted, then what was
// refused, and the times below.
const (
	line       = 62
	downHeight = 24
)

// draw makes the picture of the hours up to now.
func draw(hours []journal.Hour, now time.Time) chart {
	n := int(chartTime / time.Hour)
	first := now.Truncate(time.Hour).Add(-time.Duration(n-1) * time.Hour)
	var c chart
	for i := range n {
		c.Bars = append(c.Bars, bar{X: 100 * float64(i) / float64(n), From: first.Add(time.Duration(i) * time.Hour)})
	}
	for _, h := range hours {
		if i := int(h.Begin.Sub(first) / time.Hour); !h.Begin.Before(first) && i < n {
			c.count(&c.Bars[i], h)
		}
		if h.Begin.After(now.Add(-24 * time.Hour)) {
			c.Day.count(h)
		}
	}
	for i := range c.Bars {
		b := &c.Bars[i]
		b.Up, b.Down = length(b.Accepted, c.Accepted.Most, line), length(b.Refused, c.Refused.Most, downHeight)
		if at := b.From.Local(); at.Hour()%12 == 0 && b.X < 88 { // the last would stick out
			c.Marks = append(c.Marks, mark{b.X, at.Format("Mon 15:04")})
		}
	}
	return c
}

func (c *chart) count(b *bar, h journal.Hour) {
	total, side := &b.Accepted, &c.Accepted
	if h.Outcome == journal.Rejected || h.Outcome == journal.Deferred {
		total, side = &b.Refused, &c.Refused
	}
	*total += h.Count
	side.Sum += h.Count
	side.Most = max(side.Most, *total)
}

func (s *sums) count(h journal.Hour) {
	switch h.Outcome {
	case journal.Rejected:
		s.Refused += h.Count
	case journal.Deferred:
		s.Deferred += h.Count
	case journal.Queued:
		s.Queued += h.Count
	default:
		s.Forwarded += h.Count
	}
}

// length scales n so that most has the full length, and what there is can be
// seen.
func length(n, most int64, full float64) float64 {
	if n == 0 {
		return 0
	}
	return max(1, full*float64(n)/float64(most))
}
