package resolver_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"onward/internal/resolver"
)

func TestZoneJSON(t *testing.T) {
	z := parse(t, `
	{
		"one.example": "text with \"quotes\" and \u00fc",
		"two.example": ["a", "b"],
		"none.example": [],
		"servfail.example": {"rcode": "SERVFAIL"},
		"timeout.example": {"rcode": "TIMEOUT"},
		"timeout.example/MX": ["10 mx.example."],
		"part.example/MX": {"rcode": "SERVFAIL"},
		"part.example/A": "192.0.2.1",
		"0/25.2.0.192.in-addr.arpa": "a slash",
		"a.b.example/AAAA": ["2001:db8::1", "2001:db8::2"],
		"typed.example/TXT": "v=spf1 -all",
		"alias.example/CNAME": "two.example."
	}`)
	both(t, z, func(t *testing.T, r resolver.Resolver) {
		for _, tt := range []struct {
			name  string
			t     resolver.Type
			value func(*resolver.Answer) any
			want  string
			kind  error
		}{
			{"one.example", resolver.TypeTXT, txt, "[text with \"quotes\" and ü]", nil},
			{"two.example", resolver.TypeTXT, txt, "[a b]", nil},
			{"two.example", resolver.TypeA, nil, "", resolver.ErrNoData},
			{"none.example", resolver.TypeTXT, nil, "", resolver.ErrNoData},
			{"servfail.example", resolver.TypeTXT, nil, "", resolver.ErrTemporary},
			{"servfail.example", resolver.TypeA, nil, "", resolver.ErrTemporary},
			{"timeout.example", resolver.TypeTXT, nil, "", resolver.ErrTemporary},
			{"timeout.example", resolver.TypeMX, mx, "[{10 mx.example}]", nil},
			{"part.example", resolver.TypeMX, nil, "", resolver.ErrTemporary},
			{"part.example", resolver.TypeA, ips, "[192.0.2.1]", nil},
			{"part.example", resolver.TypeTXT, nil, "", resolver.ErrNoData},
			{"0/25.2.0.192.in-addr.arpa", resolver.TypeTXT, txt, "[a slash]", nil},
			{"a.b.example", resolver.TypeAAAA, ips, "[2001:db8::1 2001:db8::2]", nil},
			{"b.example", resolver.TypeAAAA, nil, "", resolver.ErrNoData},
			{"c.b.example", resolver.TypeAAAA, nil, "", resolver.ErrNotFound},
			{"typed.example", resolver.TypeTXT, txt, "[v=spf1 -all]", nil},
			{"alias.example", resolver.TypeTXT, txt, "[a b]", nil},
		} {
			a, err := r.Lookup(t.Context(), tt.name, tt.t)
			if kindOf(t, err) != tt.kind {
				t.Errorf("%s %v: got %v, want %v", tt.name, tt.t, err, tt.kind)
			} else if err == nil && fmt.Sprint(tt.value(a)) != tt.want {
				t.Errorf("%s %v: got %v, want %s", tt.name, tt.t, tt.value(a), tt.want)
			}
		}
	})
}

func TestZoneErrors(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"relative name", "example.org 300 IN A 192.0.2.1\n", "example.org"},
		{"bad address", "a. 300 IN A 192.0.2.1\nb. 300 IN A 192.0.2.256\n", "line: 2"},
		{"bad type", "a. 300 IN NONSENSE x\n", "line: 1"},
		{"include", "$INCLUDE /etc/passwd\n", "$INCLUDE"},
		{"other class", "a. 300 CH TXT x\n", "class IN"},
		{"too many records", strings.Repeat("$GENERATE 0-65535 a. 300 IN A 192.0.2.1\n", 3), "more than 131072 records"},
		{"too large", strings.Repeat(";", 16<<20) + "\n", "larger than 16 MiB"},
		{"broken JSON", `{"a": `, "unexpected end"},
		{"number", `{"a": 1}`, `"a": the value is a string`},
		{"list of numbers", `{"a": [1]}`, `"a": a list holds strings only`},
		{"bad rcode", `{"a": {"rcode": "OOPS"}}`, `rcode "OOPS" is neither`},
		{"bad data", `{"a/MX": "mx.example."}`, "a MX"},
		{"two lines", `{"a/A": "192.0.2.1\nb. 300 IN A 192.0.2.2"}`, "more than one line"},
		{"no data", `{"a/A": ""}`, "a A"},
		{"comment as data", `{"a/A": "; x"}`, "a A"},
		{"bad name", `{"a..b": "x"}`, `"a..b": not a domain name`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := resolver.ParseZone("my.zone", strings.NewReader(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "my.zone: ") {
				t.Errorf("got %v, want my.zone: ...%s...", err, tt.want)
			}
		})
	}
}

func TestZoneChanges(t *testing.T) {
	z := resolver.NewZone()
	set := func(name string, qtype resolver.Type, data ...string) {
		t.Helper()
		if err := z.Set(name, qtype, data...); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, z, "a.example.org", resolver.TypeA, resolver.ErrNotFound)
	set("a.example.org", resolver.TypeA, "192.0.2.1")
	set("A.Example.org.", resolver.TypeTXT, "x")
	expect(t, z, "a.example.org", resolver.TypeA, nil)
	expect(t, z, "example.org", resolver.TypeA, resolver.ErrNoData)
	if err := z.Fail("a.example.org", resolver.TypeA, "SERVFAIL"); err != nil {
		t.Fatal(err)
	}
	expect(t, z, "a.example.org", resolver.TypeA, resolver.ErrTemporary)
	expect(t, z, "a.example.org", resolver.TypeTXT, nil)
	set("a.example.org", resolver.TypeA, "192.0.2.2")
	expect(t, z, "a.example.org", resolver.TypeA, nil)
	z.Remove("a.example.org", resolver.TypeA)
	z.Remove("a.example.org", resolver.TypeA)
	z.Remove("never.example.org", resolver.TypeA)
	expect(t, z, "a.example.org", resolver.TypeA, resolver.ErrNoData)
	z.Remove("a.example.org", resolver.TypeTXT)
	expect(t, z, "a.example.org", resolver.TypeTXT, resolver.ErrNotFound)
	expect(t, z, "example.org", resolver.TypeA, resolver.ErrNotFound)
	set("*", resolver.TypeA, "192.0.2.3")
	expect(t, z, "anything.at.all", resolver.TypeA, nil)
	set("sub.*.org", resolver.TypeA, "192.0.2.3") // RFC 4592 4.9: a wildcard that is only a path
	expect(t, z, "x.org", resolver.TypeA, resolver.ErrNoData)
}

func TestZoneIsConcurrent(t *testing.T) {
	z := parse(t, world)
	d := serve(t, z)
	c := client(t, 0, d)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 100 {
				z.Set("b.example.org", resolver.TypeA, "192.0.2.9")
				z.Lookup(t.Context(), "x.wild.example.org", resolver.TypeA)
				c.Lookup(t.Context(), fmt.Sprintf("%d.wild.example.org", i), resolver.TypeA)
				z.Fail("b.example.org", resolver.TypeA, "TIMEOUT")
				z.Remove("b.example.org", resolver.TypeA)
			}
		})
	}
	wg.Wait()
}
