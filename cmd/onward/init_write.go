package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"onward/internal/address"
	"onward/internal/config"
	"onward/internal/problem"
)

// A setup is what a new configuration says.
type setup struct {
	hostname   address.Domain
	postmaster string
	stateDir   string // empty: left to the environment
	domains    []*newDomain
}

// A draft is a configuration file in the making, line by line.
type draft struct{ lines []string }

func (d *draft) add(text string) {
	d.lines = append(d.lines, strings.Split(strings.Trim(text, "\n"), "\n")...)
}

// compose writes the whole file.
func (s *setup) compose() *draft {
	d := &draft{}
	d.add(fmt.Sprintf(`
# The configuration of onward on %s. docs/configuration.md has every key;
# "onward check" finds mistakes. A running onward takes up changes by itself.

# The name of this server. Its addresses have to lead back to it.
hostname: %s

# Who gets mail to postmaster@ and abuse@ of every domain, and notices of trouble.
postmaster: %s
`, s.hostname, s.hostname, yamlText(s.postmaster)))
	if s.stateDir != "" {
		d.add("")
		d.add(`
# Keys, queue and journal. Keep a copy of srs-secret and dkim/ in a safe place.
state_dir: ` + yamlText(s.stateDir))
	}
	d.lines = append(d.lines, "", "domains:")
	for _, domain := range s.domains {
		d.domain(domain, "  ")
	}
	d.add(`
      # Other kinds of alias:
      # team: [a@gmail.com, b@outlook.com]
      # shop: {to: you@gmail.com, from: ["@shop.example"], until: 2027-12-31}
      # old-name: {reject: "moved, write to me@example.org"}
      # trap: {discard: true}
      # /^inv-[0-9]+$/: books@gmail.com
      # "*": you@gmail.com                      what nothing else matches
`)
	d.lines = append(d.lines, "")
	d.add(fmt.Sprintf(`
# A further domain needs one line under "domains" and one MX record; "onward init
# --add example.net" writes the one and prints the other:
#  example.net: {same_as: example.org}

# The certificate that senders see. Without one, onward makes its own: senders
# encrypt all the same, but cannot tell who this is. This gets one from Let's
# Encrypt and renews it, where port 80 is free and open:
# tls: {acme: {email: %s}}
# or, with files that something else renews:
# tls: {cert: /etc/onward/cert.pem, key: /etc/onward/key.pem}
`, s.postmaster))
	return d
}

// domain adds the lines of a domain, and notes which is whose.
func (d *draft) domain(n *newDomain, indent string) {
	if n.sameAs != "" {
		d.lines = append(d.lines, fmt.Sprintf("%s%s: {same_as: %s}", indent, n.name, n.sameAs))
		return
	}
	d.lines = append(d.lines, indent+n.name.String()+":")
	if n.keepTag {
		d.lines = append(d.lines, indent+"  keep_tag: true")
	}
	if len(n.aliases) == 0 {
		d.lines = append(d.lines, indent+"  aliases: {}")
		return
	}
	d.lines = append(d.lines, indent+"  aliases:")
	for i, line := range n.aliasLines(indent + "    ") {
		d.lines = append(d.lines, line)
		n.aliases[i].line = len(d.lines)
	}
}

// aliasLines writes each alias as a line.
func (n *newDomain) aliasLines(indent string) []string {
	var lines []string
	for _, a := range n.aliases {
		value := ""
		switch {
		case a.discard:
			value = "{discard: true}"
		case a.reject != "":
			value = "{reject: " + yamlText(a.reject) + "}"
		case len(a.to) == 1:
			value = yamlText(a.to[0])
		default:
			texts := make([]string, len(a.to))
			for i, to := range a.to {
				texts[i] = yamlText(to)
			}
			value = "[" + strings.Join(texts, ", ") + "]"
		}
		lines = append(lines, indent+yamlText(a.key)+": "+value)
	}
	return lines
}

// plainText is what YAML reads as the text it is, whatever stands around it.
var plainText = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9._/-]*(@[A-Za-z0-9.-]*[A-Za-z0-9])?$|^[A-Za-z0-9._-]*[A-Za-z][A-Za-z0-9._+-]*@[A-Za-z0-9.-]*[A-Za-z0-9]$`)

// yamlWords are read as something else than text by one version of YAML or
// another.
var yamlWords = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|null|nan)$`)

// yamlText writes a text as a scalar, in quotes where it needs them. Nothing
// that is written here has control characters: it could not be an address.
func yamlText(s string) string {
	if plainText.MatchString(s) && !yamlWords.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

// write composes the configuration and puts it at path, where nothing may be. Of
// imported aliases those that the configuration cannot have are left out, and
// told.
func (s *setup) write(path string, imported bool, lost []loss) ([]loss, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return lost, err
	}
	temp, lost, err := s.try(path, s.compose, imported, lost)
	if err != nil {
		return lost, err
	}
	defer os.Remove(temp)
	// A link fails where a rename would overwrite what came in between.
	if err := os.Link(temp, path); err != nil {
		return lost, fmt.Errorf("%s: %w", path, cause(err))
	}
	return lost, syncDir(filepath.Dir(path))
}

// try writes a draft beside path and reads it as the daemon would, until there
// is nothing wrong with it. It returns the path of what is good.
func (s *setup) try(path string, compose func() *draft, imported bool, lost []loss) (string, []loss, error) {
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	for {
		if err := writeSynced(temp, strings.Join(compose().lines, "\n")+"\n"); err != nil {
			return "", lost, unwritable(filepath.Dir(path), err)
		}
		_, _, problems := read(temp)
		fatal := problems.Fatal()
		if len(fatal) == 0 {
			return temp, lost, nil
		}
		more, ok := s.drop(fatal)
		if !imported || !ok {
			os.Remove(temp)
			return "", lost, errors.New(fatal[0].Text)
		}
		lost = append(lost, more...)
	}
}

// drop takes out the aliases that problems are about. It reports false when one
// is about something else.
func (s *setup) drop(problems problem.List) (lost []loss, ok bool) {
	why := map[int]string{}
	for _, p := range problems {
		why[p.Line] = p.Text
	}
	for _, d := range s.domains {
		var kept []*newAlias
		for _, a := range d.aliases {
			if text, bad := why[a.line]; bad {
				lost = append(lost, loss{a.from, strings.TrimSpace(strings.Join((&newDomain{aliases: []*newAlias{a}}).aliasLines(""), "")), text})
			} else {
				kept = append(kept, a)
			}
		}
		d.aliases = kept
	}
	return lost, len(lost) > 0
}

// addDomains puts domains into the configuration at path, behind the last one of
// that file, and checks that nothing else has changed.
func addDomains(path string, cfg *config.Config, domains []*newDomain, imported bool, lost []loss) ([]loss, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return lost, err
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	at, indent, ok := endOfDomains(lines, path, cfg)
	s := &setup{domains: domains}
	compose := func() *draft {
		d := &draft{lines: append([]string{}, lines[:at]...)}
		for _, n := range domains {
			d.domain(n, indent)
		}
		d.lines = append(d.lines, lines[at:]...)
		return d
	}
	byHand := func() error {
		d := &draft{}
		for _, n := range domains {
			d.domain(n, "  ")
		}
		return fmt.Errorf("%s is not written in a way that could be added to without a person; put this under its domains:\n%s", path, strings.Join(d.lines, "\n"))
	}
	if !ok {
		return lost, byHand()
	}
	temp, lost, err := s.try(path, compose, imported, lost)
	if err != nil {
		return lost, err
	}
	defer os.Remove(temp)
	if after, _ := config.Load(temp); len(after.Domains) != len(cfg.Domains)+len(domains) {
		return lost, byHand()
	}
	if info, err := os.Stat(path); err == nil {
		os.Chmod(temp, info.Mode().Perm())
	}
	if err := os.Rename(temp, path); err != nil {
		return lost, err
	}
	return lost, syncDir(filepath.Dir(path))
}

// endOfDomains finds the line behind the last domain of a file, and how far
// domains are indented there. It reports false where they do not stand on lines
// of their own.
func endOfDomains(lines []string, path string, cfg *config.Config) (at int, indent string, ok bool) {
	var last *config.Domain
	for _, d := range cfg.Domains {
		if d.File == path && (last == nil || d.Line > last.Line) {
			last = d
		}
	}
	if last == nil || last.Line > len(lines) {
		return 0, "", false
	}
	indent = lines[last.Line-1][:min(last.Column-1, len(lines[last.Line-1]))]
	if indent == "" || strings.Trim(indent, " ") != "" {
		return 0, "", false
	}
	at = last.Line
	for i := last.Line; i < len(lines); i++ {
		text := strings.TrimLeft(lines[i], " ")
		depth := len(lines[i]) - len(text)
		switch {
		case text == "":
			continue
		case depth <= len(indent):
			return at, indent, true
		}
		at = i + 1
	}
	return at, indent, true
}

func writeSynced(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// unwritable says what to do about a directory that cannot be written in, also
// where it is the one that docker-compose.yml mounts.
func unwritable(dir string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("user %d may not write in %s; chown %[1]d it, or for a container the directory that is mounted there", os.Getuid(), dir)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s can only be read here; for a container, docker compose run --rm init may write it", dir)
	}
	return err
}

// cause leaves out of an error of the file system what stands beside it anyway.
func cause(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return errors.New("somebody else has just written it; nothing was changed")
	}
	return err
}
