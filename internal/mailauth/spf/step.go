package spf

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"onward/internal/address"
	"onward/internal/resolver"
)

// What is kept of a check. Only records of thousands of networks need more
// steps; they are evaluated to their end all the same.
const (
	maxSteps = 500
	maxText  = 512 // octets of a term or a phrase
)

// begin notes a step. What the caller writes to it later is kept, unless there
// are too many.
func (e *evaluation) begin(s Step) *Step {
	s.Domain, s.Term = shown(s.Domain, address.MaxDomain), shown(s.Term, maxText)
	s.Lookups, s.Voids = e.lookups, e.voids
	if len(e.steps) < maxSteps {
		e.steps = append(e.steps, &s)
	}
	return &s
}

// history returns the steps kept.
func (e *evaluation) history() []Step {
	steps := make([]Step, len(e.steps))
	for i, s := range e.steps {
		steps[i] = *s
	}
	return steps
}

// lookup asks the DNS and notes that.
func (e *evaluation) lookup(ctx context.Context, step *Step, name string, t resolver.Type) (*resolver.Answer, error) {
	// A backslash is an octet here, and begins an escape there.
	answer, err := e.resolver.Lookup(ctx, strings.ReplaceAll(name, `\`, `\\`), t)
	q := Query{Name: shown(name, address.MaxDomain), Type: t.String()}
	switch {
	case err == nil:
		q.Answer = "found"
	case errors.Is(err, resolver.ErrNotFound):
		q.Answer = resolver.ErrNotFound.Error()
	case errors.Is(err, resolver.ErrNoData):
		q.Answer = resolver.ErrNoData.Error()
	default:
		q.Answer = resolver.ErrTemporary.Error()
	}
	step.Queries = append(step.Queries, q)
	return answer, err
}

// isNo reports whether err is the knowledge that there is nothing, as opposed
// to not knowing.
func isNo(err error) bool {
	return errors.Is(err, resolver.ErrNotFound) || errors.Is(err, resolver.ErrNoData)
}

// void counts the lookup of a term's own name if it brought nothing. Over the
// limit, the lookup is the last.
func (e *evaluation) void(step *Step, err error) {
	if isNo(err) {
		e.voids++
		step.Voids = e.voids
	}
}

// overVoids returns the trouble of too many empty answers (F4).
func (e *evaluation) overVoids() error {
	if e.voids > MaxVoids {
		return trouble{PermError, fmt.Sprintf("more than %d terms have an empty answer", MaxVoids)}
	}
	return nil
}

// shown returns what is kept of s: printable, and cut to so many octets.
func shown(s string, most int) string {
	s = printable(s[:min(len(s), most+1)])
	if len(s) > most {
		return s[:most-3] + "..."
	}
	return s
}

// printable returns s with everything but printable ASCII as \DDD.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0 {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' {
			fmt.Fprintf(&b, `\%03d`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
