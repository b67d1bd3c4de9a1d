package resolver

import "time"

// What the tests reach for inside.
const (
	CacheOctets = cacheOctets
	MaxChain    = maxChain
	SetAside    = setAside
)

// SetClock makes the client read the time from now.
func (c *Client) SetClock(now func() time.Time) { c.now = now }

// SetCacheLimit bounds the cache by that many octets.
func (c *Client) SetCacheLimit(octets int) { c.cache.limit = octets }

// Cached returns the entries of the cache and its estimated octets.
func (c *Client) Cached() (entries, octets int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.cache.entries), c.cache.size
}
