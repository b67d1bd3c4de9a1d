package mailauth_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"onward/internal/address"
	"onward/internal/mailauth"
	"onward/internal/mailauth/authres"
	"onward/internal/mailauth/dkim"
	"onward/internal/mailauth/dmarc"
	"onward/internal/message"
	"onward/internal/resolver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	corpus = "../../testdata/generated/"
	acme   = "192.0.2.4"  // the host of acme.example, which publishes p=reject and -all
	esp    = "192.0.2.28" // the host of esp.example
	letter = "From: Ada <ada@acme.example>\r\nTo: bob@alias.example\r\nSubject: hello\r\n"
)

// now is when the corpus was made.
var now = time.Date(2023, 11, 20, 12, 0, 0, 0, time.UTC)

// A sample is a message of the corpus and what its manifest says of it.
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
		Loose bool
		Note  string
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func samples(t testing.TB) []sample {
	t.Helper()
	var manifest struct{ Messages []sample }
	must(t, json.Unmarshal(read(t, "manifest.json"), &manifest))
	return manifest.Messages
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(corpus + file)
	must(t, err)
	return data
}

// zone returns the DNS of the corpus, a new one each time.
func zone(t testing.TB) *resolver.Zone {
	t.Helper()
	z, err := resolver.ParseZone("zone.json", strings.NewReader(string(read(t, "zone.json"))))
	must(t, err)
	return z
}

func receive(t testing.TB, raw string) *message.Message {
	t.Helper()
	b := message.NewBuffer(t.TempDir())
	_, err := b.Write([]byte(raw))
	must(t, err)
	m, err := b.Message()
	must(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

// sender is a client and what it says; from may be "", the null sender.
func sender(t testing.TB, ip, helo, from string) mailauth.Sender {
	t.Helper()
	s := mailauth.Sender{Client: netip.MustParseAddr(ip), Helo: helo, Now: now}
	if from != "" {
		m, err := address.Parse(from)
		must(t, err)
		s.From = address.ReversePath{Mailbox: m}
	}
	return s
}

// signed returns the message with a signature over From and Subject of
// acme.example, or of another domain of the corpus that has the same key.
func signed(t testing.TB, domain, raw string) string {
	t.Helper()
	block, _ := pem.Decode(read(t, "keys/rsa2048.pem"))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(t, err)
	msg := receive(t, raw)
	var bodies dkim.BodyHashes
	body := bodies.Ask(dkim.Relaxed, dkim.NoLimit)
	must(t, bodies.Read(msg.Body()))
	field := fmt.Sprintf("DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=%s; s=s1; h=from:subject; bh=%s; b=",
		domain, base64.StdEncoding.EncodeToString(body.Sum[:]))
	var text []byte
	for _, name := range []string{"from", "subject"} {
		for _, i := range dkim.NewHeader(msg.Fields()).Named(name) {
			text = dkim.Relaxed.AppendField(text, msg.Fields()[i].Raw)
		}
	}
	digest := sha256.Sum256(dkim.Relaxed.AppendSigned(text, []byte(field+"\r\n")))
	value, err := key.(crypto.Signer).Sign(rand.Reader, digest[:], crypto.SHA256)
	must(t, err)
	return field + base64.StdEncoding.EncodeToString(value) + "\r\n" + raw
}

// verify checks a message, and that the field says what the verdict says.
func verify(t testing.TB, dns resolver.Resolver, s mailauth.Sender, m *message.Message) *mailauth.Verdict {
	t.Helper()
	v, err := (&mailauth.Verifier{Resolver: dns, Hostname: "mx.alias.example"}).Verify(t.Context(), s, m)
	must(t, err)
	var signatures []string
	for _, d := range v.DKIM {
		signatures = append(signatures, d.Result)
	}
	want := words(string(v.IPRev.Result), string(v.MailFrom.Result), signatures, v.ARC.Result, string(v.DMARC.Result))
	if got := fieldWords(t, v); got != want {
		t.Errorf("the field says %s, the verdict %s", got, want)
	}
	return v
}

// words are the results of a message in the order of the field.
func words(iprev, spf string, signatures []string, arc, dmarc string) string {
	if len(signatures) == 0 {
		signatures = []string{"none"}
	}
	return "iprev=" + iprev + " spf=" + spf + " dkim=" + strings.Join(signatures, " dkim=") + " arc=" + arc + " dmarc=" + dmarc
}

// results reads the Authentication-Results field of v back.
func results(t testing.TB, v *mailauth.Verdict) authres.Header {
	t.Helper()
	body, ok := strings.CutPrefix(string(v.Results("mx.alias.example").Field()), "Authentication-Results:")
	h, err := authres.Parse(body)
	if !ok || err != nil || h.ID != "mx.alias.example" {
		t.Fatalf("%q: %v", body, err)
	}
	return h
}

func fieldWords(t testing.TB, v *mailauth.Verdict) string {
	t.Helper()
	var all []string
	for _, r := range results(t, v).Results {
		all = append(all, r.Method+"="+r.Value)
	}
	return strings.Join(all, " ")
}

// TestCorpus: every message of testdata/generated gets the verdict it was made for.
func TestCorpus(t *testing.T) {
	// Where verifiers may differ, what K4 and RFC 6376 3.5 say.
	ours := map[string]string{"0016-l-tag-appended-alt.eml": "policy", "0017-l-tag-too-long-attach.eml": "permerror"}
	z, counts := zone(t), map[string]int{}
	for _, m := range samples(t) {
		if word, ok := ours[m.File]; ok && m.Expect.Loose {
			t.Logf("%s: DKIM is %s by us, %s in the manifest: %s", m.File, word, m.Expect.DKIM, m.Expect.Note)
			m.Expect.DKIM = []string{word}
		}
		v := verify(t, z, sender(t, m.IP, m.Helo, m.MailFrom), receive(t, string(read(t, "messages/"+m.File))))
		result, bySPF := strings.CutSuffix(m.Expect.DMARC, "-by-spf")
		want := words("pass", m.SPF, m.Expect.DKIM, m.Expect.ARC, result)
		if got := fieldWords(t, v); got != want || bySPF && v.DMARC.DKIMAligned {
			t.Errorf("%s: %s, want %s (%s)", m.File, got, want, m.Expect.Note)
		}
		counts["messages"]++
		counts["signatures"] += len(v.DKIM)
		counts["arc "+v.ARC.Result]++
		counts["dmarc "+string(v.DMARC.Result)]++
	}
	t.Logf("testdata/generated: %v", counts)
	want := map[string]int{"messages": 69, "signatures": 75, "arc pass": 8, "arc fail": 12, "arc none": 49, "dmarc pass": 59, "dmarc fail": 9, "dmarc none": 1}
	if !maps.Equal(counts, want) {
		t.Errorf("want %v", want)
	}
}

// TestLookupsFail is RELIABILITY 45: whatever subset of the lookups fails, an
// aligned pass passes, and a failure that could have hidden one is temperror.
func TestLookupsFail(t *testing.T) {
	good := signed(t, "acme.example", letter+"\r\ntext\r\n")
	bad := strings.Replace(good, "hello", "hallo", 1)
	names := []string{"acme.example", "s1._domainkey.acme.example", "_dmarc.acme.example"} // SPF, DKIM, DMARC
	for _, tt := range []struct {
		name, ip, raw string
		spf, dkim     bool // would pass
	}{
		{"both pass", acme, good, true, true},
		{"DKIM passes", esp, good, false, true},
		{"SPF passes", acme, bad, true, false},
		{"neither passes", esp, bad, false, false},
	} {
		for subset := range 8 {
			z := zone(t)
			for i, name := range names {
				if subset>>i&1 == 1 {
					must(t, z.Fail(name, resolver.TypeTXT, "TIMEOUT"))
				}
			}
			noSPF, noDKIM := subset&1 != 0, subset&2 != 0
			want := dmarc.Fail
			if tt.spf && !noSPF || tt.dkim && !noDKIM {
				want = dmarc.Pass
			} else if subset != 0 {
				want = dmarc.TempError
			}
			v := verify(t, z, sender(t, tt.ip, "mx.esp.example", "ada@acme.example"), receive(t, tt.raw))
			if v.DMARC.Result != want || (v.MailFrom.Result == "temperror") != noSPF || (v.DKIM[0].Result == "temperror") != noDKIM {
				t.Errorf("%s, lookups %03b fail: spf %s, dkim %s, dmarc %s (%s), want %s", tt.name, subset, v.MailFrom.Result, v.DKIM[0].Result, v.DMARC.Result, v.DMARC.Reason, want)
			}
		}
	}
	// What could not have passed anyway changes nothing.
	z := zone(t)
	z.Fail("esp.example", resolver.TypeTXT, "SERVFAIL")
	z.Fail("s1._domainkey.esp.example", resolver.TypeTXT, "SERVFAIL")
	v := verify(t, z, sender(t, esp, "mx.esp.example", "x@esp.example"), receive(t, signed(t, "esp.example", letter+"\r\ntext\r\n")))
	if v.DMARC.Result != dmarc.Fail || v.DMARC.Policy != dmarc.PolicyReject {
		t.Errorf("strangers without DNS: dmarc %s (%s)", v.DMARC.Result, v.DMARC.Reason)
	}
}

// TestIdentities is RELIABILITY 46 and 48: DMARC runs on the author whatever
// the sender is, and a pass of HELO counts for the null sender alone.
func TestIdentities(t *testing.T) {
	for _, tt := range []struct{ name, ip, helo, from, spf, dmarc string }{
		{"both ours", acme, "acme.example", "ada@acme.example", "pass", "pass"},
		{"HELO passes, sender fails", acme, "acme.example", "x@esp.example", "fail", "fail"},
		{"HELO passes, sender has no record", acme, "acme.example", "x@nothing.example", "none", "fail"},
		{"HELO passes, DNS of the sender is silent", acme, "acme.example", "x@silent.example", "temperror", "fail"},
		{"HELO passes, sender passes elsewhere", esp, "acme.example", "x@esp.example", "pass", "fail"},
		{"HELO passes, null sender", acme, "acme.example", "", "pass", "pass"},
		{"HELO fails, sender passes", acme, "esp.example", "ada@acme.example", "pass", "pass"},
		{"HELO fails, null sender", esp, "acme.example", "", "fail", "fail"},
		{"stranger's HELO passes, null sender", esp, "esp.example", "", "pass", "fail"},
		{"HELO is no name, null sender", esp, "localhost", "", "none", "fail"},
	} {
		z := zone(t)
		z.Fail("silent.example", resolver.TypeTXT, "TIMEOUT")
		v := verify(t, z, sender(t, tt.ip, tt.helo, tt.from), receive(t, letter+"\r\ntext\r\n"))
		if string(v.MailFrom.Result) != tt.spf || string(v.DMARC.Result) != tt.dmarc || v.DMARC.Policy != dmarc.PolicyReject {
			t.Errorf("%s: spf %s, dmarc %s; want %s, %s", tt.name, v.MailFrom.Result, v.DMARC.Result, tt.spf, tt.dmarc)
		}
		spf := results(t, v).Results[1]
		if spf.Property("smtp", "helo") != tt.helo || spf.Property("smtp", "mailfrom") != tt.from {
			t.Errorf("%s: the field says %v", tt.name, spf.Properties)
		}
	}
}

// TestHiddenClients is DESIGN.md 9.11: a private address says nothing about the
// sender, so its SPF is temperror and DMARC does not fail because of it.
func TestHiddenClients(t *testing.T) {
	z := zone(t)
	for kind, addrs := range map[string]string{
		"private": "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 ::ffff:10.0.0.1 fc00::1 fd00::1 " +
			"100.64.0.0 100.127.255.255 ::ffff:100.64.0.1 169.254.1.1 fe80::1 fe80::1%eth0",
		"loopback": "127.0.0.1 127.0.10.1 ::1 ::ffff:127.0.0.1",
		"public": "9.255.255.255 172.15.255.255 172.32.0.1 192.169.0.1 100.63.255.255 100.128.0.0 192.0.2.4 " +
			"::ffff:192.0.2.4 2001:db8::1 fe00::1",
	} {
		for ip := range strings.FieldsSeq(addrs) {
			for _, loopback := range []bool{false, true} {
				want := kind == "private" || kind == "loopback" && !loopback
				verifier := &mailauth.Verifier{Resolver: z, Hostname: "mx.alias.example", Loopback: loopback}
				s := sender(t, ip, "mx.acme.example", "ada@acme.example")
				v, err := verifier.Verify(t.Context(), s, receive(t, letter+"\r\ntext\r\n"))
				must(t, err)
				unknown := v.MailFrom.Result == "temperror" && v.Helo.Result == "temperror" && v.DMARC.Result == dmarc.TempError
				if v.Hidden != want || unknown != want || (len(v.MailFrom.Steps) == 0) != want {
					t.Errorf("%s, Loopback %v: hidden %v, helo %s, mailfrom %s, dmarc %s", ip, loopback, v.Hidden, v.Helo.Result, v.MailFrom.Result, v.DMARC.Result)
				}
				if v.Client != s.Client.Unmap() || (v.DMARC.Result == dmarc.Pass) != (v.Client.String() == acme || v.Client.String() == "127.0.10.1" && loopback) {
					t.Errorf("%s: client %s, dmarc %s", ip, v.Client, v.DMARC.Result)
				}
			}
		}
	}
	v := verify(t, z, sender(t, "10.0.0.1", "x.example", "x@esp.example"), receive(t, signed(t, "acme.example", letter+"\r\ntext\r\n")))
	if v.DMARC.Result != dmarc.Pass {
		t.Errorf("a signature of the author through a proxy: dmarc %s", v.DMARC.Result)
	}
}
