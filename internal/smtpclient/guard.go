package smtpclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"onward/internal/resolver"
)

// errForbidden is the guard's refusal to dial.
var errForbidden = errors.New("not a public address; delivery.allow_private would permit it")

// control is the dial guard: it looks at the address the socket is about to
// connect to, after every lookup, so that no name in anybody's DNS leads us
// into our own network (RELIABILITY 67).
func (c *Client) control(_ context.Context, _, addr string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	if !c.AllowPrivate && c.Relay == nil && !public(to.Addr()) {
		return fmt.Errorf("%s: %w", to.Addr(), errForbidden)
	}
	return nil
}

// special is what a mail host on the Internet cannot have: the blocks that the
// IANA registries of special-purpose addresses (RFC 6890) call not globally
// reachable, multicast, and those that embed an IPv4 address. The latter are
// refused whole, because no mail host has its address there and what they lead
// to depends on a translator we know nothing of.
var special = prefixes(
	"0.0.0.0/8",       // this network
	"10.0.0.0/8",      // private
	"100.64.0.0/10",   // shared, behind carriers' NAT
	"127.0.0.0/8",     // loopback
	"169.254.0.0/16",  // link-local, clouds' metadata
	"172.16.0.0/12",   // private
	"192.0.0.0/24",    // protocol assignments
	"192.0.2.0/24",    // documentation
	"192.88.99.0/24",  // 6to4 relays
	"192.168.0.0/16",  // private
	"198.18.0.0/15",   // benchmarks
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"224.0.0.0/4",     // multicast
	"240.0.0.0/4",     // reserved, broadcast

	"::/8",           // unspecified, loopback, IPv4-mapped and -compatible
	"64:ff9b::/96",   // NAT64
	"64:ff9b:1::/48", // NAT64, local
	"100::/64",       // discard
	"2001::/23",      // protocol assignments, Teredo
	"2001:db8::/32",  // documentation
	"2002::/16",      // 6to4
	"3fff::/20",      // documentation
	"5f00::/16",      // segment routing
	"fc00::/7",       // unique local
	"fe80::/10",      // link-local
	"fec0::/10",      // site-local
	"ff00::/8",       // multicast
)

func prefixes(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(texts))
	for i, s := range texts {
		all[i] = netip.MustParsePrefix(s)
	}
	return all
}

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
	if c.AllowPrivate || !public(ip) {
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

// public reports whether ip is an address a mail host on the Internet can have.
func public(ip netip.Addr) bool {
	if !ip.IsValid() || ip.Zone() != "" {
		return false
	}
	ip = ip.Unmap() // ::ffff:127.0.0.1 reaches 127.0.0.1
	for _, p := range special {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}
