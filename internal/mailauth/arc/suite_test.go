package arc_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"onward/internal/mailauth/arc"
	"onward/internal/mailauth/authres"
	"onward/internal/mailauth/dkim"
	"onward/internal/message"
	"onward/internal/resolver"
	"onward/internal/testpeer"
)

const shared = "../../../testdata/"

// now is when all tests verify.
var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// parse returns a message whose lines may end in LF.
func parse(t testing.TB, text string) *message.Message {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	return testpeer.Message(t, strings.ReplaceAll(text, "\n", "\r\n"))
}

// verify is what mailauth does with a message: prepare, one pass, finish.
func verify(ctx context.Context, t testing.TB, m *message.Message, r resolver.Resolver) (arc.Result, [sha256.Size]byte) {
	t.Helper()
	var bodies dkim.BodyHashes
	chain := arc.Prepare(dkim.NewHeader(m.Fields()), &bodies)
	relaxed := bodies.Ask(dkim.Relaxed, dkim.NoLimit)
	if err := bodies.Read(m.Body()); err != nil {
		t.Fatal(err)
	}
	return chain.Finish(ctx, r, now), relaxed.Sum
}

func readJSON(t testing.TB, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(shared + file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

func zoneOf(t testing.TB, texts map[string]string) *resolver.Zone {
	t.Helper()
	z := resolver.NewZone()
	for name, text := range texts {
		if err := z.Set(name, resolver.TypeTXT, text); err != nil {
			t.Fatal(err)
		}
	}
	return z
}

// TestValidationSuite runs testdata/arc/validation.json as it is.
func TestValidationSuite(t *testing.T) {
	var scenarios []struct {
		Description string
		TXT         map[string]string `json:"txt-records"`
		Tests       map[string]struct{ Message, CV string }
	}
	readJSON(t, "arc/validation.json", &scenarios)
	cases := 0
	for _, s := range scenarios {
		zone := zoneOf(t, s.TXT)
		for name, tt := range s.Tests {
			cases++
			want := strings.ToLower(tt.CV)
			if want == "" { // the newest seal says cv=fail: the chain is over
				want = arc.Fail
			}
			got, _ := verify(t.Context(), t, parse(t, tt.Message), zone)
			if got.Result != want {
				t.Errorf("%s: %s: %s (%s), want %s", s.Description, name, got.Result, got.Reason, want)
			}
			if (got.Reason == "") != (got.Result == arc.Pass || got.Result == arc.None) {
				t.Errorf("%s: %s with reason %q", name, got.Result, got.Reason)
			}
			t.Logf("%s: %s %s", name, got.Result, got.Reason)
		}
	}
	if cases != 77 {
		t.Errorf("%d cases, want 77", cases)
	}
	t.Logf("ARC validation suite: %d cases", cases)
}

// TestSigningSuite runs testdata/arc/signing.json as it is. RSA signatures of
// PKCS #1 v1.5 are the same each time, so b= must be right to the last bit.
func TestSigningSuite(t *testing.T) {
	var scenarios []struct {
		Domain, Sel, PrivateKey string
		TXT                     map[string]string `json:"txt-records"`
		Tests                   map[string]struct {
			Message    string
			T          int64
			SigHeaders string `json:"sig-headers"`
			SrvID      string `json:"srv-id"`
			AS         string
			AMS        string
			AAR        string
		}
	}
	readJSON(t, "arc/signing.json", &scenarios)
	cases := 0
	for _, s := range scenarios {
		block, _ := pem.Decode([]byte(s.PrivateKey))
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		for name, tt := range s.Tests {
			cases++
			m := parse(t, tt.Message)
			_, body := verify(t.Context(), t, m, zoneOf(t, s.TXT))
			results := resultsBy(t, m, tt.SrvID)
			sealer := arc.Sealer{Key: key, Domain: s.Domain, Selector: s.Sel, Headers: strings.Split(tt.SigHeaders, ":")}
			set, err := sealer.Seal(m.Fields(), body, statusIn(results), results, time.Unix(tt.T, 0))
			if err != nil {
				t.Fatal(err)
			}
			if tt.AS == "" {
				if set != nil {
					t.Errorf("%s: a set was added: %s", name, set)
				}
				continue
			}
			added := parse(t, string(set)).Fields()
			if len(added) != 3 {
				t.Errorf("%s: %d fields", name, len(added))
				continue
			}
			compareTags(t, name+" AS", added[0], tt.AS)
			compareTags(t, name+" AMS", added[1], tt.AMS)
			if got, want := squeeze(added[2].Value()), squeeze(tt.AAR); got != want {
				t.Errorf("%s AAR:\n got %s\nwant %s", name, got, want)
			}
		}
	}
	if cases != 10 {
		t.Errorf("%d cases, want 10", cases)
	}
	t.Logf("ARC signing suite: %d cases", cases)
}

// resultsBy joins the Authentication-Results that id added, as the suite asks.
func resultsBy(t *testing.T, m *message.Message, id string) authres.Header {
	all := authres.Header{ID: id}
	for _, f := range m.Fields() {
		if !f.Is(authres.Name) {
			continue
		}
		h, err := authres.Parse(f.Value())
		if err != nil {
			t.Fatal(err)
		}
		if h.ID == id {
			all.Results = append(all.Results, h.Results...)
		}
	}
	return all
}

// statusIn returns what the results say of the chain. The suite has it read
// from there: the sets in its messages were folded after they were sealed.
func statusIn(h authres.Header) arc.Result {
	for _, r := range h.Results {
		if r.Method == "arc" {
			return arc.Result{Result: r.Value}
		}
	}
	return arc.Result{Result: arc.None}
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), "") }

// compareTags compares tag by tag, white space ignored.
func compareTags(t *testing.T, name string, f message.Field, want string) {
	t.Helper()
	asMap := func(s string) map[string]string {
		tags, err := dkim.ParseTags(squeeze(s))
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]string{}
		for _, tag := range tags {
			m[tag.Name] = tag.Value
		}
		return m
	}
	if got, want := asMap(f.Value()), asMap(want); !maps.Equal(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", name, got, want)
	}
}

// TestGeneratedCorpus holds all messages of testdata/generated against what
// their manifest expects of ARC.
func TestGeneratedCorpus(t *testing.T) {
	var manifest struct {
		Messages []struct {
			File   string
			Expect struct {
				ARC  string
				Note string
			}
		}
	}
	readJSON(t, "generated/manifest.json", &manifest)
	file, err := os.Open(shared + "generated/zone.json")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	zone, err := resolver.ParseZone("zone.json", file)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, want := range manifest.Messages {
		text, err := os.ReadFile(filepath.Join(shared, "generated/messages", want.File))
		if err != nil {
			t.Fatal(err)
		}
		got, _ := verify(t.Context(), t, parse(t, string(text)), zone)
		if counts[got.Result]++; got.Result != want.Expect.ARC {
			t.Errorf("%s: %s (%s), want %s (%s)", want.File, got.Result, got.Reason, want.Expect.ARC, want.Expect.Note)
		}
		if strings.Contains(want.Expect.Note, "oldest-pass is 2") != (got.OldestPass == 2) {
			t.Errorf("%s: oldest pass %d", want.File, got.OldestPass)
		}
	}
	if len(manifest.Messages) != 69 || counts[arc.Pass] != 8 || counts[arc.Fail] != 12 {
		t.Errorf("%d messages, %v", len(manifest.Messages), counts)
	}
	t.Logf("generated corpus: %d messages, %v", len(manifest.Messages), counts)
}
