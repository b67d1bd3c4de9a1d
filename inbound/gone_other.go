//go:build !linux

package inbound

// Neither can be known here without reading.
func (c *conn) gone() bool         { return false }
func (c *conn) acknowledged() bool { return false }
