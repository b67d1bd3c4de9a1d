package inbound

import (
	"net/netip"
	"sync"
	"time"

	"onward/internal/config"
	"onward/internal/reply"
)

// clients counts what each client uses (RELIABILITY.md 5). A client is an IPv4
// address or an IPv6 /64, which is one customer. Its entries are at most those
// that connected within the last minute, plus those still connected.
type clients struct {
	mu     sync.Mutex
	open   map[*conn]netip.Prefix
	usage  map[netip.Prefix]*usage
	window time.Time // when the counts a minute began
	closed bool
}

type usage struct {
	sessions    int
	connections int   // in this window
	messages    int   // in this window
	octets      int64 // of them
}

func newClients() *clients {
	return &clients{open: map[*conn]netip.Prefix{}, usage: map[netip.Prefix]*usage{}}
}

// enter counts a new connection, or says why it may not be. The limits on one
// client's sessions and on all keep a flood from one place out of the way of
// everybody else; both are temporary, the sender comes back.
func (cs *clients) enter(c *conn, now time.Time, limits config.Limits) *reply.Reply {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	key := clientKey(c.client)
	u := cs.of(key, now)
	u.connections++
	switch {
	case cs.closed:
		return reply.New(421, "4.3.2", "shutting down, please come back")
	case over(u.sessions+1, limits.ClientSessions):
		return reply.New(421, "4.7.0", "too many connections from your address")
	case !many(c.client) && over(u.connections, limits.ClientConnectionsPerMinute):
		return reply.New(421, "4.7.0", "too many connections a minute from your address")
	case over(len(cs.open)+1, limits.Sessions) && !cs.makeRoom(u, now):
		return errFull
	}
	u.sessions++
	cs.open[c] = key
	return nil
}

// errFull is heard by those who find no room, and those who make it.
var errFull = reply.New(421, "4.3.2", "too many connections, please come back later")

// slowness is how long a client may keep us waiting though others find no room:
// long enough for an answer to go round the world.
const slowness = 250 * time.Millisecond

// makeRoom ends the session that keeps us waiting longest, so that whoever sits
// on connections does not keep others out (RELIABILITY 74): one that is slow, or
// one of a client that has more of them than the newcomer will have. It reports
// whether there was one.
func (cs *clients) makeRoom(newcomer *usage, now time.Time) bool {
	var slowest *conn
	var most time.Duration
	for c, client := range cs.open {
		waited := c.waited(now)
		if waited > most && (waited > slowness || cs.usage[client].sessions > newcomer.sessions+1) {
			slowest, most = c, waited
		}
	}
	if slowest == nil {
		return false
	}
	cs.forget(slowest) // and so count the newcomer in its place
	slowest.interrupt(errCrowdedOut)
	return true
}

// leave forgets a connection that entered.
func (cs *clients) leave(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.forget(c)
}

func (cs *clients) forget(c *conn) {
	if key, ok := cs.open[c]; ok {
		delete(cs.open, c)
		cs.usage[key].sessions--
	}
}

// message counts a message, or says why it may not be.
func (cs *clients) message(client netip.Addr, now time.Time, limits config.Limits) *reply.Reply {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	u := cs.of(clientKey(client), now)
	u.messages++
	switch {
	case many(client):
		return nil
	case over(u.messages, limits.ClientMessagesPerMinute):
		return reply.New(451, "4.7.0", "too many messages a minute from your address, please try again later")
	case over(u.octets, limits.ClientSizePerMinute):
		return reply.New(451, "4.7.0", "too much mail a minute from your address, please try again later")
	}
	return nil
}

// took counts the octets of a message that came.
func (cs *clients) took(client netip.Addr, now time.Time, octets int64) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.of(clientKey(client), now).octets += octets
}

// many reports whether an address stands for many clients that are hidden from us,
// or is this machine (DESIGN.md 9.11): what a client may do in a minute would be
// for all of them together.
func many(client netip.Addr) bool {
	return client.IsLoopback() || client.IsPrivate() || client.IsLinkLocalUnicast()
}

// of returns the counts of a client in the present window.
func (cs *clients) of(key netip.Prefix, now time.Time) *usage {
	if now.Sub(cs.window) >= time.Minute {
		cs.window = now
		for k, u := range cs.usage {
			if u.connections, u.messages, u.octets = 0, 0, 0; u.sessions == 0 {
				delete(cs.usage, k)
			}
		}
	}
	u := cs.usage[key]
	if u == nil {
		u = &usage{}
		cs.usage[key] = u
	}
	return u
}

// interrupt asks every connection to end, and lets no more enter.
func (cs *clients) interrupt() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.closed = true
	for c := range cs.open {
		c.interrupt(errDraining)
	}
}

// kill closes every connection without a word.
func (cs *clients) kill() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		c.raw.Close()
	}
}

// crowded reports whether more than 80 % of all sessions are in use.
func (cs *clients) crowded(limit int) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return limit > 0 && len(cs.open)*10 > limit*8
}

func clientKey(ip netip.Addr) netip.Prefix {
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
}

func over[N int | int64](n, limit N) bool { return limit > 0 && n > limit }
