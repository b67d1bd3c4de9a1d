package resolver

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// FuzzAnswer reads what a server may send in answer to a question for the MX
// of example.org. It ends in records, a "no", or an error, and what comes out
// cannot harm a log line.
func FuzzAnswer(f *testing.F) {
	z, err := ParseZone("seed", strings.NewReader(`
example.org. 300 IN MX 10 mx.example.org.
example.org. 300 IN MX 0 .
no.org. 300 IN A 192.0.2.1
to.org. 300 IN CNAME example.org.
text.org. 300 IN TXT "a\"b" "\255"
_25._tcp.example.org. 300 IN TLSA 3 1 1 00ff
`))
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"example.org.", "no.org.", "to.org.", "missing.", "text.org.", "_25._tcp.example.org."} {
		for _, t := range []Type{TypeMX, TypeTXT, TypeTLSA} {
			msg := z.Reply(name, t)
			msg.SetQuestion(name, uint16(t))
			msg.Response = true
			raw, err := msg.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw)
		}
	}
	q, err := newQuery("example.org.", TypeMX)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		copy(raw, q[:2]) // the ID is right
		q.answeredBy(raw)
		msg, err := parse(raw)
		if err != nil {
			if strings.Contains(err.Error(), "panic") {
				t.Error(err)
			}
			return
		}
		for _, qtype := range []Type{TypeMX, TypeTXT, TypeA, TypePTR, TypeTLSA} {
			a, err := read(msg, "example.org.", qtype)
			if err != nil {
				continue
			}
			if len(a.records) == 0 || a.TTL < 0 {
				t.Errorf("an answer of %d records for %v", len(a.records), a.TTL)
			}
			if n := len(a.MX()) + len(a.TXT()) + len(a.Addrs()) + len(a.PTR()) + len(a.TLSA()); n != len(a.records) {
				t.Errorf("%d values of %d records", n, len(a.records))
			}
			for _, mx := range a.MX() {
				if strings.ContainsFunc(mx.Host, func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Errorf("host %q", mx.Host)
				}
				if _, err := canonical(mx.Host); err != nil && !mx.IsNull() {
					t.Errorf("host %q cannot be looked up: %v", mx.Host, err)
				}
			}
		}
		negativeTTL(msg)
	})
}

// FuzzParseZone reads zone files. Whatever is accepted can be asked for and
// sent by a server.
func FuzzParseZone(f *testing.F) {
	f.Add("example.org. 300 IN MX 10 mx.example.org.\n*.example.org. IN TXT \"a\" \"b\"\n")
	f.Add("a. IN CNAME b.\nb. IN CNAME a.\n$ORIGIN x.\ny A 192.0.2.1\n")
	f.Add(`{"a": "x", "b": ["y"], "c": {"rcode": "SERVFAIL"}, "d/MX": "10 e."}`)
	f.Add("a. CNAME \\# 1 00\n")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(strings.ToUpper(text), "$GENERATE") {
			return // thousands of records a line: slow, not wrong
		}
		z, err := ParseZone("fuzz", strings.NewReader(text))
		if err != nil {
			return
		}
		for owner, n := range z.nodes {
			for qtype := range n {
				a, err := z.Lookup(t.Context(), owner, qtype)
				if err == nil && len(a.records) == 0 {
					t.Errorf("%s %v: an answer of no records", owner, qtype)
				}
				if msg := z.Reply(owner, qtype); msg != nil {
					msg.Pack()
				}
			}
		}
	})
}

// FuzzEscape: every text survives the form that the library keeps it in.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", `\`, `"`, "\x00\xff", `\065`, "plain"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := unescape(escape(s)); got != s {
			t.Errorf("%q became %q", s, got)
		}
		rr := &dns.TXT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: characterStrings(s)}
		wire := make([]byte, dns.Len(rr)+512)
		end, err := dns.PackRR(rr, wire, 0, nil, false)
		if err != nil {
			if len(s) < 60000 {
				t.Fatal(err)
			}
			return
		}
		back, _, err := dns.UnpackRR(wire[:end], 0)
		if err != nil {
			t.Fatal(err)
		}
		got := (&Answer{records: []dns.RR{back}}).TXT()[0]
		if got != s {
			t.Errorf("%q arrived as %q", s, got)
		}
	})
}
