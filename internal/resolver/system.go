package resolver

import (
	"fmt"
	"net/netip"

	"github.com/miekg/dns"
)

// SystemServers returns the servers that a file of the form of
// /etc/resolv.conf names, three at most, as the C library does.
func SystemServers(path string) ([]netip.AddrPort, error) {
	conf, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w; name the DNS servers in dns.resolvers", err)
	}
	var servers []netip.AddrPort
	for _, s := range conf.Servers {
		if addr, err := netip.ParseAddr(s); err == nil && len(servers) < 3 {
			servers = append(servers, netip.AddrPortFrom(addr, 53))
		}
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("%s names no DNS server; name one in dns.resolvers", path)
	}
	return servers, nil
}
