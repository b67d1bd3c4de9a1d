package main

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"onward/internal/mailauth/dkim"
)

var update = flag.Bool("update", false, "write testdata/explain/*.want anew; read what changed")

const (
	corpus = "../../testdata/generated"
	wanted = "../../testdata/explain"
)

// explained runs the command as main does and returns what it printed.
func explained(t testing.TB, stdin string, args ...string) (string, error) {
	t.Helper()
	t.Setenv("ONWARD_CONFIG", "")
	var out bytes.Buffer
	root := newRoot()
	root.SetArgs(append([]string{"explain"}, args...))
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	err := root.Execute()
	return out.String(), err
}

// A sample is one entry of the manifest of the generated corpus.
type sample struct {
	File     string
	IP       string
	Helo     string
	MailFrom string `json:"mail_from"`
	SPF      string
	Expect   struct {
		DKIM  []string
		ARC   string
		DMARC string
	}
}

func samples(t testing.TB) []sample {
	t.Helper()
	data, err := os.ReadFile(corpus + "/manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct{ Messages []sample }
	if err := json.Unmarshal(data, &manifest); err != nil {
		t.Fatal(err)
	}
	return manifest.Messages
}

// flags asks for s as it was when the corpus was made.
func (s sample) flags() []string {
	return []string{corpus + "/messages/" + s.File, "--ip", s.IP, "--helo", s.Helo, "--from", s.MailFrom,
		"--zone", corpus + "/zone.json", "--now", "2023-11-20T12:00:00Z"}
}

// contract is what DESIGN.md 5.2 promises of the JSON.
type contract struct {
	SPF struct {
		Helo, MailFrom *struct{ Result, Domain *string }
	}
	DKIM []struct{ Result, Domain, Selector, Algorithm, Reason *string }
	ARC  struct {
		Result, Reason *string
		Sets           *int
	}
	DMARC struct {
		Result, Domain, Policy *string
		Org                    *string `json:"organizational_domain"`
		SPFAligned             *bool   `json:"spf_aligned"`
		DKIMAligned            *bool   `json:"dkim_aligned"`
	}
	Decision struct {
		Action, Text *string
		Code         *int
	}
	Survives *bool
}

// TestExplainCorpus holds the data against what each message of the corpus was
// made to be.
func TestExplainCorpus(t *testing.T) {
	// Where verifiers may differ, what RFC and DESIGN.md 9.9 say.
	differs := map[string][]string{"0016": {"policy"}, "0017": {"permerror"}}
	// DMARC passes here by a signature that does not count elsewhere: Ed25519
	// alone, or SPF only because l= leaves out the end of the body.
	mortal := []string{"0006", "0016", "0044"}
	refused := []string{"0010", "0011", "0047", "0048", "0052", "0053"}
	all := samples(t)
	if len(all) != 69 {
		t.Fatalf("%d samples, not 69", len(all))
	}
	for _, s := range all {
		t.Run(s.File, func(t *testing.T) {
			out, err := explained(t, "", append(s.flags(), "--json")...)
			var got contract
			if err != nil || json.Unmarshal([]byte(out), &got) != nil {
				t.Fatalf("%v, %.200q", err, out)
			}
			var signatures []string
			for _, d := range got.DKIM {
				signatures = append(signatures, *d.Result)
				if (*d.Reason == "") != (*d.Result == "pass") || *d.Selector == "" || *d.Algorithm == "" || *d.Domain == "" {
					t.Errorf("signature %s: reason %q", *d.Result, *d.Reason)
				}
			}
			n := s.File[:4]
			want := s.Expect.DKIM
			if other, ok := differs[n]; ok {
				want = other
			}
			dmarc, bySPF := strings.CutSuffix(s.Expect.DMARC, "-by-spf")
			said := fmt.Sprint(*got.SPF.MailFrom.Result, signatures, *got.ARC.Result, *got.DMARC.Result)
			if expected := fmt.Sprint(s.SPF, want, s.Expect.ARC, dmarc); said != expected {
				t.Errorf("got %s, want %s", said, expected)
			}
			survives := !bySPF && (dmarc == "pass" || dmarc == "none") && !slices.Contains(mortal, n)
			if *got.Survives != survives {
				t.Errorf("survives: %v", *got.Survives)
			}
			action, code := "accept", 250
			if slices.Contains(refused, n) {
				action, code = "refuse", 550
			}
			if *got.Decision.Action != action || *got.Decision.Code != code || *got.Decision.Text == "" {
				t.Errorf("decision %s %d %q", *got.Decision.Action, *got.Decision.Code, *got.Decision.Text)
			}
			data, _ := os.ReadFile(s.flags()[0])
			if sets := strings.Count("\n"+string(data), "\nARC-Seal:"); *got.ARC.Sets != sets {
				t.Errorf("%d ARC sets, not %d", *got.ARC.Sets, sets)
			}
			if *got.SPF.Helo.Domain != s.Helo || *got.DMARC.Org == "" || got.DMARC.SPFAligned == nil {
				t.Error("a key is missing or empty")
			}
		})
	}
}

// TestExplainForPeople holds whole explanations, each read by a person once.
func TestExplainForPeople(t *testing.T) {
	domains := []string{"--zone", wanted + "/domains.zone", "--now", "2023-11-20T12:00:00Z"}
	cases := map[string][]string{
		"hostile":        append(domains, wanted+"/hostile.eml", "--ip", "198.51.100.7", "--helo", "mx.evil.example"),
		"domain":         append(domains, "--domain", "example.org", "--selector", "new", "--selector", "old", "--selector", "gone", "--selector", "two", "--selector", "bad", "--selector", "none"),
		"domain-sub":     append(domains, "--domain", "lists.example.org"),
		"domain-broken":  append(domains, "--domain", "broken.example"),
		"domain-twice":   append(domains, "--domain", "twice.example"),
		"domain-near":    append(domains, "--domain", "near.example"),
		"domain-open":    append(domains, "--domain", "open.example"),
		"domain-big":     append(domains, "--domain", "big.example"),
		"domain-nothing": append(domains, "--domain", "nothing.example"),
	}
	for _, s := range samples(t) {
		switch s.File[:4] {
		case "0001", "0020", "0040", "0048", "0050", "0053":
			cases[strings.TrimSuffix(s.File, ".eml")] = s.flags()
		}
	}
	for name, args := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := explained(t, "", args...)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(wanted, name+".want")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if line, ok := firstDifference(got, string(want)); !ok {
				t.Errorf("differs from %s, first at %s", path, line)
			}
			checkVisible(t, got)
		})
	}
}

// TestExplainDocs holds that the example of the documentation is what comes out.
func TestExplainDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/explain.md")
	want, err2 := os.ReadFile(wanted + "/0048-spoofed-ar-utf8.want")
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), "```\n"+string(want)+"```\n") {
		t.Error("the example in docs/explain.md is not the output in 0048-spoofed-ar-utf8.want")
	}
}

func firstDifference(got, want string) (string, bool) {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d:\n%s\nnot\n%s", i+1, a[i], b[i]), false
		}
	}
	return "its end", len(a) == len(b)
}

// checkVisible fails on anything that a terminal could obey.
func checkVisible(t testing.TB, out string) {
	t.Helper()
	for line := range strings.SplitSeq(out, "\n") {
		if visible(line) != line {
			t.Errorf("not plain text: %q", line)
		}
	}
}

// TestExplainAlwaysVisible explains every message of the corpus for people:
// whatever is in them, what comes out is plain text in lines that fit.
func TestExplainAlwaysVisible(t *testing.T) {
	for _, s := range samples(t) {
		out, err := explained(t, "", s.flags()...)
		if err != nil {
			t.Fatal(s.File, err)
		}
		checkVisible(t, out)
		for line := range strings.SplitSeq(out, "\n") {
			if n := utf8.RuneCountInString(line); n > pageWidth && strings.Contains(strings.TrimSpace(line), " ") {
				t.Errorf("%s: %d columns: %s", s.File, n, line)
			}
		}
	}
}

// TestExplainReading holds how a message is read that did not come by SMTP.
func TestExplainReading(t *testing.T) {
	zone := []string{"--zone", wanted + "/domains.zone", "--json", "-"}
	const plain = "From: a@bank.example\r\nSubject: x\r\n\r\nbody\r\n"
	for name, tt := range map[string]struct {
		in   string
		args []string
		note string // in the notes
		from string
	}{
		"as it came":       {plain, []string{"--from", "b@bank.example"}, "", "b@bank.example"},
		"null sender":      {plain, []string{"--from", ""}, "", ""},
		"angle brackets":   {plain, []string{"--from", "<b@bank.example>"}, "", "b@bank.example"},
		"no sender":        {plain, nil, "is not known and taken for the null sender", ""},
		"Return-Path":      {"Return-Path: <c@bank.example>\r\n" + plain, nil, "taken from the Return-Path", "c@bank.example"},
		"null Return-Path": {"Return-Path: <>\r\n" + plain, nil, "taken from the Return-Path", ""},
		"bad Return-Path":  {"Return-Path: <a b>\r\n" + plain, nil, "cannot be read", ""},
		"LF":               {strings.ReplaceAll(plain, "\r", ""), nil, "4 lines ended in LF alone", ""},
		"one LF":           {strings.Replace(plain, "body\r", "body", 1), nil, "1 line ended in LF alone", ""},
		"mbox":             {"From a@bank.example Mon Nov 20 12:00:00 2023\n" + plain, nil, "is no part of the message", ""},
		"no address":       {plain, nil, "SPF is not checked", ""},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := explained(t, tt.in, append(tt.args, zone...)...)
			var got messageReport
			if err != nil || json.Unmarshal([]byte(out), &got) != nil {
				t.Fatal(err, out)
			}
			if got.Client.From != tt.from || !strings.Contains(strings.Join(got.Notes, "\n"), tt.note) {
				t.Errorf("from %q, notes %q", got.Client.From, got.Notes)
			}
			if got.DMARC.Domain != "bank.example" || got.SPF.MailFrom.Result != "none" {
				t.Errorf("DMARC of %q, SPF %q", got.DMARC.Domain, got.SPF.MailFrom.Result)
			}
		})
	}
}

// TestExplainUnknown holds that a DNS that does not answer is never taken for
// an answer.
func TestExplainUnknown(t *testing.T) {
	zone := filepath.Join(t.TempDir(), "zone.json")
	if err := os.WriteFile(zone, []byte(`{"_dmarc.bank.example": {"rcode": "SERVFAIL"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := explained(t, "From: a@bank.example\n\nbody\n", "-", "--json", "--zone", zone, "--ip", "192.0.2.1", "--from", "")
	var got messageReport
	if err != nil || json.Unmarshal([]byte(out), &got) != nil {
		t.Fatal(err, out)
	}
	if got.DMARC.Result != "temperror" || got.Decision.Action != "defer" || got.Decision.Code != 451 || got.Survives {
		t.Errorf("dmarc %s, survives %v, %+v", got.DMARC.Result, got.Survives, got.Decision)
	}
}

// TestExplainMisuse holds that each mistake has its sentence and its status.
func TestExplainMisuse(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := errors.Join(os.WriteFile("empty", nil, 0o600), os.WriteFile("m", []byte("From: a@b.example\n\n"), 0o600),
		os.WriteFile("header", bytes.Repeat([]byte("A: b\r\n"), 2000), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args  string
		usage bool // status 2, not 1
		want  string
	}{
		{"", true, "Name a file"},
		{"m --domain example.org", true, "not both"},
		{"m m", true, "one message at a time"},
		{"m --selector x", true, "goes with --domain"},
		{"--domain a..b", true, "no domain name"},
		{"--domain [192.0.2.1]", true, "no domain name"},
		{"--domain example.org --selector a/b", true, "--selector"},
		{"m --ip 1.2.3", true, "--ip"},
		{"m --helo a\x00b", true, "--helo"},
		{"m --from a@@b", true, "--from"},
		{"m --to a@@b", true, "--to"},
		{"m --now yesterday", true, "--now"},
		{"m --nonsense", true, "nonsense"},
		{"missing", false, "missing is no file"},
		{".", false, "is a directory"},
		{"empty", false, "no message in it"},
		{"header", false, "header section too large"},
		{"m --zone missing", false, "--zone"},
		{"m --zone m", false, "--zone"},
		{"m -c missing.yaml", false, "configuration"},
	} {
		_, err := explained(t, "", append(strings.Fields(tt.args), "--json")...)
		if err == nil {
			t.Errorf("%s: no error", tt.args)
			continue
		}
		_, failed := errors.AsType[*failure](err)
		if failed == tt.usage || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.args, err)
		}
	}
}

// TestExplainSite holds what a configuration changes.
func TestExplainSite(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "onward.yaml")
	text := `hostname: mail.bank.example
postmaster: ada@mailbox.example
state_dir: ` + dir + `
domains:
  bank.example:
    aliases:
      me: [ada@mailbox.example, bob@mailbox.example]
      closed: {reject: "closed until spring"}
      trap: {discard: true}
policy: {dmarc: strict}
limits: {message: 100KiB}
`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var list sample
	for _, s := range samples(t) {
		if s.File[:4] == "0050" {
			list = s
		}
	}
	report := func(to string) messageReport {
		t.Helper()
		out, err := explained(t, "", append(list.flags(), "--json", "-c", config, "--to", to)...)
		var got messageReport
		if err != nil || json.Unmarshal([]byte(out), &got) != nil {
			t.Fatal(err, out)
		}
		return got
	}
	got := report("me@bank.example")
	if got.Decision.Action != "refuse" {
		t.Errorf("strict, and the list is excused: %+v", got.Decision)
	}
	for _, want := range []string{"X-Forwarded-To: ada@mailbox.example\r\n", "X-Forwarded-For: me@bank.example\r\n",
		"Authentication-Results: mail.bank.example;", "\tby mail.bank.example with ESMTP"} {
		if !strings.Contains(got.Outgoing.Fields, want) {
			t.Errorf("no %q in %s", want, got.Outgoing.Fields)
		}
	}
	if fmt.Sprint(got.Outgoing.Targets) != "[ada@mailbox.example bob@mailbox.example]" || !strings.HasPrefix(got.Outgoing.ReturnPath, "SRS0=") ||
		!strings.HasSuffix(got.Outgoing.ReturnPath, "=lists.example=chat-bounces@mail.bank.example") {
		t.Errorf("%+v", got.Outgoing)
	}
	for to, want := range map[string]string{"closed@bank.example": "550 5.1.1 closed until spring", "nobody@bank.example": "550 5.1.1 <nobody@bank.example>: no such alias here", "trap@bank.example": ""} {
		if got := report(to); got.Outgoing.Refused != want || len(got.Outgoing.Targets) > 0 {
			t.Errorf("%s: %+v", to, got.Outgoing)
		}
	}
	if _, err := explained(t, "A: b\r\n\r\n"+strings.Repeat("x", 100<<10), "-", "-c", config); err == nil || !strings.Contains(err.Error(), "limits.message") {
		t.Errorf("100 KiB and a header: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("explain left something in the state directory: %v", entries)
	}
}

// TestExplainRemoved holds that a forged field in our name does not go on, and
// that a signature over it is known to break by that.
func TestExplainRemoved(t *testing.T) {
	const forged = "Authentication-Results: MX.example.org; dmarc=pass\r\n"
	const rest = "From: ada@acme.example\r\nSubject: x\r\n\r\nbody\r\n"
	for covered, survives := range map[string]bool{"From:Subject": true, "From:Subject:Authentication-Results": false} {
		in := signed(t, forged+rest, covered)
		out, err := explained(t, in, "-", "--json", "--zone", corpus+"/zone.json", "--from", "ada@acme.example", "--ip", "192.0.2.4")
		var got messageReport
		if err != nil || json.Unmarshal([]byte(out), &got) != nil {
			t.Fatal(err, out)
		}
		if len(got.Outgoing.Removed) != 1 || got.Outgoing.Removed[0] != forged || strings.Contains(got.Outgoing.Fields, "MX.") {
			t.Errorf("%+v", got.Outgoing)
		}
		if got.DKIM[0].Result != "pass" || got.Survives != survives {
			t.Errorf("h=%s: dkim %s, survives %v: %s", covered, got.DKIM[0].Result, got.Survives, got.Fate)
		}
	}
}

// signed signs a message for acme.example with the key of the corpus.
func signed(t *testing.T, msg, fields string) string {
	t.Helper()
	text, err := os.ReadFile(corpus + "/keys/rsa2048.pem")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(msg, "\r\n\r\n")
	hash := sha256.Sum256([]byte(body))
	field := fmt.Sprintf("DKIM-Signature: v=1; a=rsa-sha256; d=acme.example; s=s1; h=%s; bh=%s; b=", fields, encode(hash[:]))
	m, _, err := readMessage("-", strings.NewReader(field+"\r\n"+msg), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s, err := dkim.ParseSignature(m.Fields()[0].Raw)
	if err != nil {
		t.Fatal(err)
	}
	digest, _ := s.Digest(dkim.NewHeader(m.Fields()), 0)
	b, err := rsa.SignPKCS1v15(nil, key.(*rsa.PrivateKey), crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return field + encode(b) + "\r\n" + msg
}

// FuzzVisible holds that nothing but plain text gets onto a page.
func FuzzVisible(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[31m", "\u202e", "\xff\xfe", "a\r\nb", "\u0085\u2028\ufffd", strings.Repeat("word ", 50)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var out bytes.Buffer
		p := &page{w: &out}
		p.section(s, s)
		p.entry(2, 10, s, s, s)
		p.verbatim(2, s)
		p.table(2, [][]string{{s, s}, {s, "pass"}})
		checkVisible(t, out.String())
	})
}

// FuzzCopyLines holds that a message has CRLF line ends only, and all else of
// its octets.
func FuzzCopyLines(f *testing.F) {
	for _, s := range []string{"", "a", "a\nb\n", "a\r\nb\r\n", "\r\n\n\r", "From x\nA: b\n\n", "From :", strings.Repeat("x", 5000) + "\n", strings.Repeat("x", 4095) + "\r\n\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		msg, _, err := readMessage("-", strings.NewReader(s), 0)
		if err != nil {
			return
		}
		defer msg.Close()
		var got bytes.Buffer
		got.ReadFrom(msg.Reader())
		want := s
		if rest, ok := strings.CutPrefix(s, "From "); ok && !strings.HasPrefix(rest, ":") { // "From :" begins a field
			_, want, _ = strings.Cut(rest, "\n")
		}
		want = strings.ReplaceAll(strings.ReplaceAll(want, "\r\n", "\n"), "\n", "\r\n")
		if got.String() != want {
			t.Errorf("%q became %q, want %q", s, got.String(), want)
		}
	})
}

// TestExplainColour holds that colour is for terminals: what is painted is the
// same text.
func TestExplainColour(t *testing.T) {
	var plain, coloured bytes.Buffer
	for w, on := range maps.All(map[*bytes.Buffer]bool{&plain: false, &coloured: true}) {
		p := &page{w: w, colour: on}
		p.section("SPF", "about")
		p.entry(2, 12, "HELO", "pass", "text")
		p.table(4, [][]string{{"a", "b"}, {"x", "fail"}})
	}
	stripped := coloured.String()
	for _, code := range []string{bold, dim, red, green, yellow, "0"} {
		stripped = strings.ReplaceAll(stripped, "\x1b["+code+"m", "")
	}
	if stripped != plain.String() || coloured.Len() == plain.Len() {
		t.Errorf("%q\n%q", plain.String(), coloured.String())
	}
}
