package mtasts_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"onward/internal/tlspolicy/mtasts"
)

const rfcPolicy = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n"

func TestParsePolicy(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       mtasts.Policy
	}{
		{"RFC 8461 3.2", rfcPolicy,
			mtasts.Policy{mtasts.Enforce, []string{"mail.example.com", "*.example.net", "backupmx.example.com"}, 604800 * time.Second}},
		{"RFC 8461 A", "version: STSv1\nmode: testing\nmx: mx1.example.com\nmx: mx2.example.com\nmx: mx.backup-example.com\nmax_age: 1296000\n",
			mtasts.Policy{mtasts.Testing, []string{"mx1.example.com", "mx2.example.com", "mx.backup-example.com"}, 1296000 * time.Second}},
		{"none without mx", "version: STSv1\nmode: none\nmax_age: 86400",
			mtasts.Policy{mtasts.None, nil, 86400 * time.Second}},
		{"any order, white space, case, extensions", "max_age:0 \t\r\nx-ext.1: \u00fc a b\nmx:\t *.EXAMPLE.com\nmode:enforce\nversion:STSv1",
			mtasts.Policy{mtasts.Enforce, []string{"*.example.com"}, 0}},
		{"the first of two counts", "version: STSv1\nversion: STSv2\nmode: none\nmode: enforce\nmax_age: 1\nmax_age: x",
			mtasts.Policy{mtasts.None, nil, time.Second}},
		{"empty lines", "\n\nversion: STSv1\n\r\nmode: none\nmax_age: 1\n\n\n",
			mtasts.Policy{mtasts.None, nil, time.Second}},
		{"too long a time", "version: STSv1\nmode: none\nmax_age: 9999999999",
			mtasts.Policy{mtasts.None, nil, 31557600 * time.Second}},
	} {
		got, err := mtasts.ParsePolicy([]byte(tt.text))
		if err != nil || !reflect.DeepEqual(*got, tt.want) {
			t.Errorf("%s: got %v, %v; want %v", tt.name, got, err, tt.want)
		}
	}
}

func TestParsePolicyErrors(t *testing.T) {
	for _, text := range []string{
		"",
		"<html><body>Not found</body></html>",
		"version: STSv0\nmode: none\nmax_age: 0",
		"version: STSv10\nmode: none\nmax_age: 0",
		"version: stsv1\nmode: none\nmax_age: 0",
		"mode: none\nmax_age: 0",
		"version: STSv1\nmax_age: 0\nmx: example.com",
		"version: STSv1\nmode: none",
		"version: STSv1\nmode: Enforce\nmx: a.example\nmax_age: 1",
		"version: STSv1\nmode: report\nmx: a.example\nmax_age: 1",
		"version: STSv1\nmode: enforce\nmax_age: 1",
		"version: STSv1\nmode: testing\nmax_age: 1",
		"version: STSv1\nmode: none\nmax_age: 01234567890",
		"version: STSv1\nmode: none\nmax_age: -1",
		"version: STSv1\nmode: none\nmax_age: +1",
		"version: STSv1\nmode: none\nmax_age: 1d",
		"version: STSv1\nmode: enforce\nmax_age: 1\nmx:",
		"version: STSv1\nmode: enforce\nmax_age: 1\nmx: *",
		"version: STSv1\nmode: enforce\nmax_age: 1\nmx: *.",
		"version: STSv1\nmode: enforce\nmax_age: 1\nmx: *.*.example",
		"version: STSv1\nmode: enforce\nmax_age: 1\nmx: m*.example",
		"version: STSv1\nmode: enforce\nmax_age: 1\nmx: .example.com",
		"version: STSv1\nmode: enforce\nmax_age: 1\nmx: a.example-",
		"version: STSv1\nmode: enforce\nmax_age: 1\nmx: m\u00f8x.example",
		"version: STSv1\nmode: enforce\nmax_age: 1\nmx: [192.0.2.1]",
		"version: STSv1\nmode: enforce\nmax_age: 1\nmx: 192.0.2.1",
		"version: STSv1\nmode: enforce\nmax_age: 1\nmx: a.example, b.example",
		"version: STSv1\nmode: none\nmax_age: 1\nno field",
		"version: STSv1\nmode: none\nmax_age: 1\n: x",
		"version: STSv1\nmode: none\nmax_age: 1\n_x: x",
		"version: STSv1\nmode: none\nmax_age: 1\n x: x",
		"version: STSv1\nmode: none\nmax_age: 1\nx: a\rb",
		"version: STSv1\nmode: none\nmax_age: 1\nx: a\tb",
		"version: STSv1\nmode: none\nmax_age: 1\nx: a\x00b",
		"version: STSv1\nmode: none\nmax_age: 1\na23456789012345678901234567890123: x",
		"version: STSv1; mode: none; max_age: 1",
	} {
		if got, err := mtasts.ParsePolicy([]byte(text)); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

// RFC 8461 4.1: a wildcard is one label, the left-most.
func TestMatches(t *testing.T) {
	p, err := mtasts.ParsePolicy([]byte("version: STSv1\nmode: enforce\nmax_age: 1\nmx: *.example.com\nmx: Mail.Example.NET\n"))
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"mx.example.com": true, "MX.EXAMPLE.com": true, "mx.example.com.": true, "_x.example.com": true,
		"example.com": false, "a.b.example.com": false, "mxexample.com": false, "mx.example.com.evil.test": false,
		"mail.example.net": true, "x.mail.example.net": false, "example.net": false, "xmail.example.net": false,
		"": false, ".": false, "com": false, ".example.com": true, // no host has this name
		"[192.0.2.1]": false,
	} {
		if got := p.Matches(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}

func TestParseRecord(t *testing.T) {
	for _, tt := range []struct {
		texts []string
		want  string // "" when there is none
	}{
		{[]string{"v=STSv1; id=20160831085700Z;"}, "20160831085700Z"}, // RFC 8461 3.1
		{[]string{"v=STSv1;id=a"}, "a"},
		{[]string{"v=STSv1 \t; \t id=a \t;"}, "a"},
		{[]string{"v=STSv1; id=a; more=a; ext=2"}, "a"},
		{[]string{"v=STSv1; ext.x-1_=!; id=a"}, "a"},
		{[]string{"v=STSv1; id=" + strings.Repeat("a", 32)}, strings.Repeat("a", 32)},
		{[]string{"v=spf1 -all", "v=STSv1; id=a", "v=STSv2; id=b", ""}, "a"},
		{nil, ""},
		{[]string{"v=STSv1; id=a", "v=STSv1; id=b"}, ""},
		{[]string{"v=STSv1; id=a", "v=STSv1"}, ""}, // two are two, broken or not
		{[]string{"v=STSv0; id=a"}, ""},
		{[]string{"v=STSv10; id=a"}, ""},
		{[]string{"V=STSv1; id=a"}, ""},
		{[]string{"v=stsv1; id=a"}, ""},
		{[]string{" v=STSv1; id=a"}, ""},
		{[]string{"v = STSv1; id=a"}, ""},
		{[]string{"id=a; v=STSv1"}, ""},
		{[]string{"v=STSv1"}, ""},
		{[]string{"v=STSv1;"}, ""},
		{[]string{"v=STSv1; ext=1"}, ""},
		{[]string{"v=STSv1; id="}, ""},
		{[]string{"v=STSv1; id = a"}, ""},
		{[]string{"v=STSv1; ID=a"}, ""},
		{[]string{"v=STSv1; id=" + strings.Repeat("a", 33)}, ""},
		{[]string{"v=STSv1; id=test-123"}, ""},
		{[]string{"v=STSv1; id=a; more="}, ""},
		{[]string{"v=STSv1; id=a; more"}, ""},
		{[]string{"v=STSv1; id=a; a12345678901234567890123456789012=1"}, ""},
		{[]string{"v=STSv1; id=a; 1%=a"}, ""},
		{[]string{"v=STSv1; id=a; test=="}, ""},
		{[]string{"v=STSv1; id=a; test=\u00fc"}, ""},
		{[]string{"v=STSv1; id=a;;"}, ""},
		{[]string{"v=STSv1;; id=a"}, ""},
	} {
		got, err := mtasts.ParseRecord(tt.texts)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q: got %q, %v; want %q", tt.texts, got, err, tt.want)
		}
	}
}

// FuzzParsePolicy: what is read can be written and read again, and is bounded.
func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte(rfcPolicy))
	f.Add([]byte("version:STSv1\nmode:\tnone\nmax_age: 9999999999\nx: \u00fc"))
	f.Add([]byte("version: STSv1\nmode: testing\nmx: *.a\nmax_age: 0"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := mtasts.ParsePolicy(text)
		if err != nil {
			return
		}
		if p.MaxAge < 0 || p.MaxAge > 31557600*time.Second || p.Mode != mtasts.None && len(p.MX) == 0 {
			t.Errorf("got %+v", p)
		}
		again, err := mtasts.ParsePolicy([]byte(strings.Join(p.Lines(), "\n")))
		if err != nil || !reflect.DeepEqual(again, p) {
			t.Errorf("%+v became %+v, %v", p, again, err)
		}
		for _, mx := range p.MX {
			if host := strings.Replace(mx, "*", "x", 1); !p.Matches(host) || mx[0] == '*' && p.Matches("y."+host) && len(p.MX) == 1 {
				t.Errorf("%+v and %q", p, host)
			}
		}
	})
}

// FuzzParseRecord: an id is what the grammar says.
func FuzzParseRecord(f *testing.F) {
	f.Add("v=STSv1; id=20160831085700Z;")
	f.Add("v=STSv1 ; \t id=a; x.y=!")
	f.Add("v=STSv1;;id=a")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := mtasts.ParseRecord([]string{text, "v=spf1 -all"})
		if err == nil && (id == "" || len(id) > 32 || strings.ContainsAny(id, " ;=\r\n\x00/.")) {
			t.Errorf("%q has id %q", text, id)
		}
		if err != nil && id != "" {
			t.Errorf("%q has id %q and %v", text, id, err)
		}
	})
}
