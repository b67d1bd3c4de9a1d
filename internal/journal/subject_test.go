package journal_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"onward/internal/journal"
)

func TestDecodeSubject(t *testing.T) {
	for in, want := range map[string]string{
		"":                           "",
		"plain =? text":              "plain =? text",
		"Größe":                      "Größe",
		"=?UTF-8?B?R3LDvMOfZQ==?=":   "Grüße",
		"=?utf-8?b?R3LDvMOfZQ?= now": "Grüße now",
		"Re: =?iso-8859-1?Q?Gr=FC=DFe_an_alle?=!": "Re: Grüße an alle!",
		"=?utf-8*de?Q?a?= =?utf-8?Q?b?=":          "ab",
		"=?utf-8?Q?a?= b =?utf-8?Q?c?=":           "a b c",
		"=?utf-8?B?w?= =?utf-8?B?w7w=?=":          "=?utf-8?B?w?= ü", // no base64
		"=?utf-8?Q?=C3?=  =?utf-8?Q?=BC?=":        "ü",               // a character cut in two
		"=?utf-8?Q?=C3?= =?iso-8859-1?Q?=FC?=":    "\uFFFDü",         // and one that is half
		"=?utf-8?Q?=4?=":                          "=?utf-8?Q?=4?=",  // no quoted-printable
		"=?x-none?Q?abc=FC?=":                     "abc\uFFFD",       // nobody knows
		"=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=":      "日本",              // stateful
		"=?gb2312?B?1tC5+g==?=":                   "中国",              //
		"=?utf-8?Q?a=1B[31m?=":                    "a\x1b[31m",       // for whoever shows it to escape
		"=?utf-8?Q?cut o":                         "=?utf-8?Q?cut o", // by our bound
		"=?utf-8?X?a?= =?utf-8?Q?b?=":             "=?utf-8?X?a?= b", //
		"=?utf-8?Q??=":                            "",                //
		"=?utf-8?Q?=3D=3Futf-8=3FQ=3Fa=3F=3D?=":   "=?utf-8?Q?a?=",   // once is enough
	} {
		if got := journal.DecodeSubject(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzDecodeSubject: whatever comes, valid text and no long work comes of it.
func FuzzDecodeSubject(f *testing.F) {
	f.Add("Re: =?iso-8859-1?Q?Gr=FC=DFe_an_alle?= =?UTF-8?B?R3LDvMOfZQ==?=")
	f.Add(strings.Repeat("=?utf-8?Q?=C3?= ", 60))
	f.Fuzz(func(t *testing.T, s string) {
		began := time.Now()
		got := journal.DecodeSubject(s)
		if utf8.ValidString(s) && !utf8.ValidString(got) || len(got) > 10*len(s)+10 {
			t.Errorf("%q", got)
		}
		if took := time.Since(began); len(s) <= 1000 && took > time.Second {
			t.Errorf("%v for %d octets", took, len(s))
		}
	})
}
