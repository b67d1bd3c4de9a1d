package forward

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"onward/internal/message"
	"onward/internal/reply"
)

// Bounds of the memory of partial deliveries (RELIABILITY.md 2.4).
const (
	memoryTime = 24 * time.Hour
	memorySize = 10_000
)

// A memory remembers which target has a message that its sender was told to
// send again, so that the next try reaches the others only. It forgets at
// memoryTime, beyond memorySize, and at a restart: then a target may get a
// second copy, and none goes without.
//
// Once the sender has a final answer the message is forgotten: the same bytes
// again from it are a new message.
type memory struct {
	mu   sync.Mutex
	said map[key]memo
}

// A key names one copy: the exact bytes, sender, recipient and target, never a
// Message-ID (RELIABILITY 41).
type key [sha256.Size]byte

type memo struct {
	reply *reply.Reply
	until time.Time
}

func (f *Forwarder) key(env *message.Envelope, msg *message.Message, d *delivery) key {
	return sha256.Sum256(fmt.Appendf(nil, "%x\n%s\n%s\n%s", msg.Sum(), env.From, d.recipients[0].Address.Fold(), d.target.Fold()))
}

// remember keeps what a target said, from now on for memoryTime: each retry of
// the sender renews it.
func (m *memory) remember(k key, r *reply.Reply) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.said == nil {
		m.said = map[key]memo{}
	}
	if _, known := m.said[k]; !known && len(m.said) >= memorySize {
		m.evict()
	}
	m.said[k] = memo{r, time.Now().Add(memoryTime)}
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

func (m *memory) recall(k key) (*reply.Reply, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	memo, ok := m.said[k]
	return memo.reply, ok && time.Now().Before(memo.until)
}

func (m *memory) forget(k key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.said, k)
}
