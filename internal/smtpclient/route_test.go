package smtpclient_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"onward/internal/resolver"
	"onward/internal/smtpclient"
	"onward/internal/testmail"
)

// TestRoute is P15 and RELIABILITY 42: where mail for d.test goes, and what is
// permanent.
func TestRoute(t *testing.T) {
	for _, tt := range []struct {
		name, zone string
		result     smtpclient.Result
		reply      string
		host       string
	}{
		{"MX", `{"d.test/MX": "10 mail.test.", "mail.test/A": "127.0.0.1"}`, smtpclient.Delivered, "250", "mail.test"},
		{"MX is an alias", `{"d.test/MX": "10 alias.test.", "alias.test/CNAME": "mail.test.", "mail.test/A": "127.0.0.1"}`, smtpclient.Delivered, "250", "alias.test"},
		{"domain is an alias", `{"d.test/CNAME": "e.test.", "e.test/MX": "10 mail.test.", "mail.test/A": "127.0.0.1"}`, smtpclient.Delivered, "250", "mail.test"},
		{"implicit MX", `{"d.test/A": "127.0.0.1"}`, smtpclient.Delivered, "250", "d.test"},
		{"no implicit MX beside a real one", `{"d.test/A": "127.0.0.1", "d.test/MX": "10 none.test."}`, smtpclient.Refused, "550 5.1.2", "none.test"},
		{"null MX", `{"d.test/A": "127.0.0.1", "d.test/MX": "0 ."}`, smtpclient.Refused, "556 5.1.10", ""},
		{"null MX beside a real one", `{"d.test/MX": ["0 .", "10 mail.test."], "mail.test/A": "127.0.0.1"}`, smtpclient.Delivered, "250", "mail.test"},
		{"no such domain", `{}`, smtpclient.Refused, "550 5.1.2", ""},
		{"no address", `{"d.test": "v=spf1 -all"}`, smtpclient.Refused, "550 5.1.2", "d.test"},
		{"MX without address", `{"d.test/MX": "10 mail.test.", "mail.test": "text"}`, smtpclient.Refused, "550 5.1.2", "mail.test"},
		{"MX is an address", `{"d.test/MX": "10 127.0.0.1.", "127.0.0.1/A": "127.0.0.1"}`, smtpclient.Refused, "550 5.1.2", "127.0.0.1"},
		{"MX is no host name", `{"d.test/MX": "10 a\\032b.test."}`, smtpclient.Refused, "550 5.1.2", `a\032b.test`},
		{"MX SERVFAIL", `{"d.test/MX": {"rcode": "SERVFAIL"}, "d.test/A": "127.0.0.1"}`, smtpclient.Deferred, "451 4.4.3", ""},
		{"MX REFUSED", `{"d.test/MX": {"rcode": "REFUSED"}, "d.test/A": "127.0.0.1"}`, smtpclient.Deferred, "451 4.4.3", ""},
		{"MX silent", `{"d.test/MX": {"rcode": "TIMEOUT"}}`, smtpclient.Deferred, "451 4.4.3", ""},
		{"A SERVFAIL", `{"d.test/MX": "10 mail.test.", "mail.test/A": {"rcode": "SERVFAIL"}}`, smtpclient.Deferred, "451 4.4.3", "mail.test"},
		{"AAAA SERVFAIL, no A", `{"d.test/MX": "10 mail.test.", "mail.test/AAAA": {"rcode": "SERVFAIL"}}`, smtpclient.Deferred, "451 4.4.3", "mail.test"},
		{"AAAA SERVFAIL, A", `{"d.test/MX": "10 mail.test.", "mail.test/AAAA": {"rcode": "SERVFAIL"}, "mail.test/A": "127.0.0.1"}`, smtpclient.Delivered, "250", "mail.test"},
		{"one without address, one in trouble", `{"d.test/MX": ["10 none.test.", "20 mail.test."], "mail.test/A": {"rcode": "SERVFAIL"}}`, smtpclient.Deferred, "451 4.4.3", "mail.test"},
		{"one in trouble, one without address", `{"d.test/MX": ["20 none.test.", "10 mail.test."], "mail.test/A": {"rcode": "SERVFAIL"}}`, smtpclient.Deferred, "451 4.4.3", "mail.test"},
		{"one without address, one deaf", `{"d.test/MX": ["20 none.test.", "10 mail.test."], "mail.test/A": "127.0.9.9"}`, smtpclient.Deferred, "451 4.4.1", "mail.test"},
		{"one in trouble, one good", `{"d.test/MX": ["10 bad.test.", "20 mail.test."], "bad.test/A": {"rcode": "SERVFAIL"}, "mail.test/A": "127.0.0.1"}`, smtpclient.Delivered, "250", "mail.test"},
		{"we are the best", `{"d.test/MX": ["10 MX.onward.test.", "20 mail.test."], "mail.test/A": "127.0.0.1"}`, smtpclient.Refused, "554 5.4.6", ""},
		{"we are as good", `{"d.test/MX": ["10 mx.onward.test.", "10 mail.test."], "mail.test/A": "127.0.0.1"}`, smtpclient.Refused, "554 5.4.6", ""},
		{"we are the second", `{"d.test/MX": ["20 mx.onward.test.", "10 mail.test.", "30 bad.test."], "mail.test/A": "127.0.0.1"}`, smtpclient.Delivered, "250", "mail.test"},
		{"we are the implicit one", `{"mx.onward.test/A": "127.0.0.1"}`, smtpclient.Refused, "554 5.4.6", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			zone, err := resolver.ParseZone("zone", strings.NewReader(tt.zone))
			if err != nil {
				t.Fatal(err)
			}
			w.Resolver = zone
			target := "joe@d.test"
			if strings.HasPrefix(tt.zone, `{"mx.onward`) {
				target = "joe@mx.onward.test"
			}
			out := w.Deliver(t.Context(), to(target, short))
			step := map[string]string{"250": "dot", "451 4.4.1": "connect"}[tt.reply]
			if step == "" {
				step = "lookup"
			}
			want(t, out, tt.result, tt.reply, step)
			if out.Host != tt.host {
				t.Errorf("host %q, want %q", out.Host, tt.host)
			}
		})
	}
}

// TestOrder: by preference, equals in any order.
func TestOrder(t *testing.T) {
	w := newWorld(t)
	w.MaxHosts = 4
	records := []string{"30 last.test.", "10 first.test.", "20 b.test.", "20 a.test."}
	w.set(t, "d.test", mx, records...)
	var order []string
	for i, host := range []string{"first", "a", "b", "last"} {
		ip := fmt.Sprintf("127.0.0.%d", 11+i)
		w.set(t, host+".test", resolver.TypeA, ip)
		sink := sinkAt(t, fmt.Sprintf("%s:%d", ip, w.Port))
		sink.Answer("CONNECT", "421 4.3.2 "+host)
	}
	seen := map[string]bool{}
	for range 50 {
		var log strings.Builder
		w.Log = logTo(&log)
		w.Deliver(t.Context(), to("joe@d.test", short))
		order = nil
		for _, line := range strings.Split(strings.TrimSpace(log.String()), "\n") {
			_, rest, _ := strings.Cut(line, "dest=")
			host, _, _ := strings.Cut(rest, ".test")
			order = append(order, host)
		}
		if !slices.Equal(order, []string{"first", "a", "b", "last"}) && !slices.Equal(order, []string{"first", "b", "a", "last"}) {
			t.Fatalf("order %q", order)
		}
		seen[order[1]] = true
	}
	if len(seen) != 2 {
		t.Error("equals are always tried in the same order")
	}
}

// TestGuard: an address that is not public is never dialled, however it is
// spelled and wherever it comes from, also when the name had another one
// before (RELIABILITY 67).
func TestGuard(t *testing.T) {
	w := newWorld(t)
	w.AllowPrivate = false
	w.set(t, "rebind.test", resolver.TypeA, "127.0.0.1")
	w.set(t, "mapped.test", resolver.TypeAAAA, "::ffff:127.0.0.1")
	for _, target := range []string{"a@example.org", "a@[127.0.0.1]", "a@[IPv6:::ffff:127.0.0.1]", "a@[IPv6:::1]", "a@rebind.test", "a@mapped.test"} {
		out := w.Deliver(t.Context(), to(target, short))
		want(t, out, smtpclient.Deferred, "451 4.4.4", "connect")
	}
	if n := w.sink.Sessions(); n != 0 {
		t.Errorf("%d connections to the sink", n)
	}
}

// TestRealDNS runs one delivery over the real resolver and a real name server.
func TestRealDNS(t *testing.T) {
	w := newWorld(t)
	server, err := testmail.StartDNS(w.zone, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client := resolver.NewClient(addrPorts(server.Addr()), patient)
	defer client.Close()
	w.Resolver = client
	want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Delivered, "250", "dot")
	want(t, w.Deliver(t.Context(), to("joe@elsewhere.test", short)), smtpclient.Refused, "550 5.1.2", "lookup")
	server.SetFaults(testmail.Faults{Lame: true})
	want(t, w.Deliver(t.Context(), to("joe@unheard.test", short)), smtpclient.Deferred, "451 4.4.3", "lookup")
}

// TestOurselves: mail whose way leads to us by address, under whatever name, is
// refused before anything is dialled (RELIABILITY 33), and nobody is asked who
// would send it to us.
func TestOurselves(t *testing.T) {
	w := newWorld(t)
	w.MaxHosts = 5
	port := w.sink.Addr().Port()
	at := func(ip string) []netip.AddrPort {
		return []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(ip), port)}
	}
	for _, listening := range [][]netip.AddrPort{at("127.0.0.1"), at("0.0.0.0"), at("::"), at("::ffff:127.0.0.1")} {
		w.Listening = listening
		for _, target := range []string{"joe@example.org", "joe@[127.0.0.1]", "joe@[IPv6:::ffff:127.0.0.1]"} {
			out := w.Deliver(t.Context(), to(target, short))
			want(t, out, smtpclient.Refused, "554 5.4.6 mail for the destination's domain comes back to us", "lookup")
			if !out.Tried || out.Said != nil {
				t.Errorf("outcome %+v", out)
			}
		}
	}
	w.Listening = at("127.0.0.1")
	second := w.second(t)
	w.set(t, "deaf.test", resolver.TypeA, "127.0.1.1")
	for _, tt := range []struct {
		mx            []string
		result        smtpclient.Result
		reply, step   string
		secondVisited bool
	}{
		{[]string{"1 mail2.test.", "2 mail.test."}, smtpclient.Delivered, "250", "dot", true},
		{[]string{"1 mail.test.", "2 mail2.test."}, smtpclient.Refused, "554 5.4.6", "lookup", false},
		{[]string{"1 deaf.test.", "2 mail.test.", "3 mail2.test."}, smtpclient.Deferred, "451 4.4.1", "connect", false},
	} {
		w.set(t, "example.org", mx, tt.mx...)
		before := second.Sessions()
		want(t, w.Deliver(t.Context(), to("joe@example.org", short)), tt.result, tt.reply, tt.step)
		if visited := second.Sessions() > before; visited != tt.secondVisited {
			t.Errorf("%q: the second visited: %v", tt.mx, visited)
		}
	}
	w.Listening = []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port+1)}
	want(t, w.Deliver(t.Context(), to("joe@mail.test", short)), smtpclient.Delivered, "250", "dot")
	// Behind a translator only the DNS knows our address.
	w.AllowPrivate = false
	w.set(t, "mx.onward.test", resolver.TypeA, "198.41.0.4")
	w.set(t, "mx.onward.test", resolver.TypeAAAA, "2001:503:ba3e::2:30")
	for _, target := range []string{"joe@[198.41.0.4]", "joe@[IPv6:2001:503:ba3e::2:30]"} {
		want(t, w.Deliver(t.Context(), to(target, short)), smtpclient.Refused, "554 5.4.6", "lookup")
	}
	if n := w.sink.Sessions(); n != 1 {
		t.Errorf("%d connections to ourselves", n-1)
	}
}
