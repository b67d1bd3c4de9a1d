package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"onward/internal/config"
	"onward/internal/journal"
	"onward/internal/status"
)

// showStory prints all that the journal knows of one message, of which id is
// the beginning.
func showStory(cmd *cobra.Command, cfg *config.Config, id string, asJSON bool) error {
	ctx := cmd.Context()
	r, err := openJournal(ctx, cfg)
	if err != nil {
		return err
	}
	defer r.Close()
	if id, err = wholeID(ctx, r, id); err != nil {
		return err
	}
	story, err := r.Story(ctx, id)
	if err != nil {
		return err
	}
	if asJSON {
		return printLine(cmd.OutOrStdout(), story)
	}
	s := newScreen(cmd.OutOrStdout())
	s.story(story)
	return s.Flush()
}

// wholeID finds the message whose id begins so.
func wholeID(ctx context.Context, r *journal.Reader, begin string) (string, error) {
	ids, err := r.Find(ctx, begin)
	switch {
	case err != nil:
		return "", err
	case len(ids) == 0 || begin == "":
		return "", fmt.Errorf("the journal knows no message %q; onward log lists those it knows", begin)
	case len(ids) > 1 && !strings.EqualFold(ids[0], begin):
		return "", fmt.Errorf("several messages begin with %q: %s", begin, strings.Join(ids, ", "))
	}
	return ids[0], nil
}

// The columns of labels in a story.
const (
	labelWidth  = 12
	momentWidth = len("  2006-01-02 15:04:05  ")
)

func moment(t time.Time) string { return t.Local().Format(time.DateTime) }

// story prints what is known of a message: how it stands first, as that is what
// people come for.
func (s *screen) story(m *journal.Story) {
	s.line(paint(s.colour, bold, visible("Message "+m.ID)))
	for _, f := range m.Fates {
		s.line("  ", s.pair(f.Recipient, f.Target))
		s.entry(4, "", string(f.Outcome), f.Answer.String())
	}
	if !m.Arrived.IsZero() {
		s.title("What came")
		s.came(m)
	}
	if m.Verdict != nil {
		s.title("What was found")
		s.verdict(m.Verdict)
	}
	s.title("What happened")
	s.happened(m.Attempts, m.Events)
}

// pair names a recipient and its target, where it has one.
func (s *screen) pair(recipient, target string) string {
	if target == "" {
		return visible(recipient)
	}
	return s.arrow(recipient, target, s.rest(2))
}

func (s *screen) came(m *journal.Story) {
	secure := "in clear"
	if m.TLS != "" {
		secure = m.TLS
	}
	s.entry(labelWidth, "at", "", moment(m.Arrived))
	s.entry(labelWidth, "client", "", fmt.Sprintf("%s [%s], %s", m.Helo, m.Client, secure))
	s.entry(labelWidth, "from", "", nullable(m.From))
	if m.Size > 0 {
		s.entry(labelWidth, "subject", "", journal.DecodeSubject(m.Subject))
		s.entry(labelWidth, "size", "", status.Octets(m.Size))
	}
}

// verdict prints what authentication found.
func (s *screen) verdict(v *journal.Verdict) {
	s.entry(labelWidth, "SPF", v.SPF, sentence(v.SPFDomain, v.SPFReason))
	label := "DKIM"
	for _, d := range v.DKIM {
		s.entry(labelWidth, label, d.Result, sentence(d.Domain+", selector "+d.Selector, d.Reason))
		label = ""
	}
	if len(v.DKIM) == 0 {
		s.entry(labelWidth, label, "none", "")
	}
	s.entry(labelWidth, "ARC", v.ARC, "")
	s.entry(labelWidth, "DMARC", v.DMARC, cmp.Or(v.Author, "no single author")+", policy "+cmp.Or(v.Policy, "none published"))
	s.entry(labelWidth, "decision", "", v.Why)
}

// sentence adds a reason to what it is the reason of.
func sentence(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}

// happened prints attempts and events in one order, that of their ends.
func (s *screen) happened(attempts []journal.Attempt, events []journal.Event) {
	type entry struct {
		at                 time.Time
		word, what, answer string
	}
	var list []entry
	for _, a := range attempts {
		list = append(list, entry{a.Began.Add(a.Took), a.Result, describeAttempt(a), a.Answer.String()})
	}
	for _, e := range events {
		list = append(list, entry{e.Time, string(e.Outcome), describeEvent(e), e.Answer.String()})
	}
	slices.SortStableFunc(list, func(a, b entry) int { return a.at.Compare(b.at) })
	for _, e := range list {
		s.entry(momentWidth, moment(e.at), e.word, e.what)
		if e.answer != "" {
			s.entry(momentWidth, "", "", e.answer)
		}
	}
}

func describeAttempt(a journal.Attempt) string {
	text := a.Target
	if a.Host != "" {
		text += fmt.Sprintf(" at %s [%s]", a.Host, a.Peer)
	}
	if a.TLS != "" {
		text += ", " + a.TLS
	}
	who := "while the sender waited"
	if a.Queued {
		who = "by the queue"
	}
	return fmt.Sprintf("%s; tried %s, as far as %s, in %.1f s", text, who, a.Step, a.Took.Seconds())
}

func describeEvent(e journal.Event) string {
	targets := strings.Join(e.Targets, ", ")
	switch {
	case e.ToSender:
		return "told to the sender, for " + e.Recipient
	case e.By != "":
		return targets + ", by " + e.By
	}
	return targets
}
