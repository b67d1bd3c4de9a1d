package status

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"onward/internal/journal"
	"onward/internal/store"
)

// perPage is how many rows a page of messages, items or aliases has.
const perPage = 50

// maxQuery is the most octets that are looked for: no address is longer.
const maxQuery = 320

// A list is a page of messages.
type list struct {
	Search, From, To string
	Days             []day
	First            bool   // the newest are on it
	Older            string // link to the next page; empty on the last
}

// A day is the messages of one day.
type day struct {
	Date time.Time
	Rows []row
}

// A row is one recipient of a message, and how things stand with it now.
type row struct {
	journal.Line
	Outcome journal.Outcome
	Answer  journal.Answer
}

func (p *Page) messages(r *http.Request) (view, error) {
	q := r.URL.Query()
	l := list{Search: cut(q.Get("q")), From: cut(q.Get("from")), To: cut(q.Get("to"))}
	before, err := number64(q.Get("before"))
	if err != nil {
		return view{}, err
	}
	l.First = before == 0
	j, err := p.read(r.Context())
	if err != nil {
		return view{}, err
	}
	defer j.Close()
	filter := journal.Filter{Text: l.Search, From: l.From, To: l.To, Limit: perPage + 1}
	rows, err := p.rows(r.Context(), j, filter, before)
	if err != nil {
		return view{}, err
	}
	if len(rows) > perPage {
		rows = rows[:perPage]
		older := url.Values{"before": {fmt.Sprint(rows[perPage-1].Number)}}
		for name, value := range map[string]string{"q": l.Search, "from": l.From, "to": l.To} {
			if value != "" {
				older.Set(name, value)
			}
		}
		l.Older = "/messages?" + older.Encode()
	}
	l.Days = byDay(rows)
	return view{Name: "messages", Title: "Messages", Data: l}, nil
}

// cut bounds what is looked for.
func cut(s string) string {
	s = strings.TrimSpace(s)
	return s[:min(len(s), maxQuery)]
}

// number64 reads a number from a link of ours; empty is 0.
func number64(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: %q is no number", errRequest, s)
	}
	return n, nil
}

// rows reads lines, the newest first. What was queued has a later fate.
func (p *Page) rows(ctx context.Context, j *journal.Reader, f journal.Filter, before int64) ([]row, error) {
	lines, err := j.Lines(ctx, f, before)
	if err != nil {
		return nil, err
	}
	rows := make([]row, len(lines))
	for i, line := range lines {
		rows[i] = row{line, line.Event.Outcome, line.Event.Answer}
		if line.Event.Outcome != journal.Queued {
			continue
		}
		story, err := j.Story(ctx, line.Message)
		if err != nil {
			return nil, err
		}
		rows[i].follow(story.Fates)
	}
	return rows, nil
}

// follow takes over the fate of the recipient's target that is worst off.
func (r *row) follow(fates []journal.Fate) {
	order := []journal.Outcome{journal.Delivered, journal.Dropped, journal.Reported, journal.Queued, journal.Held}
	worst := -1
	for _, f := range fates {
		if at := slices.Index(order, f.Outcome); strings.EqualFold(f.Recipient, r.Recipient) && at > worst {
			worst, r.Outcome, r.Answer = at, f.Outcome, f.Answer
		}
	}
}

// byDay groups rows under their days.
func byDay(rows []row) (days []day) {
	for _, r := range rows {
		date := r.Time.Local()
		y, m, d := date.Date()
		date = time.Date(y, m, d, 0, 0, 0, 0, time.Local)
		if len(days) == 0 || !days[len(days)-1].Date.Equal(date) {
			days = append(days, day{Date: date})
		}
		last := &days[len(days)-1]
		last.Rows = append(last.Rows, r)
	}
	return days
}

// A tale is the page of one message.
type tale struct {
	*journal.Story
	Found []finding
	Steps []step
	Items []item
}

// A finding is one result of authentication, explained.
type finding struct {
	Method, Result, Text string
}

// A step is an attempt or an event.
type step struct {
	At                 time.Time
	Word, What, Detail string
	Answer             journal.Answer
}

func (p *Page) story(r *http.Request) (view, error) {
	ctx := r.Context()
	j, err := p.read(ctx)
	if err != nil {
		return view{}, err
	}
	defer j.Close()
	s, err := j.Story(ctx, strings.ToUpper(cut(r.PathValue("id"))))
	if err != nil {
		return view{}, err
	}
	items, err := p.Store.Items(ctx, store.Filter{Message: s.ID, Limit: perPage})
	if err != nil {
		return view{}, err
	}
	t := tale{Story: s, Found: explain(s), Steps: steps(s)}
	for _, it := range items {
		t.Items = append(t.Items, item{it, s.Subject, accessOf(r).acts, p.now()})
	}
	return view{Name: "story", Title: cmp.Or(journal.DecodeSubject(s.Subject), "Message "+s.ID), Data: t}, nil
}

// steps puts attempts and events in one order, that of their ends.
func steps(s *journal.Story) (list []step) {
	for _, a := range s.Attempts {
		list = append(list, attempted(a))
	}
	for _, e := range s.Events {
		list = append(list, happened(e))
	}
	slices.SortStableFunc(list, func(a, b step) int { return a.At.Compare(b.At) })
	return list
}

func attempted(a journal.Attempt) step {
	what := a.Target
	if a.Host != "" {
		what += " at " + a.Host
	}
	who := "while the sender waited"
	if a.Queued {
		who = "by the queue"
	}
	detail := []string{"tried " + who, fmt.Sprintf("%.1f s, as far as %s", a.Took.Seconds(), a.Step)}
	if a.Peer != "" {
		detail = append(detail, a.Peer, cmp.Or(a.TLS, "in clear"))
	}
	return step{a.Began.Add(a.Took), a.Result, what, strings.Join(detail, " · "), a.Answer}
}

func happened(e journal.Event) step {
	s := step{At: e.Time, Word: string(e.Outcome), What: strings.Join(e.Targets, ", "), Answer: e.Answer}
	switch {
	case e.ToSender:
		s.What, s.Detail = e.Recipient, "what the sender was told"
	case e.By != "":
		s.Detail = "by " + e.By
	}
	return s
}
