package rewrite_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/mailauth/dmarc"
	"onward/internal/message"
	"onward/internal/rewrite"
	"onward/internal/testpeer"
)

const via = address.Domain("example.org")

var stand = address.Mailbox{Local: "reply-ABCDEFGHIJKLMNOPQRSTUVWXYZ", Domain: "mx.example.org"}

func receive(t testing.TB, raw string) *message.Message {
	t.Helper()
	b := message.NewBuffer(t.TempDir())
	b.Write([]byte(raw))
	m, err := b.Message()
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// rewritten returns the copy of a message.
func rewritten(t testing.TB, raw string) *message.Message {
	t.Helper()
	m := receive(t, raw)
	return m.With(rewrite.From(m.Fields(), dmarc.ParseFrom(m.Fields()), via, stand))
}

// named returns the fields with that name, without the name.
func named(m *message.Message, name string) []string {
	var values []string
	for _, f := range m.Fields() {
		if f.Is(name) {
			_, value, _ := bytes.Cut(f.Raw, []byte(":"))
			values = append(values, string(value))
		}
	}
	return values
}

func b64(charset string, octets string) string {
	return "=?" + charset + "?B?" + base64.StdEncoding.EncodeToString([]byte(octets)) + "?="
}

// names are From values and what a person should read in the name of the copy.
var names = []struct{ from, want string }{
	{"Ada Lovelace <ada@sender.example>", "Ada Lovelace"},
	{`"Lovelace, Ada" <ada@sender.example>`, "Lovelace, Ada"},
	{`"Ada \"Countess\" L\\ovelace" <ada@sender.example>`, `Ada "Countess" L\ovelace`},
	{`Ada "The Countess" Lovelace <ada@sender.example>`, "Ada The Countess Lovelace"},
	{"ada@sender.example", "ada at sender.example"},
	{"<ada@sender.example>", "ada at sender.example"},
	{`"" <ada@sender.example>`, "ada at sender.example"},
	{"ada@sender.example (Ada Lovelace)", "Ada Lovelace"},
	{"<ada@sender.example> (Ada (the (first)) one)", "Ada (the (first)) one"},
	{"Ada (Countess) Lovelace <ada@sender.example>", "Ada Lovelace"},
	{"Ada\r\n Lovelace\r\n\t<ada@sender.example>", "Ada Lovelace"},
	{"Dr. A. Lovelace <ada@sender.example>", "Dr. A. Lovelace"},
	{"ada.b+c@sender.example", "ada.b+c at sender.example"},
	{`"a b@c"@sender.example`, "a b at c at sender.example"},
	{"Ada <ada@xn--bcher-kva.example>", "Ada"},
	{"ada@xn--bcher-kva.example", "ada at bücher.example"},
	{"ada@bücher.example", "ada at bücher.example"},
	{"Ada <@relay.example,@b.example:ada@sender.example>", "Ada"},

	{"=?utf-8?Q?J=C3=B6rg_M=C3=BCller?= <j@sender.example>", "Jörg Müller"},
	{"=?ISO-8859-1?q?J=F6rg?= =?iso-8859-1*de?Q?_M=FCller?= <j@sender.example>", "Jörg Müller"},
	{"=?iso-8859-15?Q?=A4uro?= <j@sender.example>", "€uro"},
	{"=?windows-1252?Q?=93x=94?= <j@sender.example>", "“x”"},
	{"=?windows-1251?B?yOLg7Q==?= <j@sender.example>", "Иван"},
	{"=?koi8-r?B?6dfBzg==?= <j@sender.example>", "Иван"},
	{"=?us-ascii?Q?Plain?= <j@sender.example>", "Plain"},
	{"\"=?utf-8?B?SsO2cmc=?=\" <j@sender.example>", "Jörg"},
	{"=?utf-8?B?SsO2cmc?= <j@sender.example>", "Jörg"},
	{"=?utf-8?Q?J=C3?=\r\n =?utf-8?Q?=B6rg?= <j@sender.example>", "Jörg"},
	{"=?utf-8?Q?Doe,_Jane?= <j@sender.example>", "Doe, Jane"},
	{"=?utf-8?Q?Jane?= Doe <j@sender.example>", "Jane Doe"},
	{"=?utf-8?Q?Jane?= (x) =?utf-8?Q?Doe?= <j@sender.example>", "JaneDoe"},
	{"Jörg Müller <j@sender.example>", "Jörg Müller"},
	{b64("iso-2022-jp", "\x1b$B;3ED\x1b(B") + " <j@sender.example>", "山田"},
	{b64("shift_jis", "\x8e\x52\x93\x63") + " <j@sender.example>", "山田"},
	{b64("gb2312", "\xcd\xf5") + " <j@sender.example>", "王"},
	{b64("big5", "\xa4\xfd") + " <j@sender.example>", "王"},
	{b64("euc-kr", "\xb1\xe8") + " <j@sender.example>", "김"},
	{b64("utf-8", "עדה") + " <j@sender.example>", "עדה"},
	{b64("utf-8", "عمر") + " <j@sender.example>", "عمر"},
	{b64("utf-8", "علی\u200cرضا") + " <j@sender.example>", "علی\u200cرضا"},
	{b64("utf-8", "क्\u200dष") + " <j@sender.example>", "क्\u200dष"},
	{b64("utf-8", "👩\u200d🔬 Ada") + " <j@sender.example>", "👩\u200d🔬 Ada"},

	{"=?x-unknown?Q?J=F6rg?= <j@sender.example>", "j at sender.example"},
	{"=?utf-8?Q?J=F6rg?= <j@sender.example>", "j at sender.example"},
	{"=?utf-7?Q?J+APY-rg?= <j@sender.example>", "j at sender.example"},
	{"J\xf6rg <j@sender.example>", "j at sender.example"},
	{"=?utf-8?B?!!!?= <j@sender.example>", "j at sender.example"},
	{strings.Repeat("x", 5000) + " <j@sender.example>", "j at sender.example"},
	{strings.Repeat("Ada ", 60) + "<j@sender.example>", strings.TrimSpace(strings.Repeat("Ada ", 25)) + "..."},

	{`"ceo@bank.example" <eve@sender.example>`, "ceo at bank.example"},
	{`"ceo@bank.example <ceo@bank.example>" <eve@sender.example>`, "ceo at bank.example <ceo at bank.example>"},
	{"=?utf-8?Q?ceo=40bank=2Eexample?= <eve@sender.example>", "ceo at bank.example"},
	{b64("utf-8", "ceo＠bank.example") + " <eve@sender.example>", "ceo at bank.example"},
	{b64("utf-8", "ceo\u202e@\u200bbank.example\u2066") + " <eve@sender.example>", "ceo at bank.example"},
	{b64("utf-8", "a\r\nBcc: x@y.example\r\n\r\nb\x00") + " <eve@sender.example>", "a Bcc: x at y.example b"},
	{b64("utf-8", "=?utf-8?Q?ceo=40bank.example?=") + " <eve@sender.example>", "= ?utf-8?Q?ceo=40bank.example?="},
	{b64("utf-8", "=\u202e?utf-8?Q?ceo=40bank.example?=") + " <eve@sender.example>", "= ?utf-8?Q?ceo=40bank.example?="},
	{b64("utf-8", "\"\\") + " <eve@sender.example>", `"\`},
	{b64("utf-8", "\u2028\u2029\ufeff") + " <eve@sender.example>", "eve at sender.example"},

	{"Ada <ada@sender.example>, Bob <bob@sender.example>", "Ada, Bob"},
	{"Authors: Ada <ada@sender.example>, bob@sender.example;", "Ada, bob at sender.example"},
	{"undisclosed:;", "unknown"},
	{"", "unknown"},
	{"MAILER-DAEMON", "unknown"},
	{"Ada <>", "Ada"},
	{"Ada <ada@", "Ada"},
	{"\"Ada <ada@sender.example>", "unknown"},
}

// TestNames holds that the name stays readable, says no address, and that the
// copy has one From, which is ours.
func TestNames(t *testing.T) {
	for _, tt := range names {
		m := rewritten(t, "From: "+tt.from+"\r\nSubject: x\r\n\r\nbody\r\n")
		check(t, "From: "+tt.from+"\r\nSubject: x\r\n\r\nbody\r\n", m)
		if got, want := nameOf(t, m), tt.want+" via example.org"; got != want {
			t.Errorf("%q: name %q, want %q\n%s", tt.from, got, want, m.Header())
		}
	}
}

// nameOf reads the name of our From as any program would: quotes undone, encoded
// words decoded. It is strict, since we wrote it.
func nameOf(t testing.TB, m *message.Message) string {
	t.Helper()
	value := strings.TrimSpace(strings.ReplaceAll(named(m, "From")[0], "\r\n", ""))
	phrase, ok := strings.CutSuffix(value, " <"+stand.String()+">")
	if !ok {
		t.Fatalf("From %q", value)
	}
	if inner, ok := strings.CutPrefix(phrase, `"`); ok {
		return strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(strings.TrimSuffix(inner, `"`))
	}
	var text []byte
	for word := range strings.SplitSeq(phrase, " ") {
		inner, ok := strings.CutPrefix(word, "=?UTF-8?B?")
		octets, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(inner, "?="))
		if !ok || err != nil || len(word) > 75 {
			t.Fatalf("encoded word %q", word)
		}
		text = append(text, octets...)
	}
	return string(text)
}

// check holds what is true of every copy, whatever came.
func check(t testing.TB, raw string, m *message.Message) {
	t.Helper()
	from := dmarc.ParseFrom(m.Fields())
	if from.Mailbox != stand || from.Domain != stand.Domain || from.Fields != 1 || from.Mistake != "" {
		t.Fatalf("%q: From is read as %+v\n%s", raw, from, m.Header())
	}
	header := string(m.Header())
	for line := range strings.SplitAfterSeq(header, "\n") {
		text, ended := strings.CutSuffix(line, "\r\n")
		if strings.ContainsAny(text, "\r\n") || !ended && !strings.HasSuffix(header, line) {
			t.Fatalf("%q: line %q", raw, line)
		}
		if len(text) > 998 && !strings.Contains(raw, text) {
			t.Fatalf("a line of %d octets is ours: %.200q", len(text), text)
		}
	}
	if strings.Contains(nameOf(t, m), "@") {
		t.Fatalf("%q: name %q", raw, nameOf(t, m))
	}
	for _, name := range []string{"Sender", "DKIM-Signature"} {
		if len(named(m, name)) != 0 {
			t.Fatalf("%q: %s is there", raw, name)
		}
	}
	var want, got []string
	touched := func(f message.Field) bool {
		return f.Name == "" || f.Is("From") || f.Is("Sender") || f.Is("DKIM-Signature") || f.Is("Reply-To") || strings.HasPrefix(strings.ToLower(f.Name), "x-original-")
	}
	for _, f := range receive(t, raw).Fields() {
		if !touched(f) {
			want = append(want, string(f.Raw))
		}
	}
	for _, f := range m.Fields() {
		if !touched(f) {
			got = append(got, string(f.Raw))
		}
	}
	if !slices.Equal(want, got) {
		t.Fatalf("%q: other fields %q, want %q", raw, got, want)
	}
}

// TestFields holds what becomes of each field, byte by byte.
func TestFields(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"plain",
			"Received: a\r\nFrom: Ada <ada@sender.example>\r\nTo: me@example.org\r\n",
			"Received: a\r\nFrom: \"Ada via example.org\"\r\n <reply-ABCDEFGHIJKLMNOPQRSTUVWXYZ@mx.example.org>\r\nReply-To: \"Ada\" <ada@sender.example>\r\n" +
				"X-Original-From: Ada <ada@sender.example>\r\nTo: me@example.org\r\n"},
		{"Reply-To stays",
			"Reply-To: <other@sender.example>\r\nFrom: ada@sender.example\r\n",
			"Reply-To: <other@sender.example>\r\nFrom: \"ada at sender.example via example.org\"\r\n <reply-ABCDEFGHIJKLMNOPQRSTUVWXYZ@mx.example.org>\r\nX-Original-From: ada@sender.example\r\n"},
		{"an empty Reply-To is none",
			"Reply-To:\r\nFrom: ada@sender.example\r\n",
			"From: \"ada at sender.example via example.org\"\r\n <reply-ABCDEFGHIJKLMNOPQRSTUVWXYZ@mx.example.org>\r\nReply-To: ada@sender.example\r\nX-Original-From: ada@sender.example\r\n"},
		{"what no longer holds",
			"DKIM-Signature: v=1;\r\n b=x\r\nSender: esp@esp.example\r\nARC-Seal: i=1\r\nResent-From: r@r.example\r\nX-Original-From: b@b.example\r\nFrom: A <ada@sender.example>\r\n",
			"X-Original-DKIM-Signature: v=1;\r\n b=x\r\nX-Original-Sender: esp@esp.example\r\nARC-Seal: i=1\r\nResent-From: r@r.example\r\nX-Original-From: b@b.example\r\n" +
				"From: \"A via example.org\" <reply-ABCDEFGHIJKLMNOPQRSTUVWXYZ@mx.example.org>\r\nReply-To: \"A\" <ada@sender.example>\r\nX-Original-From: A <ada@sender.example>\r\n"},
		{"several authors",
			"From: Ada <ada@sender.example>,\r\n =?utf-8?Q?B=C3=B6b?= <bob@sender.example>\r\n",
			"From: =?UTF-8?B?" + base64.StdEncoding.EncodeToString([]byte("Ada, Böb via example.org")) + "?=\r\n <reply-ABCDEFGHIJKLMNOPQRSTUVWXYZ@mx.example.org>\r\n" +
				"Reply-To: \"Ada\" <ada@sender.example>, =?UTF-8?B?QsO2Yg==?=\r\n <bob@sender.example>\r\nX-Original-From: Ada <ada@sender.example>,\r\n =?utf-8?Q?B=C3=B6b?= <bob@sender.example>\r\n"},
		{"two From",
			"From: a@a.example\r\nfrom : b@b.example\r\n",
			"From: \"a at a.example, b at b.example via example.org\"\r\n <reply-ABCDEFGHIJKLMNOPQRSTUVWXYZ@mx.example.org>\r\nReply-To: a@a.example, b@b.example\r\nX-Original-From: a@a.example\r\nX-Original-from : b@b.example\r\n"},
		{"no From", "To: x\r\n", "From: \"unknown via example.org\"\r\n <reply-ABCDEFGHIJKLMNOPQRSTUVWXYZ@mx.example.org>\r\nTo: x\r\n"},
		{"no field", " x\r\nFrom x\r\nTo: x\r\n", "From: \"unknown via example.org\"\r\n <reply-ABCDEFGHIJKLMNOPQRSTUVWXYZ@mx.example.org>\r\nTo: x\r\n"},
		{"too long to rename", "Sender: " + strings.Repeat("x", 985) + "\r\nFrom: A <ada@sender.example>\r\nReply-To: x@y.example\r\n",
			"From: \"A via example.org\" <reply-ABCDEFGHIJKLMNOPQRSTUVWXYZ@mx.example.org>\r\nX-Original-From: A <ada@sender.example>\r\nReply-To: x@y.example\r\n"},
	} {
		m := rewritten(t, tt.in+"\r\nbody\r\n")
		if got := string(m.Header()); got != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.name, got, tt.want)
		}
		if all, _ := io.ReadAll(m.Reader()); !bytes.HasSuffix(all, []byte("\r\n\r\nbody\r\n")) {
			t.Errorf("%s: the body is changed: %q", tt.name, all)
		}
		check(t, tt.in, m)
	}
}

// TestOneAuthorForAll holds that the copy answers to who DMARC says the author
// is, however else From could be read.
func TestOneAuthorForAll(t *testing.T) {
	fields := receive(t, "From: x@evil.example, Ada <ada@sender.example>\r\n").Fields()
	author := dmarc.From{Mailbox: address.Mailbox{Local: "ada", Domain: "sender.example"}}
	header := string(rewrite.From(fields, author, via, stand))
	if !strings.Contains(header, "\r\nReply-To: \"Ada\" <ada@sender.example>\r\n") || !strings.HasPrefix(header, "From: \"Ada via example.org\"") {
		t.Errorf("%s", header)
	}
	author.Mailbox.Local = "someone"
	header = string(rewrite.From(fields, author, via, stand))
	if !strings.Contains(header, "\r\nReply-To: someone@sender.example\r\n") {
		t.Errorf("%s", header)
	}
}

// TestPeerReadsNames has the parser of the Python standard library read what we
// wrote: one From, the same name and address, no defect; and the generated corpus.
func TestPeerReadsNames(t *testing.T) {
	testpeer.Need(t, "python3")
	raws := []string{}
	for _, tt := range names {
		raws = append(raws, "From: "+tt.from+"\r\nSubject: x\r\n\r\nbody\r\n")
	}
	files, _ := filepath.Glob("../../testdata/generated/messages/*.eml")
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		raws = append(raws, string(raw))
	}
	var input strings.Builder
	var copies []*message.Message
	for _, raw := range raws {
		m := rewritten(t, raw)
		check(t, raw, m)
		header := string(m.Header()) + "\r\n"
		fmt.Fprintf(&input, "%d\n%s", len(header), header)
		copies = append(copies, m)
	}
	output, status := testpeer.Run(t, input.String(), "python3", "testdata/peer.py")
	answers := strings.Split(strings.TrimSpace(output), "\n")
	if status != 0 || len(answers) != len(copies) {
		t.Fatalf("status %d, %d answers for %d: %.2000s", status, len(answers), len(copies), output)
	}
	for i, m := range copies {
		var read struct {
			From    [][2]string
			Froms   int
			Defects []string
		}
		if err := json.Unmarshal([]byte(answers[i]), &read); err != nil {
			t.Fatal(err)
		}
		want := [2]string{nameOf(t, m), stand.String()}
		if read.Froms != 1 || len(read.From) != 1 || read.From[0] != want {
			t.Errorf("%.300q: python reads %q, want %q", raws[i], read.From, want)
		}
		if answer := strings.Join(named(m, "Reply-To"), ""); len(named(receive(t, raws[i]), "Reply-To")) == 0 && isASCII(answer) && len(read.Defects) != 0 {
			t.Errorf("%.300q: defects %v", raws[i], read.Defects)
		}
	}
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 127 })
}

// TestCost holds that the largest header in the worst shape takes little time.
func TestCost(t *testing.T) {
	for name, unit := range map[string]string{"words": "=?a?q?", "opened": "=?=?", "literals": "[", "comments": "(", "quotes": `"`, "backslashes": `\`,
		"angles": "<", "commas": ",", "groups": "a:", "addresses": "a@b.c,", "encoded": "=?utf-8?B?QQ==?= ", "spaces": " a"} {
		value := strings.Repeat(unit, (message.MaxHeaderSize-1000)/len(unit))
		start := cpu()
		m := rewritten(t, "From: "+value+"\r\nTo: x\r\n")
		reply(t, "From: old@gmail.com\r\nSubject: "+value+"\r\nTo: "+"x\r\n")
		reply(t, "From: old@gmail.com\r\nTo: "+value+"\r\n")
		if took := cpu() - start; took > 5*time.Second { // 0.1 s; ten times that when races are looked for
			t.Errorf("%s: %v", name, took)
		}
		check(t, "From: "+value+"\r\nTo: x\r\n", m)
	}
}

// cpu is what the process has used.
func cpu() time.Duration {
	var used syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// FuzzFrom holds check for any header.
func FuzzFrom(f *testing.F) {
	for _, tt := range names {
		f.Add("From: " + tt.from + "\r\nSender: x\r\n")
	}
	f.Add("From: a@b.example\r\nFrom\t: c@d.example\r\nReply-To:\r\nDKIM-Signature: x\r\n")
	f.Fuzz(func(t *testing.T, header string) {
		header = lines(header)
		m := receive(t, header)
		check(t, header, m.With(rewrite.From(m.Fields(), dmarc.ParseFrom(m.Fields()), via, stand)))
	})
}

// lines makes CRLF of every line end: inbound refuses anything else.
func lines(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", ""), "\n", "\r\n")
}
