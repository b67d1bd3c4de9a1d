package resolver

import "time"

// SetAside is how long a server in trouble is asked after the others.
const SetAside = setAside

// SetClock makes the client read the time from now.
func (c *Client) SetClock(now func() time.Time) { c.now = now }

// SetCacheLimit bounds the cache by that many octets.
func (c *Client) SetCacheLimit(octets int) { c.cache.limit = octets }

// SetFlights bounds the lookups under way.
func (c *Client) SetFlights(n int) { c.slots = make(chan struct{}, n) }

// Cached returns the entries of the cache and its estimated octets.
func (c *Client) Cached() (entries, octets int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.cache.entries), c.cache.size
}
