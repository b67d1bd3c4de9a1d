package status

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"onward/internal/journal"
	"onward/internal/store"
)

// A waitingList is a page of the queue.
type waitingList struct {
	State string
	Stats store.Stats
	Items []item
	More  string // link to the next page; empty on the last
}

// An item is one item, with the subject that the journal knows.
type item struct {
	*store.Item
	Subject string
	Known   bool // who asks may change it
	Now     time.Time
}

// When says when an item is tried next.
func (i item) When() string {
	switch {
	case i.State == store.Held:
		return "held"
	case i.Until.After(i.Now):
		return "being tried"
	case !i.Next.After(i.Now):
		return "due"
	}
	return "in " + span(i.Next.Sub(i.Now))
}

// Why says why an item is still here.
func (i item) Why() string {
	return cmp.Or(i.Reason, i.Said, "It has not been tried yet.")
}

func (p *Page) queue(r *http.Request) (view, error) {
	ctx, q := r.Context(), r.URL.Query()
	w := waitingList{State: q.Get("state")}
	after, err := number64(q.Get("after"))
	if err != nil {
		return view{}, err
	}
	if w.State != "" && w.State != string(store.Held) && w.State != string(store.Waiting) {
		return view{}, fmt.Errorf("%w: no item is ever %q", errRequest, cut(w.State))
	}
	if w.Stats, err = p.Store.Stats(ctx); err != nil {
		return view{}, err
	}
	items, err := p.Store.Items(ctx, store.Filter{State: store.State(w.State), After: after, Limit: perPage + 1})
	if err != nil {
		return view{}, err
	}
	if len(items) > perPage {
		items = items[:perPage]
		w.More = "/queue?" + url.Values{"state": {w.State}, "after": {fmt.Sprint(items[perPage-1].ID)}}.Encode()
	}
	w.Items = p.titled(r, items)
	return view{Name: "queue", Title: "Queue", Note: done[q.Get("done")], Data: w}, nil
}

// titled adds the subjects that the journal knows. Without it there are none.
func (p *Page) titled(r *http.Request, items []*store.Item) []item {
	list := make([]item, len(items))
	j, err := p.read(r.Context())
	if err == nil {
		defer j.Close()
	}
	for i, it := range items {
		list[i] = item{it, "", accessOf(r).acts, p.now()}
		if err == nil {
			list[i].Subject, _ = j.Subject(r.Context(), it.Message)
		}
	}
	return list
}

// done are the sentences that follow a deed.
var done = map[string]string{
	"retry":   "It is tried now.",
	"hold":    "It is held until you release or drop it.",
	"release": "It is released, and tried now.",
	"drop":    "It is dropped, and nobody is told.",
}

// act changes one item, and notes in log and journal that somebody wanted it.
func (p *Page) act(r *http.Request) (view, error) {
	id, err := number64(r.PathValue("item"))
	if err != nil {
		return view{}, err
	}
	it, err := p.Store.Item(r.Context(), id)
	if it == nil {
		return view{}, err
	}
	deed := r.PostFormValue("do")
	outcome, err := p.change(r.Context(), it, deed)
	if err != nil {
		return view{}, err
	}
	p.Log.Info("queue changed on the status page", "do", deed, "item", it.ID, "id", it.Message, "peer", r.RemoteAddr)
	p.Journal.Record(journal.Event{
		Message: it.Message, From: it.Sender.String(), Recipient: it.Recipient.String(), Targets: []string{it.Target.String()},
		Outcome: outcome, By: "status page",
	})
	return view{Go: "/queue?done=" + deed}, nil
}

func (p *Page) change(ctx context.Context, it *store.Item, deed string) (journal.Outcome, error) {
	now, held := p.now(), it.State == store.Held
	switch {
	case deed == "retry":
		return journal.Retried, p.Store.Retry(ctx, it.ID, now)
	case deed == "hold" && !held:
		return journal.Held, p.Store.Hold(ctx, it.ID, now, "held on the status page")
	case deed == "release" && held:
		return journal.Released, p.Store.Retry(ctx, it.ID, now)
	case deed == "drop":
		return journal.Dropped, p.Store.Drop(ctx, it.ID, now)
	case deed == "hold" || deed == "release":
		return "", fmt.Errorf("item %d: %w", it.ID, errState)
	}
	return "", fmt.Errorf("%w: there is no %q", errRequest, cut(deed))
}
