package dkim_test

import (
	"io"
	"strings"
	"testing"

	"onward/internal/mailauth/dkim"
)

// above is what a forwarder puts on top.
const above = "X-Forwarded-To: a@b.example\r\nX-Forwarded-For: me@example.net a@b.example\r\n" +
	"Authentication-Results: mx.example.net; dkim=pass\r\nReceived: from a by b;\r\n\tnow\r\n"

const aboveFields = 4

// prove reads a body for a proof.
func prove(results []dkim.Result, body io.Reader) (*dkim.Proof, error) {
	var bodies dkim.BodyHashes
	proof := dkim.Prove(results, &bodies)
	return proof, bodies.Read(body)
}

// confirm verifies raw as it came, and then what goes out.
func confirm(t *testing.T, c *corpus, raw, outgoing string, added int) []dkim.Survivor {
	t.Helper()
	results := verify(t, c.Zone(), []byte(raw))
	out := receive(t, []byte(outgoing))
	proof, err := prove(results, out.Body())
	if err != nil {
		t.Fatal(err)
	}
	survivors := proof.Confirm(out.Fields(), added)
	passed := 0
	for i := range results {
		if r := &results[i]; r.Result == dkim.Pass {
			if survivors[passed].Result != r {
				t.Fatalf("survivor %d is of another signature", passed)
			}
			passed++
		}
	}
	if passed != len(survivors) {
		t.Fatalf("%d passed, %d confirmed", passed, len(survivors))
	}
	return survivors
}

// TestConfirm holds the rule of DESIGN.md 9.4 for one change each.
func TestConfirm(t *testing.T) {
	c := newCorpus(t, 20)
	results := "Authentication-Results: mx.example.net; spf=pass\r\n"
	letter := "Received: by mx.example.org\r\nReceived: by desk.example.org\r\n" + letter
	plain := string(c.signed("", letter, "text\r\n"))
	replace := func(s, old, new string) string {
		if !strings.Contains(s, old) {
			t.Fatalf("no %q in %q", old, s)
		}
		return strings.Replace(s, old, new, 1)
	}
	overReceived := string(c.signed("h=from:received:received:received", letter, "text\r\n"))
	overTrace := string(c.signed("h=from:x-forwarded-to", letter, "text\r\n"))
	overSignature := string(c.signed("h=from:dkim-signature", letter, "text\r\n"))
	withResults := string(c.signed("h=from:authentication-results", results+letter, "text\r\n"))
	received := string(c.signed("h=from:received:received", letter, "text\r\n"))
	simple := string(c.signed("c=simple/simple", letter, "text\r\n"))
	for _, tt := range []struct {
		name, raw, outgoing string
		added               int
		want                string // alive, expected or broken, for each
	}{
		{"nothing on top", plain, plain, 0, "alive"},
		{"ours on top", plain, above + plain, aboveFields, "alive"},
		{"simple", simple, above + simple, aboveFields, "alive"},
		{"Received covered as often as there was one", received, above + received, aboveFields, "alive"},
		{"body changed", plain, above + replace(plain, "text", "Text"), aboveFields, "broken"},
		{"body longer", plain, above + plain + "x\r\n", aboveFields, "broken"},
		{"signed field changed", plain, above + replace(plain, "hello", "Hello"), aboveFields, "broken"},
		{"signed field gone", plain, above + replace(plain, "Subject: hello\r\n", ""), aboveFields, "broken"},
		{"unsigned field changed", plain, above + replace(plain, "by desk", "by disk"), aboveFields, "alive"},
		{"space in a simple field", simple, above + replace(simple, "To: bob", "To:  bob"), aboveFields, "broken"},
		{"signature gone", plain, above + letter + "\r\ntext\r\n", aboveFields, "broken"},
		{"signature changed", plain, above + replace(plain, "d=example.org", "d=example.ORG"), aboveFields, "broken"},
		{"Received oversigned", overReceived, above + overReceived, aboveFields, "expected"},
		{"our trace oversigned", overTrace, above + overTrace, aboveFields, "expected"},
		{"signatures oversigned", overSignature, "DKIM-Signature: ours\r\n" + above + overSignature, aboveFields + 1, "expected"},
		{"oversigned, and a field changed", overReceived, above + replace(overReceived, "ada@", "adA@"), aboveFields, "broken"},
		{"oversigned, and the body changed", overReceived, above + replace(overReceived, "text", "Text"), aboveFields, "broken"},
		{"a Received of nobody", overReceived, "Received: a\r\n" + overReceived, 0, "broken"},
		{"signed results removed", withResults, above + replace(withResults, results, ""), aboveFields, "expected"},
		{"signed results removed, body changed", withResults, above + replace(replace(withResults, results, ""), "text", "Text"), aboveFields, "broken"},
		{"a line that is no field", plain, "junk\r\n" + plain, 0, "broken"},
		{"two, one of them oversigned", replace(overReceived, "DKIM-", plain[:strings.Index(plain, "\r\nReceived")+2]+"DKIM-"),
			above + replace(overReceived, "DKIM-", plain[:strings.Index(plain, "\r\nReceived")+2]+"DKIM-"), aboveFields, "alive expected"},
		{"twice the same", plain[:strings.Index(plain, "\r\nReceived")+2] + plain, above + plain[:strings.Index(plain, "\r\nReceived")+2] + plain, aboveFields, "alive alive"},
		{"twice the same, one gone", plain[:strings.Index(plain, "\r\nReceived")+2] + plain, above + plain, aboveFields, "alive broken"},
	} {
		var got []string
		for _, s := range confirm(t, c, tt.raw, tt.outgoing, tt.added) {
			word := "broken"
			switch {
			case s.Alive:
				word = "alive"
			case s.Expected:
				word = "expected"
			}
			if s.Alive != (s.Reason == "") || s.Alive && s.Expected {
				t.Errorf("%s: %+v", tt.name, s)
			}
			got = append(got, word)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, got, tt.want)
		}
	}
}

// TestConfirmIsVerify holds, over generated messages, that a survivor is what a
// verifier of the outgoing bytes lets pass, and that nothing but our fields is
// ever the reason why one is lost.
func TestConfirmIsVerify(t *testing.T) {
	c := newCorpus(t, 21)
	alive, lost := 0, 0
	for range 1500 {
		raw := string(c.Next())
		before := verify(t, c.Zone(), []byte(raw))
		out := receive(t, []byte(above+raw))
		proof, err := prove(before, out.Body())
		if err != nil {
			t.Fatal(err)
		}
		after := map[int]string{}
		for _, r := range dkim.Verify(t.Context(), c.Zone(), out, dkim.Options{Now: now}) {
			after[r.Position-aboveFields] = r.Result
		}
		for _, s := range proof.Confirm(out.Fields(), aboveFields) {
			if s.Alive != (after[s.Result.Position] == dkim.Pass) || !s.Alive && !s.Expected {
				t.Fatalf("%+v, a verifier says %s\n%s", s, after[s.Result.Position], raw)
			}
			if s.Alive {
				alive++
			} else {
				lost++
			}
		}
	}
	if alive == 0 || lost == 0 {
		t.Errorf("%d alive, %d lost", alive, lost)
	}
}

// TestNothingToProve holds that a body nobody asks about is not read, and that
// one which cannot be read proves nothing.
func TestNothingToProve(t *testing.T) {
	c := newCorpus(t, 22)
	if p, err := prove(verify(t, c.Zone(), []byte(letter+"\r\ntext\r\n")), broken{}); err != nil || len(p.Confirm(nil, 0)) != 0 {
		t.Errorf("%v", err)
	}
	if _, err := prove(verify(t, c.Zone(), c.signed("", letter, "text\r\n")), broken{}); err == nil {
		t.Error("a body that cannot be read is proved")
	}
}

func BenchmarkConfirm10K(b *testing.B) {
	z, raw, _ := tenKB(b)
	msg := receive(b, raw)
	results := dkim.Verify(b.Context(), z, msg, dkim.Options{Now: now})
	out := msg.With(append([]byte(above), msg.Header()...))
	b.ReportAllocs()
	for b.Loop() {
		proof, err := prove(results, out.Body())
		if err != nil || !proof.Confirm(out.Fields(), aboveFields)[0].Alive {
			b.Fatal("not confirmed")
		}
	}
}
