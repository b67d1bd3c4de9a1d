package signing_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	library "github.com/emersion/go-msgauth/dkim"

	"onward/internal/address"
	"onward/internal/mailauth/arc"
	"onward/internal/mailauth/authres"
	"onward/internal/mailauth/dkim"
	"onward/internal/message"
	"onward/internal/resolver"
	"onward/internal/signing"
	"onward/internal/testmail"
	"onward/internal/testpeer"
)

const domain = address.Domain("mx.example.org")

// newSigner makes keys, both kinds, and a zone that has their records.
func newSigner(t testing.TB, ed25519 bool) (*signing.Signer, *resolver.Zone) {
	t.Helper()
	keys, err := signing.Open(signing.Settings{Dir: filepath.Join(t.TempDir(), "dkim"), Selector: "onward", Ed25519: ed25519, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	s, err := keys.Signer(domain)
	if err != nil {
		t.Fatal(err)
	}
	z := resolver.NewZone()
	for _, r := range s.Records() {
		if err := z.Set(r.Name, resolver.TypeTXT, r.Value); err != nil {
			t.Fatal(err)
		}
	}
	return s, z
}

func receive(t testing.TB, raw string) *message.Message { return testpeer.Message(t, raw) }

// sign returns our fields, and the message below them.
func sign(t testing.TB, s *signing.Signer, raw string) (fields string, signed *message.Message) {
	t.Helper()
	m := receive(t, raw)
	ours, err := s.Sign(m)
	if err != nil {
		t.Fatalf("%.200q: %v", raw, err)
	}
	return string(ours), m.With(append(ours, m.Header()...))
}

// digest is that of the body in relaxed form.
func digest(t testing.TB, m *message.Message) [sha256.Size]byte {
	t.Helper()
	var bodies dkim.BodyHashes
	body := signing.Ask(&bodies)
	if err := bodies.Read(m.Body()); err != nil {
		t.Fatal(err)
	}
	return body.Sum
}

// ours returns the results of our signatures.
func ours(t testing.TB, z *resolver.Zone, m *message.Message) []dkim.Result {
	t.Helper()
	var list []dkim.Result
	for _, r := range dkim.Verify(t.Context(), z, m, dkim.Options{Now: time.Now(), Prefer: func(d string) bool { return d == string(domain) }}) {
		if r.Domain == string(domain) {
			list = append(list, r)
		}
	}
	return list
}

const letter = "From: Ada <ada@example.com>\r\nTo: Bob <bob@example.net>\r\nSubject: A letter\r\n" +
	"Date: Sun, 1 Mar 2026 10:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n"

// odd are messages that something is wrong or unusual with.
var odd = map[string]string{
	"plain":              letter + "\r\nHello\r\n",
	"no body":            letter + "\r\n",
	"no empty line":      letter,
	"no end of line":     letter + "\r\nHello",
	"no header":          "\r\nHello\r\n",
	"nothing":            "",
	"blank body":         letter + "\r\n\r\n\r\n \r\n\t\r\n",
	"white space":        letter + "\r\n a  b\t c \r\n\r\n \t\r\nd\t\r\n\r\n",
	"8-bit":              "From: J\xf6rg <j@example.com>\r\nSubject: Gr\xc3\xbc\xc3\x9fe\r\n\r\n\xff\xfe\x00\r\n",
	"long lines":         letter + "X: " + strings.Repeat("y", 5000) + "\r\nReferences: " + strings.Repeat("<a@b.example>", 400) + "\r\n\r\n" + strings.Repeat("z", 200_000) + "\r\n",
	"folds":              "From:\r\n Ada\r\n\t<ada@example.com>\r\nSubject:  a \r\n  b\t\r\n c\r\n\r\nx\r\n",
	"space before colon": "From : Ada <ada@example.com>\r\nSubject\t : a\r\n\r\nx\r\n",
	"empty fields":       "From:\r\nSubject: \r\nTo:\r\n \r\nCc:\t\r\n\r\nx\r\n",
	"twice":              letter + letter + letter + "\r\nx\r\n",
	"very many":          strings.Repeat("To: a@b.example\r\nSubject: x\r\n", 400) + letter + "\r\nx\r\n",
	"signed before":      "DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=other; h=from; bh=AAAA; b=AAAA\r\n" + letter + "\r\nx\r\n",
	"mime":               letter + "MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n\tboundary=\"=_x\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--=_x\r\n\r\nx\r\n--=_x--\r\n",
	"dots":               letter + "\r\n.\r\n..\r\n.x\r\n",
	"blank lines inside": letter + "\r\nx" + strings.Repeat("\r\n", 100_000) + "y\r\n",
	"blank lines at end": letter + "\r\nx" + strings.Repeat("\r\n", 100_000),
}

// TestSign signs odd messages with both keys and verifies them.
func TestSign(t *testing.T) {
	s, z := newSigner(t, true)
	for name, raw := range odd {
		fields, signed := sign(t, s, raw)
		results := ours(t, z, signed)
		if len(results) != 2 {
			t.Fatalf("%s: %d signatures", name, len(results))
		}
		for i, r := range results {
			if r.Result != dkim.Pass || len(r.Duplicated) > 0 && name != "very many" {
				t.Errorf("%s: %s: %s %s, duplicated %v\n%s", name, r.Algorithm, r.Result, r.Reason, r.Duplicated, fields)
			}
			if want := []dkim.Algorithm{dkim.RSASHA256, dkim.Ed25519SHA256}[i]; r.Algorithm != want || r.Header != dkim.Relaxed || r.Body != dkim.Relaxed {
				t.Errorf("%s: %v %v/%v", name, r.Algorithm, r.Header, r.Body)
			}
			for _, tag := range []string{"l", "z", "x"} {
				if _, ok := r.Tags.Get(tag); ok {
					t.Errorf("%s: has %s=", name, tag)
				}
			}
		}
		checkLines(t, name, fields)
	}
}

// checkLines holds that fields are whole lines, none too long.
func checkLines(t *testing.T, name, fields string) {
	t.Helper()
	for line := range strings.SplitAfterSeq(fields, "\n") {
		text, ended := strings.CutSuffix(line, "\r\n")
		if line != "" && (!ended || strings.ContainsAny(text, "\r\n") || len(text) > 998) {
			t.Errorf("%s: line of %d octets: %q", name, len(text), line)
		}
	}
}

// TestNothingCanBeAdded holds that our signature breaks when any field of K8 is
// added, changed or taken away, or the body changed; and does not when fields of
// the way are added.
func TestNothingCanBeAdded(t *testing.T) {
	s, z := newSigner(t, true)
	_, signed := sign(t, s, letter+"Received: from a\r\n\r\nHello\r\n")
	verdict := func(header string, body string) string {
		all := ""
		for _, r := range ours(t, z, receive(t, header+"\r\n"+body)) {
			all += r.Result + " "
		}
		return strings.TrimSpace(all)
	}
	header := string(signed.Header())
	for _, name := range []string{"From", "to", "CC", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type", "Content-Transfer-Encoding",
		"Content-Disposition", "Content-ID", "Content-Description", "Reply-To", "In-Reply-To", "References"} {
		if got := verdict(name+": x\r\n"+header, "Hello\r\n"); got != "fail fail" {
			t.Errorf("%s added: %s", name, got)
		}
	}
	for _, added := range []string{"Received: x\r\n", "X-Forwarded-To: a@b.example\r\n", "Authentication-Results: a; none\r\n", "DKIM-Signature: x\r\n",
		"List-Id: <a.b>\r\n", "Sender: a@b.example\r\n", "ARC-Seal: i=1\r\n", "Return-Path: <>\r\n"} {
		if got := verdict(added+header, "Hello\r\n"); got != "pass pass" {
			t.Errorf("%q added: %s", added, got)
		}
	}
	if got := verdict(strings.Replace(header, "letter", "1etter", 1), "Hello\r\n"); got != "fail fail" {
		t.Errorf("changed subject: %s", got)
	}
	if got := verdict(strings.Replace(header, "To: Bob <bob@example.net>\r\n", "", 1), "Hello\r\n"); got != "fail fail" {
		t.Errorf("To taken away: %s", got)
	}
	if got := verdict(header, "Hello.\r\n"); got != "fail fail" {
		t.Errorf("changed body: %s", got)
	}
}

// TestOneForAllCopies holds that copies which differ in the fields of the way
// need one signature.
func TestOneForAllCopies(t *testing.T) {
	s, z := newSigner(t, false)
	fields, signed := sign(t, s, letter+"\r\nHello\r\n")
	for _, target := range []string{"a@x.example", "b@y.example"} {
		above := fields + "X-Forwarded-To: " + target + "\r\nReceived: by us\r\n"
		if r := ours(t, z, signed.With([]byte(above+letter)))[0]; r.Result != dkim.Pass {
			t.Errorf("copy for %s: %s", target, r.Reason)
		}
	}
}

// TestPeersVerify has go-msgauth, python3-dkim and Mail::DKIM verify what we sign,
// over odd messages and generated ones that others have signed.
func TestPeersVerify(t *testing.T) {
	s, z := newSigner(t, true)
	var raws []string
	for name, raw := range odd {
		if !strings.Contains("nothing, no header, no empty line, no end of line, space before colon, twice, very many", name) {
			raws = append(raws, raw) // the peers have rules of their own for those
		}
	}
	c := testmail.NewCorpus(4, "author.example")
	c.Publish(z)
	for len(raws) < 300 {
		raw := string(c.Next())
		if strings.HasSuffix(raw, "\r\n") && strings.Count(strings.ToLower(raw), "from: ") == 1 {
			raws = append(raws, raw)
		}
	}
	var input strings.Builder
	var firsts [][]string // beginnings of b=
	passed := 0
	for _, raw := range raws {
		_, signed := sign(t, s, raw)
		text, _ := io.ReadAll(signed.Reader())
		fmt.Fprintf(&input, "%d\n%s", len(text), text)
		byLibrary(t, s, text)
		var beginnings []string
		for _, r := range ours(t, z, signed) {
			b, _ := r.Tags.Get("b")
			beginnings = append(beginnings, regexp.MustCompile(`\s`).ReplaceAllString(b, "")[:16])
			if r.Result == dkim.Pass {
				passed++
			}
		}
		firsts = append(firsts, beginnings)
	}
	if passed != 2*len(raws) {
		t.Errorf("%d of %d signatures pass here", passed, 2*len(raws))
	}
	keys := filepath.Join(t.TempDir(), "keys")
	var lines strings.Builder
	for _, r := range s.Records() {
		fmt.Fprintf(&lines, "%s\t%s\n", r.Name, r.Value)
	}
	if err := os.WriteFile(keys, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, peer := range []struct {
		program, script string
		ed25519         bool // knows it
	}{{"/usr/bin/python3", "peer.py", true}, {"perl", "peer.pl", false}} {
		t.Run(peer.script, func(t *testing.T) {
			testpeer.Need(t, peer.program)
			output, status := testpeer.Run(t, input.String(), peer.program, "../mailauth/dkim/testdata/"+peer.script, keys)
			answers := strings.Split(strings.TrimSuffix(output, "\n"), "\n")
			if answers[0] != "ready" {
				testpeer.Lack(t, "the modules of "+peer.script+": "+output)
			}
			if status != 0 || len(answers) != len(raws)+1 {
				t.Fatalf("status %d, %d answers: %.500s", status, len(answers)-1, output)
			}
			for i, answer := range answers[1:] {
				if !strings.Contains(answer, firsts[i][0]+"=pass") || peer.ed25519 && !strings.Contains(answer, firsts[i][1]+"=pass") {
					t.Errorf("%s\n%.2000s", answer, raws[i])
				}
			}
		})
	}
}

// byLibrary holds that go-msgauth takes our signatures for good.
func byLibrary(t *testing.T, s *signing.Signer, text []byte) {
	t.Helper()
	records := map[string][]string{}
	for _, r := range s.Records() {
		records[r.Name] = []string{r.Value}
	}
	found, err := library.VerifyWithOptions(bytes.NewReader(text), &library.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) {
			if records[name] == nil {
				return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
			}
			return records[name], nil
		}})
	passed := 0
	for _, v := range found {
		if v.Domain == string(domain) && v.Err == nil {
			passed++
		}
	}
	if err != nil || passed != len(records) {
		t.Errorf("go-msgauth takes %d of our signatures: %v\n%.2000s", passed, err, text)
	}
}

// TestCostlyHeader holds that a header which some libraries need seconds for costs
// next to nothing (DEPENDENCIES.md A3).
func TestCostlyHeader(t *testing.T) {
	s, z := newSigner(t, false)
	for name, field := range map[string]string{
		"one field in many lines":   "Subject: x" + strings.Repeat("\r\n y", message.MaxHeaderSize/4-200) + "\r\n",
		"and one nobody signs":      "X: x" + strings.Repeat("\r\n y", message.MaxHeaderSize/4-200) + "\r\n",
		"many fields of many lines": strings.Repeat("To: x"+strings.Repeat("\r\n y", 50)+"\r\n", 900),
	} {
		start := time.Now()
		_, signed := sign(t, s, "From: a@b.example\r\n"+field+"\r\nx\r\n")
		if took := time.Since(start); took > time.Second {
			t.Errorf("%s: %v", name, took)
		}
		if r := ours(t, z, signed)[0]; r.Result != dkim.Pass {
			t.Errorf("%s: %s", name, r.Reason)
		}
	}
}

// TestMemory signs 50 MiB.
func TestMemory(t *testing.T) {
	s, z := newSigner(t, true)
	const size = 50 << 20
	for name, line := range map[string]string{
		"text":        strings.Repeat("x", 76) + "\r\n",
		"one line":    "x",
		"spaces":      strings.Repeat(" ", 900) + "x\r\n",
		"blank lines": "\r\n",
		"blank words": " \r\n",
	} {
		t.Run(name, func(t *testing.T) {
			b := message.NewBuffer(t.TempDir())
			b.Write([]byte(letter + "\r\n"))
			for block := []byte(strings.Repeat(line, 1<<20/len(line))); b.Size() < size; {
				b.Write(block)
			}
			b.Write([]byte("end\r\n"))
			m, err := b.Message()
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			var fields []byte
			grown := growth(func() { fields, err = s.Sign(m) })
			if err != nil {
				t.Fatal(err)
			}
			if grown > 1<<20 {
				t.Errorf("the heap grew by %d KiB", grown>>10)
			}
			for _, r := range ours(t, z, m.With(append(fields, m.Header()...))) {
				if r.Result != dkim.Pass {
					t.Errorf("%s %s", r.Result, r.Reason)
				}
			}
		})
	}
}

// growth returns by how many octets at most the heap grew while f ran.
func growth(f func()) uint64 {
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	before, highest := stats.HeapAlloc, uint64(0)
	done := make(chan struct{})
	go func() {
		f()
		close(done)
	}()
	for {
		select {
		case <-done:
			return highest
		case <-time.After(time.Millisecond):
			runtime.ReadMemStats(&stats)
			if stats.HeapAlloc > before {
				highest = max(highest, stats.HeapAlloc-before)
			}
		}
	}
}

// TestUnreadableBody holds that what cannot be read to its end is not signed.
func TestUnreadableBody(t *testing.T) {
	s, _ := newSigner(t, true)
	b := message.NewBuffer(t.TempDir())
	b.Write([]byte(letter + "\r\n"))
	b.Write(bytes.Repeat([]byte("x"), 2*message.MemoryLimit))
	m, err := b.Message()
	if err != nil {
		t.Fatal(err)
	}
	m.Close() // so the file is gone
	if fields, err := s.Sign(m); err == nil {
		t.Errorf("signed %q", fields)
	}
}

// TestSeal holds that a set on top of everything is a chain that passes, over
// which another can be put.
func TestSeal(t *testing.T) {
	s, z := newSigner(t, true)
	chain := arc.Result{Result: arc.None}
	_, m := sign(t, s, letter+"\r\nHello\r\n \r\n")
	for n := 1; n <= 3; n++ {
		results := authres.Header{ID: domain.String(), Results: []authres.Result{{Method: "arc", Value: chain.Result}}}
		set, err := s.Seal(m.Fields(), digest(t, m), chain, results, time.Now())
		if err != nil || set == nil {
			t.Fatalf("%q, %v", set, err)
		}
		checkLines(t, "set", string(set))
		m = m.With(append(set, m.Header()...))
		var bodies dkim.BodyHashes
		c := arc.Prepare(dkim.NewHeader(m.Fields()), &bodies)
		if err := bodies.Read(m.Body()); err != nil {
			t.Fatal(err)
		}
		chain = c.Finish(t.Context(), z, time.Now())
		if chain.Result != arc.Pass || len(chain.Sets) != n || chain.Sets[n-1].Seal.Domain != string(domain) {
			t.Fatalf("%d sets: %+v", n, chain)
		}
	}
}

func BenchmarkSign10K(b *testing.B) {
	raw := letter + "MIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n" + strings.Repeat("Some words of a letter that has been written for a benchmark of DKIM, no more.\r\n", 128)
	for _, both := range []bool{false, true} {
		b.Run(map[bool]string{false: "RSA", true: "RSA+Ed25519"}[both], func(b *testing.B) {
			s, _ := newSigner(b, both)
			m := receive(b, raw)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Sign(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSign25M(b *testing.B) {
	s, _ := newSigner(b, false)
	m := receive(b, letter+"\r\n"+strings.Repeat(strings.Repeat("x", 76)+"\r\n", 25<<20/78))
	b.SetBytes(25 << 20)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Sign(m); err != nil {
			b.Fatal(err)
		}
	}
}
