package tlsrpt

import (
	"context"
	"time"
)

// SendDue sends what is due at now, as Run does.
func (c *Collector) SendDue(ctx context.Context, s Settings, now time.Time) { c.send(ctx, s, now) }

// Save writes what has changed, as Run does.
func (c *Collector) Save() { c.save() }

// Targets returns the URIs that reports go to, and "" for none.
func Targets(uris []string) []string {
	var all []string
	for _, t := range targets(uris) {
		all = append(all, t.uri+" "+t.mail.String())
	}
	return all
}

const MaxOctets = maxOctets
