package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/config"
	"onward/internal/dnsbl"
	"onward/internal/resolver"
	"onward/internal/webclient"
)

// outpatient is a server of which only the DNS is looked at.
func outpatient(t *testing.T, zone string) *examination {
	t.Helper()
	z, err := resolver.ParseZone("zone", strings.NewReader(zone))
	if err != nil {
		t.Fatal(err)
	}
	ours := []netip.Addr{netip.MustParseAddr("192.0.2.25"), netip.MustParseAddr("2001:db8::25")}
	e := &examination{Subject: &Subject{
		Config: &config.Config{
			Hostname: "mx.example.org", Domains: []*config.Domain{{Name: "example.org"}},
			SRS: config.SRS{Domain: "mx.example.org"}, Delivery: config.Delivery{IPv6: "auto", Port: 25},
		},
		Resolver: z, Addresses: ours, Web: &webclient.Client{Resolver: z}, Now: time.Now(),
	}}
	e.look(t.Context())
	return e
}

func TestBlocklists(t *testing.T) {
	var lists []dnsbl.List
	for _, name := range CommonLists {
		l, err := dnsbl.ParseList(name)
		if err != nil {
			t.Fatal(err)
		}
		lists = append(lists, l)
	}
	v4, v6 := netip.MustParseAddr("192.0.2.25"), netip.MustParseAddr("2001:db8::25")
	for _, tt := range []struct {
		name, zone string
		ip         netip.Addr
		state      State
		says, mend string
	}{
		{"on none", "", v4, OK, "on none of 5", ""},
		{"IPv6 on none", "", v6, OK, "on none of 5", ""},
		{"listed", "25.2.0.192.zen.spamhaus.org. IN A 127.0.0.4\n25.2.0.192.zen.spamhaus.org. IN TXT \"see \\027[31mhttps://check.spamhaus.org/\"\n", v4, Failure, "listed by zen.spamhaus.org (127.0.0.4): see ?[31mhttps://check", "https://check.spamhaus.org"},
		{"refused to a public resolver", "25.2.0.192.zen.spamhaus.org. IN A 127.255.255.254\n", v4, Warning, "zen.spamhaus.org: it does not answer public DNS servers", ""},
		{"a list that names everybody", "*.bl.spamcop.net. IN A 127.0.0.2\n", v4, Warning, "bl.spamcop.net: it lists even 127.0.0.1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := outpatient(t, tt.zone)
			e.Lists = lists
			got := e.blocklists(t.Context(), tt.ip)
			if len(got) != 1 || got[0].State != tt.state || !strings.Contains(got[0].Sentence, tt.says) || got[0].Mend != tt.mend {
				t.Errorf("%+v, want %s saying %q", got, tt.state, tt.says)
			}
		})
	}
}

// TestRelay: behind a relay the record has to name that.
func TestRelay(t *testing.T) {
	for _, tt := range []struct {
		name, relay, zone string
		state             State
		mend              string
	}{
		{"known and named", "smtp+starttls://u@smtp.sendgrid.net", `"v=spf1 include:sendgrid.net -all"`, OK, ""},
		{"known and not named", "smtp+starttls://u@smtp.sendgrid.net", `"v=spf1 ip4:192.0.2.1 -all"`, Failure, `mx.example.org. 3600 IN TXT "v=spf1 include:sendgrid.net ip4:192.0.2.1 -all"`},
		{"not known", "smtps://u@out.example.net", `"v=spf1 include:spf.example.net -all"`, OK, ""},
		{"no record", "smtps://u@out.example.net", "", Failure, `mx.example.org. 3600 IN TXT "v=spf1 a:out.example.net -all"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			zone := ""
			if tt.zone != "" {
				zone = "mx.example.org. IN TXT " + tt.zone + "\n"
			}
			e := outpatient(t, zone)
			e.Config.Delivery.Relay = tt.relay
			got := e.spf(t.Context(), "mx.example.org")
			if len(got) != 1 || got[0].State != tt.state || got[0].Mend != tt.mend {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestBehindNAT: where nobody knows our address, what the DNS says of our name is
// taken for it, and that is said.
func TestBehindNAT(t *testing.T) {
	e := outpatient(t, "mx.example.org. IN A 192.0.2.25\nmx.example.org. IN TXT \"v=spf1 a -all\"\n")
	e.Addresses = nil
	e.look(t.Context())
	if len(PublicAddresses()) > 0 {
		t.Skip("this machine has a public address")
	}
	if got := e.hostAddresses(t.Context()); got[0].State != OK || !strings.Contains(got[0].Sentence, "Whether that is this machine, which itself has ") {
		t.Errorf("%+v", got)
	}
	if got := e.spf(t.Context(), "mx.example.org"); got[0].State != OK {
		t.Errorf("%+v", got)
	}
	e = outpatient(t, "")
	e.Addresses = nil
	e.look(t.Context())
	if got := e.hostAddresses(t.Context()); got[0].State != Failure || got[0].Mend != "onward doctor --ip ADDRESS" {
		t.Errorf("%+v", got)
	}
	if got := e.spf(t.Context(), "mx.example.org"); got[0].State != Failure || !strings.Contains(got[0].Mend, `"v=spf1 a:mx.example.org -all"`) {
		t.Errorf("%+v", got)
	}
}

// TestEgress: SPF and reverse names are about the addresses that mail leaves from.
func TestEgress(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.25"), netip.MustParseAddr("2001:db8::25")
	for _, tt := range []struct {
		delivery config.Delivery
		want     []netip.Addr
	}{
		{config.Delivery{IPv6: "auto"}, []netip.Addr{v4, v6}},
		{config.Delivery{IPv6: "off"}, []netip.Addr{v4}},
		{config.Delivery{IPv6: "on", Source: v6}, []netip.Addr{v6}},
		{config.Delivery{IPv6: "auto", Source: netip.MustParseAddr("10.0.0.5")}, []netip.Addr{v4}},
	} {
		s := &Subject{Config: &config.Config{Delivery: tt.delivery}}
		if got := s.egress([]netip.Addr{v4, v6}); !slices.Equal(got, tt.want) {
			t.Errorf("%+v: %v, want %v", tt.delivery, got, tt.want)
		}
	}
}

// TestMerge: nothing that a record says is lost, but what the new one must not
// say, and nothing that cannot be pasted gets in.
func TestMerge(t *testing.T) {
	for _, tt := range []struct{ existing, want string }{
		{"", "v=DMARC1; p=none; adkim=s; aspf=s"},
		{"v=DMARC1; p=reject", "v=DMARC1; p=reject; adkim=s; aspf=s"},
		{"v=DMARC1;p=quarantine;sp=reject;pct=20;fo=1;ruf=mailto:f@x.example;adkim=r;aspf=s", "v=DMARC1; p=quarantine; sp=reject; pct=20; fo=1; ruf=mailto:f@x.example; adkim=s; aspf=s"},
		{"v=DMARC1; p=rejct; rua=mailto:a@x.example", "v=DMARC1; p=none; rua=mailto:a@x.example; adkim=s; aspf=s"},
		{"v=DMARC1; p=none; p=reject; x=\x1b[31m", "v=DMARC1; p=none; adkim=s; aspf=s"},
		{"v=spf1 -all", "v=DMARC1; p=none; adkim=s; aspf=s"},
	} {
		if got := dmarcRecord("example.org", tt.existing, true).Value; got != tt.want {
			t.Errorf("%q becomes %q, want %q", tt.existing, got, tt.want)
		}
	}
	terms := []string{"ip4:192.0.2.25"}
	for _, tt := range []struct{ existing, want string }{
		{"", "v=spf1 ip4:192.0.2.25 -all"},
		{"v=spf1 mx include:_spf.google.com ~all", "v=spf1 ip4:192.0.2.25 mx include:_spf.google.com ~all"},
		{"v=spf1 ip4:192.0.2.25 redirect=x.example", "v=spf1 ip4:192.0.2.25 redirect=x.example"},
		{"v=spf1", "v=spf1 ip4:192.0.2.25"},
		{"v=spf1 nonsense -all", "v=spf1 ip4:192.0.2.25 -all"},
		{"v=spf1 \x1b[31m -all", "v=spf1 ip4:192.0.2.25 -all"},
	} {
		var existing []string
		if tt.existing != "" {
			existing = []string{tt.existing}
		}
		if got := spfRecord("mx.example.org", existing, slices.Clone(terms)).Value; got != tt.want {
			t.Errorf("%q becomes %q, want %q", tt.existing, got, tt.want)
		}
	}
}

// TestSRSDomains: a domain of return paths that is neither our name nor one of
// our domains needs an MX, SPF and a policy of its own.
func TestSRSDomains(t *testing.T) {
	e := outpatient(t, "")
	e.Config.SRS.Domain = "srs.example.net"
	var got []string
	for _, r := range e.Subject.ServerRecords(t.Context()) {
		got = append(got, r.Name+" "+r.Type)
	}
	want := []string{"mx.example.org A", "mx.example.org AAAA", "srs.example.net MX", "srs.example.net TXT", "_dmarc.srs.example.net TXT"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if c := e.bounces(t.Context(), "srs.example.net"); len(c) != 1 || c[0].State != Failure || c[0].Mend != "srs.example.net. 3600 IN MX 10 mx.example.org." {
		t.Errorf("%+v", c)
	}
	if c := e.srsPolicy(t.Context(), "srs.example.net"); len(c) != 1 || c[0].State != Warning || !strings.Contains(c[0].Mend, "p=reject") {
		t.Errorf("%+v", c)
	}
	if r := e.Subject.DomainRecords(t.Context(), "example.org"); len(r) != 1 {
		t.Errorf("%v", r)
	}
}

// TestSiblings: a server beside the domain in one organization is aligned with it
// as soon as that organization has a policy.
func TestSiblings(t *testing.T) {
	e := outpatient(t, "_dmarc.example.org. IN TXT \"v=DMARC1; p=none\"\n")
	e.Config.Domains = []*config.Domain{{Name: "lists.example.org"}}
	if c := e.dmarc(t.Context(), "lists.example.org"); c[0].State != Failure || c[0].Mend != `_dmarc.example.org. 3600 IN TXT "v=DMARC1; p=none; adkim=s; aspf=s"` {
		t.Errorf("%+v", c)
	}
}

// TestTwoPolicies: of several records the one to keep is the strictest, whether
// or not what we forward is aligned with the domain.
func TestTwoPolicies(t *testing.T) {
	for _, tt := range []struct{ domain, records, want string }{
		{"example.org", `"v=DMARC1; p=none; adkim=s" "v=DMARC1; p=reject; rua=mailto:d@example.org"`, "v=DMARC1; p=reject; rua=mailto:d@example.org; adkim=s; aspf=s"},
		{"example.com", `"v=DMARC1; p=none; rua=mailto:d@example.com" "v=DMARC1; p=quarantine; adkim=r"`, "v=DMARC1; p=quarantine; adkim=r"},
		{"example.com", `"v=DMARC1; p=rejekt" "v=DMARC1; p=none; sp=reject"`, "v=DMARC1; p=none; sp=reject"},
		{"example.com", `"v=DMARC1; p=rejekt" "v=DMARC1; rua=mailto:d@example.com"`, "v=DMARC1; p=none"},
	} {
		zone := ""
		for text := range strings.SplitSeq(tt.records, `" "`) {
			zone += fmt.Sprintf("_dmarc.%s. IN TXT %q\n", tt.domain, strings.Trim(text, `"`))
		}
		e := outpatient(t, zone)
		want := textRecord("_dmarc."+tt.domain, tt.want).String()
		if c := e.dmarc(t.Context(), address.Domain(tt.domain)); len(c) != 1 || c[0].State != Failure || c[0].Mend != want {
			t.Errorf("%s: %+v, want %s", tt.records, c, want)
		}
	}
	e := outpatient(t, `_dmarc.example.org. IN TXT "v=DMARC1; p=none"`+"\n"+`_dmarc.example.org. IN TXT "v=DMARC1; p=reject"`+"\n")
	records := e.Subject.DomainRecords(t.Context(), "example.org")
	if r := records[len(records)-1]; r.Value != "v=DMARC1; p=reject; adkim=s; aspf=s" || len(r.Instead) != 2 {
		t.Errorf("init wants %+v", r)
	}
}

// TestZoneOf: a record goes into the nearest zone there is.
func TestZoneOf(t *testing.T) {
	e := outpatient(t, "mail.example.org. IN SOA ns. me. 1 1 1 1 1\nexample.org. IN SOA ns. me. 1 1 1 1 1\n")
	for name, want := range map[string]string{
		"mx.mail.example.org": "mail.example.org", "example.org": "example.org", "_dmarc.example.org": "example.org", "example.net": "example.net",
	} {
		if got := e.zoneOf(t.Context(), name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := outpatient(t, "").zoneOf(t.Context(), "onward._domainkey.mx.example.org"); got != "example.org" {
		t.Error(got)
	}
}

// TestSilentHosts: a server that takes a connection and says nothing is told of,
// and nobody waits for it longer than the context.
func TestSilentHosts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e := outpatient(t, "dest.example. IN A 127.0.0.1\n")
	e.Config.Delivery.AllowPrivate, e.Config.Delivery.Port = true, l.Addr().(*net.TCPAddr).Port
	e.Targets = []address.Domain{"dest.example"}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	got := e.outbound(ctx)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("waited %v", took)
	}
	if len(got) != 1 || got[0].State != Warning || !strings.Contains(got[0].Sentence, "says nothing") {
		t.Errorf("%+v", got)
	}
}

// TestPrivateTargets: nobody is led into our own network by a target's MX.
func TestPrivateTargets(t *testing.T) {
	e := outpatient(t, "dest.example. IN A 127.0.0.1\nelse.example. IN MX 0 .\n")
	e.Targets = []address.Domain{"dest.example", "else.example"}
	got := e.outbound(t.Context())
	if len(got) != 2 || got[0].Sentence != "dest.example of dest.example is at 127.0.0.1, which is not a public address, so no mail goes there unless delivery.allow_private is set." || !strings.Contains(got[1].Sentence, "takes no mail") {
		t.Errorf("%+v", got)
	}
}

// TestForeignState: files that belong to somebody else than their directory are
// what init run as root leaves behind.
func TestForeignState(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	e := outpatient(t, "")
	e.Config.StateDir = t.TempDir()
	os.Chmod(e.Config.StateDir, 0o700)
	file := filepath.Join(e.Config.StateDir, "srs-secret")
	os.WriteFile(file, nil, 0o600)
	os.Chown(file, 65534, 65534)
	if got := e.private(t.Context()); got[0].State != Failure || !strings.HasPrefix(got[0].Mend, "chown -R --reference=") {
		t.Errorf("%+v", got)
	}
}
