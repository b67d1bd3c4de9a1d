package dnsbl

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"onward/internal/address"
)

// A List is one DNS list, and which of its answers count.
type List struct {
	// Name is what people call it: its zone, without the key that some zones
	// begin with, which is a secret of ours.
	Name string

	zone  string
	codes []codes
}

// codes are return codes: for each octet of the address the least and greatest.
type codes [4]struct{ least, most uint8 }

// maxZone leaves room for an IPv6 address in front, within the 253 octets of a
// domain name.
const maxZone = 253 - 64

// usual are the codes that count unless the configuration says. Lists of
// senders to trust say how much, and the least of dnswl.org means just what we
// ask: do not refuse it for the company it keeps (dnswl.org, "trust levels").
var usual = map[string]string{
	"zen.spamhaus.org":    "127.0.0.2-11",
	"zen.dq.spamhaus.net": "127.0.0.2-11",
	"list.dnswl.org":      "127.0.2-255.0-3",
	"":                    "127.0.0.2-254", // all others (RFC 5782 2.1)
}

// ParseList reads "zone" or "zone=code,code": which addresses in the answer
// count as being on the list. An octet may be a range: "127.0.0.2-11".
func ParseList(s string) (List, error) {
	zone, wanted, chosen := strings.Cut(s, "=")
	domain, err := address.ParseDomain(zone)
	switch {
	case err != nil:
		return List{}, err
	case domain.IsLiteral() || !strings.Contains(zone, ".") || len(domain) > maxZone:
		return List{}, fmt.Errorf("%.80q is not the domain of a list, such as zen.spamhaus.org", zone)
	}
	l := List{Name: withoutKey(domain.String()), zone: domain.String()}
	if !chosen {
		wanted = usual[""]
		if own, ok := usual[l.Name]; ok {
			wanted = own
		}
	}
	for _, text := range strings.Split(wanted, ",") {
		c, err := parseCodes(text)
		if err != nil {
			return List{}, err
		}
		l.codes = append(l.codes, c)
	}
	return l, nil
}

// withoutKey takes off a first label that only we and the list should know.
func withoutKey(zone string) string {
	const shortestKey = 20 // Spamhaus: 26; Abusix: 32. Names are shorter.
	if first, rest, _ := strings.Cut(zone, "."); len(first) >= shortestKey {
		return rest
	}
	return zone
}

func parseCodes(text string) (codes, error) {
	octets := strings.Split(text, ".")
	bad := fmt.Errorf("%.40q is not a return code of a list, such as 127.0.0.2 or 127.0.0.2-11", text)
	if len(octets) != 4 || octets[0] != "127" {
		return codes{}, bad
	}
	var c codes
	for i, octet := range octets {
		low, high, isRange := strings.Cut(octet, "-")
		if !isRange {
			high = low
		}
		least, err := strconv.ParseUint(low, 10, 8)
		most, err2 := strconv.ParseUint(high, 10, 8)
		if err != nil || err2 != nil || least > most {
			return codes{}, bad
		}
		c[i].least, c[i].most = uint8(least), uint8(most)
	}
	return c, nil
}

// counts reports whether a code is one of those that count.
func (l List) counts(code netip.Addr) bool {
	for _, c := range l.codes {
		if c.contain(code.As4()) {
			return true
		}
	}
	return false
}

func (c codes) contain(code [4]byte) bool {
	for i, octet := range code {
		if octet < c[i].least || octet > c[i].most {
			return false
		}
	}
	return true
}

// query returns the name that stands for an address in the list: its octets or
// nibbles backwards (RFC 5782 2.1, 2.4).
func (l List) query(ip netip.Addr) string {
	var b strings.Builder
	octets := ip.AsSlice()
	slices.Reverse(octets)
	for _, o := range octets {
		if ip.Is4() {
			fmt.Fprintf(&b, "%d.", o)
		} else {
			fmt.Fprintf(&b, "%x.%x.", o&15, o>>4)
		}
	}
	return b.String() + l.zone
}
