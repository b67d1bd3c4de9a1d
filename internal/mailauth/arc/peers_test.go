package arc_test

import (
	"bufio"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"onward/internal/mailauth/arc"
	"onward/internal/mailauth/authres"
	"onward/internal/resolver"
	"onward/internal/testpeer"
)

// A peer is another implementation, in one process for the whole test.
type peer struct {
	name string
	in   *json.Encoder
	out  *bufio.Scanner
}

type request struct {
	Op       string            `json:"op"` // "verify" or "seal"
	Message  []byte            `json:"message"`
	DNS      map[string]string `json:"dns,omitempty"`
	Domain   string            `json:"domain,omitempty"`
	Selector string            `json:"selector,omitempty"`
	Chain    string            `json:"chain,omitempty"`
	Key      string            `json:"key,omitempty"`
	Time     int64             `json:"time,omitempty"`
}

type answer struct {
	Result, Reason, Error string
	Fields                string // base64
}

// startPeer starts a script with the first interpreter that has its libraries.
func startPeer(t *testing.T, name, script string, try []string, interpreters ...string) *peer {
	t.Helper()
	for _, program := range interpreters {
		if exec.Command(program, try...).Run() != nil {
			continue
		}
		cmd := exec.Command(program, script)
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); cmd.Wait() })
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		return &peer{name, json.NewEncoder(in), lines}
	}
	testpeer.Lack(t, name)
	return nil
}

func (p *peer) ask(t *testing.T, q request) answer {
	t.Helper()
	if err := p.in.Encode(q); err != nil {
		t.Fatal(err)
	}
	if !p.out.Scan() {
		t.Fatalf("%s ended: %v", p.name, p.out.Err())
	}
	var a answer
	if err := json.Unmarshal(p.out.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// A hop is a host that seals.
type hop struct {
	domain, selector string
	key              *rsa.PrivateKey
}

func (h hop) pem() string {
	der := x509.MarshalPKCS1PrivateKey(h.key)
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: der}))
}

// newHops makes five sealers, whose keys are of the sizes in use, and their DNS.
func newHops(t testing.TB) ([]hop, map[string]string) {
	var hops []hop
	dns := map[string]string{}
	for i, bits := range []int{1024, 1024, 1536, 2048, 1024} {
		key, err := rsa.GenerateKey(nil, bits)
		if err != nil {
			t.Fatal(err)
		}
		h := hop{fmt.Sprintf("hop%d.example", i+1), fmt.Sprintf("arc-202%d", i), key}
		der, _ := x509.MarshalPKIXPublicKey(&key.PublicKey)
		dns[h.selector+"._domainkey."+h.domain] = "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
		hops = append(hops, h)
	}
	return hops, dns
}

// compose returns a message that r dreams up: white space and folds in every
// place, 8-bit text, bodies that begin, go on and end in blank lines.
func compose(r *rand.Rand) string {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	header := []string{
		"From:" + pick(" ", "", "\t", " \r\n ") + pick("Ann <ann@author.example>", "ann@author.example", "\"A, nn\"\r\n  <ann@author.example>"),
		pick("To", "TO", "to") + ": " + pick("bob@dest.example", "undisclosed-recipients:;", "a@b.example,\r\n\tc@d.example"),
		"Subject:" + pick(" plain", "  many   spaces ", " folded\r\n  twice\r\n\there", " f\xc3\xbcr dich", ""),
		"Date: Thu, 1 Jan 2026 00:00:00 +0000",
		"Message-ID: <" + fmt.Sprint(r.Uint32()) + "@author.example>",
	}
	for _, extra := range []string{
		"MIME-Version: 1.0", "Content-Type: text/plain;\r\n\tcharset=utf-8", "List-Id: <l.example>", "Reply-To: x@y.example",
		"X-Empty:", "DKIM-Signature: v=1; a=rsa-sha256; d=author.example; s=a; h=from; bh=x; b=y", "Received: from a by b;\r\n\tnow",
	} {
		if r.IntN(2) == 0 {
			header = append(header, extra)
		}
	}
	r.Shuffle(len(header), func(i, j int) { header[i], header[j] = header[j], header[i] })
	var body strings.Builder
	for range r.IntN(8) {
		body.WriteString(pick("\r\n", "text\r\n", " led by a space\r\n", "ends in spaces  \t \r\n", "a\tb  c\r\n", " \t \r\n",
			"gr\xc3\xbc\xc3\x9fe\r\n", ".dot\r\n", strings.Repeat("long ", 300)+"\r\n", "--boundary\r\n"))
	}
	return strings.Join(header, "\r\n") + "\r\n\r\n" + body.String() + pick("", "", "no line end", "\r\n\r\n\r\n")
}

// spoil changes a sealed message in one of the ways that a chain must show.
func spoil(r *rand.Rand, text string) (string, string) {
	change := func(old, new string) string { return strings.Replace(text, old, new, 1) }
	type way struct{ name, text string }
	ways := []way{
		{"body", text + "\r\nfooter\r\n"},
		{"results", change("spf=pass", "spf=fail")},
		{"cv", change("cv=none", "cv=pass")},
		{"domain", change("d=hop1.example", "d=hop2.example")},
		{"instance", change("i=1;", "i=3;")},
		{"gone", change("ARC-Message-Signature:", "X-Message-Signature:")},
		{"twice", text[:strings.Index(text, "ARC-Seal:")] + "ARC-Authentication-Results: i=1; a.example; none\r\n" + text[strings.Index(text, "ARC-Seal:"):]},
		{"space in body", change("text", "text ")},
		{"subject", change("Subject:", "Subject: [list]")},
	}
	w := ways[r.IntN(len(ways))]
	return w.name, w.text
}

// startPeers starts both.
func startPeers(t *testing.T) (python, perl *peer) {
	t.Helper()
	python = startPeer(t, "python3-dkim", "testdata/peer.py", []string{"-c", "import dkim, authres"}, "python3", "/usr/bin/python3")
	perl = startPeer(t, "libmail-dkim-perl", "testdata/peer.pl", []string{"-MMail::DKIM::ARC::Verifier", "-MJSON::PP", "-e", "1"}, "perl")
	return python, perl
}

// verdict asks p about a message. What it raises an error about, it refuses.
func (p *peer) verdict(t *testing.T, text string, dns map[string]string) (result, reason string) {
	t.Helper()
	a := p.ask(t, request{Op: "verify", Message: []byte(text), DNS: dns})
	if a.Error != "" {
		return arc.Fail, a.Error
	}
	return a.Result, a.Reason
}

// differences are the messages of testdata/generated about which a peer says
// something else than we do; docs/verification.md explains each.
var differences = map[string]bool{
	"python3-dkim 0056-arc-ed25519-noeol.eml":              true,
	"libmail-dkim-perl 0056-arc-ed25519-noeol.eml":         true,
	"python3-dkim 0068-arc-51-hops-report.eml":             true,
	"libmail-dkim-perl 0068-arc-51-hops-report.eml":        true,
	"python3-dkim 0069-arc-seal-header-order-longline.eml": true,
}

// TestPeersOnCorpus asks the peers about the messages of testdata/generated.
func TestPeersOnCorpus(t *testing.T) {
	python, perl := startPeers(t)
	var entries map[string]any
	readJSON(t, "generated/zone.json", &entries)
	dns := map[string]string{}
	for name, value := range entries {
		if list, ok := value.([]any); ok && len(list) == 1 {
			value = list[0]
		}
		if text, ok := value.(string); ok && !strings.Contains(name, "/") {
			dns[name] = text
		}
	}
	zone := zoneOf(t, dns)
	files, _ := filepath.Glob(shared + "generated/messages/*.eml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		ours, _ := verify(t.Context(), t, parse(t, string(text)), zone)
		for _, p := range []*peer{python, perl} {
			name := p.name + " " + filepath.Base(file)
			theirs, reason := p.verdict(t, string(text), dns)
			if (theirs != ours.Result) != differences[name] {
				t.Errorf("%s says %s (%s), we say %s (%s)", name, theirs, reason, ours.Result, ours.Reason)
			}
		}
	}
	t.Logf("%d messages, %d known differences", len(files), len(differences))
}

const chains = 300

// TestPeers makes messages that pass one to five sealers, each of them us,
// python3-dkim or Mail::DKIM; leaves them alone or spoils them; and asks all
// three for a verdict. Differences are listed in docs/verification.md.
func TestPeers(t *testing.T) {
	python, perl := startPeers(t)
	hops, dns := newHops(t)
	zone := zoneOf(t, dns)
	counts := map[string]int{}
	for n := range chains {
		r := rand.New(rand.NewPCG(1, uint64(n)))
		text := compose(r)
		length := 1 + r.IntN(5)
		way := ""
		for i := range length {
			sealer := r.IntN(3)
			way += "opj"[sealer : sealer+1]
			text = sealBy(t, sealer, hops[i], text, zone, python, perl)
		}
		if r.IntN(3) == 0 {
			var how string
			how, text = spoil(r, text)
			way += " " + how
		}
		ours, _ := verify(t.Context(), t, parse(t, text), zone)
		counts[ours.Result]++
		if !strings.Contains(way, " ") && (ours.Result != arc.Pass || len(ours.Sets) != length || ours.OldestPass != 0) {
			t.Errorf("%d %s: %s (%s)\n%s", n, way, ours.Result, ours.Reason, text)
		}
		for _, p := range []*peer{python, perl} {
			theirs, reason := p.verdict(t, text, dns)
			if theirs != ours.Result {
				t.Errorf("%d %s: we say %s (%s), %s says %s (%s)\n%s", n, way, ours.Result, ours.Reason, p.name, theirs, reason, text)
			}
		}
	}
	t.Logf("%d chains, verified by us, python3-dkim and Mail::DKIM: %v", chains, counts)
}

// sealBy passes a message through one sealing host.
func sealBy(t *testing.T, sealer int, h hop, text string, zone *resolver.Zone, python, perl *peer) string {
	t.Helper()
	m := parse(t, text)
	chain, body := verify(t.Context(), t, m, zone)
	results := authres.Header{ID: h.domain, Results: []authres.Result{
		{Method: "arc", Value: chain.Result},
		{Method: "spf", Value: "pass", Properties: []authres.Property{{Type: "smtp", Name: "mailfrom", Value: "a@b.example"}}},
		{Method: "dmarc", Value: "fail", Properties: []authres.Property{{Type: "header", Name: "from", Value: "author.example"}}},
	}}
	text = string(results.Field()) + "Received: from x by " + h.domain + ";\r\n\tnow\r\n" + text
	if sealer == 0 {
		s := arc.Sealer{Key: h.key, Domain: h.domain, Selector: h.selector}
		set, err := s.Seal(parse(t, text).Fields(), body, chain, results, now)
		if err != nil || set == nil {
			t.Fatalf("no set: %v", err)
		}
		return string(set) + text
	}
	p := []*peer{nil, python, perl}[sealer]
	a := p.ask(t, request{Op: "seal", Message: []byte(text), Domain: h.domain, Selector: h.selector, Chain: chain.Result, Key: h.pem(), Time: now.Unix()})
	set, err := base64.StdEncoding.DecodeString(a.Fields)
	if err != nil || len(set) == 0 {
		t.Fatalf("%s seals nothing: %+v\n%s", p.name, a, text)
	}
	return strings.ReplaceAll(strings.ReplaceAll(string(set), "\r\n", "\n"), "\n", "\r\n") + text
}
