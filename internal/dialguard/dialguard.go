// Package dialguard connects to addresses that strangers chose: mail hosts,
// policy hosts, wherever a report is wanted. It keeps them from leading us into
// our own network (RELIABILITY 67).
//
// The address is looked at when the socket is about to connect, after every
// lookup, so a name that changes its mind between two lookups gains nothing.
package dialguard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// The refusals of a Guard, for errors.Is. Both are about a DNS that may be
// mended tomorrow.
var (
	ErrPrivate = errors.New("not a public address; delivery.allow_private would permit it")
	ErrOwn     = errors.New("an address of this machine")
)

// A Guard says where we may connect to. The zero value permits the public
// Internet, and not this machine's own addresses there.
type Guard struct {
	AllowPrivate bool // permit everything, for tests and inner networks
}

// Dial connects over TCP with the settings of d.
func (g Guard) Dial(ctx context.Context, d net.Dialer, to netip.AddrPort) (net.Conn, error) {
	if g.AllowPrivate {
		return d.DialContext(ctx, "tcp", to.String())
	}
	d.ControlContext = control
	conn, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	if own(conn) {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", to, ErrOwn)
	}
	return conn, nil
}

func control(_ context.Context, _, addr string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	if !Public(to.Addr()) {
		return fmt.Errorf("%s: %w", to.Addr(), ErrPrivate)
	}
	return nil
}

// own reports whether the two ends of a connection are one machine: Linux gives
// a connection to any address of its own that same address at our end.
func own(conn net.Conn) bool {
	local, okL := conn.LocalAddr().(*net.TCPAddr)
	remote, okR := conn.RemoteAddr().(*net.TCPAddr)
	return okL && okR && local.IP.Equal(remote.IP)
}

// special is what a server on the Internet cannot have: the blocks that the
// IANA registries of special-purpose addresses (RFC 6890) call not globally
// reachable, multicast, and those that embed an IPv4 address. The latter are
// refused whole, because no server has its address there and what they lead
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

// Public reports whether ip is an address a server on the Internet can have.
func Public(ip netip.Addr) bool {
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
