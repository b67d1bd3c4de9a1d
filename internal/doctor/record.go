package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"onward/internal/address"
	"onward/internal/mailauth/dmarc"
	"onward/internal/mailauth/spf"
	"onward/internal/resolver"
	"onward/internal/signing"
)

// A Record is one that has to be in the DNS.
type Record struct {
	Name     string `json:"name"` // without the final dot
	Zone     string `json:"zone"` // the zone it goes into
	Type     string `json:"type"`
	Priority int    `json:"priority,omitempty"` // of MX
	Value    string `json:"value"`              // whole and unquoted, as web forms take it
	TTL      int    `json:"ttl"`

	Present bool     `json:"present"`           // it is there
	Instead []string `json:"instead,omitempty"` // what is there now and has to go
	Note    string   `json:"note,omitempty"`    // what else to know about it
}

// ttl of the records we ask for, in seconds: long enough for caches, short enough
// for somebody who is still trying.
const ttl = 3600

// String returns the record as a line of a zone file (RFC 1035 5.1).
func (r Record) String() string {
	value := r.Value
	switch r.Type {
	case "MX":
		value = strconv.Itoa(r.Priority) + " " + r.Value + "."
	case "PTR":
		value += "."
	case "TXT":
		value = ""
		for _, piece := range (signing.Record{Value: r.Value}).Strings() {
			value += " " + strconv.Quote(piece)
		}
		value = value[1:]
	}
	return fmt.Sprintf("%s. %d IN %s %s", r.Name, r.TTL, r.Type, value)
}

// Label returns the name as web forms want it, which is relative to the zone.
func (r Record) Label() string {
	if r.Name == r.Zone {
		return "@"
	}
	return strings.TrimSuffix(r.Name, "."+r.Zone)
}

func textRecord[S ~string](name S, value string) Record {
	return Record{Name: string(name), Type: "TXT", Value: value, TTL: ttl}
}

// addressRecord is an A or AAAA record.
func addressRecord(name address.Domain, ip netip.Addr) Record {
	return Record{Name: string(name), Type: family(ip).String(), Value: ip.String(), TTL: ttl}
}

func family(ip netip.Addr) resolver.Type {
	if ip.Is4() {
		return resolver.TypeA
	}
	return resolver.TypeAAAA
}

func mxRecord(name, host address.Domain) Record {
	return Record{Name: string(name), Type: "MX", Priority: 10, Value: host.String(), TTL: ttl}
}

// ptrRecord is the reverse DNS of an address.
func ptrRecord(ip netip.Addr, name address.Domain) Record {
	return Record{Name: resolver.ReverseName(ip), Type: "PTR", Value: name.String(), TTL: ttl}
}

// spfRecord allows terms in addition to what an existing record allows. They
// stand first: where they match, nothing behind them is looked up, however many
// lookups that would be.
func spfRecord(name address.Domain, existing []string, terms []string) Record {
	if len(existing) == 0 {
		return textRecord(name, "v=spf1 "+strings.Join(append(terms, "-all"), " "))
	}
	old, mistakes := spf.Parse(existing[0])
	if len(mistakes) > 0 {
		return spfRecord(name, nil, terms)
	}
	for _, t := range old {
		if !slices.Contains(terms, strings.ToLower(t.Text)) {
			terms = append(terms, t.Text)
		}
	}
	return textRecord(name, "v=spf1 "+strings.Join(terms, " "))
}

// spfTerms name the servers that our mail comes from (DESIGN.md 9.14).
func spfTerms(egress []netip.Addr) []string {
	var terms []string
	for _, ip := range egress {
		if ip.Is4() {
			terms = append(terms, "ip4:"+ip.String())
		} else {
			terms = append(terms, "ip6:"+ip.String())
		}
	}
	return terms
}

// dmarcRecord keeps what an existing record says, and makes it strict where it
// has to be: the signature and the return path of what we forward are then in a
// domain below, and must not count as the domain's own.
func dmarcRecord(name address.Domain, existing string, strict bool) Record {
	tags := []string{"v=DMARC1"}
	policy := false
	seen := map[string]bool{"adkim": strict, "aspf": strict}
	if r, ok := dmarc.ParseRecord(existing); ok {
		for _, t := range r.Tags[1:] {
			broken := t.Meaning == "" && (t.Name == "p" || t.Name == "sp" || t.Name == "np")
			if seen[t.Name] || broken || !printable(t.Name+t.Value) {
				continue
			}
			seen[t.Name] = true
			policy = policy || t.Name == "p"
			tags = append(tags, t.Name+"="+t.Value)
		}
	}
	if !policy {
		tags = slices.Insert(tags, 1, "p=none")
	}
	if strict {
		tags = append(tags, "adkim=s", "aspf=s")
	}
	return textRecord("_dmarc."+name, strings.Join(tags, "; "))
}

// strictest returns the one of several records that asks for most, so that
// keeping only that takes no protection away.
func strictest(existing []string) string {
	mildness := func(text string) int {
		r, ok := dmarc.ParseRecord(text)
		if !ok {
			r = &dmarc.Record{}
		}
		return slices.Index([]dmarc.Policy{dmarc.PolicyReject, dmarc.PolicyQuarantine, dmarc.PolicyNone, ""}, r.P)
	}
	return slices.MinFunc(existing, func(a, b string) int { return mildness(a) - mildness(b) })
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}
