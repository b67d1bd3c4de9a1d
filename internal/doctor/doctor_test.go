package doctor_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"onward/internal/address"
	"onward/internal/config"
	"onward/internal/dialguard"
	"onward/internal/doctor"
	"onward/internal/resolver"
	"onward/internal/signing"
	"onward/internal/webclient"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(keyDir())
		os.Exit(code)
	}))
}

// keyDir holds the one key that all wards have: making it takes most of a second.
var keyDir = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "onward-doctor-")
	if err != nil {
		panic(err)
	}
	keys, err := signing.Open(signing.Settings{Dir: dir, Selector: "onward", Create: true})
	if err == nil {
		_, err = keys.Signer(hostname)
	}
	if err != nil {
		panic(err)
	}
	return dir
})

// A ward is a server in good health, with its DNS: example.org is its first
// domain, example.net a further one, dest.example where mail goes.
type ward struct {
	doctor.Subject
	zone    *resolver.Zone
	records []doctor.Record // that init would print
	front   *front          // our listener
	dest    *front          // the mail host of dest.example
}

const hostname = "mx.example.org"

var (
	v4 = netip.MustParseAddr("127.0.0.1")
	v6 = netip.MustParseAddr("::1")
)

// admit makes a server all of whose records are there, as doctor itself asks for
// them: the test of the records is that nothing is left to say.
func admit(t *testing.T) *ward {
	t.Helper()
	w := &ward{zone: resolver.NewZone(), front: open(t, hostname), dest: open(t, "mail.dest.example")}
	state := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(state, "dkim"), os.DirFS(keyDir())); err != nil {
		t.Fatal(err)
	}
	os.Chmod(filepath.Join(state, "dkim", "onward._domainkey.mx.example.org.pem"), 0o600)
	keys, err := signing.Open(signing.Settings{Dir: filepath.Join(state, "dkim"), Selector: "onward"})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := keys.Signer(hostname)
	if err != nil {
		t.Fatal(err)
	}
	w.Subject = doctor.Subject{
		Config: &config.Config{
			Hostname: hostname, StateDir: state, Listen: []string{w.front.addr.String()},
			Domains:  []*config.Domain{{Name: "example.org"}, {Name: "example.net"}},
			SRS:      config.SRS{Domain: hostname},
			Policy:   config.Policy{DMARC: "enforce"},
			Delivery: config.Delivery{IPv6: "auto", AllowPrivate: true, Port: int(w.dest.addr.Port())},
		},
		Resolver:  w.zone,
		Servers:   []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")},
		Addresses: []netip.Addr{v4, v6},
		Keys:      signer.Records(),
		Targets:   []address.Domain{"dest.example"},
		Web:       &webclient.Client{Resolver: w.zone, Guard: dialguard.Guard{AllowPrivate: true}},
		Now:       time.Now(),
	}
	w.set(t, "dest.example", resolver.TypeMX, "10 mail.dest.example.")
	w.set(t, "mail.dest.example", resolver.TypeA, "127.0.0.1")
	w.records = append(w.ServerRecords(t.Context()), w.DomainRecords(t.Context(), "example.org")...)
	if len(w.records) != 6 {
		t.Errorf("%d records for the first domain, want 6: %v", len(w.records), w.records)
	}
	further := w.DomainRecords(t.Context(), "example.net")
	if len(further) != 1 {
		t.Errorf("%d records for a further domain, want 1: %v", len(further), further)
	}
	w.records = append(w.records, further...)
	w.records = append(w.records, w.ReverseRecords(t.Context())...)
	for _, r := range w.records {
		if r.Present || len(r.Instead) > 0 {
			t.Errorf("%v is said to be there", r)
		}
		w.publish(t, r)
	}
	return w
}

// publish puts a record into the zone by reading its own line.
func (w *ward) publish(t *testing.T, r doctor.Record) {
	t.Helper()
	z, err := resolver.ParseZone("line", strings.NewReader(r.String()+"\n"))
	if err != nil {
		t.Fatalf("%s: %v", r, err)
	}
	types := map[string]resolver.Type{"A": resolver.TypeA, "AAAA": resolver.TypeAAAA, "MX": resolver.TypeMX, "TXT": resolver.TypeTXT, "PTR": resolver.TypePTR}
	answer, err := z.Lookup(t.Context(), r.Name, types[r.Type])
	if err != nil {
		t.Fatalf("%s: %v", r, err)
	}
	value := r.Value
	switch r.Type {
	case "MX":
		value = fmt.Sprintf("%d %s.", r.Priority, r.Value)
	case "PTR":
		value += "."
	case "TXT":
		if got := answer.TXT(); len(got) != 1 || got[0] != r.Value {
			t.Fatalf("the line of %s reads as %q", r.Value, got)
		}
	}
	w.set(t, r.Name, types[r.Type], value)
}

func (w *ward) set(t *testing.T, name string, typ resolver.Type, data ...string) {
	t.Helper()
	if err := w.zone.Set(name, typ, data...); err != nil {
		t.Fatal(err)
	}
}

// record returns the wanted record of a name and type.
func (w *ward) record(t *testing.T, name, typ string) doctor.Record {
	t.Helper()
	i := slices.IndexFunc(w.records, func(r doctor.Record) bool { return r.Name == name && r.Type == typ })
	if i < 0 {
		t.Fatalf("no record %s %s is wanted", name, typ)
	}
	return w.records[i]
}

func (w *ward) examine(t *testing.T) []doctor.Check {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return doctor.Examine(ctx, w.Subject)
}

// ailing returns the checks that are not OK.
func ailing(checks []doctor.Check) []doctor.Check {
	return slices.DeleteFunc(slices.Clone(checks), func(c doctor.Check) bool { return c.State == doctor.OK })
}

func TestHealthy(t *testing.T) {
	w := admit(t)
	checks := w.examine(t)
	for _, c := range ailing(checks) {
		t.Errorf("%+v", c)
	}
	var names []string
	for _, c := range checks {
		names = append(names, c.Name)
		if c.Sentence == "" || c.Mend != "" {
			t.Errorf("%+v", c)
		}
	}
	want := []string{"resolver", "address", "reverse 127.0.0.1", "reverse ::1", "MX example.org", "MX example.net", "SPF mx.example.org",
		"DKIM mx.example.org", "DMARC example.org", "DMARC example.net", "DNSSEC", "outbound dest.example", "inbound", "certificate", "clients", "clock", "disk", "state"}
	if !slices.Equal(names, want) {
		t.Errorf("checks are %q, want %q", names, want)
	}
	for _, r := range append(w.ServerRecords(t.Context()), w.DomainRecords(t.Context(), "example.org")...) {
		if !r.Present || len(r.Instead) > 0 {
			t.Errorf("%v is not found in the zone: %+v", r, r)
		}
	}
}

// TestEachBrokenThing breaks one thing at a time: exactly that check fails, with
// the mend that puts it right again.
func TestEachBrokenThing(t *testing.T) {
	const other = `v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA2NWq/VioRYoqypIIq5Oo6evMjBcGf9XI+uvfFsHCnHmWLV5vk42meKGUwn7usGuJXtEmU24wtgg1Zvhtao3XRg1K4W5qrfpjwL8pXVxZDHYCosAsTtH0dHFgxOotVKSpyRfBoOizd+1Pa1n00s0suWyrh29mpFKyhxNnjHwm1b/XYIZ0dtFxcF5tMKMr5V2LdsHjel/L0LddafRTD2AIHjixekamPn0qGOD16ZoRkQ45AwaIti6qq6x3lM8LO+P7SYoJJEwmJJ6D1c8cO8UCS6BBnPsBCTAlljruWd2Dx7+yPXKPwA4tBTtFSiwpc8M7lrQSwWAYFyCxwYujwpasZQIDAQAB`
	const onward, dmarcName = "onward._domainkey.mx.example.org", "_dmarc.example.org"
	for _, tt := range []struct {
		name  string
		wreck func(t *testing.T, w *ward)
		check string
		state doctor.State
		says  string // part of the sentence
		mend  string // "NAME TYPE" of a wanted record, or the mend itself
	}{
		{"A gone", func(t *testing.T, w *ward) { w.zone.Remove(hostname, resolver.TypeA) }, "address", doctor.Warning, "does not lead to 127.0.0.1", hostname + " A"},
		{"AAAA gone", func(t *testing.T, w *ward) { w.zone.Remove(hostname, resolver.TypeAAAA) }, "address", doctor.Warning, "::1", hostname + " AAAA"},
		{"no address", func(t *testing.T, w *ward) {
			w.Addresses = []netip.Addr{v4}
			w.zone.Remove(hostname, resolver.TypeA)
			w.zone.Remove(hostname, resolver.TypeAAAA)
		}, "address", doctor.Failure, "no address", hostname + " A"},
		{"A elsewhere", func(t *testing.T, w *ward) {
			w.Addresses = []netip.Addr{v4}
			w.set(t, hostname, resolver.TypeA, "127.0.0.66")
			w.zone.Remove(hostname, resolver.TypeAAAA)
		}, "address", doctor.Failure, "leads to 127.0.0.66, but this server is 127.0.0.1", "delete mx.example.org. A 127.0.0.66\nmx.example.org. 3600 IN A 127.0.0.1"},
		{"A here and elsewhere", func(t *testing.T, w *ward) { w.set(t, hostname, resolver.TypeA, "127.0.0.1", "127.0.0.66") }, "address", doctor.Failure, "also leads to 127.0.0.66", "delete mx.example.org. A 127.0.0.66"},
		{"AAAA of another", func(t *testing.T, w *ward) {
			w.Addresses = []netip.Addr{v4}
			w.set(t, hostname, resolver.TypeAAAA, "2001:db8::66")
		}, "address", doctor.Failure, "also leads to 2001:db8::66", "delete mx.example.org. AAAA 2001:db8::66"},
		{"AAAA here and elsewhere, A gone", func(t *testing.T, w *ward) {
			w.set(t, hostname, resolver.TypeAAAA, "::1", "2001:db8::66")
			w.zone.Remove(hostname, resolver.TypeA)
		}, "address", doctor.Failure, "also leads to 2001:db8::66", "delete mx.example.org. AAAA 2001:db8::66\nmx.example.org. 3600 IN A 127.0.0.1"},
		{"hostname an alias", func(t *testing.T, w *ward) {
			w.zone.Remove(hostname, resolver.TypeA)
			w.zone.Remove(hostname, resolver.TypeAAAA)
			w.zone.Remove(hostname, resolver.TypeTXT)
			w.set(t, hostname, resolver.TypeCNAME, "host.example.org.")
			w.set(t, "host.example.org", resolver.TypeA, "127.0.0.1")
			w.set(t, "host.example.org", resolver.TypeAAAA, "::1")
			w.set(t, "host.example.org", resolver.TypeTXT, "v=spf1 ip4:127.0.0.1 ip6:::1 -all")
		}, "address", doctor.Warning, "CNAME", ""},
		{"A unknown", func(t *testing.T, w *ward) {
			w.fail(t, hostname, resolver.TypeA)
			w.fail(t, hostname, resolver.TypeAAAA)
		}, "address", doctor.Failure, "answered SERVFAIL", "dig +trace mx.example.org A"},
		{"no PTR", func(t *testing.T, w *ward) { w.zone.Remove("1.0.0.127.in-addr.arpa", resolver.TypePTR) }, "reverse 127.0.0.1", doctor.Failure, "no name", "1.0.0.127.in-addr.arpa PTR"},
		{"no PTR for IPv6", func(t *testing.T, w *ward) { w.zone.Remove(resolver.ReverseName(v6), resolver.TypePTR) }, "reverse ::1", doctor.Warning, "no name", resolver.ReverseName(v6) + " PTR"},
		{"no PTR for IPv6, which is preferred", func(t *testing.T, w *ward) {
			w.Config.Delivery.IPv6 = "on"
			w.zone.Remove(resolver.ReverseName(v6), resolver.TypePTR)
		}, "reverse ::1", doctor.Failure, "no name", resolver.ReverseName(v6) + " PTR"},
		{"PTR of the provider", func(t *testing.T, w *ward) {
			w.set(t, "1.0.0.127.in-addr.arpa", resolver.TypePTR, "host1.hoster.example.")
			w.set(t, "host1.hoster.example", resolver.TypeA, "127.0.0.1")
		}, "reverse 127.0.0.1", doctor.Warning, "host1.hoster.example", "1.0.0.127.in-addr.arpa PTR"},
		{"PTR that leads nowhere", func(t *testing.T, w *ward) { w.set(t, "1.0.0.127.in-addr.arpa", resolver.TypePTR, "liar.example.") }, "reverse 127.0.0.1", doctor.Failure, "liar.example, which does not lead back", "1.0.0.127.in-addr.arpa PTR"},
		{"no MX", func(t *testing.T, w *ward) { w.zone.Remove("example.org", resolver.TypeMX) }, "MX example.org", doctor.Failure, "no MX record", "example.org MX"},
		{"no MX of a further domain", func(t *testing.T, w *ward) { w.zone.Remove("example.net", resolver.TypeMX) }, "MX example.net", doctor.Failure, "no MX record", "example.net MX"},
		{"MX elsewhere", func(t *testing.T, w *ward) {
			w.set(t, "example.org", resolver.TypeMX, "10 mail.dest.example.", "20 backup.dest.example.")
			w.set(t, "mail.dest.example", resolver.TypeA, "127.0.0.66")
			w.Targets = nil
		}, "MX example.org", doctor.Failure, "10 mail.dest.example and 20 backup.dest.example rather", "example.org MX"},
		{"MX here and elsewhere", func(t *testing.T, w *ward) {
			w.set(t, "example.org", resolver.TypeMX, "10 mx.example.org.", "10 old.example.")
		}, "MX example.org", doctor.Failure, "10 old.example too", "example.org MX"},
		{"MX with a backup", func(t *testing.T, w *ward) {
			w.set(t, "example.org", resolver.TypeMX, "20 backup.example.", "10 mx.example.org.")
		}, "MX example.org", doctor.Warning, "20 backup.example when", "example.org MX"},
		{"MX before us", func(t *testing.T, w *ward) {
			w.set(t, "example.org", resolver.TypeMX, "5 first.example.", "10 mx.example.org.")
		}, "MX example.org", doctor.Failure, "5 first.example too", "example.org MX"},
		{"null MX", func(t *testing.T, w *ward) { w.set(t, "example.org", resolver.TypeMX, "0 .") }, "MX example.org", doctor.Failure, "nobody takes its mail", "example.org MX"},
		{"bounces elsewhere", func(t *testing.T, w *ward) { w.set(t, hostname, resolver.TypeMX, "10 old.example.") }, "MX mx.example.org", doctor.Failure, "10 old.example rather", hostname + ". 3600 IN MX 10 mx.example.org."},
		{"no SPF", func(t *testing.T, w *ward) { w.zone.Remove(hostname, resolver.TypeTXT) }, "SPF mx.example.org", doctor.Failure, "no SPF record", hostname + " TXT"},
		{"SPF of another server", func(t *testing.T, w *ward) { w.set(t, hostname, resolver.TypeTXT, "v=spf1 ip4:203.0.113.9 -all") }, "SPF mx.example.org", doctor.Failure, "gives fail for 127.0.0.1", `mx.example.org. 3600 IN TXT "v=spf1 ip4:127.0.0.1 ip6:::1 ip4:203.0.113.9 -all"`},
		{"SPF without IPv6", func(t *testing.T, w *ward) { w.set(t, hostname, resolver.TypeTXT, "v=spf1 ip4:127.0.0.1 -all") }, "SPF mx.example.org", doctor.Failure, "gives fail for ::1", hostname + " TXT"},
		{"SPF twice", func(t *testing.T, w *ward) { w.set(t, hostname, resolver.TypeTXT, "v=spf1 a -all", "v=spf1 mx -all") }, "SPF mx.example.org", doctor.Failure, "2 SPF records", `"v=spf1 ip4:127.0.0.1 ip6:::1 a -all"`},
		{"SPF misspelt", func(t *testing.T, w *ward) { w.set(t, hostname, resolver.TypeTXT, "v=spf1 ipv4:127.0.0.1 -all") }, "SPF mx.example.org", doctor.Failure, "permerror", hostname + " TXT"},
		{"SPF by name, of which the address is gone", func(t *testing.T, w *ward) {
			w.set(t, hostname, resolver.TypeTXT, "v=spf1 a -all")
			w.zone.Remove(hostname, resolver.TypeA)
		}, "address", doctor.Warning, "", hostname + " A"},
		{"SPF unknown", func(t *testing.T, w *ward) { w.fail(t, hostname, resolver.TypeTXT) }, "SPF mx.example.org", doctor.Failure, "SERVFAIL", "dig +trace mx.example.org TXT"},
		{"no key", func(t *testing.T, w *ward) { w.zone.Remove(onward, resolver.TypeTXT) }, "DKIM mx.example.org", doctor.Failure, "no key", onward + " TXT"},
		{"another key", func(t *testing.T, w *ward) { w.set(t, onward, resolver.TypeTXT, other) }, "DKIM mx.example.org", doctor.Failure, "another than ours", onward + " TXT"},
		{"key cut short", func(t *testing.T, w *ward) { w.set(t, onward, resolver.TypeTXT, w.Keys[0].Value[:200]) }, "DKIM mx.example.org", doctor.Failure, "cannot be used", onward + " TXT"},
		{"key twice", func(t *testing.T, w *ward) { w.set(t, onward, resolver.TypeTXT, w.Keys[0].Value, other) }, "DKIM mx.example.org", doctor.Failure, "2 TXT records", onward + " TXT"},
		{"key revoked", func(t *testing.T, w *ward) { w.set(t, onward, resolver.TypeTXT, "v=DKIM1; p=") }, "DKIM mx.example.org", doctor.Failure, "revoked", onward + " TXT"},
		{"key in testing", func(t *testing.T, w *ward) { w.set(t, onward, resolver.TypeTXT, w.Keys[0].Value+"; t=y") }, "DKIM mx.example.org", doctor.Warning, "t=y", onward + " TXT"},
		{"key unreadable here", func(t *testing.T, w *ward) { w.Keys, w.KeysErr = nil, os.ErrPermission }, "DKIM", doctor.Failure, "permission denied", ""},
		{"nothing signed", func(t *testing.T, w *ward) { w.Keys = nil }, "DKIM", doctor.Warning, "Nothing is signed", "dkim: {sign: true}"},
		{"no DMARC", func(t *testing.T, w *ward) { w.zone.Remove(dmarcName, resolver.TypeTXT) }, "DMARC example.org", doctor.Warning, "publishes no DMARC policy", dmarcName + " TXT"},
		{"DMARC relaxed", func(t *testing.T, w *ward) {
			w.set(t, dmarcName, resolver.TypeTXT, "v=DMARC1; p=none; rua=mailto:d@example.org; pct=50")
		}, "DMARC example.org", doctor.Failure, "forge", `"v=DMARC1; p=none; rua=mailto:d@example.org; pct=50; adkim=s; aspf=s"`},
		{"DMARC half strict", func(t *testing.T, w *ward) { w.set(t, dmarcName, resolver.TypeTXT, "v=DMARC1; p=none; aspf=s") }, "DMARC example.org", doctor.Failure, "not strict", `"v=DMARC1; p=none; adkim=s; aspf=s"`},
		{"DMARC misspelt", func(t *testing.T, w *ward) { w.set(t, dmarcName, resolver.TypeTXT, "v=DMARC1; p=rejekt") }, "DMARC example.org", doctor.Failure, "no valid policy", dmarcName + " TXT"},
		{"DMARC twice", func(t *testing.T, w *ward) {
			w.set(t, dmarcName, resolver.TypeTXT, "v=DMARC1; p=none; adkim=s; aspf=s", "v=DMARC1; p=reject")
		}, "DMARC example.org", doctor.Failure, "2 DMARC records", `"v=DMARC1; p=reject; adkim=s; aspf=s"`},
		{"DMARC unknown", func(t *testing.T, w *ward) { w.fail(t, dmarcName, resolver.TypeTXT) }, "DMARC example.org", doctor.Failure, "SERVFAIL", "dig +trace _dmarc.example.org TXT"},
		{"return paths in the domain itself", func(t *testing.T, w *ward) {
			w.Config.Domains[1].SRSDomain = "example.net"
			w.set(t, "example.net", resolver.TypeTXT, "v=spf1 ip4:127.0.0.1 ip6:::1 -all")
			w.set(t, "_dmarc.example.net", resolver.TypeTXT, "v=DMARC1; p=none; adkim=s; aspf=s")
		}, "DMARC example.net", doctor.Failure, "in example.net itself", "domains: {example.net: {srs_domain: mx.example.org}}"},
		{"MTA-STS record broken", func(t *testing.T, w *ward) { w.set(t, "_mta-sts.example.org", resolver.TypeTXT, "v=STSv1; id=") }, "MTA-STS example.org", doctor.Failure, "cannot be used", "_mta-sts.example.org. 3600 IN TXT \"v=STSv1; id="},
		{"MTA-STS without a policy", func(t *testing.T, w *ward) { w.set(t, "_mta-sts.example.org", resolver.TypeTXT, "v=STSv1; id=1") }, "MTA-STS example.org", doctor.Warning, "cannot be fetched", "curl -v https://mta-sts.example.org/"},
		{"TLS-RPT broken", func(t *testing.T, w *ward) { w.set(t, "_smtp._tls.example.org", resolver.TypeTXT, "v=TLSRPTv1; ruf=x") }, "TLS-RPT example.org", doctor.Warning, "cannot be used", `"v=TLSRPTv1; rua=mailto:postmaster@example.org"`},
		{"public resolver", func(t *testing.T, w *ward) { w.Servers = []netip.AddrPort{netip.MustParseAddrPort("8.8.8.8:53")} }, "resolver", doctor.Warning, "8.8.8.8 is a public DNS server", "apt install unbound"},
		{"target without a mail host", func(t *testing.T, w *ward) {
			w.zone.Remove("dest.example", resolver.TypeMX)
			w.zone.Remove("mail.dest.example", resolver.TypeA)
		}, "outbound dest.example", doctor.Warning, "whose mail host cannot be found: no such name.", ""},
		{"outbound closed", func(t *testing.T, w *ward) { w.dest.listener.Close() }, "outbound", doctor.Failure, "No mail host can be reached", "delivery: {relay:"},
		{"destination refuses us", func(t *testing.T, w *ward) { w.dest.say("554 mail.dest.example you are \x1b[31mlisted") }, "outbound dest.example", doctor.Failure, "554 mail.dest.example you are ?[31mlisted", ""},
		{"not running", func(t *testing.T, w *ward) { w.front.listener.Close() }, "inbound", doctor.Failure, "is onward running?", "onward serve"},
		{"another server", func(t *testing.T, w *ward) { w.front.say("220 debian ESMTP Postfix") }, "inbound", doctor.Failure, "220 debian ESMTP Postfix", "ss -ltnp"},
		{"no TLS", func(t *testing.T, w *ward) { w.front.show(nil) }, "certificate", doctor.Failure, "no TLS", ""},
		{"certificate of another", func(t *testing.T, w *ward) { w.front.show(certificate(t, w, "other.example", 90*24*time.Hour)) }, "certificate", doctor.Failure, "not for mx.example.org", ""},
		{"certificate about to expire", func(t *testing.T, w *ward) { w.front.show(certificate(t, w, hostname, 10*24*time.Hour)) }, "certificate", doctor.Warning, "should have been renewed", ""},
		{"certificate expired", func(t *testing.T, w *ward) { w.front.show(certificate(t, w, hostname, -time.Hour)) }, "certificate", doctor.Failure, "has expired", ""},
		{"certificate by a stranger", func(t *testing.T, w *ward) {
			w.front.show(certificate(t, w, hostname, 90*24*time.Hour))
			w.Web.Roots = x509.NewCertPool()
		}, "certificate", doctor.Warning, "nobody whom all trust", ""},
		{"clients hidden", func(t *testing.T, w *ward) {
			gateway := netip.MustParseAddr("172.17.0.1")
			w.Clients = []netip.Addr{gateway, v4, gateway, gateway}
		}, "clients", doctor.Failure, "172.17.0.1", "network_mode: host"},
		{"clock before the program", func(t *testing.T, w *ward) { w.Built = w.Now.Add(time.Hour) }, "clock", doctor.Failure, "before this program was made", "timedatectl set-ntp true"},
		{"state open", func(t *testing.T, w *ward) { os.Chmod(w.Config.StateDir, 0o750) }, "state", doctor.Failure, "mode 0750", "chmod 700 "},
		{"key open", func(t *testing.T, w *ward) {
			os.Chmod(filepath.Join(w.Config.StateDir, "dkim", onward+".pem"), 0o644)
		}, "state", doctor.Failure, "mode 0644", "chmod 600 "},
		{"secret file open", func(t *testing.T, w *ward) {
			w.Config.SRS.SecretFile = filepath.Join(t.TempDir(), "secret")
			os.WriteFile(w.Config.SRS.SecretFile, []byte("x"), 0o644)
			os.Chmod(w.Config.SRS.SecretFile, 0o644)
		}, "state", doctor.Failure, "open to all users", "chmod 600 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := admit(t)
			tt.wreck(t, w)
			got := ailing(w.examine(t))
			if len(got) != 1 {
				t.Fatalf("%d checks are not ok, want one: %+v", len(got), got)
			}
			c := got[0]
			if c.Name != tt.check || c.State != tt.state || !strings.Contains(c.Sentence, tt.says) {
				t.Errorf("%+v, want %s %s saying %q", c, tt.check, tt.state, tt.says)
			}
			mend := tt.mend
			if name, typ, ok := strings.Cut(mend, " "); ok && slices.Contains([]string{"A", "AAAA", "MX", "TXT", "PTR"}, typ) {
				mend = w.record(t, name, typ).String()
			}
			if !strings.Contains(c.Mend, mend) || strings.HasPrefix(mend, "delete ") && c.Mend != mend {
				t.Errorf("mend %q, want %q", c.Mend, mend)
			}
			if c.State == doctor.Failure && tt.mend == "" && c.Name != "certificate" && c.Name != "DKIM" && c.Name != "outbound dest.example" && c.Name != "address" {
				t.Errorf("%s: a failure needs its mend", tt.name)
			}
			if strings.ContainsFunc(c.Sentence+c.Mend, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
				t.Errorf("not printable ASCII: %q", c)
			}
		})
	}
}

func (w *ward) fail(t *testing.T, name string, typ resolver.Type) {
	t.Helper()
	if err := w.zone.Fail(name, typ, "SERVFAIL"); err != nil {
		t.Fatal(err)
	}
}

// TestPolicies: what fails quarantine or reject gets another From before it goes
// on, so that relaxed alignment does no harm there.
func TestPolicies(t *testing.T) {
	for _, tt := range []struct{ record, says string }{
		{"v=DMARC1; p=reject", "goes on under another From"},
		{"v=DMARC1; p=quarantine; adkim=s", "goes on under another From"},
		{"v=DMARC1; p=reject; adkim=s; aspf=s", "answers to mail whose From we rewrote"},
		{"v=DMARC1; p=reject; t=y", "quarantine"},
	} {
		w := admit(t)
		w.set(t, "_dmarc.example.org", resolver.TypeTXT, tt.record)
		checks := w.examine(t)
		i := slices.IndexFunc(checks, func(c doctor.Check) bool { return c.Name == "DMARC example.org" })
		if checks[i].State != doctor.OK || !strings.Contains(checks[i].Sentence, tt.says) {
			t.Errorf("%s: %+v", tt.record, checks[i])
		}
		records := w.DomainRecords(t.Context(), "example.org")
		if r := records[len(records)-1]; !r.Present || r.Value != tt.record {
			t.Errorf("%s: init wants %+v", tt.record, r)
		}
	}
}

// TestNoDNS: without any answer there is one failure, and nothing is blamed on
// records that nobody could look at.
func TestNoDNS(t *testing.T) {
	w := admit(t)
	w.fail(t, "arpa", resolver.Type(2))
	got := ailing(w.examine(t))
	if len(got) != 2 || got[0].Name != "resolver" || got[0].State != doctor.Failure || got[1].Name != "records" || got[1].State != doctor.Warning {
		t.Errorf("%+v", got)
	}
}

// TestHostileDNS: what strangers write in the DNS and say in SMTP is only ever
// printable text of some length.
func TestHostileDNS(t *testing.T) {
	w := admit(t)
	evil := "\x1b]0;owned\x07\u202e" + strings.Repeat("x", 2000)
	w.set(t, "example.org", resolver.TypeMX, `10 \027[31mevil.example.`)
	w.set(t, hostname, resolver.TypeTXT, "v=spf1 "+evil)
	w.set(t, w.Keys[0].Name, resolver.TypeTXT, "v=DKIM1; p="+evil)
	w.set(t, "_dmarc.example.org", resolver.TypeTXT, "v=DMARC1; p=none; x="+evil)
	w.set(t, "_mta-sts.example.org", resolver.TypeTXT, "v=STSv1; id="+evil)
	w.set(t, "_smtp._tls.example.org", resolver.TypeTXT, "v=TLSRPTv1; rua"+evil)
	w.set(t, "1.0.0.127.in-addr.arpa", resolver.TypePTR, `\027[31mevil.example.`)
	w.dest.say("220-" + evil)
	checks := w.examine(t)
	if n := len(ailing(checks)); n < 8 {
		t.Errorf("only %d of 8 noticed", n)
	}
	texts := ""
	for _, c := range checks {
		texts += c.Name + c.Sentence + c.Mend
		if len(c.Sentence) > 800 || len(c.Mend) > 800 {
			t.Errorf("%s: %d and %d octets", c.Name, len(c.Sentence), len(c.Mend))
		}
	}
	for _, r := range append(w.ServerRecords(t.Context()), w.DomainRecords(t.Context(), "example.org")...) {
		texts += r.String() + r.Note + strings.Join(r.Instead, "")
	}
	if i := strings.IndexFunc(texts, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }); i >= 0 {
		t.Errorf("not printable: %q", texts[max(0, i-40):min(len(texts), i+40)])
	}
}

// TestMTASTS: a policy that is enforced has to name us, and wants a certificate
// that can be checked.
func TestMTASTS(t *testing.T) {
	for _, tt := range []struct {
		name, policy string
		own          bool // our certificate is of our own making
		state        doctor.State
		says         string
	}{
		{"good", "version: STSv1\nmode: enforce\nmx: *.example.org\nmax_age: 86400\n", false, doctor.OK, "names this server"},
		{"of another host", "version: STSv1\nmode: enforce\nmx: old.example\nmax_age: 86400\n", false, doctor.Failure, "does not name mx.example.org"},
		{"off", "version: STSv1\nmode: none\nmax_age: 86400\n", true, doctor.OK, "mode none"},
		{"nonsense", "<html>", false, doctor.Warning, "not valid"},
		{"certificate of our own", "version: STSv1\nmode: enforce\nmx: mx.example.org\nmax_age: 86400\n", true, doctor.Failure, "nobody whom all trust"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := admit(t)
			own := w.front.secure
			site := certificate(t, w, "mta-sts.example.org", 90*24*time.Hour)
			w.front.show(certificate(t, w, hostname, 90*24*time.Hour))
			w.Web.Roots.AddCert(site.Certificates[0].Leaf)
			if tt.own {
				w.front.show(own)
			}
			w.Web.Port = serveText(t, site, tt.policy)
			w.set(t, "_mta-sts.example.org", resolver.TypeTXT, "v=STSv1; id=1")
			w.set(t, "mta-sts.example.org", resolver.TypeA, "127.0.0.1")
			checks := w.examine(t)
			i := slices.IndexFunc(checks, func(c doctor.Check) bool { return c.Name == "MTA-STS example.org" })
			if i < 0 || checks[i].State != tt.state || !strings.Contains(checks[i].Sentence, tt.says) {
				t.Errorf("%+v", checks)
			}
			if n := len(ailing(checks)); tt.state == doctor.OK && n > 0 || tt.state != doctor.OK && n != 1 {
				t.Errorf("%+v", ailing(checks))
			}
		})
	}
}

// A front is an SMTP server that greets, and turns TLS on when it is asked to.
type front struct {
	addr     netip.AddrPort
	listener net.Listener

	mu       sync.Mutex
	greeting string
	secure   *tls.Config // nil: no TLS
}

func (f *front) say(greeting string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.greeting = greeting
}

func (f *front) show(secure *tls.Config) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.secure = secure
}

func open(t *testing.T, name string) *front {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{greeting: "220 " + name + " ESMTP", secure: selfSigned(t, name), addr: l.Addr().(*net.TCPAddr).AddrPort(), listener: l}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f.serve(conn)
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return f
}

func (f *front) serve(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	f.mu.Lock()
	greeting, config := f.greeting, f.secure
	f.mu.Unlock()
	fmt.Fprintf(conn, "%s\r\n", greeting)
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		switch {
		case err != nil || strings.HasPrefix(line, "QUIT"):
			return
		case strings.HasPrefix(line, "EHLO"):
			fmt.Fprint(conn, "250-hello\r\n250 STARTTLS\r\n")
		case strings.HasPrefix(line, "STARTTLS") && config != nil:
			fmt.Fprint(conn, "220 go ahead\r\n")
			secure := tls.Server(conn, config)
			if secure.Handshake() != nil {
				return
			}
			conn, r = secure, bufio.NewReader(secure)
		default:
			fmt.Fprint(conn, "502 no\r\n")
		}
	}
}

// certificate is one that an authority has made, which w trusts.
func certificate(t *testing.T, w *ward, name string, left time.Duration) *tls.Config {
	t.Helper()
	ca, caKey := makeCertificate(t, "authority", true, left, nil, nil)
	leaf, key := makeCertificate(t, name, false, left, ca, caKey)
	if w.Web.Roots == nil {
		w.Web.Roots = x509.NewCertPool()
	}
	w.Web.Roots.AddCert(ca)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}}}
}

func selfSigned(t *testing.T, name string) *tls.Config {
	t.Helper()
	leaf, key := makeCertificate(t, name, false, time.Hour, nil, nil)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}}}
}

func makeCertificate(t *testing.T, name string, ca bool, left time.Duration, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-60 * 24 * time.Hour), NotAfter: time.Now().Add(left),
		IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}
