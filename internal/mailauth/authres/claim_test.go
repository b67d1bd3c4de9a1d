package authres

import (
	"strings"
	"testing"

	"onward/internal/address"
	"onward/internal/message"
)

// me is our name in both forms: bücher.example.
const me = address.Domain("mx.xn--bcher-kva.example")

var claims = []struct {
	field string
	want  bool
}{
	// Ours, in every spelling (R1).
	{"Authentication-Results: ME; spf=pass", true},
	{"authentication-results: ME; spf=pass", true},
	{"AUTHENTICATION-RESULTS:ME;spf=pass", true},
	{"Authentication-Results : ME; spf=pass", true},
	{"Authentication-Results: ME", true},
	{"Authentication-Results: ME;", true},
	{"Authentication-Results: ME; none", true},
	{"Authentication-Results: MX.XN--BCHER-KVA.EXAMPLE; spf=pass", true},
	{"Authentication-Results: Mx.Xn--Bcher-Kva.Example; spf=pass", true},
	{"Authentication-Results: ME.; spf=pass", true},
	{"Authentication-Results: ME..; spf=pass", true},
	{"Authentication-Results: ME 1; spf=pass", true},
	{"Authentication-Results: ME 99; spf=pass", true},
	{"Authentication-Results: ME x; spf=pass", true},
	{"Authentication-Results: ME/1; spf=pass", true},
	{"Authentication-Results: ME 1 2; spf=pass", true},
	{"Authentication-Results:\r\n ME; spf=pass", true},
	{"Authentication-Results:\r\n\t\r\n ME\r\n ;\r\n spf=pass", true},
	{"Authentication-Results: (x) ME; spf=pass", true},
	{"Authentication-Results: (x (y) \\) z)ME(v)1(w); spf=pass", true},
	{"Authentication-Results: (evil.test;) ME; spf=pass", true},
	{"Authentication-Results: ( ME; spf=pass", true},
	{"Authentication-Results: evil.test ( ME; spf=pass", true},
	{"Authentication-Results: evil.test ) ME; spf=pass", true},
	{"Authentication-Results: \"ME\"; spf=pass", true},
	{"Authentication-Results: \"m\\x.xn--bcher-kva.example\"; spf=pass", true},
	{"Authentication-Results: \" ME \"; spf=pass", true},
	{"Authentication-Results: \"ME; spf=pass", true},
	{"Authentication-Results: mx.\"xn--bcher-kva\".example; spf=pass", true},
	{"Authentication-Results: mx. xn--bcher-kva .example; spf=pass", true},
	{"Authentication-Results: mx.(x)xn--bcher-kva.(y)example; spf=pass", true},
	{"Authentication-Results: mx.xn--bcher-kva.exam\r\n ple; spf=pass", true},
	{"Authentication-Results: m\\x.xn--bcher-kva.example; spf=pass", true},
	{"Authentication-Results: m\x00x.xn--bcher-kva.example; spf=pass", true},
	{"Authentication-Results: mx.xn--bcher-kva.example\x0b; spf=pass", true},
	{"Authentication-Results: ME, evil.test; spf=pass", true},
	{"Authentication-Results: evil.test, ME; spf=pass", true},
	{"Authentication-Results: <ME>; spf=pass", true},
	{"Authentication-Results: [ME]; spf=pass", true},
	{"Authentication-Results: @ME; spf=pass", true},
	{"Authentication-Results: ME:25; spf=pass", true},
	{"Authentication-Results: =ME; spf=pass", true},
	{"Authentication-Results: ; ME; spf=pass", true},
	{"Authentication-Results: mx.bücher.example; spf=pass", true},
	{"Authentication-Results: MX.BÜCHER.EXAMPLE; spf=pass", true},
	{"Authentication-Results: mx.bu\u0308cher.example; spf=pass", true},
	{"Authentication-Results: \"mx.bücher.example.\" 1; spf=pass", true},
	{"Authentication-Results: ｍｘ。bücher。example; spf=pass", true},
	{"Authentication-Results: mx.b\xfccher.example; spf=pass", true},
	{"Authentication-Results: \u200bmx.bücher.example; spf=pass", true},
	{"Authentication-Results: =?utf-8?q?mx=2Exn--bcher-kva=2Eexample?=; spf=pass", true},
	{"Authentication-Results: =?utf-8?b?bXgu?= x; spf=pass", true},
	{"Authentication-Results: spf=pass smtp.helo=ME", true},

	// Others' (R4).
	{"Authentication-Results: evil.test; spf=pass", false},
	{"Authentication-Results: mx.google.com; spf=pass smtp.helo=ME", false},
	{"Authentication-Results: mx.google.com; spf=pass (google.com: domain of ME) smtp.mailfrom=ME", false},
	{"Authentication-Results: mx.google.com (ME); spf=pass", false},
	{"Authentication-Results: ME.evil.test; spf=pass", false},
	{"Authentication-Results: not-ME; spf=pass", false},
	{"Authentication-Results: smtp.ME; spf=pass", false},
	{"Authentication-Results: xn--bcher-kva.example; spf=pass", false},
	{"Authentication-Results: mx.bucher.example; spf=pass", false},
	{"Authentication-Results: \"evil test\"; spf=pass", false},
	{"Authentication-Results: spf=pass (sender IP is 192.0.2.1) smtp.mailfrom=evil.test; dkim=none", false},
	{"Authentication-Results: a_b-c; spf=pass", false},
	{"Authentication-Results: 192.0.2.1; spf=pass", false},
	{"Authentication-Results:", false},
	{"X-Authentication-Results: ME; spf=pass", false},
	{"ARC-Authentication-Results: i=1; ME; spf=pass", false}, // A1
	{"Authentication-Results-Original: ME; spf=pass", false},
	{"Subject: ME; spf=pass", false},

	// Received-SPF (R5).
	{"Received-SPF: pass (ME: domain of ann@a.test designates 192.0.2.1 as permitted sender) client-ip=192.0.2.1", true},
	{"Received-SPF: pass (mailfrom) identity=mailfrom; client-ip=192.0.2.1; receiver=ME; helo=a.test", true},
	{"received-spf: Pass receiver=\"Mx.bücher.Example.\"", true},
	{"Received-SPF: pass receiver = ( c ) ME", true},
	{"Received-SPF:\r\n pass\r\n receiver=\r\n ME;", true},
	{"Received-SPF: pass receiver=\"m\\x.xn--bcher-kva.example\"", true},
	{"Received-SPF: pass ME", true},
	{"Received-SPF: pass (google.com: domain of SRS0=a=b=c=d@ME designates 192.0.2.1) client-ip=192.0.2.1;", false},
	{"Received-SPF: pass (google.com: domain of ME designates 192.0.2.1) client-ip=192.0.2.1;", false},
	{"Received-SPF: pass (mailfrom) helo=ME; envelope-from=\"SRS0=x@ME\"; receiver=mx.google.com", false},
	{"Received-SPF: pass receiver=ME.evil.test", false},
	{"Received-SPF: pass", false},
}

func fieldOf(raw string) message.Field {
	name, _, _ := strings.Cut(raw, ":")
	return message.Field{Name: strings.TrimRight(name, " "), Raw: []byte(raw + "\r\n")}
}

func TestClaims(t *testing.T) {
	spellings := 0
	for _, tt := range claims {
		raw := strings.ReplaceAll(tt.field, "ME", me.String())
		if got := Claims(fieldOf(raw), me); got != tt.want {
			t.Errorf("%q: %v", raw, got)
		}
		if tt.want {
			spellings++
		}
	}
	t.Logf("%d spellings of our name, %d fields of others", spellings, len(claims)-spellings)
}

// FuzzStrip looks for a field whose name some reader takes for ours, and Claims
// does not: what is left must not be ours for Parse, nor bear our name between
// the colon and the first semicolon when white space, case and quotes are gone.
func FuzzStrip(f *testing.F) {
	for _, tt := range claims {
		_, body, _ := strings.Cut(strings.ReplaceAll(tt.field, "ME", me.String()), ":")
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if Claims(fieldOf(Name+":"+body), me) {
			return
		}
		if h, err := Parse(body); err == nil && strings.EqualFold(strings.TrimRight(strings.TrimSpace(h.ID), "."), me.String()) {
			t.Errorf("%q is read as ours", body)
		}
		first, _, _ := strings.Cut(body, ";")
		first = strings.ToLower(strings.Join(strings.Fields(strings.NewReplacer(`"`, "", `\`, "").Replace(first)), ""))
		if first == me.String() {
			t.Errorf("%q could be read as ours", body)
		}
	})
}
