package smtpclient

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"time"
)

// Bounds of what is kept open between messages.
const (
	idleTime       = 10 * time.Second // less than any server waits for a command
	maxIdlePerHost = 10
	maxIdle        = 100 // all hosts together: each is a file descriptor
	maxMessages    = 100 // on one connection, or what its LIMITS say (RFC 9422)
)

// A connKey is what two messages must have in common to share a connection, the
// host apart.
type connKey struct {
	addr   netip.AddrPort
	source netip.Addr
	hello  string // our name
	relay  string // the account at a relay host, where TLS is verified; empty: a mail host of a domain
	tls    string // what of TLS was held (tlspolicy.Rule.Key); empty: nothing
}

// reuse returns an idle connection to the host where t is, or nil. Then there
// is room for a new one: what is kept counts against the slots as well.
func (t *turn) reuse(key connKey) *conn {
	if t.d == nil {
		return nil
	}
	for {
		c := t.d.take(t.at, func(c *conn) bool { return c.key == key })
		if c == nil {
			break
		}
		if c.wake() {
			return c
		}
		c.close()
	}
	hangUp(t.d.crowded(t))
	return nil
}

// keep leaves a connection to the host where t is for the next message, or ends
// it.
func (t *turn) keep(c *conn) {
	if !t.d.store(t.at, c) {
		c.close()
	}
}

// take removes and returns the newest idle connection to h that fits, or nil.
func (d *Destinations) take(h *host, fits func(*conn) bool) *conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, c := range slices.Backward(h.idle) {
		if fits(c) {
			d.remove(h, i)
			return c
		}
	}
	return nil
}

// crowded removes and returns the idle connections that leave no room for a new
// one in the slot t holds.
func (d *Destinations) crowded(t *turn) []*conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	var idle []*conn
	for h := t.at; len(h.idle) > 0 && h.inUse+len(h.idle) > t.slots(h); {
		idle = append(idle, d.remove(h, 0))
	}
	return idle
}

// dismiss removes and returns all idle connections to h.
func (d *Destinations) dismiss(h *host) []*conn {
	var idle []*conn
	for len(h.idle) > 0 {
		idle = append(idle, d.remove(h, 0))
	}
	return idle
}

// remove takes the i-th idle connection out of the pool; then it is the
// caller's to wake.
func (d *Destinations) remove(h *host, i int) *conn {
	c := h.idle[i]
	h.idle = slices.Delete(h.idle, i, i+1)
	d.idle--
	return c
}

// store puts a connection into the pool, and a watcher beside it. It reports
// whether there is room.
func (d *Destinations) store(h *host, c *conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || h.operator.pause.open(time.Now()) || len(h.idle) >= maxIdlePerHost || d.idle >= maxIdle {
		return false
	}
	c.rested = make(chan struct{})
	c.tcp.SetDeadline(time.Now().Add(d.idleTime))
	h.idle = append(h.idle, c)
	d.idle++
	d.watching.Go(func() { d.watch(h, c) })
	return true
}

// watch waits beside an idle connection until somebody takes it, the peer says
// something or leaves, or its time is up. Unless it has been taken, it is ended.
func (d *Destinations) watch(h *host, c *conn) {
	_, err := c.r.Peek(1)
	c.silent = errors.Is(err, os.ErrDeadlineExceeded)
	d.mu.Lock()
	i := slices.Index(h.idle, c)
	if i >= 0 {
		d.remove(h, i)
		d.tidy(h)
	}
	d.mu.Unlock()
	close(c.rested)
	if i >= 0 {
		c.close()
	}
}

// hangUp ends connections that were taken out of the pool.
func hangUp(conns []*conn) {
	for _, c := range conns {
		c.wake()
		c.close()
	}
}

// wake makes the watcher of a connection leave, and reports whether the peer has
// kept silent: whatever it said without being asked, such as 421, is not an
// answer to what comes next.
func (c *conn) wake() bool {
	c.tcp.SetDeadline(time.Unix(1, 0))
	<-c.rested
	return c.silent
}

// again makes a connection from the pool one of the attempt at hand.
func (c *conn) again(ctx context.Context, times Timeouts) {
	c.times, c.reused, c.accepted, c.step = times, true, false, stepEHLO
	c.watch(ctx)
}
