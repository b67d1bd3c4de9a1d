package status_test

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"onward/internal/address"
	"onward/internal/journal"
	"onward/internal/message"
	"onward/internal/status"
	"onward/internal/store"
)

// paths are all pages of a world that lives.
func (w *world) paths() []string {
	return []string{"/", "/messages", "/messages?q=moth", "/messages/" + w.held, "/queue", "/queue?state=held", "/destinations", "/aliases", "/aliases?q=shop", "/doctor", "/login"}
}

// text is what a page says, in one line, without its markup.
func text(page string) string {
	return strings.Join(strings.Fields(html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(page, " "))), " ")
}

// TestPages: every page says what it is for.
func TestPages(t *testing.T) {
	w := newWorld(t, true, nil)
	w.live()
	for path, want := range map[string][]string{
		"/": {"3 things need a look", "1 message is held", "google.com wants no mail for another 24 min",
			"The doctor found 1 thing", "In queue 2 Oldest 9 min Held 1", "Fri 12:00", "Notes on the analytical engine, part two"},
		"/messages":             {"Sunday 22 November", "Your account is locked, act now", "550 5.7.1 bank.example asks to reject", "hello@newsletter.example → shop+outlet@example.org first time", "refused before it came"},
		"/messages/" + w.held:   {"Your receipt", "held", "552 5.2.2", "shop.example lets 198.51.100.24 send for it: matched ip4:198.51.100.0/24.", "Signed by shop.example (selector s1)", "tried while the sender waited · 0.5 s, as far as RCPT · 192.0.2.27:25", "what the sender was told"},
		"/queue":                {"2 waiting, 1 held", "31 h Your receipt", "in 24 min", "due", "Sign in to try, hold, release or drop"},
		"/queue?state=held":     {"Your receipt", "9 tries, last at gmail-smtp-in.l.google.com"},
		"/destinations":         {"google.com paused for 24 min", "2 pauses in a row", "outlook.com open", "outlook-com.olc.protection.outlook.com 2 3 12", "It was paused until 22 Nov, 08:41:12"},
		"/aliases":              {"shop+outlet@example.org jane.doe@gmail.com", "hello@newsletter.example first time", "team@example.org jane.doe@gmail.com, sam@outlook.com", "Received nothing", "club@example.org"},
		"/aliases?q=newsletter": {"hello@newsletter.example shop+outlet@example.org 1 22 Nov, 09:38:13 first time"},
		"/doctor":               {"failure SPF mx.example.org", "mx.example.org. 3600 IN TXT \"v=spf1 ip4:192.0.2.10 -all\"", "Looked at 22 Nov, 08:54:12"},
	} {
		got := text(w.get(path))
		for _, s := range want {
			if !strings.Contains(got, s) {
				t.Errorf("%s does not say %q:\n%s", path, s, got)
			}
		}
	}
	if page := text(w.get("/aliases")); strings.Contains(page, "old-name@") || strings.Contains(page, "sales@") {
		t.Errorf("an address that takes no mail is listed: %s", page)
	}
	if page := w.get("/queue?state=held"); strings.Contains(page, "moth") {
		t.Error("what is not held is among what is")
	}
}

// TestEmpty: a daemon that has just begun has all its pages.
func TestEmpty(t *testing.T) {
	w := newWorld(t, true, func(p *status.Page) {
		p.Destinations, p.Expires, p.Metrics = none, nil, nil
	})
	for path, want := range map[string]string{
		"/": "All is well", "/messages": "No message yet", "/queue": "Nothing is here", "/destinations": "nobody asked for a pause", "/aliases": "No address has received anything yet",
		"/doctor": "Run onward doctor", "/metrics": "onward_queue_items",
	} {
		if got := text(w.get(path)); !strings.Contains(got, want) {
			t.Errorf("%s does not say %q: %s", path, want, got)
		}
	}
	if a := w.do("GET", "/messages/01NOSUCH", nil, nil); a.code != 404 || !strings.Contains(a.body, "knows no such message") {
		t.Errorf("%d %s", a.code, a.body)
	}
}

// TestSearch: a message is found by anything that is known of it, and pages of
// what is found follow each other.
func TestSearch(t *testing.T) {
	w := newWorld(t, true, nil)
	w.live()
	for query, want := range map[string]string{
		"q=ADA%40lovelace": "Notes on the analytical engine, part two", "q=" + w.held[:20]: "Your receipt", "q=" + strings.ToLower(w.held): "Your receipt",
		"q=newsletter.example": "You are in!", "q=shop%2Boutlet": "You are in!", "to=travel%40example.org": "Platform change", "from=%3C%3E": "Undelivered Mail",
		"q=%25": "No message that the journal knows", "q=%27+OR+1--": "No message that the journal knows",
	} {
		page := w.get("/messages?" + query)
		if !strings.Contains(page, want) {
			t.Errorf("%s does not find %q", query, want)
		}
		if n := strings.Count(page, `class="mail"`); n == 0 != strings.HasPrefix(want, "No message") {
			t.Errorf("%s finds %d", query, n)
		}
	}
	seen := map[string]int{}
	pages, path := 0, "/messages?q=example.org"
	for ; path != ""; pages++ {
		page := w.get(path)
		for _, m := range regexp.MustCompile(`id="e(\d+)"`).FindAllStringSubmatch(page, -1) {
			seen[m[1]]++
		}
		path = ""
		if next := regexp.MustCompile(`href="([^"]*)" rel="next"`).FindStringSubmatch(page); next != nil {
			path = strings.ReplaceAll(next[1], "&amp;", "&")
		}
	}
	for number, n := range seen {
		if n != 1 {
			t.Errorf("event %s is on %d pages", number, n)
		}
	}
	if len(seen) != w.numbers || pages != (w.numbers+49)/50 {
		t.Errorf("%d of %d messages on %d pages", len(seen), w.numbers, pages)
	}
}

// TestFates: a list tells how it stands with the target that is worst off, not what
// the sender was told once.
func TestFates(t *testing.T) {
	const jane, sam = "jane.doe@gmail.com", "sam@outlook.com"
	event := func(target string, outcome journal.Outcome) journal.Event {
		return journal.Event{Time: now, Message: "01A", From: "ada@lovelace.example", Recipient: "Team@example.org", Targets: []string{target}, Outcome: outcome}
	}
	for _, tt := range []struct {
		want string
		then []journal.Entry
	}{
		{"queued", nil},
		{"queued", []journal.Entry{event(sam, journal.Delivered)}},
		{"delivered", []journal.Entry{event(sam, journal.Delivered), event(jane, journal.Delivered)}},
		{"held", []journal.Entry{event(jane, journal.Held), event(sam, journal.Delivered)}},
		{"reported", []journal.Entry{event(jane, journal.Reported), event(sam, journal.Delivered)}},
		{"queued", []journal.Entry{event(jane, journal.Held), event(jane, journal.Released), event(sam, journal.Delivered)}},
	} {
		w := newWorld(t, true, nil)
		w.write(journal.Message{
			ID: "01A", Arrived: now, Answered: now, From: sender("ada@lovelace.example"), Subject: "For both", Size: 1, Outcome: journal.Queued,
			Recipients: []message.Recipient{{Address: mailbox("team@example.org"), Targets: []address.Mailbox{mailbox(jane), mailbox(sam)}}},
		})
		w.write(tt.then...)
		if page := text(w.get("/messages")); !strings.Contains(page, "team@example.org first time "+tt.want) {
			t.Errorf("after %v: no %q in %s", tt.then, tt.want, page)
		}
	}
}

// TestLostJournal: without a journal the first page says so, and what needs none
// is there.
func TestLostJournal(t *testing.T) {
	w := newWorld(t, true, nil)
	w.live()
	w.StateDir = t.TempDir()
	if page := text(w.get("/")); !strings.Contains(page, "The journal cannot be read") {
		t.Error(page)
	}
	if page := text(w.get("/queue")); !strings.Contains(page, "jane.doe@gmail.com") {
		t.Error(page)
	}
	if a := w.do("GET", "/messages", nil, nil); a.code != 500 {
		t.Errorf("messages: %d", a.code)
	}
}

// TestHeaders: every answer says what a browser may do with it, and no page has
// anything in it that the policy would have to allow.
func TestHeaders(t *testing.T) {
	w := newWorld(t, true, nil)
	w.live()
	inline := regexp.MustCompile(`(?i)<style|<script[^>]*>[^<]|\sstyle=|\son[a-z]+=|(src|href|action)="?(https?:|//|javascript:)`)
	for _, path := range append(w.paths(), "/nothing", "/metrics", "/healthz", "/style.css", "/live.js", "/icon.svg") {
		a := w.do("GET", path, nil, nil)
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
			"X-Content-Type-Options":  "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %s: %q", path, name, got)
			}
		}
		if found := inline.FindString(a.body); found != "" && strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
			t.Errorf("%s has %q in it", path, found)
		}
	}
	a := w.do("GET", "/style.css", nil, nil)
	if b := w.do("GET", "/style.css", nil, func(r *http.Request) { r.Header.Set("If-None-Match", a.header.Get("Etag")) }); b.code != 304 {
		t.Errorf("the same style again: %d", b.code)
	}
}

// TestAccess: who may read and who may change, by where we listen, by the name we
// are called, by the token and by where the browser comes from.
func TestAccess(t *testing.T) {
	bearer := func(s string) func(*http.Request) { return func(r *http.Request) { r.Header.Set("Authorization", s) } }
	host := func(s string) func(*http.Request) { return func(r *http.Request) { r.Host = s } }
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	all := func(changes ...func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) {
			for _, c := range changes {
				c(r)
			}
		}
	}
	right := bearer("Bearer " + token)
	for _, tt := range []struct {
		name         string
		open         bool
		method, path string
		change       func(*http.Request)
		want         int
	}{
		{"read on loopback", true, "GET", "/", nil, 200},
		{"head", true, "HEAD", "/", nil, 200},
		{"metrics on loopback", true, "GET", "/metrics", nil, 200},
		{"change without the token", true, "POST", "/queue/1", nil, 401},
		{"change with the token", true, "POST", "/queue/1", right, 303},
		{"change with another", true, "POST", "/queue/1", bearer("Bearer " + token + "x"), 401},
		{"change with none", true, "POST", "/queue/1", bearer("Bearer "), 401},
		{"change by GET", true, "GET", "/queue/1?do=drop", right, 404},
		{"change from another site", true, "POST", "/queue/1", all(right, header("Sec-Fetch-Site", "cross-site")), 403},
		{"change from another port of this host", true, "POST", "/queue/1", all(right, header("Sec-Fetch-Site", "same-site")), 403},
		{"change from another origin", true, "POST", "/queue/1", all(right, header("Origin", "http://127.0.0.1:1")), 403},
		{"change from our page", true, "POST", "/queue/1", all(right, header("Sec-Fetch-Site", "same-origin")), 303},

		{"read elsewhere", false, "GET", "/", nil, 401},
		{"read elsewhere by browser", false, "GET", "/", header("Accept", "text/html"), 303},
		{"read elsewhere with the token", false, "GET", "/", right, 200},
		{"metrics elsewhere", false, "GET", "/metrics", nil, 401},
		{"health elsewhere", false, "GET", "/healthz", nil, 401},
		{"metrics elsewhere with the token", false, "GET", "/metrics", right, 200},
		{"script elsewhere", false, "GET", "/live.js", nil, 401},
		{"form elsewhere", false, "GET", "/login", nil, 200},
		{"style of it", false, "GET", "/style.css", nil, 200},
		{"change elsewhere", false, "POST", "/queue/1", nil, 401},

		{"by name", true, "GET", "/", host("localhost:8025"), 200},
		{"by an address", true, "GET", "/", host("192.0.2.1"), 200},
		{"by an IPv6 address", true, "GET", "/", host("[::1]:8025"), 200},
		{"by our name", true, "GET", "/", host("MX.example.org"), 200},
		{"by a name we were given", true, "GET", "/", host("status.example.org:80"), 401},
		{"the same with the token", true, "GET", "/", all(right, host("status.example.org:80")), 200},
		{"by a proxy", true, "GET", "/", header("X-Forwarded-For", "198.51.100.1"), 401},
		{"by a proxy with the token", true, "GET", "/", all(right, header("Via", "1.1 proxy")), 200},
		{"by a stranger's name", true, "GET", "/", host("evil.example"), 421},
		{"by a stranger's name for us", true, "GET", "/metrics", host("localhost.evil.example:8025"), 421},
		{"by what looks like an address", true, "GET", "/", host("127.0.0.1.evil.example"), 421},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.open, func(p *status.Page) { p.Hosts = []string{"status.example.org"} })
			w.enqueue("01A", everyday[0], nil)
			var form url.Values
			if tt.method == "POST" {
				form = url.Values{"do": {"retry"}}
			}
			if a := w.do(tt.method, tt.path, form, tt.change); a.code != tt.want {
				t.Errorf("%d, want %d: %s", a.code, tt.want, a.body)
			}
			_, err := w.Store.Item(t.Context(), 1)
			must(t, err)
		})
	}
	w := newWorld(t, true, func(p *status.Page) { p.Token = "" })
	for _, change := range []func(*http.Request){nil, bearer("Bearer "), header("Cookie", "onward="), header("Cookie", "onward=9999999999.")} {
		if a := w.do("POST", "/queue/1", url.Values{"do": {"drop"}}, change); a.code != 401 {
			t.Errorf("a change where there is no token: %d", a.code)
		}
	}
}

// TestSignIn: the form gives a cookie that no script and no other site has, which
// ends by itself, by another token, or by signing out.
func TestSignIn(t *testing.T) {
	w := newWorld(t, false, nil)
	at := now
	w.SetClock(func() time.Time { return at })
	if a := w.do("POST", "/login", url.Values{"token": {"guess"}}, nil); a.code != 403 || a.header.Get("Set-Cookie") != "" || !strings.Contains(w.log.String(), "wrong token") {
		t.Errorf("wrong: %d %v", a.code, a.header)
	}
	a := w.do("POST", "/login", url.Values{"token": {" " + token + "\n"}}, nil)
	cookie := a.header.Get("Set-Cookie")
	for _, want := range []string{"HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"} {
		if !strings.Contains(cookie, want) {
			t.Errorf("%d: no %s in %q", a.code, want, cookie)
		}
	}
	if strings.Contains(cookie, token) {
		t.Errorf("the token is in the cookie: %s", cookie)
	}
	value, _, _ := strings.Cut(cookie, ";")
	with := func(value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Cookie", value) }
	}
	ask := func(value string) int { return w.do("GET", "/", nil, with(value)).code }
	until, mac, _ := strings.Cut(strings.TrimPrefix(value, "onward="), ".")
	for value, want := range map[string]int{value: 200, "onward=" + until + "0." + mac: 401, "onward=" + until + ".": 401, "onward=" + until + "." + strings.Repeat("0", 64): 401, "onward=": 401} {
		if got := ask(value); got != want {
			t.Errorf("%s: %d, want %d", value, got, want)
		}
	}
	at = now.Add(13 * time.Hour)
	if got := ask(value); got != 401 {
		t.Errorf("a day later: %d", got)
	}
	at = now
	if a := w.do("POST", "/logout", url.Values{}, with(value)); a.code != 303 || !strings.Contains(a.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("signing out: %d %v", a.code, a.header)
	}
	w.Token = "another token, which is long enough"
	if got := ask(value); got != 401 {
		t.Errorf("with another token: %d", got)
	}
}

// TestDeeds: what is done here is done in the queue, and noted.
func TestDeeds(t *testing.T) {
	w := newWorld(t, true, nil)
	signed := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	do := func(id int64, deed string) answer {
		return w.do("POST", fmt.Sprintf("/queue/%d", id), url.Values{"do": {deed}}, signed)
	}
	item := w.enqueue("01A", everyday[0], nil)
	for _, tt := range []struct {
		deed string
		code int
		then func(*store.Item) bool
		note string
	}{
		{"release", 409, func(i *store.Item) bool { return i.State == store.Waiting && i.Next.After(now) }, ""},
		{"retry", 303, func(i *store.Item) bool { return i.State == store.Waiting && i.Next.Equal(now) }, "It is tried now"},
		{"hold", 303, func(i *store.Item) bool { return i.State == store.Held && i.Reason == "held on the status page" }, "It is held"},
		{"hold", 409, func(i *store.Item) bool { return i.State == store.Held }, ""},
		{"release", 303, func(i *store.Item) bool { return i.State == store.Waiting }, "It is released"},
		{"explode", 400, func(i *store.Item) bool { return i.State == store.Waiting }, ""},
		{"drop", 303, func(i *store.Item) bool { return i == nil }, "It is dropped"},
		{"drop", 404, func(i *store.Item) bool { return i == nil }, ""},
	} {
		a := do(item.ID, tt.deed)
		got, err := w.Store.Item(t.Context(), item.ID)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
		if a.code != tt.code || !tt.then(got) {
			t.Fatalf("%s: %d, and then %+v", tt.deed, a.code, got)
		}
		if tt.note != "" && !strings.Contains(w.get(a.header.Get("Location")), tt.note) {
			t.Errorf("%s is not confirmed", tt.deed)
		}
	}
	var words []string
	wait(t, "the journal", func() bool {
		r, err := journal.OpenReader(t.Context(), w.StateDir)
		must(t, err)
		defer r.Close()
		s, err := r.Story(t.Context(), "01A")
		words = nil
		if err == nil {
			for _, e := range s.Events {
				words = append(words, string(e.Outcome)+" by "+e.By)
			}
		}
		return len(words) == 4
	})
	if want := []string{"retried by status page", "held by status page", "released by status page", "dropped by status page"}; !slices.Equal(words, want) {
		t.Errorf("journal: %v", words)
	}
	busy := w.enqueue("01B", everyday[0], func(i *store.Item) { i.Next = now })
	ok, err := w.Store.Begin(t.Context(), busy, now, store.Lease{Owner: "x", Until: now.Add(time.Minute), Next: now.Add(time.Hour)})
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if a := do(busy.ID, "drop"); a.code != 409 || !strings.Contains(a.body, "being tried at this moment") {
		t.Errorf("busy: %d %s", a.code, text(a.body))
	}
	if a := do(-1, "drop"); a.code != 400 {
		t.Errorf("no item: %d", a.code)
	}
	if page := w.do("GET", "/queue", nil, signed).body; !strings.Contains(page, `value="hold"`) || !strings.Contains(page, "Sign out") {
		t.Error("who has the token has no buttons")
	}
	if page := w.get("/queue"); strings.Contains(page, `name="do"`) {
		t.Error("who has no token has buttons")
	}
}

// TestServe: the server listens where it may, ends when it should, and reads no
// more than it has to.
func TestServe(t *testing.T) {
	w := newWorld(t, true, func(p *status.Page) { p.Token = "" })
	everywhere, err := net.Listen("tcp", ":0")
	must(t, err)
	if err := w.Serve(t.Context(), everywhere); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("on all addresses without a token: %v", err)
	}
	short := newWorld(t, true, func(p *status.Page) { p.Token = "letmein" })
	again, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	if err := short.Serve(t.Context(), again); err == nil || !strings.Contains(err.Error(), "20 characters") {
		t.Errorf("with a short token: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Serve(ctx, l) }()
	get := func(path string, body io.Reader, change func(*http.Request)) int {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+l.Addr().String()+path, body)
		must(t, err)
		if change != nil {
			change(r)
		}
		resp, err := http.DefaultTransport.RoundTrip(r)
		must(t, err)
		resp.Body.Close()
		return resp.StatusCode
	}
	if code := get("/healthz", nil, nil); code != 200 {
		t.Errorf("healthz: %d", code)
	}
	if code := get("/", nil, func(r *http.Request) { r.Header.Set("X", strings.Repeat("x", 40_000)) }); code != 431 {
		t.Errorf("a large header: %d", code)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("it still listens")
	}

	elsewhere := newWorld(t, false, nil)
	if a := elsewhere.do("POST", "/login", url.Values{"token": {strings.Repeat("x", 8_000)}}, nil); a.code == 303 {
		t.Errorf("a large form: %d", a.code)
	}
}

// TestReady: ready is who can take mail and keep it.
func TestReady(t *testing.T) {
	var trouble error
	w := newWorld(t, true, func(p *status.Page) { p.Ready = func() error { return trouble } })
	if a := w.do("GET", "/readyz", nil, nil); a.code != 200 || a.body != "ready\n" {
		t.Errorf("%d %q", a.code, a.body)
	}
	trouble = errors.New("nobody listens on :25")
	if a := w.do("GET", "/readyz", nil, nil); a.code != 503 || !strings.Contains(a.body, "nobody listens") {
		t.Errorf("%d %q", a.code, a.body)
	}
	if a := w.do("GET", "/healthz", nil, nil); a.code != 200 {
		t.Errorf("healthz: %d", a.code)
	}
	if page := text(w.get("/")); !strings.Contains(page, "not ready: nobody listens on :25") {
		t.Error(page)
	}
	w.Store.Close()
	trouble = nil
	if page := w.do("GET", "/queue", nil, nil); page.code != 500 {
		t.Errorf("without a store: %d", page.code)
	}
}

// TestExaminations: the doctor comes a minute after the start and every six hours,
// and what comes of half an examination counts for nothing.
func TestExaminations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var visits atomic.Int32
		p := &status.Page{Examine: func(ctx context.Context) []status.Check {
			n := visits.Add(1)
			if n == 2 {
				<-ctx.Done()
				return nil
			}
			return examined[:n]
		}}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { p.RunDoctor(ctx); close(ended) }()
		for _, tt := range []struct {
			after  time.Duration
			visits int32
			checks int
		}{{59 * time.Second, 0, 0}, {2 * time.Second, 1, 1}, {6 * time.Hour, 2, 1}, {2 * time.Minute, 2, 1}, {6 * time.Hour, 3, 3}} {
			time.Sleep(tt.after)
			synctest.Wait()
			if n, checks := visits.Load(), p.Checks(); n != tt.visits || len(checks) != tt.checks {
				t.Errorf("after %v more: %d visits, %d checks", tt.after, n, len(checks))
			}
		}
		stop()
		<-ended
	})
}

// TestTroubles: what else is wrong stands on the first page.
func TestTroubles(t *testing.T) {
	w := newWorld(t, true, func(p *status.Page) {
		p.Troubles = func() []string { return []string{"onward.yaml line 7 is wrong: the old configuration stays in force."} }
		p.Expires = func() time.Time { return now.Add(50 * time.Hour) }
	})
	w.enqueue("01A", letter{at: now.Add(-31 * time.Hour), to: "me@example.org"}, nil)
	page := text(w.get("/"))
	for _, want := range []string{"4 things need a look", "The oldest message in the queue has waited for 31 h", "onward.yaml line 7 is wrong", "The certificate ends in 2 days"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in %s", want, page)
		}
	}
}
