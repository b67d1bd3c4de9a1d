package dmarc_test

import (
	"slices"
	"strings"
	"testing"

	"onward/internal/mailauth/dmarc"
)

// What is a DMARC record, and what does it say? (DM5, DM9, DM11)
func TestRecord(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		ok       bool
		p        dmarc.Policy
		usable   bool
		mistakes string // names of tags with a mistake
	}{
		{"least", "v=DMARC1;p=none", true, "none", true, ""},
		{"DM11 version alone", "v=DMARC1", true, "", false, ""},
		{"space", "v = DMARC1 ; p = reject ; ", true, "reject", true, ""},
		{"capitals", "V=DMARC1; P=REJECT; ADKIM=S", true, "reject", true, ""},
		{"DM11 version in lower case", "v=dmarc1; p=reject", false, "", false, ""},
		{"DM11 longer version", "v=DMARC12; p=reject", false, "", false, ""},
		{"DM11 version not first", "p=reject; v=DMARC1", false, "", false, ""},
		{"DM11 space before", " v=DMARC1; p=reject", false, "", false, ""},
		{"no semicolon", "v=DMARC1 p=reject", false, "", false, ""},
		{"empty", "", false, "", false, ""},
		{"8 KiB", "v=DMARC1; p=reject;" + strings.Repeat(" ", 8<<10), false, "", false, ""},
		{"DM11 order is free", "v=DMARC1; sp=none; rua=mailto:a@example.org; p=reject", true, "reject", true, ""},
		{"DM11 unknown and removed tags", "v=DMARC1; p=reject; pct=0; rf=afrf; ri=1; x=y", true, "reject", true, "pct rf ri x"},
		{"DM11 size", "v=DMARC1; rua=mailto:a@example.org!10m", true, "", true, ""},
		{"DM9 p missing", "v=DMARC1; adkim=s", true, "", false, ""},
		{"DM9 p mistaken", "v=DMARC1; p=Rejct", true, "", false, "p"},
		{"DM9 p mistaken, rua", "v=DMARC1; p=; rua=mailto:a@example.org", true, "", true, "p"},
		{"DM9 p mistaken, bad rua", "v=DMARC1; p=x; rua=a@example.org", true, "", false, "p rua"},
		{"DM9 sp mistaken", "v=DMARC1; p=reject; sp=x", true, "reject", false, "sp"},
		{"DM9 np mistaken, rua", "v=DMARC1; p=reject; np=x; rua=https://example.org/", true, "reject", true, "np"},
		{"mistakes that do not matter", "v=DMARC1; p=reject; adkim=x; aspf=; t=1; psd=x; fo=9; ruf=x; junk; ä=b", true, "reject", true, "adkim aspf t psd fo ruf junk ä"},
		{"the first of two counts", "v=DMARC1; p=reject; p=none; v=DMARC1", true, "reject", true, "p v"},
		{"control character", "v=DMARC1; p=rej\x00ect", true, "", false, "p"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, ok := dmarc.ParseRecord(tt.in)
			if ok != tt.ok {
				t.Fatalf("is a record: %v, want %v", ok, tt.ok)
			}
			if !ok {
				return
			}
			var mistakes []string
			for _, tag := range r.Tags {
				if tag.Mistake != "" {
					mistakes = append(mistakes, tag.Name)
				}
				if tag.Mistake == "" && tag.Meaning == "" {
					t.Errorf("tag %q is not explained", tag.Name)
				}
			}
			if got := strings.Join(mistakes, " "); r.P != tt.p || r.Usable() != tt.usable || got != tt.mistakes {
				t.Errorf("p %q, usable %v, mistakes in %q; want %q, %v, %q", r.P, r.Usable(), got, tt.p, tt.usable, tt.mistakes)
			}
		})
	}
}

func TestRecordTags(t *testing.T) {
	r, ok := dmarc.ParseRecord("v=DMARC1; p=reject; sp=quarantine; np=none; adkim=s; aspf=s; psd=n; t=y; fo=1:d:s; " +
		"rua=mailto:a@example.org!10m, MAILTO:b@example.org,https://example.org/x; ruf=mailto:c@example.org")
	if !ok || r.P != "reject" || r.SP != "quarantine" || r.NP != "none" || !r.StrictDKIM || !r.StrictSPF || r.PSD != "n" || !r.Testing || r.FO != "1:d:s" {
		t.Errorf("read as %+v", r)
	}
	if want := []string{"mailto:a@example.org", "MAILTO:b@example.org", "https://example.org/x"}; !slices.Equal(r.RUA, want) {
		t.Errorf("rua %q, want %q", r.RUA, want)
	}
	if want := []string{"mailto:c@example.org"}; !slices.Equal(r.RUF, want) {
		t.Errorf("ruf %q, want %q", r.RUF, want)
	}
	if r, _ := dmarc.ParseRecord("v=DMARC1" + strings.Repeat(";x=y", 2000)); len(r.Tags) != 100 {
		t.Errorf("%d tags were kept, want 100", len(r.Tags))
	}
}

// FuzzRecord holds that a record has values from the standard only, and that
// no tag goes unexplained.
func FuzzRecord(f *testing.F) {
	for _, s := range []string{
		"v=DMARC1; p=reject; sp=none; np=quarantine; t=y; psd=n", "v=DMARC1;rua=mailto:a@b!5m,x:y;;fo=0:1; =; v=1",
		"v = DMARC1 ;p==;adkim=s;aspf=r;ruf=,,",
	} {
		f.Add(s)
	}
	policies := []dmarc.Policy{"", "none", "quarantine", "reject"}
	f.Fuzz(func(t *testing.T, text string) {
		r, ok := dmarc.ParseRecord(text)
		if !ok {
			return
		}
		if !slices.Contains(policies, r.P) || !slices.Contains(policies, r.SP) || !slices.Contains(policies, r.NP) || !strings.Contains("ynu", r.PSD) || len(r.PSD) != 1 {
			t.Fatalf("%q: read as %+v", text, r)
		}
		if len(r.Tags) == 0 || len(r.Tags) > 100 || r.Tags[0].Name != "v" {
			t.Fatalf("%q: tags %+v", text, r.Tags)
		}
		for _, tag := range r.Tags {
			if tag.Meaning == "" && tag.Mistake == "" {
				t.Fatalf("%q: tag %q is not explained", text, tag.Name)
			}
		}
		for _, uri := range slices.Concat(r.RUA, r.RUF) {
			if strings.ContainsAny(uri, ",;! \t\r\n") {
				t.Fatalf("%q: URI %q", text, uri)
			}
		}
	})
}
