package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v4"

	"onward/internal/address"
)

// section reads a mapping into a struct, and returns the value of each known
// key that is there. Domains and aliases are left to domains and aliases.
func (s *source) section(n *yaml.Node, into reflect.Value, prefix string) map[string]*yaml.Node {
	sec := sections[into.Type()]
	given := map[string]*yaml.Node{}
	if n.Kind != yaml.MappingNode {
		s.at(n, "%s must be a mapping with the keys %s", strings.TrimSuffix(prefix, "."), sec.keys())
		return given
	}
	s.pairs(n, asWritten, func(key, value *yaml.Node) {
		f := sec.byKey[key.Value]
		if f == nil {
			s.at(key, "%s", sec.unknown(key.Value))
			return
		}
		given[f.key] = value
		s.value(key, value, into, prefix+f.key, f)
	})
	return given
}

func asWritten(key string) string { return key }

// value reads one value into the field of the struct that it belongs to.
func (s *source) value(key, n *yaml.Node, into reflect.Value, name string, f *field) {
	if n.Tag == "!!null" {
		s.at(key, "%s has no value; give it one, or remove the line", name)
		return
	}
	field := into.FieldByIndex(f.index)
	switch p := field.Addr().Interface().(type) {
	case *[]*Domain, *[]*Alias:
	case *[]string:
		*p = s.texts(n, name, f)
	case *[]netip.AddrPort:
		*p = s.resolvers(n, name, f)
	default:
		if sections[f.typ] != nil {
			s.section(n, field, name+".")
		} else if s.scalar(n, p, name, f) {
			s.resolve(n, p, name, f)
		}
	}
}

// scalar reads a single value and reports whether it is good.
func (s *source) scalar(n *yaml.Node, p any, name string, f *field) bool {
	if n.Kind != yaml.ScalarNode {
		s.at(n, "%s must be a single value such as %s, not a list or mapping", name, f.example)
		return false
	}
	if err := f.set(n, p); err != nil {
		s.at(n, "%s: %v", name, err)
		return false
	}
	return true
}

// texts reads a list of texts, or a single one as a list of one.
func (s *source) texts(n *yaml.Node, name string, f *field) []string {
	items := s.items(n, name, f)
	list := make([]string, len(items))
	for i, item := range items {
		s.scalar(item, &list[i], name, f)
	}
	return list
}

// resolvers reads the list of DNS servers.
func (s *source) resolvers(n *yaml.Node, name string, f *field) []netip.AddrPort {
	items := s.items(n, name, f)
	list := make([]netip.AddrPort, len(items))
	for i, item := range items {
		s.scalar(item, &list[i], name, f)
	}
	return list
}

// items returns the elements of a list, none of them twice. A list may be empty
// where none is the default.
func (s *source) items(n *yaml.Node, name string, f *field) []*yaml.Node {
	switch {
	case n.Kind == yaml.ScalarNode:
		return []*yaml.Node{n}
	case n.Kind != yaml.SequenceNode:
		s.at(n, "%s must be a list such as %s", name, f.example)
		return nil
	case len(n.Content) == 0 && f.fallback != "none":
		s.at(n, "%s is an empty list; put something in it, or remove the key", name)
	}
	seen := make(map[string]bool, len(n.Content))
	var items []*yaml.Node
	for _, item := range n.Content {
		switch {
		case item.Kind != yaml.ScalarNode:
			s.at(item, "%s has a list or mapping inside its list; write plain values", name)
		case seen[item.Value]:
			s.at(item, "%s has %q twice; remove one of the two", name, item.Value)
		default:
			seen[item.Value] = true
			items = append(items, item)
		}
	}
	return items
}

// resolve makes a path absolute, starting from the directory of the file it
// stands in, and checks that a file which must exist can be read.
func (s *source) resolve(n *yaml.Node, p any, name string, f *field) {
	if f.is != "path" && f.is != "file" && f.is != "certificate" {
		return
	}
	path := p.(*string)
	*path = s.absolute(*path)
	switch f.is {
	case "path":
		return
	case "file": // a certificate is watched by who uses it
		s.watch(*path)
	}
	if err := readable(*path); err != nil {
		s.at(n, "%s: %s %v", name, *path, err)
	}
}

// beside returns path as seen from the directory of this file.
func (s *source) beside(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(filepath.Dir(s.file), path)
}

// absolute is beside, for paths that outlive the working directory.
func (s *source) absolute(path string) string {
	path = s.beside(path)
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// readable reports why a file cannot be used.
func readable(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("is not a regular file; name one")
	}
	if err != nil {
		return fmt.Errorf("cannot be read (%w); mend the path or its permissions", cause(err))
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot be read (%w); mend its permissions", cause(err))
	}
	return f.Close()
}

// domains reads the mapping of domains of one file.
func (s *source) domains(n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		s.at(n, "domains must be a mapping of names, such as %s", sections[reflect.TypeFor[Config]()].byKey["domains"].example)
		return
	}
	s.pairs(n, asWritten, func(key, value *yaml.Node) {
		d := &Domain{Position: s.position(key)}
		name := &field{is: "name", example: "example.org"}
		if err := name.set(key, &d.Name); err != nil {
			s.at(key, "domains: %v", err)
			return
		}
		if first, twice := s.known[d.Name]; twice {
			s.at(key, "domain %s is already at %s; put its aliases together there", d.Name.Unicode(), first)
			return
		}
		s.known[d.Name] = d.Position
		s.cfg.Domains = append(s.cfg.Domains, d)
		s.domain(key, value, d)
	})
}

// domain reads what one domain holds.
func (s *source) domain(key, n *yaml.Node, d *Domain) {
	if n.Tag == "!!null" {
		s.at(key, "domain %s has no value; give it aliases or same_as", d.Name.Unicode())
		return
	}
	if n.Kind != yaml.MappingNode {
		s.at(n, "domain %s must be a mapping, such as {aliases: {me: old@gmail.com}}", d.Name.Unicode())
		return
	}
	given := s.section(n, reflect.ValueOf(d).Elem(), "")
	aliases, sameAs := given["aliases"], given["same_as"]
	switch {
	case aliases == nil && sameAs == nil:
		s.at(key, "domain %s has neither aliases nor same_as; add one of them", d.Name.Unicode())
	case sameAs == nil:
		s.aliases(aliases, d)
	case aliases != nil:
		s.at(sameAs, "same_as and aliases exclude each other; remove one of the two")
	case d.SameAs != "":
		s.twins = append(s.twins, twin{s, sameAs, d})
	}
	for _, key := range []string{"keep_tag", "tag_suspect", "when_dmarc_breaks"} {
		if given[key] != nil && sameAs != nil && aliases == nil {
			s.at(given[key], "%s beside same_as has nothing to act on; set it where the aliases are", key)
		}
	}
}

// A twin is a domain whose same_as is checked when all domains are known.
type twin struct {
	*source
	node   *yaml.Node
	domain *Domain
}

// checkTwins follows every same_as, which must lead to a domain with aliases.
func (l *loader) checkTwins() {
	byName := make(map[address.Domain]*Domain, len(l.cfg.Domains))
	for _, d := range l.cfg.Domains {
		byName[d.Name] = d
	}
	for _, t := range l.twins {
		switch other := byName[t.domain.SameAs]; {
		case other == t.domain:
			t.at(t.node, "same_as: %s is this domain itself; name another", other.Name.Unicode())
		case other == nil:
			t.at(t.node, "same_as: there is no domain %s; add it, or name one that there is", t.domain.SameAs.Unicode())
		case other.SameAs != "":
			t.at(t.node, "same_as: %s is itself same_as %s; name that one", other.Name.Unicode(), other.SameAs.Unicode())
		}
	}
}
