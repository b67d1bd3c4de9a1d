package inbound

import (
	"onward/internal/parallel"
	"onward/internal/reply"
)

// askLists begins to ask the DNS lists about the client, once a session and not
// before it has something to say.
func (c *conn) askLists() {
	lists := c.server.Policy().Lists
	if lists == nil || c.listing != nil {
		return
	}
	c.listing = new(parallel.Group)
	c.listing.Go(func() { c.found = lists.Check(c.server.ctx, c.client) })
}

// listed waits for what the lists say, and returns the refusal of a client that
// is on one of them, or nil.
func (c *conn) listed() *reply.Reply {
	if c.listing == nil {
		return nil
	}
	c.listing.Wait()
	return c.found.Reply()
}
