package smtpclient_test

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"onward/internal/resolver"
	"onward/internal/smtpclient"
)

const password = "pässword+1"

// A relay is a submission server with a certificate for example.com and
// 127.0.0.1. It takes the credentials of user and password.
type relay struct {
	implicit bool
	offer    string // after EHLO, in TLS: "AUTH PLAIN LOGIN"
	clear    string // in clear: "STARTTLS"
	auth     string // the answer to good credentials, and to all others 535
	said     map[string]string

	mu       sync.Mutex
	heard    []string // lines, "*" before those in TLS
	sessions int
}

func (r *relay) hear(line string, secure bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if secure {
		line = "*" + line
	}
	r.heard = append(r.heard, line)
}

// talk is a session of the server.
func (r *relay) talk(conn net.Conn, config *tls.Config) {
	r.mu.Lock()
	r.sessions++
	r.mu.Unlock()
	secure := r.implicit
	if secure {
		conn = tls.Server(conn, config)
	}
	lines := bufio.NewReader(conn)
	next := func() string {
		line, err := lines.ReadString('\n')
		if err != nil {
			return "QUIT"
		}
		line = strings.TrimSuffix(line, "\r\n")
		r.hear(line, secure)
		return line
	}
	decoded := func(s string) string { b, _ := base64.StdEncoding.DecodeString(s); return string(b) }
	fmt.Fprint(conn, "220 relay ESMTP\r\n")
	for line := next(); line != "QUIT"; line = next() {
		verb, rest, _ := strings.Cut(line, " ")
		answer := "250 2.0.0 ok"
		switch {
		case r.said[verb] != "":
			answer = strings.ReplaceAll(r.said[verb], "$", line)
		case verb == "EHLO" && secure:
			answer = "250-relay\r\n250-PIPELINING\r\n250 " + r.offer
		case verb == "EHLO":
			answer = "250-relay\r\n250 " + r.clear
		case verb == "STARTTLS":
			fmt.Fprint(conn, "220 go\r\n")
			secure, conn = true, tls.Server(conn, config)
			lines.Reset(conn)
			continue
		case verb == "AUTH":
			answer = "535 5.7.8 no, user"
			if rest == "LOGIN" {
				fmt.Fprint(conn, "334 VXNlcm5hbWU6\r\n")
				user := decoded(next())
				fmt.Fprint(conn, "334 UGFzc3dvcmQ6\r\n")
				if user == "user@x" && decoded(next()) == password {
					answer = r.auth
				}
			} else if decoded(strings.TrimPrefix(rest, "PLAIN ")) == "\x00user@x\x00"+password {
				answer = r.auth
			}
		case verb == "DATA":
			fmt.Fprint(conn, "354 go\r\n")
			for line := next(); line != "." && line != "QUIT"; line = next() {
			}
			answer = cmp.Or(r.said["."], answer)
		}
		fmt.Fprint(conn, answer+"\r\n")
	}
}

// through makes w send everything through r, which is started.
func (w *world) through(t *testing.T, r *relay) *smtpclient.Relay {
	t.Helper()
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS() // has a certificate to lend
	t.Cleanup(web.Close)
	if r.auth == "" {
		r.auth = "235 2.7.0 ok"
	}
	port := scripted(t, func(conn net.Conn) { r.talk(conn, &tls.Config{Certificates: web.TLS.Certificates}) })
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	w.set(t, "example.com", resolver.TypeA, "127.0.0.1")
	w.AllowPrivate = false // the relay may be anywhere, even here
	w.Listening = []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))}
	w.Relay = &smtpclient.Relay{
		Host: "example.com", Port: uint16(port), ImplicitTLS: r.implicit, RootCAs: roots,
		User: "user@x", Password: func() (string, error) { return password, nil },
	}
	return w.Relay
}

// TestRelay: all mail goes to the relay host, over verified TLS, after AUTH, and
// credentials stand in no log and no error.
func TestRelay(t *testing.T) {
	secrets := []string{password, base64.StdEncoding.EncodeToString([]byte(password)), base64.StdEncoding.EncodeToString([]byte("\x00user@x\x00" + password))}
	for _, tt := range []struct {
		name   string
		relay  *relay
		change func(*smtpclient.Relay)
		reply  string
		step   string
		us     bool
		err    string // in the log
	}{
		{name: "STARTTLS", relay: &relay{clear: "STARTTLS", offer: "AUTH LOGIN PLAIN"}},
		{name: "TLS at once", relay: &relay{implicit: true, offer: "AUTH PLAIN"}},
		{name: "LOGIN", relay: &relay{implicit: true, offer: "auth login xoauth2"}},
		{name: "no user", relay: &relay{clear: "STARTTLS", offer: "SIZE"}, change: func(r *smtpclient.Relay) { r.User, r.Password = "", nil }},
		{name: "address", relay: &relay{clear: "STARTTLS", offer: "AUTH PLAIN"}, change: func(r *smtpclient.Relay) { r.Host = "[127.0.0.1]" }},

		{name: "no STARTTLS", relay: &relay{clear: "AUTH PLAIN LOGIN"}, reply: "451 4.3.0 trouble on our side", step: "EHLO", us: true, err: "does not offer STARTTLS"},
		{name: "STARTTLS refused", relay: &relay{clear: "STARTTLS", said: map[string]string{"STARTTLS": "454 4.7.0 not now"}}, reply: "451 4.3.0 trouble on our side", step: "STARTTLS", us: true, err: "454 4.7.0 not now"},
		{name: "strange certificate", relay: &relay{clear: "STARTTLS", offer: "AUTH PLAIN"}, change: func(r *smtpclient.Relay) { r.RootCAs = x509.NewCertPool() }, reply: "451 4.3.0", step: "STARTTLS", us: true, err: "certificate signed by unknown authority"},
		{name: "system's roots", relay: &relay{clear: "STARTTLS", offer: "AUTH PLAIN"}, change: func(r *smtpclient.Relay) { r.RootCAs = nil }, reply: "451 4.3.0", step: "STARTTLS", us: true, err: "certificate"},
		{name: "certificate of another", relay: &relay{implicit: true, offer: "AUTH PLAIN"}, change: func(r *smtpclient.Relay) { r.Host = "mail.test" }, reply: "451 4.3.0", step: "TLS", us: true, err: "not mail.test"},
		{name: "no such relay", change: func(r *smtpclient.Relay) { r.Host = "none.test" }, reply: "451 4.3.0", step: "lookup", us: true, err: "has no address"},
		{name: "no AUTH", relay: &relay{clear: "STARTTLS", offer: "AUTH GSSAPI"}, reply: "451 4.3.0", step: "AUTH", us: true, err: "neither AUTH PLAIN nor AUTH LOGIN"},
		{name: "no password", relay: &relay{clear: "STARTTLS", offer: "AUTH PLAIN"}, change: func(r *smtpclient.Relay) {
			r.Password = func() (string, error) { return "", errors.New("no such file") }
		}, reply: "451 4.3.0", step: "AUTH", us: true, err: "no such file"},
		{name: "wrong password", relay: &relay{clear: "STARTTLS", offer: "AUTH PLAIN", auth: "535 5.7.8 Username and Password not accepted"}, reply: "451 4.3.0 trouble on our side", step: "AUTH", us: true, err: "Username and Password not accepted"},
		{name: "answer repeats all", relay: &relay{clear: "STARTTLS", offer: "AUTH PLAIN", said: map[string]string{"AUTH": "500 5.5.1 what is $"}}, reply: "451 4.3.0", step: "AUTH", us: true, err: "500"},
		{name: "wrong answer", relay: &relay{clear: "STARTTLS", offer: "AUTH PLAIN", auth: "250 ok"}, reply: "451 4.5.0", step: "AUTH"},
		{name: "refuses the sender", relay: &relay{clear: "STARTTLS", offer: "AUTH PLAIN", said: map[string]string{"MAIL": "553 5.7.1 not verified"}}, reply: "451 4.3.0 trouble on our side", step: "MAIL", us: true, err: "553 5.7.1 not verified"},
		{name: "wants AUTH after all", relay: &relay{clear: "STARTTLS", said: map[string]string{"MAIL": "530 5.7.0 Authentication Required"}}, change: func(r *smtpclient.Relay) { r.User = "" }, reply: "451 4.3.0", step: "MAIL", us: true, err: "Authentication Required"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log strings.Builder
			w := newWorld(t)
			w.share(t, nil)
			w.Log = logTo(&log)
			r := cmp.Or(tt.relay, &relay{})
			if c := w.through(t, r); tt.change != nil {
				tt.change(c)
			}
			out := w.Deliver(t.Context(), to("joe@gmail.example", short))
			if tt.reply == "" {
				tt.reply, tt.step = "250", "dot"
			}
			if !strings.HasPrefix(out.Reply.String(), tt.reply) || out.Step != tt.step || out.AboutUs != tt.us || !out.Tried {
				t.Errorf("%v %v after %s, about us %v: %v", out.Result, out.Reply, out.Step, out.AboutUs, out.Reply.Err)
			}
			if tt.us != strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), tt.err) {
				t.Errorf("logged %q", log.String())
			}
			if tt.reply == "250" {
				if out.TLS == "" || out.Host != w.Relay.Host {
					t.Errorf("outcome %+v", out)
				}
				w.deliver(t, "ann@gmail.example")
			}
			w.Destinations.Close()
			for _, secret := range append(secrets, "user@x") {
				if s := fmt.Sprint(log.String(), out.Reply.Error(), out.Said, w.Destinations.Snapshot()); strings.Contains(s, secret) {
					t.Errorf("%q in %q", secret, s)
				}
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, line := range r.heard {
				if verb, _, _ := strings.Cut(line, " "); verb != "EHLO" && verb != "STARTTLS" && verb != "QUIT" && !strings.HasPrefix(line, "*") {
					t.Errorf("in clear: %q", line)
				}
			}
			if r.sessions > 1 {
				t.Errorf("%d sessions", r.sessions)
			}
			if tt.reply == "250" && (r.sessions != 1 || !slices.Contains(r.heard, "*RCPT TO:<joe@gmail.example>") || !slices.Contains(r.heard, "*RCPT TO:<ann@gmail.example>")) {
				t.Errorf("%d sessions heard %q", r.sessions, r.heard)
			}
		})
	}
}

// relaySays is what services say of our account with them, in their words, and
// what they say of the message in the same places.
var relaySays = []struct{ step, said, want string }{
	// Postfix, Exim, sendmail.
	{"RCPT", "554 5.7.1 <joe@gmail.example>: Relay access denied", "us"},
	{"RCPT", "550 relay not permitted", "us"},
	{"RCPT", "550 5.7.1 <joe@gmail.example>... Relaying denied", "us"},
	{"RCPT", "550 mx.onward.test is not permitted to relay through this server without authentication.", "us"},
	{"RCPT", "553 5.7.1 <ada@onward.test>: Sender address rejected: not owned by user ada", "us"},
	// Amazon SES.
	{".", "554 Message rejected: Email address is not verified. The following identities failed the check in region EU-WEST-1: ada@onward.test", "us"},
	{".", "554 Message rejected: Sending suspended for this account. For more information, please check the inbox", "us"},
	{".", "554 Message rejected: Sending paused for this account.", "us"},
	{".", "554 Access denied: User `arn:aws:iam::1:user/x' is not authorized to perform `ses:SendRawEmail' on resource `y'", "us"},
	{".", "554 Transaction failed: Duplicate header 'Subject'.", "refused"},
	// SendGrid, Mailgun, SMTP2GO, Brevo.
	{".", "550 The from address does not match a verified Sender Identity. Mail cannot be sent until this error is resolved.", "us"},
	{".", "550 You are not authorized to send from that email address", "us"},
	{"MAIL", "550 Unauthenticated senders not allowed", "us"},
	{"DATA", "550 Maximum credits exceeded", "us"},
	{".", "550 Domain onward.test is not allowed to send: The domain is unverified and requires DNS configuration.", "us"},
	{".", "550 5.7.1 Your account has been disabled", "us"},
	{".", "550 From header sender domain not verified", "us"},
	{"MAIL", "502 5.7.0 Your SMTP account is not yet activated. Please contact us", "us"},
	// Gmail.
	{"RCPT", "550-5.7.1 Invalid credentials for relay [192.0.2.1]. The IP address you've\r\n550 5.7.1 registered in your Workspace SMTP Relay service doesn't match", "us"},
	{"RCPT", "550 5.7.0 Mail relay denied [192.0.2.1]. Invalid credentials for relay", "us"},
	{"MAIL", "550 5.4.5 Daily SMTP relay limit exceeded for user", "us"},
	// Microsoft 365.
	{".", "550 5.7.60 SMTP; Client does not have permissions to send as this sender", "us"},
	{".", "554 5.2.252 SendAsDenied; ada@onward.test not allowed to send as bob@example.net", "us"},
	{"RCPT", "550 5.7.64 TenantAttribution; Relay Access Denied", "us"},
	{"RCPT", "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", "us"},
	{".", "550 5.7.705 Access denied, tenant has exceeded threshold", "us"},
	{".", "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients", "us"},
	// At MAIL it knows only us, and what the parameters say of the message.
	{"MAIL", "550 5.1.0 no", "us"},
	{"MAIL", "501 Invalid MAIL FROM address provided", "us"},
	{"MAIL", "552 5.3.4 Message too big for system", "refused"},
	{"MAIL", "552 message size exceeds fixed limit", "refused"},
	{"MAIL", "550 5.3.4 too large", "refused"},
	{"MAIL", "554 5.6.7 no SMTPUTF8 here", "refused"},
	{"MAIL", "451 4.3.0 later", "deferred"},
	// About the recipient or the message.
	{"RCPT", "550 5.1.1 no such user", "refused"},
	{"RCPT", "550 5.2.1 The email account that you tried to reach is disabled", "refused"},
	{"RCPT", "550 5.2.1 account disabled", "refused"},
	{".", "552 5.3.4 Message too large", "refused"},
	{".", "550 5.7.1 this looks like spam", "refused"},
	{".", "451 4.7.1 Sending quota, wait", "deferred"},
}

// TestRelaySays: what a relay holds against our account is no fault of the sender,
// who is told to come again and nothing of the account, while somebody is warned.
func TestRelaySays(t *testing.T) {
	for _, tt := range relaySays {
		t.Run(tt.step+" "+tt.said[:min(len(tt.said), 50)], func(t *testing.T) {
			var log strings.Builder
			w := newWorld(t)
			w.Log = logTo(&log)
			w.through(t, &relay{implicit: true, offer: "AUTH PLAIN", said: map[string]string{tt.step: tt.said}})
			out := w.Deliver(t.Context(), to("joe@gmail.example", short))
			got := out.Result.String()
			if out.AboutUs {
				got = "us"
			}
			if got != tt.want || out.AboutUs != strings.Contains(log.String(), "level=WARN") || out.Said == nil {
				t.Errorf("%q with %q, want %q; said %v, logged %q", got, out.Reply, tt.want, out.Said, log.String())
			}
			if tt.want == "us" && (out.Result != smtpclient.Deferred || out.Reply.String() != "451 4.3.0 trouble on our side, please try again later") {
				t.Errorf("%v with %q", out.Result, out.Reply)
			}
		})
	}
}

// TestRelayAccounts: a connection of one account does not serve another.
func TestRelayAccounts(t *testing.T) {
	w := newWorld(t)
	w.share(t, nil).SetIdleTime(50 * time.Millisecond) // the relay takes one connection after another
	other := *w.through(t, &relay{implicit: true, offer: "AUTH PLAIN"})
	w.deliver(t, "joe@gmail.example")
	w.Relay, other.User = &other, "ann@x"
	want(t, w.Deliver(t.Context(), to("joe@gmail.example", short)), smtpclient.Deferred, "451 4.3.0", "AUTH")
}

func TestParseRelay(t *testing.T) {
	for in, want := range map[string]string{
		"smtp+starttls://user@smtp.example.net:587":    "user smtp.example.net 587 false",
		"smtp+starttls://SMTP.example.net":             " smtp.example.net 587 false",
		"smtps://user%40example.net@smtp.example.net/": "user@example.net smtp.example.net 465 true",
		"smtps://localhost:2465":                       " localhost 2465 true",
		"smtps://192.0.2.1":                            " [192.0.2.1] 465 true",
		"smtp+starttls://[2001:db8::1]:25":             " [IPv6:2001:db8::1] 25 false",
		"smtp+starttls://bücher.example":               " xn--bcher-kva.example 587 false",
		"":                                             "begins with",
		"smtp.example.net:587":                         "begins with",
		"smtp://user@smtp.example.net":                 "never goes to it in clear",
		"https://smtp.example.net":                     "begins with",
		"smtps://user:hunter2@smtp.example.net":        "has a password in it",
		"smtps://user:@smtp.example.net":               "has a password in it",
		"smtps://user:hunter2%@smtp.example.net":       "is not a URL",
		"smtps://hunter2:x y@smtp.example.net":         "is not a URL",
		"smtps://":                                     "no host",
		"smtps://user@":                                "no host",
		"smtps://-x.example":                           "no host",
		"smtps://a_host..example":                      "no host",
		"smtps://1.2.3":                                "no host",
		"smtps://[fe80::1%25eth0]":                     "no host",
		"smtps://smtp.example.net:0":                   "port",
		"smtps://smtp.example.net:99999":               "port",
		"smtps://smtp.example.net:x":                   "is not a URL",
		"smtps://smtp.example.net/inbox":               "ends with its host",
		"smtps://smtp.example.net?x=y":                 "ends with its host",
		"smtps://smtp.example.net#x":                   "ends with its host",
		"smtps://a%0D%0Ab@smtp.example.net":            "control character",
		"smtps:smtp.example.net":                       "ends with its host",
	} {
		r, err := smtpclient.ParseRelay(in)
		got := fmt.Sprint(r.User, " ", r.Host, " ", r.Port, " ", r.ImplicitTLS)
		if err != nil {
			if got = err.Error(); strings.Contains(got, "hunter2") || r.Host != "" {
				t.Errorf("%q: %q with %+v", in, got, r)
			}
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
