package dmarc

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"onward/internal/address"
	"onward/internal/resolver"
)

// maxWalk is the most queries of one tree walk (RFC 9989 4.10, DM4).
const maxWalk = 8

// A Status is what one DNS query came to.
type Status string

// The outcomes of a query.
const (
	StatusRecord    Status = "record"    // exactly one DMARC record
	StatusNoRecord  Status = "no record" // the name exists, without any DMARC record
	StatusNoName    Status = "no such name"
	StatusSeveral   Status = "several records" // more than one DMARC record: none counts (DM5)
	StatusTemporary Status = "temporary error"
)

// A Step is one DNS query and its answer.
type Step struct {
	Domain address.Domain `json:"domain"` // whom the query is about
	Name   string         `json:"name"`   // what was asked for
	Status Status         `json:"status"`
	Record *Record        `json:"record,omitempty"` // with StatusRecord
	Err    string         `json:"error,omitempty"`  // with StatusTemporary; for our log and explain
}

// psd returns how the step weighs in the search for an organizational domain:
// the "psd" tag of its record, or "" where there is none.
func (s Step) psd() string {
	if s.Record == nil {
		return ""
	}
	return s.Record.PSD
}

// lookups asks each name once for one message, however many walks come by (D2).
type lookups struct {
	resolver resolver.Resolver
	mu       sync.Mutex
	steps    map[address.Domain]func() Step
}

func newLookups(r resolver.Resolver) *lookups {
	return &lookups{resolver: r, steps: make(map[address.Domain]func() Step)}
}

// at returns the step at d, asking when nobody has.
func (l *lookups) at(ctx context.Context, d address.Domain) Step {
	l.mu.Lock()
	step, ok := l.steps[d]
	if !ok {
		step = sync.OnceValue(func() Step { return l.ask(ctx, d) })
		l.steps[d] = step
	}
	l.mu.Unlock()
	return step()
}

// ask makes one step: all texts but DMARC records are dropped, and those too
// when there are several (DM5).
func (l *lookups) ask(ctx context.Context, d address.Domain) Step {
	s := Step{Domain: d, Name: "_dmarc." + string(d)}
	answer, err := l.resolver.Lookup(ctx, s.Name, resolver.TypeTXT)
	if err != nil {
		s.Status, s.Err = statusOf(err)
		return s
	}
	s.Status = StatusNoRecord
	for _, text := range answer.TXT() {
		record, ok := ParseRecord(text)
		if ok && s.Status == StatusRecord {
			s.Status, s.Record = StatusSeveral, nil
			return s
		}
		if ok {
			s.Status, s.Record = StatusRecord, record
		}
	}
	return s
}

// exists asks whether d exists, in the meaning of RFC 8020: only NXDOMAIN says
// that it does not (DM8, RFC 9989 3.2.13). The type asked for does not matter.
func (l *lookups) exists(ctx context.Context, d address.Domain) Step {
	s := Step{Domain: d, Name: string(d), Status: StatusNoRecord}
	if _, err := l.resolver.Lookup(ctx, s.Name, resolver.TypeA); err != nil {
		s.Status, s.Err = statusOf(err)
	}
	return s
}

func statusOf(err error) (Status, string) {
	switch {
	case errors.Is(err, resolver.ErrNotFound):
		return StatusNoName, ""
	case errors.Is(err, resolver.ErrNoData):
		return StatusNoRecord, ""
	default:
		return StatusTemporary, err.Error()
	}
}

// walk climbs from d to the top until a record says where the organization
// ends (DM4, DM5). It also ends at a temporary error: nobody is made to wait
// for eight of them, and what they may hide is weighed in unsure.go.
func (l *lookups) walk(ctx context.Context, d address.Domain) []Step {
	var steps []Step
	for _, name := range path(d) {
		s := l.at(ctx, name)
		steps = append(steps, s)
		if s.Status == StatusTemporary || s.psd() == "y" || s.psd() == "n" {
			break
		}
	}
	return steps
}

// path returns the names that a walk from d visits: d, its parent or, from more
// than eight labels, its last seven, and on to the single last label (DM4).
func path(d address.Domain) []address.Domain {
	names := []address.Domain{d}
	labels := strings.Split(string(d), ".")
	for i := max(1, len(labels)-(maxWalk-1)); i < len(labels); i++ {
		names = append(names, address.Domain(strings.Join(labels[i:], ".")))
	}
	return names
}

// organizational returns the organizational domain of the first of names, which
// is a path, when seen is what is at each of them (DM6, RFC 9989 4.10.2).
func organizational(names []address.Domain, seen picture) address.Domain {
	org := names[0]
	for i, name := range names {
		switch seen[name] {
		case "n":
			return name
		case "y":
			if i == 0 {
				return name
			}
			return oneBelow(name, names[0])
		case "u":
			org = name // the one with the fewest labels is the last
		}
	}
	return org
}

// oneBelow returns the name one label below parent on the way down to d.
func oneBelow(parent, d address.Domain) address.Domain {
	rest := strings.TrimSuffix(string(d), "."+string(parent))
	return d[strings.LastIndexByte(rest, '.')+1:]
}

// policyDomain returns whose record applies to the first of names: its own, its
// organizational domain's, or the public suffix's, in this order; "" if none
// (DM3, DM7, RFC 9989 4.10.1).
func policyDomain(names []address.Domain, seen picture) address.Domain {
	if seen[names[0]] != "" {
		return names[0]
	}
	org := organizational(names, seen)
	if seen[org] != "" {
		return org
	}
	suffix := slices.IndexFunc(names, func(n address.Domain) bool { return seen[n] == "y" })
	if suffix < 0 {
		return ""
	}
	return names[suffix]
}
