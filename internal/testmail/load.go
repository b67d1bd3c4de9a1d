package testmail

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// A Load is many senders at once, each behaving as a mail server does: it keeps
// what was answered 4xx or not at all, and tries again with the same octets. What
// they know goes into the ledger. The first five fields are required.
type Load struct {
	Addr     func() string // where the daemon listens now
	Ledger   *Ledger
	Writers  []*Writer                   // each message is by one of them, at random
	To       func(r *rand.Rand) []string // the recipients of a message
	Sessions int                         // at the same time, each for every Writer
	Messages int                         // in all; 0: until Enough
	Enough   <-chan struct{}             // ends the writing of messages; may be nil
	Rate     float64                     // messages begun a second; 0: as fast as answers come
	Retry    time.Duration               // from a 4xx, or none, to the next try; 0: no next try
	Size     func(r *rand.Rand) int      // about how large a body is, in octets; nil: 500
	Seed     uint64
	Heard    func(w *Writer, id string, t Try) // is told of every try; may be nil
}

// Totals are what a Load has heard. A message counts once, by its last answer.
type Totals struct {
	Accepted, Refused, Deferred, Lost int // messages; Lost: no answer to the last try
	Tries                             int
	Took                              time.Duration
}

// String returns the totals in one line.
func (t Totals) String() string {
	return fmt.Sprintf("%d accepted, %d refused, %d deferred, %d without answer, %d tries in %v (%.0f a second)",
		t.Accepted, t.Refused, t.Deferred, t.Lost, t.Tries, t.Took.Round(time.Millisecond), float64(t.Tries)/t.Took.Seconds())
}

// A job is one message on its way, with the recipients still to be reached.
type job struct {
	id     string
	writer *Writer
	from   string
	to     []string
	octets []byte
	due    time.Time
	last   Try
}

// Run sends everything and returns when every message has come to an end, or
// ctx has.
func (l *Load) Run(ctx context.Context) Totals {
	began := time.Now()
	jobs := make(chan *job)
	go l.write(ctx, jobs)
	var mu sync.Mutex
	var totals Totals
	var wg sync.WaitGroup
	for range l.Sessions {
		wg.Go(func() {
			own := l.work(ctx, jobs)
			mu.Lock()
			defer mu.Unlock()
			totals.Accepted += own.Accepted
			totals.Refused += own.Refused
			totals.Deferred += own.Deferred
			totals.Lost += own.Lost
			totals.Tries += own.Tries
		})
	}
	wg.Wait()
	totals.Took = time.Since(began)
	return totals
}

// write makes the messages at their pace and closes jobs after the last.
func (l *Load) write(ctx context.Context, jobs chan<- *job) {
	defer close(jobs)
	r := rand.New(rand.NewPCG(l.Seed, 5))
	began := time.Now()
	for n := 0; l.Messages == 0 || n < l.Messages; n++ {
		j := l.letter(r, n)
		var due <-chan time.Time
		if l.Rate > 0 {
			due = time.After(time.Until(began.Add(time.Duration(float64(n) / l.Rate * float64(time.Second)))))
			select {
			case <-due:
			case <-l.Enough:
				return
			case <-ctx.Done():
				return
			}
		}
		select {
		case jobs <- j:
		case <-l.Enough:
			return
		case <-ctx.Done():
			return
		}
	}
}

// letter makes one message and enters it in the ledger.
func (l *Load) letter(r *rand.Rand, n int) *job {
	j := &job{
		id:     fmt.Sprintf("%d.%x@load.example", n, l.Seed),
		writer: l.Writers[r.IntN(len(l.Writers))],
		to:     l.To(r),
	}
	size := 500
	if l.Size != nil {
		size = l.Size(r)
	}
	var author string
	j.from, author = j.writer.addresses(n)
	j.octets = j.writer.letter(j.id, author, j.to[0], filler(r, j.id, size))
	l.Ledger.Write(j.id, j.writer.Class, j.from, j.octets)
	return j
}

// filler returns a body of about size octets that has id in it, dots at the
// beginnings of lines, and 8-bit text.
func filler(r *rand.Rand, id string, size int) string {
	var b strings.Builder
	b.WriteString(id + "\r\n")
	for b.Len() < size {
		b.WriteString([]string{"", "", ".", "..", ". ", "é", "\t", "From "}[r.IntN(8)])
		for range r.IntN(9) {
			fmt.Fprintf(&b, "%x ", r.Uint32())
		}
		b.WriteString("\r\n")
	}
	return b.String()
}

// work is one sender. It takes new messages, unless one of its own is due again.
func (l *Load) work(ctx context.Context, jobs <-chan *job) (totals Totals) {
	clients := map[*Writer]*client{}
	defer func() {
		for _, c := range clients {
			c.close()
		}
	}()
	var again []*job // in order of due
	for jobs != nil || len(again) > 0 {
		var due <-chan time.Time
		if len(again) > 0 {
			due = time.After(time.Until(again[0].due))
		}
		var j *job
		select {
		case next, ok := <-jobs:
			if !ok {
				jobs = nil
				continue
			}
			j = next
		case <-due:
			j, again = again[0], again[1:]
		case <-ctx.Done():
			for _, j := range again {
				totals.add(j)
			}
			return totals
		}
		totals.Tries++
		l.try(ctx, clients, j)
		if l.Retry > 0 && len(j.to) > 0 {
			j.due = time.Now().Add(l.Retry)
			again = append(again, j)
		} else {
			totals.add(j)
		}
	}
	return totals
}

// add counts a message that has come to its end.
func (t *Totals) add(j *job) {
	switch j.last.Code / 100 {
	case 2:
		t.Accepted++
	case 5:
		t.Refused++
	case 4:
		t.Deferred++
	default:
		t.Lost++
	}
}

// try makes one try at a message and leaves in j.to who is still to be reached.
func (l *Load) try(ctx context.Context, clients map[*Writer]*client, j *job) {
	t, err := l.converse(ctx, clients, j)
	if err != nil {
		clients[j.writer].close()
		delete(clients, j.writer)
		if t.Code == 0 {
			t.Text = fmt.Sprintf("%s: %v", t.Text, err)
		}
	}
	j.last = t
	j.to = remaining(j.to, t)
	l.Ledger.Tried(j.id, t)
	if l.Heard != nil {
		l.Heard(j.writer, j.id, t)
	}
}

// converse uses the connection that is there, or a new one when there is none or
// it was hung up while nobody used it.
func (l *Load) converse(ctx context.Context, clients map[*Writer]*client, j *job) (Try, error) {
	addr := l.Addr()
	if c := clients[j.writer]; c != nil && c.addr == addr {
		t, err := c.transact(j.from, j.to, j.octets)
		if err == nil || t.Dot {
			return t, err
		}
	}
	clients[j.writer].close()
	c, t, err := newClient(ctx, addr, j.writer)
	clients[j.writer] = c
	if err != nil {
		return t, err
	}
	return c.transact(j.from, j.to, j.octets)
}

// remaining returns those of to who have not been answered for good.
func remaining(to []string, t Try) []string {
	var left []string
	for _, recipient := range to {
		code, refused := t.Refused[recipient]
		if !refused {
			code = t.Code
		}
		if code/100 != 2 && code/100 != 5 {
			left = append(left, recipient)
		}
	}
	return left
}
