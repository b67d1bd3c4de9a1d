package dkim_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"onward/internal/mailauth/dkim"
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

// beginning returns what peers name a signature by.
func beginning(r dkim.Result) string {
	b, _ := r.Tags.Get("b")
	b = notBase64.ReplaceAllString(b, "")
	return b[:min(len(b), 16)]
}
