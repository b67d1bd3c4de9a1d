package iprev_test

import (
	"net/netip"
	"strings"
	"testing"

	"onward/internal/mailauth/iprev"
	"onward/internal/resolver"
)

const zone = `
1.2.0.192.in-addr.arpa.  IN PTR mail.example.org.
2.2.0.192.in-addr.arpa.  IN PTR bank.example.
3.2.0.192.in-addr.arpa.  IN PTR bank.example.
3.2.0.192.in-addr.arpa.  IN PTR mail3.example.org.
4.2.0.192.in-addr.arpa.  IN PTR missing.example.org.
5.2.0.192.in-addr.arpa.  IN PTR broken.example.org.
6.2.0.192.in-addr.arpa.  IN PTR broken.example.org.
6.2.0.192.in-addr.arpa.  IN PTR mail6.example.org.
7.2.0.192.in-addr.arpa.  IN PTR two\032words.example.org.
8.2.0.192.in-addr.arpa.  IN PTR a.many.example.org.
8.2.0.192.in-addr.arpa.  IN PTR b.many.example.org.
8.2.0.192.in-addr.arpa.  IN PTR c.many.example.org.
8.2.0.192.in-addr.arpa.  IN PTR d.many.example.org.
8.2.0.192.in-addr.arpa.  IN PTR e.many.example.org.
8.2.0.192.in-addr.arpa.  IN PTR mail8.example.org.
9.2.0.192.in-addr.arpa.  IN TXT "no PTR"
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. IN PTR mail.example.org.
mail.example.org.        IN A 192.0.2.99
mail.example.org.        IN A 192.0.2.1
mail.example.org.        IN AAAA 2001:db8::1
mail3.example.org.       IN A 192.0.2.3
mail6.example.org.       IN A 192.0.2.6
two\032words.example.org. IN A 192.0.2.7
mail8.example.org.       IN A 192.0.2.8
bank.example.            IN A 192.0.2.100
`

func TestVerify(t *testing.T) {
	z, err := resolver.ParseZone("test", strings.NewReader(zone))
	if err != nil {
		t.Fatal(err)
	}
	for name, qtype := range map[string]resolver.Type{"broken.example.org": resolver.TypeA, "10.2.0.192.in-addr.arpa": resolver.TypePTR} {
		if err := z.Fail(name, qtype, "SERVFAIL"); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, ip string
		result   iprev.Result
		host     string
	}{
		{"confirmed", "192.0.2.1", "pass", "mail.example.org"},
		{"IPv6", "2001:db8::1", "pass", "mail.example.org"},
		{"IPv4 in IPv6", "::ffff:192.0.2.1", "pass", "mail.example.org"},
		{"a name of somebody else", "192.0.2.2", "fail", ""},
		{"the second name", "192.0.2.3", "pass", "mail3.example.org"},
		{"the name does not exist", "192.0.2.4", "fail", ""},
		{"the name cannot be looked up", "192.0.2.5", "temperror", ""},
		{"one cannot, the other leads back", "192.0.2.6", "pass", "mail6.example.org"},
		{"no host name", "192.0.2.7", "fail", ""},
		{"the sixth name", "192.0.2.8", "fail", ""},
		{"no PTR record", "192.0.2.9", "permerror", ""},
		{"PTR cannot be looked up", "192.0.2.10", "temperror", ""},
		{"no name at all", "192.0.2.11", "permerror", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := iprev.Verify(t.Context(), z, netip.MustParseAddr(tt.ip))
			if v.Result != tt.result || string(v.Name) != tt.host || (v.Reason != "") != (tt.result == iprev.TempError) {
				t.Errorf("got %s %q (%s), want %s %q", v.Result, v.Name, v.Reason, tt.result, tt.host)
			}
		})
	}
}
