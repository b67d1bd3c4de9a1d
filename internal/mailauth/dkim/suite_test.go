package dkim_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"onward/internal/mailauth/dkim"
	"onward/internal/message"
	"onward/internal/resolver"
	"onward/internal/testpeer"
)

// now is when all messages of the tests arrive.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const shared = "../../../testdata/"

func zone(t testing.TB, path string) *resolver.Zone {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := resolver.ParseZone(path, f)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func receive(t testing.TB, raw []byte) *message.Message { return testpeer.Message(t, string(raw)) }

func verify(t testing.TB, r resolver.Resolver, raw []byte) []dkim.Result {
	t.Helper()
	return dkim.Verify(t.Context(), r, receive(t, raw), dkim.Options{Now: now})
}

// words returns the results alone, topmost signature first.
func words(results []dkim.Result) string {
	var all []string
	for _, r := range results {
		all = append(all, r.Result)
	}
	return strings.Join(all, " ")
}

func reasons(results []dkim.Result) string {
	var all []string
	for _, r := range results {
		all = append(all, r.Result+" ("+r.Reason+")")
	}
	return strings.Join(all, ", ")
}

// TestPublished runs the messages that other projects verify, with the verdicts
// of testdata/dkim/README.md.
func TestPublished(t *testing.T) {
	want := map[string]string{
		"stalwart-001":                      "pass pass",
		"stalwart-002":                      "pass",
		"stalwart-003":                      "pass pass",
		"rspamd-ed25519":                    "pass pass",
		"rspamd-good_dkim_highsecure":       "pass",
		"rspamd-good_dkim_rspamd":           "pass",
		"rspamd-onsubdomain_fail_alignment": "pass",
		"rspamd-onsubdomain_pass_relaxed":   "pass",
		"rspamd-pass_none":                  "pass",
		"rspamd-bad_dkim_highsecure":        "fail",
		"rspamd-bad_dkim_rspamd":            "fail",
		"rspamd-ed25519-broken":             "fail fail",
		"rspamd-bad_dkim1":                  "permerror",
		"rspamd-dkim_unknown_tags":          "permerror",
		"rspamd-bad_dkim3":                  "temperror",
	}
	files, _ := filepath.Glob(shared + "dkim/messages/*.eml")
	z := zone(t, shared+"dkim/zone.json")
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".eml")
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := verify(t, z, raw); words(got) != want[name] {
			t.Errorf("%s: %s; want %s", name, reasons(got), want[name])
		}
	}
	if len(files) != len(want) || len(files) != 15 {
		t.Errorf("%d messages and %d verdicts, want 15 of both", len(files), len(want))
	}
	t.Logf("testdata/dkim: %d messages", len(files))
}

// loose are our verdicts where the manifest says that verifiers differ (K4):
// text after l= is not signed, and a signer must not write a larger l= than
// there is body (RFC 6376 3.5).
var loose = map[string]string{
	"0016-l-tag-appended-alt.eml":    "policy",
	"0017-l-tag-too-long-attach.eml": "permerror",
}

// TestGenerated runs the messages of testdata/generated.
func TestGenerated(t *testing.T) {
	var manifest struct {
		Messages []struct {
			File   string
			Expect struct {
				DKIM  []string
				Loose bool
				Note  string
			}
		}
	}
	data, err := os.ReadFile(shared + "generated/manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &manifest); err != nil {
		t.Fatal(err)
	}
	z := zone(t, shared+"generated/zone.json")
	signatures := 0
	for _, m := range manifest.Messages {
		raw, err := os.ReadFile(shared + "generated/messages/" + m.File)
		if err != nil {
			t.Fatal(err)
		}
		got := verify(t, z, raw)
		signatures += len(got)
		want := strings.Join(m.Expect.DKIM, " ")
		if ours, ok := loose[m.File]; ok && m.Expect.Loose {
			t.Logf("%s: ours %s, manifest %s: %s", m.File, reasons(got), want, m.Expect.Note)
			want = ours
		}
		if words(got) != want {
			t.Errorf("%s: %s; want %s", m.File, reasons(got), want)
		}
	}
	if len(manifest.Messages) != 69 {
		t.Errorf("%d messages, want 69", len(manifest.Messages))
	}
	t.Logf("testdata/generated: %d messages, %d signatures", len(manifest.Messages), signatures)
}
