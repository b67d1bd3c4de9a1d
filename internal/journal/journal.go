// Package journal keeps a record of what happened to each message, for people
// to look up: what was sent to us and what we found, every attempt in the
// destination's own words, what the queue and its owner did.
//
// Rules for a caller:
//   - Record never waits and never fails. Entries are written in batches by one
//     goroutine; when it cannot keep up, or its disk is full, entries are lost
//     and counted. Nothing may depend on an entry being there: the log has a
//     line for each of these events, and the queue is in another database.
//   - Texts may come from strangers: they are cut and cleaned here.
//
// The database is not worth a sync for each batch (synchronous=NORMAL): after a
// power cut the last seconds may be missing, and it is whole all the same. One
// that is damaged is moved aside, and a new one is begun.
package journal

import (
	"embed"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// fileName is the database in the state directory, and damagedName what the
// last one is called that had to be moved aside.
const (
	fileName    = "journal.db"
	damagedName = "journal.db.damaged"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Bounds on what waits to be written, and the pace of writing.
const (
	maxWaiting = 8192                   // entries, of about 1 KB each
	maxBatch   = 500                    // entries in one transaction
	batchTime  = 200 * time.Millisecond // from an entry to its batch
	retryTime  = time.Second            // after trouble
	closeTime  = 10 * time.Second       // for writing what waits when the daemon ends
)

// A Journal takes entries. A nil Journal takes them and forgets them.
type Journal struct {
	dir    string
	limits func() Limits
	log    *slog.Logger

	mu      sync.Mutex
	waiting []Entry
	lost    int   // since the log last said so
	allLost int64 // since the start

	wake   chan struct{} // holds one: something waits
	closed chan struct{}
	ended  chan struct{}
	close  sync.Once
}

// Start begins a journal in a state directory, which need not be usable yet:
// trouble is logged once a minute and does not end it. limits is asked again for every
// pruning. Close the journal to end it.
func Start(dir string, limits func() Limits, log *slog.Logger) *Journal {
	j := &Journal{
		dir: dir, limits: limits, log: log,
		wake: make(chan struct{}, 1), closed: make(chan struct{}), ended: make(chan struct{}),
	}
	go j.run()
	return j
}

// Record gives the journal an entry.
func (j *Journal) Record(e Entry) {
	if j == nil {
		return
	}
	e = e.cut()
	j.mu.Lock()
	if len(j.waiting) < maxWaiting {
		j.waiting = append(j.waiting, e)
	} else {
		j.lost++
		j.allLost++
	}
	first := len(j.waiting) == 1
	j.mu.Unlock()
	if first {
		select {
		case j.wake <- struct{}{}:
		default:
		}
	}
}

// Lost returns how many entries found no room since the start.
func (j *Journal) Lost() int64 {
	if j == nil {
		return 0
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.allLost
}

// Close writes what is waiting and closes the database. What cannot be written
// within ten seconds is lost, which is an error.
func (j *Journal) Close() error {
	if j == nil {
		return nil
	}
	j.close.Do(func() { close(j.closed) })
	select {
	case <-j.ended:
	case <-time.After(closeTime):
		return fmt.Errorf("journal: not everything is written after %v", closeTime)
	}
	if n := len(j.peek(maxWaiting)); n > 0 {
		return fmt.Errorf("journal: %d entries could not be written", n)
	}
	return nil
}

// peek returns at most n of the entries that wait, the oldest first.
func (j *Journal) peek(n int) []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.waiting[:min(n, len(j.waiting))]
}

// drop forgets n entries that are written.
func (j *Journal) drop(n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	clear(j.waiting[:n])
	if j.waiting = j.waiting[n:]; len(j.waiting) == 0 {
		j.waiting = nil
	}
}

// pause waits for d, or less when the journal is closed.
func (j *Journal) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-j.closed:
	}
}

func (j *Journal) isClosed() bool {
	select {
	case <-j.closed:
		return true
	default:
		return false
	}
}
