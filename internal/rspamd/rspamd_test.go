package rspamd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/filter"
	"onward/internal/message"
	"onward/internal/testpeer"
)

const letter = "From: ada@sender.example\r\nSubject: hello\r\n\r\n.\x00 \xff\r\n"

// client makes a Client of a server, whose log is the returned buffer.
func client(t testing.TB, url string) (*Client, *bytes.Buffer) {
	t.Helper()
	log := &bytes.Buffer{}
	c, err := New(url, "mx.example.org", slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return c, log
}

// serve starts a server that does what handle says.
func serve(t testing.TB, handle http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

// says answers with a fixed text, after reading the message.
func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, text)
	}
}

func TestOpinions(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		want         filter.Opinion
		reply        string
	}{
		{"no action", `{"action":"no action","score":1.5,"required_score":15.0,"symbols":{},"messages":{}}`, filter.Opinion{Why: "rspamd: no action, score 1.50"}, ""},
		{"old form", `{"action":"no action","score":-1,"symbols":{"A":{"name":"A","score":-1}},"messages":[]}`, filter.Opinion{Why: "rspamd: no action, score -1.00 (A -1.00)"}, ""},
		{"reject", `{"action":"reject","score":20}`, filter.Opinion{Why: "rspamd: reject, score 20.00"}, "550 5.7.1 this message looks like spam"},
		{"reject in a skipped task", `{"is_skipped":true,"action":"reject","score":15,"messages":{"smtp_message":"Gtube pattern"}}`, filter.Opinion{Why: "rspamd: reject, score 15.00"}, "550 5.7.1 Gtube pattern"},
		{"hostile words", `{"action":"reject","messages":{"smtp_message":"no\r\n250 ok\u001b[1m"}}`, filter.Opinion{Why: "rspamd: reject, score 0.00"}, "550 5.7.1 no  250 ok?[1m"},
		{"no words", `{"action":"reject","messages":{"smtp_message":7}}`, filter.Opinion{Why: "rspamd: reject, score 0.00"}, "550 5.7.1 this message looks like spam"},
		{"discard", `{"action":"discard"}`, filter.Opinion{Why: "rspamd: discard, score 0.00"}, "550 5.7.1 this message looks like spam"},
		{"soft reject", `{"action":"soft reject","messages":{"smtp_message":"slow down"},"symbols":{"GREYLIST":{"score":0,"options":["pass"]}}}`, filter.Opinion{Why: "rspamd: soft reject, score 0.00"}, "451 4.7.1 slow down"},
		{"greylisting module", `{"action":"soft reject","symbols":{"GREYLIST":{"score":0,"options":["greylisted","Mon, 1 Jan","new record"]}}}`, filter.Opinion{Why: "rspamd: soft reject, score 0.00"}, ""},
		{"greylist", `{"action":"greylist","score":4}`, filter.Opinion{Why: "rspamd: greylist, score 4.00"}, ""},
		{"add header", `{"action":"add header","score":7}`, filter.Opinion{Junk: true, Why: "rspamd: add header, score 7.00"}, ""},
		{"rewrite subject", `{"action":"rewrite subject","score":7}`, filter.Opinion{Junk: true, Why: "rspamd: rewrite subject, score 7.00"}, ""},
		{"quarantine", `{"action":"quarantine"}`, filter.Opinion{Junk: true, Why: "rspamd: quarantine, score 0.00"}, ""},
		{"an operator's own", `{"action":"my\naction"}`, filter.Opinion{Why: "rspamd: my action, score 0.00"}, ""},
		{"symbols", `{"action":"add header","symbols":{"B":{"score":2},"A":{"score":2},"C":{"score":-3.14},"D":{"score":0},"E\n":{"score":0.5}}}`,
			filter.Opinion{Junk: true, Why: "rspamd: add header, score 0.00 (C -3.14, A 2.00, B 2.00, E  0.50)"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, log := client(t, serve(t, says(tt.answer)).URL)
			got := c.Check(t.Context(), testpeer.Envelope(), "", testpeer.Message(t, letter))
			said := ""
			if got.Reply != nil {
				said = got.Reply.String()
			}
			if got.Reply = nil; got != tt.want || said != tt.reply || log.Len() > 0 {
				t.Errorf("got %+v, %q, log %q; want %+v, %q", got, said, log, tt.want, tt.reply)
			}
		})
	}
}

// TestRequest holds what is sent: the message as it came, and all about it.
func TestRequest(t *testing.T) {
	var connections atomic.Int32
	var got *http.Request
	var body []byte
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		io.WriteString(w, "{\"action\":\"no action\"}\n")
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	c, _ := client(t, s.URL+"/")
	long := strings.Repeat("0123456789abcde\n", message.MemoryLimit/8)
	for _, text := range []string{letter, letter + long} {
		if o := c.Check(t.Context(), testpeer.Envelope(), "host.sender.example", testpeer.Message(t, text)); !strings.HasPrefix(o.Why, "rspamd: no action,") {
			t.Fatalf("got %+v", o)
		}
		if string(body) != text || got.ContentLength != int64(len(text)) || got.URL.Path != "/checkv2" || got.Method != "POST" {
			t.Errorf("%s %s with %d octets, announced %d", got.Method, got.URL, len(body), got.ContentLength)
		}
	}
	for key, want := range map[string]string{
		"Ip": "[192.0.2.1]", "Helo": "[mail.sender.example]", "From": `["ada b"@sender.example]`, "Rcpt": "[me@example.org dürer@example.org]",
		"Queue-Id": "[01K0000000000000000000TEST]", "Mta-Name": "[mx.example.org]", "Hostname": "[host.sender.example]",
	} {
		if said := fmt.Sprint(got.Header[key]); said != want {
			t.Errorf("%s: %s, want %s", key, said, want)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections for two messages", n)
	}
}

// TestMemory holds that a message of 50 MiB is not held in memory.
func TestMemory(t *testing.T) {
	var size atomic.Int64
	c, _ := client(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		size.Store(n)
		io.WriteString(w, `{"action":"no action"}`)
	}).URL)
	pieces := []string{letter}
	block := strings.Repeat("0123456789abcd\r\n", 1<<16)
	for range 49 {
		pieces = append(pieces, block)
	}
	msg := testpeer.Message(t, pieces...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	o := c.Check(t.Context(), testpeer.Envelope(), "", msg)
	runtime.ReadMemStats(&after)
	if !strings.HasPrefix(o.Why, "rspamd: no action,") || size.Load() != msg.Size() {
		t.Errorf("got %+v for %d of %d octets", o, size.Load(), msg.Size())
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("allocated %d octets", used)
	}
}

// TestTrouble holds that no trouble of the server refuses or delays mail, and
// that each is told.
func TestTrouble(t *testing.T) {
	elsewhere := serve(t, says(`{"action":"reject"}`))
	for _, tt := range []struct {
		name string
		do   http.HandlerFunc
		log  string
	}{
		{"an error", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "{\"action\":\"reject\"}", 500) }, "500"},
		{"not found", http.NotFound, "404"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+"/checkv2", http.StatusTemporaryRedirect)
		}, "307"},
		{"no JSON", says("<html>"), "its answer"},
		{"half an answer", says(`{"action":"reject"`), "its answer"},
		{"wrong types", says(`{"action":["reject"]}`), "its answer"},
		{"no action", says(`{"error":"x"}`), "11333"},
		{"nothing", says(""), "its answer"},
		{"too much", says(`{"action":"reject","x":"` + strings.Repeat("x", maxAnswer) + `"}`), "longer than"},
		{"no end", func(w http.ResponseWriter, r *http.Request) {
			for block := strings.Repeat(" ", 1<<16); ; {
				if _, err := io.WriteString(w, block); err != nil {
					return
				}
			}
		}, "longer than"},
		{"endless header", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 2*maxSaid))
			io.WriteString(w, `{"action":"reject"}`)
		}, "header"},
		{"hangs up", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, "unchecked=1"},
		{"silence", func(w http.ResponseWriter, r *http.Request) { time.Sleep(1500 * time.Millisecond) }, "deadline"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, log := client(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				tt.do(w, r)
			}).URL)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if o := c.Check(ctx, testpeer.Envelope(), "", testpeer.Message(t, letter, strings.Repeat("x", message.MemoryLimit))); o != (filter.Opinion{}) {
				t.Errorf("got %+v", o)
			}
			if !strings.Contains(log.String(), tt.log) || !strings.Contains(log.String(), "01K0000000000000000000TEST") {
				t.Errorf("log %q, want %q", log, tt.log)
			}
		})
	}
}

// TestAway holds that a server which is not there costs no time, and is written
// about once.
func TestAway(t *testing.T) {
	s := serve(t, nil)
	s.Close()
	c, log := client(t, s.URL)
	for range 3 {
		if o := c.Check(t.Context(), testpeer.Envelope(), "", testpeer.Message(t, letter)); o != (filter.Opinion{}) {
			t.Errorf("got %+v", o)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "refused") {
		t.Errorf("%d lines: %s", n, log)
	}
	c, log = client(t, s.URL)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.Check(ctx, testpeer.Envelope(), "", testpeer.Message(t, letter))
	if log.Len() > 0 {
		t.Errorf("our own stop is blamed on the server: %s", log)
	}
}

// TestSlow holds our own patience.
func TestSlow(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { <-release })
	defer close(release)
	c, log := client(t, s.URL)
	began := time.Now()
	o := c.Check(t.Context(), testpeer.Envelope(), "", testpeer.Message(t, letter))
	if took := time.Since(began); o != (filter.Opinion{}) || took < timeout || took > timeout+5*time.Second || log.Len() == 0 {
		t.Errorf("got %+v after %v, log %q", o, took, log)
	}
}

func TestCheckURL(t *testing.T) {
	for _, good := range []string{"http://127.0.0.1:11333", "http://rspamd:11333/", "https://[::1]:443"} {
		if err := CheckURL(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "127.0.0.1:11333", "ftp://x", "http://", "http://u:p@x", "http://x/checkv2", "http://x?y", "http://x#y", "http://x:y", "unix:/run/x"} {
		if CheckURL(bad) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// rules make a real rspamd do what the subject says, and tell what it knows.
const rules = `
rspamd_config:register_symbol({name = 'ORDER', type = 'prefilter', callback = function(task)
  local subject = task:get_header('Subject') or ''
  local words = {}
  table.insert(words, tostring(task:get_from_ip()))
  table.insert(words, tostring(task:get_helo()))
  table.insert(words, tostring(task:get_hostname()))
  table.insert(words, tostring((task:get_from('smtp') or {{}})[1].addr))
  for _, r in ipairs(task:get_recipients('smtp') or {}) do table.insert(words, r.addr) end
  table.insert(words, tostring(task:get_request_header('Queue-Id')))
  table.insert(words, tostring(task:get_request_header('MTA-Name')))
  table.insert(words, tostring(task:get_size()))
  task:set_pre_result(subject, table.concat(words, ' '), 'test')
end})
`

// TestRealRspamd meets the program itself.
func TestRealRspamd(t *testing.T) {
	testpeer.Need(t, "rspamd")
	c, log := client(t, testpeer.StartRspamd(t, rules))
	body := "\r\n\r\n" + strings.Repeat("0123456789abcd\r\n", 1<<16)
	for _, tt := range []struct {
		action string
		code   int
		junk   bool
	}{
		{"no action", 0, false}, {"greylist", 0, false}, {"add header", 0, true}, {"rewrite subject", 0, true},
		{"soft reject", 451, false}, {"reject", 550, false},
	} {
		msg := testpeer.Message(t, "From: a@b.example\r\nSubject: ", tt.action, body)
		env := testpeer.Envelope() // rspamd 3.4 leaves out the recipient that is not ASCII
		o := c.Check(t.Context(), env, "host.sender.example", msg)
		code, said := 0, ""
		if o.Reply != nil {
			code, said = o.Reply.Code, o.Reply.Text
		}
		want := fmt.Sprintf("192.0.2.1 mail.sender.example host.sender.example ada b@sender.example me@example.org %s mx.example.org %d", env.ID, msg.Size())
		if !strings.HasPrefix(o.Why, "rspamd: "+tt.action+",") || code != tt.code || o.Junk != tt.junk || code != 0 && said != want {
			t.Errorf("%s: %+v, %d %q; want %q", tt.action, o, code, said, want)
		}
	}
	env := testpeer.Envelope()
	env.From = address.ReversePath{}
	if o := c.Check(t.Context(), env, "", testpeer.Message(t, "Subject: reject\r\n\r\n")); o.Reply == nil || !strings.Contains(o.Reply.Text, "mail.sender.example") {
		t.Errorf("a bounce: %+v", o)
	}
	env.Client = netip.MustParseAddr("2001:db8::1")
	if o := c.Check(t.Context(), env, "", testpeer.Message(t, "From: a@b.example\r\nSubject: x\r\n\r\n"+
		"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n")); o.Reply == nil || o.Reply.Code != 550 {
		t.Errorf("GTUBE: %+v", o)
	}
	if log.Len() > 0 {
		t.Error(log)
	}
}
