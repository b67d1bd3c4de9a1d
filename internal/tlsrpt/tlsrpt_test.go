package tlsrpt_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"onward/internal/address"
	"onward/internal/dialguard"
	"onward/internal/resolver"
	"onward/internal/tlspolicy"
	"onward/internal/tlsrpt"
	"onward/internal/webclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testing86400 = tlspolicy.Policy{
	Type: tlspolicy.PolicySTS, Domain: "company-y.example", MX: []string{"*.mail.company-y.example"},
	Lines: []string{"version: STSv1", "mode: testing", "mx: *.mail.company-y.example", "max_age: 86400"},
}

func session(host, local, remote string, failures ...tlspolicy.Failure) tlspolicy.Session {
	s := tlspolicy.Session{Domain: "company-y.example", Policy: testing86400, Host: host, Failures: failures}
	if local != "" {
		s.Local = netip.MustParseAddr(local)
	}
	if remote != "" {
		s.Remote = netip.MustParseAddr(remote)
	}
	return s
}

// A post is a Settings that keeps the mail it is to send.
type post struct {
	tlsrpt.Settings
	zone *resolver.Zone
	sent []*tlsrpt.Mail
	fail error
}

func newPost(t *testing.T) *post {
	t.Helper()
	p := &post{zone: resolver.NewZone()}
	p.set(t, "company-y.example", "v=TLSRPTv1; rua=mailto:tlsrpt@company-y.example")
	p.Settings = tlsrpt.Settings{
		Resolver: p.zone, Submitter: "mx.company-x.example",
		From: address.Mailbox{Local: "sts-reporting", Domain: "company-x.example"},
		Send: func(_ context.Context, m *tlsrpt.Mail) error {
			if p.fail == nil {
				p.sent = append(p.sent, m)
			}
			return p.fail
		},
	}
	return p
}

func (p *post) set(t *testing.T, domain string, records ...string) {
	t.Helper()
	if err := p.zone.Set("_smtp._tls."+domain, resolver.TypeTXT, records...); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir string) *tlsrpt.Collector {
	t.Helper()
	c, err := tlsrpt.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// parts takes a report message apart as a stranger does.
func parts(t *testing.T, m *tlsrpt.Mail) (header mail.Header, text string, filename string, data []byte) {
	t.Helper()
	raw := append(slices.Clone(m.Header), m.Rest...)
	for _, line := range strings.SplitAfter(string(raw), "\r\n") {
		if len(line) > 1000 || line != "" && (!strings.HasSuffix(line, "\r\n") || strings.ContainsAny(line[:len(line)-2], "\r\n")) {
			t.Errorf("line %q", line)
		}
	}
	msg, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	media, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil || media != "multipart/report" || params["report-type"] != "tlsrpt" {
		t.Fatalf("%q: %v", msg.Header.Get("Content-Type"), err)
	}
	reader := multipart.NewReader(msg.Body, params["boundary"])
	first, err := reader.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	words, err := io.ReadAll(first)
	if err != nil {
		t.Fatal(err)
	}
	second, err := reader.NextPart()
	if err != nil || second.Header.Get("Content-Type") != "application/tlsrpt+gzip" {
		t.Fatalf("%v, %v", second, err)
	}
	data, err = io.ReadAll(base64.NewDecoder(base64.StdEncoding, second))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.NextPart(); err != io.EOF {
		t.Errorf("a third part: %v", err)
	}
	return msg.Header, string(words), second.FileName(), data
}

func unzip(t *testing.T, data []byte) map[string]any {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var report map[string]any
	if err := json.NewDecoder(z).Decode(&report); err != nil {
		t.Fatal(err)
	}
	return report
}

// The report of RFC 8460 appendix B, with "mx-host" the list that its section
// 4.4 says it is.
func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := open(t, t.TempDir()), newPost(t)
		for range 5326 {
			c.Note(session("mx1.mail.company-y.example", "2001:db8:abcd:12::1", "203.0.113.55"))
		}
		for range 100 {
			c.Note(session("mx1.mail.company-y.example", "2001:db8:abcd:12::1", "", tlspolicy.Failure{Type: tlspolicy.Expired}))
		}
		for range 200 {
			c.Note(session("mx2.mail.company-y.example", "2001:db8:abcd:13::1", "203.0.113.56", tlspolicy.Failure{Type: tlspolicy.NotSupported}))
		}
		for range 3 {
			c.Note(session("mx-backup.mail.company-y.example", "198.51.100.62", "203.0.113.58",
				tlspolicy.Failure{Type: tlspolicy.ValidationFailure, Reason: "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"}))
		}
		time.Sleep(30 * time.Hour)
		c.SendDue(t.Context(), p.Settings, time.Now())
		if len(p.sent) != 1 || p.sent[0].To.String() != "tlsrpt@company-y.example" || p.sent[0].From != p.From {
			t.Fatalf("sent %+v", p.sent)
		}
		header, text, filename, data := parts(t, p.sent[0])
		report := unzip(t, data)
		id, _ := report["report-id"].(string)
		delete(report, "report-id")
		var want map[string]any
		if err := json.Unmarshal([]byte(`{
			"organization-name": "mx.company-x.example",
			"date-range": {"start-datetime": "2000-01-01T00:00:00Z", "end-datetime": "2000-01-01T23:59:59Z"},
			"contact-info": "sts-reporting@company-x.example",
			"policies": [{
				"policy": {
					"policy-type": "sts",
					"policy-string": ["version: STSv1", "mode: testing", "mx: *.mail.company-y.example", "max_age: 86400"],
					"policy-domain": "company-y.example",
					"mx-host": ["*.mail.company-y.example"]
				},
				"summary": {"total-successful-session-count": 5326, "total-failure-session-count": 303},
				"failure-details": [{
					"result-type": "certificate-expired",
					"sending-mta-ip": "2001:db8:abcd:12::1",
					"receiving-mx-hostname": "mx1.mail.company-y.example",
					"failed-session-count": 100
				}, {
					"result-type": "starttls-not-supported",
					"sending-mta-ip": "2001:db8:abcd:13::1",
					"receiving-mx-hostname": "mx2.mail.company-y.example",
					"receiving-ip": "203.0.113.56",
					"failed-session-count": 200
				}, {
					"result-type": "validation-failure",
					"sending-mta-ip": "198.51.100.62",
					"receiving-ip": "203.0.113.58",
					"receiving-mx-hostname": "mx-backup.mail.company-y.example",
					"failed-session-count": 3,
					"failure-reason-code": "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"
				}]
			}]
		}`), &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(report, want) {
			t.Errorf("got %v\nwant %v", report, want)
		}
		for field, want := range map[string]string{
			"From": "sts-reporting@company-x.example", "To": "tlsrpt@company-y.example",
			"Tls-Report-Domain": "company-y.example", "Tls-Report-Submitter": "mx.company-x.example", "Tls-Required": "No",
			"Subject":    "Report Domain: company-y.example Submitter: mx.company-x.example Report-ID: <" + id + ">",
			"Message-Id": "<" + id + ">", "Mime-Version": "1.0", "Auto-Submitted": "auto-generated",
		} {
			if got := header.Get(field); got != want {
				t.Errorf("%s: got %q, want %q", field, got, want)
			}
		}
		if _, err := header.Date(); err != nil {
			t.Error(err)
		}
		if !strings.Contains(text, "company-y.example on 2000-01-01") {
			t.Errorf("got %q", text)
		}
		if !strings.HasPrefix(filename, "mx.company-x.example!company-y.example!946684800!946771199!") || !strings.HasSuffix(filename, ".json.gz") {
			t.Errorf("got %q", filename)
		}
		if local, _, ok := strings.Cut(id, "@"); !ok || !strings.HasPrefix(local, "20000101.") {
			t.Errorf("got %q", id)
		}
	})
}

// sleep lets time pass, and what then happens happen.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// A day in the life: written, read again after a restart, sent once in the
// small hours, and gone.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, p := t.TempDir(), newPost(t)
		c := open(t, dir)
		start := func() (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); c.Run(ctx, func() tlsrpt.Settings { return p.Settings }) }()
			return func() { cancel(); <-done }
		}
		stop := start()
		c.Note(session("a.example", "", ""))
		sleep(6 * time.Minute)
		if files, err := os.ReadDir(dir); err != nil || len(files) != 1 || files[0].Name() != "2000-01-01.json" {
			t.Errorf("got %v, %v", files, err)
		}
		c.Note(session("a.example", "", "", tlspolicy.Failure{Type: tlspolicy.NotSupported}))
		c.Note(tlspolicy.Session{Domain: "silent.example", Policy: tlspolicy.Policy{Type: tlspolicy.PolicyNone, Domain: "silent.example"}})
		stop()

		c = open(t, dir)
		stop = start()
		c.Note(session("a.example", "", ""))
		sleep(25*time.Hour - 7*time.Minute)
		if len(p.sent) != 0 {
			t.Error("sent within an hour of midnight")
		}
		c.Note(session("tomorrow.example", "", "", tlspolicy.Failure{Type: tlspolicy.NotSupported}))
		sleep(6 * time.Hour)
		if len(p.sent) != 1 {
			t.Fatalf("sent %d", len(p.sent))
		}
		_, _, _, data := parts(t, p.sent[0])
		if summary := fmt.Sprint(unzip(t, data)["policies"]); !strings.Contains(summary, "total-successful-session-count:2") || !strings.Contains(summary, "total-failure-session-count:1") ||
			strings.Contains(summary, "tomorrow") {
			t.Errorf("got %v", summary)
		}
		stop()
		if files, err := os.ReadDir(dir); err != nil || len(files) != 1 || files[0].Name() != "2000-01-02.json" {
			t.Errorf("got %v, %v", files, err)
		}

		c = open(t, dir)
		stop = start()
		sleep(48 * time.Hour)
		stop()
		if len(p.sent) != 2 {
			t.Errorf("sent %d", len(p.sent))
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
			t.Errorf("left %v, %v", files, err)
		}
	})
}

// Trouble is tried again for a day, no reports are nobody's trouble.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, p := t.TempDir(), newPost(t)
		c := open(t, dir)
		c.Note(session("a.example", "", ""))
		c.Note(tlspolicy.Session{Domain: "broken.example", Policy: tlspolicy.Policy{Type: tlspolicy.PolicyNone, Domain: "broken.example"}})
		if err := p.zone.Fail("_smtp._tls.broken.example", resolver.TypeTXT, "SERVFAIL"); err != nil {
			t.Fatal(err)
		}
		p.fail = errors.New("the queue is full")
		time.Sleep(30 * time.Hour)
		c.SendDue(t.Context(), p.Settings, time.Now())
		p.fail = nil
		c.Save()
		c = open(t, dir)
		c.SendDue(t.Context(), p.Settings, time.Now())
		c.SendDue(t.Context(), p.Settings, time.Now())
		if len(p.sent) != 1 {
			t.Errorf("sent %d", len(p.sent))
		}
		p.set(t, "broken.example", "v=TLSRPTv1; rua=mailto:x@broken.example")
		time.Sleep(48 * time.Hour)
		c.SendDue(t.Context(), p.Settings, time.Now())
		c.Save()
		if files, err := os.ReadDir(dir); len(p.sent) != 1 || err != nil || len(files) != 0 {
			t.Errorf("sent %d, left %v, %v", len(p.sent), files, err)
		}
	})
}

// With reports off nothing is sent and nothing is kept.
func TestOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, p := t.TempDir(), newPost(t)
		c := open(t, dir)
		c.Note(session("a.example", "", ""))
		c.Save()
		time.Sleep(30 * time.Hour)
		p.Send = nil
		c.SendDue(t.Context(), p.Settings, time.Now())
		c.Save()
		if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
			t.Errorf("left %v, %v", files, err)
		}
	})
}

// Two places, one of which fails: the other gets its report once.
func TestHTTPS(t *testing.T) {
	status := http.StatusServiceUnavailable
	var got [][]byte
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != "POST" || r.Header.Get("Content-Type") != "application/tlsrpt+gzip" || r.URL.Path != "/v1" {
			t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
		}
		got = append(got, body)
		w.WriteHeader(status)
	}))
	defer server.Close()
	p := newPost(t)
	p.set(t, "company-y.example", "v=TLSRPTv1; rua=https://example.com/v1,mailto:tlsrpt@company-y.example")
	if err := p.zone.Set("example.com", resolver.TypeA, "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	p.Web = &webclient.Client{Resolver: p.zone, Guard: dialguard.Guard{AllowPrivate: true}, Roots: roots, Port: uint16(server.Listener.Addr().(*net.TCPAddr).Port)}
	dir := t.TempDir()
	c := open(t, dir)
	c.Note(session("a.example", "", ""))
	later := time.Now().UTC().Truncate(24 * time.Hour).Add(30 * time.Hour)
	c.SendDue(t.Context(), p.Settings, later)
	if len(got) != 1 || len(p.sent) != 1 {
		t.Fatalf("%d posts, %d mails", len(got), len(p.sent))
	}
	c = open(t, dir) // after a crash
	status = http.StatusCreated
	c.SendDue(t.Context(), p.Settings, later)
	c.SendDue(t.Context(), p.Settings, later)
	if len(got) != 2 || len(p.sent) != 1 {
		t.Fatalf("%d posts, %d mails", len(got), len(p.sent))
	}
	if report := unzip(t, got[1]); report["contact-info"] != "sts-reporting@company-x.example" {
		t.Errorf("got %v", report)
	}
}

// What strangers choose is bounded: domains, policies, hosts, reasons.
func TestBounds(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	c.Note(session("first.example", "", ""))
	for i := range 20_000 {
		c.Note(session(fmt.Sprintf("h%d.example", i), "", "", tlspolicy.Failure{Type: tlspolicy.NotSupported, Reason: fmt.Sprint(i)}))
		s := session("a.example", "", "")
		s.Policy.Lines = []string{fmt.Sprint(i)}
		c.Note(s)
		s.Domain = fmt.Sprintf("%d.%s.example", i, strings.Repeat("x", 60))
		s.Policy.Lines = []string{strings.Repeat("x", 1000)}
		c.Note(s)
	}
	c.Save()
	files, err := filepath.Glob(dir + "/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	total := int64(0)
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > tlsrpt.MaxOctets*5/4*int64(len(files)) || total < tlsrpt.MaxOctets/4 {
		t.Errorf("%d octets in %d files", total, len(files))
	}
	p := newPost(t)
	c.SendDue(t.Context(), p.Settings, time.Now().UTC().Truncate(24*time.Hour).Add(30*time.Hour))
	if len(p.sent) == 0 {
		t.Fatal("the first domain has no report")
	}
	_, _, _, data := parts(t, p.sent[0])
	policies := unzip(t, data)["policies"].([]any)
	first := policies[0].(map[string]any)
	if n := len(first["failure-details"].([]any)); len(policies) > 20 || n > 100 || !strings.Contains(fmt.Sprint(first["summary"]), "count:1") {
		t.Errorf("%d policies, %d details, %v", len(policies), n, first["summary"])
	}
}

// Files that are damaged or foreign are given up.
func TestDisk(t *testing.T) {
	dir := t.TempDir()
	today := time.Now().UTC().Format(time.DateOnly)
	for name, text := range map[string]string{
		"2026-01-01.json":     "",
		"2026-01-02.json":     `{"start":"2026-01-03T00:00:00Z","domains":{}}`,
		"2026-01-03.json":     `{"start":"2026-01-03T00:00:00Z"}`,
		"x.json":              `{"start":"2026-01-03T00:00:00Z","domains":{}}`,
		today + ".json.new":   "{",
		"2026-01-04.json.bak": "{}",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := open(t, dir)
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("left %v, %v", files, err)
	}
	c.Note(session("a.example", "", ""))
	c.Save()
	if info, err := os.Stat(filepath.Join(dir, today+".json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
