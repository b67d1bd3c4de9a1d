package tlsrpt_test

import (
	"slices"
	"strings"
	"testing"

	"onward/internal/tlsrpt"
)

func TestParseRecord(t *testing.T) {
	for _, tt := range []struct {
		texts []string
		want  []string // nil when no reports are wanted
	}{
		{[]string{"v=TLSRPTv1;rua=mailto:reports@example.com"}, []string{"mailto:reports@example.com"}},                            // RFC 8460 3.1.1
		{[]string{"v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt"}, []string{"https://reporting.example.com/v1/tlsrpt"}}, // RFC 8460 3.1.2
		{[]string{"v=TLSRPTv1 ; rua=mailto:a@example.com , https://example.com/ ;"}, []string{"mailto:a@example.com", "https://example.com/"}},
		{[]string{"v=TLSRPTv1; x=y; rua=mailto:a@example.com; z=1"}, []string{"mailto:a@example.com"}},
		{[]string{"v=TLSRPTv1; rua=https://example.com/?a=b"}, []string{"https://example.com/?a=b"}},
		{[]string{"v=spf1 -all", "v=TLSRPTv1;rua=mailto:a@example.com", "v=TLSRPTv2;rua=mailto:b@example.com"}, []string{"mailto:a@example.com"}},
		{nil, nil},
		{[]string{"v=TLSRPTv1;rua=mailto:a@example.com", "v=TLSRPTv1;rua=mailto:b@example.com"}, nil},
		{[]string{"v=TLSRPTv1"}, nil},
		{[]string{"v=TLSRPTv1;"}, nil},
		{[]string{"v=TLSRPTv1; ruf=mailto:a@example.com"}, nil},
		{[]string{"V=TLSRPTv1;rua=mailto:a@example.com"}, nil},
		{[]string{"v=TLSRPTv10;rua=mailto:a@example.com"}, nil},
		{[]string{"rua=mailto:a@example.com; v=TLSRPTv1"}, nil},
	} {
		got, err := tlsrpt.ParseRecord(tt.texts)
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.want != nil) {
			t.Errorf("%q: got %q, %v; want %q", tt.texts, got, err, tt.want)
		}
	}
}

func TestTargets(t *testing.T) {
	for uri, want := range map[string]string{
		"mailto:a@example.com":                                  "a@example.com",
		"mailto:a%2Cb%21c@example.com":                          "",
		"mailto:%22a%2Cb%21c%22@example.com":                    `"a,b!c"@example.com`,
		"mailto:a@example.com?subject=x%0D%0ABcc:b@example.com": "a@example.com",
		"mailto:a%0D%0Ab@example.com":                           "",
		"mailto:a@example.com%0D%0A":                            "",
		"mailto:a@b@example.com":                                "",
		"mailto:%c3%bc@example.com":                             "", // would need SMTPUTF8
		"mailto:":                                               "",
		"MAILTO:a@example.com":                                  "a@example.com",
		"mailto://a@example.com":                                "",
		"https://example.com/x":                                 "https",
		"https://":                                              "",
		"https:///x":                                            "",
		"http://example.com/x":                                  "",
		"ftp://example.com/":                                    "",
		"a@example.com":                                         "",
		"":                                                      "",
		"https://example.com/" + strings.Repeat("x", 500): "",
	} {
		got := tlsrpt.Targets([]string{uri})
		switch {
		case want == "" && got == nil, want == "https" && len(got) == 1:
		case len(got) != 1 || !strings.HasSuffix(got[0], " "+want):
			t.Errorf("%q: got %q, want %q", uri, got, want)
		}
	}
	if got := tlsrpt.Targets(slices.Repeat([]string{"mailto:a@example.com"}, 100)); len(got) > 5 {
		t.Errorf("%d mails about one domain", len(got))
	}
}

// FuzzRecord: nothing foreign gets into a header but a proper address.
func FuzzRecord(f *testing.F) {
	f.Add("v=TLSRPTv1;rua=mailto:reports@example.com,https://example.com/")
	f.Add("v=TLSRPTv1;rua=mailto:a%0d%0a@example.com")
	f.Fuzz(func(t *testing.T, text string) {
		uris, err := tlsrpt.ParseRecord([]string{text})
		if err != nil {
			return
		}
		for _, target := range tlsrpt.Targets(uris) {
			if _, mailbox, ok := strings.Cut(target, " "); ok && strings.ContainsAny(mailbox, "\r\n\x00") {
				t.Errorf("%q", target)
			}
		}
	})
}
