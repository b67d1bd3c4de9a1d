package status

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A State is how a check went.
type State string

// The states, the words of `onward doctor`.
const (
	OK      State = "ok"
	Warning State = "warning"
	Failure State = "failure"
)

// A Check is one thing that the doctor looked at.
type Check struct {
	Name     string
	State    State
	Sentence string
	Mend     string // record or command, a line each; may be empty
}

// The pace of examinations: mail hosts and blocklists are asked, which want to be
// left alone.
const (
	examineFirst = time.Minute // after the start
	examineEvery = 6 * time.Hour
	examineTime  = time.Minute
)

// A doctor keeps the result of the last examination.
type doctor struct {
	mu     sync.Mutex
	checks []Check
	at     time.Time // zero: none was made yet
}

// run examines from time to time until ctx ends.
func (d *doctor) run(ctx context.Context, examine func(context.Context) []Check) {
	if examine == nil {
		return
	}
	next := time.NewTimer(examineFirst)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
			d.examine(ctx, examine)
			next.Reset(examineEvery)
		}
	}
}

func (d *doctor) examine(ctx context.Context, examine func(context.Context) []Check) {
	ctx, cancel := context.WithTimeout(ctx, examineTime)
	defer cancel()
	checks := examine(ctx)
	if ctx.Err() != nil {
		return // half an examination finds what is not there
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.checks, d.at = checks, time.Now()
}

// last returns the last result.
func (d *doctor) last() ([]Check, time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.checks, d.at
}

// count returns how many checks ended so.
func (d *doctor) count(s State) (n int) {
	checks, _ := d.last()
	for _, c := range checks {
		if c.State == s {
			n++
		}
	}
	return n
}

// An examination is the page of the doctor: what is wrong comes first.
type examination struct {
	Checks   []Check
	At       time.Time
	Possible bool
}

func (p *Page) checks(*http.Request) (view, error) {
	checks, at := p.doctor.last()
	order := []State{Failure, Warning, OK}
	checks = slices.SortedStableFunc(slices.Values(checks), func(a, b Check) int {
		return slices.Index(order, a.State) - slices.Index(order, b.State)
	})
	return view{Name: "doctor", Title: "Doctor", Data: examination{checks, at, p.Examine != nil}}, nil
}
