package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"onward/internal/address"
	"onward/internal/problem"
)

// places are where a configuration is looked for when nothing names one.
var places = []string{"onward.yaml", "/etc/onward/onward.yaml"}

// Find returns the path of the configuration: flag when it is not empty, else
// $ONWARD_CONFIG, else the first there is of ./onward.yaml and
// /etc/onward/onward.yaml (DESIGN.md 5.1). A path that was named is returned
// whether the file exists or not, so that Load can say what is wrong with it.
// The error says where it looked.
func Find(flag string) (string, error) {
	if named := cmp.Or(flag, os.Getenv("ONWARD_CONFIG")); named != "" {
		return named, nil
	}
	for _, path := range places {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			return path, nil
		}
	}
	return "", fmt.Errorf("no configuration found: looked for %s; name one with -c or $ONWARD_CONFIG, or write one with onward init",
		strings.Join(places, " and "))
}

// A loader is one reading of a configuration.
type loader struct {
	cfg      *Config
	problems problem.List
	left     int // octets that may still be read
	known    map[address.Domain]problem.Position
	twins    []twin
}

// Load reads the configuration at path with everything it includes, and
// returns every problem it has, ordered by file, line and column. Unless all of
// them are warnings the Config is good for nothing but looking for more: it
// holds what could be understood. Files are read whole, at most 32 MiB
// together. Relative paths in a file start from the directory of that file.
func Load(path string) (*Config, problem.List) {
	l := &loader{cfg: defaults(), left: maxBytes, known: map[address.Domain]problem.Position{}}
	s, root := l.read(path)
	if root == nil {
		return l.cfg, l.problems
	}
	given := s.section(root, reflect.ValueOf(l.cfg).Elem(), "")
	s.require(given)
	s.check(given)
	if n := given["domains"]; n != nil && n.Tag != "!!null" {
		s.domains(n)
	}
	if n := given["include"]; n != nil {
		s.include(n)
	}
	if len(l.cfg.Domains) == 0 && len(l.problems.Fatal()) == 0 {
		s.add(0, 0, `there is no domain to receive mail for; add one under "domains"`)
	}
	l.checkTwins()
	l.cfg.SRS.Domain = cmp.Or(l.cfg.SRS.Domain, l.cfg.Hostname)
	l.problems.Sort()
	return l.cfg, l.problems
}

// read reads and parses one file. The node is nil when that went wrong.
func (l *loader) read(path string) (*source, *yaml.Node) {
	s := &source{loader: l, file: path}
	l.watch(path)
	text, err := read(path, l.left)
	if err != nil {
		s.add(0, 0, err.Error())
		return s, nil
	}
	l.left -= len(text)
	return s, s.parse(text)
}

// require reports the keys that have no default and are not there.
func (s *source) require(given map[string]*yaml.Node) {
	for _, key := range []string{"hostname", "postmaster"} {
		if given[key] == nil {
			f := sections[reflect.TypeFor[Config]()].byKey[key]
			s.add(0, 0, fmt.Sprintf(`%s is missing; add a line such as "%s: %s"`, key, key, f.example))
		}
	}
}

// check reports what is impossible only together.
func (s *source) check(given map[string]*yaml.Node) {
	cert, key := child(given["tls"], "cert"), child(given["tls"], "key")
	switch {
	case cert != nil && key == nil:
		s.at(cert, "tls.cert needs its key; add tls.key")
	case key != nil && cert == nil:
		s.at(key, "tls.key needs its certificate; add tls.cert")
	}
	s.checkACME(given["tls"])
	if d := s.cfg.Delivery; d.IPv6 == "off" && d.Source.Is6() {
		s.at(child(given["delivery"], "source"), "delivery.source is an IPv6 address, but delivery.ipv6 is off; change one of the two")
	}
	s.checkRelay(given["delivery"], given["policy"])
	s.checkReturn(given["srs"], given["queue"])
	s.checkTimes(given["limits"])
}

// checkReturn reports return paths that end before the mail that carries them.
func (s *source) checkReturn(srs, queue *yaml.Node) {
	if s.cfg.SRS.MaxAge <= s.cfg.Queue.Lifetime {
		s.at(cmp.Or(child(srs, "max_age"), child(queue, "lifetime")), "srs.max_age (%s) must be longer than queue.lifetime (%s): the return path has to outlive the message, so that a late bounce finds its way",
			notation(s.cfg.SRS.MaxAge), notation(s.cfg.Queue.Lifetime))
	}
}

// checkTimes reports a wait that ends before its parts do. What a destination does
// not answer in time it may have all the same, so that each try may make a copy.
func (s *source) checkTimes(limits *yaml.Node) {
	l := s.cfg.Limits
	if l.AnswerTime < l.AuthenticationTime+l.DeliveryTime+time.Minute {
		at := cmp.Or(child(limits, "answer_time"), child(limits, "delivery_time"), child(limits, "authentication_time"))
		s.at(at, "limits.answer_time (%s) must leave a minute for the destination's answer beside limits.authentication_time (%s) and limits.delivery_time (%s)",
			notation(l.AnswerTime), notation(l.AuthenticationTime), notation(l.DeliveryTime))
	}
}

// checkACME fills in tls.acme.on, and reports what does not go together.
func (s *source) checkACME(tls *yaml.Node) {
	n, a := child(tls, "acme"), &s.cfg.TLS.ACME
	a.On = n != nil
	switch {
	case !a.On:
	case child(tls, "cert") != nil:
		s.at(n, "tls.acme and tls.cert exclude each other; remove one of the two")
	case a.Challenge == "dns-01" && (a.DNSServer == "" || a.DNSKey == ""):
		s.at(n, "tls.acme.challenge dns-01 needs dns_server and dns_key; add them")
	case a.Challenge != "dns-01" && (a.DNSServer != "" || a.DNSKey != ""):
		s.at(n, "tls.acme.dns_server and dns_key are for the challenge dns-01; remove them, or set that")
	}
}

// checkRelay fills in delivery.relay_from, and reports what no relay can do.
func (s *source) checkRelay(delivery, policy *yaml.Node) {
	d := &s.cfg.Delivery
	if d.Relay == "" {
		for _, key := range []string{"relay_password_file", "relay_from"} {
			if n := child(delivery, key); n != nil {
				s.at(n, "delivery.%s needs a relay; add delivery.relay, or remove it", key)
			}
		}
		return
	}
	u, _ := url.Parse(d.Relay)
	refuses := refusesForeignFrom(strings.ToLower(u.Hostname()))
	switch {
	case refuses && d.RelayFrom == "keep":
		s.at(child(delivery, "relay_from"), "%s refuses mail whose From is not an address of ours, so nothing would arrive; write rewrite, or take another relay", u.Hostname())
	case d.RelayFrom == "" && refuses:
		d.RelayFrom = "rewrite"
	case d.RelayFrom == "":
		d.RelayFrom = "keep"
	}
	if n := child(policy, "when_dmarc_breaks"); n != nil && d.RelayFrom == "rewrite" && s.cfg.Policy.Breaks != "rewrite" {
		s.at(n, "policy.when_dmarc_breaks is %s, but everything that goes through this relay has its From rewritten; remove it, or set delivery.relay_from to keep where the relay allows that", s.cfg.Policy.Breaks)
	}
}

// refusesForeignFrom reports whether a submission service is known to take
// only mail from addresses that its customer has proved to own.
func refusesForeignFrom(host string) bool {
	for _, service := range []string{"amazonaws.com", "smtp.gmail.com", "smtp.office365.com", "smtp.mailgun.org", "smtp.sendgrid.net", "smtp.postmarkapp.com"} {
		if host == service || strings.HasSuffix(host, "."+service) {
			return true
		}
	}
	return false
}

// child returns the value of a key of a mapping, or nil.
func child(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for pair := range slices.Chunk(n.Content, 2) {
		if pair[0].Value == key {
			return pair[1]
		}
	}
	return nil
}

// include reads the files of every pattern, in the order of their names.
func (s *source) include(n *yaml.Node) {
	patterns := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		patterns = n.Content
	}
	seen := map[string]bool{s.beside(filepath.Base(s.file)): true}
	for _, pattern := range patterns {
		if pattern.Kind != yaml.ScalarNode || pattern.Value == "" || pattern.Tag != "!!str" {
			continue // reported already
		}
		for _, path := range s.matches(pattern) {
			if seen[path] {
				s.at(pattern, "include: %s is this file itself or included already; give included files a directory of their own", path)
				continue
			}
			seen[path] = true
			s.included(path)
		}
	}
}

// matches returns the files of one pattern, sorted.
func (s *source) matches(n *yaml.Node) []string {
	pattern := s.beside(n.Value)
	dir := filepath.Dir(pattern)
	if strings.ContainsAny(filepath.Dir(n.Value), `*?[\`) {
		s.at(n, "include: only the last part of %q may have wildcards; name the directory in full", n.Value)
		return nil
	}
	s.watch(pattern)
	names, err := list(dir, filepath.Base(pattern))
	switch {
	case errors.Is(err, filepath.ErrBadPattern):
		s.at(n, "include: %q is not a pattern; close the bracket", n.Value)
	case err != nil:
		s.at(n, "include: the directory %s cannot be read (%v); create it, or mend the pattern", dir, cause(err))
	case len(names) == 0 && !strings.ContainsAny(filepath.Base(pattern), "*?["):
		s.at(n, "include: there is no file %s; create it, or mend the path", pattern)
	case len(names) == 0:
		s.warn(n, "include: no file matches %s", pattern)
	}
	return names
}

// list returns the paths in dir whose names match pattern, sorted. Names that
// begin with a dot are left out, unless the pattern does too: editors and
// package managers keep unfinished files there.
func list(dir, pattern string) ([]string, error) {
	if _, err := filepath.Match(pattern, ""); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, entry := range entries {
		name := entry.Name()
		if ok, _ := filepath.Match(pattern, name); ok && (name[0] != '.' || pattern[0] == '.') {
			paths = append(paths, filepath.Join(dir, name))
		}
	}
	return paths, nil
}

// included reads the domains of one included file.
func (l *loader) included(path string) {
	s, root := l.read(path)
	if root == nil {
		return
	}
	s.pairs(root, asWritten, func(key, value *yaml.Node) {
		switch {
		case key.Value == "include":
			s.at(key, "an included file cannot include others; list them all in the main file")
		case key.Value != "domains":
			s.at(key, "%.40q does not belong in an included file, which may hold domains only; move it to the main file", key.Value)
		case value.Tag == "!!null":
			s.at(key, "domains has no value; give it one, or remove the line")
		default:
			s.domains(value)
		}
	})
}
