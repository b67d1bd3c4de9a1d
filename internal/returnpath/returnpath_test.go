package returnpath_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"onward/internal/address"
	"onward/internal/reply"
	"onward/internal/returnpath"
	"onward/internal/store"
	"onward/srs"
)

const (
	day    = 24 * time.Hour
	ours   = address.Domain("srs.example.net")
	second = address.Domain("srs.other.example")
	secret = "a secret for tests alone"
)

func settings() returnpath.Settings {
	return returnpath.Settings{Secrets: []string{secret}, Domains: []address.Domain{ours, second}}
}

func rewriter(t *testing.T, s returnpath.Settings, st returnpath.Store) *returnpath.Rewriter {
	t.Helper()
	r, err := returnpath.New(s, st)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func openStore(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), dir, store.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func parse(t *testing.T, text string) address.Mailbox {
	t.Helper()
	m, err := address.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// noStore fails the test when it is asked.
type noStore struct{ t *testing.T }

func (s noStore) KeepToken(context.Context, string, address.Mailbox, int, int) (string, error) {
	s.t.Error("the store was asked for a token")
	return "", errors.New("no store")
}

func (s noStore) TokenSender(context.Context, string) (address.Mailbox, error) {
	s.t.Error("the store was asked for a sender")
	return address.Mailbox{}, errors.New("no store")
}

// fakeStore answers as it is told.
type fakeStore struct {
	token  string
	sender address.Mailbox
	err    error
}

func (s fakeStore) KeepToken(context.Context, string, address.Mailbox, int, int) (string, error) {
	return s.token, s.err
}

func (s fakeStore) TokenSender(context.Context, string) (address.Mailbox, error) {
	return s.sender, s.err
}

// at returns the SRS address that another codec of ours makes.
func at(t *testing.T, from string, domain address.Domain, now time.Time) string {
	t.Helper()
	codec := srs.Codec{Secrets: []string{secret}, Domain: string(domain)}
	text, err := codec.Encode(from, now)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func isReply(err error, code int, status string) bool {
	r, ok := errors.AsType[*reply.Reply](err)
	return ok && r.Code == code && r.Status == status
}

// Senders that the address itself carries cost no look at the store.
func TestStateless(t *testing.T) {
	r := rewriter(t, settings(), noStore{t})
	for _, text := range []string{"ada@example.org", "Ada+x=y@example.org", "a@xn--exmple-cua.org", "SRS0=opaque=x@first.example", "SRS1=h=first.example==x@third.example"} {
		from := address.ReversePath{Mailbox: parse(t, text)}
		path, err := r.Rewrite(t.Context(), from, second)
		if err != nil || path.Domain != second || !r.Is(path.Mailbox) {
			t.Errorf("Rewrite(%s) = %s, %v", text, path, err)
			continue
		}
		want := text
		if strings.HasPrefix(text, "SRS1") {
			want = "SRS0=x@first.example"
		}
		if got, err := r.Restore(t.Context(), path.Mailbox); err != nil || got.String() != want {
			t.Errorf("Restore(%s) = %s, %v; want %s", path, got, err, want)
		}
	}
}

func TestKeptAsTheyAre(t *testing.T) {
	r := rewriter(t, settings(), noStore{t})
	own := at(t, "ada@example.org", second, time.Now())
	for _, text := range []string{"", "postmaster@" + string(ours), own, strings.ToLower(own)} {
		from, err := address.ParseReversePath(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.Rewrite(t.Context(), from, ours); err != nil || got != from {
			t.Errorf("Rewrite(%q) = %q, %v; want it unchanged", text, got, err)
		}
	}
}

func TestRewriteRefuses(t *testing.T) {
	long := strings.Repeat("a", 60) + "@example.org"
	for _, tt := range []struct {
		name   string
		from   address.Mailbox
		domain address.Domain
		store  returnpath.Store
		code   int
		status string
	}{
		{"forged", parse(t, "SRS0=AAAAAAAAAA=JL=example.org=ada@"+string(ours)), ours, noStore{t}, 550, "5.1.8"},
		{"forged in another domain of ours", parse(t, "srs1-AAAAAAAAAA=a.example==x@"+string(second)), ours, noStore{t}, 550, "5.1.8"},
		{"expired", parse(t, at(t, "ada@example.org", ours, time.Now().Add(-16*day))), ours, noStore{t}, 550, "5.1.8"},
		{"unknown token", parse(t, at(t, strings.Repeat("A", 26)+"@1", ours, time.Now())), ours, fakeStore{}, 550, "5.1.8"},
		{"token and no store", parse(t, at(t, strings.Repeat("A", 26)+"@1", ours, time.Now())), ours, fakeStore{err: errors.New("disk")}, 451, "4.3.0"},
		{"the domain of tokens", address.Mailbox{Local: "ada", Domain: "1"}, ours, noStore{t}, 553, "5.1.7"},
		{"not our domain", parse(t, "ada@example.org"), "example.com", noStore{t}, 451, "4.3.0"},
		{"store trouble", parse(t, long), ours, fakeStore{err: errors.New("disk")}, 451, "4.3.0"},
		{"bad token", parse(t, long), ours, fakeStore{token: strings.Repeat("A", 70)}, 451, "4.3.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := rewriter(t, settings(), tt.store)
			got, err := r.Rewrite(t.Context(), address.ReversePath{Mailbox: tt.from}, tt.domain)
			if !isReply(err, tt.code, tt.status) {
				t.Errorf("Rewrite(%s) = %s, %v; want %d %s", tt.from, got, err, tt.code, tt.status)
			}
		})
	}
}

func TestRestoreRefuses(t *testing.T) {
	now := time.Now()
	token := strings.Repeat("A", 26) + "@1"
	forged := strings.Replace(at(t, "ada@example.org", ours, now), "ada", "eve", 1)
	for _, tt := range []struct {
		name, to string
		store    returnpath.Store
		code     int
		status   string
		text     string
	}{
		{"forged", forged, noStore{t}, 550, "5.1.1", "<" + forged + ">: no such address here"},
		{"malformed", "SRS0=x@" + string(ours), noStore{t}, 550, "5.1.1", "no such address here"},
		{"no SRS", "ada@" + string(ours), noStore{t}, 550, "5.1.1", "no such address here"},
		{"not ours", at(t, "ada@example.org", "srs.example.com", now), noStore{t}, 550, "5.1.1", "no such address here"},
		{"expired", at(t, "ada@example.org", ours, now.Add(-16*day)), noStore{t}, 550, "5.1.1", "expired"},
		{"token expired", at(t, token, ours, now.Add(-16*day)), noStore{t}, 550, "5.1.1", "expired"},
		{"future", at(t, "ada@example.org", ours, now.Add(day)), noStore{t}, 550, "5.1.1", "expired"},
		{"short token", at(t, strings.Repeat("A", 25)+"@1", ours, now), noStore{t}, 550, "5.1.1", "no such address here"},
		{"odd token", at(t, strings.Repeat("1", 26)+"@1", ours, now), noStore{t}, 550, "5.1.1", "no such address here"},
		{"unknown token", at(t, token, ours, now), fakeStore{}, 550, "5.1.1", "no such address here"},
		{"store trouble", at(t, token, ours, now), fakeStore{err: errors.New("disk /var/secret")}, 451, "4.3.0", "trouble on our side"},
		{"signed, but a numeric domain", at(t, "ada@192.0.2.1", ours, now), noStore{t}, 550, "5.1.1", "no such address here"},
		{"signed, but a label too long", "SRS0=" + strings.Repeat("x", 50) + "=@" + string(ours), noStore{t}, 550, "5.1.1", "no such address here"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := rewriter(t, settings(), tt.store)
			got, err := r.Restore(t.Context(), parse(t, tt.to))
			if !isReply(err, tt.code, tt.status) || got != (address.Mailbox{}) {
				t.Fatalf("Restore(%s) = %s, %v; want %d %s", tt.to, got, err, tt.code, tt.status)
			}
			if text := reply.From(err).String(); !strings.Contains(text, tt.text) || strings.Contains(text, "secret") {
				t.Errorf("the answer is %q, want %q in it", text, tt.text)
			}
		})
	}
}

// Mail that came by us, went through another forwarder and came by us again has
// a return path that is ours twice.
func TestTwiceByUs(t *testing.T) {
	other := srs.Codec{Secrets: []string{"another's"}, Domain: "f.example", HashLength: 4}
	s := settings()
	s.HashLength = 4
	r := rewriter(t, s, openStore(t, t.TempDir()))
	for _, first := range []string{"ada@example.org", `"ada l"@example.org`} {
		from := parse(t, first)
		path, err := r.Rewrite(t.Context(), address.ReversePath{Mailbox: from}, ours)
		if err != nil {
			t.Fatal(err)
		}
		text, err := other.Encode(path.String(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		path, err = r.Rewrite(t.Context(), address.ReversePath{Mailbox: parse(t, text)}, second)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.Restore(t.Context(), path.Mailbox); err != nil || got != from {
			t.Errorf("Restore(%s) = %s, %v; want %s", path, got, err, from)
		}
	}
}

// A path that our own secret signed, though we never make such, and that leads
// to us again after every layer, ends in a refusal.
func TestThriceByUs(t *testing.T) {
	sign := func(parts ...string) string {
		h := hmac.New(sha1.New, []byte(secret))
		h.Write([]byte(strings.ToLower(strings.Join(parts, ""))))
		return base64.RawURLEncoding.EncodeToString(h.Sum(nil))[:4]
	}
	s := returnpath.Settings{Secrets: []string{secret}, HashLength: 4, Domains: []address.Domain{"a.example", "b.example"}}
	r := rewriter(t, s, noStore{t})
	stamp := strings.Split(at(t, "x@y.example", ours, time.Now()), "=")[2]
	rest := "=" + sign(stamp, "a.example", "SRS0=x") + "=" + stamp + "=a.example=SRS0=x"
	to := parse(t, "SRS1="+sign("b.example", rest)+"=b.example="+rest+"@a.example")
	if got, err := r.Restore(t.Context(), to); !isReply(err, 550, "5.1.1") || !strings.Contains(err.Error(), "stands for no sender") {
		t.Errorf("Restore(%s) = %s, %v", to, got, err)
	}
}

// What cannot be written into the address is stored, and survives a restart, a
// change of secret, and a way that changes its case.
func TestStored(t *testing.T) {
	dir := t.TempDir()
	st := openStore(t, dir)
	r := rewriter(t, settings(), st)
	senders := []string{
		strings.Repeat("a", 35) + "@example.org", // 47 octets
		"0100018f1e2d3c4b-0a1b2c3d-1111-2222-3333-444455556666-000000@amazonses.com",
		strings.Repeat("l", 64) + "@" + strings.Repeat("d.", 91) + "example",
		`"ada l"@example.org`, `"a@b"@example.org`, "jürgen@example.org", "ada@[192.0.2.1]", "ada@[IPv6:2001:db8::1]",
		"SRS0=4567=JL=" + strings.Repeat("h", 30) + ".example=ada.lovelace@srs.example.org", "SRS1=x@first.example", "SRS0=@first.example",
	}
	paths := map[string]address.ReversePath{}
	for _, text := range senders {
		path, err := r.Rewrite(t.Context(), address.ReversePath{Mailbox: parse(t, text)}, ours)
		if err != nil || len(path.Local) > 64 || !path.IsASCII() || path.Quoted() || !strings.Contains(path.Local, "=1=") {
			t.Fatalf("Rewrite(%s) = %s, %v; want a token", text, path, err)
		}
		paths[text] = path
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	rotated := settings()
	rotated.Secrets = []string{"another one for tests", secret}
	r = rewriter(t, rotated, openStore(t, dir))
	for text, path := range paths {
		for _, local := range []string{path.Local, strings.ToLower(path.Local), strings.ToUpper(path.Local)} {
			got, err := r.Restore(t.Context(), address.Mailbox{Local: local, Domain: ours})
			if err != nil || got.String() != text {
				t.Errorf("Restore(%s) = %s, %v; want %s", local, got, err, text)
			}
		}
	}
}

// A token is found as long as its address is good, and no longer; asking again
// TestConceal: whatever fits into SRS, a concealed sender cannot be read from its
// return path, and bounces find it all the same.
func TestConceal(t *testing.T) {
	r := rewriter(t, settings(), openStore(t, t.TempDir()))
	from := address.ReversePath{Mailbox: parse(t, "ada@private.example")}
	path, err := r.Conceal(t.Context(), from, ours)
	if err != nil || path.Domain != ours || strings.Contains(strings.ToLower(path.String()), "ada") || strings.Contains(path.String(), "private") {
		t.Fatalf("Conceal = %v, %v", path, err)
	}
	if back, err := r.Restore(t.Context(), path.Mailbox); err != nil || back != from.Mailbox {
		t.Errorf("Restore = %v, %v", back, err)
	}
	if null, err := r.Conceal(t.Context(), address.ReversePath{}, ours); err != nil || !null.IsNull() {
		t.Errorf("the null sender became %v, %v", null, err)
	}
}

// on the same day gives the same one, on the next another.
func TestTokenAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, err := store.Open(t.Context(), t.TempDir(), store.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		r := rewriter(t, settings(), st)
		rewrite := func(text string) address.ReversePath {
			path, err := r.Rewrite(t.Context(), address.ReversePath{Mailbox: parse(t, text)}, ours)
			if err != nil {
				t.Fatal(err)
			}
			return path
		}
		first := rewrite(`"ada l"@example.org`)
		time.Sleep(day - 1)
		if again := rewrite(`"ada l"@example.org`); again != first {
			t.Errorf("the same day gives %s and %s", first, again)
		}
		time.Sleep(time.Nanosecond)
		if again := rewrite(`"ada l"@example.org`); again == first {
			t.Error("the next day gives the same address")
		}
		time.Sleep(14*day - 1)
		rewrite(`"an other"@example.org`) // and forgets what is too old
		if got, err := r.Restore(t.Context(), first.Mailbox); err != nil || got.Local != "ada l" {
			t.Errorf("in the last moment: %s, %v", got, err)
		}
		time.Sleep(time.Nanosecond)
		if got, err := r.Restore(t.Context(), first.Mailbox); !isReply(err, 550, "5.1.1") || !strings.Contains(err.Error(), "expired") {
			t.Errorf("after the last moment: %s, %v", got, err)
		}
	})
}

// Whatever sender parses, comes back, and what stands for it fits in SMTP.
func TestAnySender(t *testing.T) {
	st := openStore(t, t.TempDir())
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.OneOf(
			rapid.StringMatching(`(SRS[01][=+-])?[a-zA-Z0-9=+-]{1,60}@[a-z]{1,20}(\.[a-z]{1,40}){1,4}`),
			rapid.StringMatching(`"[ -!#-\[\]-~]{1,40}"@[a-z]{1,20}\.example`),
			rapid.StringMatching(`[äöüßéa-z]{1,20}@[a-z]{1,20}\.example`),
		).Draw(rt, "sender")
		from, err := address.Parse(text)
		if err != nil {
			rt.Skip(err)
		}
		s := settings()
		s.HashLength = rapid.IntRange(4, 27).Draw(rt, "hash length")
		r, err := returnpath.New(s, st)
		if err != nil {
			rt.Fatal(err)
		}
		path, err := r.Rewrite(t.Context(), address.ReversePath{Mailbox: from}, ours)
		if err != nil || len(path.Local) > 64 || len(path.String()) > 254 || !path.IsASCII() || path.Quoted() || path.Domain != ours {
			rt.Fatalf("Rewrite(%s) = %s, %v", text, path, err)
		}
		if _, err := address.Parse(path.String()); err != nil {
			rt.Fatal(err)
		}
		got, err := r.Restore(t.Context(), path.Mailbox)
		if strings.HasPrefix(text, "SRS1") && err == nil && strings.HasPrefix(got.Local, "SRS0") {
			return // the first forwarder's address; package srs tests it
		}
		if err != nil || got != from {
			rt.Fatalf("%s came back from %s as %s, %v", text, path, got, err)
		}
	})
}

func TestConcurrent(t *testing.T) {
	r := rewriter(t, settings(), openStore(t, t.TempDir()))
	var mu sync.Mutex
	seen := map[address.ReversePath]address.Mailbox{}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 40 {
				from := address.Mailbox{Local: fmt.Sprintf("%s%d", strings.Repeat("x", 50), (i+worker)%20), Domain: "example.org"}
				path, err := r.Rewrite(t.Context(), address.ReversePath{Mailbox: from}, ours)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := r.Restore(t.Context(), path.Mailbox); err != nil || got != from {
					t.Errorf("%s came back as %s, %v", from, got, err)
				}
				mu.Lock()
				seen[path] = from
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) > 2*20 { // twice 20, should midnight pass
		t.Errorf("%d return paths for 20 senders", len(seen))
	}
}

func TestIs(t *testing.T) {
	r := rewriter(t, settings(), noStore{t})
	for text, want := range map[string]bool{
		"SRS0=x@srs.example.net": true, "srs1+x@SRS.Example.Net": true, "SRS0=x@srs.other.example": true,
		"SRS0=x@example.net": false, "ada@srs.example.net": false, "SRS0@srs.example.net": false,
	} {
		if r.Is(parse(t, text)) != want {
			t.Errorf("Is(%s) = %v", text, !want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, change := range map[string]func(*returnpath.Settings){
		"no secret":   func(s *returnpath.Settings) { s.Secrets = nil },
		"hash length": func(s *returnpath.Settings) { s.HashLength = 3 },
		"age":         func(s *returnpath.Settings) { s.MaxAge = time.Hour },
		"long domain": func(s *returnpath.Settings) {
			s.Domains = append(s.Domains, address.Domain(strings.Repeat("d.", 100)+"example"))
		},
		"literal": func(s *returnpath.Settings) { s.Domains = append(s.Domains, "[192.0.2.1]") },
	} {
		s := settings()
		change(&s)
		if _, err := returnpath.New(s, noStore{t}); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzRestore: whatever RCPT TO brings, what comes out is an address or a reply.
func FuzzRestore(f *testing.F) {
	for _, seed := range []string{"SRS0=XjO9=2V=otherdomain.com=test", "SRS1=JIBX=thirddomain.com==opaque+string", "SRS0=AAAAAAAAAA=JL=1=AAAAAAAAAAAAAAAAAAAAAAAAAA", "SRS0=", `"SRS0=a b"`, "ada"} {
		f.Add(seed)
	}
	r, err := returnpath.New(settings(), fakeStore{sender: address.Mailbox{Local: "ada", Domain: "example.org"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, local string) {
		to, err := address.Parse(local + "@" + string(ours))
		if err != nil {
			return
		}
		from, err := r.Restore(t.Context(), to)
		if err == nil {
			t.Fatalf("Restore(%s) = %s without the secret", to, from)
		}
		if answer := reply.From(err); !isReply(err, 550, "5.1.1") || strings.ContainsAny(answer.String(), "\r\n\x00") {
			t.Fatalf("Restore(%s): %v", to, err)
		}
	})
}

func BenchmarkRewrite(b *testing.B) {
	r, err := returnpath.New(settings(), fakeStore{})
	if err != nil {
		b.Fatal(err)
	}
	from := address.ReversePath{Mailbox: address.Mailbox{Local: "ada", Domain: "example.org"}}
	for b.Loop() {
		if _, err := r.Rewrite(b.Context(), from, ours); err != nil {
			b.Fatal(err)
		}
	}
}
