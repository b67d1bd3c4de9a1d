package alias

import (
	"errors"
	"fmt"
	"strings"

	"onward/internal/address"
	"onward/internal/config"
	"onward/internal/problem"
)

// builtIn are the names that every domain answers to (RFC 5321 4.5.1, RFC 2142).
var builtIn = []string{"postmaster", "abuse"}

// A loader makes a Table, and notes what is wrong on the way.
type loader struct {
	config   *config.Config
	table    *Table
	problems problem.List
	broken   map[*config.Alias]bool // whose fault was reported with another's
}

// New makes the table of a configuration, and reports everything that is wrong
// with its aliases, in file order. The Table is nil when any of it is fatal.
func New(c *config.Config) (*Table, problem.List) {
	l := loader{config: c, broken: map[*config.Alias]bool{}, table: &Table{
		hostname:   c.Hostname,
		domains:    map[address.Domain]*names{},
		postmaster: &config.Alias{Key: "postmaster", To: []string{c.Postmaster.String()}, Rule: &config.Rule{}},
	}}
	if len(c.Files) > 0 {
		l.table.postmaster.File = &config.File{Path: c.Files[0]}
	}
	l.addDomains()
	l.addOurselves()
	l.addBuiltIn()
	l.checkAll()
	l.problems.Sort()
	if len(l.problems.Fatal()) > 0 {
		return nil, l.problems
	}
	return l.table, l.problems
}

// addDomains reads the aliases of every domain. A domain that is same_as
// another shares its names.
func (l *loader) addDomains() {
	for _, d := range l.config.Domains {
		if d.SameAs == "" {
			l.table.domains[d.Name] = l.read(d)
		}
	}
	for _, d := range l.config.Domains {
		if n := l.table.domains[d.SameAs]; n != nil {
			l.table.domains[d.Name] = n
		}
	}
}

// addOurselves adds the names of this server: what goes there comes back to us.
func (l *loader) addOurselves() {
	ours := []address.Domain{l.config.Hostname, l.config.SRS.Domain}
	for _, d := range l.config.Domains {
		ours = append(ours, d.SRSDomain)
	}
	for _, name := range ours {
		if name != "" && l.table.domains[name] == nil {
			l.table.domains[name] = &names{exact: map[string]*config.Alias{}}
		}
	}
}

// addBuiltIn gives every domain the names it must have (STANDARDS.md P14).
func (l *loader) addBuiltIn() {
	for _, n := range l.table.domains {
		for _, name := range builtIn {
			if n.exact[name] == nil {
				n.exact[name] = l.table.postmaster
			}
		}
	}
}

// read makes the names of one domain. An alias with something wrong in it is
// taken up all the same, so that others may lead to it.
func (l *loader) read(d *config.Domain) *names {
	n := &names{listed: true, exact: make(map[string]*config.Alias, len(d.Aliases)+len(builtIn))}
	for _, a := range d.Aliases {
		if err := n.add(a); err != nil {
			l.report(a, err)
		}
		if err := checkLock(a); err != nil {
			l.report(a, err)
		}
	}
	return n
}

// add takes up one alias under its name.
func (n *names) add(a *config.Alias) error {
	switch {
	case a.Key == "*":
		if n.catchAll != nil {
			return fmt.Errorf(`"*" is already at %s; join the two`, n.catchAll.Position())
		}
		n.catchAll = a
	case isPattern(a.Key):
		return n.addPattern(a)
	default:
		local, err := parseName(a.Key)
		if err != nil {
			return err
		}
		name := fold(local)
		if other := n.exact[name]; other != nil {
			return fmt.Errorf("alias %.80q is already at %s; join the two", a.Key, other.Position())
		}
		n.exact[name] = a
	}
	_, err := parseTargets(a)
	return err
}

// addPattern takes up one regular expression.
func (n *names) addPattern(a *config.Alias) error {
	if len(n.patterns) == maxPatterns {
		return fmt.Errorf("more than %d regular expressions in one domain; put some into one: /^(this|that)$/", maxPatterns)
	}
	re, err := compile(a.Key)
	if err != nil {
		return err
	}
	p := &pattern{alias: a, re: re}
	n.patterns = append(n.patterns, p)
	for _, text := range a.To {
		to, err := parseTemplate(text, re)
		if err != nil {
			return badTarget(err)
		}
		p.to = append(p.to, to)
		p.dynamic = p.dynamic || !to.fixed()
	}
	return nil
}

// parseName reads a key that is neither a pattern nor the catch-all. What looks
// like something else is refused; in quotes it can still be had.
func parseName(key string) (string, error) {
	switch {
	case strings.HasPrefix(key, `"`):
	case strings.Contains(key, "@"):
		return "", fmt.Errorf("alias %.80q: write only what stands before the @", key)
	case strings.HasPrefix(key, "/"):
		return "", fmt.Errorf("alias %.80q: a regular expression ends with / too", key)
	case strings.Contains(key, "*"):
		return "", fmt.Errorf(`alias %.80q: "*" stands alone; for part of a name write a regular expression such as /^info-.*$/`, key)
	}
	m := address.Mailbox{Local: key}
	if !m.Quoted() && len(key) <= address.MaxLocal {
		return key, nil
	}
	m, err := address.Parse(key + "@example.org")
	if errors.Is(err, address.ErrTooLong) {
		return "", fmt.Errorf("alias %.80q: longer than %d octets", key, address.MaxLocal)
	}
	if err != nil {
		return "", fmt.Errorf("alias %.80q: cannot stand before an @", key)
	}
	return m.Local, nil
}

// parseTargets reads the targets of an alias that is no pattern.
func parseTargets(a *config.Alias) ([]address.Mailbox, error) {
	targets := make([]address.Mailbox, 0, len(a.To))
	for _, text := range a.To {
		m, err := address.Parse(text)
		if err != nil {
			return nil, badTarget(err)
		}
		targets = append(targets, m)
	}
	return targets, nil
}

func badTarget(err error) error {
	return fmt.Errorf("target: %w; write a whole address such as you@gmail.com", err)
}

// checkLock reads the from lock of an alias.
func checkLock(a *config.Alias) error {
	for _, text := range a.From {
		if _, err := parseSender(text); err != nil {
			return fmt.Errorf("from: %w; write ada@shop.example, or @shop.example for the whole domain", err)
		}
	}
	return nil
}

// report notes a problem with an alias.
func (l *loader) report(a *config.Alias, err error) {
	l.problems = append(l.problems, problem.Problem{Position: a.Position(), Text: err.Error(), Source: a.Source()})
}
