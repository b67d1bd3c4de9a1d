package queue

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"onward/internal/address"
	"onward/internal/store"
)

const (
	look       = time.Second      // another process may have changed something
	cleanEvery = 10 * time.Minute // see clean; and a look whether mail is held
	forget     = 5 * time.Hour    // of a destination without attempts: longer than any item waits
	respite    = 5 * time.Second  // after trouble with the store
	wakeAtOnce = 1000             // items in one transaction
)

// A schedule is what the goroutine of Run owns.
type schedule struct {
	*Queue
	busy         map[int64]bool // items whose attempts are under way
	destinations map[address.Domain]*destination
	results      chan result
	jobs         sync.WaitGroup

	resume   time.Time // nothing is begun before: the store is in trouble
	cleaned  time.Time
	notified time.Time // when the postmaster was told of held mail
}

func newSchedule(q *Queue) *schedule {
	return &schedule{
		Queue:        q,
		busy:         map[int64]bool{},
		destinations: map[address.Domain]*destination{},
		results:      make(chan result, maxWorkers), // so that nobody waits for a schedule that has ended
	}
}

// launch begins as many attempts as there may be. It serves the domains in turn,
// those first that have the fewest attempts under way. None may have more than
// there is room for still, so that however many domains hang, there is room for
// another one (RELIABILITY 75).
func (s *schedule) launch(ctx context.Context) {
	now := s.clock()
	free := maxWorkers - len(s.busy)
	if free == 0 || within(s.resume, respite, now) || !s.prepare(ctx, now) {
		return
	}
	due, err := s.Store.Destinations(ctx, now, len(s.destinations)+free)
	if err != nil {
		s.trouble(err)
		return
	}
	limit := s.Route().PerDestination
	var open []*offer
	for _, d := range due {
		if known := s.destinations[d.Domain]; known == nil || known.room(now, limit) > 0 {
			open = append(open, &offer{domain: d.Domain, known: known})
		}
	}
	slices.SortStableFunc(open, func(a, b *offer) int { return cmp.Compare(a.busy(), b.busy()) })
	for len(open) > 0 {
		var more []*offer
		for _, o := range open {
			if o.busy() >= free {
				continue
			}
			if item := s.pick(ctx, o, now, limit, free); item != nil {
				free--
				s.begin(ctx, o.known, item, now)
				more = append(more, o)
			}
		}
		open = more
	}
}

// An offer is a domain with something due, during one launch.
type offer struct {
	domain address.Domain
	known  *destination // nil until there is an attempt
	asked  bool
}

func (o *offer) busy() int {
	if o.known == nil {
		return 0
	}
	return o.known.busy
}

// pick returns the next item for a domain, or nil when there is none for now.
func (s *schedule) pick(ctx context.Context, o *offer, now time.Time, limit, free int) *store.Item {
	if o.known != nil && o.known.room(now, limit) == 0 {
		return nil
	}
	item := o.known.next()
	if item == nil && !o.asked {
		o.asked = true
		s.readAhead(ctx, o, now, limit, free)
		item = o.known.next()
	}
	return item
}

// readAhead asks the store what is due for a domain. Beyond what may begin now it
// reads as much as may be under way at once, where the domain takes mail: each end
// of an attempt makes room for one more, which is not worth a question. What has
// changed by its turn does not begin (see store.Begin).
func (s *schedule) readAhead(ctx context.Context, o *offer, now time.Time, limit, free int) {
	want := firstWindow
	if d := o.known; d != nil {
		want = min(free, d.room(now, limit)) + d.busy // some of which the store does not know of yet
		if !d.away {
			want += d.window
		}
	}
	items, err := s.Store.Due(ctx, o.domain, now, min(want, 2*maxWorkers))
	if err != nil {
		s.trouble(err)
		return
	}
	items = slices.DeleteFunc(items, func(i *store.Item) bool { return s.busy[i.ID] })
	if len(items) == 0 {
		return
	}
	if o.known == nil {
		o.known = newDestination(o.domain, items[0].Tried > 0 && !items[0].Paused)
		s.destinations[o.domain] = o.known
	}
	o.known.ahead = items
}

// begin starts the goroutine of one attempt.
func (s *schedule) begin(ctx context.Context, d *destination, item *store.Item, now time.Time) {
	s.busy[item.ID] = true
	d.busy++
	d.used = now
	s.jobs.Go(func() {
		r := s.attempt(ctx, item)
		r.at = d
		s.results <- r
	})
}

// take learns from the result of an attempt, and from all others that are there.
func (s *schedule) take(ctx context.Context, r result) {
	for {
		s.learn(ctx, r)
		select {
		case r = <-s.results:
		default:
			return
		}
	}
}

func (s *schedule) learn(ctx context.Context, r result) {
	delete(s.busy, r.item.ID)
	d := r.at
	d.busy--
	switch {
	case r.trouble != nil:
		s.trouble(r.trouble)
	case r.outcome.Result != 0:
		if d.note(r.item.Target, r.outcome, s.Route().PerDestination) {
			s.wake(ctx, d)
		}
	}
	if d.away {
		s.away.Store(d.domain, nil)
	}
	if d.away || within(d.pausedUntil, longestWait, s.clock()) {
		d.ahead = nil // it would be old, and be in memory for hours
	}
}

// recovered notes what a delivery in session says of a domain.
func (s *schedule) recovered(ctx context.Context, domain address.Domain) {
	d := s.destinations[domain]
	if d == nil {
		d = newDestination(domain, true)
		s.destinations[domain] = d
	}
	if _, away := s.away.Load(domain); d.took(s.Route().PerDestination) || away {
		s.wake(ctx, d)
	}
}

// wake makes due what waits for a domain that is back. How much of it goes at
// once is up to the domain's window (RELIABILITY 76).
func (s *schedule) wake(ctx context.Context, d *destination) {
	s.away.Delete(d.domain)
	s.Log.Info("destination is back", "dest", d.domain)
	s.jobs.Go(func() {
		defer s.poke()
		for {
			woken, err := s.Store.Wake(ctx, d.domain, s.clock(), wakeAtOnce)
			if err != nil {
				s.Log.Error("cannot wake items", "dest", d.domain, "err", err)
			}
			if woken < wakeAtOnce {
				return
			}
		}
	})
}

// prepare sets the queue right before the first attempt: leases of the process
// before are free, as it has died (RELIABILITY 87). It reports whether that is
// done.
func (s *schedule) prepare(ctx context.Context, now time.Time) bool {
	if !s.cleaned.IsZero() {
		return true
	}
	err := s.Store.FreeLeases(ctx, s.Owner)
	if err == nil {
		err = s.clean(ctx, now)
	}
	if err == nil {
		s.notified, err = s.lastNotice(ctx)
	}
	if err != nil {
		s.cleaned = time.Time{}
		s.trouble(err)
	}
	return err == nil
}

// clean forgets destinations, and lets no item wait for a time that a wrong clock
// gave it (RELIABILITY 90).
func (s *schedule) clean(ctx context.Context, now time.Time) error {
	s.cleaned = now
	for domain, d := range s.destinations {
		if d.busy == 0 && now.Sub(d.used).Abs() > forget {
			delete(s.destinations, domain)
			s.away.Delete(domain)
		}
	}
	return s.Store.ClampNext(ctx, now.Add(longestWait))
}

// keepHouse does what is done every ten minutes.
func (s *schedule) keepHouse(ctx context.Context) {
	now := s.clock()
	if s.cleaned.IsZero() || within(s.resume, respite, now) {
		return
	}
	if now.Sub(s.cleaned).Abs() < cleanEvery {
		return
	}
	err := s.clean(ctx, now)
	if err == nil && now.Sub(s.notified).Abs() >= noticeEvery {
		err = s.notify(ctx, now)
	}
	if err != nil {
		s.trouble(err)
	}
}

// trouble notes that the store does not work. Items stay where they are.
func (s *schedule) trouble(err error) {
	now := s.clock()
	if !within(s.resume, respite, now) && !errors.Is(err, context.Canceled) { // once for all attempts
		s.Log.Error("queue cannot go on for now", "err", err)
	}
	s.resume = now.Add(respite)
}

// drain waits for the attempts under way: each meets its own deadlines, and all
// of them this one. One that has not sent its final dot by then gives up. What
// waits for an answer still is abandoned: it was begun and has no end on the
// disk, so it is tried again after a restart.
func (s *schedule) drain(cancel context.CancelFunc) {
	ended := make(chan struct{})
	go func() {
		s.jobs.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return
	case <-time.After(s.Route().Drain - graceToRecord):
		cancel()
	}
	select {
	case <-ended:
	case <-time.After(graceToRecord):
		s.Log.Warn("attempts under way are abandoned")
	}
}
