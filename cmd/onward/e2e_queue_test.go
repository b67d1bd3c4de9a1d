package main_test

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"onward/internal/testmail"
)

// The mailbox is away while mail comes in from senders who could be told later.
// All of it is taken, all of it arrives when the mailbox is back, and memory does
// not grow with the queue.
func TestQueueMailboxAway(t *testing.T) {
	away, rate := 5*time.Second, 100.0
	switch {
	case soaking:
		away, rate = time.Minute, 200
	case raced:
		rate = 40
	}
	s := newTrial(t)
	s.dest.Answer("RCPT", "451 4.3.0 the mailbox is away")
	messages := int(away.Seconds() * rate)
	load := s.load(s.cast.SPF, s.cast.Signed)
	load.Rate, load.Messages, load.Seed = rate, messages, 1
	totals := load.Run(within(t, away+time.Minute))
	t.Logf("mailbox away for %v: %v", away, totals)
	if totals.Accepted != messages {
		t.Errorf("%d of %d accepted", totals.Accepted, messages)
	}
	if n := s.dest.Count(); n != 0 {
		t.Fatalf("%d messages arrived at a mailbox that is away", n)
	}

	back := time.Now()
	s.dest.Answer("RCPT", "250 2.1.5 welcome back")
	if !soaking { // nobody waits for the first attempt out of the queue, after two minutes
		s.hurry(t)
	}
	if _, err := s.dest.Wait(within(t, 5*time.Minute), messages); err != nil {
		t.Errorf("after the mailbox came back: %v", err)
	}
	memory := s.memory(t)
	t.Logf("all delivered %v after it came back; at most %d MB resident", time.Since(back).Round(time.Millisecond), memory>>20)
	if memory > 150<<20 && !raced {
		t.Errorf("%d MB resident, want less than 150", memory>>20)
	}
	audit := s.audit(t)
	t.Log(audit)
	if audit.Delivered != messages || audit.Duplicates != 0 {
		t.Errorf("%d delivered and %d twice, want %d and none", audit.Delivered, audit.Duplicates, messages)
	}
}

// A mailbox that refuses everything makes no bounces: every sender hears it.
func TestQueueMailboxRefuses(t *testing.T) {
	for _, at := range []string{"MAIL", "RCPT", "DATA", "."} {
		t.Run("at "+at, func(t *testing.T) {
			s := newTrial(t)
			for _, sink := range []*testmail.Sink{s.dest, s.other} {
				sink.Answer(at, "550 5.7.1 nothing from anybody")
			}
			load := s.load(s.cast.SPF, s.cast.Signed, s.cast.Forged, s.cast.Null)
			load.Messages = 200
			var once sync.Once // one is enough to read
			load.Heard = func(w *testmail.Writer, id string, try testmail.Try) {
				if !strings.HasPrefix(try.Text, "550 5.7.1 ") || !strings.Contains(try.Text, "nothing from anybody") {
					once.Do(func() { t.Errorf("%s: a %v sender heard %q", id, w.Class, try.Text) })
				}
			}
			totals := load.Run(within(t, time.Minute))
			if totals.Refused != 200 {
				t.Errorf("want 200 refused: %v", totals)
			}
			if n := s.writers.Count(); n > 0 {
				t.Errorf("%d reports", n)
			}
			if audit := s.audit(t); audit.Owed != 0 || audit.Refused != 200 {
				t.Error(audit)
			}
		})
	}
}

// Forged mail that cannot be delivered now stays with whoever sent it.
func TestQueueForgedWhileDown(t *testing.T) {
	for name, down := range map[string]func(*testmail.Sink){
		"nobody listens": (*testmail.Sink).Close,
		"421":            func(sink *testmail.Sink) { sink.Do("CONNECT", testmail.Action{Reply: "421 4.3.2 down", Drop: true}) },
		"451 at the dot": func(sink *testmail.Sink) { sink.Answer(".", "451 4.3.0 not now") },
		"silent after the dot": func(sink *testmail.Sink) {
			sink.Do(".", testmail.Action{Drop: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTrial(t)
			down(s.dest)
			down(s.other)
			load := s.load(s.cast.Forged)
			load.Messages = 100
			load.To = func(*rand.Rand) []string { return []string{"box.1@alias.example", "fan.1@alias.example"} }
			var once sync.Once
			load.Heard = func(_ *testmail.Writer, id string, try testmail.Try) {
				// One recipient a transaction: the other is to come again by itself.
				if try.Code != 451 || len(try.Recipients) != 1 || try.Refused[load.To(nil)[1]] != 452 {
					once.Do(func() { t.Errorf("%s: heard %q for %v, %v", id, try.Text, try.Recipients, try.Refused) })
				}
			}
			if totals := load.Run(within(t, time.Minute)); totals.Deferred != 100 {
				t.Errorf("want 100 deferred: %v", totals)
			}
			audit := s.audit(t)
			if pending, err := testmail.ReadQueue(t.Context(), s.dir+"/state"); len(pending) > 0 || err != nil {
				t.Errorf("%d messages in the queue, %v", len(pending), err)
			}
			if audit.Owed != 0 || s.writers.Count() != 0 {
				t.Errorf("%d reports; %v", s.writers.Count(), audit)
			}
		})
	}
}

// What was taken and cannot be delivered in the end is reported to the senders
// that are really there, by a message that is no bounce's cause, and to nobody
// else.
func TestQueueReports(t *testing.T) {
	s := newTrial(t)
	s.dest.Answer("RCPT", "451 4.3.0 the mailbox is away")
	load := s.load(s.cast.SPF, s.cast.Signed, s.cast.Null)
	load.Messages = 15
	load.To = func(r *rand.Rand) []string { return []string{"box.7@alias.example"} }
	if totals := load.Run(within(t, time.Minute)); totals.Accepted != 15 {
		t.Fatalf("want 15 accepted: %v", totals)
	}
	reportable := 0
	for _, l := range s.ledger.Letters() {
		if l.Class == testmail.Bounceable {
			reportable++
		}
	}
	s.dest.Answer("RCPT", "550 5.1.1 <box7@dest.example>: gone for good")
	s.hurry(t)
	reports, err := s.writers.Wait(within(t, time.Minute), reportable)
	if err != nil {
		t.Errorf("reports: %v", err)
	}
	for _, d := range reports {
		text := string(d.Data)
		for _, want := range []string{"multipart/report", "report-type=delivery-status", "Auto-Submitted: auto-replied", "Final-Recipient: rfc822;", "box.7@alias.example", "5.1.1"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in a report", want)
			}
		}
		if !strings.HasPrefix(d.Mail, "MAIL FROM:<>") {
			t.Errorf("a report under %s", d.Mail)
		}
	}
	audit := s.audit(t)
	t.Log(audit)
	if audit.Reported != reportable || audit.Held != 15-reportable {
		t.Errorf("want %d reported and %d held: %v", reportable, 15-reportable, audit)
	}
}
