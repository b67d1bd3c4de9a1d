package dmarc_test

import (
	"slices"
	"strings"
	"testing"

	"onward/internal/address"
	"onward/internal/mailauth/dmarc"
	"onward/internal/message"
)

// Each row is a From field; domain is the author domain, or candidates are
// what it could be (DM1, DM2, RELIABILITY 47).
func TestFrom(t *testing.T) {
	for _, tt := range []struct {
		name, in, domain, mailbox, candidates string
	}{
		{"plain", `ada@example.org`, "example.org", "ada@example.org", ""},
		{"name", `Ada Lovelace <ada@example.org>`, "example.org", "ada@example.org", ""},
		{"bare brackets", `<ada@example.org>`, "example.org", "ada@example.org", ""},
		{"space everywhere", "\t Ada  < ada @ example . org > ", "example.org", "ada@example.org", ""},
		{"case", `Ada@EXAMPLE.Org`, "example.org", "Ada@example.org", ""},
		{"trailing dot", `ada@example.org.`, "example.org", "ada@example.org", ""},
		{"U-label", `ada@bücher.example`, "xn--bcher-kva.example", "ada@xn--bcher-kva.example", ""},
		{"U-label in capitals", `ada@BÜCHER.example`, "xn--bcher-kva.example", "ada@xn--bcher-kva.example", ""},
		{"A-label", `ada@xn--bcher-kva.example`, "xn--bcher-kva.example", "ada@xn--bcher-kva.example", ""},
		{"Latin-1 name", "J\xfcrgen <ada@example.org>", "example.org", "ada@example.org", ""},
		{"encoded name", `=?utf-8?q?ceo=40bank.example?= <ada@example.org>`, "example.org", "ada@example.org", ""},
		{"name with dots", `Dr. Ada L. <ada@example.org>`, "example.org", "ada@example.org", ""},
		{"address as quoted name", `"ceo@bank.example" <ada@evil.example>`, "evil.example", "ada@evil.example", ""},
		{"brackets in quoted name", `"<ceo@bank.example>," <ada@evil.example>`, "evil.example", "ada@evil.example", ""},
		{"escaped quote in name", `"a\"<ceo@bank.example>" <ada@evil.example>`, "evil.example", "ada@evil.example", ""},
		{"address as comment", `(ceo@bank.example) ada@evil.example (<ceo@bank.example>)`, "evil.example", "ada@evil.example", ""},
		{"nested comment", `((ceo@bank.example) \) x) ada@evil.example`, "evil.example", "ada@evil.example", ""},
		{"comment after domain", `ada@evil.example(.bank.example)`, "evil.example", "ada@evil.example", ""},
		{"comment around dot", `ada@example(a).(b)org`, "example.org", "ada@example.org", ""},
		{"quoted local part", `"ceo@bank.example"@evil.example`, "evil.example", `"ceo@bank.example"@evil.example`, ""},
		{"empty elements", `, ,ada@example.org,,`, "example.org", "ada@example.org", ""},
		{"group of one", `Team: Ada <ada@example.org>;`, "example.org", "ada@example.org", ""},
		{"two of one domain", `a@example.org, B <b@EXAMPLE.org>`, "example.org", "", ""},
		{"odd local part", `a..b@example.org`, "example.org", "", ""},
		{"comment in a local part", `a(x)b@example.org`, "example.org", "", ""},

		// Malformed, but nobody can find a second domain.
		{"unquoted address as name", `ada@example.org <ada@example.org>`, "example.org", "", ""},
		{"comma in name", `Shop, Inc. <ada@example.org>`, "example.org", "", ""},
		{"comma in encoded word", `=?utf-8?q?Shop,_Inc.?= <ada@example.org>`, "example.org", "", ""},
		{"brackets in name", `Ada [list] <ada@example.org>`, "example.org", "", ""},
		{"doubled brackets", `<<ada@example.org>>`, "example.org", "", ""},
		{"no closing bracket", `Ada <ada@example.org`, "example.org", "", ""},
		{"text after", `<ada@example.org> via list`, "example.org", "", ""},
		{"open quote", `"Ada <ada@example.org>`, "example.org", "", ""},
		{"open comment", `ada@example.org (Ada`, "example.org", "", ""},
		{"address in an encoded word", `=?utf-8?q?ceo=40bank.example?=`, "bank.example", "", ""},
		{"group without end", `Team: ada@example.org`, "example.org", "", ""},

		{"group in group, one domain", `a: b: c@example.org;`, "example.org", "", ""},
		{"route, one domain", `<@example.org:ada@example.org>`, "example.org", "", ""},

		// Several.
		{"two", `a@example.org, b@example.net`, "", "", "example.org example.net"},
		{"group of two", `Team: a@example.org, b@example.net;`, "", "", "example.org example.net"},
		{"group and more", `Team: a@example.org; , b@example.net`, "", "", "example.org example.net"},
		{"unquoted foreign address as name", `ceo@bank.example <ada@evil.example>`, "", "", "bank.example evil.example"},
		{"two brackets", `<ceo@bank.example> <ada@evil.example>`, "", "", "bank.example evil.example"},
		{"route", `<@bank.example,@b.example:ada@evil.example>`, "", "", "bank.example b.example evil.example"},
		{"two at signs", `ada@bank.example@evil.example`, "", "", "bank.example evil.example"},
		{"open quote hides", `"ceo@bank.example <ada@evil.example>`, "", "", "bank.example evil.example"},
		{"open comment hides", `ada@evil.example (<ceo@bank.example>`, "", "", "evil.example bank.example"},
		{"encoded word beside a mistake", `=?utf-8?q?ceo=40bank.example?=, ada@evil.example`, "", "", "evil.example bank.example"},
		{"base64 beside a mistake", `=?x-odd?B?PGNlb0BiYW5rLmV4YW1wbGU+?=, ada@evil.example`, "", "", "evil.example bank.example"},
		{"NUL", "ceo@bank.example\x00, ada@evil.example", "", "", "bank.example evil.example"},
		{"comment before a domain", `ceo@(x)bank.example <ada@evil.example>`, "", "", "bank.example evil.example"},
		{"bare CR", "ceo@bank.example\rada@evil.example", "", "", "bank.example evil.example"},
		{"group in group", `a: b: c@example.org;, d@example.net;`, "", "", "example.org example.net"},

		// One that can be read, beside one that cannot.
		{"odd domain and another", `ceo@b%nk.example <ada@evil.example>`, "", "", "evil.example"},
		{"literal and domain", `a@[192.0.2.1], b@example.org`, "", "", "example.org"},

		// None.
		{"empty", ``, "", "", ""},
		{"null", `<>`, "", "", ""},
		{"no at", `Ada`, "", "", ""},
		{"empty group", `undisclosed:;`, "", "", ""},
		{"literal", `ada@[192.0.2.1]`, "", "", ""},
		{"no local part", `<@>`, "", "", ""},
		{"commas", `,,,`, "", "", ""},
		{"label of 64 characters", "ada@" + strings.Repeat("ü", 64) + ".example", "", "", ""},
		{"bad domain", `ada@exa_mple..org`, "", "", ""},
		{"not UTF-8", "ada@b\xfccher.example", "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := from(tt.in)
			if string(f.Domain) != tt.domain || f.Mailbox.String() != tt.mailbox {
				t.Errorf("domain %q, mailbox %q (%s); want %q, %q", f.Domain, f.Mailbox, f.Mistake, tt.domain, tt.mailbox)
			}
			if got := joined(f.Candidates); tt.domain == "" && got != tt.candidates || tt.domain != "" && got != tt.domain {
				t.Errorf("candidates %s, want %s%s", got, tt.domain, tt.candidates)
			}
			if tt.domain == "" && f.Mistake == "" {
				t.Error("no domain, and no reason why")
			}
		})
	}
}

func joined(all []address.Domain) string {
	var texts []string
	for _, d := range all {
		texts = append(texts, string(d))
	}
	return strings.Join(texts, " ")
}

// However many From fields agree, they are several (DESIGN.md 9.13).
func TestFromFields(t *testing.T) {
	if f := from(); f.Fields != 0 || f.Domain != "" || f.Mistake == "" {
		t.Errorf("no field: %+v", f)
	}
	f := from("a@example.org", "a@example.org")
	if f.Fields != 2 || f.Domain != "" || f.Mailbox != (address.Mailbox{}) || !slices.Equal(f.Candidates, []address.Domain{"example.org"}) {
		t.Errorf("two fields: %+v", f)
	}
	folded := dmarc.ParseFrom([]message.Field{
		{Name: "Subject", Raw: []byte("Subject: x\r\n")},
		{Name: "FROM", Raw: []byte("FROM :\r\n Ada\r\n\t<ada@example.org>\r\n")},
	})
	if folded.Domain != "example.org" || folded.Fields != 1 {
		t.Errorf("folded, capitals, space before the colon: %+v", folded)
	}
}

func TestFromBounds(t *testing.T) {
	var nine, many strings.Builder
	for i := range 9 {
		nine.WriteString("a@" + string(rune('a'+i)) + ".example,")
	}
	for range 200 {
		many.WriteString("a@example.org,")
	}
	if f := from(nine.String()); !f.TooMany || len(f.Candidates) != 8 || f.Domain != "" {
		t.Errorf("nine domains: %+v", f)
	}
	if f := from(slices.Repeat([]string{"a@example.org"}, 200)...); !f.TooMany || f.Domain != "" || f.Fields != 200 {
		t.Errorf("200 fields: %+v", f)
	}
	if f := from(many.String()); !f.TooMany || f.Domain != "" {
		t.Errorf("200 addresses: %+v", f)
	}
}

// FuzzFrom holds that what is found is valid, bounded and really there.
func FuzzFrom(f *testing.F) {
	for _, s := range []string{
		`"a\"b" <a@example.org>`, `(c(d)) a.b@[192.0.2.1], <@x.example:b@c.example>`, `g: a@b.example;, =?utf-8?q?=40c.example?=`,
		"ü@bücher.example.", `a@b(c).d`, `a@b@c`, `=?x?b?QA==?=a.example, x`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got := from(value)
		if len(got.Candidates) > 8 || got.Fields != 1 {
			t.Fatalf("out of bounds: %+v", got)
		}
		for i, d := range got.Candidates {
			if again, err := address.ParseDomain(string(d)); err != nil || again != d || d.IsLiteral() {
				t.Fatalf("candidate %q is no domain: %v", d, err)
			}
			if slices.Contains(got.Candidates[:i], d) {
				t.Fatalf("candidate %q twice", d)
			}
		}
		if got.Domain != "" && (len(got.Candidates) != 1 || got.Candidates[0] != got.Domain) {
			t.Fatalf("domain %q beside candidates %q", got.Domain, got.Candidates)
		}
		if got.Mailbox != (address.Mailbox{}) && !slices.Contains(got.Candidates, got.Mailbox.Domain) {
			t.Fatalf("mailbox %q beside candidates %q", got.Mailbox, got.Candidates)
		}
		if got.Domain == "" && got.Mistake == "" {
			t.Fatal("no domain, and no reason")
		}
	})
}

func BenchmarkFromCommas(b *testing.B) {
	var long, labels strings.Builder // the slowest to turn into ASCII
	for i := range 330 {
		long.WriteRune(rune(0x4e00 + i*61%20_000))
		labels.WriteRune(rune(0x4e00 + i*61%20_000))
		if i%20 == 19 {
			labels.WriteByte('.')
		}
	}
	for name, value := range map[string]string{
		"200000 commas":    strings.Repeat(",", 200_000) + "a@example.org",
		"addresses":        strings.Repeat("a@b.c,", 40_000),
		"at signs":         strings.Repeat("@", 240_000),
		"encoded words":    strings.Repeat("=?a?q?", 40_000),
		"words in a row":   strings.Repeat("=?a?q?=40a?= ", 18_000),
		"open comments":    strings.Repeat("(", 240_000),
		"quoted strings":   strings.Repeat(`""`, 120_000),
		"words":            strings.Repeat("a ", 120_000),
		"long U-labels":    strings.Repeat("a@"+long.String()+",", 250),
		"U-labels at once": strings.Repeat("@"+long.String(), 250),
		"many U-labels":    strings.Repeat("@"+labels.String()+"example", 250),
		"short U-labels":   strings.Repeat("@ü.ü", 40_000),
		"comments, commas": strings.Repeat("(),", 80_000),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				from(value)
			}
		})
	}
}

// TestNobody holds what a bounce may have in From without impersonating
// anybody.
func TestNobody(t *testing.T) {
	for value, want := range map[string]bool{
		"<>": true, "": true, "MAILER-DAEMON": true, "Mail Delivery System <MAILER-DAEMON>": true, "undisclosed:;": true,
		"a@b.example": false, "a@": false, "<a@-bad-.example>": false, "a\uff20b.example": false, "=?utf-8?q?a=40b.example?=": false, "x <a@rej\x00.example>": false,
	} {
		field := message.Field{Name: "From", Raw: []byte("From: " + value + "\r\n")}
		if f := dmarc.ParseFrom([]message.Field{field}); f.Nobody != want {
			t.Errorf("%q: %v, want %v", value, f.Nobody, want)
		}
		if f := dmarc.ParseFrom([]message.Field{field, field}); f.Nobody {
			t.Errorf("%q twice: nobody", value)
		}
	}
	if !dmarc.ParseFrom(nil).Nobody {
		t.Error("no field at all names somebody")
	}
}
