package dkim_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"onward/internal/mailauth/dkim"
	"onward/internal/resolver"
	"onward/internal/testpeer"
)

// differences are where a peer's word for a signature may not be ours. The
// sentences that decide are in docs/verification.md.
var differences = []struct {
	name string
	peer string
	here func(r dkim.Result, field, raw string) bool
}{
	{"l= leaves text unsigned: policy", "", func(r dkim.Result, _, _ string) bool { return r.Result == dkim.Policy && r.Signed != dkim.NoLimit }},
	{"l= is longer than the body: permerror", "", func(r dkim.Result, _, _ string) bool { return r.Computed != nil && r.Signed > r.Computed.Length }},
	{"t= in the future: policy", "", func(r dkim.Result, _, _ string) bool { return r.Timestamp.After(now) }},
	{"second From, not signed", "dkimpy", func(r dkim.Result, _, _ string) bool { return slices.Contains(r.Duplicated, "from") }},
	{"white space between b= and its semicolon", "dkimpy", func(_ dkim.Result, field, _ string) bool { return spaceAfterB.MatchString(field) }},
	{"simple signature field that ends in white space", "dkimpy", func(r dkim.Result, field, _ string) bool {
		return r.Header == dkim.Simple && strings.TrimRight(field, " \t\r\n") != strings.TrimSuffix(field, "\r\n")
	}},
	{"b= directly after the colon of the field", "dkimpy", func(_ dkim.Result, field, _ string) bool { return strings.Contains(field, ":b=") }},
	{"t=s and i= below d=", "dkimpy", func(r dkim.Result, _, _ string) bool { return r.Key != nil && r.Key.Strict }},
	{"ed25519 is unknown to it", "Mail::DKIM", func(r dkim.Result, _, _ string) bool { return r.Algorithm == dkim.Ed25519SHA256 }},
	{"a last line without CRLF", "", func(_ dkim.Result, _, raw string) bool { return !strings.HasSuffix(raw, "\r\n") }},
	{"a bare RSAPublicKey is none for it", "Mail::DKIM", func(r dkim.Result, _, _ string) bool { return r.Selector == "bare" }},
}

var notBase64 = regexp.MustCompile(`[^0-9A-Za-z+/=]`)

var spaceAfterB = regexp.MustCompile(`[;\s]b\s*=[^;]*\s;`)

// compare returns the name of the difference between our word and a peer's, ""
// when there is none, and whether it is one of those we know.
func compare(r dkim.Result, field, raw, peer, said string) (name string, known bool) {
	if (r.Result == dkim.Pass) == (said == "pass") {
		return "", true
	}
	for _, d := range differences {
		if (d.peer == "" || d.peer == peer) && d.here(r, field, raw) {
			return peer + ": " + d.name, true
		}
	}
	return "", false
}

// TestAgainstPeers verifies generated messages here and with dkimpy and
// Mail::DKIM.
func TestAgainstPeers(t *testing.T) {
	c := newCorpus(t, 1)
	peers := map[string]testpeer.DKIM{
		"dkimpy":     testpeer.StartDKIM(t, c.Keys, "/usr/bin/python3", "testdata/peer.py"),
		"Mail::DKIM": testpeer.StartDKIM(t, c.Keys, "perl", "testdata/peer.pl"),
	}
	z := c.Zone()
	ours, known, compared := map[string]int{}, map[string]int{}, 0
	for n := range 2500 {
		raw := c.Next()
		msg := receive(t, raw)
		results := dkim.Verify(t.Context(), z, msg, dkim.Options{Now: now})
		for _, r := range results {
			ours[r.Result]++
		}
		for name, ask := range peers {
			said, err := ask(raw)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range results {
				answer := said[beginning(r)]
				difference, ok := compare(r, string(msg.Fields()[r.Position].Raw), string(raw), name, answer)
				if compared++; !ok {
					t.Errorf("message %d: ours %s (%s), %s says %q\n%q", n, r.Result, r.Reason, name, answer, raw[:min(len(raw), 3000)])
					t.Logf("%s", msg.Fields()[r.Position].Raw)
				} else if difference != "" {
					known[difference]++
				}
			}
		}
		if t.Failed() {
			break // one is enough to read
		}
	}
	t.Logf("2500 messages, results %v, %d comparisons", ours, compared)
	for _, d := range slices.Sorted(maps.Keys(known)) {
		t.Logf("%4d × %s", known[d], d)
	}
}

// TestAgainstPeersByAge: what the standard has given up, and what is over. The
// generated messages have neither.
func TestAgainstPeersByAge(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, _ := x509.MarshalPKIXPublicKey(&key.PublicKey)
	record := "v=DKIM1; k=rsa; p=" + encode(public)
	keys := map[string]string{"any._domainkey.example.org": record, "sha1._domainkey.example.org": record + "; h=sha1"}
	z := resolver.NewZone()
	for name, record := range keys {
		z.Set(name, resolver.TypeTXT, record)
	}
	dkimpy := testpeer.StartDKIM(t, keys, "/usr/bin/python3", "testdata/peer.py")
	mailDKIM := testpeer.StartDKIM(t, keys, "perl", "testdata/peer.pl")
	expired := func(ago time.Duration) string {
		x := time.Now().Add(-ago).Unix()
		return fmt.Sprintf("t=%d; x=%d; ", x-60, x)
	}
	for _, tt := range []struct {
		name, selector, tags  string
		hash                  crypto.Hash
		ours, dkimpy, perlish string
	}{
		{"plain", "any", "", crypto.SHA256, dkim.Pass, "pass", "pass"},
		{"key with h=sha1", "sha1", "", crypto.SHA256, dkim.PermError, "pass", "invalid"},
		{"rsa-sha1", "any", "", crypto.SHA1, dkim.PermError, "pass", "pass"},
		{"rsa-sha1, key with h=sha1", "sha1", "", crypto.SHA1, dkim.PermError, "pass", "pass"},
		{"expired for an hour", "any", expired(time.Hour), crypto.SHA256, dkim.Fail, "pass", "invalid"},
		{"expired for eleven hours", "any", expired(11 * time.Hour), crypto.SHA256, dkim.Fail, "ValidationError", "invalid"},
	} {
		sum := func(text string) []byte {
			h := tt.hash.New()
			io.WriteString(h, text)
			return h.Sum(nil)
		}
		// As relaxed wants both fields already.
		field := fmt.Sprintf("v=1; a=rsa-%s; d=example.org; s=%s; c=relaxed/relaxed; h=from; %sbh=%s; b=",
			strings.ToLower(strings.ReplaceAll(tt.hash.String(), "-", "")), tt.selector, tt.tags, encode(sum("hello\r\n")))
		b, err := rsa.SignPKCS1v15(nil, key, tt.hash, sum("from:ada@example.org\r\ndkim-signature:"+field))
		if err != nil {
			t.Fatal(err)
		}
		raw := []byte("dkim-signature:" + field + encode(b) + "\r\nfrom:ada@example.org\r\n\r\nhello\r\n")
		r := dkim.Verify(t.Context(), z, receive(t, raw), dkim.Options{Now: time.Now()})[0]
		python, err1 := dkimpy(raw)
		perl, err2 := mailDKIM(raw)
		if got, want := []string{r.Result, python[beginning(r)], perl[beginning(r)]}, []string{tt.ours, tt.dkimpy, tt.perlish}; !slices.Equal(got, want) {
			t.Errorf("%s: we, dkimpy and Mail::DKIM say %q, want %q (%s, %v, %v)", tt.name, got, want, r.Reason, err1, err2)
		}
	}
}

// beginning returns what peers name a signature by.
func beginning(r dkim.Result) string {
	b, _ := r.Tags.Get("b")
	b = notBase64.ReplaceAllString(b, "")
	return b[:min(len(b), 16)]
}
