package replyaddr_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"onward/internal/address"
	"onward/internal/mailauth/dmarc"
	"onward/internal/reply"
	"onward/internal/replyaddr"
	"onward/internal/store"
)

var (
	me     = address.Mailbox{Local: "me", Domain: "example.org"}
	old    = address.Mailbox{Local: "old", Domain: "gmail.com"}
	ada    = address.Mailbox{Local: "ada", Domain: "sender.example"}
	mx     = address.Domain("mx.example.org")
	passed = dmarc.Verdict{Result: dmarc.Pass}
)

func from(m address.Mailbox) dmarc.From { return dmarc.From{Mailbox: m, Domain: m.Domain, Fields: 1} }

// openStore returns the store of the daemon.
func openStore(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), dir, store.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newBook(t *testing.T) *replyaddr.Book {
	s := openStore(t, t.TempDir())
	t.Cleanup(func() { s.Close() })
	return replyaddr.New([]address.Domain{mx, "example.net"}, s, new(replyaddr.Uses))
}

// code returns the answer of an error, which must be a Reply.
func code(t *testing.T, err error) string {
	t.Helper()
	var r *reply.Reply
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &r):
		t.Fatalf("%v is no Reply", err)
	}
	return fmt.Sprintf("%d %s", r.Code, r.Status)
}

// TestThereAndBack holds that an address leads to its author, in any case, after
// a restart too, and stays the same.
func TestThereAndBack(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	book := replyaddr.New([]address.Domain{mx}, s, new(replyaddr.Uses))
	stand, err := book.For(t.Context(), mx, me, ada)
	if err != nil {
		t.Fatal(err)
	}
	if stand.Domain != mx || !strings.HasPrefix(stand.Local, "reply-") || len(stand.Local) != 32 || stand.Quoted() {
		t.Errorf("address %q", stand)
	}
	if again, _ := book.For(t.Context(), mx, address.Mailbox{Local: "ME", Domain: "example.org"}, ada); again != stand {
		t.Errorf("%q, then %q", stand, again)
	}
	for _, other := range [][2]address.Mailbox{{me, old}, {old, ada}} {
		if b, _ := book.For(t.Context(), mx, other[0], other[1]); b == stand || b == (address.Mailbox{}) {
			t.Errorf("%v has %q", other, b)
		}
	}
	s.Close()
	s = openStore(t, dir)
	defer s.Close()
	book = replyaddr.New([]address.Domain{mx}, s, new(replyaddr.Uses))
	for _, local := range []string{stand.Local, strings.ToUpper(stand.Local), strings.ToUpper(stand.Local[:9]) + stand.Local[9:]} {
		to := address.Mailbox{Local: local, Domain: mx}
		if p, err := book.Open(t.Context(), to); err != nil || p.Alias != me || p.Author != ada || !book.Is(to) {
			t.Errorf("%q: %+v, %v", to, p, err)
		}
	}
}

// TestIs holds that only our own form in our own domains is taken for a reply
// address, and that whatever else is opened is unknown.
func TestIs(t *testing.T) {
	book := newBook(t)
	token := strings.Repeat("a", 26)
	for text, want := range map[string]bool{
		"reply-" + token + "@mx.example.org":        true,
		"REPLY-" + token + "@example.net":           true,
		"reply-" + token + "@example.org":           false,
		"reply-" + token + "x@mx.example.org":       false,
		"reply-" + token[1:] + "@mx.example.org":    false,
		"reply-" + token[1:] + "1@mx.example.org":   false,
		"reply-" + token[1:] + "ſ@mx.example.org":   false,
		"reply-" + token[1:] + "\u212a@example.net": false,
		"reply-" + token + "+x@mx.example.org":      false,
		"reply@mx.example.org":                      false,
		"xreply-" + token + "@mx.example.org":       false,
		"SRS0=a=b=c=d@mx.example.org":               false,
	} {
		to, err := address.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if book.Is(to) != want {
			t.Errorf("Is(%q) = %v", to, !want)
		}
		if _, err := book.Open(t.Context(), to); code(t, err) != "550 5.1.1" {
			t.Errorf("Open(%q): %v", to, err)
		}
	}
	for domain, author := range map[address.Domain]address.Mailbox{"example.org": ada, mx: {}} {
		if m, err := book.For(t.Context(), domain, me, author); code(t, err) != "451 4.3.0" {
			t.Errorf("For(%q, %q) = %q, %v", domain, author, m, err)
		}
	}
}

// TestPermit holds who may use an address.
func TestPermit(t *testing.T) {
	book := newBook(t)
	stand, _ := book.For(t.Context(), mx, me, ada)
	pair, err := book.Open(t.Context(), stand)
	if err != nil {
		t.Fatal(err)
	}
	other := address.Mailbox{Local: "b", Domain: "outlook.com"}
	for _, tt := range []struct {
		name    string
		from    address.Mailbox
		result  dmarc.Result
		targets []address.Mailbox
		want    string
	}{
		{"the target", old, dmarc.Pass, []address.Mailbox{old}, ""},
		{"in another case", address.Mailbox{Local: "OLD", Domain: "gmail.com"}, dmarc.Pass, []address.Mailbox{old}, ""},
		{"one of several", other, dmarc.Pass, []address.Mailbox{old, other}, ""},
		{"a target no more", old, dmarc.Pass, []address.Mailbox{other}, "550 5.7.1"},
		{"an alias no more", old, dmarc.Pass, nil, "550 5.7.1"},
		{"the author", ada, dmarc.Pass, []address.Mailbox{old}, "550 5.7.1"},
		{"the alias itself", me, dmarc.Pass, []address.Mailbox{old}, "550 5.7.1"},
		{"nobody", address.Mailbox{}, dmarc.Pass, []address.Mailbox{old}, "550 5.7.1"},
		{"forged", old, dmarc.Fail, []address.Mailbox{old}, "550 5.7.1"},
		{"no policy", old, dmarc.None, []address.Mailbox{old}, "550 5.7.1"},
		{"no verdict", old, dmarc.TempError, []address.Mailbox{old}, "451 4.7.0"}, // trouble with the DNS is not for good
		{"no verdict on a stranger", ada, dmarc.TempError, []address.Mailbox{old}, "550 5.7.1"},
		{"nothing said", old, "", []address.Mailbox{old}, "550 5.7.1"},
	} {
		err := book.Permit(pair, from(tt.from), dmarc.Verdict{Result: tt.result}, tt.targets)
		if got := code(t, err); got != tt.want {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if err != nil && strings.Contains(reply.From(err).Text, "@") {
			t.Errorf("%s: %q tells an address", tt.name, reply.From(err).Text)
		}
	}
}

// TestUses holds the limit of an hour: for one address, over any hour, not
// counting what was refused, and kept by who takes over the counts.
func TestUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		uses := new(replyaddr.Uses)
		var tokens memory
		book := replyaddr.New([]address.Domain{mx}, &tokens, uses)
		open := func(author address.Mailbox) replyaddr.Pair {
			stand, _ := book.For(t.Context(), mx, me, author)
			p, err := book.Open(t.Context(), stand)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		pair := open(ada)
		permitted := func(p replyaddr.Pair, tries int) (n int) {
			for range tries {
				if book.Permit(p, from(old), passed, []address.Mailbox{old}) == nil {
					n++
				}
			}
			return n
		}
		for range 30 {
			book.Permit(pair, from(ada), passed, []address.Mailbox{old})
		}
		if n := permitted(pair, 10); n != 10 {
			t.Errorf("%d of 10", n)
		}
		time.Sleep(40 * time.Minute)
		if n := permitted(pair, 30); n != 10 {
			t.Errorf("%d after 40 minutes", n)
		}
		book = replyaddr.New([]address.Domain{mx}, &tokens, uses) // a new configuration
		if n := permitted(pair, 1); n != 0 {
			t.Error("a new configuration counts anew")
		}
		if n := permitted(open(old), 30); n != 20 {
			t.Errorf("%d for another address", n)
		}
		time.Sleep(20*time.Minute + time.Second)
		if n := permitted(pair, 30); n != 10 {
			t.Errorf("%d after an hour", n)
		}
		time.Sleep(time.Hour)
		if n := permitted(pair, 30); n != 20 {
			t.Errorf("%d after two hours", n)
		}
	})
}

// TestStoreTrouble holds that trouble of ours is temporary.
func TestStoreTrouble(t *testing.T) {
	book := replyaddr.New([]address.Domain{mx}, broken{}, new(replyaddr.Uses))
	_, err := book.For(t.Context(), mx, me, ada)
	_, err2 := book.Open(t.Context(), address.Mailbox{Local: "reply-" + strings.Repeat("a", 26), Domain: mx})
	if code(t, err) != "451 4.3.0" || code(t, err2) != "451 4.3.0" {
		t.Errorf("%v, %v", err, err2)
	}
}

// memory is a store without a disk, for tests of time.
type memory map[string][2]address.Mailbox

func (m *memory) KeepReply(_ context.Context, token string, alias, author address.Mailbox, _ time.Time) (string, error) {
	if *m == nil {
		*m = memory{}
	}
	(*m)[token] = [2]address.Mailbox{alias, author}
	return token, nil
}

func (m *memory) Reply(_ context.Context, token string, _ time.Time) (alias, author address.Mailbox, err error) {
	return (*m)[token][0], (*m)[token][1], nil
}

type broken struct{}

func (broken) KeepReply(context.Context, string, address.Mailbox, address.Mailbox, time.Time) (string, error) {
	return "", errors.New("disk")
}

func (broken) Reply(context.Context, string, time.Time) (alias, author address.Mailbox, err error) {
	return address.Mailbox{}, address.Mailbox{}, errors.New("disk")
}
