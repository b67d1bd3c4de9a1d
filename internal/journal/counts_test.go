package journal_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/journal"
	"onward/internal/message"
)

// post is a message at a minute of the day, from and to whom is said.
func post(minute int, from, to string, outcome journal.Outcome) journal.Message {
	m := letter(fmt.Sprintf("%02d", minute), outcome, fine)
	m.Answered = noon.Add(time.Duration(minute) * time.Minute)
	m.From = address.ReversePath{}
	if from != "" {
		m.From = sender(from)
	}
	m.Recipients = []message.Recipient{recipient(to, "ann@dest.example")}
	return m
}

const (
	ada, bob = "ada@sender.example", "bob@shop.example"
	me, shop = "me@alias.example", "shop@alias.example"
)

// TestLines: one line for each recipient of a message, the newest first, a page at
// a time; what onward wrote itself has the line of its last event.
func TestLines(t *testing.T) {
	both := post(4, ada, me, journal.Queued)
	both.Recipients = append(both.Recipients, recipient(shop, "ann@dest.example"))
	r := written(t,
		post(1, ada, me, journal.Rejected), post(2, ada, me, journal.Forwarded), post(3, strings.ToUpper(ada), me, journal.Forwarded), both,
		event("04", "ann@dest.example", journal.Delivered, fine), // of a message that has its line
		post(5, "", me, journal.Forwarded),
		event("RR", "ann@dest.example", journal.Held, none), event("RR", "ann@dest.example", journal.Released, none), event("RR", "ann@dest.example", journal.Delivered, fine),
	)
	for _, tt := range []struct {
		name   string
		filter journal.Filter
		before int64
		want   string
	}{
		{"all", journal.Filter{}, 0, "RR:me:delivered 05:me:forwarded 04:shop:queued:first 04:me:queued 03:me:forwarded 02:me:forwarded 01:me:rejected"},
		{"a page", journal.Filter{Limit: 2}, 0, "RR:me:delivered 05:me:forwarded"},
		{"the next page", journal.Filter{Limit: 2}, 7, "04:shop:queued:first 04:me:queued"},
		{"one alias", journal.Filter{To: shop}, 0, "04:shop:queued:first"},
		{"an ID", journal.Filter{Text: "03"}, 0, "03:me:forwarded"},
		{"the subject", journal.Filter{Text: "a letter", To: shop}, 0, "04:shop:queued:first"},
		{"nothing", journal.Filter{Text: "%"}, 0, ""},
	} {
		lines, err := r.Lines(t.Context(), tt.filter, tt.before)
		must(t, err)
		var got []string
		for _, l := range lines {
			local, _, _ := strings.Cut(l.Recipient, "@")
			word := l.Message + ":" + local + ":" + string(l.Outcome)
			if l.First {
				word += ":first"
			}
			got = append(got, word)
			if ours := l.Message == "RR"; ours != (l.Subject == "") || ours != (l.Size == 0) {
				t.Errorf("%s: %s has subject %q and %d octets", tt.name, l.Message, l.Subject, l.Size)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.name, strings.Join(got, " "), tt.want)
		}
	}
	if s, err := r.Subject(t.Context(), "04"); s != "a letter" || err != nil {
		t.Errorf("subject %q, %v", s, err)
	}
	if s, err := r.Subject(t.Context(), "RR"); s != "" || err != nil {
		t.Errorf("subject %q, %v", s, err)
	}
}

func TestHours(t *testing.T) {
	r := written(t, post(0, ada, me, journal.Forwarded), post(59, ada, me, journal.Forwarded), post(58, ada, me, journal.Rejected), post(60, ada, me, journal.Queued),
		event("60", "ann@dest.example", journal.Delivered, fine))
	hour := noon.Add(time.Hour)
	for since, want := range map[time.Time][]journal.Hour{
		noon:                           {{noon, journal.Forwarded, 2}, {noon, journal.Rejected, 1}, {hour, journal.Queued, 1}},
		noon.Add(time.Minute):          {{noon, journal.Forwarded, 1}, {noon, journal.Rejected, 1}, {hour, journal.Queued, 1}},
		noon.Add(61 * time.Minute):     nil,
		noon.Add(-24 * 30 * time.Hour): {{noon, journal.Forwarded, 2}, {noon, journal.Rejected, 1}, {hour, journal.Queued, 1}},
	} {
		if got, err := r.Hours(t.Context(), since); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("since %v: %v, %v; want %v", since, got, err, want)
		}
	}
}

// TestUses: what an address received counts, what was refused does not, whatever
// the case it was written in.
func TestUses(t *testing.T) {
	at := func(minute int) time.Time { return noon.Add(time.Duration(minute) * time.Minute) }
	r := written(t,
		post(1, ada, me, journal.Forwarded), post(2, ada, "ME@alias.example", journal.Queued), post(3, bob, me, journal.Discarded), post(4, bob, me, journal.Rejected),
		post(5, ada, "nobody@alias.example", journal.Rejected), post(6, "", "SRS0=abcd=xy=sender.example=ada@alias.example", journal.Forwarded),
		post(7, bob, shop, journal.Forwarded), post(8, bob, shop, journal.Forwarded),
		event("07", "ann@dest.example", journal.Delivered, fine), post(9, "", "bounces@alias.example", journal.Forwarded),
	)
	want := []journal.Use{
		{"bounces@alias.example", 1, 1, at(9), "", false},
		{shop, 2, 1, at(8), bob, false},
		{me, 3, 2, at(3), bob, true},
	}
	got, err := r.Uses(t.Context(), 10, 0)
	must(t, err)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if got, err := r.Uses(t.Context(), 1, 1); err != nil || !reflect.DeepEqual(got, want[1:2]) {
		t.Errorf("second page: %+v, %v", got, err)
	}
	pairs := map[string][]journal.Pair{
		"shop.example":     {{bob, shop, 2, at(7), at(8)}, {bob, me, 1, at(3), at(3)}},
		ada:                {{ada, "ME@alias.example", 2, at(1), at(2)}},
		"Me@Alias.Example": {{bob, me, 1, at(3), at(3)}, {ada, "ME@alias.example", 2, at(1), at(2)}},
		"nobody":           nil,
		"%":                nil,
		"' OR 1 --":        nil,
	}
	for text, want := range pairs {
		if got, err := r.Pairs(t.Context(), text, 10); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("pairs of %s: %+v, %v\nwant %+v", text, got, err, want)
		}
	}
	all := []string{"never@alias.example", "Shop@alias.example", "nobody@alias.example", "'@alias.example"}
	if got, err := r.Unused(t.Context(), all, 10); err != nil || !reflect.DeepEqual(got, []string{all[0], all[2], all[3]}) {
		t.Errorf("unused %v, %v", got, err)
	}
	if got, err := r.Unused(t.Context(), all, 1); err != nil || !reflect.DeepEqual(got, all[:1]) {
		t.Errorf("unused %v, %v", got, err)
	}
	if got, err := r.Unused(t.Context(), nil, 10); err != nil || got != nil {
		t.Errorf("none of none: %v, %v", got, err)
	}
}
