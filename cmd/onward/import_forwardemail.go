package main

import (
	"encoding/base64"
	"regexp"
	"strings"

	"onward/internal/address"
)

// readForwardEmail reads the TXT records of Forward Email: lines of a zone file,
// or just the texts, "forward-email=alias:target,alias:target".
func (i *importing) readForwardEmail(text string) error {
	origin, owner := i.own, i.own
	for _, entry := range zoneEntries(text) {
		switch {
		case strings.EqualFold(entry.words[0], "$ORIGIN") && len(entry.words) > 1:
			origin, _ = parseOwnDomain(entry.words[1])
			continue
		case entry.quoted || strings.HasPrefix(entry.words[0], "forward-email"): // as dig +short prints them
			owner = i.own
		case !entry.indented:
			owner = ownerOf(entry.words[0], origin)
		}
		value := ""
		for n, word := range entry.words {
			if strings.HasPrefix(word, "forward-email") {
				value = strings.Join(entry.words[n:], "") // the strings of one record
				break
			}
		}
		if value == "" {
			continue
		}
		if owner == "" {
			return errNoDomain
		}
		i.forwardEmailRecord(i.domain(owner), line(entry.number), value)
	}
	for _, d := range i.domains {
		d.tidy()
	}
	return nil
}

// ownerOf reads the owner of a record. A name without a final dot is below the
// origin, unless none is known or it stands below it already.
func ownerOf(name string, origin address.Domain) address.Domain {
	if name == "@" {
		return origin
	}
	d, err := parseOwnDomain(name)
	if strings.HasSuffix(name, ".") || origin == "" || d == origin || strings.HasSuffix(name, "."+origin.String()) {
		if err != nil {
			return ""
		}
		return d
	}
	d, _ = parseOwnDomain(name + "." + origin.String())
	return d
}

// A zoneEntry is one entry of a zone file, without its quotes.
type zoneEntry struct {
	number   int // of its first line
	indented bool
	quoted   bool // the first word is
	words    []string
}

// zoneEntries takes a zone file apart (RFC 1035 5.1) as far as TXT records need:
// comments, quotes, and parentheses that go over lines.
func zoneEntries(text string) []zoneEntry {
	var entries []zoneEntry
	var current *zoneEntry
	depth, number := 0, 0
	for l := range strings.Lines(text) {
		number++
		l = strings.TrimRight(l, "\n")
		if depth == 0 || current == nil {
			entries = append(entries, zoneEntry{number: number, indented: l != "" && (l[0] == ' ' || l[0] == '\t')})
			current = &entries[len(entries)-1]
		}
		for l = strings.TrimLeft(l, " \t"); l != ""; l = strings.TrimLeft(l, " \t") {
			switch l[0] {
			case ';':
				l = ""
			case '(':
				depth, l = depth+1, l[1:]
			case ')':
				depth, l = max(0, depth-1), l[1:]
			default:
				current.quoted = current.quoted || len(current.words) == 0 && l[0] == '"' && !current.indented
				var word string
				word, l = cutWord(l)
				current.words = append(current.words, word)
			}
		}
	}
	var filled []zoneEntry
	for _, e := range entries {
		if len(e.words) > 0 {
			filled = append(filled, e)
		}
	}
	return filled
}

// cutWord takes a word, or a quoted string, from the front of l.
func cutWord(l string) (word, rest string) {
	if l[0] != '"' {
		end := strings.IndexAny(l, " \t\"")
		if end < 0 {
			end = len(l)
		}
		return l[:end], l[end:]
	}
	var b strings.Builder
	for n := 1; n < len(l); n++ {
		switch {
		case l[n] == '"':
			return b.String(), l[n+1:]
		case l[n] == '\\' && n+1 < len(l):
			n++
		}
		b.WriteByte(l[n])
	}
	return b.String(), ""
}

// forwardEmailRecord reads the text of one record.
func (i *importing) forwardEmailRecord(d *newDomain, where, text string) {
	d.keepTag = true // hello+shop@ goes to user+shop@
	name, value, _ := strings.Cut(text, "=")
	switch name {
	case "forward-email":
	case "forward-email-port":
		if value != "25" {
			i.lose(where, text, "delivery.port is one for all destinations")
		}
		return
	case "forward-email-site-verification":
		i.lose(where, text, "aliases of a paid plan are not in the DNS; export them at Forward Email")
		return
	default:
		i.lose(where, text, "not known")
		return
	}
	if _, err := base64.StdEncoding.DecodeString(value); err == nil && len(value) > 40 {
		i.lose(where, text, "the record is encrypted, so only Forward Email can read it")
		return
	}
	for _, element := range splitElements(value) {
		i.forwardEmailElement(d, where, element)
	}
}

// splitElements splits at commas, but for those in a regular expression.
func splitElements(s string) []string {
	var elements []string
	for s != "" {
		from := 0
		if strings.HasPrefix(strings.TrimLeft(s, "!"), "/") {
			if end := patternEnd.FindStringIndex(s); end != nil {
				from = end[1]
			}
		}
		end := strings.IndexByte(s[from:], ',')
		if end < 0 {
			elements = append(elements, strings.TrimSpace(s))
			break
		}
		elements = append(elements, strings.TrimSpace(s[:from+end]))
		s = s[from+end+1:]
	}
	return elements
}

// patternEnd ends a regular expression and its flags.
var patternEnd = regexp.MustCompile(`/[gi]{0,2}(:|$)`)

// forwardEmailElement reads "alias:target", "/pattern/:target", a target for all
// the rest, or with "!" in front what is to be done without one.
func (i *importing) forwardEmailElement(d *newDomain, where, element string) {
	if element == "" {
		return
	}
	rest := strings.TrimLeft(element, "!")
	marks := len(element) - len(rest)
	key, target := "", rest
	switch {
	case strings.HasPrefix(rest, "/"):
		end := patternEnd.FindStringIndex(rest[1:])
		if end == nil {
			i.lose(where, element, "the regular expression does not end")
			return
		}
		key, target = rest[:end[0]+2], rest[end[1]+1:]
	case strings.HasPrefix(rest, "http://") || strings.HasPrefix(rest, "https://"):
	case strings.Contains(rest, ":") || marks > 0:
		key, target, _ = strings.Cut(rest, ":")
	}
	switch {
	case marks == 1:
		a := d.alias(key)
		a.discard, a.from = true, where
		return
	case marks == 2:
		i.lose(where, element, "onward does not refuse for a while; to refuse for good write {reject: \"...\"}")
		return
	case marks > 2:
		a := d.alias(key)
		a.reject, a.from = "no such address here", where
		return
	}
	i.forwardEmailTarget(d, where, element, key, target)
}

// forwardEmailTarget adds a target; without a key it is one for all the rest.
func (i *importing) forwardEmailTarget(d *newDomain, where, element, key, target string) {
	target = strings.TrimSpace(target)
	switch {
	case strings.Contains(target, "://"):
		i.lose(where, element, "onward calls no web hooks")
		return
	case key == "" && !strings.Contains(target, "@"):
		if _, err := parseOwnDomain(target); err != nil {
			i.lose(where, element, "neither an address nor a domain")
			return
		}
		// Everybody at the same name in another domain; whoever else gets all the
		// rest gets it through the same alias.
		a := d.alias("*")
		a.key, a.from = everybody, where
		a.to = append(a.to, "$1@"+target)
		return
	case key == "":
		key = "*"
		for _, a := range d.aliases {
			if a.key == everybody {
				key = everybody
			}
		}
	}
	if _, err := address.Parse(groupNames.ReplaceAllString(target, "x")); err != nil {
		i.lose(where, element, "%s is no address", target)
		return
	}
	a := d.alias(key)
	if a.discard || a.reject != "" {
		return // which outweighs targets
	}
	a.to, a.from = append(a.to, target), where
}

// groupNames stand in targets for what a group has matched.
var groupNames = regexp.MustCompile(`\$[0-9]+`)
