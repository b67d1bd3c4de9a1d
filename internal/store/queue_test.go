package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/store"
)

const minute = time.Minute

// add queues one message for targets and returns its items.
func add(t testing.TB, s *store.Store, name string, size int, targets ...string) []*store.Item {
	t.Helper()
	var items []*store.Item
	var rest []byte
	for _, target := range targets {
		item, r := letter(name, target, size)
		items, rest = append(items, item), r
	}
	if err := s.Add(t.Context(), bytes.NewReader(rest), items); err != nil {
		t.Fatal(err)
	}
	return items
}

func begin(t *testing.T, s *store.Store, item *store.Item, now time.Time, owner string) bool {
	t.Helper()
	ok, err := s.Begin(t.Context(), item, now, store.Lease{Owner: owner, Until: now.Add(10 * minute), Next: now.Add(2 * minute)})
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func due(t *testing.T, s *store.Store, domain address.Domain, now time.Time) []*store.Item {
	t.Helper()
	items, err := s.Due(t.Context(), domain, now, 100)
	if err != nil {
		t.Fatal(err)
	}
	return items
}

// destinations puts those due at now on one line.
func destinations(t *testing.T, s *store.Store, now time.Time) string {
	t.Helper()
	found, err := s.Destinations(t.Context(), now, 100)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range found {
		names = append(names, fmt.Sprintf("%s%+d", d.Domain, int(d.Due.Sub(start).Minutes())))
	}
	return strings.Join(names, " ")
}

func item(t *testing.T, s *store.Store, id int64) *store.Item {
	t.Helper()
	i, err := s.Item(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// read returns the bytes of an item.
func read(t *testing.T, s *store.Store, i *store.Item) (header, rest []byte, err error) {
	t.Helper()
	c, err := s.Content(t.Context(), i)
	if err != nil {
		return nil, nil, err
	}
	rest, err = io.ReadAll(c.Rest(t.Context()))
	return c.Header, rest, err
}

// What goes in comes out, also in another process: every field, and the bytes,
// for rests of every size around that of a piece.
func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir), open(t, dir)
	const piece = 256 << 10
	for _, size := range []int{0, 1, 2000, piece - 1, piece, piece + 1, 3 * piece, 3*piece + 17} {
		put := add(t, s, fmt.Sprint("size", size), size, "ada@example.org", "bob@example.net")
		for _, want := range put {
			got := item(t, other, want.ID)
			header, rest, err := read(t, other, got)
			if err != nil || !bytes.Equal(header, want.Header) {
				t.Errorf("size %d: header %q, %v", size, header, err)
			}
			_, wantRest := letter(want.Message, "x@example.org", size)
			if !bytes.Equal(rest, wantRest) {
				t.Errorf("size %d: %d octets of rest", size, len(rest))
			}
		}
	}
	from := address.ReversePath{Mailbox: sender(t, `"a b"@example.org`)}
	want := store.Item{
		Message: "M", Kind: store.Report, Sender: address.ReversePath{}, Bounceable: true, From: from,
		Recipient: address.Mailbox{Local: "Postmaster"}, Target: sender(t, "jürgen@example.org"), Header: []byte("A: b\r\n"), Size: 6,
		EightBit: true, UTF8: true, Arrived: start, Expires: start.Add(time.Hour), State: store.Held, Reason: "why", Refused: true, Attempts: 3, Tried: 2, Unfinished: 1,
		Next: start.Add(time.Microsecond), Owner: "o", Until: start.Add(minute), Host: "mx", Said: "no", Paused: true,
	}
	put := want
	if err := s.Add(t.Context(), strings.NewReader(""), []*store.Item{&put}); err != nil {
		t.Fatal(err)
	}
	want.ID, want.Header = put.ID, nil
	if got := item(t, other, put.ID); fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", asRead(want, got)) {
		t.Errorf("item\n%+v, want\n%+v", *got, want)
	}
}

// asRead gives want what is not exported of got.
func asRead(want store.Item, got *store.Item) store.Item {
	i := *got
	i.ID, i.Message, i.Kind, i.Sender, i.Bounceable, i.From, i.Recipient, i.Target = want.ID, want.Message, want.Kind, want.Sender, want.Bounceable, want.From, want.Recipient, want.Target
	i.Size, i.EightBit, i.UTF8, i.Arrived, i.Expires, i.State, i.Reason, i.Refused = want.Size, want.EightBit, want.UTF8, want.Arrived, want.Expires, want.State, want.Reason, want.Refused
	i.Attempts, i.Tried, i.Unfinished, i.Next, i.Owner, i.Until, i.Host, i.Said, i.Paused = want.Attempts, want.Tried, want.Unfinished, want.Next, want.Owner, want.Until, want.Host, want.Said, want.Paused
	return i
}

// A message whose temp file was cut short, or cannot be read, is not queued.
func TestAddRefuses(t *testing.T) {
	s := open(t, t.TempDir())
	it, rest := letter("m", "ada@example.org", 1000)
	if err := s.Add(t.Context(), bytes.NewReader(rest[:999]), []*store.Item{it}); err == nil {
		t.Error("too short: added")
	}
	if err := s.Add(t.Context(), bytes.NewReader(append(rest, 'x')), []*store.Item{it}); err == nil {
		t.Error("too long: added")
	}
	large, rest := letter("m", "ada@example.org", 300<<10)
	broken := io.MultiReader(bytes.NewReader(rest[:270<<10]), errReader{})
	if err := s.Add(t.Context(), broken, []*store.Item{large}); !errors.Is(err, errBroken) {
		t.Errorf("broken: %v", err)
	}
	if all, err := s.Items(t.Context(), store.Filter{}); err != nil || len(all) != 0 {
		t.Errorf("items %v, %v", all, err)
	}
}

var errBroken = errors.New("broken")

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errBroken }

func TestLimits(t *testing.T) {
	s, err := store.Open(t.Context(), t.TempDir(), store.Limits{Items: 3, Bytes: 5000})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put := func(size int, targets ...string) error {
		var items []*store.Item
		var rest []byte
		for _, target := range targets {
			it, r := letter("m", target, size)
			items, rest = append(items, it), r
		}
		return s.Add(t.Context(), bytes.NewReader(rest), items)
	}
	for _, tt := range []struct {
		size    int
		targets []string
		full    bool
	}{
		{5000, []string{"a@example.org"}, true},
		{4900, []string{"a@example.org"}, false},
		{200, []string{"a@example.org"}, true},
		{0, []string{"a@example.org", "b@example.org", "c@example.org"}, true},
		{0, []string{"a@example.org", "b@example.org"}, false},
		{0, []string{"a@example.org"}, true},
	} {
		if err := put(tt.size, tt.targets...); errors.Is(err, store.ErrFull) != tt.full || (err != nil) != tt.full {
			t.Errorf("%d octets for %d: %v", tt.size, len(tt.targets), err)
		}
	}
	first, err := s.Items(t.Context(), store.Filter{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	begin(t, s, first[0], start, "me")
	report, rest := letter("r", "ada@example.org", 9000)
	if err := s.Finish(t.Context(), first[0], []*store.Item{report}, bytes.NewReader(rest)); err != nil {
		t.Errorf("a report is refused for want of room: %v", err)
	}
}

// Two workers never have one item at the same time, and who was too slow can
// change nothing any more.
func TestLease(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, dir), open(t, dir)
	id := add(t, a, "m", 10, "ada@example.org")[0].ID
	mine, theirs := due(t, a, "example.org", start)[0], due(t, b, "example.org", start)[0]
	if !begin(t, a, mine, start, "a") || begin(t, b, theirs, start, "b") {
		t.Fatal("both have it, or none")
	}
	if got := item(t, b, id); got.Attempts != 1 || got.Unfinished != 1 || got.Owner != "a" || !got.Next.Equal(start.Add(2*minute)) {
		t.Errorf("begun: %+v", got)
	}
	if len(due(t, b, "example.org", start.Add(9*minute))) != 0 {
		t.Error("due while somebody has it")
	}
	if begin(t, b, item(t, b, id), start.Add(9*minute), "b") {
		t.Error("begun while somebody has it")
	}
	for name, err := range map[string]error{
		"Hold": b.Hold(t.Context(), id, start, "x"), "Retry": b.Retry(t.Context(), id, start), "Drop": b.Drop(t.Context(), id, start),
	} {
		if !errors.Is(err, store.ErrBusy) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := a.Extend(t.Context(), mine, start.Add(12*minute)); err != nil {
		t.Fatal(err)
	}
	if len(due(t, b, "example.org", start.Add(11*minute))) != 0 {
		t.Error("due while somebody has it, extended")
	}

	theirs = due(t, b, "example.org", start.Add(13*minute))[0]
	if !begin(t, b, theirs, start.Add(13*minute), "b") {
		t.Fatal("nobody has it")
	}
	for name, err := range map[string]error{
		"Extend":   a.Extend(t.Context(), mine, start.Add(time.Hour)),
		"Finish":   a.Finish(t.Context(), mine, nil, nil),
		"Postpone": a.Postpone(t.Context(), mine, store.Attempt{}),
		"SetAside": a.SetAside(t.Context(), mine, "x", store.Attempt{}),
	} {
		if !errors.Is(err, store.ErrLost) {
			t.Errorf("%s of the slow one: %v", name, err)
		}
	}
	if got := item(t, a, id); got.Attempts != 2 || got.Unfinished != 2 || got.Owner != "b" {
		t.Errorf("begun twice: %+v", got)
	}
	if err := b.Finish(t.Context(), theirs, nil, nil); err != nil {
		t.Error(err)
	}
	if err := b.Finish(t.Context(), theirs, nil, nil); !errors.Is(err, store.ErrLost) {
		t.Errorf("finished twice: %v", err)
	}
	if _, err := a.Item(t.Context(), id); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	checkTotals(t, dir)
}

// What died with its worker is due again at its next time, and counts as an
// attempt that was not finished.
func TestFreeLeases(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	items := add(t, s, "m", 10, "ada@example.org", "bob@example.net")
	begin(t, s, items[0], start, "me")
	begin(t, s, items[1], start, "other")
	s.Close()
	s = open(t, dir)
	if err := s.FreeLeases(t.Context(), "me"); err != nil {
		t.Fatal(err)
	}
	if got := destinations(t, s, start.Add(time.Hour)); got != "example.org+2 example.net+10" {
		t.Errorf("due: %s", got)
	}
	if got := due(t, s, "example.org", start.Add(2*minute)); len(got) != 1 || got[0].Unfinished != 1 || got[0].Attempts != 1 {
		t.Errorf("due: %v", got)
	}
	checkTotals(t, dir)
}

func TestDestinations(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for i, domain := range []string{"c.example", "a.example", "b.example", "a.example"} {
		it, rest := letter(fmt.Sprint(i), "x@"+domain, 10)
		it.Next = start.Add(time.Duration(i) * minute)
		if err := s.Add(t.Context(), bytes.NewReader(rest), []*store.Item{it}); err != nil {
			t.Fatal(err)
		}
	}
	if got := destinations(t, s, start.Add(time.Hour)); got != "c.example+0 a.example+1 b.example+2" {
		t.Error(got)
	}
	if got := destinations(t, s, start.Add(1*minute)); got != "c.example+0 a.example+1" {
		t.Error(got)
	}
	if found, err := s.Destinations(t.Context(), start.Add(time.Hour), 1); err != nil || len(found) != 1 || found[0].Domain != "c.example" {
		t.Error(found, err)
	}
	first := due(t, s, "a.example", start.Add(time.Hour))
	if len(first) != 2 || first[0].Message != "1" || first[1].Message != "3" {
		t.Errorf("due %v", first)
	}
	begin(t, s, first[0], start, "me")
	if got := destinations(t, s, start.Add(5*minute)); got != "c.example+0 b.example+2 a.example+3" {
		t.Error(got)
	}
	if err := s.Postpone(t.Context(), first[0], store.Attempt{Next: start.Add(30 * minute), Tried: true, Host: "mx\r\n", Said: "451 \x1b later"}); err != nil {
		t.Fatal(err)
	}
	if got := item(t, s, first[0].ID); got.Tried != 1 || got.Unfinished != 0 || got.Owner != "" || !got.Until.IsZero() || got.Host != "mx  " || got.Said != "451 ? later" {
		t.Errorf("postponed: %+v", got)
	}
	if err := s.ClampNext(t.Context(), start.Add(20*minute)); err != nil {
		t.Fatal(err)
	}
	if got := item(t, s, first[0].ID); !got.Next.Equal(start.Add(20 * minute)) {
		t.Errorf("clamped: %v", got.Next)
	}
	checkTotals(t, dir)
}

// Wake brings forward what waits, in order, but not what is paused or tried.
func TestWake(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for i := range 5 {
		it := add(t, s, fmt.Sprint(i), 10, "x@example.org")[0]
		begin(t, s, it, start, "me")
		if i == 4 {
			continue
		}
		if err := s.Postpone(t.Context(), it, store.Attempt{Next: start.Add(time.Hour + time.Duration(i)*minute), Paused: i == 1}); err != nil {
			t.Fatal(err)
		}
	}
	now := start.Add(minute)
	for _, tt := range []struct {
		limit int
		woken int64
		due   string
	}{{1, 1, "0"}, {1, 1, "0 2"}, {10, 1, "0 2 3"}, {10, 0, "0 2 3"}} {
		woken, err := s.Wake(t.Context(), "example.org", now, tt.limit)
		var names []string
		for _, it := range due(t, s, "example.org", now) {
			names = append(names, it.Message)
		}
		if got := strings.Join(names, " "); err != nil || woken != tt.woken || got != tt.due {
			t.Errorf("woken %d, %v, due %s; want %d, %s", woken, err, got, tt.woken, tt.due)
		}
	}
	checkTotals(t, dir)
}

func TestOperator(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	a := add(t, s, "a", 100, "ada@example.org", "ada@example.net")
	b := add(t, s, "b", 200, "bob@example.org")
	if err := s.Hold(t.Context(), a[0].ID, start, "because"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		filter store.Filter
		want   []int64
	}{
		{store.Filter{}, []int64{a[0].ID, a[1].ID, b[0].ID}},
		{store.Filter{Limit: 2}, []int64{a[0].ID, a[1].ID}},
		{store.Filter{After: a[1].ID}, []int64{b[0].ID}},
		{store.Filter{Message: "a"}, []int64{a[0].ID, a[1].ID}},
		{store.Filter{Domain: "example.org"}, []int64{a[0].ID, b[0].ID}},
		{store.Filter{State: store.Held}, []int64{a[0].ID}},
		{store.Filter{State: store.Waiting, Message: "a"}, []int64{a[1].ID}},
		{store.Filter{Domain: "' OR 1=1 --"}, nil},
	} {
		got, err := s.Items(t.Context(), tt.filter)
		var ids []int64
		for _, i := range got {
			ids = append(ids, i.ID)
		}
		if err != nil || !slices.Equal(ids, tt.want) {
			t.Errorf("%+v: %v, %v; want %v", tt.filter, ids, err, tt.want)
		}
	}
	stats, err := s.Stats(t.Context())
	if want := (store.Stats{Waiting: 2, Held: 1, Bytes: a[0].Size + int64(len(a[1].Header)) + b[0].Size, Oldest: start}); err != nil || stats != want {
		t.Errorf("stats %+v, %v; want %+v", stats, err, want)
	}
	if got := item(t, s, a[0].ID); got.State != store.Held || got.Reason != "because" || len(due(t, s, "example.org", start)) != 1 {
		t.Errorf("held: %+v", got)
	}
	if err := s.Retry(t.Context(), a[0].ID, start.Add(minute)); err != nil {
		t.Fatal(err)
	}
	if got := item(t, s, a[0].ID); got.State != store.Waiting || got.Reason != "" || !got.Next.Equal(start.Add(minute)) {
		t.Errorf("released: %+v", got)
	}
	tried := due(t, s, "example.org", start.Add(minute))[0]
	if !begin(t, s, tried, start.Add(minute), "x") {
		t.Fatal("not begun")
	}
	if err := s.Postpone(t.Context(), tried, store.Attempt{Tried: true, Next: start}); err != nil {
		t.Fatal(err)
	}
	for want := 1; want >= 0; want-- { // a release, unlike a look before its time, gives it all its attempts again
		if err := s.Retry(t.Context(), tried.ID, start); err != nil {
			t.Fatal(err)
		}
		if got := item(t, s, tried.ID); got.Tried != want {
			t.Errorf("tried %d times, want %d", got.Tried, want)
		}
		if err := s.Hold(t.Context(), tried.ID, start, "x"); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range append(a, b...) {
		if err := s.Drop(t.Context(), i.ID, start); err != nil {
			t.Error(err)
		}
		checkTotals(t, dir)
	}
	if err := s.Drop(t.Context(), b[0].ID, start); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	if stats, err := s.Stats(t.Context()); err != nil || stats != (store.Stats{}) {
		t.Errorf("stats of nothing: %+v, %v", stats, err)
	}
	if c := add(t, s, "c", 0, "x@example.org")[0]; c.ID <= b[0].ID {
		t.Errorf("ID %d after %d", c.ID, b[0].ID)
	}
}

// Whatever is damaged in the database is set aside or reported, and the others
// go on (RELIABILITY.md 91).
func TestDamagedItems(t *testing.T) {
	const piece = 256 << 10
	for name, tt := range map[string]struct {
		size   int
		damage string
		header error
		rest   error
	}{
		"a bit of a piece":              {2 * piece, `UPDATE piece SET bytes = zeroblob(length(bytes)) WHERE number = 1`, nil, store.ErrDamaged},
		"a missing piece":               {2 * piece, `DELETE FROM piece WHERE number = 1`, nil, store.ErrDamaged},
		"no piece":                      {2 * piece, `DELETE FROM piece`, nil, store.ErrDamaged},
		"a cut piece":                   {2 * piece, `UPDATE piece SET bytes = substr(bytes, 1, 100) WHERE number = 1`, nil, store.ErrDamaged},
		"one piece more":                {2 * piece, `INSERT INTO piece SELECT rest, 2, bytes FROM piece WHERE number = 0`, nil, store.ErrDamaged},
		"no rest":                       {2 * piece, `DELETE FROM rest`, nil, store.ErrDamaged},
		"a bit of a header":             {2 * piece, `UPDATE header SET bytes = zeroblob(length(bytes))`, store.ErrDamaged, nil},
		"no header":                     {2 * piece, `DELETE FROM header`, store.ErrDamaged, nil},
		"item gone":                     {2 * piece, `DELETE FROM item; DELETE FROM header; DELETE FROM rest; DELETE FROM piece`, store.ErrLost, store.ErrLost},
		"a bit of a short one":          {1000, `UPDATE piece SET bytes = zeroblob(length(bytes))`, nil, store.ErrDamaged},
		"no piece of a short one":       {1000, `DELETE FROM piece`, nil, store.ErrDamaged},
		"an empty piece of a short one": {1000, `UPDATE piece SET bytes = x''`, nil, store.ErrDamaged},
		"a cut piece of a short one":    {1000, `UPDATE piece SET bytes = substr(bytes, 1, 100)`, nil, store.ErrDamaged},
		"a short one gone":              {1000, `DELETE FROM item; DELETE FROM header; DELETE FROM rest; DELETE FROM piece`, store.ErrLost, nil},
		"no rest of a short one":        {1000, `DELETE FROM rest`, nil, store.ErrDamaged},
		"a bit of a short one's header": {1000, `UPDATE header SET bytes = zeroblob(length(bytes))`, store.ErrDamaged, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			it := add(t, s, "m", tt.size, "ada@example.org")[0]
			before, err := s.Content(t.Context(), it)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := raw(t, dir).Exec(tt.damage); err != nil {
				t.Fatal(err)
			}
			content, err := s.Content(t.Context(), it)
			if !errors.Is(err, tt.header) {
				t.Errorf("header: %v, want %v", err, tt.header)
			}
			if err != nil {
				content = before
			}
			rest, err := io.ReadAll(content.Rest(t.Context()))
			if !errors.Is(err, tt.rest) || tt.rest == nil && len(rest) != tt.size {
				t.Errorf("rest: %v, want %v", err, tt.rest)
			}
			if tt.header != store.ErrLost {
				if err := s.Drop(t.Context(), it.ID, start); err != nil {
					t.Errorf("cannot be dropped: %v", err)
				}
			}
		})
	}
	t.Run("an address", func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir)
		bad := add(t, s, "bad", 10, "ada@example.org")[0]
		good := add(t, s, "good", 10, "ada@example.org")[0]
		if _, err := raw(t, dir).Exec(`UPDATE item SET target = 'x' || char(0) || 'y' WHERE id = ?`, bad.ID); err != nil {
			t.Fatal(err)
		}
		if got := due(t, s, "example.org", start); len(got) != 1 || got[0].ID != good.ID {
			t.Errorf("due: %v", got)
		}
		checkTotals(t, dir)
		all, err := s.Items(t.Context(), store.Filter{})
		if err != nil || len(all) != 2 || all[0].State != store.Held || !strings.Contains(all[0].Reason, "damaged") || all[0].Message != "bad" {
			t.Errorf("items: %+v, %v", all, err)
		}
		if err := s.Drop(t.Context(), bad.ID, start); err != nil {
			t.Error(err)
		}
		checkTotals(t, dir)
	})
}

// Whatever page of the database is lost: it does not open, and says so, or every
// item is there, with its bytes or ErrDamaged, and never with others.
func TestDamagedPages(t *testing.T) {
	const messages, pageSize = 6, 4096
	dir := t.TempDir()
	s := open(t, dir)
	for i := range messages {
		add(t, s, fmt.Sprint("m", i), 9000, "ada@example.org")
	}
	s.Close()
	whole, err := os.ReadFile(filepath.Join(dir, "onward.db"))
	if err != nil {
		t.Fatal(err)
	}
	work := inMemory(t)
	opened, damaged, headers := 0, 0, 0 // headers of damaged items
	for page := range len(whole) / pageSize {
		content := bytes.Clone(whole)
		clear(content[page*pageSize : (page+1)*pageSize])
		if err := os.WriteFile(filepath.Join(work, "onward.db"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := store.Open(t.Context(), work, store.Limits{})
		if err != nil {
			continue
		}
		opened++
		items := due(t, s, "example.org", start)
		if len(items) != messages {
			t.Errorf("without page %d: %d items", page+1, len(items))
		}
		for _, it := range items {
			header, rest, err := read(t, s, it)
			want, wantRest := letter(it.Message, "x@example.org", 9000)
			if errors.Is(err, store.ErrDamaged) {
				damaged++
				if bytes.Equal(header, want.Header) {
					headers++
				}
			} else if err != nil || !bytes.Equal(header, want.Header) || !bytes.Equal(rest, wantRest) {
				t.Errorf("without page %d: %s: %v, or other bytes", page+1, it.Message, err)
			}
		}
		s.Close()
	}
	if opened == 0 || damaged == 0 || damaged == opened*messages {
		t.Errorf("%d of %d opened, %d items damaged: this tests nothing", opened, len(whole)/pageSize, damaged)
	}
	if headers < damaged/2 { // most pages are of bodies
		t.Errorf("%d items damaged, and only %d show their header", damaged, headers)
	}
}

// TestContent holds that short rests are read with the header, and that no long one
// is in memory before somebody reads it.
func TestContent(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	const most = 64 << 10
	for size, want := range map[int]error{1: nil, most: nil, most + 1: store.ErrDamaged} {
		it := add(t, s, "a", size, "ada@example.org")[0]
		content, err := s.Content(t.Context(), it)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := raw(t, dir).Exec(`DELETE FROM piece`); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(content.Rest(t.Context())); !errors.Is(err, want) {
			t.Errorf("%d octets: %v, want %v", size, err, want)
		}
	}
}

// TestBeginAsRead holds that an item which a person let go since it was read is not
// begun as it was then: it would be refused, or expire, at once.
func TestBeginAsRead(t *testing.T) {
	for _, was := range []string{`refused = 1`, `tried = 9`, `unfinished = 2`} {
		dir := t.TempDir()
		s := open(t, dir)
		id := add(t, s, "a", 100, "ada@example.org")[0].ID
		if _, err := raw(t, dir).Exec(`UPDATE item SET ` + was); err != nil {
			t.Fatal(err)
		}
		read := item(t, s, id)
		if err := errors.Join(s.Hold(t.Context(), id, start, "wait"), s.Retry(t.Context(), id, start)); err != nil {
			t.Fatal(err)
		}
		lease := store.Lease{Owner: "o", Until: start.Add(minute), Next: start.Add(minute)}
		if ok, err := s.Begin(t.Context(), read, start, lease); ok || err != nil {
			t.Errorf("%s: begun as it was: %v", was, err)
		}
		if read.Unfinished > 0 {
			if err := s.SetAside(t.Context(), read, "poison", store.Attempt{}); !errors.Is(err, store.ErrLost) {
				t.Errorf("%s: set aside as it was: %v", was, err)
			}
		}
		if ok, err := s.Begin(t.Context(), item(t, s, id), start, lease); !ok || err != nil {
			t.Errorf("%s: not begun as it is: %v", was, err)
		}
	}
}

// TestRetryRefused holds that an item which was refused in the session is tried
// when a person wants that.
func TestRetryRefused(t *testing.T) {
	s := open(t, t.TempDir())
	it, rest := letter("a", "x@example.org", 100)
	it.Refused, it.State = true, store.Held
	if err := s.Add(t.Context(), bytes.NewReader(rest), []*store.Item{it}); err != nil {
		t.Fatal(err)
	}
	if err := s.Retry(t.Context(), it.ID, start); err != nil {
		t.Fatal(err)
	}
	if got := item(t, s, it.ID); got.Refused || got.State != store.Waiting {
		t.Errorf("%+v", got)
	}
}
