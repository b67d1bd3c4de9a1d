package journal_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/journal"
	"onward/internal/message"
)

func quiet(dir string) *journal.Journal {
	return journal.Start(dir, unlimited, slog.New(slog.NewTextHandler(io.Discard, nil)))
}

// BenchmarkRecord is what a caller waits for: a message with its verdict. "busy"
// is beside a writer that takes a processor, "full" when it has no room.
func BenchmarkRecord(b *testing.B) {
	m := letter("01KB0S8EPVWC0123456789ABCD", journal.Forwarded, fine)
	b.Run("full", func(b *testing.B) {
		j := quiet(b.TempDir() + "/nowhere")
		defer j.Close()
		b.ReportAllocs()
		for b.Loop() {
			j.Record(m)
		}
	})
	b.Run("busy", func(b *testing.B) {
		j := quiet(b.TempDir())
		defer j.Close()
		b.ReportAllocs()
		for b.Loop() {
			j.Record(m)
		}
	})
}

// BenchmarkWrite is how fast the writer is: an attempt and a message, as they
// are written for each message that is forwarded.
func BenchmarkWrite(b *testing.B) {
	j := quiet(b.TempDir())
	last := 0
	for n := 0; b.Loop(); n++ {
		fill(b, j, n, 1)
		last = n
	}
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(last+1)/b.Elapsed().Seconds(), "messages/s")
}

// fill records n messages to one of 1000 aliases from one of 10,000 senders,
// no faster than they are written.
func fill(b *testing.B, j *journal.Journal, from, n int) {
	for i := from; i < from+n; i++ {
		at := noon.Add(time.Duration(i) * time.Second)
		id := fmt.Sprintf("01KB%022d", i)
		a, m := try(id, "ann@dest.example", "delivered", fine), letter(id, journal.Forwarded, fine)
		a.Began, m.Arrived, m.Answered = at, at, at
		m.From = address.ReversePath{Mailbox: address.Mailbox{Local: fmt.Sprintf("sender%d", i%10_000), Domain: "sender.example"}}
		m.Recipients = []message.Recipient{{Address: address.Mailbox{Local: fmt.Sprintf("alias%d", i%1000), Domain: "alias.example"}, Targets: m.Recipients[0].Targets}}
		for _, e := range []journal.Entry{a, m} {
			for !j.RecordWaiting(e) {
				time.Sleep(time.Millisecond)
			}
		}
	}
}

// BenchmarkQuery looks things up among a million messages.
func BenchmarkQuery(b *testing.B) {
	dir := b.TempDir()
	j := quiet(dir)
	fill(b, j, 0, 1_000_000)
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(dir + "/journal.db")
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%d MiB", info.Size()>>20)
	end := noon.Add(1_000_000 * time.Second)
	r, err := journal.OpenReader(context.Background(), dir)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for _, q := range []struct {
		name   string
		filter journal.Filter
	}{
		{"newest", journal.Filter{Limit: 50}},
		{"last hour", journal.Filter{Since: end.Add(-time.Hour)}},
		{"a day long ago", journal.Filter{Since: noon, Until: noon.Add(24 * time.Hour), Limit: 50}},
		{"one alias", journal.Filter{To: "alias77@alias.example", Limit: 50}},
		{"alias never used", journal.Filter{To: "never@alias.example", Limit: 50}},
		{"sender", journal.Filter{From: "sender7777@sender.example", Limit: 50}},
		{"part of a sender, often", journal.Filter{From: "sender7", Limit: 50}},
		{"part of a sender, never", journal.Filter{From: "nobody", Limit: 50}},
		{"text, never", journal.Filter{Text: "no such words", Limit: 50}},
	} {
		b.Run(q.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := r.Newest(context.Background(), q.filter); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("follow", func(b *testing.B) {
		last, err := r.Last(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := r.After(context.Background(), last-10, journal.Filter{To: "alias77@alias.example"}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("story", func(b *testing.B) {
		for b.Loop() {
			if _, err := r.Story(context.Background(), fmt.Sprintf("01KB%022d", 123_456)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
