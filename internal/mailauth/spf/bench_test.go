package spf_test

import (
	"net/netip"
	"strings"
	"testing"

	"onward/internal/mailauth/spf"
	"onward/internal/resolver"
)

// BenchmarkVerify is the usual sender: two includes deep, DNS at hand.
func BenchmarkVerify(b *testing.B) {
	z := resolver.NewZone()
	for name, record := range map[string]string{
		"shop.example":      "v=spf1 include:_spf.mail.example ~all",
		"_spf.mail.example": "v=spf1 include:_n1.mail.example include:_n2.mail.example ~all",
		"_n1.mail.example":  "v=spf1 " + strings.Repeat("ip4:198.51.100.0/24 ", 12) + "~all",
		"_n2.mail.example":  "v=spf1 ip6:2001:db8:4000::/36 ip4:192.0.2.0/24 ~all",
		"mx.mail.example":   "v=spf1 a -all",
	} {
		must(b, z.Set(name, resolver.TypeTXT, record))
	}
	must(b, z.Set("mx.mail.example", resolver.TypeA, "192.0.2.1"))
	in := spf.Input{IP: netip.MustParseAddr("192.0.2.1"), Helo: "mx.mail.example", From: from(b, "ann@shop.example")}
	b.ReportAllocs()
	for b.Loop() {
		if helo, got := spf.Verify(b.Context(), z, in); helo.Result != spf.Pass || got.Result != spf.Pass {
			b.Fatal(show(helo), show(got))
		}
	}
}

// BenchmarkHostile is the dearest that one sender could think of. The bound of
// a whole message is 50 ms.
func BenchmarkHostile(b *testing.B) {
	fill := func(head, part, tail string) string {
		return head + strings.Repeat(part, (16<<10-len(head)-len(tail))/len(part)) + tail
	}
	for name, record := range map[string]string{
		"networks": fill("v=spf1 ", "ip6:2001:db8:ffff::/48 ", "include:x.example"),
		"macros":   fill("v=spf1 ", "x=%{s1r-+,/_=} ", "include:x.example"),
		"expand":   "v=spf1 " + strings.Repeat("exists:"+strings.Repeat("%{v9r-+,/_=}", 120)+" ", 9),
		"mx":       "v=spf1 mx//1 mx//1 mx//1 mx//1 mx//1 mx//1 mx//1 mx//1 mx//1 mx//1 -all",
		"recurse":  "v=spf1 include:%{d}.x.example",
	} {
		b.Run(name, func(b *testing.B) {
			r := newEverywhere(b, record)
			in := spf.Input{IP: netip.MustParseAddr("192.0.2.1"), Helo: "h.example", From: from(b, "ann@d.example")}
			b.ReportAllocs()
			for b.Loop() {
				spf.Verify(b.Context(), r, in)
			}
		})
	}
}
