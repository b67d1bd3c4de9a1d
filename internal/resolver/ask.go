package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	rounds    = 3                // times a silent server is asked within one lookup: datagrams get lost
	setAside  = 30 * time.Second // how long a server in trouble is asked after the others
	impatient = 5                // fraction of the timeout after which silence means: ask the next as well
)

// A server is one recursive server, and whether it did its duty lately.
type server struct {
	addr       netip.AddrPort
	asideUntil atomic.Int64 // Unix nanoseconds
}

// containers is where Docker answers the containers of a network of its own. It
// only passes on what another server says, bit and all.
var containers = netip.MustParseAddr("127.0.0.11")

// validates reports whether the server's word on DNSSEC comes from this
// machine. Over a network anybody on the way could set the bit.
func (s *server) validates() bool {
	return s.addr.Addr().IsLoopback() && s.addr.Addr() != containers
}

// An attempt is the outcome of asking one server once. Its err is as of read.
type attempt struct {
	server *server
	answer *Answer
	ttl    time.Duration // how long answer or err may be remembered
	err    error
}

// knows reports whether the server told us something, be it a "no".
func (a attempt) knows() bool {
	return a.err == nil || a.err == ErrNotFound || a.err == ErrNoData
}

// ask puts the question to one server after another until one of them knows.
// A server that fails is followed by the next at once. One that stays silent
// is so too after a while, and may still win; it is asked again when all others
// have been.
func (c *Client) ask(ctx context.Context, name string, t Type) attempt {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel() // before waiting: the losers stop

	turns := c.turns()
	results := make(chan attempt, len(turns))
	failed := make(map[*server]bool) // these are not asked again
	last := attempt{err: errors.New("no server to ask, set dns.resolvers")}
	patience := time.NewTimer(0)
	defer patience.Stop()
	for pending := 0; len(turns) > 0 || pending > 0; {
		select {
		case last = <-results:
			if last.knows() {
				return last
			}
			pending--
			failed[last.server] = true
		case <-patience.C: // also the start
		case <-ctx.Done():
			return attempt{err: fmt.Errorf("no server answered in time: %w", ctx.Err())}
		}
		for len(turns) > 0 && failed[turns[0]] {
			turns = turns[1:]
		}
		if len(turns) > 0 {
			s := turns[0]
			turns = turns[1:]
			pending++
			wg.Go(func() { results <- c.try(ctx, s, name, t) })
			patience.Reset(c.timeout / impatient)
		}
	}
	return last
}

// turns returns the servers in the order they are to be asked, each as often
// as it may be. Those in trouble come last in every round.
func (c *Client) turns() []*server {
	var good, bad, all []*server
	now := c.now().UnixNano()
	for _, s := range c.servers {
		if s.asideUntil.Load() > now {
			bad = append(bad, s)
		} else {
			good = append(good, s)
		}
	}
	for range rounds {
		all = append(append(all, good...), bad...)
	}
	return all
}

// try asks one server once, and remembers whether it could be reached. Being
// overtaken counts as trouble only after others were given a turn.
func (c *Client) try(ctx context.Context, s *server, name string, t Type) (a attempt) {
	defer func() {
		if p := recover(); p != nil {
			a = attempt{server: s, err: panicError(p)}
		}
	}()
	started := time.Now()
	msg, err := exchange(ctx, s.addr, name, t)
	if err != nil {
		if ctx.Err() == nil || time.Since(started) >= c.timeout/impatient {
			s.asideUntil.Store(c.now().Add(setAside).UnixNano())
		}
		return attempt{server: s, err: fmt.Errorf("server %v: %w", s.addr, err)}
	}
	s.asideUntil.Store(0)
	a.server = s
	a.answer, a.err = read(msg, name, t)
	switch {
	case a.err == nil:
		a.answer.AuthenticatedData = msg.AuthenticatedData && (c.TrustAD || s.validates())
		a.ttl = a.answer.TTL
	case a.knows():
		a.ttl = negativeTTL(msg)
	default:
		a.err = fmt.Errorf("server %v: %w", s.addr, a.err)
	}
	return a
}
