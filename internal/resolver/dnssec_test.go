package resolver_test

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"onward/internal/resolver"
	"onward/internal/testmail"
	"onward/internal/testpeer"
)

func TestTLSA(t *testing.T) {
	z := parse(t, `
_25._tcp.mx.example. 60 IN TLSA 3 1 1 00FFab
_25._tcp.mx.example. 60 IN TLSA 255 254 253 01
to.example.          60 IN CNAME _25._tcp.mx.example.
`)
	want := []resolver.TLSA{{3, 1, 1, []byte{0, 255, 0xab}}, {255, 254, 253, []byte{1}}}
	both(t, z, func(t *testing.T, r resolver.Resolver) {
		for _, name := range []string{"_25._tcp.mx.example", "to.example"} {
			a, err := r.Lookup(t.Context(), name, resolver.TypeTLSA)
			if err != nil {
				t.Fatal(err)
			}
			if got := a.TLSA(); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %v, want %v", name, got, want)
			}
		}
		expect(t, r, "mx.example", resolver.TypeTLSA, resolver.ErrNoData)
	})
}

// Whose word on DNSSEC counts? Docker's own server is a loopback address, and
// passes on what comes over a network.
func TestAuthenticatedData(t *testing.T) {
	for _, tt := range []struct {
		name           string
		server         string
		validated      bool
		trust, believe bool
	}{
		{"this machine", "127.0.0.1:0", true, false, true},
		{"this machine, not validated", "127.0.0.1:0", false, true, false},
		{"another", "127.0.0.11:0", true, false, false},
		{"another, trusted", "127.0.0.11:0", true, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := testmail.StartDNS(parse(t, world), tt.server)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			d.SetFaults(testmail.Faults{Validated: tt.validated})
			c := client(t, time.Second, d)
			c.TrustAD = tt.trust
			a, err := c.Lookup(t.Context(), "example.org", resolver.TypeMX)
			if err != nil || a.AuthenticatedData != tt.believe {
				t.Errorf("got %+v, %v; want authenticated data: %v", a, err, tt.believe)
			}
		})
	}
}

// A real validator in front: signed, unsigned and forged.
func TestValidator(t *testing.T) {
	testpeer.Need(t, "unbound", "ldns-keygen", "ldns-signzone")
	server := testpeer.StartValidator(t,
		testpeer.Zone{Name: "signed.example.", Signed: true, Records: []string{
			"signed.example. 60 IN MX 10 mx.signed.example.",
			"mx.signed.example. 60 IN A 127.0.0.2",
			"_25._tcp.mx.signed.example. 60 IN TLSA 3 1 1 " + strings.Repeat("ab", 32),
			"in.signed.example. 60 IN CNAME mx.signed.example.",
			"out.signed.example. 60 IN CNAME mx.plain.example.",
		}},
		testpeer.Zone{Name: "plain.example.", Records: []string{
			"mx.plain.example. 60 IN A 127.0.0.3",
			"_25._tcp.mx.plain.example. 60 IN TLSA 3 1 1 " + strings.Repeat("ab", 32),
		}},
		testpeer.Zone{Name: "forged.example.", Signed: true, Records: []string{
			"forged.example. 60 IN MX 10 mx.forged.example.",
			"mx.forged.example. 60 IN A 127.0.0.4",
			"_25._tcp.mx.forged.example. 60 IN TLSA 3 1 1 " + strings.Repeat("ab", 32),
		}, Forge: func(file string) string {
			return strings.ReplaceAll(file, strings.Repeat("ab", 32), strings.Repeat("cd", 32))
		}},
	)
	c := resolver.NewClient([]netip.AddrPort{server}, 5*time.Second)
	defer c.Close()
	for _, tt := range []struct {
		name   string
		t      resolver.Type
		secure bool
		kind   error
	}{
		{"signed.example", resolver.TypeMX, true, nil},
		{"mx.signed.example", resolver.TypeA, true, nil},
		{"_25._tcp.mx.signed.example", resolver.TypeTLSA, true, nil},
		{"in.signed.example", resolver.TypeA, true, nil},
		{"out.signed.example", resolver.TypeA, false, nil}, // the target is anybody's
		{"out.signed.example", resolver.TypeCNAME, true, nil},
		{"mx.signed.example", resolver.TypeAAAA, false, resolver.ErrNoData},
		{"no.signed.example", resolver.TypeA, false, resolver.ErrNotFound},
		{"mx.plain.example", resolver.TypeA, false, nil},
		{"_25._tcp.mx.plain.example", resolver.TypeTLSA, false, nil},
		{"mx.forged.example", resolver.TypeA, true, nil},
		{"_25._tcp.mx.forged.example", resolver.TypeTLSA, false, resolver.ErrTemporary}, // RELIABILITY 59
	} {
		a, err := c.Lookup(t.Context(), tt.name, tt.t)
		if kindOf(t, err) != tt.kind || err == nil && a.AuthenticatedData != tt.secure {
			t.Errorf("%s %v: got %+v, %v; want authenticated: %v, %v", tt.name, tt.t, a, err, tt.secure, tt.kind)
		}
	}
	a, err := c.Lookup(t.Context(), "_25._tcp.mx.signed.example", resolver.TypeTLSA)
	if err != nil || !bytes.Equal(a.TLSA()[0].Data, bytes.Repeat([]byte{0xab}, 32)) {
		t.Errorf("got %v, %v", a, err)
	}
}
