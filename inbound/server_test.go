package inbound

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/alias"
	"onward/internal/config"
	"onward/internal/journal"
	"onward/internal/loop"
	"onward/internal/mailauth"
	"onward/internal/message"
	"onward/internal/reply"
	"onward/internal/replyaddr"
	"onward/internal/resolver"
	"onward/internal/returnpath"
	"onward/srs"
)

// A message as an Acceptor got it.
type taken struct {
	env   *message.Envelope
	bytes string
}

// A fakeOwner takes messages and answers as told.
type fakeOwner struct {
	mu     sync.Mutex
	taken  []taken
	answer error
	hold   chan struct{} // Accept waits for it, when not nil
	heard  map[string]bool
}

func (o *fakeOwner) Accept(ctx context.Context, env *message.Envelope, _ *mailauth.Verdict, msg *message.Message) (*reply.Reply, bool) {
	b, err := io.ReadAll(msg.Reader())
	if err != nil {
		return reply.Trouble(err), false
	}
	o.mu.Lock()
	o.taken = append(o.taken, taken{env, string(b)})
	hold, answer := o.hold, o.answer
	o.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return reply.Trouble(ctx.Err()), false
		}
	}
	if answer != nil {
		return reply.From(answer), false
	}
	return reply.New(250, "2.0.0", "forwarded"), false
}

func (o *fakeOwner) Answered(id string, heard bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.heard == nil {
		o.heard = map[string]bool{}
	}
	o.heard[id] = heard
}

// told returns of how many messages the owner knows whether they were heard.
func (o *fakeOwner) told() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.heard)
}

func (o *fakeOwner) messages() []taken {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]taken(nil), o.taken...)
}

// A house is a server with its owner, for one test.
type house struct {
	t      testing.TB
	server *Server
	owner  *fakeOwner
	addr   string
	wire   func() net.Conn // connects
	stop   func()          // ends the server and waits for it
}

const testSecret = "a secret for tests only"

// testPolicy is example.org with a few aliases, the SRS domain mx.example.org.
func testPolicy(t testing.TB) *Policy {
	t.Helper()
	cfg := &config.Config{Policy: config.Policy{DMARC: "observe"}, Hostname: "mx.example.org"} // most messages of these tests have no From
	table := table(t,
		&config.Alias{Key: "me", To: []string{"ada@gmail.com"}, Rule: &config.Rule{}},
		&config.Alias{Key: "shop", To: []string{"ada@gmail.com"}, Rule: &config.Rule{From: []string{"@shop.example"}}},
		&config.Alias{Key: "old", Rule: &config.Rule{Reject: "moved, write to me@example.org"}},
		&config.Alias{Key: "trap", Rule: &config.Rule{Discard: true}},
		&config.Alias{Key: "jürgen", To: []string{"ada@gmail.com"}, Rule: &config.Rule{}})
	returns, err := returnpath.New(returnpath.Settings{
		Secrets: []string{testSecret},
		Domains: []address.Domain{"mx.example.org"},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &Policy{
		Hostname: cfg.Hostname,
		Limits:   config.Limits{Message: 1 << 20, Recipients: 100, Messages: 100, Sessions: 1000, ClientSessions: 50, Hops: 50, DataRate: 500},
		TLS:      testTLS(t),
		Aliases:  table,
		Returns:  returns,
		Replies:  replyaddr.New([]address.Domain{"mx.example.org"}, replies{}, new(replyaddr.Uses)),
		Marker:   loop.Marker{Secrets: []string{testSecret}},
		Verifier: &mailauth.Verifier{Resolver: testZone(t), Hostname: cfg.Hostname, Loopback: true},
		Judge:    NewJudge(cfg, NewLists()),
	}
}

// replies is what the store has of reply addresses: one, for bob.
type replies struct{}

const replyToken = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

func (replies) KeepReply(context.Context, string, address.Mailbox, address.Mailbox, time.Time) (string, error) {
	return replyToken, nil
}

func (replies) Reply(_ context.Context, token string, _ time.Time) (alias, author address.Mailbox, err error) {
	if token == replyToken {
		return address.Mailbox{Local: "me", Domain: "example.org"}, address.Mailbox{Local: "bob", Domain: "sender.example"}, nil
	}
	return alias, author, nil
}

// table is the aliases of example.org.
func table(t testing.TB, aliases ...*config.Alias) *alias.Table {
	t.Helper()
	all, problems := alias.New(&config.Config{
		Hostname:   "mx.example.org",
		Postmaster: address.Mailbox{Local: "owner", Domain: "gmail.com"},
		Domains:    []*config.Domain{{Name: "example.org", Aliases: aliases}},
	})
	if len(problems.Fatal()) > 0 {
		t.Fatal(problems)
	}
	return all
}

func formatMailboxes(list []address.Mailbox) string {
	texts := []string{}
	for _, m := range list {
		texts = append(texts, m.String())
	}
	return fmt.Sprint(texts)
}

// testZone is the DNS: a domain that wants forged mail refused, an attacker
// and a mailing list whose SPF allows loopback.
func testZone(t testing.TB) *resolver.Zone {
	t.Helper()
	zone, err := resolver.ParseZone("test", strings.NewReader(`
_dmarc.bank.example.    60 IN TXT "v=DMARC1; p=reject"
_dmarc.shop.example.    60 IN TXT "v=DMARC1; p=quarantine"
attacker.example.       60 IN TXT "v=spf1 ip4:127.0.0.0/8 -all"
b.example.              60 IN TXT "v=spf1 ip4:127.0.0.0/8 -all"
_dmarc.b.example.       60 IN TXT "v=DMARC1; p=none"
lists.example.          60 IN TXT "v=spf1 ip4:127.0.0.0/8 -all"
bank.example.           60 IN TXT "v=spf1 ip4:192.0.2.1 -all"
`))
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// open starts a server on loopback; change may be nil.
func open(t testing.TB, change func(*Policy)) *house {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, change)
	h.connectTo(l.Addr().String())
	h.serve(l)
	return h
}

// connectTo makes addr the place where the clients of the test go.
func (h *house) connectTo(addr string) {
	h.addr = addr
	h.wire = func() net.Conn {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			h.t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		return conn
	}
}

func newHouse(t testing.TB, change func(*Policy)) *house {
	policy := testPolicy(t)
	if change != nil {
		change(policy)
	}
	h := &house{t: t, owner: &fakeOwner{}}
	h.server = &Server{
		Policy:   func() *Policy { return policy },
		Acceptor: h.owner,
		TempDir:  t.TempDir(),
		Record:   func(journal.Entry) {},
		Log:      slog.New(slog.DiscardHandler),
	}
	return h
}

func (h *house) serve(l net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.server.Serve(ctx, l) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("Serve: %v", err)
		}
	})
	h.t.Cleanup(h.stop)
}

// A talk is a client that speaks raw SMTP.
type talk struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// dial connects and reads the greeting.
func (h *house) dial() *talk {
	h.t.Helper()
	c := h.connect()
	c.expect("220 mx.example.org ")
	return c
}

func (h *house) connect() *talk {
	h.t.Helper()
	conn := h.wire()
	h.t.Cleanup(func() { conn.Close() })
	return &talk{h.t, conn, bufio.NewReader(conn)}
}

// send writes bytes as they are.
func (c *talk) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatalf("send %.60q: %v", s, err)
	}
}

// read returns one whole reply.
func (c *talk) read() (string, error) {
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		b.WriteString(line)
		if err != nil || len(line) < 4 || line[3] != '-' {
			return b.String(), err
		}
	}
}

// expect reads one reply, which must begin with want.
func (c *talk) expect(want string) string {
	c.t.Helper()
	got, err := c.read()
	if !strings.HasPrefix(got, want) {
		c.t.Fatalf("got %q, %v; want %q", got, err, want)
	}
	return got
}

// say sends a line and expects a reply.
func (c *talk) say(line, want string) string {
	c.t.Helper()
	c.send(line + "\r\n")
	got, err := c.read()
	if !strings.HasPrefix(got, want) {
		c.t.Fatalf("%.80q: got %q, %v; want %q", line, got, err, want)
	}
	return got
}

// closed expects the end of the connection and no reply before it.
func (c *talk) closed() {
	c.t.Helper()
	if got, err := c.read(); got != "" || !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
		c.t.Fatalf("got %q, %v; want the end of the connection", got, err)
	}
}

// begin goes as far as the 354 for a message to me@example.org.
func (c *talk) begin() {
	c.t.Helper()
	c.say("EHLO client.example", "250")
	c.envelope()
}

func (c *talk) envelope() {
	c.t.Helper()
	c.say("MAIL FROM:<eve@sender.example>", "250 2.1.0")
	c.say("RCPT TO:<me@example.org>", "250 2.1.5")
	c.say("DATA", "354")
}

// honest shows that the next client is served.
func (h *house) honest() {
	h.t.Helper()
	before := len(h.owner.messages())
	c := h.dial()
	c.begin()
	c.say("Subject: honest\r\n\r\nhello\r\n.", "250 2.0.0 ")
	c.say("QUIT", "221")
	if got := len(h.owner.messages()); got != before+1 {
		h.t.Fatalf("%d messages after an honest one, want %d", got, before+1)
	}
}

// srsAddress returns an SRS address of the test server.
func srsAddress(t testing.TB) string { return srsAddressOf(t, "Bob@sender.example") }

func srsAddressOf(t testing.TB, sender string) string {
	t.Helper()
	a, err := srs.Codec{Secrets: []string{testSecret}, Domain: "mx.example.org"}.Encode(sender, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A dialog is a conversation: "C: " lines are sent, "S: " lines are the start
// of the reply that is due, "S! " is the end of the connection.
func (h *house) dialog(script string) {
	h.t.Helper()
	c := h.connect()
	for _, line := range strings.Split(strings.TrimSpace(script), "\n") {
		line = strings.TrimSpace(line)
		kind, text, _ := strings.Cut(line, " ")
		text = strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\0`, "\x00", `\xff`, "\xff", `\t`, "\t").Replace(text)
		switch kind {
		case "C:":
			c.send(text + "\r\n")
		case "R:":
			c.send(text) // raw, no line end
		case "S:":
			got, err := c.read()
			if !strings.HasPrefix(got, text) {
				h.t.Fatalf("in\n%s\ngot %q, %v; want %q", script, got, err, text)
			}
		case "S!":
			c.closed()
		}
	}
}

func testTLS(t testing.TB) *tls.Config {
	t.Helper()
	cert, err := tls.X509KeyPair([]byte(testCert), []byte(testKey))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true}
}

// A self-signed certificate for mx.example.org, for tests only.
const testCert = `-----BEGIN CERTIFICATE-----
MIIBpDCCAUqgAwIBAgIUcxK8FeLpaKNUbI4vSgphEOBz3TUwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwObXguZXhhbXBsZS5vcmcwIBcNMjYxMTIyMDM0MzI3WhgPMjEy
NjEwMjkwMzQzMjdaMBkxFzAVBgNVBAMMDm14LmV4YW1wbGUub3JnMFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEQSEHY2Rl8M9Z+rkISzKUZtVMFUZzFZlcG5qtjjzk
kWkldU7i4Nqcp547ccEi95gF4OYeEkzfcgaotWbLBYnwiaNuMGwwHQYDVR0OBBYE
FInNHKl4ppJOgaHth3WkRyKInc5DMB8GA1UdIwQYMBaAFInNHKl4ppJOgaHth3Wk
RyKInc5DMA8GA1UdEwEB/wQFMAMBAf8wGQYDVR0RBBIwEIIObXguZXhhbXBsZS5v
cmcwCgYIKoZIzj0EAwIDSAAwRQIgNuxNR9A7dhrulUVhe1gHmxGrfB++G/Ls+69+
5qEebh0CIQD33awRioN7ltdBVu37Nsgqs8qgXSQJpuqXcSmLwzxnnA==
-----END CERTIFICATE-----`

const testKey = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgRpjikrXKcwd+9mJr
QcUvD/Y2DfSZATLy8r7tGTg2y9qhRANCAARBIQdjZGXwz1n6uQhLMpRm1UwVRnMV
mVwbmq2OPOSRaSV1TuLg2pynnjtxwSL3mAXg5h4STN9yBqi1ZssFifCJ
-----END PRIVATE KEY-----`
