package smtpclient

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"onward/internal/address"
	"onward/internal/reply"
	"onward/internal/resolver"
)

// route returns the hosts that take mail for domain, in the order to try them
// (RFC 5321 5.1, P15): by preference, equals shuffled, the domain itself when
// it has no MX record, and none that is ours or less preferred than ours. With a
// relay host it is that one. mx is where they stand, nil when in no MX record. An
// error is a *reply.Reply.
func (c *Client) route(ctx context.Context, domain address.Domain) (hosts []string, mx *resolver.Answer, err error) {
	if c.Relay != nil {
		return []string{c.Relay.Host}, nil, nil
	}
	if domain.IsLiteral() {
		return []string{string(domain)}, nil, nil
	}
	mx, err = c.Resolver.Lookup(ctx, string(domain), resolver.TypeMX)
	exchangers := []resolver.MX{{Host: string(domain)}}
	switch {
	case errors.Is(err, resolver.ErrNoData): // the implicit MX
	case errors.Is(err, resolver.ErrNotFound):
		return nil, nil, &reply.Reply{Code: 550, Status: "5.1.2", Text: "the destination's domain does not exist", Err: err}
	case err != nil:
		return nil, nil, &reply.Reply{Code: 451, Status: "4.4.3", Text: "the destination's domain cannot be looked up just now", Err: err}
	default:
		exchangers = mx.MX()
	}
	if len(exchangers) == 1 && exchangers[0].IsNull() {
		return nil, nil, reply.New(556, "5.1.10", "the destination's domain takes no mail") // RFC 7505 3
	}
	if exchangers = c.before(exchangers); len(exchangers) == 0 {
		return nil, nil, errOurs
	}
	for _, x := range exchangers {
		hosts = append(hosts, x.Host)
	}
	return hosts, mx, nil
}

// errOurs refuses mail whose way leads to us, before it goes round (P15,
// RELIABILITY 33). It is permanent: a sender hears of it at once, and nobody
// mends it by waiting.
var errOurs = reply.New(554, "5.4.6", "mail for the destination's domain comes back to us")

// before returns the exchangers in the order to try them, up to our own name:
// sending to ourselves, or to those who would send it to us, makes a loop.
func (c *Client) before(exchangers []resolver.MX) []resolver.MX {
	sorted := slices.Clone(exchangers)
	rand.Shuffle(len(sorted), func(i, j int) { sorted[i], sorted[j] = sorted[j], sorted[i] })
	slices.SortStableFunc(sorted, func(a, b resolver.MX) int { return int(a.Preference) - int(b.Preference) })
	self := slices.IndexFunc(sorted, func(mx resolver.MX) bool { return strings.EqualFold(mx.Host, c.Hostname) })
	if self < 0 {
		return sorted
	}
	ours := sorted[self].Preference
	return slices.DeleteFunc(sorted, func(mx resolver.MX) bool { return mx.Preference >= ours })
}

// candidates yields the addresses of a host in the order to try them, looking
// each kind up only when it is due. When there is none it yields the error, a
// *reply.Reply, that says whether there may be one later (RELIABILITY 42).
func (c *Client) candidates(ctx context.Context, host string) iter.Seq2[netip.AddrPort, error] {
	return func(yield func(netip.AddrPort, error) bool) {
		var lookup lookup
		for _, family := range c.families() {
			for _, ip := range lookup.addresses(ctx, c, host, family) {
				if !yield(netip.AddrPortFrom(ip, c.port()), nil) {
					return
				}
			}
		}
		if lookup.usable == 0 {
			yield(netip.AddrPort{}, lookup.reply())
		}
	}
}

func (c *Client) port() uint16 {
	switch {
	case c.Relay != nil:
		return c.Relay.Port
	case c.Port == 0:
		return 25
	}
	return uint16(c.Port)
}

// families returns the address types in the order to try them.
func (c *Client) families() []resolver.Type {
	if c.IPv6 == "on" {
		return []resolver.Type{resolver.TypeAAAA, resolver.TypeA}
	}
	return []resolver.Type{resolver.TypeA, resolver.TypeAAAA}
}

// speaks reports whether we dial addresses of ip's family.
func (c *Client) speaks(ip netip.Addr) bool {
	if c.Source.IsValid() {
		return ip.Is4() == c.Source.Is4()
	}
	return ip.Is4() || c.IPv6 != "off"
}

// A lookup is what was learned about the addresses of one host.
type lookup struct {
	usable  int   // addresses we may try
	useless int   // addresses of a family we do not speak
	trouble error // why there may be more than we learned of
	absence error // the last "no" of the DNS
}

// addresses returns the addresses of one family that we may try.
func (l *lookup) addresses(ctx context.Context, c *Client, host string, family resolver.Type) []netip.Addr {
	found, err := c.addresses(ctx, host, family)
	switch {
	case errors.Is(err, resolver.ErrNotFound) || errors.Is(err, resolver.ErrNoData):
		l.absence = err
	case err != nil:
		l.trouble = err
	}
	all := len(found)
	found = slices.DeleteFunc(found, func(ip netip.Addr) bool { return !c.speaks(ip) })
	l.usable += len(found)
	l.useless += all - len(found)
	return found
}

// addresses asks for the addresses of a host, which may be an address literal
// (RFC 5321 4.1.3). A name no host can have is not asked for: it comes from
// whoever wrote the MX record.
func (c *Client) addresses(ctx context.Context, host string, family resolver.Type) ([]netip.Addr, error) {
	domain, err := address.ParseDomain(host)
	if err != nil {
		return nil, &resolver.Error{Name: host, Type: family, Kind: resolver.ErrNotFound, Err: err}
	}
	if domain.IsLiteral() {
		ip, err := netip.ParseAddr(strings.TrimPrefix(strings.Trim(host, "[]"), "IPv6:"))
		if err != nil || ip.Is4() != (family == resolver.TypeA) {
			return nil, &resolver.Error{Name: host, Type: family, Kind: resolver.ErrNoData}
		}
		return []netip.Addr{ip}, nil
	}
	answer, err := c.Resolver.Lookup(ctx, host, family)
	if err != nil {
		return nil, err
	}
	return answer.Addrs(), nil
}

// reply says why there is no address to try. It is permanent only when the DNS
// has said so for both families.
func (l *lookup) reply() *reply.Reply {
	switch {
	case l.trouble != nil:
		return &reply.Reply{Code: 451, Status: "4.4.3", Text: "the destination's address cannot be looked up just now", Err: l.trouble}
	case l.useless > 0:
		return reply.New(451, "4.4.1", "the destination has no address of a kind that we can reach")
	default:
		return &reply.Reply{Code: 550, Status: "5.1.2", Text: "the destination's mail host has no address", Err: l.absence}
	}
}
