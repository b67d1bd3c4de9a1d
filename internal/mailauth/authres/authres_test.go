package authres

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/authres"
)

// ours is what onward writes of a message, every method and property.
var ours = Header{ID: "mx.example.org", Results: []Result{
	{Method: "spf", Value: "pass", Properties: []Property{
		{"smtp", "mailfrom", "bounce+list=a.b@list.example"}, {"smtp", "helo", "out.list.example"}}},
	{Method: "dkim", Value: "fail", Reason: "body hash did not verify", Properties: []Property{
		{"header", "d", "author.example"}, {"header", "s", "2024._x"}, {"header", "a", "rsa-sha256"}, {"header", "b", "ab/+9=cd"}}},
	{Method: "dkim", Value: "pass", Comment: "2048-bit key", Properties: []Property{
		{"header", "d", "xn--bcher-kva.example"}, {"header", "i", "@xn--bcher-kva.example"}}},
	{Method: "arc", Value: "none"},
	{Method: "dmarc", Value: "fail", Comment: "p=reject", Properties: []Property{
		{"header", "from", "author.example"}, {"policy", "dmarc", "reject"}}},
	{Method: "iprev", Value: "pass", Properties: []Property{{"policy", "iprev", "2001:db8::25"}}},
}}

const oursText = "Authentication-Results: mx.example.org;\r\n" +
	"\tspf=pass smtp.mailfrom=bounce+list=a.b@list.example\r\n" +
	"\tsmtp.helo=out.list.example;\r\n" +
	"\tdkim=fail reason=\"body hash did not verify\" header.d=author.example\r\n" +
	"\theader.s=2024._x header.a=rsa-sha256 header.b=\"ab/+9=cd\";\r\n" +
	"\tdkim=pass (2048-bit key) header.d=xn--bcher-kva.example\r\n" +
	"\theader.i=@xn--bcher-kva.example;\r\n" +
	"\tarc=none;\r\n" +
	"\tdmarc=fail (p=reject) header.from=author.example policy.dmarc=reject;\r\n" +
	"\tiprev=pass policy.iprev=\"2001:db8::25\"\r\n"

func TestField(t *testing.T) {
	if got := string(ours.Field()); got != oursText {
		t.Errorf("got\n%s\nwant\n%s", got, oursText)
	}
	if got := string(Header{ID: "mx.example.org"}.Field()); got != "Authentication-Results: mx.example.org; none\r\n" {
		t.Errorf("no results: %q", got)
	}
	want := "ARC-Authentication-Results: i=7;" + strings.TrimPrefix(oursText, "Authentication-Results:")
	if got := string(ours.ARCField(7)); strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("ARC: %s", got)
	}
}

func TestRoundTrip(t *testing.T) {
	got, err := Parse(strings.TrimPrefix(oursText, "Authentication-Results:"))
	if err != nil || !reflect.DeepEqual(got, ours) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, ours)
	}
	_, body, _ := strings.Cut(string(ours.ARCField(50)), ":")
	instance, rest, err := ParseInstance(body)
	if err != nil || instance != 50 {
		t.Errorf("instance %d, %v", instance, err)
	}
	if got, err := Parse(rest); err != nil || !reflect.DeepEqual(got, ours) {
		t.Errorf("ARC: %v\n got %+v\nwant %+v", err, got, ours)
	}
}

// TestParse reads what others write, in the ways they write it. The expected
// side is ours: what Field makes of the same thing, white space squeezed.
func TestParse(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"example.com; none", "example.com; none"},
		{"example.com 1; none", "example.com; none"},
		{"example.com", "example.com; none"},
		{"example.com;", "example.com; none"},
		{"example.com; none;", "example.com; none"},
		{"example.com 1; none (nothing to see)", "example.com; none"},
		{"example.com; spf=pass;", "example.com; spf=pass"},
		{"example.com;; spf=pass ;; dkim=none", "example.com; spf=pass; dkim=none"},
		{`"example.com"; spf=pass`, "example.com; spf=pass"},
		{`"two words"; spf=pass`, `"two words"; spf=pass`},
		{"example.com; SPF=PASS SMTP.MailFrom=Ann@Example.NET", "example.com; spf=pass smtp.mailfrom=Ann@Example.NET"},
		{" \r\n\texample.com\r\n (of (nested \\) things))\r\n\t1 (one)\r\n ;\r\n spf\r\n (a) =\r\n (b) pass\r\n (c) smtp (d) . (e) mailfrom (f) = (g) x.test (h)\r\n",
			"example.com; spf=pass (c) smtp.mailfrom=x.test"},
		{"example.com; spf/1=pass", "example.com; spf=pass"},
		{"example.com; spf / 1 = pass", "example.com; spf=pass"},
		{"example.com; dkim=pass (good; header.d=evil.test) header.d=real.test", "example.com; dkim=pass (good? header.d=evil.test) header.d=real.test"},
		{`example.com; dkim=pass (quoted \) parenthesis; dkim=fail) header.d=real.test`, "example.com; dkim=pass (quoted ?? parenthesis? dkim=fail) header.d=real.test"},
		{`example.com; dkim=pass reason="a; dkim=fail" header.d=real.test`, `example.com; dkim=pass reason="a? dkim?fail" header.d=real.test`},
		{`example.com; dkim=pass header.d="re\al.te"st`, "example.com; dkim=pass header.d=real.test"},
		{"example.com; spf=pass smtp.mailfrom = a@b.test", "example.com; spf=pass smtp.mailfrom=a@b.test"},
		{`example.com; auth=pass (cram-md5) smtp.auth="a b"@c.test`, "example.com; auth=pass (cram-md5) smtp.auth=c.test"},
		{"mx.google.com; dkim=pass header.i=@a.test header.s=s1 header.b=\"x/y\"; arc=pass (i=1 spf=pass spfdomain=a.test dkim=pass dkdomain=a.test dmarc=pass fromdomain=a.test); spf=pass (google.com: domain of b@a.test designates 192.0.2.1 as permitted sender) smtp.mailfrom=b@a.test; dmarc=pass (p=REJECT sp=REJECT dis=NONE) header.from=a.test; dara=pass header.i=@gmail.com",
			"mx.google.com; dkim=pass header.i=@a.test header.s=s1 header.b=\"x/y\"; arc=pass (i=1 spf=pass spfdomain=a.test dkim=pass dkdomain=a.test dmarc=pass fromdomain=a.test); spf=pass (google.com: domain of b@a.test designates 192.0.2.1 as permitted sender) smtp.mailfrom=b@a.test; dmarc=pass (p=REJECT sp=REJECT dis=NONE) header.from=a.test; dara=pass header.i=@gmail.com"},
		{"mx.microsoft.com 1; spf=pass (sender ip is 192.0.2.1) smtp.rcpttodomain=b.test smtp.mailfrom=a.test; dmarc=pass (p=none sp=none pct=100) action=none header.from=a.test; dkim=pass (signature was verified) header.d=a.test; arc=none (0)",
			"mx.microsoft.com; spf=pass (sender ip is 192.0.2.1) smtp.rcpttodomain=b.test smtp.mailfrom=a.test; dmarc=pass (p=none sp=none pct=100) action=none header.from=a.test; dkim=pass (signature was verified) header.d=a.test; arc=none (0)"},
		{"atlas.mail.yahoo.com; dkim=pass header.i=@a.test header.s=s1; spf=none smtp.mailfrom=a.test; dmarc=success(p=REJECT) header.from=a.test", "atlas.mail.yahoo.com; dkim=pass header.i=@a.test header.s=s1; spf=none smtp.mailfrom=a.test; dmarc=success (p=REJECT) header.from=a.test"},
	} {
		h, err := Parse(tt.in)
		if err != nil {
			t.Errorf("%q: %v", tt.in, err)
			continue
		}
		_, got, _ := strings.Cut(string(h.Field()), ": ")
		if got = strings.Join(strings.Fields(got), " "); got != tt.want {
			t.Errorf("%q\n got %s\nwant %s", tt.in, got, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, in := range []string{
		"", " ", ";", "; spf=pass", "(comment)", "(open; spf=pass", `"open; spf=pass`, "spf=pass smtp.mailfrom=a.test",
		"example.com x; spf=pass", "example.com 1 1; spf=pass", "example.com; spf", "example.com; spf=", "example.com; =pass",
		"example.com; spf=pass smtp.mailfrom", "example.com; spf=pass .mailfrom=a", "example.com; spf=pass dkim=pass=x header",
		"example.com; spf=pass (open", `example.com; spf=pass reason="open`, "example.com; none none", "example.com; spf=pass, dkim=pass",
		"example.com; " + strings.Repeat("x", 65) + "=pass", "example.com; " + strings.Repeat("spf=pass;", 101),
		"example.com; spf=pass" + strings.Repeat(" a.b=c", 51),
	} {
		if h, err := Parse(in); err == nil {
			t.Errorf("%.80q: %+v", in, h)
		}
	}
}

func TestParseInstance(t *testing.T) {
	for _, tt := range []struct {
		in       string
		instance int
		rest     string
	}{
		{"i=1; a.test; none", 1, " a.test; none"},
		{" (first) i (tag) = (number) 12 (end) ; a.test", 12, " a.test"},
		{"i=50;", 50, ""},
		{"i=01;x", 1, "x"},
		{"i=0;x", 0, "x"},
		{"i=;x", -1, ""}, {"i=x;", -1, ""}, {"i=-1;", -1, ""}, {"i=001;", -1, ""}, {"i=1", -1, ""}, {"i=1 a.test; none", -1, ""},
		{"I=1; x", -1, ""}, {"a.test; i=1", -1, ""}, {"", -1, ""}, {"i", -1, ""}, {"(open i=1;", -1, ""},
	} {
		instance, rest, err := ParseInstance(tt.in)
		if (err != nil) != (tt.instance < 0) || err == nil && (instance != tt.instance || rest != tt.rest) {
			t.Errorf("%q: %d, %q, %v", tt.in, instance, rest, err)
		}
	}
}

// hostile are values that a stranger may choose, and would like to see read as
// something else.
var hostile = []string{
	"x\r\nAuthentication-Results: mx.example.org; dmarc=pass", "x\r\n\r\nbody", "x\ny", "x\ry", "x\x00y", "\x7f\x1b[31m",
	"x; dkim=pass header.d=bank.test", "x dkim=pass header.d=bank.test", `x" header.d=bank.test "`, `x\`, `\"; dkim=pass`,
	"x (", "x )", "(((", "x) header.d=bank.test (", "x=header.d=bank.test", "bücher", "\xff\xfe", "a@b@bank.test",
	`"a; dkim=pass header.d=bank.test"@x.test`, `a"b@x.test`, "a b@x.test", "a(b@x.test", "a;dkim=pass@x.test", "a@x.test; dkim=pass",
	"=?utf-8?q?=3B?=", strings.Repeat("a", 2000), strings.Repeat("a b", 700), strings.Repeat("é", 900), "", " ", "\t", ";", `"`, `""`,
}

// TestHostileValues holds every hostile value, in every place, against four
// readers: our own, one that splits at each semicolon (go-msgauth), one that
// splits at white space, and one that looks at lines only.
func TestHostileValues(t *testing.T) {
	for _, v := range hostile {
		h := Header{ID: "mx.example.org", Results: []Result{
			{Method: "spf", Value: "fail", Comment: v, Reason: v, Properties: []Property{{"smtp", "mailfrom", v}, {"smtp", "helo", v}}},
			{Method: "dmarc", Value: "fail", Properties: []Property{{"header", "from", v}}},
		}}
		field := h.Field()
		for line := range bytes.SplitSeq(bytes.TrimSuffix(field, []byte("\r\n")), []byte("\r\n")) {
			if len(line) > 998 || bytes.ContainsAny(line, "\r\n\x00") || len(bytes.TrimSpace(line)) == 0 {
				t.Errorf("%q: line %q", v, line)
			}
		}
		for i, line := range bytes.Split(field, []byte("\r\n")) {
			if i > 0 && len(line) > 0 && line[0] != '\t' {
				t.Errorf("%q: line %q begins a field", v, line)
			}
		}
		_, body, _ := strings.Cut(string(field), ":")
		got, err := Parse(body)
		if err != nil || len(got.Results) != 2 || got.Results[0].Value != "fail" || got.Results[1].Value != "fail" ||
			len(got.Results[0].Properties) > 2 || len(got.Results[1].Properties) > 1 {
			t.Errorf("%q: %s\nis read as %+v, %v", v, field, got, err)
		}
		h.Results[0].Comment = "" // the caller's own words; it knows no comments
		_, body, _ = strings.Cut(string(h.Field()), ":")
		_, lax, err := authres.Parse(strings.Join(strings.Fields(body), " "))
		if err != nil || len(lax) != 2 {
			t.Errorf("%q: %s\nis read by go-msgauth as %+v, %v", v, body, lax, err)
			continue
		}
		for word := range strings.FieldsSeq(body) {
			if strings.HasPrefix(word, "header.d=") || strings.HasPrefix(word, "dkim=") {
				t.Errorf("%q: %s\nhas the word %q", v, body, word)
			}
		}
		if spf := lax[0].(*authres.SPFResult); spf.Value != "fail" {
			t.Errorf("%q: spf %+v", v, spf)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(strings.TrimPrefix(oursText, "Authentication-Results:"))
	f.Add("a (b(c)d\\)) 1; spf/1=pass reason=\"x;y\" smtp . mailfrom=\"a b\"@c")
	f.Add("i=1; x; none")
	f.Fuzz(func(t *testing.T, body string) {
		ParseInstance(body)
		h, err := Parse(body)
		if err != nil {
			return
		}
		again, err := Parse(strings.TrimPrefix(string(h.Field()), "Authentication-Results:"))
		if err != nil || len(again.Results) != len(h.Results) {
			t.Fatalf("%q becomes %q: %v", body, h.Field(), err)
		}
		for i, r := range again.Results {
			if was := h.Results[i]; r.Method != was.Method || r.Value != was.Value {
				t.Fatalf("%q becomes %q", body, h.Field())
			}
		}
		for line := range bytes.SplitSeq(h.Field(), []byte("\r\n")) {
			if len(line) > 998 || bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r > '~' }) {
				t.Fatalf("%q becomes line %q", body, line)
			}
		}
	})
}
