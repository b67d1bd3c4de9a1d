package testmail

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"sync"
	"time"
)

// A Class is what a sender is to the daemon (RELIABILITY.md 2.2).
type Class int

// The classes. The zero Class is none of them.
const (
	Bounceable   Class = iota + 1 // authenticated: may be sent a report
	Unbounceable                  // not authenticated: must never be sent one
	NullSender                    // a bounce itself
)

// String returns the word used in findings.
func (c Class) String() string {
	return [...]string{"unclassed", "bounceable", "unbounceable", "null"}[c]
}

// A Letter is one message in the ledger of those who sent it, with all that
// became of it there.
type Letter struct {
	ID    string // of its Message-ID field, without the brackets
	Class Class
	From  string // of the envelope; empty for the null sender
	Size  int
	Sum   [sha256.Size]byte // of the octets as sent
	Body  [sha256.Size]byte // of what follows the header
	Tries []Try
}

// A Try is one transaction about a letter, as its sender saw it.
type Try struct {
	Recipients []string       // those that RCPT was answered 250 for
	Refused    map[string]int // the others, and what was answered
	Dot        bool           // the final dot was sent, so the daemon may have the message
	Code       int            // of the last answer about all of it; 0 when none came
	Text       string         // of that answer, with code and status
	Ended      time.Time      // when the sender knew; now, unless set
}

// Accepted reports whether the daemon has taken the letter in this try.
func (t Try) Accepted() bool { return t.Dot && t.Code/100 == 2 }

// Unanswered reports whether the sender cannot know what became of this try.
func (t Try) Unanswered() bool { return t.Dot && t.Code == 0 }

// A Ledger is what senders know: which messages they sent and which answers they
// heard. With it go the moments when the daemon was killed. It may be used by
// many at once; the zero value is empty.
type Ledger struct {
	mu      sync.Mutex
	letters map[string]*Letter
	kills   []time.Time
}

// Write enters a letter before its first try.
func (l *Ledger) Write(id string, class Class, from string, octets []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.letters == nil {
		l.letters = make(map[string]*Letter)
	}
	_, body, _ := bytes.Cut(octets, []byte("\r\n\r\n"))
	l.letters[id] = &Letter{ID: id, Class: class, From: from, Size: len(octets), Sum: sha256.Sum256(octets), Body: sha256.Sum256(body)}
}

// Tried enters one try, after its end.
func (l *Ledger) Tried(id string, t Try) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.Ended.IsZero() {
		t.Ended = time.Now()
	}
	letter := l.letters[id]
	letter.Tries = append(letter.Tries, t)
}

// Killed enters that the daemon was killed now.
func (l *Ledger) Killed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kills = append(l.kills, time.Now())
}

// Letters returns all letters, by id.
func (l *Ledger) Letters() map[string]Letter {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]Letter, len(l.letters))
	for id, letter := range l.letters {
		copied := *letter
		copied.Tries = slices.Clone(letter.Tries)
		all[id] = copied
	}
	return all
}

// Kills returns when the daemon was killed.
func (l *Ledger) Kills() []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.kills)
}
