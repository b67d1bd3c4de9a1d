package config

import (
	"reflect"
	"strings"

	"go.yaml.in/yaml/v4"

	"onward/internal/address"
)

var targets = sections[reflect.TypeFor[Alias]()].byKey["to"]

// aliases reads the aliases of a domain. There may be 100,000 of them, so the
// two short forms are read without reflection, into one allocation.
func (s *source) aliases(n *yaml.Node, d *Domain) {
	if n.Tag == "!!null" {
		return // reported already
	}
	if n.Kind != yaml.MappingNode {
		s.at(n, "aliases must be a mapping, such as %s", sections[reflect.TypeFor[Domain]()].byKey["aliases"].example)
		return
	}
	all := make([]Alias, 0, len(n.Content)/2)
	to := make([]string, 0, len(n.Content)/2) // one each is usual
	rule := &Rule{KeepTag: d.KeepTag, Suspect: d.Suspect, Breaks: d.Breaks}
	d.Aliases = make([]*Alias, 0, len(n.Content)/2)
	s.pairs(n, foldKey, func(key, value *yaml.Node) {
		all = append(all, Alias{Key: s.own(key), Rule: rule, File: s.text, Line: int32(key.Line), Column: int32(key.Column), Start: s.starts[key.Line-1]})
		a := &all[len(all)-1]
		d.Aliases = append(d.Aliases, a)
		switch {
		case value.Tag == "!!null":
			s.at(key, "alias %q goes nowhere; give it a target, such as old@gmail.com", a.Key)
		case value.Kind == yaml.MappingNode:
			own := *rule
			a.Rule = &own
			s.alias(value, a)
		case value.Kind == yaml.ScalarNode && len(to) < cap(to):
			to = append(to, "")
			a.To = to[len(to)-1 : len(to) : len(to)]
			s.scalar(value, &a.To[0], a.Key, targets)
			a.To[0] = s.own(value)
		default:
			a.To = s.texts(value, a.Key, targets)
		}
	})
}

// own returns the value of a node as a part of the text of the file, which is
// kept anyway, where it stands there as it is.
func (s *source) own(n *yaml.Node) string {
	line := s.line(n.Line)
	if at := strings.Index(line, n.Value); at >= 0 {
		return line[at : at+len(n.Value)]
	}
	return n.Value
}

// foldKey is the key as it is compared: local parts ignore case, regular
// expressions are what they are.
func foldKey(key string) string {
	if strings.HasPrefix(key, "/") {
		return key
	}
	return address.Mailbox{Local: key}.Fold().Local
}

// alias reads the long form of an alias.
func (s *source) alias(n *yaml.Node, a *Alias) {
	given := s.section(n, reflect.ValueOf(a).Elem(), "")
	ends := 0
	for _, key := range []string{"to", "reject", "discard"} {
		if given[key] != nil {
			ends++
		}
	}
	switch {
	case ends != 1:
		s.at(n, "alias %q needs exactly one of to, reject and discard", a.Key)
	case given["discard"] != nil && given["discard"].Value == "false":
		s.at(given["discard"], "discard can only be true; write where the mail goes instead")
	}
	for _, key := range []string{"keep_tag", "tag_suspect", "when_dmarc_breaks"} {
		if given[key] != nil && given["to"] == nil {
			s.at(given[key], "%s needs a target; remove it", key)
		}
	}
}
