package alias

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/config"
	"onward/internal/reply"
)

// Limits of one walk. Every path ends, and each end counts, also where two are
// the same target: so the work is bounded by the product of the two, however
// the aliases are tied together (RELIABILITY.md 34).
const (
	maxDepth   = 10  // aliases in a row
	maxTargets = 100 // ends of paths
)

// A walk follows one address from alias to alias.
type walk struct {
	table *Table
	rcpt  address.Mailbox // as the sender wrote it: all that a reply may tell
	now   time.Time

	path    []hop // from rcpt to where we are
	ends    int
	targets []address.Mailbox
	steps   []Step
	discard bool

	broken map[*config.Alias]bool // while New checks: whose fault is reported; else nil
}

// A hop is one alias on the path. To pass the same hop twice is a loop.
type hop struct {
	address address.Mailbox // what was looked up
	alias   *config.Alias
	matched string // folded, where the targets depend on it
}

// A fault is something wrong in the table: why a Reply was given, for the log,
// or what New tells the operator.
type fault struct {
	text  string
	alias *config.Alias // where it can be mended
	path  []hop         // which shares the fault; to mend it once mends all
}

func (f *fault) Error() string { return f.text }

// result returns what the walk has found: the whole of it, or with an error
// only how far it went.
func (w *walk) result(err error) (Match, error) {
	m := Match{Steps: w.steps}
	if len(w.steps) > 0 {
		m.Alias = w.steps[0].Alias
	}
	if err == nil {
		m.Targets, m.Discard = w.targets, w.discard && len(w.targets) == 0
	}
	return m, err
}

// pass looks up an address of ours and follows what it stands for. The tag is
// one that came along from the alias before.
func (w *walk) pass(at address.Mailbox, tag string) error {
	h, ok := w.table.domains[at.Domain].find(at.Local)
	if !ok {
		return w.refuse("5.1.1", "no such alias here", w.lost("nothing matches %s", at))
	}
	if w.broken[h.alias] {
		return &fault{text: "a fault that was reported"}
	}
	step := w.step(at, h)
	switch a := h.alias; {
	case step.Ended:
		return w.ended(a)
	case a.Reject != "":
		return &reply.Reply{Code: 550, Status: "5.1.1", Text: a.Reject, Err: w.lost("%s refuses all mail", at)}
	case a.Discard:
		return w.drop(at)
	}
	tag = h.carried(at, tag)
	targets, err := w.expand(h, tag)
	if err != nil {
		return err
	}
	step.Targets = targets
	return w.follow(at, h, targets, tag)
}

// carried returns the tag that goes on to the targets: the address's own, else
// the one that came along.
func (h hit) carried(at address.Mailbox, tag string) string {
	switch {
	case !h.alias.KeepTag:
		return ""
	case strings.Contains(at.Local, "+"):
		return h.tag
	}
	return tag
}

// step records that h decided about an address.
func (w *walk) step(at address.Mailbox, h hit) *Step {
	s := Step{Address: at, By: h.by, Alias: h.alias, Ended: ended(h.alias, w.now)}
	if h.alias == w.table.postmaster {
		s.Alias = nil
	}
	w.steps = append(w.steps, s)
	return &w.steps[len(w.steps)-1]
}

// ended reports whether the last day of an alias is over, in UTC.
func ended(a *config.Alias, now time.Time) bool {
	if a.Until.IsZero() {
		return false
	}
	return !now.Before(a.Until.Add(24 * time.Hour))
}

// expand returns the targets of an alias, tagged where they take a tag.
func (w *walk) expand(h hit, tag string) ([]address.Mailbox, error) {
	targets, err := w.read(h)
	for i, to := range targets {
		if w.table.domains[to.Domain] == nil {
			targets[i] = carry(to, tag)
		}
	}
	return targets, err
}

// read returns the targets of an alias.
func (w *walk) read(h hit) ([]address.Mailbox, error) {
	if h.pattern == nil {
		return parseTargets(h.alias) // no error: New has read them before
	}
	var targets []address.Mailbox
	for _, t := range h.pattern.to {
		m, ok := t.fill(h.group)
		if !ok {
			return nil, w.refuse("5.1.1", "no such alias here", w.lost("%.80s is too long, or would need quotes", m))
		}
		targets = append(targets, m)
	}
	return targets, nil
}

// follow goes on to the targets of an alias.
func (w *walk) follow(at address.Mailbox, h hit, targets []address.Mailbox, tag string) error {
	if err := w.enter(at, h); err != nil {
		return err
	}
	for _, to := range targets {
		if err := w.to(to, tag); err != nil {
			return err
		}
	}
	w.path = w.path[:len(w.path)-1]
	return nil
}

// to goes on to one target, with the tag for an alias of ours.
func (w *walk) to(target address.Mailbox, tag string) error {
	if w.table.domains[target.Domain] != nil {
		return w.pass(target, tag)
	}
	return w.arrive(target)
}

// enter adds an alias to the path, unless that would make a loop.
func (w *walk) enter(at address.Mailbox, h hit) error {
	next := hop{address: at, alias: h.alias}
	if h.pattern != nil && h.pattern.dynamic {
		next.matched = fold(h.local)
	}
	first := slices.IndexFunc(w.path, func(p hop) bool { return p.alias == next.alias && p.matched == next.matched })
	if first >= 0 {
		return w.trouble(w.culprit(first), w.path[first:], "aliases in a circle: %s", chain(w.path[first:], at))
	}
	if len(w.path) == maxDepth {
		return w.trouble(w.culprit(0), w.path, "more than %d aliases in a row: %s", maxDepth, chain(w.path, at))
	}
	w.path = append(w.path, next)
	return nil
}

// chain names the aliases on a path and, where it closes, the first again.
func chain(path []hop, last address.Mailbox) string {
	var b strings.Builder
	for _, p := range path {
		fmt.Fprintf(&b, "%.80s -> ", p.address)
	}
	return b.String() + last.String()
}

// arrive takes up a target outside our domains, once.
func (w *walk) arrive(to address.Mailbox) error {
	same := func(t address.Mailbox) bool { return t.Domain == to.Domain && strings.EqualFold(t.Local, to.Local) }
	if !slices.ContainsFunc(w.targets, same) {
		w.targets = append(w.targets, to)
	}
	return w.end()
}

// drop ends a path at an alias that discards. An alias that leads to one is a
// fault, as its mail would vanish unseen; what a sender wrote may lead there.
func (w *walk) drop(at address.Mailbox) error {
	if w.broken != nil {
		return w.lost("%s discards all mail", at)
	}
	w.discard = true
	return w.end()
}

// ended ends a path at an alias whose time is over.
func (w *walk) ended(a *config.Alias) error {
	if len(w.path) == 0 {
		return w.refuse("5.1.1", "this alias ended on "+a.Until.UTC().Format(time.DateOnly), nil)
	}
	return w.end()
}

// end counts the end of a path.
func (w *walk) end() error {
	if w.ends++; w.ends > maxTargets && len(w.path) > 0 {
		return w.trouble(w.culprit(0), w.path[:1], "%s leads to more than %d targets, counting each way there; use a mailing list", w.path[0].address, maxTargets)
	}
	return nil
}

// refuse is a permanent refusal of what the sender wrote. The targets behind
// it stay untold.
func (w *walk) refuse(status, text string, cause error) error {
	return &reply.Reply{Code: 550, Status: status, Text: fmt.Sprintf("<%s>: %s", w.rcpt, text), Err: cause}
}

// lost is the fault of the last alias on the path: its target leads nowhere.
// It is nil when the sender wrote that target.
func (w *walk) lost(format string, args ...any) error {
	if len(w.path) == 0 {
		return nil
	}
	return &fault{text: "a target that leads nowhere: " + fmt.Sprintf(format, args...), alias: w.culprit(len(w.path) - 1)}
}

// culprit returns the alias to mend for a fault at path[i]: the last up to
// there whose targets do not depend on what was matched.
func (w *walk) culprit(i int) *config.Alias {
	for i > 0 && w.path[i].matched != "" {
		i--
	}
	return w.path[i].alias
}

// trouble is a fault found while a sender waits: temporary, as it is ours.
func (w *walk) trouble(a *config.Alias, path []hop, format string, args ...any) error {
	return &reply.Reply{
		Code: 451, Status: "4.3.5",
		Text: fmt.Sprintf("<%s>: trouble with our alias table, please try again later", w.rcpt),
		Err:  &fault{text: fmt.Sprintf(format, args...), alias: a, path: path},
	}
}

// group returns what group number i matched.
func (h hit) group(i int) string {
	start, end := h.groups[2*i], h.groups[2*i+1]
	if start < 0 {
		return ""
	}
	return h.local[start:end]
}
