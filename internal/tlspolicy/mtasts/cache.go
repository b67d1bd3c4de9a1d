// Package mtasts knows the MTA-STS policies of domains (RFC 8461): it fetches
// them, and keeps them on disk for as long as they ask.
//
// What a caller relies on:
//   - A policy that was once fetched is in force until its max_age is over,
//     whatever the DNS or the policy host say or fail to say meanwhile. Only a
//     newer policy, fetched under a valid certificate, takes its place. So
//     whoever can cut us off gains nothing (RELIABILITY 60).
//   - Trouble is never a reason to refuse mail: without a policy, old or new,
//     the domain is one that has none.
package mtasts

import (
	"cmp"
	"container/list"
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"onward/internal/resolver"
	"onward/internal/webclient"
)

const (
	refreshAfter = 24 * time.Hour  // of age a policy is fetched again, though nothing changed (RFC 8461 3.3)
	retryAfter   = 5 * time.Minute // after a failed fetch of the same id (RFC 8461 3.3)
	maxFetches   = 20              // at once
	maxDomains   = 10_000          // remembered, the least recently used forgotten first
	maxOctets    = 16 << 20        // of patterns in all those policies
)

// A Cache is the policies of all domains, in memory and on disk. It outlives
// reloads of the configuration, and is safe for concurrent use.
type Cache struct {
	dir   string
	log   *slog.Logger
	now   func() time.Time
	slots chan struct{} // one for each fetch under way

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup // fetches

	mu      sync.Mutex // guards what follows
	domains map[string]*list.Element
	recent  *list.List // of *entry; front: used last
	octets  int
	flights map[string]*flight
}

// An entry is what is known about one domain.
type entry struct {
	domain  string
	policy  *Policy // nil when no fetch has succeeded
	id      string  // announced when policy was fetched
	fetched time.Time

	failed   error // the last fetch, when that did not succeed
	failedID string
	retry    time.Time // not before
}

// live reports whether the policy is in force.
func (e *entry) live(now time.Time) bool {
	return e.policy != nil && now.Before(e.fetched.Add(e.policy.MaxAge))
}

// size estimates the octets that e costs in memory beyond its own.
func (e *entry) size() int {
	size := len(e.domain)
	if e.policy != nil {
		for _, mx := range e.policy.MX {
			size += len(mx) + 16
		}
	}
	return size
}

// A flight is one fetch under way, and whoever waits for it.
type flight struct {
	done  chan struct{} // closed when found is there
	found Found
}

// A Found is what a domain asks for.
type Found struct {
	Policy *Policy // nil: nothing; its Mode may also be None
	Err    error   // why there is no newer policy, though one is announced: ErrFetch, ErrWebPKI or ErrInvalid
}

// Open reads the policies that are kept in dir, which is made when it is not
// there. A file that cannot be read is logged and given up. Close it when done.
func Open(dir string, log *slog.Logger) (*Cache, error) {
	c := &Cache{
		dir: dir, log: log, now: time.Now,
		slots:   make(chan struct{}, maxFetches),
		domains: make(map[string]*list.Element), recent: list.New(), flights: make(map[string]*flight),
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("MTA-STS policies: %w", err)
	}
	return c, nil
}

// Close ends all fetches and waits for them.
func (c *Cache) Close() {
	c.mu.Lock()
	c.stop()
	c.mu.Unlock()
	c.wg.Wait()
}

// Lookup returns the policy of a domain, given in ASCII. Where one has to be
// fetched first it waits until web gives up or ctx ends, and all who ask at the
// same time share that fetch. A policy in force that is only old is fetched
// again without waiting.
func (c *Cache) Lookup(ctx context.Context, web *webclient.Client, domain string) Found {
	id := announced(ctx, web.Resolver, domain)
	now, f := c.join(web, domain, id)
	if f == nil {
		return now
	}
	select {
	case <-f.done:
		return f.found
	case <-ctx.Done():
		now.Err = fmt.Errorf("%w: %w", ErrFetch, ctx.Err())
		return now
	}
}

// announced returns the id of the policy that the DNS announces, or "".
func announced(ctx context.Context, r resolver.Resolver, domain string) string {
	answer, err := r.Lookup(ctx, "_mta-sts."+domain, resolver.TypeTXT)
	if err != nil {
		return ""
	}
	id, err := ParseRecord(answer.TXT())
	if err != nil {
		return ""
	}
	return id
}

// join returns what is known about domain, and the flight that is finding out
// more where that is worth waiting for.
func (c *Cache) join(web *webclient.Client, domain, id string) (Found, *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	e := c.use(domain)
	if e == nil {
		e = &entry{domain: domain}
	}
	var known Found
	if e.live(now) {
		known.Policy = e.policy
	}
	current := known.Policy != nil && (id == "" || id == e.id) // as far as we are told
	switch {
	case current && now.Before(e.fetched.Add(refreshAfter)), id == "" && known.Policy == nil:
		return known, nil
	case e.failed != nil && (id == "" || id == e.failedID) && now.Before(e.retry):
		if !current {
			known.Err = e.failed
		}
		return known, nil
	}
	f := c.launch(web, domain, cmp.Or(id, e.id))
	if f == nil || current {
		return known, nil
	}
	return known, f
}

// use returns what is known about domain, if anything. c.mu is held.
func (c *Cache) use(domain string) *entry {
	el, ok := c.domains[domain]
	if !ok {
		return nil
	}
	c.recent.MoveToFront(el)
	return el.Value.(*entry)
}

// launch returns the flight that fetches the policy of domain, a new one when
// there is none, nil when the cache is closed. c.mu is held.
func (c *Cache) launch(web *webclient.Client, domain, id string) *flight {
	if f, ok := c.flights[domain]; ok {
		return f
	}
	if c.ctx.Err() != nil {
		return nil
	}
	f := &flight{done: make(chan struct{})}
	c.flights[domain] = f
	c.wg.Go(func() { c.fly(f, web, domain, id) })
	return f
}

// fly fetches the policy of domain, remembers what came of it, and tells
// everybody who waits.
func (c *Cache) fly(f *flight, web *webclient.Client, domain, id string) {
	c.slots <- struct{}{}
	defer func() { <-c.slots }()
	e, err := c.fetch(web, domain, id)

	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.log.Warn("MTA-STS policy not fetched", "domain", domain, "err", err)
		e = c.failing(domain, id, err)
	}
	c.put(e)
	f.found.Err = err
	if err == nil || e.live(c.now()) {
		f.found.Policy = e.policy
	}
	delete(c.flights, domain)
	close(f.done)
}

// fetch gets the policy of domain. A new one is on disk before it is used. A panic
// is a fetch that failed, never the end of the process (RELIABILITY 89).
func (c *Cache) fetch(web *webclient.Client, domain, id string) (e *entry, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: panic: %v\n%s", ErrFetch, p, debug.Stack())
		}
	}()
	p, err := fetch(c.ctx, web, domain)
	if err != nil {
		return nil, err
	}
	e = &entry{domain: domain, policy: p, id: id, fetched: c.now()}
	if err := c.save(e); err != nil {
		c.log.Error("MTA-STS policy not kept on disk", "domain", domain, "err", err)
	}
	return e, nil
}

// failing returns what is to be known about domain after a failed fetch: what
// was known before, and the failure. c.mu is held.
func (c *Cache) failing(domain, id string, err error) *entry {
	e := entry{domain: domain}
	if old := c.use(domain); old != nil {
		e = *old
	}
	e.failed, e.failedID, e.retry = err, id, c.now().Add(retryAfter)
	return &e
}

// put remembers e, and forgets others as long as there is too much. c.mu is held.
func (c *Cache) put(e *entry) {
	if el, ok := c.domains[e.domain]; ok {
		c.drop(el)
	}
	c.domains[e.domain] = c.recent.PushFront(e)
	c.octets += e.size()
	for len(c.domains) > maxDomains || c.octets > maxOctets && len(c.domains) > 1 {
		last := c.recent.Back()
		c.drop(last)
		c.erase(last.Value.(*entry).domain)
	}
}

func (c *Cache) drop(el *list.Element) {
	e := c.recent.Remove(el).(*entry)
	delete(c.domains, e.domain)
	c.octets -= e.size()
}
