package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"onward/internal/address"
	"onward/internal/dialguard"
	"onward/internal/resolver"
)

// A named is what the DNS gives for a name.
type named struct {
	addrs []netip.Addr
	alias string // what the name is a CNAME of
	err   error  // why it may be more
}

// resolve asks for all addresses of a name.
func (s *Subject) resolve(ctx context.Context, name string) named {
	var n named
	for _, t := range []resolver.Type{resolver.TypeA, resolver.TypeAAAA} {
		answer, err := s.lookup(ctx, name, t)
		if err != nil {
			n.err = err
		}
		if answer != nil {
			n.addrs = append(n.addrs, answer.Addrs()...)
			if answer.Name != strings.ToLower(name) {
				n.alias = answer.Name
			}
		}
	}
	return n
}

// look finds out which addresses are ours, and what our name leads to.
func (e *examination) look(ctx context.Context) {
	e.named = e.resolve(ctx, e.hostname().String())
	e.ours, e.sure = e.Subject.addresses(), true
	if len(e.ours) == 0 {
		e.ours, e.sure = e.named.addrs, false
	}
}

// addresses returns those of this server on the internet, as far as they are
// known without the DNS.
func (s *Subject) addresses() []netip.Addr {
	if len(s.Addresses) > 0 {
		return s.Addresses
	}
	return PublicAddresses()
}

// PublicAddresses returns the public addresses that this machine itself talks to
// the internet from. Behind a translator it has none.
func PublicAddresses() []netip.Addr {
	return slices.DeleteFunc(local(), func(ip netip.Addr) bool { return !dialguard.Public(ip) })
}

// local returns the addresses from which this machine would talk to the
// internet, one of each family. Nothing is sent: a UDP socket has an address as
// soon as it is connected. The other ends are a root name server's.
func local() []netip.Addr {
	var all []netip.Addr
	for _, there := range []string{"198.41.0.4:53", "[2001:503:ba3e::2:30]:53"} {
		conn, err := net.Dial("udp", there)
		if err != nil {
			continue
		}
		conn.Close()
		all = append(all, conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap())
	}
	return all
}

// interfaces returns every public address of this machine. Mail may come in by
// another than it goes out.
func interfaces() []netip.Addr {
	var all []netip.Addr
	found, _ := net.InterfaceAddrs()
	for _, a := range found {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && dialguard.Public(prefix.Addr()) {
			all = append(all, prefix.Addr().Unmap())
		}
	}
	return all
}

// egress returns those of our addresses that mail can leave from.
func (s *Subject) egress(ours []netip.Addr) []netip.Addr {
	d := s.Config.Delivery
	if slices.Contains(ours, d.Source) {
		return []netip.Addr{d.Source}
	}
	return slices.DeleteFunc(slices.Clone(ours), func(ip netip.Addr) bool {
		return ip.Is6() && d.IPv6 == "off" || d.Source.IsValid() && ip.Is4() != d.Source.Is4()
	})
}

// hostAddresses holds the addresses that the DNS gives for our name against ours.
func (e *examination) hostAddresses(ctx context.Context) []Check {
	const check = "address"
	name := e.hostname()
	strangers := without(e.named.addrs, append(interfaces(), e.ours...))
	missing := without(e.ours, e.named.addrs)
	wanted, exchange := addressLines(name, nil, e.ours), addressLines(name, strangers, missing)
	switch {
	case len(e.named.addrs) == 0 && e.named.err != nil:
		return unanswered(check, name.String(), resolver.TypeA, e.named.err)
	case len(e.named.addrs) == 0 && !e.sure:
		return []Check{{check, Failure, fmt.Sprintf("%s has no address in the DNS, and this machine has no public address of its own. Say by which one the internet knows it.", name), "onward doctor --ip ADDRESS"}}
	case len(e.named.addrs) == 0:
		return []Check{{check, Failure, fmt.Sprintf("%s has no address in the DNS, so nobody finds this server.", name), wanted}}
	case len(strangers) > 0 && len(missing) == len(e.ours):
		return []Check{{check, Failure, fmt.Sprintf("%s leads to %s, but this server is %s.", name, list(strangers), list(e.ours)), exchange}}
	case len(strangers) > 0:
		return []Check{{check, Failure, fmt.Sprintf("%s also leads to %s, which is not this server; take that record away.", name, list(strangers)), exchange}}
	case e.named.alias != "":
		return []Check{{check, Warning, fmt.Sprintf("%s is an alias (CNAME) of %s, which the host of an MX record may not be (RFC 2181 10.3).", name, quote(e.named.alias)), wanted}}
	case len(missing) > 0:
		return []Check{{check, Warning, fmt.Sprintf("%s does not lead to %s, from which mail goes out too.", name, list(missing)), exchange}}
	case !e.sure:
		return []Check{{check, OK, fmt.Sprintf("%s leads to %s. Whether that is this machine, which itself has %s, cannot be seen from here; what follows takes it to be.", name, list(e.named.addrs), onlyOrNone(local())), ""}}
	}
	return []Check{{check, OK, fmt.Sprintf("%s leads to %s, which is this server.", name, list(e.named.addrs)), ""}}
}

// addressLines says which addresses of a name have to go, in the words of
// nsupdate, which are plain to everybody, and which have to be there.
func addressLines(name address.Domain, wrong, missing []netip.Addr) string {
	var lines []string
	for _, ip := range wrong {
		lines = append(lines, fmt.Sprintf("delete %s. %s %s", name, family(ip), ip))
	}
	for _, ip := range missing {
		lines = append(lines, addressRecord(name, ip).String())
	}
	return strings.Join(lines, "\n")
}

func onlyOrNone(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return "no address"
	}
	return "only " + list(addrs)
}

func without(all, these []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(all), func(ip netip.Addr) bool { return slices.Contains(these, ip) })
}

// reverse checks that one of our addresses has a name that leads back to it
// (G7). Our own name does when the check of the address says so. Destinations
// refuse IPv6 without it for good, so a server that prefers IPv4 is warned and one
// that prefers IPv6 fails (RELIABILITY 79).
func (e *examination) reverse(ctx context.Context, ip netip.Addr) []Check {
	check := "reverse " + ip.String()
	mend := ptrRecord(ip, e.hostname()).String()
	answer, err := e.lookup(ctx, resolver.ReverseName(ip), resolver.TypePTR)
	if err != nil {
		return unanswered(check, resolver.ReverseName(ip), resolver.TypePTR, err)
	}
	trouble := Failure
	if ip.Is6() && e.Config.Delivery.IPv6 != "on" {
		trouble = Warning
	}
	if !slices.Contains(e.egress(e.ours), ip) {
		trouble = Warning
	}
	const who = "whoever rents you the server sets it"
	if answer == nil || len(answer.PTR()) == 0 {
		return []Check{{check, trouble, fmt.Sprintf("%s has no name in the reverse DNS, without which Gmail and others refuse mail; %s.", ip, who), mend}}
	}
	names := answer.PTR()
	if slices.Contains(names, e.hostname().String()) {
		return []Check{{check, OK, fmt.Sprintf("%s is called %s.", ip, e.hostname()), ""}}
	}
	const most = 5 // names that are looked at
	for _, name := range names[:min(len(names), most)] {
		if _, err := address.ParseDomain(name); err != nil {
			continue
		}
		if n := e.resolve(ctx, name); slices.Contains(n.addrs, ip) {
			return []Check{{check, Warning, fmt.Sprintf("%s is called %s, which leads back to it, but looks like a machine that should not send mail; %s.", ip, quote(name), who), mend}}
		}
	}
	return []Check{{check, trouble, fmt.Sprintf("%s is called %s, which does not lead back to it, and Gmail and others refuse mail for that; %s.", ip, quote(names[0]), who), mend}}
}

// Answers reports whether the DNS says anything at all, by asking for what is
// always there.
func (s Subject) Answers(ctx context.Context) bool { return s.ask(ctx) == nil }

func (s *Subject) ask(ctx context.Context) error {
	_, err := s.lookup(ctx, "arpa", typeNS)
	return err
}

// servers says what is to be said about whom we ask. work is false when nobody
// answers.
func (e *examination) servers(ctx context.Context) (_ Check, work bool) {
	const check = "resolver"
	if err := e.ask(ctx); err != nil {
		return Check{check, Failure, fmt.Sprintf("No DNS server answers (%s asked): %s.", orNoServer(e.Servers), quote(outcome(err).Error())),
			"apt install unbound\ndns: {resolvers: [\"127.0.0.1:53\"]}"}, false
	}
	if len(e.Servers) == 0 {
		return Check{check, OK, "All DNS comes from a file.", ""}, true
	}
	for _, server := range e.Servers {
		if publicServers[server.Addr().Unmap()] {
			return Check{check, Warning, fmt.Sprintf("%s is a public DNS server: blocklists do not answer it, and what it says of DNSSEC comes over the network; a resolver of your own is better.", server.Addr()),
				"apt install unbound\ndns: {resolvers: [\"127.0.0.1:53\"]}"}, true
		}
	}
	return Check{check, OK, fmt.Sprintf("%s answers.", orNoServer(e.Servers)), ""}, true
}

// typeNS is there at the top of every DNS (RFC 1035 3.2.2).
const typeNS resolver.Type = 2

func orNoServer(servers []netip.AddrPort) string {
	if len(servers) == 0 {
		return "a file"
	}
	return list(servers)
}

// publicServers are shared by so many that blocklists refuse them.
var publicServers = func() map[netip.Addr]bool {
	all := map[netip.Addr]bool{}
	for _, s := range []string{
		"1.1.1.1", "1.0.0.1", "1.1.1.2", "1.0.0.2", "2606:4700:4700::1111", "2606:4700:4700::1001", // Cloudflare
		"8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844", // Google
		"9.9.9.9", "9.9.9.10", "149.112.112.112", "2620:fe::fe", "2620:fe::9", // Quad9
		"208.67.222.222", "208.67.220.220", "2620:119:35::35", "2620:119:53::53", // OpenDNS
		"94.140.14.14", "94.140.15.15", "76.76.2.0", "76.76.10.0", "185.228.168.9", "77.88.8.8", "64.6.64.6",
	} {
		all[netip.MustParseAddr(s)] = true
	}
	return all
}()
