package resolver

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// maxChain is the most CNAMEs followed from the name asked for. Recursive
// servers give up at about as many.
const maxChain = 16

// read takes from one DNS message what it says about the question (name, t):
// records, ErrNotFound or ErrNoData. Any other error means that it says
// nothing. name is in canonical form.
func read(msg *dns.Msg, name string, t Type) (*Answer, error) {
	if msg.Rcode != dns.RcodeSuccess && msg.Rcode != dns.RcodeNameError {
		return nil, rcodeError(msg.Rcode)
	}
	a, err := follow(msg.Answer, name, t)
	switch {
	case err != nil:
		return nil, err
	case msg.Rcode == dns.RcodeSuccess && len(a.records) > 0:
		return a, nil
	// A server that neither owns the zone nor asks others may still point
	// elsewhere. Its silence about a name is not knowledge.
	case !msg.Authoritative && !msg.RecursionAvailable:
		return nil, errors.New("does not resolve names for us")
	case msg.Rcode == dns.RcodeNameError: // of the last CNAME's target (RFC 6604 3)
		return nil, ErrNotFound
	default:
		return nil, ErrNoData
	}
}

// follow collects the records of type t at the end of the chain of CNAMEs that
// begins at name. Records that the chain does not lead to are ignored: nobody
// asked for them, and they may be planted.
func follow(section []dns.RR, name string, t Type) (*Answer, error) {
	a := &Answer{Name: tidy(name)}
	ttl := ^uint32(0)
	for range maxChain + 1 {
		var alias *dns.CNAME
		for _, rr := range section {
			h := rr.Header()
			if h.Class != dns.ClassINET || tidy(h.Name) != a.Name {
				continue
			}
			if Type(h.Rrtype) == t {
				a.records = append(a.records, rr)
				ttl = min(ttl, saneTTL(h.Ttl))
			} else if c, ok := rr.(*dns.CNAME); ok {
				alias = c
			}
		}
		if len(a.records) > 0 || alias == nil {
			a.TTL = time.Duration(ttl) * time.Second
			return a, nil
		}
		a.Name = tidy(alias.Target)
		ttl = min(ttl, saneTTL(alias.Hdr.Ttl))
	}
	return nil, fmt.Errorf("more than %d CNAMEs, or a loop of them", maxChain)
}

// saneTTL reads a TTL with the top bit set as zero (RFC 2181 8).
func saneTTL(ttl uint32) uint32 {
	if ttl > 1<<31-1 {
		return 0
	}
	return ttl
}

// negativeTTL is how long msg allows its "no" to be remembered: the lesser of
// the SOA's TTL and MINIMUM, and nothing at all without a SOA (RFC 2308 5).
func negativeTTL(msg *dns.Msg) time.Duration {
	for _, rr := range msg.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return time.Duration(min(saneTTL(soa.Hdr.Ttl), saneTTL(soa.Minttl))) * time.Second
		}
	}
	return 0
}

func rcodeError(rcode int) error {
	if name, ok := dns.RcodeToString[rcode]; ok {
		return errors.New("answered " + name)
	}
	return fmt.Errorf("answered RCODE %d", rcode)
}

// canonical returns name absolute, and every octet written the way a name from
// the wire would be, so that the two can be compared. It fails for what cannot
// be a name in the DNS: empty, an empty label, over 63 or 255 octets.
func canonical(name string) (string, error) {
	var wire [256]byte
	if name == "" {
		return "", errors.New("empty name")
	}
	if _, err := dns.PackDomainName(dns.Fqdn(name), wire[:], 0, nil, false); err != nil {
		return "", errors.New("not a domain name")
	}
	fqdn, _, err := dns.UnpackDomainName(wire[:], 0)
	if err != nil {
		return "", errors.New("not a domain name")
	}
	return lower(fqdn), nil
}

// unescape returns the octets of a character-string that the DNS library has
// written with \DDD and \X (RFC 1035 5.1).
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '\\' || i+1 == len(s):
			b = append(b, s[i])
		case i+3 < len(s) && isDigits(s[i+1:i+4]):
			b = append(b, (s[i+1]-'0')*100+(s[i+2]-'0')*10+s[i+3]-'0')
			i += 3
		default:
			i++
			b = append(b, s[i])
		}
	}
	return string(b)
}

// escape is the reverse of unescape.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			fmt.Fprintf(&b, `\%03d`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func isDigits(s string) bool { return strings.Trim(s, "0123456789") == "" }
