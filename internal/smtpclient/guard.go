package smtpclient

import (
	"context"
	"net"
	"net/netip"
	"slices"

	"onward/internal/dialguard"
	"onward/internal/resolver"
)

// ourselves reports whether we would be talking to ourselves at an address: one
// of our listeners, an address of this machine, or, where that is behind a
// translator, the one the DNS gives for our name (RELIABILITY 33). An inner
// network where private addresses are dialled may have other mail servers on
// this machine, so there only listeners count.
func (c *Client) ourselves(ctx context.Context, to netip.AddrPort) bool {
	if c.Relay != nil {
		return false
	}
	ip := to.Addr().Unmap()
	for _, l := range c.Listening {
		if l.Port() == to.Port() && (l.Addr().Unmap() == ip || l.Addr().IsUnspecified() && thisMachine(ip)) {
			return true
		}
	}
	if c.AllowPrivate || !dialguard.Public(ip) {
		return false // the guard's business
	}
	if thisMachine(ip) {
		return true
	}
	named, _ := c.addresses(ctx, c.Hostname, family(ip))
	return slices.Contains(named, ip)
}

// thisMachine reports whether ip is an address of one of our interfaces.
func thisMachine(ip netip.Addr) bool {
	if ip.IsLoopback() {
		return true
	}
	all, _ := net.InterfaceAddrs()
	return slices.ContainsFunc(all, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(ip.AsSlice())
	})
}

func family(ip netip.Addr) resolver.Type {
	if ip.Is4() {
		return resolver.TypeA
	}
	return resolver.TypeAAAA
}
