package address

import (
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, tt := range []struct{ in, local, domain, out string }{
		{"ada@example.org", "ada", "example.org", "ada@example.org"},
		{"Ada.L@EXAMPLE.Org", "Ada.L", "example.org", "Ada.L@example.org"},
		{"a+b=c!#$%&'*/?^_`{|}~-@example.org", "a+b=c!#$%&'*/?^_`{|}~-", "example.org", "a+b=c!#$%&'*/?^_`{|}~-@example.org"},
		{`"a b"@example.org`, "a b", "example.org", `"a b"@example.org`},
		{`"a@b"@example.org`, "a@b", "example.org", `"a@b"@example.org`},
		{`"a\"\\b"@example.org`, `a"\b`, "example.org", `"a\"\\b"@example.org`},
		{`"ada"@example.org`, "ada", "example.org", "ada@example.org"},
		{`"ada."@example.org`, "ada.", "example.org", `"ada."@example.org`},
		{"ada@bücher.example", "ada", "xn--bcher-kva.example", "ada@xn--bcher-kva.example"},
		{"ada@xn--bcher-kva.example", "ada", "xn--bcher-kva.example", "ada@xn--bcher-kva.example"},
		{"jürgen@example.org", "jürgen", "example.org", "jürgen@example.org"},
		{"ada@[192.0.2.1]", "ada", "[192.0.2.1]", "ada@[192.0.2.1]"},
		{"ada@[ipv6:2001:DB8::1]", "ada", "[IPv6:2001:db8::1]", "ada@[IPv6:2001:db8::1]"},
		{"ada@under_score.example", "ada", "under_score.example", "ada@under_score.example"},
		{"ada@localhost", "ada", "localhost", "ada@localhost"},
		{long + "@example.org", long, "example.org", long + "@example.org"},
	} {
		m, err := Parse(tt.in)
		if err != nil || m.Local != tt.local || string(m.Domain) != tt.domain || m.String() != tt.out {
			t.Errorf("Parse(%q) = %q %q %q, %v; want %q %q %q", tt.in, m.Local, m.Domain, m, err, tt.local, tt.domain, tt.out)
		}
	}
}

// TestParseRefuses holds what two programs could read in two ways
// (RELIABILITY 17, 18; DEPENDENCIES.md A4).
func TestParseRefuses(t *testing.T) {
	for _, in := range []string{
		"", "ada", "@example.org", "ada@", "ada@@example.org", "a@b@example.org", ".ada@example.org", "ada.@example.org",
		"a..b@example.org", "a b@example.org", "a(c)b@example.org", "ada@exam ple.org", "ada@example..org", "ada@.example.org",
		"ada@example.org.", "ada@-example.org", "ada@example-.org", "ada@ex(c)ample.org", "ada@example.org>", "<ada@example.org",
		"ada\r@example.org", "ada@example.org\r\n", "ada\x00@example.org", "ada@exa\x00mple.org", "\xff\xfe@example.org",
		`"ada@example.org`, `"ada"b@example.org`, `""@example.org`, "\"a\rb\"@example.org", "\"a\\\nb\"@example.org", `"a\`, `"ada"`,
		"ada@1", "ada@example.123", "ada@192.0.2.1", "ada@[192.0.2.1", "ada@[192.0.2]", "ada@[2001:db8::1]", "ada@[IPv6:192.0.2.1]",
		"ada@[IPv6:fe80::1%eth0]", "ada@[]", "ada@" + strings.Repeat("a", 64) + ".example", "victim@evil.test> SIZE=9 X@x",
		"ada@a%b.example", "ada@exämple!.example",
	} {
		if m, err := Parse(in); err == nil {
			t.Errorf("Parse(%q) = %q, want an error", in, m)
		}
	}
	for _, in := range []string{
		strings.Repeat("a", 65) + "@example.org",
		`"` + strings.Repeat(`\"`, 32) + `"@example.org`,
		"ada@" + strings.Repeat("abcdefghi.", 25) + "example",
	} {
		if _, err := Parse(in); !errors.Is(err, ErrTooLong) {
			t.Errorf("Parse(%q): %v, want ErrTooLong", in, err)
		}
	}
}

func TestParsePath(t *testing.T) {
	for in, want := range map[string]string{
		"PostMaster":                                "PostMaster",
		"ada@example.org":                           "ada@example.org",
		"@relay.example:ada@example.org":            "ada@example.org",
		"@a.example,@b.example:\"x y\"@example.org": `"x y"@example.org`,
	} {
		if m, err := ParsePath(in); err != nil || m.String() != want {
			t.Errorf("ParsePath(%q) = %q, %v; want %q", in, m, err, want)
		}
	}
	for _, in := range []string{"@relay.example", "@:ada@example.org", "@a,b:ada@example.org", "@a.example:", "ada", "@a.example:postmaster"} {
		if m, err := ParsePath(in); err == nil {
			t.Errorf("ParsePath(%q) = %q, want an error", in, m)
		}
	}
	if p, err := ParseReversePath(""); err != nil || !p.IsNull() || p.String() != "" {
		t.Errorf("null sender: %v, %v", p, err)
	}
	if _, err := ParseReversePath("postmaster"); err == nil {
		t.Error("a sender without a domain was taken")
	}
}

// FuzzParse holds that what is parsed can be printed and parsed again to the
// same value, and that the printed form is safe between angle brackets.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"ada@example.org", `"a\"b c"@[192.0.2.1]`, "jürgen@bücher.example", "@r.example:a@b.example", `"\@"@x.example`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParsePath(s)
		if err != nil {
			return
		}
		out := m.String()
		again, err := ParsePath(out)
		if err != nil || again != m {
			t.Fatalf("%q -> %q -> %q, %v", s, out, again, err)
		}
		if strings.ContainsAny(out, "\r\n\x00") || len(out) > MaxPath || len(m.Local) > MaxLocal {
			t.Fatalf("%q -> unsafe %q", s, out)
		}
		if !m.Quoted() && strings.ContainsAny(out, "<> \"()") {
			t.Fatalf("%q -> %q needs quotes", s, out)
		}
	})
}

// TestLongLabel holds that a label which fits in no form is refused before the
// work of turning it into ASCII, which grows with the square of its length.
func TestLongLabel(t *testing.T) {
	for _, s := range []string{strings.Repeat("網", 64) + ".example", "a。" + strings.Repeat("ü", 64), strings.Repeat("a", 64) + ".example"} {
		if d, err := ParseDomain(s); !errors.Is(err, ErrTooLong) {
			t.Errorf("%q: %q, %v", s, d, err)
		}
	}
	if _, err := ParseDomain(strings.Repeat("a", 63) + "。" + strings.Repeat("b", 63) + ".example"); err != nil {
		t.Error(err)
	}
}

func TestRegistered(t *testing.T) {
	for d, want := range map[Domain]Domain{
		"a.b.example.co.uk": "example.co.uk", "example.org": "example.org", "co.uk": "co.uk", "x1.evil.example": "evil.example",
		"[192.0.2.1]": "[192.0.2.1]", "localhost": "localhost", "": "",
	} {
		if got := d.Registered(); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}

// TestDeceives holds that what a terminal would obey, or what shows an address
// other than it is, is no address.
func TestDeceives(t *testing.T) {
	for _, s := range []string{"\u009b2Ja@example.org", "a\u0085b@example.org", "gro.\u202eb@example.org", "\"a\u2028b\"@example.org", "a\u2066@example.org"} {
		if m, err := Parse(s); err == nil {
			t.Errorf("%q is %q", s, m)
		}
	}
	for _, s := range []string{"ada.ü@example.org", "علی\u200cرضا@example.org", "王@example.org"} {
		if _, err := Parse(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
}
