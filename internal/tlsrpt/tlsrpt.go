// Package tlsrpt tells the owners of domains how TLS with their mail hosts went
// (RFC 8460). It counts sessions day by day, and when a day (UTC) is over sends
// those domains that ask for it, by "_smtp._tls", one report each.
//
// What is counted is kept in one file a day and written every few minutes: a
// crash loses the last ones, a restart nothing. These are statistics; nothing
// waits for them.
package tlsrpt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"onward/internal/address"
	"onward/internal/resolver"
	"onward/internal/tlspolicy"
	"onward/internal/webclient"
)

const (
	saveEvery  = 5 * time.Minute
	retryEvery = time.Hour      // a report that could not be sent
	retryFor   = 24 * time.Hour // from the first attempt (RFC 8460 5.5)
)

// A Collector counts sessions. It outlives reloads of the configuration, and is
// safe for concurrent use.
type Collector struct {
	dir string
	log *slog.Logger

	mu   sync.Mutex
	days map[time.Time]*day // by their start
}

// Settings is how reports are sent.
type Settings struct {
	Resolver  resolver.Resolver
	Web       *webclient.Client // for "rua=https:"
	Submitter address.Domain    // our name
	From      address.Mailbox   // author, and contact for questions

	// Send takes charge of a report by mail, for "rua=mailto:". When it returns
	// an error it is asked again, for a day. Without Send no report is sent in
	// any way, and what is counted is given up.
	Send func(context.Context, *Mail) error
}

// Open reads what was counted before from dir, which is made when it is not
// there.
func Open(dir string, log *slog.Logger) (*Collector, error) {
	c := &Collector{dir: dir, log: log, days: map[time.Time]*day{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("TLS reports: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("TLS reports: %w", err)
	}
	for _, file := range files {
		path := filepath.Join(dir, file.Name())
		d, err := read(path)
		if err == nil {
			c.days[d.Start] = d
			continue
		}
		log.Warn("TLS report data given up", "file", path, "err", err)
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("TLS reports: %w", err)
		}
	}
	return c, nil
}

// Note counts one session, or one host that was skipped.
func (c *Collector) Note(s tlspolicy.Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	start := time.Now().UTC().Truncate(24 * time.Hour)
	d := c.days[start]
	if d == nil {
		d = &day{Start: start, Domains: map[string]*domain{}}
		c.days[start] = d
	}
	d.note(s)
}

// Run writes what is counted and sends what is due, until ctx ends; then it
// writes once more. settings is asked each time.
func (c *Collector) Run(ctx context.Context, settings func() Settings) {
	ticker := time.NewTicker(saveEvery)
	defer ticker.Stop()
	var next time.Time
	for {
		select {
		case <-ctx.Done():
			c.save()
			return
		case now := <-ticker.C:
			if !now.Before(next) {
				next = now.Add(retryEvery)
				c.send(ctx, settings(), now)
			}
			c.save()
		}
	}
}

// save writes the days that have changed.
func (c *Collector) save() {
	c.mu.Lock()
	days := slices.Collect(maps.Values(c.days))
	c.mu.Unlock()
	for _, d := range days {
		if err := c.saveDay(d); err != nil {
			c.log.Error("TLS report data not written", "day", d.Start.Format(time.DateOnly), "err", err)
		}
	}
}

// saveDay writes one day. One whose reports are all sent has no file.
func (c *Collector) saveDay(d *day) error {
	c.mu.Lock()
	if d.saved {
		c.mu.Unlock()
		return nil
	}
	done := len(d.Domains) == 0
	data, err := json.Marshal(d)
	d.saved = true
	if done {
		delete(c.days, d.Start)
	}
	c.mu.Unlock()
	if err == nil && !done {
		err = write(d.path(c.dir), data)
	} else if err == nil {
		if err = os.Remove(d.path(c.dir)); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		c.mu.Lock()
		d.saved = false
		c.mu.Unlock()
	}
	return err
}

// send sends the reports of all days that are over long enough, and gives up
// those of days that are over too long.
func (c *Collector) send(ctx context.Context, s Settings, now time.Time) {
	c.mu.Lock()
	days := slices.SortedFunc(maps.Values(c.days), func(a, b *day) int { return a.Start.Compare(b.Start) })
	c.mu.Unlock()
	for _, d := range days {
		due := d.Start.Add(24*time.Hour + delay(s.Submitter))
		switch {
		case now.Before(due):
		case s.Send == nil || now.After(due.Add(retryFor)):
			c.forget(d)
		default:
			c.sendDay(ctx, s, d)
		}
	}
}

// delay is how long after midnight we send, one to five hours: not everybody is
// to do so at once (RFC 8460 4.1).
func delay(submitter address.Domain) time.Duration {
	h := fnv.New32a()
	h.Write([]byte(submitter))
	return time.Hour + time.Duration(h.Sum32()%(4*3600))*time.Second
}

// forget gives up what was counted on a day.
func (c *Collector) forget(d *day) {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(d.Domains)
	d.saved = false
}

// sendDay sends the reports of one day that are not sent yet. The day is over:
// nobody else changes it.
func (c *Collector) sendDay(ctx context.Context, s Settings, d *day) {
	for _, name := range slices.Sorted(maps.Keys(d.Domains)) {
		if ctx.Err() != nil {
			return
		}
		sent, err := c.sendDomain(ctx, s, d, name)
		if err != nil {
			c.log.Warn("TLS report not sent", "domain", name, "err", err)
		}
		c.mu.Lock()
		d.saved = false
		if err == nil {
			delete(d.Domains, name)
		}
		c.mu.Unlock()
		if sent { // a crash shall not send it again
			if err := c.saveDay(d); err != nil {
				c.log.Error("TLS report data not written", "day", d.Start.Format(time.DateOnly), "err", err)
			}
		}
	}
}

// sendDomain sends the report about one domain to all who want it and have not
// got it. It reports whether it sent any; without an error all is done.
func (c *Collector) sendDomain(ctx context.Context, s Settings, d *day, name string) (sent bool, err error) {
	answer, err := s.Resolver.Lookup(ctx, "_smtp._tls."+name, resolver.TypeTXT)
	if errors.Is(err, resolver.ErrTemporary) {
		return false, err
	}
	if err != nil {
		return false, nil // no reports are wanted
	}
	uris, err := ParseRecord(answer.TXT())
	if err != nil {
		return false, nil
	}
	about := d.Domains[name]
	r := newReport(name, d.Start, about.Policies, s)
	data, err := r.compressed()
	if err != nil {
		return false, err
	}
	var trouble error
	for _, t := range targets(uris) {
		if slices.Contains(about.Sent, t.uri) {
			continue
		}
		if err := r.deliver(ctx, s, t, data); err != nil {
			trouble = errors.Join(trouble, fmt.Errorf("%s: %w", t.uri, err))
			continue
		}
		c.mu.Lock()
		about.Sent = append(about.Sent, t.uri)
		c.mu.Unlock()
		c.log.Info("TLS report sent", "domain", name, "to", t.uri)
		sent = true
	}
	return sent, trouble
}

// deliver brings a compressed report to one place.
func (r *report) deliver(ctx context.Context, s Settings, t target, data []byte) error {
	if t.mail != (address.Mailbox{}) {
		return s.Send(ctx, r.mail(data, s, t.mail))
	}
	resp, err := s.Web.Post(ctx, t.uri, "application/tlsrpt+gzip", data, 64<<10)
	if err != nil {
		return err
	}
	if resp.Status/100 != 2 {
		return fmt.Errorf("status %d", resp.Status)
	}
	return nil
}
