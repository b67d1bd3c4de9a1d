package main

import (
	"strings"

	"onward/internal/address"
)

// readPostfix reads the source of a Postfix virtual alias table (virtual(5)):
// "user@domain target, target", "@domain target", and lines that begin with a
// blank go on with the one before.
func (i *importing) readPostfix(text string) error {
	number, begin, logical := 0, 0, ""
	for l := range strings.Lines(text) {
		number++
		l = strings.TrimRight(l, "\n")
		trimmed := strings.TrimSpace(l)
		switch {
		case trimmed == "" || strings.HasPrefix(trimmed, "#"):
		case l[0] == ' ' || l[0] == '\t':
			logical += " " + trimmed
		default:
			i.postfixLine(begin, logical)
			begin, logical = number, trimmed
		}
	}
	i.postfixLine(begin, logical)
	return nil
}

func (i *importing) postfixLine(number int, text string) {
	if text == "" {
		return
	}
	where := line(number)
	key, right, _ := strings.Cut(strings.ReplaceAll(text, "\t", " "), " ")
	local, name, hasAt := strings.Cut(key, "@")
	if at := strings.LastIndexByte(key, '@'); at >= 0 {
		local, name = key[:at], key[at+1:]
	}
	switch {
	case strings.HasPrefix(key, "/"):
		i.lose(where, text, "a table of regular expressions is not read; write them as /^...$/ aliases by hand")
		return
	case !hasAt && strings.Contains(key, "."):
		return // declares a domain; the rest of the line means nothing
	case !hasAt && i.own == "":
		i.lose(where, text, "the file does not say which domain %s is in", key)
		return
	case !hasAt:
		local, name = key, i.own.String()
	}
	domain, err := parseOwnDomain(name)
	if err != nil {
		i.lose(where, text, "%v", err)
		return
	}
	d := i.domain(domain)
	if local == "" {
		local = "*"
	}
	if known := d.alias(local); len(known.to) > 0 || known.discard {
		i.lose(where, text, "%s is in the file twice; the first one counts", key)
		return
	}
	d.alias(local).from = where
	for target := range strings.SplitSeq(right, ",") {
		for target := range strings.FieldsSeq(target) {
			i.postfixTarget(d, local, target, where, text)
		}
	}
	d.tidy()
}

// postfixTarget adds one target. One that is only a domain keeps the name that
// was written to.
func (i *importing) postfixTarget(d *newDomain, local, target, where, text string) {
	if other, same := strings.CutPrefix(target, "@"); same && local == "*" {
		d.alias("*").key, local = everybody, everybody
		target = "$1@" + other
	} else if same {
		target = local + "@" + other
	}
	if local == "*" && len(d.aliases) > 0 && d.aliases[len(d.aliases)-1].key == everybody {
		local = everybody // an earlier target made it one
	}
	if _, err := address.Parse(strings.Replace(target, "$1", "x", 1)); err != nil {
		i.lose(where, text, "%s is no address, but a mailbox or program of that server", target)
		return
	}
	a := d.alias(local)
	a.to = append(a.to, target)
}

// tidy takes out aliases of which nothing is left.
func (d *newDomain) tidy() {
	kept := d.aliases[:0]
	for _, a := range d.aliases {
		if len(a.to) > 0 || a.discard || a.reject != "" {
			kept = append(kept, a)
		}
	}
	d.aliases = kept
}

// readChasquid reads the aliases file of one domain of chasquid, which is that
// of sendmail as far as it goes: "user: address, address" or "user: | command".
func (i *importing) readChasquid(text string) error {
	if i.own == "" {
		return errNoDomain
	}
	d := i.domain(i.own)
	number := 0
	for l := range strings.Lines(text) {
		number++
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "#") {
			continue
		}
		where := line(number)
		key, right, ok := strings.Cut(l, ":")
		key, right = strings.TrimSpace(key), strings.TrimSpace(right)
		switch {
		case !ok || key == "" || right == "":
			i.lose(where, l, "not of the form name: address")
			continue
		case strings.HasPrefix(strings.Trim(right, `"`), "|"):
			i.lose(where, l, "onward runs no programs")
			continue
		}
		a := d.alias(key)
		a.to, a.from = nil, where // of several the last one counts
		for target := range strings.SplitSeq(right, ",") {
			if target = strings.TrimSpace(target); target != "" {
				i.chasquidTarget(d, a, target, where, l)
			}
		}
		d.tidy()
	}
	return nil
}

// chasquidTarget adds one target. One without a domain is in this domain, and
// "*" keeps the name that was written to.
func (i *importing) chasquidTarget(d *newDomain, a *newAlias, target, where, text string) {
	if to, via, ok := strings.Cut(target, " via "); ok {
		i.lose(where, text, "the mail goes to the host of %s, not through %s", to, strings.TrimSpace(via))
		target = strings.TrimSpace(to)
	}
	if other, same := strings.CutPrefix(target, "*@"); same {
		if a.key != "*" && a.key != everybody {
			target = a.key + "@" + other
		} else {
			a.key, target = everybody, "$1@"+other
		}
	}
	if !strings.Contains(target, "@") {
		target += "@" + d.name.String()
	}
	if _, err := address.Parse(strings.Replace(target, "$1", "x", 1)); err != nil {
		i.lose(where, text, "%v", err)
		return
	}
	a.to = append(a.to, target)
}
