package dkim_test

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"onward/internal/mailauth/dkim"
	"onward/internal/resolver"
)

const letter = "From: ada@example.org\r\nTo: bob@example.net\r\nSubject: hello\r\n"

// signed returns a message with an Ed25519 signature: these tags, and a= b= bh=
// s= and whatever of v= d= h= c= is not among them.
func (c *corpus) signed(tags, header, body string) []byte {
	field := "DKIM-Signature: "
	for _, tag := range []string{"v=1", "d=example.org", "h=from:to:subject", "c=relaxed/relaxed", "a=ed25519-sha256", "s=ed"} {
		name, _, _ := strings.Cut(tag, "=")
		if !strings.Contains("; "+tags, "; "+name+"=") {
			field += tag + "; "
		}
	}
	if !strings.Contains("; "+tags, "; bh=") {
		limit := dkim.NoLimit
		if i := strings.Index("; "+tags, "; l="); i >= 0 {
			fmt.Sscanf(tags[i+2:], "%d", &limit)
		}
		field += "bh=" + encode(bodyHash(dkim.Relaxed, limit, body)) + "; "
	}
	if tags != "" {
		field += tags + "; "
	}
	all := receive(c.t, []byte(field+placeholder+"\r\n"+header+"\r\n")).Fields()
	s, _ := dkim.ParseSignature(all[0].Raw)
	digest, _ := s.Digest(dkim.NewHeader(all), 0)
	return []byte(field + "b=" + encode(ed25519.Sign(c.Ed, digest[:])) + "\r\n" + header + "\r\n" + body)
}

// TestRules holds one rule a line: what a signature says, what becomes of it.
func TestRules(t *testing.T) {
	c := newCorpus(t, 2)
	z := c.Zone()
	key := c.Keys["ed._domainkey.example.org"]
	z.Set("strict._domainkey.example.org", resolver.TypeTXT, key+"; t=y : s")
	z.Set("two._domainkey.example.org", resolver.TypeTXT, key, key)
	z.Set("other._domainkey.example.org", resolver.TypeTXT, key, "v=spf1 -all")
	z.Set("late._domainkey.example.org", resolver.TypeTXT, strings.TrimPrefix(key, "v=DKIM1; ")+"; v=DKIM1")
	z.Set("v2._domainkey.example.org", resolver.TypeTXT, strings.Replace(key, "DKIM1", "DKIM2", 1))
	z.Set("empty._domainkey.example.org", resolver.TypeTXT, "v=DKIM1; p=")
	z.Set("none._domainkey.example.org", resolver.TypeTXT, "v=DKIM1; k=rsa")
	z.Set("sha1._domainkey.example.org", resolver.TypeTXT, key+"; h=sha1")
	z.Set("sha._domainkey.example.org", resolver.TypeTXT, key+"; h=sha1 : sha256; s=*; n=x; g=*")
	z.Set("web._domainkey.example.org", resolver.TypeTXT, key+"; s=web")
	z.Set("nodata._domainkey.example.org", resolver.TypeTXT)
	z.Fail("servfail._domainkey.example.org", resolver.TypeTXT, "SERVFAIL")
	z.Fail("timeout._domainkey.example.org", resolver.TypeTXT, "TIMEOUT")
	z.Set("ed._domainkey.xn--bcher-kva.example", resolver.TypeTXT, key)
	seconds := func(d time.Duration) string { return fmt.Sprint(now.Add(d).Unix()) }
	for _, tt := range []struct {
		rule, tags, want string
	}{
		{"plain", "", "pass"},
		{"K2 version", "v=2", "permerror"},
		{"K2 no selector", "s=", "permerror"},
		{"K2 From must be signed", "h=to:subject", "permerror"},
		{"K2 From in any case", "h=FROM", "pass"},
		{"K2 From oversigned", "h=from:from", "pass"},
		{"h= with an empty name", "h=from::to", "permerror"},
		{"h= with white space", "h=from : \r\n\tto", "pass"},
		{"K2 i= is d=", "i=ada@example.org", "pass"},
		{"K2 i= below d=", "i=@a.b.EXAMPLE.ORG", "pass"},
		{"K2 i= above d=", "i=@org", "permerror"},
		{"K2 i= beside d=", "i=@badexample.org", "permerror"},
		{"K2 i= with an encoded @", "i=x=40example.org@example.com", "permerror"},
		{"K2 i= without a domain", "i=ada", "permerror"},
		{"K2 t=s and i= below", "s=strict; i=@a.example.org", "permerror"},
		{"K2 t=s and i= equal", "s=strict; i=@EXAMPLE.org", "pass"},
		{"K2 expired", "x=" + seconds(-time.Second), "fail"},
		{"K2 not expired", "x=" + seconds(time.Second), "pass"},
		{"K2 expires before it was made", "t=" + seconds(0) + "; x=" + seconds(-time.Second), "permerror"},
		{"K2 a clock ahead", "t=" + seconds(23*time.Hour), "pass"},
		{"K2 from the future", "t=" + seconds(25*time.Hour), "policy"},
		{"K2 t= of many digits", "t=" + strings.Repeat("9", 40), "policy"},
		{"K2 x= of many digits", "x=" + strings.Repeat("9", 40), "pass"},
		{"t= is no number", "t=-1", "permerror"},
		{"K4 l= is the body", "l=6", "pass"},
		{"K4 l= is shorter", "l=5", "policy"},
		{"K4 l= is nothing", "l=0", "policy"},
		{"K4 l= is longer", "l=7", "permerror"},
		{"5.4 its own name in h=", "h=from:dkim-signature", "pass"},
		{"body hash", "bh=AAAA", "fail"},
		{"body hash is no base64", "bh=A", "permerror"},
		{"K6 sha1", "a=rsa-sha1", "permerror"},
		{"K6 unknown", "a=rsa-sha512", "permerror"},
		{"K6 key of the other type", "a=rsa-sha256", "permerror"},
		{"unknown canonicalization", "c=nofws", "permerror"},
		{"c= with a third word", "c=relaxed/relaxed/simple", "permerror"},
		{"q=", "q=dns/txt", "pass"},
		{"q= of several", "q=http : dns/txt", "pass"},
		{"q= unknown", "q=http", "permerror"},
		{"a tag twice", "i=@example.org; i=@example.org", "permerror"},
		{"an empty tag", "i=@example.org; ", "permerror"},
		{"an unknown tag", "x-mailer=1; foo=", "pass"},
		{"d= is no name", "d=example..org", "permerror"},
		{"d= is an address", "d=[192.0.2.1]", "permerror"},
		{"d= in capitals", "d=EXAMPLE.org", "pass"},
		{"RFC 8616 d= as A-label", "d=xn--bcher-kva.example", "pass"},
		{"RFC 8616 d= as U-label", "d=Bücher.example; i=@bücher.example", "pass"},
		{"K7 no such name", "s=absent", "permerror"},
		{"K7 no such record", "s=nodata", "permerror"},
		{"K7 two records", "s=two", "permerror"},
		{"K7 two records, one of another kind", "s=other", "permerror"},
		{"K7 SERVFAIL", "s=servfail", "temperror"},
		{"K7 silence", "s=timeout", "temperror"},
		{"K7 v= must be first", "s=late", "permerror"},
		{"K7 v= must be DKIM1", "s=v2", "permerror"},
		{"K7 revoked", "s=empty", "permerror"},
		{"K7 no p=", "s=none", "permerror"},
		{"K7 h= without sha256", "s=sha1", "permerror"},
		{"K7 h= with sha256", "s=sha", "pass"},
		{"K7 s= for another service", "s=web", "permerror"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			got := verify(t, z, c.signed(tt.tags, letter, "text\r\n"))
			if words(got) != tt.want || (got[0].Reason == "") != (tt.want == dkim.Pass) {
				t.Errorf("%s: %s; want %s", tt.tags, reasons(got), tt.want)
			}
		})
	}
}

// TestChanges changes a message that was signed with l= and one Subject too many.
func TestChanges(t *testing.T) {
	c := newCorpus(t, 3)
	z := c.Zone()
	raw := string(c.signed("h=from:to:subject:subject:list-id", letter, "text\r\n"))
	for _, tt := range []struct{ name, old, new, want string }{
		{"nothing", "", "", "pass"},
		{"blank lines at the end (3.4.4)", "text\r\n", "text \r\n \r\n\r\n", "pass"},
		{"body", "text", "Text", "fail"},
		{"signed field", "hello", "hallo", "fail"},
		{"case of a name", "Subject:", "SUBJECT :", "pass"},
		{"folding", "Subject: hello", "Subject:\r\n hello\r\n ", "pass"},
		{"K5 a field that h= has too often", "\r\nFrom:", "\r\nSubject: other\r\nFrom:", "fail"},
		{"K5 a field that h= says is absent", "\r\nFrom:", "\r\nList-Id: <a.b>\r\nFrom:", "fail"},
		{"K5 a second From above", "\r\nFrom:", "\r\nFrom: eve@example.com\r\nFrom:", "pass From"},
		{"K5 a second From below", "\r\nTo:", "\r\nFrom: eve@example.com\r\nTo:", "fail From"},
		{"a field that is not signed", "\r\nFrom:", "\r\nX-Other: y\r\nFrom:", "pass"},
		{"RELIABILITY 52: a line that is no field", "\r\nTo:", "\r\nno field\r\nTo:", "permerror"},
		{"the signature's own tag", "d=example.org", "d=Example.org", "fail"},
		{"a fold in b=", "b=", "b=\r\n ", "pass"},
	} {
		got := verify(t, z, []byte(strings.Replace(raw, tt.old, tt.new, 1)))
		want, twice, _ := strings.Cut(tt.want, " ")
		if words(got) != want || strings.Join(got[0].Duplicated, " ") != strings.ToLower(twice) {
			t.Errorf("%s: %s, duplicated %q; want %s", tt.name, reasons(got), got[0].Duplicated, tt.want)
		}
	}
}

// TestSelect holds which fields an h= tag means (RFC 6376 5.4, 5.4.2).
func TestSelect(t *testing.T) {
	msg := receive(t, []byte("A: 0\r\nb: 1\r\nSig: 2\r\na: 3\r\nSig: 4\r\nB : 5\r\n\r\n"))
	h := dkim.NewHeader(msg.Fields())
	for _, tt := range []struct {
		own   int
		names string
		want  string
	}{
		{-1, "a", "[3]"},
		{-1, "A a a b c B b", "[3 0 5 1]"},
		{-1, "sig SIG sig", "[4 2]"},
		{4, "sig sig", "[2]"},
		{2, "sig sig a sig", "[4 3]"},
		{-1, "c", "[]"},
	} {
		if got := fmt.Sprint(h.Select(tt.own, strings.Fields(tt.names))); got != tt.want {
			t.Errorf("own %d, %s: %s, want %s", tt.own, tt.names, got, tt.want)
		}
	}
}

// TestResult holds what explain and Authentication-Results read.
func TestResult(t *testing.T) {
	c := newCorpus(t, 4)
	raw := c.signed("t=1700000000; l=4; i=a=20b@x.Example.ORG", letter, "text\r\n")
	r := dkim.Verify(t.Context(), c.Zone(), receive(t, raw), dkim.Options{Now: now, Text: true})[0]
	got := fmt.Sprintln(r.Result, r.Domain, r.Selector, r.Identity, r.Algorithm, r.Signature.Header, r.Signature.Body,
		r.Names, r.Signed, r.Timestamp.Unix(), r.Expires.IsZero(), r.Key.Type, r.Key.Bits, r.Key.Testing, len(r.B()),
		r.Computed.Length, r.Computed.Covers(), string(r.Computed.Sum[:]) == string(r.BodyHash))
	want := "policy example.org ed a b@x.Example.ORG ed25519-sha256 relaxed relaxed [from to subject] 4 1700000000 true ed25519 256 false 8 6 false true\n"
	if got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	if !strings.HasPrefix(string(r.Text), "from:ada@example.org\r\nto:bob@example.net\r\nsubject:hello\r\ndkim-signature:v=1; ") ||
		!strings.HasSuffix(string(r.Text), "; b=") {
		t.Errorf("signed text %q", r.Text)
	}
}

// TestPublishedBodies holds the hashes of RFC 6376 3.4.3 and 3.4.4 for an empty
// body, and the example of 3.4.5.
func TestPublishedBodies(t *testing.T) {
	for _, tt := range []struct {
		c                    dkim.Canonicalization
		body, canonical, sum string
	}{
		{dkim.Simple, "", "\r\n", "frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY="},
		{dkim.Relaxed, "", "", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="},
		{dkim.Simple, " C \r\nD \t E\r\n\r\n\r\n", " C \r\nD \t E\r\n", ""},
		{dkim.Relaxed, " C \r\nD \t E\r\n\r\n\r\n", " C\r\nD E\r\n", ""},
		{dkim.Relaxed, " \t\r\n\t\r\n", "", ""},
		{dkim.Relaxed, "a", "a\r\n", ""},
		{dkim.Simple, "a\r\n\r", "a\r\n\r\r\n", ""},
		{dkim.Relaxed, "a \rb\nc \r", "a \rb\nc \r\r\n", ""},
		{dkim.Relaxed, "a \r\r\n", "a \r\r\n", ""},
	} {
		for piece := 1; piece <= len(tt.body)+1; piece++ {
			var out strings.Builder
			w := tt.c.Body(&out)
			for p := range slices.Chunk([]byte(tt.body), piece) {
				w.Write(p)
			}
			w.Close()
			if out.String() != tt.canonical {
				t.Errorf("%v of %q in pieces of %d: %q, want %q", tt.c, tt.body, piece, out.String(), tt.canonical)
			}
		}
		if got := encode(bodyHash(tt.c, dkim.NoLimit, tt.body)); tt.sum != "" && got != tt.sum {
			t.Errorf("%v of %q: %s, want %s", tt.c, tt.body, got, tt.sum)
		}
	}
}

// TestBodyInPieces compares the streaming body with a slow one that sees all,
// whatever the pieces.
func TestBodyInPieces(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		var b strings.Builder
		for range random.IntN(40) {
			b.WriteString([]string{" ", "\t", "\r\n", "\r\n", "\r", "\n", "a", "letter ", "twelve octets"}[random.IntN(9)])
		}
		body := b.String()
		for _, c := range []dkim.Canonicalization{dkim.Simple, dkim.Relaxed} {
			var out strings.Builder
			w := c.Body(&out)
			for rest := body; rest != ""; {
				n := 1 + random.IntN(len(rest))
				io.WriteString(w, rest[:n])
				rest = rest[n:]
			}
			w.Close()
			if want := slowBody(c, body); out.String() != want {
				t.Fatalf("%v of %q: %q, want %q", c, body, out.String(), want)
			}
		}
	}
}

// slowBody does what RFC 6376 3.4.3 and 3.4.4 say, word by word.
func slowBody(c dkim.Canonicalization, body string) string {
	lines := strings.Split(body, "\r\n")
	if c == dkim.Relaxed {
		for i, line := range lines {
			words := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
			lead := ""
			if len(words) > 0 && strings.IndexAny(line, " \t") == 0 {
				lead = " "
			}
			lines[i] = lead + strings.Join(words, " ")
		}
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	if len(lines) == 0 && c == dkim.Relaxed {
		return ""
	}
	return strings.Join(lines, "\r\n") + "\r\n"
}

// repeated is a body of one piece again and again.
type repeated struct {
	piece []byte
	left  int
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.piece[:min(len(r.piece), r.left)])
	r.left -= n
	return n, nil
}

// TestConstantMemory hashes bodies of 50 MiB (RELIABILITY 54).
func TestConstantMemory(t *testing.T) {
	for name, piece := range map[string]string{
		"empty lines": strings.Repeat("\r\n", 1<<14), "one line": strings.Repeat("x", 1<<15), "white space": strings.Repeat(" \t", 1<<14),
	} {
		var bodies dkim.BodyHashes
		for limit := range int64(100) {
			bodies.Ask(dkim.Simple, limit*1000)
			bodies.Ask(dkim.Relaxed, limit*1000)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := bodies.Read(&repeated{[]byte(piece), 50 << 20}); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 256<<10 {
			t.Errorf("%s: %d octets allocated", name, got)
		}
	}
}
