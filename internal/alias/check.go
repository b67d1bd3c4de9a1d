package alias

import (
	"errors"

	"onward/internal/address"
	"onward/internal/config"
)

// checkAll walks from every alias as a message to it would, as far as that is
// the same for all messages: a loop, a target in a domain of ours that leads
// nowhere and an expansion without measure are found before mail meets them
// (RELIABILITY.md 33, 34).
func (l *loader) checkAll() {
	l.check(l.table.postmaster, l.config.Hostname, []address.Mailbox{l.config.Postmaster})
	for _, d := range l.config.Domains {
		if d.SameAs != "" {
			continue // its aliases are those of the other
		}
		for _, a := range d.Aliases {
			if isPattern(a.Key) {
				continue
			}
			if targets, err := parseTargets(a); err == nil {
				l.check(a, d.Name, targets)
			}
		}
		for _, p := range l.table.domains[d.Name].patterns {
			l.check(p.alias, d.Name, p.fixed())
		}
	}
}

// check walks from one alias to each of its targets. It reports what is to be
// mended at this alias; every other will have its turn.
func (l *loader) check(a *config.Alias, d address.Domain, targets []address.Mailbox) {
	start := hop{address: address.Mailbox{Local: a.Key, Domain: d}, alias: a}
	w := walk{table: l.table, broken: l.broken}
	var reported []hop
	for _, to := range targets {
		if w.ends > maxTargets {
			break
		}
		w.path = append(w.path[:0], start)
		f, bad := errors.AsType[*fault](w.to(to, ""))
		if bad && f.alias == a {
			l.report(a, f)
			reported = append(reported, f.path...)
		}
	}
	for _, h := range reported {
		l.broken[h.alias] = true
	}
}
