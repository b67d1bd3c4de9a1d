package mtasts

import "time"

// SetClock makes the cache read the time from now.
func (c *Cache) SetClock(now func() time.Time) { c.now = now }

// Settle waits for the fetches under way.
func (c *Cache) Settle() { c.wg.Wait() }

// Remembered returns how many domains the cache knows, and how many octets it
// thinks that they cost.
func (c *Cache) Remembered() (domains, octets int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.domains), c.octets
}

// Remember puts a policy into the cache as a fetch would.
func (c *Cache) Remember(domain string, p *Policy) error {
	e := &entry{domain: domain, policy: p, id: "1", fetched: c.now()}
	if err := c.save(e); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(e)
	return nil
}

const (
	MaxDomains = maxDomains
	MaxOctets  = maxOctets
)
