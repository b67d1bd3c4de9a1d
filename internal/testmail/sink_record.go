package testmail

import (
	"context"
	"fmt"
	"time"
)

// Messages returns what has been accepted, in order.
func (s *Sink) Messages() []Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return values(s.deliveries)
}

// Refusals returns the messages that came whole and were not taken, in order.
func (s *Sink) Refusals() []Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return values(s.refusals)
}

// Count returns how many messages have been accepted.
func (s *Sink) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// Wait returns the messages as soon as n have been accepted, or those there are
// with the error of ctx.
func (s *Sink) Wait(ctx context.Context, n int) ([]Delivery, error) {
	if err := s.until(ctx, func() bool { return s.count >= n }); err != nil {
		return s.Messages(), fmt.Errorf("%d of %d messages: %w", s.Count(), n, err)
	}
	return s.Messages(), nil
}

// Settle waits until no session is open: what clients said last is then
// recorded too.
func (s *Sink) Settle(ctx context.Context) error {
	return s.until(ctx, func() bool { return s.open == 0 })
}

// until waits for something that happens under the lock.
func (s *Sink) until(ctx context.Context, happened func() bool) error {
	for {
		s.mu.Lock()
		done, changed := happened(), s.changed
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Commands returns every command line received, "." for each final dot, in the
// order they came.
func (s *Sink) Commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.commands...)
}

// Faults returns what clients did against the protocol, one sentence each.
func (s *Sink) Faults() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.faults...)
}

// Cuts returns the messages that connections ended in.
func (s *Sink) Cuts() []Cut {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Cut(nil), s.cut...)
}

// Sessions returns how many connections were made.
func (s *Sink) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions
}

// heard records one command line.
func (s *Sink) heard(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.forget {
		s.commands = append(s.commands, text)
	}
}

// fault records one breach of the protocol.
func (s *Sink) fault(session int, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, fmt.Sprintf("session %d: ", session)+fmt.Sprintf(format, args...))
}

// left records that a session is over.
func (s *Sink) left() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	s.wake()
}

// wake tells those who wait that something has happened. The lock is held.
func (s *Sink) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// broken records that a connection ended inside a message.
func (s *Sink) broken(data []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = append(s.cut, Cut{data, err})
}

// keep records one message, taken or not.
func (s *Sink) keep(d *Delivery, taken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if taken {
		s.count++
		s.wake()
	}
	switch {
	case s.forget:
	case taken:
		s.deliveries = append(s.deliveries, d)
	default:
		s.refusals = append(s.refusals, d)
	}
}

// answered records about one message that its answer is out, or broke on the way.
func (s *Sink) answered(d *Delivery, out bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.Answered = time.Now()
	d.Unheard = d.Unheard || !out
}

// values copies records, which may still change.
func values(records []*Delivery) []Delivery {
	var copies []Delivery
	for _, d := range records {
		copies = append(copies, *d)
	}
	return copies
}
