package spf_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"onward/internal/address"
	"onward/internal/mailauth/spf"
	"onward/internal/resolver"
	"onward/internal/testpeer"
)

const python = "/usr/bin/python3" // the one that Debian's packages are for

// judge is pyspf with its DNS from the case. It reads cases and prints their
// results and explanations, without pyspf's own default text.
const judge = `
import json, sys, spf
def lookup(name, qtype, strict=True, timeout=20):
    data = zone.get(name.lower().rstrip('.') + '/' + qtype, [])
    if data == 'TIMEOUT':
        raise spf.TempError('DNS timeout')
    if qtype == 'TXT':
        data = [[d.encode('latin-1')] for d in data]
    elif qtype == 'MX':
        data = [(int(d.split()[0]), d.split()[1].rstrip('.')) for d in data]
    elif qtype == 'PTR':
        data = [d.rstrip('.') for d in data]
    return [((name, qtype), d) for d in data]
spf.DNSLookup = lookup
answers = []
for case in json.load(sys.stdin):
    zone = case['zone']
    result, _, why = spf.query(i=case['ip'], s=case['from'], h=case['helo'], strict=True).check()
    answers.append([result, why if result == 'fail' and why != spf.EXPLANATIONS['fail'] else ''])
json.dump(answers, sys.stdout)
`

// A generated case is one client before a small DNS of random records.
type generated struct {
	Zone map[string]any `json:"zone"` // "name/TYPE": list of data, or "TIMEOUT"
	IP   string         `json:"ip"`
	From string         `json:"from"`
	Helo string         `json:"helo"`
}

// TestAgainstPyspf judges generated records with both programs. Left out of
// what is generated, because pyspf has rules of its own there:
//   - voids of the hosts behind mx and ptr count for it; RFC 7208 4.6.4 counts terms
//   - a redirect beside "all" counts as a lookup; RFC 7208 6.1 ignores it
//   - a record that includes itself is a permerror for it even where another term
//     matches first; RFC 7208 5.2 has no such rule
//   - a name that cannot be asked for, "x..example", is no void for it; RFC 7208
//     4.3 leaves open what it is
//   - a temporary error behind one of the PTR names is a temperror for it;
//     RFC 7208 5.5 skips that name
//   - an unknown modifier may not be repeated; RFC 7208 6 allows it "how often" ever
func TestAgainstPyspf(t *testing.T) {
	testpeer.Need(t, python)
	if _, status := testpeer.Run(t, "", python, "-c", "import spf"); status != 0 {
		testpeer.Lack(t, "python3-spf")
	}
	random := rand.New(rand.NewPCG(7208, 4408))
	cases := make([]generated, 5000)
	for i := range cases {
		cases[i] = generate(random)
	}
	input, err := json.Marshal(cases)
	must(t, err)
	output, status := testpeer.Run(t, string(input), python, "-W", "ignore", "-c", judge)
	var want [][2]string
	if err := json.Unmarshal([]byte(output), &want); err != nil || status != 0 {
		t.Fatalf("pyspf: status %d, %v: %.2000s", status, err, output)
	}
	counts := make(map[spf.Result]int)
	for i, c := range cases {
		_, got := spf.Verify(t.Context(), c.resolver(t), c.input(t))
		counts[got.Result]++
		if string(got.Result) != want[i][0] || !strings.EqualFold(got.Explanation, want[i][1]) {
			t.Errorf("case %d, client %s, from %s: we say %s %q, pyspf says %q\n%s", i, c.IP, c.From, got.Result, got.Explanation, want[i], show(got))
		}
	}
	t.Logf("pyspf: %d generated cases, %v", len(cases), counts)
	for _, r := range []spf.Result{spf.None, spf.Neutral, spf.Pass, spf.Fail, spf.SoftFail, spf.TempError, spf.PermError} {
		if counts[r] < 20 {
			t.Errorf("%d cases give %s: too few to say anything", counts[r], r)
		}
	}
}

func (c generated) resolver(t testing.TB) resolver.Resolver {
	zone := resolver.NewZone()
	for key, value := range c.Zone {
		i := strings.LastIndexByte(key, '/')
		kind := suiteTypes[key[i+1:]]
		if value == "TIMEOUT" {
			must(t, zone.Fail(key[:i], kind, "TIMEOUT"))
		} else {
			must(t, zone.Set(key[:i], kind, value.([]string)...))
		}
	}
	return zone
}

func (c generated) input(t testing.TB) spf.Input {
	from, err := address.ParseReversePath(c.From)
	must(t, err)
	return spf.Input{IP: netip.MustParseAddr(c.IP), Helo: c.Helo, From: from}
}

// domains have records of every kind, hosts have addresses only.
var (
	domains = []string{"a.example", "b.example", "c.b.example", "d.example"}
	hosts   = []string{"h1.a.example", "h2.b.example", "mail.c.b.example"}
	nobody  = []string{"none.example", "slow.example"} // no answer, and none in time
	clients = []string{"192.0.2.1", "192.0.2.77", "198.51.100.9", "2001:db8::1", "2001:db8:0:1::25"}
)

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func generate(r *rand.Rand) generated {
	c := generated{Zone: make(map[string]any), IP: pick(r, clients), Helo: "h1.a.example",
		From: pick(r, []string{"ann", "ann-list-7", "a.b+c=d", "O'Hara", "x_%y"}) + "@" + pick(r, domains)}
	for _, d := range slices.Concat(domains, hosts) {
		c.Zone[d+"/A"] = []string{pick(r, clients[:3]), "203.0.113.1"}
		c.Zone[d+"/AAAA"] = []string{pick(r, clients[3:]), "2001:db8:ffff::1"}
	}
	for _, kind := range []string{"A", "AAAA", "MX", "TXT"} {
		c.Zone["slow.example/"+kind] = "TIMEOUT"
	}
	for _, d := range domains {
		c.Zone[d+"/MX"] = []string{"10 " + pick(r, hosts) + ".", "20 " + pick(r, hosts) + "."}
		c.Zone["exp."+d+"/TXT"] = []string{pick(r, []string{"go away %{i}", "%{s} via %{h} at %{d}", "see http://x.example/%{S}", "bad %(d)", "t %% %_ %- end"})}
		switch r.IntN(40) {
		case 0:
			c.Zone[d+"/TXT"] = "TIMEOUT"
		case 1:
			c.Zone[d+"/TXT"] = []string{"v=spf1 +all", "v=spf1 -all"}
		case 2, 3:
			c.Zone[d+"/TXT"] = []string{"v=spf10 -all"}
		default:
			c.Zone[d+"/TXT"] = []string{"unrelated", record(r, d)}
		}
	}
	c.Zone[resolver.ReverseName(netip.MustParseAddr(c.IP))+"/PTR"] = []string{pick(r, hosts) + ".", pick(r, domains) + "."}
	c.Zone["ann.a.example._spf.d.example/A"] = []string{"127.0.0.2"}
	c.Zone[c.IP+".list.d.example/A"] = []string{"127.0.0.2"}
	return c
}

// record makes a record for domain, mostly a good one.
func record(r *rand.Rand, domain string) string {
	others := slices.DeleteFunc(append(slices.Clone(domains), nobody...), func(d string) bool { return d == domain })
	terms := []string{pick(r, []string{"v=spf1", "v=spf1", "V=SPF1"})}
	for range r.IntN(6) {
		terms = append(terms, pick(r, []string{"", "", "", "-", "~", "?", "+"})+mechanism(r, others))
	}
	if r.IntN(40) == 0 {
		terms = append(terms, pick(r, []string{"bogus", "all:x", "a:", "ip4:1.2.3", "a/33", "include", "exists", "-exp=a.example", "mx//129",
			"ip4:192.0.2.1/032", "include:%{x}.example", "exists:%{i", "ptr/8", "a:example", "a:1.2.3.4", "x\x01y", "a:\xe9.example", "redirect=", "ip6:1.2.3.4"}))
	}
	if r.IntN(4) == 0 {
		terms = append(terms, "exp=exp."+pick(r, others))
	}
	if r.IntN(8) == 0 {
		terms = slices.Insert(terms, 1, "x-unknown="+pick(r, []string{"1", "%{d}", ""}))
	}
	if r.IntN(3) > 0 {
		terms = append(terms, pick(r, []string{"-all", "~all", "?all", "-ALL"}))
	} else if r.IntN(2) == 0 {
		terms = slices.Insert(terms, 1+r.IntN(len(terms)), "redirect="+pick(r, others))
	}
	return strings.Join(terms, pick(r, []string{" ", " ", "  "}))
}

func mechanism(r *rand.Rand, others []string) string {
	target := pick(r, slices.Concat(domains, domains, hosts, nobody, []string{"%{d}", "%{d2}", "%{o}", "%{h}", "%{p}", "%{D}"}))
	colon := pick(r, []string{"", ":" + target})
	bits := pick(r, []string{"", "", "/24", "/0", "//64", "/25//48", "/32//128"})
	switch r.IntN(8) {
	case 0:
		return "include:" + pick(r, others)
	case 1:
		return pick(r, []string{"a", "A"}) + colon + bits
	case 2:
		return "mx" + colon + bits
	case 3:
		return "ptr" + colon
	case 4:
		return "exists:" + pick(r, []string{"%{i}.list.d.example", "%{l1-}.%{o}._spf.d.example", "%{ir}.%{v}.x.example", "%{s2r-+}.example", target})
	case 5:
		return fmt.Sprintf("ip4:192.0.2.%d%s", r.IntN(256), pick(r, []string{"", "/31", "/25", "/0"}))
	case 6:
		return "ip6:2001:db8:" + pick(r, []string{":1", ":/32", ":/0", "0:1::25/127"})
	default:
		return "ip4:" + pick(r, clients[:3])
	}
}
