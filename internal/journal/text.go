package journal

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxText is the most octets kept of one text. Addresses, names and results are
// shorter by themselves; it bounds what peers say and the Subject.
const maxText = 1000

// cut lets go of what is too long in a text that has to wait.
func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.Clone(s[:maxText])
}

func (a Answer) cut() Answer { return Answer{a.Code, cut(a.Status), cut(a.Text)} }

func (v *Verdict) cut() *Verdict {
	if v == nil {
		return nil
	}
	short := *v
	short.SPFReason, short.Why = cut(v.SPFReason), cut(v.Why)
	short.DKIM = make([]Signature, 0, min(len(v.DKIM), maxSignatures))
	for _, d := range v.DKIM[:cap(short.DKIM)] {
		d.Domain, d.Selector, d.Reason = cut(d.Domain), cut(d.Selector), cut(d.Reason)
		short.DKIM = append(short.DKIM, d)
	}
	return &short
}

func (m Message) cut() Entry {
	if m.Answered.IsZero() {
		m.Answered = time.Now()
	}
	m.Helo, m.Subject, m.Answer, m.Verdict = cut(m.Helo), cut(m.Subject), m.Answer.cut(), m.Verdict.cut()
	return m
}

func (a Attempt) cut() Entry {
	a.Host, a.Answer = cut(a.Host), a.Answer.cut()
	return a
}

func (e Event) cut() Entry {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.By, e.Answer = cut(e.By), e.Answer.cut()
	return e
}

func (v *Verdict) clean() *Verdict {
	c := *v
	for _, s := range []*string{&c.SPF, &c.SPFDomain, &c.SPFReason, &c.ARC, &c.DMARC, &c.Author, &c.Policy, &c.Why} {
		*s = clean(*s)
	}
	c.DKIM = []Signature{}
	for _, d := range v.DKIM {
		c.DKIM = append(c.DKIM, Signature{clean(d.Domain), clean(d.Selector), clean(d.Result), clean(d.Reason)})
	}
	return &c
}

// clean makes foreign text one line of what can be printed, in any script
// (RELIABILITY 65, 68): everything else becomes a blank or '?'.
func clean(s string) string {
	if isClean(s) {
		return s
	}
	var b strings.Builder
	for _, r := range cut(s) {
		switch {
		case r == '\t' || r == '\r' || r == '\n':
			b.WriteByte(' ')
		case r == utf8.RuneError || !strconv.IsPrint(r):
			b.WriteByte('?')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func isClean(s string) bool {
	if len(s) > maxText {
		return false
	}
	for _, r := range s {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return false
		}
	}
	return true
}
