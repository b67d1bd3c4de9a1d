package resolver

import (
	"container/list"
	"time"

	"github.com/miekg/dns"
)

// What is remembered, and for how long at most. The server behind us keeps its
// own cache by the full TTL, so a short memory here costs one question on the
// local network, and whoever mends a record is not made to wait for us.
const (
	maxPositive = time.Hour
	maxNegative = 5 * time.Minute // RFC 2308 5 allows up to hours; somebody may be adding that record now
	ofTrouble   = time.Second     // RFC 9520 3.2: at least this long, so that a burst asks once
	cacheOctets = 32 << 20        // estimated memory of everything remembered
)

// A question is what is looked up, name in one spelling.
type question struct {
	name string
	t    Type
}

// A finding is the outcome of one lookup.
type finding struct {
	answer *Answer
	err    error
	expiry time.Time // zero: not to be remembered
	size   int       // estimated octets of memory
}

// lifetime is how long the outcome of a may be remembered.
func (a attempt) lifetime() time.Duration {
	switch {
	case a.err == nil:
		return min(a.ttl, maxPositive)
	case a.knows():
		return min(a.ttl, maxNegative)
	default:
		return ofTrouble
	}
}

// memoryOf estimates the octets that remembering a costs: maps, lists and
// headers, and twice the wire form for records with their escapes.
func memoryOf(q question, a *Answer) int {
	size := 500 + 2*len(q.name)
	if a != nil {
		for _, rr := range a.records {
			size += 150 + 2*dns.Len(rr)
		}
	}
	return size
}

// A cache remembers findings, the least recently used forgotten first. It is
// not safe for concurrent use; Client's mutex guards it.
type cache struct {
	limit   int // octets
	size    int
	entries map[question]*list.Element // of *entry
	recent  *list.List                 // front: used last
}

type entry struct {
	question
	finding
}

func newCache(limit int) *cache {
	return &cache{limit: limit, entries: make(map[question]*list.Element), recent: list.New()}
}

// get returns what is known about q, if that is still good at now.
func (c *cache) get(q question, now time.Time) (finding, bool) {
	el, ok := c.entries[q]
	if !ok {
		return finding{}, false
	}
	e := el.Value.(*entry)
	if !now.Before(e.expiry) {
		c.remove(el)
		return finding{}, false
	}
	c.recent.MoveToFront(el)
	return e.finding, true
}

// put remembers f, and forgets others as long as there is too much.
func (c *cache) put(q question, f finding) {
	if el, ok := c.entries[q]; ok {
		c.remove(el)
	}
	c.entries[q] = c.recent.PushFront(&entry{q, f})
	c.size += f.size
	for c.size > c.limit {
		c.remove(c.recent.Back())
	}
}

func (c *cache) remove(el *list.Element) {
	e := c.recent.Remove(el).(*entry)
	delete(c.entries, e.question)
	c.size -= e.size
}
