package alias_test

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	"onward/internal/address"
	"onward/internal/alias"
	"onward/internal/config"
)

var (
	ours     = []address.Domain{"one.example", "two.example"}
	keys     = []string{"a", "b", "c", "d", "e", "f", "g", "a+t", "*"}
	patterns = []string{"/^p/", "/^(q.*)$/", "/(.+)-x$/"}
)

// drawTable draws a configuration in which anything may lead to anything.
func drawTable(t *rapid.T, keys []string, locals []string) *config.Config {
	c := &config.Config{Hostname: "mx.example", Postmaster: address.Mailbox{Local: "owner", Domain: "gmail.com"}}
	target := rapid.Custom(func(t *rapid.T) string {
		domain := rapid.SampledFrom([]string{"one.example", "two.example", "gmail.com", "gmail.com"}).Draw(t, "domain")
		return rapid.SampledFrom(locals).Draw(t, "local") + "@" + domain
	})
	for _, name := range ours {
		d := &config.Domain{Name: name}
		for _, key := range rapid.SliceOfDistinct(rapid.SampledFrom(keys), rapid.ID[string]).Draw(t, "keys") {
			d.Aliases = append(d.Aliases, &config.Alias{
				Key: key, Rule: &config.Rule{KeepTag: rapid.Bool().Draw(t, "keep")},
				To: rapid.SliceOfN(target, 1, 3).Draw(t, "to"),
			})
		}
		c.Domains = append(c.Domains, d)
	}
	return c
}

// What New lets pass leads out of our domains, whatever the tag.
func TestPropertyEveryAliasLeadsOut(t *testing.T) {
	locals := []string{"a", "b", "c", "d", "a+t", "b+u", "nobody", "p1", "q1", "a-x", "b-x-x", "$1", "${1}z"}
	good := 0
	rapid.Check(t, func(t *rapid.T) {
		c := drawTable(t, append(patterns, keys...), locals)
		tab, problems := alias.New(c)
		if tab == nil {
			if len(problems.Fatal()) == 0 {
				t.Fatal("no table and no problem")
			}
			return
		}
		good++
		for _, d := range c.Domains {
			for _, a := range d.Aliases {
				if strings.HasPrefix(a.Key, "/") {
					continue
				}
				for _, tag := range []string{"", "+t", "+u", "+anything"} {
					if strings.Contains(a.Key, "+") {
						tag = "" // it is part of the name
					}
					rcpt := address.Mailbox{Local: a.Key + tag, Domain: d.Name}
					m, err := tab.Lookup(rcpt, now)
					if err != nil || len(m.Targets) == 0 {
						t.Fatalf("%s: %v, %v", rcpt, m.Targets, err)
					}
					for _, to := range m.Targets {
						if slices.Contains(ours, to.Domain) {
							t.Fatalf("%s leads to %s", rcpt, to)
						}
					}
				}
			}
		}
	})
	if good == 0 {
		t.Error("New let no table pass")
	}
}

// New refuses a table of names just when a plain search of the graph does.
func TestPropertyOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawTable(t, keys, []string{"a", "b", "c", "d", "e", "f", "g", "a+t", "z", "postmaster"})
		tab, problems := alias.New(c)
		want := oracle(c)
		if (tab != nil) != want {
			t.Fatalf("New: %v; a plain search finds it good: %v", problems, want)
		}
	})
}

// oracle reports whether every alias leads out, within the limits.
func oracle(c *config.Config) bool {
	find := func(to string) *config.Alias {
		local, domain, _ := strings.Cut(to, "@")
		base, _, _ := strings.Cut(local, "+")
		for _, key := range []string{local, base, "*"} {
			for _, d := range c.Domains {
				for _, a := range d.Aliases {
					if string(d.Name) == domain && a.Key == key {
						return a
					}
				}
				if key == "postmaster" && string(d.Name) == domain {
					return &config.Alias{To: []string{c.Postmaster.String()}, Rule: &config.Rule{}}
				}
			}
		}
		return nil
	}
	var size func(a *config.Alias, depth int) (ends int, ok bool)
	size = func(a *config.Alias, depth int) (ends int, ok bool) {
		if depth > 10 {
			return 0, false
		}
		for _, to := range a.To {
			n := 1
			if !strings.HasSuffix(to, "@gmail.com") {
				next := find(to)
				if next == nil {
					return 0, false
				}
				if n, ok = size(next, depth+1); !ok {
					return 0, false
				}
			}
			if ends += n; ends > 100 {
				return 0, false
			}
		}
		return ends, true
	}
	for _, d := range c.Domains {
		for _, a := range d.Aliases {
			if _, ok := size(a, 1); !ok {
				return false
			}
		}
	}
	return true
}

// FuzzLookup holds the invariant of an MX that is no open relay (RELIABILITY.md
// 17): whatever stands in RCPT TO, mail goes to configured targets only.
func FuzzLookup(f *testing.F) {
	for _, s := range []string{
		"me@example.org", "ME+x@example.org", "keep+a@example.org", "Postmaster", "own-own-me@example.org",
		"go-list@example.org", `"a b-list"@example.org`, `"x@gmail.com"@example.org`, "x%gmail.com@example.org",
		"@a.example,@b.example:me@example.org", "own-go-list@copy.example", "two-a@example.org", "jürgen@example.org",
		"me@[127.0.0.1]", "leser@bücher.example", `"keep+@gmail.com"@example.org`, "a.1@example.org", "own-x-list@mx.example.org",
	} {
		f.Add(s)
	}
	tab := table(f, rich)
	c := parse(f, rich)
	configured := map[address.Mailbox]bool{c.Postmaster: true}
	open := map[address.Domain]bool{} // where a substitution or a tag may name any mailbox
	for _, d := range c.Domains {
		for _, a := range d.Aliases {
			for _, to := range a.To {
				m, err := address.Parse(to)
				if err == nil {
					configured[m] = true
				}
				if strings.HasPrefix(a.Key, "/") || a.KeepTag {
					open[m.Domain] = true
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		rcpt, err := address.ParsePath(s)
		if err != nil {
			return
		}
		m, err := tab.Lookup(rcpt, now)
		if rcpt.Domain != "" && !tab.Owns(rcpt.Domain) && rcpt.Domain != "mx.example.org" && err == nil {
			t.Fatalf("%s is relayed to %v", rcpt, m.Targets)
		}
		if err != nil {
			return
		}
		if (len(m.Targets) == 0) != m.Discard {
			t.Fatalf("%s: %+v", rcpt, m)
		}
		for _, to := range m.Targets {
			if tab.Owns(to.Domain) || !configured[to] && !open[to.Domain] {
				t.Fatalf("%s leads to %s", rcpt, to)
			}
			if again, err := address.Parse(to.String()); err != nil || again != to {
				t.Fatalf("%s leads to %q, which reads as %q, %v", rcpt, to, again, err)
			}
		}
	})
}

// FuzzNew holds that no key, target or lock makes New or Lookup panic, and that
// an alias is found under every spelling of its name.
func FuzzNew(f *testing.F) {
	for _, s := range [][4]string{
		{"me", "old@gmail.com", "@shop.example", "me+x"},
		{"/^(.+)-list$/", "$1@gmail.com", "ada@shop.example", "go-list"},
		{"/^(?P<n>a|b)?(c*)+$/", "${n}$2$$@gmail.com", "@b", "acc"},
		{"*", "x@example.org", "", "y"},
		{`"john doe"`, `"a b"@gmail.com`, "", "x"},
		{"jürgen", "${1}x@gmail.com", "", "JÜRGEN"},
		{"ᾳ", "x@gmail.com", "", "α\u0345"},
		{"/(/", "$1x@gmail.com", "a", "b"},
		{"/^(.*)$/", "$1@example.org", "", "loop"},
	} {
		f.Add(s[0], s[1], s[2], s[3])
	}
	f.Fuzz(func(t *testing.T, key, target, lock, local string) {
		a := &config.Alias{Key: key, To: []string{target}, Rule: &config.Rule{KeepTag: true}}
		if lock != "" {
			a.From = []string{lock}
		}
		c := parse(t, "domain example.org")
		c.Domains[0].Aliases = []*config.Alias{a}
		tab, _ := alias.New(c)
		if tab == nil {
			return
		}
		rcpt, err := address.Parse(local + "@example.org")
		if err == nil {
			m, err := tab.Lookup(rcpt, now)
			_ = m.Admits(rcpt)
			if err == nil && slices.ContainsFunc(m.Targets, func(to address.Mailbox) bool { return tab.Owns(to.Domain) }) {
				t.Fatalf("%s leads to %v", rcpt, m.Targets)
			}
		}
		if strings.HasPrefix(key, "/") || key == "*" {
			return
		}
		name, err := address.Parse(key + "@example.org")
		if err != nil {
			t.Fatalf("New took the key %q: %v", key, err)
		}
		for _, spelling := range []string{norm.NFC.String(name.Local), norm.NFD.String(name.Local), strings.ToUpper(name.Local), strings.ToLower(name.Local)} {
			m, err := tab.Lookup(address.Mailbox{Local: spelling, Domain: "example.org"}, now)
			if err != nil || m.Alias != a {
				t.Fatalf("%q is not found as %q: %v", key, spelling, err)
			}
		}
	})
}
