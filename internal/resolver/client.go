package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// maxFlights is the most lookups under way at once. Each holds a socket or two;
// further ones wait for their turn within the timeout.
const maxFlights = 1000

// A Client asks recursive DNS servers.
//
// What they say is remembered as long as its TTL allows, at most an hour, a
// "no" at most five minutes, trouble for a second. Callers with the same
// question at the same time share one lookup. When a server stays silent the
// next is asked while the first may still answer, and a silent server is asked
// last for a while.
type Client struct {
	// TrustAD believes what servers say of DNSSEC over a network too, where
	// whoever can change their answers could say it (`dns.trust_ad`). It is set
	// before the first Lookup.
	TrustAD bool

	timeout time.Duration
	servers []*server
	now     func() time.Time

	slots chan struct{}   // one for each flight that is asking
	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	wg    sync.WaitGroup // flights

	mu      sync.Mutex // guards what follows
	cache   *cache
	flights map[question]*flight
}

// A flight is one lookup under way, and whoever waits for it.
type flight struct {
	done chan struct{} // closed when the finding is there
	finding
}

// NewClient returns a Client of the given servers, asked in this order, which
// gives up on a lookup after timeout. Close it when done.
func NewClient(servers []netip.AddrPort, timeout time.Duration) *Client {
	c := &Client{
		timeout: timeout,
		now:     time.Now,
		slots:   make(chan struct{}, maxFlights),
		cache:   newCache(cacheOctets),
		flights: make(map[question]*flight),
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	for _, addr := range servers {
		c.servers = append(c.servers, &server{addr: addr})
	}
	return c
}

// Close ends all lookups, with ErrTemporary, and waits for them.
func (c *Client) Close() {
	c.mu.Lock()
	c.stop()
	c.mu.Unlock()
	c.wg.Wait()
}

// Lookup implements Resolver. A caller whose ctx ends goes away alone: the
// lookup goes on for the others and for the cache, within the timeout.
func (c *Client) Lookup(ctx context.Context, name string, t Type) (*Answer, error) {
	q := question{tidy(name), t}
	if ctx.Err() != nil {
		return nil, wrap(q, ctx.Err())
	}
	known, f := c.join(q)
	if f == nil {
		return known.answer, known.err
	}
	select {
	case <-f.done:
		return f.answer, f.err
	case <-ctx.Done():
		return nil, wrap(q, ctx.Err())
	}
}

// join returns what is known about q, or else the flight that is finding out.
// Both are decided under one lock, so that a question is never asked twice.
func (c *Client) join(q question) (finding, *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.cache.get(q, c.now()); ok {
		return known, nil
	}
	if f, ok := c.flights[q]; ok {
		return finding{}, f
	}
	if c.ctx.Err() != nil {
		return finding{err: wrap(q, errors.New("the resolver is closed"))}, nil
	}
	f := &flight{done: make(chan struct{})}
	c.flights[q] = f
	c.wg.Go(func() { c.fly(q, f) })
	return finding{}, f
}

// fly finds out about q, remembers it, and tells everybody who waits.
func (c *Client) fly(q question, f *flight) {
	ctx, cancel := context.WithTimeout(c.ctx, c.timeout)
	defer cancel()
	found := c.find(ctx, q)

	c.mu.Lock()
	defer c.mu.Unlock()
	f.finding = found
	if found.expiry.After(c.now()) {
		c.cache.put(q, found)
	}
	delete(c.flights, q)
	close(f.done)
}

// find asks, and says what came of it.
func (c *Client) find(ctx context.Context, q question) (found finding) {
	defer func() {
		if p := recover(); p != nil {
			found = finding{err: wrap(q, panicError(p))}
		}
	}()
	name, err := canonical(q.name)
	if err != nil { // what cannot exist does not, and needs no memory
		return finding{err: &Error{Name: q.name, Type: q.t, Kind: ErrNotFound, Err: err}}
	}
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return finding{err: wrap(q, fmt.Errorf("over %d lookups at once: %w", maxFlights, ctx.Err()))}
	}
	a := c.ask(ctx, name, q.t)
	return finding{
		answer: a.answer,
		err:    wrap(q, a.err),
		expiry: c.now().Add(a.lifetime()),
		size:   memoryOf(q, a.answer),
	}
}
