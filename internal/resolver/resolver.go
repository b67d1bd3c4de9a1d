// Package resolver asks the DNS, and says plainly what it learned: records, no
// such name, no such record, or trouble.
//
// There are two resolvers. Client asks real servers and keeps what they say for
// as long as they allow. Zone answers from a file, for tests, the demo and
// "onward explain --zone". A caller takes the Resolver interface and reads
// records with the methods of Answer; nobody but this package and the DNS
// server of testmail sees the DNS library below.
//
// Rules for a caller:
//   - Names are absolute, with or without the final dot. No search list and no
//     hosts file is read (RELIABILITY 43).
//   - Only ErrNotFound and ErrNoData are knowledge. Everything else, from
//     SERVFAIL to a cancelled context, is ErrTemporary: no mail is refused for
//     good and no verdict is spoken because of it (RELIABILITY 42, 44).
//   - Names in answers are foreign text. They are lower case, without the final
//     dot, unprintable octets as \DDD (RFC 1035 5.1); TXT is raw octets.
package resolver

import (
	"context"
	"encoding/hex"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// A Resolver answers one question of class IN. It is safe for concurrent use.
type Resolver interface {
	// Lookup returns the records of that name and type, at least one, found
	// directly or at the end of a chain of CNAMEs. Any error is an *Error. It
	// returns no later than ctx ends. The Answer is shared: it cannot be changed.
	Lookup(ctx context.Context, name string, t Type) (*Answer, error)
}

// A Type is the type of a DNS record (RFC 1035 3.2.2).
type Type uint16

// The types that mail needs.
const (
	TypeA     = Type(dns.TypeA)
	TypeAAAA  = Type(dns.TypeAAAA)
	TypeCNAME = Type(dns.TypeCNAME)
	TypeMX    = Type(dns.TypeMX)
	TypePTR   = Type(dns.TypePTR)
	TypeTLSA  = Type(dns.TypeTLSA)
	TypeTXT   = Type(dns.TypeTXT)
)

// String returns the mnemonic, such as "MX", or "TYPE65280" (RFC 3597).
func (t Type) String() string { return dns.Type(t).String() }

// An Answer is what was found.
type Answer struct {
	// Name owns the records. It differs from the name asked for when that is a
	// CNAME, which RFC 5321 5.1 forbids for the host of an MX (P15).
	Name string

	// TTL is the least of all records that led here, as it was when they came.
	TTL time.Duration

	// AuthenticatedData says that the server validated all records that led here
	// with DNSSEC (RFC 4035 3.2.3) and that we could believe it: it is on this
	// machine, or Client.TrustAD is set. An answer that failed validation is
	// none: it comes as ErrTemporary (RELIABILITY 59).
	AuthenticatedData bool

	records []dns.RR // of the type asked for, owned by Name
}

// An MX is one mail exchanger (RFC 5321 5.1), lowest Preference first to be
// tried. Answers are in the order the server chose; sorting is the caller's.
type MX struct {
	Preference uint16
	Host       string
}

// IsNull reports whether m says that the domain takes no mail (RFC 7505).
func (m MX) IsNull() bool { return m.Host == "" }

// MX returns the mail exchangers in a.
func (a *Answer) MX() []MX {
	return collect(a, func(r *dns.MX) MX { return MX{r.Preference, tidy(r.Mx)} })
}

// Addrs returns the addresses in a, from A or AAAA records.
func (a *Answer) Addrs() []netip.Addr {
	v4 := collect(a, func(r *dns.A) netip.Addr { return ip(r.A) })
	return append(v4, collect(a, func(r *dns.AAAA) netip.Addr { return ip(r.AAAA) })...)
}

// ip returns ::ffff:127.0.0.1 as the 127.0.0.1 that dialling it would reach, so
// that no caller's check of ranges is passed by spelling (RELIABILITY 67).
func ip(b []byte) netip.Addr {
	addr, _ := netip.AddrFromSlice(b)
	return addr.Unmap()
}

// TXT returns one string a record, the strings of a record joined without
// anything between them (RFC 7208 3.3, RFC 6376 3.6.2.2).
func (a *Answer) TXT() []string {
	return collect(a, func(r *dns.TXT) string { return unescape(strings.Join(r.Txt, "")) })
}

// PTR returns the names an address claims to have. They are only a claim.
func (a *Answer) PTR() []string {
	return collect(a, func(r *dns.PTR) string { return tidy(r.Ptr) })
}

// A TLSA says what a TLS server will show (RFC 6698 2.1). The numbers may be
// any, and Data any octets: what of it is usable is the caller's business.
type TLSA struct {
	Usage, Selector, Matching uint8
	Data                      []byte
}

// TLSA returns the TLSA records in a.
func (a *Answer) TLSA() []TLSA {
	return collect(a, func(r *dns.TLSA) TLSA {
		data, _ := hex.DecodeString(r.Certificate) // which the library has encoded
		return TLSA{r.Usage, r.Selector, r.MatchingType, data}
	})
}

// collect turns the records of one Go type into what the caller wants of them.
func collect[R dns.RR, V any](a *Answer, value func(R) V) []V {
	values := make([]V, 0, len(a.records))
	for _, rr := range a.records {
		if r, ok := rr.(R); ok {
			values = append(values, value(r))
		}
	}
	return values
}

// ReverseName returns the name whose PTR record names the host at addr
// (RFC 1035 3.5, RFC 3596 2.5).
func ReverseName(addr netip.Addr) string {
	name, _ := dns.ReverseAddr(addr.WithZone("").String())
	return tidy(name)
}

// tidy returns the one spelling of a name used here: lower case (ASCII only,
// RFC 4343), no final dot. The root is the empty string.
func tidy(name string) string {
	if dns.IsFqdn(name) {
		name = name[:len(name)-1]
	}
	for i := range len(name) {
		if c := name[i]; 'A' <= c && c <= 'Z' {
			return lower(name)
		}
	}
	return name
}

func lower(name string) string {
	b := []byte(name)
	for i, c := range b {
		b[i] = lowerByte(c)
	}
	return string(b)
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
