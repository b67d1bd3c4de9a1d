package queue

import (
	"sync"

	"onward/internal/address"
	"onward/internal/store"
)

// maxFailing bounds the domains that a session remembers; beyond, all begin anew.
const maxFailing = 10_000

// A session counts for each domain the messages in a row that could not be
// delivered while their sender waited. From those alone the queue knows that a
// domain is away before it has tried anything itself.
type session struct {
	mu      sync.Mutex
	failing map[address.Domain]int
}

// failed notes that items come from attempts in vain. A domain that did not take
// awayAfter in a row is away.
func (s *session) failed(q *Queue, items []*store.Item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, item := range items {
		if item.Tried == 0 || item.Paused || item.Refused {
			continue
		}
		if s.failing == nil || len(s.failing) >= maxFailing {
			s.failing = map[address.Domain]int{}
		}
		domain := item.Target.Domain
		if s.failing[domain]++; s.failing[domain] >= awayAfter {
			q.away.Store(domain, nil)
		}
	}
}

// took notes that a domain took a message.
func (s *session) took(domain address.Domain) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.failing, domain)
}
