package inbound

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// States of a connection, as in the kernel's tcp_states.h.
const (
	established = 1
	closeWait   = 8 // the client has closed its side
)

// gone reports whether the client has closed the connection, which nothing but
// the kernel can tell while nobody reads: what was received and is unread may
// stand before the end.
func (c *conn) gone() bool {
	info, ok := c.tcpInfo()
	return ok && info.State != established
}

// acknowledged reports whether all that was written has reached the client's
// machine, and it did not answer with a reset.
func (c *conn) acknowledged() bool {
	info, ok := c.tcpInfo()
	return ok && (info.State == established || info.State == closeWait) && info.Unacked == 0 && info.Notsent_bytes == 0
}

// arrives waits until all that was written has reached the client's machine, and
// reports whether it has. It takes as long as the way there and back.
func (c *conn) arrives() bool {
	for end := time.Now().Add(arrivalTimeout); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		info, ok := c.tcpInfo()
		switch {
		case c.acknowledged():
			return true
		case !ok || info.State != established && info.State != closeWait: // it was reset
			return false
		}
	}
	return false
}

// unread returns how many octets the client has sent that nobody has read yet.
func (c *conn) unread() (octets int) {
	c.control(func(fd int) {
		if n, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err == nil {
			octets = n
		}
	})
	return octets
}

// tcpInfo asks the kernel about the connection; ok is false for what is no TCP,
// or closed on our side.
func (c *conn) tcpInfo() (info unix.TCPInfo, ok bool) {
	c.control(func(fd int) {
		if found, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO); err == nil {
			info, ok = *found, true
		}
	})
	return info, ok
}

// control hands the connection's descriptor to ask, if it has one that is open.
func (c *conn) control(ask func(fd int)) {
	tcp, isTCP := c.raw.(syscall.Conn)
	if !isTCP {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { ask(int(fd)) })
	}
}
