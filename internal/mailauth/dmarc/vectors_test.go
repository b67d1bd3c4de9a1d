package dmarc_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"onward/internal/address"
	"onward/internal/mailauth/dmarc"
	"onward/internal/message"
	"onward/internal/resolver"
)

// A vector is one case of testdata/dmarc, described in its README.
type vector struct {
	Name   string         `json:"name"`
	Zone   map[string]any `json:"zone"`
	From   string         `json:"from"`
	Exists []string       `json:"exists"`
	SPF    struct {
		Result dmarc.Result `json:"result"`
		Domain string       `json:"domain"`
	} `json:"spf"`
	DKIM []struct {
		Result dmarc.Result `json:"result"`
		D      string       `json:"d"`
	} `json:"dkim"`
	Expect struct {
		Walk         []address.Domain `json:"walk"`
		PolicyDomain address.Domain   `json:"policy_domain"`
		OrgDomain    address.Domain   `json:"org_domain"`
		Policy       dmarc.Policy     `json:"policy"`
		Result       dmarc.Result     `json:"result"`
	} `json:"expect"`
}

// The published vectors, every one as it is.
func TestVectors(t *testing.T) {
	data, err := os.ReadFile("../../../testdata/dmarc/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var suite struct{ Vectors []vector }
	if err := json.Unmarshal(data, &suite); err != nil {
		t.Fatal(err)
	}
	run := 0
	for _, v := range suite.Vectors {
		t.Run(v.Name, func(t *testing.T) { check(t, v) })
		run++
	}
	if t.Logf("%d DMARC vectors", run); run != 22 {
		t.Errorf("%d vectors were run, want 22", run)
	}
}

func check(t *testing.T, v vector) {
	in := dmarc.Input{
		From: from("x@" + v.From),
		SPF:  dmarc.Identifier{Result: v.SPF.Result, Domain: v.SPF.Domain},
	}
	for _, s := range v.DKIM {
		in.DKIM = append(in.DKIM, dmarc.Identifier{Result: s.Result, Domain: s.D})
	}
	got := dmarc.Evaluate(t.Context(), zoneOf(t, v), in)
	want := v.Expect
	if got.Result != want.Result || got.PolicyDomain != want.PolicyDomain || got.OrganizationalDomain != want.OrgDomain || got.Policy != want.Policy {
		t.Errorf("got %s, policy %q of %q, organizational domain %q, because %s; want %s, %q, %q, %q",
			got.Result, got.Policy, got.PolicyDomain, got.OrganizationalDomain, got.Reason, want.Result, want.Policy, want.PolicyDomain, want.OrgDomain)
	}
	if want.Walk != nil && !slices.Equal(domains(got.Walk), want.Walk) {
		t.Errorf("walk %v, want %v", domains(got.Walk), want.Walk)
	}
}

func zoneOf(t *testing.T, v vector) *resolver.Zone {
	z := resolver.NewZone()
	for name, value := range v.Zone {
		var texts []string
		switch value := value.(type) {
		case string:
			texts = []string{value}
		case []any:
			for _, text := range value {
				texts = append(texts, text.(string))
			}
		}
		if err := z.Set(name, resolver.TypeTXT, texts...); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range v.Exists {
		if err := z.Set(name, resolver.TypeA, "192.0.2.1"); err != nil {
			t.Fatal(err)
		}
	}
	return z
}

// from reads a message with the given From fields.
func from(values ...string) dmarc.From {
	var fields []message.Field
	for _, v := range values {
		fields = append(fields, message.Field{Name: "From", Raw: []byte("From: " + v + "\r\n")})
	}
	return dmarc.ParseFrom(fields)
}

func domains(walk []dmarc.Step) []address.Domain {
	var all []address.Domain
	for _, s := range walk {
		all = append(all, s.Domain)
	}
	return all
}

// The author domain of every message of testdata/generated is the one that its
// manifest gives. Two have a second From field, and so no author (DESIGN.md 9.13).
func TestGeneratedFrom(t *testing.T) {
	const dir = "../../../testdata/generated/"
	data, err := os.ReadFile(dir + "manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		Messages []struct {
			File       string
			FromDomain address.Domain `json:"from_domain"`
		}
	}
	if err := json.Unmarshal(data, &manifest); err != nil {
		t.Fatal(err)
	}
	for _, m := range manifest.Messages {
		raw, err := os.ReadFile(dir + "messages/" + m.File)
		if err != nil {
			t.Fatal(err)
		}
		buffer := message.NewBuffer(t.TempDir())
		buffer.Write(raw)
		msg, err := buffer.Message()
		if err != nil {
			t.Fatal(err)
		}
		f := dmarc.ParseFrom(msg.Fields())
		if twice := strings.Contains(m.File, "dupfrom"); twice != (f.Fields == 2) || !twice && f.Domain != m.FromDomain {
			t.Errorf("%s: author domain %q (%s), want %q", m.File, f.Domain, f.Mistake, m.FromDomain)
		}
		msg.Close()
	}
	if n := len(manifest.Messages); n != 69 {
		t.Errorf("%d messages were read, want 69", n)
	}
}
