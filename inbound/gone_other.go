//go:build !linux

package inbound

// Nothing of this can be known here without reading.
func (c *conn) gone() bool         { return false }
func (c *conn) acknowledged() bool { return false }
func (c *conn) arrives() bool      { return false }
func (c *conn) unread() int        { return 0 }
