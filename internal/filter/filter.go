// Package filter is what the filters of content that we ask have in common, rspamd
// and milters: what one thinks of a message, and what is written when it has not
// looked at one.
package filter

import (
	"log/slog"
	"sync"
	"time"

	"onward/internal/message"
	"onward/internal/reply"
)

// An Opinion is what a filter thinks of a message. Its zero value accepts.
type Opinion struct {
	Reply *reply.Reply // the refusal, 4xx or 5xx; nil to accept
	Junk  bool         // accepted, but to be marked as doubtful
	Why   string       // who says that, and what it found: one line for our log
}

// Unchecked writes that messages go on without an opinion, once a minute. Its zero
// value is ready, and it is safe for concurrent use.
type Unchecked struct {
	mu    sync.Mutex
	count int // since the last line
	wrote time.Time
}

// Add counts a message that the filter of that name did not look at because of err.
func (u *Unchecked) Add(log *slog.Logger, filter string, env *message.Envelope, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.count++
	if time.Since(u.wrote) < time.Minute {
		return
	}
	log.Warn("a filter did not check a message, it goes on unchecked; start the filter, or take it out of the configuration",
		"id", env.ID, "filter", filter, "unchecked", u.count, "err", reply.Clean(err.Error()))
	u.count, u.wrote = 0, time.Now()
}
