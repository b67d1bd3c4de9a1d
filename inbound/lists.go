package inbound

import (
	"onward/internal/dnsbl"
	"onward/internal/reply"
)

// askLists begins to ask the DNS lists about the client, once a session and not
// before it has something to say.
func (c *conn) askLists() {
	lists := c.server.Policy().Lists
	if lists == nil || c.listing != nil {
		return
	}
	c.listing = make(chan dnsbl.Finding, 1)
	go func() { c.listing <- lists.Check(c.server.ctx, c.client) }()
}

// listed waits for what the lists say, and returns the refusal of a client that
// is on one of them, or nil.
func (c *conn) listed() *reply.Reply {
	if c.listing == nil {
		return nil
	}
	if found, open := <-c.listing; open {
		c.found = found
		close(c.listing)
	}
	return c.found.Reply()
}
