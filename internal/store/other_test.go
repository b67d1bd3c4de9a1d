package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/reply"
	"onward/internal/store"
)

// TestRescue holds that `onward queue` works beside replies that are damaged, as a
// daemon does not start on them.
func TestRescue(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	id := add(t, s, "a", 100, "ada@example.org")[0].ID
	var page int64
	db := raw(t, dir)
	err := db.QueryRow(`SELECT rootpage FROM sqlite_schema WHERE name = 'reply'`).Scan(&page)
	if err := errors.Join(err, db.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "onward.db"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.WriteAt(make([]byte, 4096), 4096*(page-1))
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err := store.Open(t.Context(), dir, store.Limits{}); err == nil {
		s.Close()
		t.Fatal("it opens: this tests nothing")
	}
	rescue, err := store.Attach(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer rescue.Close()
	if _, err := rescue.Content(t.Context(), item(t, rescue, id)); err != nil {
		t.Error(err)
	}
}

func TestReplies(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	recall := func(key [32]byte, now time.Time) string {
		t.Helper()
		said, err := s.Recall(t.Context(), key, now)
		if err != nil {
			t.Fatal(err)
		}
		if said == nil {
			return ""
		}
		return said.String()
	}
	remember := func(key [32]byte, text string) {
		t.Helper()
		if err := s.Remember(t.Context(), key, reply.New(250, "2.0.0", "%s", text), start.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	a, b := [32]byte{1}, [32]byte{2}
	remember(a, "taken\r\n250 no")
	if recall(a, start) == "" {
		t.Error("not known at once")
	}
	remember(b, "taken too")
	remember(b, "again")
	s.Close()
	s = open(t, dir)
	for _, tt := range []struct {
		key  [32]byte
		now  time.Time
		want string
	}{
		{a, start, "250 2.0.0 taken  250 no"},
		{b, start, "250 2.0.0 again"},
		{b, start.Add(time.Hour), ""},
		{[32]byte{3}, start, ""},
	} {
		if got := recall(tt.key, tt.now); got != tt.want {
			t.Errorf("%x: %q, want %q", tt.key[:1], got, tt.want)
		}
	}
	if err := s.Forget(t.Context(), a); err != nil || recall(a, start) != "" {
		t.Errorf("not forgotten, %v", err)
	}
	const fill = `WITH RECURSIVE n(i) AS (VALUES (100) UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO reply (number, key, code, status, text, until) SELECT i, randomblob(32), 250, '', '', 9223372036854775807 FROM n`
	if _, err := raw(t, dir).Exec(fill, store.MaxReplies+3); err != nil {
		t.Fatal(err)
	}
	remember(a, "last")
	if recall(b, start) != "" || recall(a, start) == "" {
		t.Error("the oldest has not made room")
	}
}

func TestPauses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	save := func(p store.Pause) {
		t.Helper()
		if err := s.SavePause(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	one := store.Pause{Key: "one", Until: start, Step: 2, Reason: "421 slow"}
	save(store.Pause{Key: "one", Until: start.Add(-1), Step: 1, Reason: "x"})
	save(store.Pause{Key: "two", Until: start})
	save(one)
	save(store.Pause{Key: "two"})
	if got, err := open(t, dir).Pauses(t.Context()); err != nil || len(got) != 1 || got[0] != one {
		t.Errorf("pauses %+v, %v", got, err)
	}
	const fill = `WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO pause (key, until, step, reason) SELECT 'k' || i, i, 0, '' FROM n`
	if _, err := raw(t, dir).Exec(fill, store.MaxPauses); err != nil {
		t.Fatal(err)
	}
	save(one)
	got, err := s.Pauses(t.Context())
	if err != nil || len(got) != store.MaxPauses {
		t.Fatalf("%d pauses, %v", len(got), err)
	}
	for _, p := range got {
		if p.Key == "k1" {
			t.Error("the one that ended first has not made room")
		}
	}
}

func TestReplyAddress(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	sales, info := sender(t, "sales@alias.example"), sender(t, "info@alias.example")
	ada, bob := sender(t, "Ada@example.org"), sender(t, `"b b"@example.org`)
	keep := func(token string, alias, author address.Mailbox, now time.Time) string {
		t.Helper()
		kept, err := s.KeepReply(t.Context(), token, alias, author, now)
		if err != nil {
			t.Fatal(err)
		}
		return kept
	}
	for _, tt := range []struct {
		token         string
		alias, author address.Mailbox
		want          string
	}{
		{"a", sales, ada, "a"}, {"b", sales, ada, "a"}, {"c", info, ada, "c"}, {"d", sales, bob, "d"},
	} {
		for _, now := range []time.Time{start, start.Add(48 * time.Hour)} {
			if got := keep(tt.token, tt.alias, tt.author, now); got != tt.want {
				t.Errorf("KeepReply(%s) = %s, want %s", tt.token, got, tt.want)
			}
		}
	}
	if kept, err := s.KeepReply(t.Context(), "a", info, bob, start); err == nil {
		t.Errorf("a token that is taken: %s", kept)
	}
	s.Close()
	s = open(t, dir)
	if alias, author, err := s.Reply(t.Context(), "d", start); alias != sales || author != bob || err != nil {
		t.Errorf("Reply = %v, %v, %v", alias, author, err)
	}
	if alias, author, err := s.Reply(t.Context(), "x", start); alias != (address.Mailbox{}) || author != (address.Mailbox{}) || err != nil {
		t.Errorf("Reply = %v, %v, %v", alias, author, err)
	}
	used := func(token string) (day int) {
		t.Helper()
		if err := raw(t, dir).QueryRow(`SELECT used FROM reply_address WHERE token = ?`, token).Scan(&day); err != nil {
			t.Fatal(err)
		}
		return day
	}
	today := used("a")
	s.Reply(t.Context(), "a", start.Add(24*time.Hour)) // earlier than noted
	if used("a") != today {
		t.Error("a use long ago moves the day back")
	}
	s.Reply(t.Context(), "a", start.Add(72*time.Hour))
	if used("a") != today+1 {
		t.Error("the use was not noted")
	}
}

// What is used stays when there are too many; what was not used for longest goes.
func TestReplyAddressLimit(t *testing.T) {
	const most = 10_000
	defer store.SetMaxReplyAddresses(most)()
	dir := t.TempDir()
	s := open(t, dir)
	alias := sender(t, "a@alias.example")
	const fill = `WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO reply_address (number, token, alias, author, used) SELECT i, 'f' || i, 'a@alias.example', i || '@d.example', 1000 FROM n`
	if _, err := raw(t, dir).Exec(fill, most-1); err != nil {
		t.Fatal(err)
	}
	s.Reply(t.Context(), "f1", start)
	for i := range 3 { // the first has a number that calls for a look
		if _, err := s.KeepReply(t.Context(), fmt.Sprint("new", i), alias, sender(t, fmt.Sprint("new", i, "@d.example")), start); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := raw(t, dir).Exec(`UPDATE reply_address SET number = number + 997 WHERE token = 'new2'`); err != nil { // as if so many came
		t.Fatal(err)
	}
	s.KeepReply(t.Context(), "last", alias, sender(t, "last@d.example"), start)
	for token, want := range map[string]bool{"f1": true, "f2": false, "f4": false, "f5": true, "new0": true, "last": true} {
		if found, _, err := s.Reply(t.Context(), token, start); (found == alias) != want || err != nil {
			t.Errorf("%s: %v, %v; want it there: %v", token, found, err, want)
		}
	}
}

func TestRoom(t *testing.T) {
	for name, tt := range map[string]struct {
		limits store.Limits
		want   error
	}{
		"off":                 {store.Limits{}, nil},
		"one octet":           {store.Limits{Free: 1}, nil},
		"more than there is":  {store.Limits{Free: 1 << 60}, store.ErrNoRoom},
		"a part":              {store.Limits{FreePercent: 1}, nil},
		"all of it":           {store.Limits{FreePercent: 100}, store.ErrNoRoom},
		"all inodes and more": {store.Limits{Free: 1, FreePercent: 101}, store.ErrNoRoom},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := store.Open(t.Context(), t.TempDir(), tt.limits)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			it, rest := letter("m", "ada@example.org", 10)
			if err := s.Add(t.Context(), bytes.NewReader(rest), []*store.Item{it}); !errors.Is(err, tt.want) {
				t.Errorf("Add: %v, want %v", err, tt.want)
			}
			huge := *it
			huge.Size = 1 << 60
			if err := s.Add(t.Context(), bytes.NewReader(rest), []*store.Item{&huge}); tt.limits != (store.Limits{}) && !errors.Is(err, store.ErrNoRoom) {
				t.Errorf("Add of more than the disk has: %v", err)
			}
		})
	}
}
