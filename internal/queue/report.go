package queue

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"onward/internal/address"
	"onward/internal/dsn"
	"onward/internal/message"
	"onward/internal/reply"
	"onward/internal/smtpclient"
	"onward/internal/store"
)

// Of held mail the postmaster hears once a day. noticeKey is where the time of
// the last notice is kept, in the table that is there for such times.
const (
	noticeEvery = 24 * time.Hour
	noticeKey   = "queue:notice"
	noticeShows = 50
)

// A quota counts the reports of the last hour, so that we are no use for flooding
// anybody (RELIABILITY.md 5).
type quota struct {
	mu   sync.Mutex
	sent []sent
}

type sent struct {
	to address.Mailbox
	at time.Time
}

// take reports whether there may be one more report to a sender now, and counts
// it.
func (q *quota) take(route Route, to address.Mailbox, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sent = slices.DeleteFunc(q.sent, func(s sent) bool { return now.Sub(s.at).Abs() >= time.Hour })
	to = to.Fold()
	toOne := 0
	for _, s := range q.sent {
		if s.to == to {
			toOne++
		}
	}
	if toOne >= route.SenderReports || len(q.sent) >= route.Reports {
		return false
	}
	q.sent = append(q.sent, sent{to, now})
	return true
}

// compose writes the report that an item could not be delivered (N1). The words of
// a destination may name any target of the message, as one may forward to another;
// the sender is to learn none of them (N3).
func compose(route Route, item *store.Item, header []byte, out smtpclient.Outcome, expired bool, now time.Time) ([]*store.Item, []byte, error) {
	id := message.NewID(now)
	mail, err := dsn.Report{
		Hostname: route.Hostname, ID: id, Now: now,
		Sender: item.Sender.Mailbox, Alias: item.Recipient, Also: item.Also, Target: item.Target, Arrived: item.Arrived,
		Expired: expired, Host: out.Host, Reply: hide(item, out.Reply), Said: hide(item, out.Said), Header: header,
	}.Compose()
	if err != nil {
		return nil, nil, fmt.Errorf("report: %w", err)
	}
	return outgoing(route, mail, store.Report, id, item.Sender.Mailbox, item.Sender.Mailbox, now)
}

// hide returns a reply without addresses in the domains of the other targets. The
// item's own is left out by the report.
func hide(item *store.Item, words *reply.Reply) *reply.Reply {
	if words == nil {
		return nil
	}
	hidden := *words
	for _, domain := range item.Private {
		hidden.Text = dsn.Hide(hidden.Text, address.Mailbox{Domain: domain}, item.Recipient)
	}
	return &hidden
}

// outgoing makes items of mail of our own, signed (RELIABILITY 32), with a null
// sender: one for each target.
func outgoing(route Route, mail dsn.Mail, kind store.Kind, id string, to, target address.Mailbox, now time.Time) ([]*store.Item, []byte, error) {
	b := message.NewBuffer("") // it stays in memory
	b.Write(mail.Header)
	b.Write(mail.Rest)
	msg, err := b.Message()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", kind, err)
	}
	signature, err := route.Sign(msg)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", kind, err)
	}
	header := append(signature, mail.Header...)
	targets := []address.Mailbox{target}
	if route.Home != nil {
		targets = route.Home(target)
	}
	var items []*store.Item
	for _, target := range targets {
		items = append(items, &store.Item{
			Message: id, Kind: kind, Recipient: to, Target: target,
			Header: header, Size: int64(len(header) + len(mail.Rest)), EightBit: mail.EightBit, UTF8: mail.UTF8,
			Arrived: now, Expires: now.Add(route.ReportLifetime), Next: now,
		})
	}
	return items, mail.Rest, nil
}

// lastNotice returns when the postmaster was told of held mail.
func (s *schedule) lastNotice(ctx context.Context) (time.Time, error) {
	pauses, err := s.Store.Pauses(ctx)
	for _, p := range pauses {
		if p.Key == noticeKey {
			return p.Until.Add(-noticeEvery), err
		}
	}
	return time.Time{}, err
}

// notify tells the postmaster of held mail, if there is any.
func (s *schedule) notify(ctx context.Context, now time.Time) error {
	stats, err := s.Store.Stats(ctx)
	if err != nil || stats.Held == 0 {
		return err
	}
	held, err := s.Store.Items(ctx, store.Filter{State: store.Held, Limit: noticeShows})
	if err != nil {
		return err
	}
	route := s.Route()
	notice := dsn.Notice{
		Hostname: route.Hostname, ID: message.NewID(now), Now: now, Total: int(stats.Held),
		To: address.Mailbox{Local: "postmaster", Domain: route.Hostname},
	}
	for _, item := range held {
		notice.Held = append(notice.Held, dsn.Held{
			ID: fmt.Sprint(item.ID), Sender: item.Sender, Alias: item.Recipient, Since: item.Arrived, Reason: item.Reason,
		})
	}
	mail, err := notice.Compose()
	if err != nil {
		return err
	}
	items, rest, err := outgoing(route, mail, store.Notice, notice.ID, notice.To, route.Postmaster, now)
	if err == nil && len(items) == 0 {
		err = fmt.Errorf("postmaster %s leads nowhere", route.Postmaster)
	}
	if err != nil {
		return err
	}
	if err := s.Add(ctx, bytes.NewReader(rest), items); err != nil {
		return err
	}
	s.notified = now
	s.Log.Info("postmaster is told of held mail", "id", notice.ID, "to", route.Postmaster, "held", stats.Held)
	return s.Store.SavePause(ctx, store.Pause{Key: noticeKey, Until: now.Add(noticeEvery), Reason: "held mail was told of"})
}
