package forward

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"onward/internal/reply"
)

// Bounds of the reply cache (RELIABILITY.md 2.4).
const (
	memoryTime = 24 * time.Hour
	memorySize = 10_000
)

// Replies keeps on disk what destinations said. Recall returns nil for what it
// does not have.
type Replies interface {
	Remember(ctx context.Context, key [32]byte, said *reply.Reply, until time.Time) error
	Recall(ctx context.Context, key [32]byte, now time.Time) (*reply.Reply, error)
	Forget(ctx context.Context, key [32]byte) error
}

// A memory is the reply cache (DESIGN.md 9.6): which target has which message, so
// that a sender who tries again brings it no second copy. It forgets at memoryTime
// and beyond memorySize: then a target may get a second copy, and none goes
// without.
//
// What a sender is known to have heard is forgotten at once: the same bytes again
// from it are a new message. So in the normal case nothing stays, and nothing is
// written.
type memory struct {
	mu      sync.Mutex
	said    map[key]memo
	unheard map[string][]key // by message: what to forget once its answer is heard
}

// A key names one copy: the exact bytes, sender, recipient and target, never a
// Message-ID (RELIABILITY 41).
type key = [sha256.Size]byte

type memo struct {
	reply *reply.Reply
	until time.Time
	saved bool        // it is on disk too
	heard func() bool // while the sender is connected: whether the answer reached it
}

func (m *mail) key(d *delivery) key {
	return sha256.Sum256(fmt.Appendf(nil, "%x\n%s\n%s\n%s", m.msg.Sum(), m.env.From, d.recipients[0].Address.Fold(), d.target.Fold()))
}

// recall returns what a target said to this very copy before, or nil.
func (f *Forwarder) recall(ctx context.Context, m *mail, d *delivery) *reply.Reply {
	k := m.key(d)
	if what, known := f.delivered.get(k); known {
		if what.isHeard() {
			return nil // what comes now is a new message
		}
		return what.reply
	}
	said, err := f.Replies.Recall(ctx, k, time.Now())
	if err != nil {
		f.Log.Error("the reply cache cannot be read, a second copy may go out", "id", m.env.ID, "err", err)
	}
	if said != nil {
		f.delivered.put(k, memo{reply: said, until: time.Now().Add(memoryTime), saved: true})
	}
	return said
}

// remember keeps what the targets said until the sender has heard our answer.
func (f *Forwarder) remember(m *mail, done []*delivery) {
	var keys []key
	for _, d := range done {
		k := m.key(d)
		keys = append(keys, k)
		f.delivered.put(k, memo{reply: d.outcome.Reply, until: time.Now().Add(memoryTime), saved: f.delivered.forget(k).saved, heard: m.env.Heard})
	}
	f.delivered.await(m.env.ID, keys)
}

// save keeps on disk what the targets of a message said, since its sender was
// asked to try again, or did not hear our answer and will. Trouble with the disk
// may cost a second copy, and no mail.
func (f *Forwarder) save(ctx context.Context, id string) {
	for _, k := range f.delivered.heard(id) {
		what, known := f.delivered.get(k)
		if !known {
			continue
		}
		if err := f.Replies.Remember(ctx, k, what.reply, time.Now().Add(memoryTime)); err != nil {
			f.Log.Error("the reply cache cannot be written, a second copy may go out", "id", id, "err", err)
			return
		}
		f.delivered.put(k, memo{reply: what.reply, until: time.Now().Add(memoryTime), saved: true})
	}
}

// Answered takes what became of our answer: the sender heard it, and will not
// send the message again, or hung up and may.
func (f *Forwarder) Answered(id string, heard bool) {
	ctx := context.Background()
	if !heard {
		f.save(ctx, id)
		return
	}
	for _, k := range f.delivered.heard(id) {
		if f.delivered.forget(k).saved {
			if err := f.Replies.Forget(ctx, k); err != nil {
				f.Log.Error("the reply cache cannot be written", "id", id, "err", err)
			}
		}
	}
}

func (m *memory) get(k key) (what memo, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	what, ok := m.said[k]
	return what, ok && time.Now().Before(what.until)
}

// isHeard reports whether a sender that is still connected has heard the answer.
// Its machine may take a moment to acknowledge it (RFC 9293 3.8.6.3).
func (m memo) isHeard() bool {
	for wait := 10; m.heard != nil && wait > 0; wait-- {
		if m.heard() {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

func (m *memory) put(k key, what memo) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.said == nil {
		m.said, m.unheard = map[key]memo{}, map[string][]key{}
	}
	if _, known := m.said[k]; !known && len(m.said) >= memorySize {
		m.evict()
	}
	m.said[k] = what
}

// evict makes room: the memo that would end first goes.
func (m *memory) evict() {
	var first key
	var until time.Time
	for k, memo := range m.said {
		if until.IsZero() || memo.until.Before(until) {
			first, until = k, memo.until
		}
	}
	delete(m.said, first)
}

// await notes which copies a message consists of, until its answer is heard.
func (m *memory) await(id string, keys []key) {
	if len(keys) > 0 {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.unheard[id] = keys
	}
}

// heard returns the copies of a message once.
func (m *memory) heard(id string) []key {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := m.unheard[id]
	delete(m.unheard, id)
	return keys
}

func (m *memory) forget(k key) memo {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.said[k]
	delete(m.said, k)
	return old
}
