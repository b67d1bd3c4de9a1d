package spf_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"onward/internal/address"
	"onward/internal/mailauth/spf"
	"onward/internal/resolver"
)

// everywhere is a DNS in which one record stands at every name, with addresses,
// exchangers and names to go with it.
type everywhere struct{ zone *resolver.Zone }

func newEverywhere(t testing.TB, record string) everywhere {
	z := resolver.NewZone()
	must(t, z.Set("here", resolver.TypeTXT, record))
	must(t, z.Set("here", resolver.TypeA, "192.0.2.9", "203.0.113.7"))
	must(t, z.Set("here", resolver.TypeAAAA, "2001:db8::9"))
	must(t, z.Set("here", resolver.TypeMX, "1 a.example.", "2 b.example.", "3 c.example.", "4 d.example.", "5 e.example.",
		"6 f.example.", "7 g.example.", "8 h.example.", "9 i.example.", "10 j.example."))
	must(t, z.Set("here", resolver.TypePTR, "a.example.", "b.c.example."))
	return everywhere{z}
}

func (e everywhere) Lookup(ctx context.Context, _ string, t resolver.Type) (*resolver.Answer, error) {
	return e.zone.Lookup(ctx, "here", t)
}

// FuzzRecord gives any record to a check, as the domain's own, as whatever it
// includes, and as the text of its explanation.
func FuzzRecord(f *testing.F) {
	for _, s := range readSuite(f) {
		for _, entries := range s.ZoneData {
			for _, entry := range entries {
				if record, ok := entry.(map[string]any); ok {
					for _, kind := range []string{"SPF", "TXT"} {
						if value, ok := record[kind]; ok {
							f.Add(recordData(kind, value), "ann", "mail.example", []byte{192, 0, 2, 1})
						}
					}
				}
			}
		}
	}
	f.Add("v=spf1 exists:%{L1r-}.%{p}.%{ir}.%{v}.%{h} -ptr:%{d2} exp=%{s}", "a-b.c", "%{h}", make([]byte, 16))
	f.Fuzz(func(t *testing.T, record, local, helo string, ip []byte) {
		if len(record) > 60_000 {
			return // no TXT is that long
		}
		addr, _ := netip.AddrFromSlice(ip)
		in := spf.Input{IP: addr, Helo: helo, From: address.ReversePath{Mailbox: address.Mailbox{Local: local, Domain: "d.example"}}}
		first, got := spf.Verify(t.Context(), newEverywhere(t, record), in)
		checkShape(t, first)
		checkShape(t, got)

		terms, errs := spf.Parse(record)
		if len(got.Steps) > 0 && got.Steps[0].Record != "" && (errs != nil) != (got.Steps[0].Answer != "found") {
			t.Errorf("Parse: %v, Verify: %s", errs, got.Steps[0].Answer)
		}
		for _, term := range terms {
			again, errs := spf.Parse("v=spf1 " + term.Text)
			if len(errs) != 0 || !slices.Equal(again, []spf.Term{term}) || term.Meaning() == "" {
				t.Errorf("%+v is read again as %+v, %v", term, again, errs)
			}
		}
	})
}
