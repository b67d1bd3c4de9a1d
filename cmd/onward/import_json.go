package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"onward/internal/address"
)

// readJSON reads what the APIs of Cloudflare and ImprovMX return, one document
// or several behind each other.
func (i *importing) readJSON(text string) error {
	var rules []cloudflareRule
	decoder := json.NewDecoder(strings.NewReader(text))
	for {
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		more, err := i.document(raw)
		if err != nil {
			return err
		}
		rules = append(rules, more...)
	}
	i.cloudflare(rules)
	return nil
}

// A jsonExport has the keys of all documents that are understood, and of their
// parts.
type jsonExport struct {
	Result  json.RawMessage   `json:"result"`  // Cloudflare: a rule, or a list of them
	Domains []improvDomain    `json:"domains"` // ImprovMX: GET /domains
	Aliases []improvAlias     `json:"aliases"` // GET /domains/NAME/aliases
	Domain  json.RawMessage   `json:"domain"`  // GET /domains/NAME, or the name in such an object
	Rules   []json.RawMessage `json:"rules"`   // GET /domains/NAME/rules
	Forward string            `json:"forward"`
	cloudflareRule
}

// document reads one document. Rules of Cloudflare are returned: which domain the
// catch-all is for shows only in all of them.
func (i *importing) document(raw json.RawMessage) ([]cloudflareRule, error) {
	if strings.HasPrefix(strings.TrimSpace(string(raw)), "[") {
		var parts []json.RawMessage
		if err := json.Unmarshal(raw, &parts); err != nil {
			return nil, err
		}
		var rules []cloudflareRule
		for _, part := range parts {
			more, err := i.document(part)
			if err != nil {
				return nil, err
			}
			rules = append(rules, more...)
		}
		return rules, nil
	}
	var e jsonExport
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, err
	}
	switch {
	case len(e.Matchers) > 0:
		return []cloudflareRule{e.cloudflareRule}, nil
	case len(e.Result) > 0:
		return i.document(e.Result)
	case len(e.Domains) > 0:
		for _, d := range e.Domains {
			if err := i.improvDomain(d); err != nil {
				return nil, err
			}
		}
		return nil, nil
	case len(e.Rules) > 0:
		for n, rule := range e.Rules {
			i.lose(fmt.Sprintf("rule %d", n+1), string(rule), "conditional rules are not known to onward")
		}
		return nil, nil
	case e.Aliases != nil || e.Domain != nil:
		return nil, i.improvObject(raw, e)
	case e.Forward != "":
		var a improvAlias
		if err := json.Unmarshal(raw, &a); err != nil {
			return nil, err
		}
		return nil, i.improvDomain(improvDomain{Aliases: []improvAlias{a}})
	}
	return nil, errors.New("the JSON is neither of Cloudflare Email Routing nor of ImprovMX")
}

// A cloudflareRule is one rule of Email Routing (GET /zones/ID/email/routing/rules
// and .../rules/catch_all).
type cloudflareRule struct {
	Name     string `json:"name"`
	Enabled  *bool  `json:"enabled"`
	Matchers []struct {
		Type  string `json:"type"`
		Field string `json:"field"`
		Value string `json:"value"`
	} `json:"matchers"`
	Actions []struct {
		Type  string   `json:"type"`
		Value []string `json:"value"`
	} `json:"actions"`
}

func (r cloudflareRule) where() string {
	if r.Name != "" {
		return "rule " + r.Name
	}
	return "rule"
}

func (r cloudflareRule) catchAll() bool { return r.Matchers[0].Type == "all" }

// cloudflare takes rules, those for one address first.
func (i *importing) cloudflare(rules []cloudflareRule) {
	for _, r := range rules {
		if !r.catchAll() {
			i.cloudflareRule(r, r.Matchers[0].Value)
		}
	}
	for _, r := range rules {
		if !r.catchAll() || r.Enabled != nil && !*r.Enabled {
			continue // every zone has a catch-all, and mostly it is off
		}
		own := i.own
		if own == "" && len(i.domains) == 1 {
			own = i.domains[0].name
		}
		if own == "" {
			i.lose(r.where(), "catch-all", "the file does not say which domain it is for")
			continue
		}
		i.cloudflareRule(r, "*@"+own.String())
	}
}

func (i *importing) cloudflareRule(r cloudflareRule, to string) {
	where := r.where()
	local, name, _ := strings.Cut(to, "@")
	domain, err := parseOwnDomain(name)
	switch {
	case r.Enabled != nil && !*r.Enabled:
		i.lose(where, to, "the rule is switched off")
		return
	case len(r.Matchers) != 1 || !r.catchAll() && (r.Matchers[0].Type != "literal" || r.Matchers[0].Field != "to"):
		i.lose(where, to, "a rule with other conditions than the recipient is not known to onward")
		return
	case err != nil:
		i.lose(where, to, "%v", err)
		return
	}
	a := i.domain(domain).alias(local)
	a.from = where
	for _, action := range r.Actions {
		switch action.Type {
		case "forward":
			a.to = append(a.to, action.Value...)
		case "drop":
			a.discard = true
		default:
			i.lose(where, to, "onward runs no programs (%s %s)", action.Type, strings.Join(action.Value, ", "))
		}
	}
	if a.discard = a.discard && len(a.to) == 0; !a.discard {
		i.domain(domain).tidy()
	}
}

// An improvDomain is a domain of ImprovMX (GET /domains).
type improvDomain struct {
	Name    string        `json:"domain"`
	Webhook string        `json:"webhook"`
	Aliases []improvAlias `json:"aliases"`
}

// An improvAlias is one of its aliases.
type improvAlias struct {
	Alias   string `json:"alias"`
	Forward string `json:"forward"` // addresses and URLs with commas between
	Active  *bool  `json:"active"`
}

// improvObject reads an object with aliases, and its domain: the name, or an
// object with both.
func (i *importing) improvObject(raw json.RawMessage, e jsonExport) error {
	var d improvDomain
	if strings.HasPrefix(strings.TrimSpace(string(e.Domain)), "{") {
		raw = e.Domain
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return err
	}
	return i.improvDomain(d)
}

func (i *importing) improvDomain(d improvDomain) error {
	name := i.own
	if d.Name != "" {
		var err error
		if name, err = parseOwnDomain(d.Name); err != nil {
			return err
		}
	}
	if name == "" {
		return errNoDomain
	}
	into := i.domain(name)
	if d.Webhook != "" {
		i.lose("domain "+name.String(), d.Webhook, "onward calls no web hooks")
	}
	for _, a := range d.Aliases {
		i.improvAlias(into, a)
	}
	into.tidy()
	return nil
}

func (i *importing) improvAlias(d *newDomain, a improvAlias) {
	where := fmt.Sprintf("alias %s@%s", a.Alias, d.name)
	what := a.Forward
	if a.Active != nil && !*a.Active {
		i.lose(where, what, "the alias is switched off")
		return
	}
	key := strings.TrimSuffix(a.Alias, "@"+d.name.String())
	if key != "*" && strings.ContainsAny(key, "*^$[](){}|\\ ") {
		i.lose(where, what, "write patterns as /^...$/ by hand")
		return
	}
	into := d.alias(key)
	into.from = where
	for target := range strings.SplitSeq(a.Forward, ",") {
		target = strings.TrimSpace(target)
		if strings.Contains(target, "://") {
			i.lose(where, target, "onward calls no web hooks")
			continue
		}
		if _, err := address.Parse(target); err != nil {
			i.lose(where, target, "%v", err)
			continue
		}
		into.to = append(into.to, target)
	}
}
