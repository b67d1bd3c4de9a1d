package alias_test

import (
	"strings"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/alias"
	"onward/internal/config"
)

// parse makes a Config of a shorthand, one thing a line:
//
//	domain example.org            what follows belongs to it
//	same example.net example.org  a domain that is same_as another
//	host mx.example.org, srs srs.example.org, postmaster x@gmail.com
//	key: a@gmail.com b@gmail.com keep from=@a.example until=2027-01-01
//	key: discard
//	key: reject=the rest of the line
func parse(tb testing.TB, text string) *config.Config {
	tb.Helper()
	c := &config.Config{Hostname: "mx.example.org", Postmaster: mailbox(tb, "owner@gmail.com"), Files: []string{"onward.yaml"}}
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		line = strings.TrimSpace(line)
		key, rest, isAlias := strings.Cut(line, ": ")
		if isAlias {
			a := parseAlias(tb, key, rest)
			a.File, a.Line = &config.File{Path: "onward.yaml", Text: line}, int32(i+1)
			d := c.Domains[len(c.Domains)-1]
			d.Aliases = append(d.Aliases, a)
			continue
		}
		words := append(strings.Fields(line), "", "")
		name, _ := address.ParseDomain(words[1])
		switch words[0] {
		case "domain":
			c.Domains = append(c.Domains, &config.Domain{Name: name})
		case "same":
			c.Domains = append(c.Domains, &config.Domain{Name: name, SameAs: address.Domain(words[2])})
		case "host":
			c.Hostname = name
		case "srs":
			c.SRS.Domain = name
		case "domain-srs":
			c.Domains[len(c.Domains)-1].SRSDomain = name
		case "postmaster":
			c.Postmaster = mailbox(tb, words[1])
		case "":
		default:
			tb.Fatalf("shorthand: %q", line)
		}
	}
	return c
}

func parseAlias(tb testing.TB, key, rest string) *config.Alias {
	a := &config.Alias{Key: key, Rule: &config.Rule{}}
	if text, ok := strings.CutPrefix(rest, "reject="); ok {
		a.Reject = text
		return a
	}
	for _, word := range strings.Fields(rest) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "keep":
			a.KeepTag = true
		case "discard":
			a.Discard = true
		case "from":
			a.From = strings.Split(value, ",")
		case "until":
			day, err := time.Parse(time.DateOnly, value)
			if err != nil {
				tb.Fatal(err)
			}
			a.Until = day
		default:
			a.To = append(a.To, word)
		}
	}
	return a
}

func mailbox(tb testing.TB, s string) address.Mailbox {
	tb.Helper()
	m, err := address.ParsePath(s)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func table(tb testing.TB, text string) *alias.Table {
	tb.Helper()
	t, problems := alias.New(parse(tb, text))
	if len(problems) > 0 {
		tb.Fatalf("New: %v", problems)
	}
	return t
}
