package dsn

import (
	"bytes"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"onward/internal/address"
	"onward/internal/reply"
)

var update = flag.Bool("update", false, "write testdata/*.eml anew; read what changed")

var (
	arrived = time.Date(2026, 11, 22, 9, 2, 14, 0, time.UTC)
	gone    = reply.New(550, "5.1.1", "The email account that you tried to reach, <Old.Name@Gmail.com>, does not exist: https://support.google.com/mail/?p=NoSuchUser")
)

// header is that of a copy: ours on top, the message's own below.
const header = "DKIM-Signature: v=1; d=mx.example.org; b=xx\r\n" +
	"X-Forwarded-To: old.name@gmail.com\r\n" +
	"X-Forwarded-For: shop@example.org\r\n old.name@gmail.com\r\n" +
	"Authentication-Results: mx.example.org; spf=pass\r\n" +
	"Received: from a.example by mx.example.org\r\n\tfor <shop@example.org>; Sun, 22 Nov 2026 09:02:14 +0000\r\n" +
	"From: Ada <ada@sender.example>\r\n" +
	"To: shop@example.org, old.name@gmail.com\r\n" +
	"Message-ID: <1@sender.example>\r\n" +
	"Subject: an order\r\n"

func mailbox(t testing.TB, s string) address.Mailbox {
	t.Helper()
	m, err := address.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func refused(t testing.TB) Report {
	return Report{
		Hostname: "mx.example.org", ID: "01KAAAAAAAAAAAAAAAAAAAAAAA", Now: arrived.Add(2 * time.Minute),
		Sender: mailbox(t, "ada@sender.example"), Alias: mailbox(t, "shop@example.org"), Target: mailbox(t, "old.name@gmail.com"),
		Arrived: arrived, Reply: gone, Said: gone, Header: []byte(header),
	}
}

// What we say ourselves of a destination names its hosts, and a report does not.
func TestHostsAreHidden(t *testing.T) {
	r := expired(t)
	r.Host = "mx.mail.example"
	r.Reply = reply.New(451, "4.7.5", "gmail.com requires TLS (DANE), and the certificate of its mail host mx.mail.example has expired")
	m := compose(t, r)
	if text := string(m.Rest[:strings.Index(string(m.Rest), "delivery-status")]); strings.Contains(text, "gmail.com") || strings.Contains(text, "mx.mail") || !strings.Contains(text, "the destination requires") {
		t.Error(text)
	}
}

// A report about several aliases of one mailbox has each of them, for people and
// for machines.
func TestSeveralAliases(t *testing.T) {
	r := refused(t)
	r.Also = []address.Mailbox{mailbox(t, "me@example.org"), mailbox(t, "büro@example.org")}
	m := compose(t, r)
	text := string(m.Header) + string(m.Rest)
	for want, n := range map[string]int{
		"Subject: Not delivered: your message to shop@example.org and 2 more\r\n": 1,
		"\r\n    shop@example.org\r\n    me@example.org\r\n":                      1,
		"Content-Type: message/global-delivery-status":                            1,
		"\r\nFinal-Recipient: rfc822; shop@example.org\r\n":                       1,
		"\r\nFinal-Recipient: rfc822; me@example.org\r\n":                         1,
		"\r\nFinal-Recipient: utf-8; büro@example.org\r\n":                        1,
		"Status: 5.1.1\r\n":       3,
		"Diagnostic-Code: smtp; ": 3,
	} {
		if strings.Count(text, want) != n {
			t.Errorf("%d of %q in\n%s", strings.Count(text, want), want, text)
		}
	}
}

func expired(t testing.TB) Report {
	r := refused(t)
	r.Now, r.Expired, r.Said = arrived.Add(5*24*time.Hour+time.Minute), true, nil
	r.Reply = reply.New(451, "4.4.1", "the destination cannot be reached just now")
	return r
}

func international(t testing.TB) Report {
	r := refused(t)
	r.Alias = mailbox(t, "büro@bücher.example")
	return r
}

func held(t testing.TB) Notice {
	bounce := Held{ID: "17", Alias: mailbox(t, "shop@example.org"), Since: arrived, Reason: "expired after 5 days: 451 4.4.1 cannot be reached"}
	letter := Held{ID: "18", Sender: address.ReversePath{Mailbox: mailbox(t, "ada@sender.example")}, Alias: mailbox(t, "büro@bücher.example"), Since: arrived, Reason: "stopped three times while it was delivered"}
	return Notice{
		Hostname: "mx.example.org", ID: "01KAAAAAAAAAAAAAAAAAAAAAAA", Now: arrived.Add(24 * time.Hour),
		To: mailbox(t, "postmaster@mx.example.org"), Total: 3, Held: []Held{bounce, letter},
	}
}

// A composer is a Report or a Notice.
type composer interface{ Compose() (Mail, error) }

func compose(t testing.TB, c composer) Mail {
	t.Helper()
	m, err := c.Compose()
	if err != nil {
		t.Fatal(err)
	}
	checkForm(t, m)
	return m
}

// checkForm holds what every mail of ours keeps to: no CR or LF but in pairs
// (RELIABILITY 2), lines of at most 998 octets, header and rest where they
// belong, 7-bit unless it says otherwise.
func checkForm(t testing.TB, m Mail) {
	t.Helper()
	whole := append(bytes.Clone(m.Header), m.Rest...)
	for line := range bytes.Lines(whole) {
		body, ended := bytes.CutSuffix(line, []byte("\r\n"))
		if !ended || len(body) > 998 || bytes.ContainsAny(body, "\r\n\x00") {
			t.Fatalf("line %q", line)
		}
	}
	if !bytes.HasSuffix(m.Header, []byte("\r\n")) || bytes.Contains(m.Header, []byte("\r\n\r\n")) || !bytes.HasPrefix(m.Rest, []byte("\r\n")) {
		t.Fatalf("header %q, rest %q", m.Header, m.Rest)
	}
	for line := range bytes.Lines(m.Header) {
		if len(bytes.TrimSpace(line)) == 0 {
			t.Fatalf("a fold left an empty line in %q", m.Header)
		}
	}
	high := func(p []byte) bool { return bytes.IndexFunc(p, func(r rune) bool { return r >= utf8.RuneSelf }) >= 0 }
	if m.EightBit != high(whole) || m.UTF8 != high(m.Header) {
		t.Fatalf("8-bit %v, UTF-8 %v: %q", m.EightBit, m.UTF8, whole)
	}
	if m.EightBit && !utf8.Valid(whole) {
		t.Fatalf("not UTF-8: %q", whole)
	}
}

var boundary = regexp.MustCompile(`[0-9a-f]{60}`)

// TestGolden holds the whole of each kind of mail, for people to read.
func TestGolden(t *testing.T) {
	long := refused(t)
	long.Header = []byte(header + "X-Long: " + strings.Repeat("x", 2000) + "\r\nX-Latin: caf\xe9\r\n")
	for name, c := range map[string]composer{
		"refused": refused(t), "expired": expired(t), "international": international(t), "held": held(t), "strange-header": long,
	} {
		m := compose(t, c)
		got := boundary.ReplaceAll(append(m.Header, m.Rest...), []byte("BOUNDARY"))
		file := "testdata/" + name + ".eml"
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v\n%s", file, err, got)
		}
	}
}

// TestPrivate holds that a target stays private (N3): no octet of a report is
// its address, whatever the destination calls it.
func TestPrivate(t *testing.T) {
	for _, said := range []string{
		"<old.name@gmail.com>: no such user", "OLD.NAME@GMAIL.COM", "old.name+shop@gmail.com is over quota",
		"Old.Name@Gmail.Com.", "mailbox oldname@gmail.com, forwarded", `"old.name"@gmail.com unknown`, "RCPT TO:<old.name@gmail.com>",
		"(old.name@gmail.com)", "no [old.name@gmail.com]", "x=old.name@gmail.com;y", "old.name@gmail.com@gmail.com",
		"old\r\n.name@gmail.com", "jürgen@gmail.com", "old.name@gmail.com old.name@gmail.com",
	} {
		r := refused(t)
		r.Header = []byte("X-Forwarded-To: old.name@gmail.com\r\nReceived: x\r\nSubject: y\r\n")
		r.Said = reply.New(550, "5.1.1", "%s", said)
		m := compose(t, r)
		text := strings.ToLower(string(m.Header) + string(m.Rest))
		for _, secret := range []string{"gmail", "old.name", "oldname", "rgen"} {
			if strings.Contains(text, secret) {
				t.Errorf("%q: the report has %q: %s", said, secret, text)
			}
		}
		if !strings.Contains(text, "diagnostic-code: smtp; 550 5.1.1 ") {
			t.Errorf("%q: no answer in %s", said, text)
		}
	}
	quoted := Hide(`unknown "a b"@x.example here`, mailbox(t, `"a b"@x.example`), mailbox(t, "shop@example.org"))
	if quoted != "unknown shop@example.org here" {
		t.Error(quoted)
	}
	for _, said := range []string{"see https://support.gmail.com/x", "bob@gmail.com.example", "@", "gmail.com"} {
		if got := Hide(said, mailbox(t, "old.name@gmail.com"), mailbox(t, "shop@example.org")); got != said {
			t.Errorf("%q became %q", said, got)
		}
	}
	if got := Hide("no bob@bücher.example", mailbox(t, "bob@bücher.example"), mailbox(t, "shop@example.org")); got != "no shop@example.org" {
		t.Error(got)
	}
}

// TestReturnedHeader holds what goes back of the message: the fields below
// ours, unchanged, whole, and not more than the bound.
func TestReturnedHeader(t *testing.T) {
	r := refused(t)
	for range 5000 {
		r.Header = append(r.Header, "X-Filler: some words\r\n\tand a fold\r\n"...)
	}
	m := compose(t, r)
	_, returned, _ := strings.Cut(string(m.Rest), "text/rfc822-headers")
	_, returned, _ = strings.Cut(returned, "\r\n\r\n")
	if !strings.HasPrefix(returned, "Received: from a.example by mx.example.org\r\n\tfor") || !strings.Contains(returned, "To: shop@example.org, old.name@gmail.com\r\n") {
		t.Errorf("%.300q", returned)
	}
	if len(m.Rest) > maxHeader+4096 || len(m.Rest) < maxHeader-4096 {
		t.Errorf("%d octets", len(m.Rest))
	}
	r.Header = []byte("Received: x\r\nX-Long: " + strings.Repeat("x", 2000) + "\r\n") // must not be cut in two
	if m := compose(t, r); !bytes.Contains(m.Rest, []byte("Content-Transfer-Encoding: quoted-printable\r\nContent-Type: text/rfc822-headers")) {
		t.Errorf("%s", m.Rest)
	}
	r.Header = []byte("X-Forwarded-To: old.name@gmail.com\r\nSubject: a copy without a trace\r\n")
	if m := compose(t, r); bytes.Contains(m.Rest, []byte("gmail.com\r\nSubject")) {
		t.Errorf("%s", m.Rest)
	}
}

// TestReplyTo holds that only a message id of proper form is referred to.
func TestReplyTo(t *testing.T) {
	for id, want := range map[string]string{
		"<1@sender.example>": "<1@sender.example>", " \r\n <1@sender.example>": "<1@sender.example>",
		"<1@a> <2@a>": "", "1@a": "", "1@a>": "", "<1@a": "", "<1@\x01>": "", "<ü@a>": "", "<" + strings.Repeat("x", 250) + ">": "", "": "", "<": "",
	} {
		r := refused(t)
		r.Header = []byte("Received: x\r\nMessage-ID: " + id + "\r\n")
		m := compose(t, r)
		if got := bytes.Contains(m.Header, []byte("In-Reply-To: "+want+"\r\nReferences: "+want+"\r\n")); got != (want != "") || bytes.Contains(m.Header, []byte("In-Reply-To")) != got {
			t.Errorf("%q: %s", id, m.Header)
		}
	}
}

func TestNoticeIsShort(t *testing.T) {
	n := held(t)
	for range 500 {
		n.Held = append(n.Held, n.Held[0])
	}
	n.Total = 4000
	m := compose(t, n)
	if got := bytes.Count(m.Rest, []byte("    why   ")); got != maxListed || !bytes.Contains(m.Rest, []byte("and 3950 more")) {
		t.Errorf("%d listed: %s", got, m.Rest)
	}
}

// An address that was never parsed does not get into a header (RELIABILITY 62).
func TestRefusesLineEnds(t *testing.T) {
	bad := address.Mailbox{Local: "a\r\nBcc: victim", Domain: "x.example"}
	r, n := refused(t), held(t)
	r.Sender, n.To = bad, bad
	for _, c := range []composer{r, n} {
		if m, err := c.Compose(); err == nil {
			t.Errorf("composed %s", m.Header)
		}
	}
	r = refused(t)
	r.Alias = bad
	if m, err := r.Compose(); err == nil {
		t.Errorf("composed %s", m.Header)
	}
}

// hostile are words that a destination or a sender may use.
var hostile = []string{
	"x\r\n.\r\nMAIL FROM:<>", "x\r\nAction: delivered\r\n\r\n", "x\ny", "x\ry", "x\x00y", "\x7f\x1b[31m", "ünïcode\u2028", "\xff\xfe",
	"--boundary--", "\r\n--boundary--\r\n", strings.Repeat("long ", 1000), strings.Repeat("x", 5000), strings.Repeat(" ", 3000), "\t", "",
	"Content-Type: text/html\r\n\r\n<script>", "=?utf-8?q?x?=", "=00=ZZ", "a;b\"c\\", ".", "From x", "\r\n \r\n\t\r\n",
}

// FuzzReport holds that no words of a stranger break the form or the structure
// of a report, as our own reader sees it; the peers read the same.
func FuzzReport(f *testing.F) {
	for _, s := range hostile {
		f.Add(s, "4.2.2", []byte(header), "ada@sender.example", "shop@example.org")
		f.Add("no", s, []byte(header+"X: "+s+"\r\n"), `"a b"@sender.example`, "büro@example.org")
		f.Add("no", "5.1.1", []byte(s), "jürgen@sender.example", `"a  @  b"@example.org`)
	}
	f.Fuzz(func(t *testing.T, said, status string, header []byte, sender, alias string) {
		r := refused(t)
		var errs [2]error
		r.Sender, errs[0] = address.Parse(sender)
		r.Alias, errs[1] = address.Parse(alias)
		if errs[0] != nil || errs[1] != nil {
			return
		}
		r.Header, r.Said, r.Reply = header, &reply.Reply{Code: 550, Status: status, Text: said}, &reply.Reply{Code: 550, Status: status, Text: said}
		m := compose(t, r)
		kinds, status2 := structure(m)
		want := "message/delivery-status"
		if !r.Sender.IsASCII() || !r.Alias.IsASCII() {
			want = "message/global-delivery-status"
		}
		if strings.Join(kinds, " ") != "text/plain "+want+" text/rfc822-headers" {
			t.Fatalf("parts %q of %s", kinds, m.Rest)
		}
		if got := strings.Join(status2, " "); got != "Reporting-Mta Arrival-Date / Original-Recipient Final-Recipient Action Status Diagnostic-Code /" {
			t.Fatalf("status fields %s of %s", got, m.Rest)
		}
	})
}

// structure reads the report in the plainest way: the types of its parts, and
// the field names of the second one with "/" for an empty line.
func structure(m Mail) (kinds, status []string) {
	mark := "--" + string(boundary.Find(m.Header)) + "\r\n"
	for i, part := range strings.Split(string(m.Rest), mark)[1:] {
		head, content, _ := strings.Cut(part, "\r\n\r\n")
		_, kind, _ := strings.Cut(head, "Content-Type: ")
		kind, _, _ = strings.Cut(kind, "\r\n")
		kind, _, _ = strings.Cut(kind, ";")
		kinds = append(kinds, kind)
		if i != 1 {
			continue
		}
		for line := range strings.Lines(strings.TrimSuffix(content, "\r\n")) {
			switch name, _, _ := strings.Cut(line, ":"); {
			case line == "\r\n":
				status = append(status, "/")
			case line[0] != ' ' && line[0] != '\t':
				status = append(status, name)
			}
		}
	}
	return kinds, status
}
