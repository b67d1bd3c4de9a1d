package spf_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"onward/internal/address"
	"onward/internal/mailauth/spf"
	"onward/internal/resolver"
)

// A suite is one document of the published tests; README.md beside them
// describes the format.
type suite struct {
	Description string
	Tests       map[string]suiteCase
	ZoneData    map[string][]any
}

type suiteCase struct {
	Helo, Host, MailFrom string
	Result               oneOrMore
	Explanation          string
}

// oneOrMore is a string, or a list of them of which any is right.
type oneOrMore []string

func (o *oneOrMore) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*o = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(o))
}

// TestRFC7208Suite runs every published case as it is.
func TestRFC7208Suite(t *testing.T) {
	count, explained := 0, 0
	for _, s := range readSuite(t) {
		zone := s.zone(t)
		for name, c := range s.Tests {
			count++
			if c.Explanation != "" {
				explained++
			}
			t.Run(name, func(t *testing.T) {
				_, got := spf.Verify(t.Context(), zone, c.input())
				if !slices.Contains(c.Result, string(got.Result)) {
					t.Errorf("result %s (%s), want %v\n%s", got.Result, got.Reason, c.Result, show(got))
				}
				if want := strings.TrimPrefix(c.Explanation, "DEFAULT"); c.Explanation != "" && got.Explanation != want {
					t.Errorf("explanation %q, want %q\n%s", got.Explanation, want, show(got))
				}
			})
		}
	}
	t.Logf("rfc7208-tests: %d cases run, %d of them with an explanation", count, explained)
	if count != 203 {
		t.Errorf("%d cases, want all 203", count)
	}
}

func readSuite(t testing.TB) []suite {
	data, err := os.ReadFile("../../../testdata/spf/rfc7208-tests.json")
	if err != nil {
		t.Fatal(err)
	}
	var suites []suite
	if err := json.Unmarshal(data, &suites); err != nil {
		t.Fatal(err)
	}
	return suites
}

// input builds the sender from its parts: the suite has some that no SMTP
// parser would let through.
func (c suiteCase) input() spf.Input {
	in := spf.Input{IP: netip.MustParseAddr(c.Host), Helo: c.Helo}
	if c.MailFrom != "" {
		i := strings.LastIndexByte(c.MailFrom, '@')
		in.From.Mailbox = address.Mailbox{Local: c.MailFrom[:max(i, 0)], Domain: address.Domain(c.MailFrom[i+1:])}
	}
	return in
}

// zone makes the zonedata a resolver. Where a name has SPF records and no TXT,
// they are its TXT.
func (s suite) zone(t testing.TB) *resolver.Zone {
	zone := resolver.NewZone()
	for name, entries := range s.ZoneData {
		sets := make(map[string][]string)
		silent := false
		for _, entry := range entries {
			record, ok := entry.(map[string]any)
			if !ok {
				silent = entry == "TIMEOUT"
				continue
			}
			for kind, value := range record {
				sets[kind] = append(sets[kind], recordData(kind, value))
			}
		}
		switch {
		case slices.Equal(sets["TXT"], []string{"NONE"}): // says only that SPF does not stand for it
			delete(sets, "TXT")
		case sets["TXT"] == nil && sets["SPF"] != nil:
			sets["TXT"] = sets["SPF"]
		}
		must(t, fill(zone, name, sets, silent))
	}
	return zone
}

var suiteTypes = map[string]resolver.Type{"TXT": resolver.TypeTXT, "A": resolver.TypeA, "AAAA": resolver.TypeAAAA,
	"MX": resolver.TypeMX, "PTR": resolver.TypePTR, "CNAME": resolver.TypeCNAME}

func fill(zone *resolver.Zone, name string, sets map[string][]string, silent bool) error {
	for kind, t := range suiteTypes {
		var err error
		switch {
		case sets[kind] != nil:
			err = zone.Set(name, t, sets[kind]...)
		case silent && t != resolver.TypeCNAME:
			err = zone.Fail(name, t, "TIMEOUT")
		case t == resolver.TypeTXT && sets["CNAME"] == nil:
			err = zone.Set(name, t) // the name exists
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// recordData writes a value of the suite as the zone takes it.
func recordData(kind string, value any) string {
	switch v := value.(type) {
	case []any:
		var parts []string
		for _, p := range v {
			parts = append(parts, fmt.Sprint(p))
		}
		if kind == "MX" {
			return parts[0] + " " + absolute(parts[1])
		}
		return strings.Join(parts, "") // the strings of one TXT
	default:
		if kind == "PTR" || kind == "CNAME" {
			return absolute(fmt.Sprint(v))
		}
		return fmt.Sprint(v)
	}
}

func absolute(name string) string { return strings.TrimSuffix(name, ".") + "." }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// show prints the steps of a check as "onward explain" might.
func show(c spf.Check) string {
	var b strings.Builder
	for _, s := range c.Steps {
		fmt.Fprintf(&b, "%s%s %s%s -> %s (lookup %d, void %d)", strings.Repeat("  ", s.Depth+1), s.Domain, s.Term, s.Record, s.Answer, s.Lookups, s.Voids)
		for _, q := range s.Queries {
			fmt.Fprintf(&b, " [%s %s: %s]", q.Name, q.Type, q.Answer)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
