package arc_test

import (
	"fmt"
	"strings"
	"testing"

	"onward/internal/mailauth/arc"
	"onward/internal/message"
	"onward/internal/resolver"
)

// BenchmarkVerify shows what a chain costs with keys at hand: as it is in real
// mail, and the most that a stranger can make of it (RELIABILITY 56). The
// limit is 50 ms of CPU a message.
func BenchmarkVerify(b *testing.B) {
	hops, dns := newHops(b)
	for i := range 51 {
		for _, s := range "sm" {
			dns[fmt.Sprintf("%c%d._domainkey.hop%d.example", s, i, i)] = dns[hops[3].selector+"._domainkey."+hops[3].domain]
		}
	}
	zone := zoneOf(b, dns)
	large := 250 << 10
	for _, bm := range []struct {
		name, text string
		want       string
	}{
		{"none", plain, arc.None},
		{"sets=1", sealed(b, hops, zone, 1), arc.Pass},
		{"sets=3", sealed(b, hops, zone, 3), arc.Pass},
		{"fake50", fake(50, 0), arc.Fail},
		{"fake50-header-256K", fake(50, large), arc.Fail},
		{"fake150", fake(150, 0), arc.Fail},
		{"real50", sealed(b, hops[3:4], zone, 50), arc.Pass},
		{"real50-header-256K", worst(b, hops[3], zone, large), arc.Pass},
	} {
		b.Run(bm.name, func(b *testing.B) {
			m := parse(b, bm.text)
			b.ReportAllocs()
			for b.Loop() {
				if got, _ := verify(b.Context(), b, m, zone); got.Result != bm.want {
					b.Fatalf("%s (%s)", got.Result, got.Reason)
				}
			}
		})
	}
}

// worst returns a valid chain of 50 sets whose message signatures all cover
// fields that fill up the header and are slow to canonicalise.
func worst(b *testing.B, h hop, zone resolver.Resolver, size int) string {
	text := strings.Repeat("X: "+strings.Repeat("a  ", 300)+"\r\n", (size-80<<10)/905) + plain
	n := strings.Count(text, "X: ")
	for range arc.MaxSets {
		m := parse(b, text)
		chain, body := verify(b.Context(), b, m, zone)
		s := arc.Sealer{Key: h.key, Domain: h.domain, Selector: h.selector, Headers: []string{"from"}}
		for range n {
			s.Headers = append(s.Headers, "x")
		}
		set, err := s.Seal(m.Fields(), body, chain, verdict, now)
		if err != nil || set == nil {
			b.Fatal(err, chain.Reason)
		}
		text = string(set) + text
	}
	if len(text) > message.MaxHeaderSize {
		b.Fatalf("%d octets of header", len(text))
	}
	return text
}
