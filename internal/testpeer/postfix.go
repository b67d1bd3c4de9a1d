package testpeer

import (
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A PostfixConfig describes one Postfix instance.
type PostfixConfig struct {
	Hostname  string            // its name in greetings, EHLO and Received
	Listen    string            // "127.0.0.2:2525"; empty: takes mail from Submit only
	Mailboxes []string          // addresses delivered here; others in their domains get its own 550 5.1.1
	Params    map[string]string // further lines of main.cf, winning over ours
}

// Postfix is a running instance. It offers STARTTLS with a certificate nobody
// knows, and uses STARTTLS where it is offered.
type Postfix struct {
	config PostfixConfig
	dir    string
	master *process
}

// StartPostfix starts an instance and returns when it takes mail. Several may
// run at once.
func StartPostfix(t testing.TB, c PostfixConfig) *Postfix {
	t.Helper()
	p := &Postfix{config: c, dir: tempDir(t, "postfix")}
	p.makeDirs(t)
	writeFile(t, p.path("main.cf"), p.mainCF(t))
	writeFile(t, p.path("master.cf"), p.masterCF())
	selfSigned(t, c.Hostname, p.path("cert.pem"), p.path("key.pem"))
	if out, status := Run(t, "", "postfix", "-c", p.dir, "check"); status != 0 {
		t.Fatalf("postfix check: %s", out)
	}
	os.Remove(p.path("log")) // only remarks on owners, the same every time
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s:\n%s", c.Hostname, p.Log(t))
		}
	})
	p.Start(t)
	t.Cleanup(func() { p.Stop(t) })
	return p
}

func (p *Postfix) path(name string) string { return filepath.Join(p.dir, name) }

func (p *Postfix) makeDirs(t testing.TB) {
	t.Helper()
	for name, owner := range map[string]string{"queue": "root", "data": "postfix", "mail": "nobody"} {
		u, err := user.Lookup(owner)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(p.path(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(p.path(name), atoi(u.Uid), atoi(u.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

func atoi(s string) (n int) {
	fmt.Sscan(s, &n)
	return n
}

// mainCF returns the parameters. Postfix must not ask DNS (a test asks none),
// and must not fold, split or complete what it passes on, as the tests compare
// octets.
func (p *Postfix) mainCF(t testing.TB) string {
	t.Helper()
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	params := map[string]string{
		"compatibility_level":             "3.6",
		"queue_directory":                 p.path("queue"),
		"data_directory":                  p.path("data"),
		"maillog_file":                    p.path("log"),
		"maillog_file_prefixes":           p.dir,
		"myhostname":                      p.config.Hostname,
		"myorigin":                        p.config.Hostname,
		"mydestination":                   "",
		"mynetworks":                      "",
		"inet_protocols":                  "ipv4",
		"alias_maps":                      "",
		"local_recipient_maps":            "",
		"virtual_mailbox_domains":         strings.Join(p.domains(), " "),
		"virtual_mailbox_maps":            p.mailboxMap(),
		"virtual_mailbox_base":            p.path("mail"),
		"virtual_uid_maps":                "static:" + nobody.Uid,
		"virtual_gid_maps":                "static:" + nobody.Gid,
		"virtual_mailbox_limit":           "0",
		"message_size_limit":              "52428800",
		"smtpd_relay_restrictions":        "permit_mynetworks, reject_unauth_destination",
		"smtpd_peername_lookup":           "no",
		"smtpd_tls_security_level":        "may",
		"smtpd_tls_cert_file":             p.path("cert.pem"),
		"smtpd_tls_key_file":              p.path("key.pem"),
		"smtpd_tls_received_header":       "yes",
		"smtp_dns_support_level":          "disabled",
		"smtp_host_lookup":                "native",
		"smtp_line_length_limit":          "0",
		"smtp_tls_security_level":         "may",
		"smtp_tls_loglevel":               "1",
		"minimal_backoff_time":            "1h", // a retry comes from Flush, not by chance
		"maximal_backoff_time":            "1h",
		"smtp_connection_cache_on_demand": "no", // a session ends with its message
	}
	for name, value := range p.config.Params {
		params[name] = value
	}
	var b strings.Builder
	for name, value := range params {
		fmt.Fprintf(&b, "%s = %s\n", name, value)
	}
	return b.String()
}

func (p *Postfix) domains() []string {
	var domains []string
	for _, a := range p.config.Mailboxes {
		domains = append(domains, a[strings.LastIndexByte(a, '@')+1:])
	}
	slices.Sort(domains)
	return slices.Compact(domains)
}

func (p *Postfix) mailboxMap() string {
	var b strings.Builder
	b.WriteString("inline:{")
	for _, a := range p.config.Mailboxes {
		fmt.Fprintf(&b, " {%s = %s/}", a, a) // the slash makes it a maildir
	}
	return b.String() + " }"
}

// services are the parts of Postfix an instance needs, none in a chroot.
const services = `
pickup    unix n - n 1 1 pickup
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
smtp      unix - - n - - smtp
relay     unix - - n - - smtp
showq     unix n - n - - showq
error     unix - - n - - error
retry     unix - - n - - error
virtual   unix - n n - - virtual
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
`

func (p *Postfix) masterCF() string {
	if p.config.Listen == "" {
		return services
	}
	return p.config.Listen + " inet n - n - - smtpd" + services
}

// Start starts an instance that was stopped.
func (p *Postfix) Start(t testing.TB) {
	t.Helper()
	daemons, _ := Run(t, "", "postconf", "-c", p.dir, "-h", "daemon_directory")
	before := p.started(t)
	p.master = start(t, p.path("output"), filepath.Join(strings.TrimSpace(daemons), "master"), "-c", p.dir)
	Wait(t, "the start of "+p.config.Hostname, func() bool { return p.started(t) > before })
}

// started counts the starts in the log; the master has its listeners by then.
func (p *Postfix) started(t testing.TB) int {
	return strings.Count(p.Log(t), ": daemon started -- ")
}

// Stop stops the instance; the queue and the mailboxes stay. Without effect on
// one that is stopped.
func (p *Postfix) Stop(t testing.TB) {
	t.Helper()
	if p.master == nil {
		return
	}
	if err := p.master.stop(); err != nil {
		t.Error(err)
	}
	p.master = nil
}

// Log returns what the instance has logged.
func (p *Postfix) Log(t testing.TB) string {
	t.Helper()
	log, err := os.ReadFile(p.path("log"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(log)
}

// Submit hands a message to the instance as a local program does. An empty
// from is the null sender.
func (p *Postfix) Submit(t testing.TB, message, from string, to ...string) {
	t.Helper()
	if from == "" {
		from = "<>"
	}
	args := append([]string{"-C", p.dir, "-i", "-f", from, "--"}, to...)
	if out, status := Run(t, message, "sendmail", args...); status != 0 {
		t.Fatalf("sendmail: %s", out)
	}
}

// Mail returns the messages in a mailbox, oldest first, with lines ending in
// CRLF as they were on the wire. On top stand the fields Postfix adds when it
// delivers: Return-Path, X-Original-To, Delivered-To and its own Received.
func (p *Postfix) Mail(t testing.TB, mailbox string) []string {
	t.Helper()
	dir := filepath.Join(p.path("mail"), mailbox, "new")
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	slices.SortStableFunc(entries, func(a, b os.DirEntry) int { return written(t, a).Compare(written(t, b)) })
	var messages []string
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, strings.ReplaceAll(string(text), "\n", "\r\n"))
	}
	return messages
}

func written(t testing.TB, e os.DirEntry) time.Time {
	t.Helper()
	info, err := e.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

// WaitMail waits until a mailbox holds n messages and returns them.
func (p *Postfix) WaitMail(t testing.TB, mailbox string, n int) []string {
	t.Helper()
	Wait(t, fmt.Sprintf("%d messages to %s", n, mailbox), func() bool { return len(p.Mail(t, mailbox)) >= n })
	return p.Mail(t, mailbox)
}

// A Queued is one message in the queue of an instance.
type Queued struct {
	ID         string `json:"queue_id"`
	Queue      string `json:"queue_name"` // "active", "deferred"
	Sender     string `json:"sender"`
	Recipients []struct {
		Address string `json:"address"`
		Reason  string `json:"delay_reason"` // why it still waits
	} `json:"recipients"`
}

// Queue returns what the instance has not delivered yet.
func (p *Postfix) Queue(t testing.TB) []Queued {
	t.Helper()
	out, status := Run(t, "", "postqueue", "-c", p.dir, "-j")
	if status != 0 {
		t.Fatalf("postqueue: %s", out)
	}
	var queue []Queued
	for line := range strings.Lines(out) {
		var q Queued
		if err := json.Unmarshal([]byte(line), &q); err != nil {
			t.Fatalf("postqueue: %v in %s", err, line)
		}
		queue = append(queue, q)
	}
	return queue
}

// Flush makes the instance try everything in its queue now.
func (p *Postfix) Flush(t testing.TB) {
	t.Helper()
	if out, status := Run(t, "", "postqueue", "-c", p.dir, "-f"); status != 0 {
		t.Fatalf("postqueue: %s", out)
	}
}
