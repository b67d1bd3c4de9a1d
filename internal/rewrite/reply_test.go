package rewrite_test

import (
	"regexp"
	"strings"
	"testing"

	"onward/internal/address"
	"onward/internal/mailauth/dmarc"
	"onward/internal/rewrite"
)

var (
	alias  = address.Mailbox{Local: "me", Domain: "example.org"}
	author = address.Mailbox{Local: "ada", Domain: "sender.example"}
)

// reply returns the header of an answer on its way to the author.
func reply(t testing.TB, header string) string {
	t.Helper()
	fields := receive(t, header).Fields()
	return string(rewrite.Reply{Alias: alias, Address: stand, Author: author}.Header(fields, dmarc.ParseFrom(fields)))
}

// TestReply holds what becomes of each field of an answer.
func TestReply(t *testing.T) {
	const from = "From: Old Bob <old@gmail.com>\r\n"
	const ours = "From: \"Old Bob\" <me@example.org>\r\n"
	for _, tt := range []struct{ name, in, want string }{
		{"a usual answer",
			"DKIM-Signature: v=1; d=gmail.com\r\nX-Google-DKIM-Signature: v=1\r\nReceived: from [10.0.0.1] by mail.gmail.com\r\n (Authenticated sender: old@gmail.com);\r\n Sun, 1 Mar 2026 10:00:00 +0100 (CET)\r\n" +
				"Return-Path: <old@gmail.com>\r\nARC-Seal: i=1\r\nAuthentication-Results: x; spf=pass smtp.mailfrom=old@gmail.com\r\nX-Sender: old\r\nDelivered-To: old@gmail.com\r\n" +
				from + "Date: Sun, 1 Mar 2026 10:00:00 +0100\r\nMessage-ID: <CA+x@mail.gmail.com>\r\nIn-Reply-To: <1@sender.example>\r\nReferences: <0@sender.example>\r\n <1@sender.example>\r\n" +
				"Subject: Re: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nTo: \"Ada via example.org\" <" + stand.String() + ">\r\nCc: carol@c.example\r\nMIME-Version: 1.0\r\nContent-Type: text/plain;\r\n charset=utf-8\r\n",
			ours + "Received: by private.invalid; Sun, 1 Mar 2026 10:00:00 +0100 (CET)\r\n" +
				"Date: Sun, 1 Mar 2026 10:00:00 +0100\r\nMessage-ID: <CA+x@mail.gmail.com>\r\nIn-Reply-To: <1@sender.example>\r\nReferences: <0@sender.example>\r\n <1@sender.example>\r\n" +
				"Subject: Re: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nTo: \"Ada\" <ada@sender.example>\r\nCc: carol@c.example\r\nMIME-Version: 1.0\r\nContent-Type: text/plain;\r\n charset=utf-8\r\n"},
		{"the address in any case", from + "To: REPLY-abcdefghijklmnopqrstuvwxyz@MX.example.org\r\n", ours + "To: ada@sender.example\r\n"},
		{"among others", from + "To: Carol <carol@c.example>, " + stand.String() + ",\r\n Dave <dave@d.example>\r\n",
			ours + "To: \"Carol\" <carol@c.example>, ada@sender.example, \"Dave\" <dave@d.example>\r\n"},
		{"copy to oneself", from + "Cc: OLD+notes@Gmail.com, x@y.example\r\n", ours + "Cc: me@example.org, x@y.example\r\n"},
		{"another person with a similar address", from + "Cc: very.old@gmail.com, x@y.example\r\nTo: threshold@gmail.com\r\n", ours + "Cc: very.old@gmail.com, x@y.example\r\nTo: threshold@gmail.com\r\n"},
		{"Reply-To is the target", from + "Reply-To: old+x@gmail.com\r\n", ours + "Reply-To: me@example.org\r\n"},
		{"Reply-To is another", from + "Reply-To: Bob <bob@work.example>\r\n", ours + "Reply-To: Bob <bob@work.example>\r\n"},
		{"the name is the address", "From: \"Old@GMAIL.com\" <old@gmail.com>\r\n", "From: me@example.org\r\n"},
		{"the name is the address, encoded", "From: =?utf-8?Q?old=2Bx=40gmail=2Ecom?= <old@gmail.com>\r\n", "From: me@example.org\r\n"},
		{"no name", "From: old@gmail.com\r\n", "From: me@example.org\r\n"},
		{"a name in another script", "From: =?iso-8859-1?Q?J=F6rg?= <old@gmail.com>\r\n", "From: =?UTF-8?B?SsO2cmc=?= <me@example.org>\r\n"},
		{"subject", from + "Subject: write to OLD+x@gmail.com\r\n", ours + "Subject: write to me@example.org\r\n"},
		{"subject, encoded", from + "Subject: =?utf-8?B?" + "b2xkQGdtYWlsLmNvbQ==" + "?= now\r\n", ours + "Subject: me@example.org now\r\n"},
		{"subject, folded", from + "Subject: old\r\n @gmail.com\r\n", ours + "Subject: me@example.org\r\n"},
		{"subject with umlauts", from + "Subject: =?utf-8?Q?f=C3=BCr_old=40gmail=2Ecom?=\r\n", ours + "Subject: =?UTF-8?B?ZsO8ciBtZUBleGFtcGxlLm9yZw==?=\r\n"},
		{"message id", from + "Message-ID: <123.old@gmail.com>\r\nReferences: <a@b> <bounce+old=gmail.com@x>\r\n", ours + "Message-ID: <123.me@example.org>\r\nReferences: <a@b> <bounce+me@example.org@x>\r\n"},
		{"file name", from + "Content-Disposition: attachment; filename=\"old@gmail.com.txt\"\r\n", ours + "Content-Disposition: attachment; filename=\"me@example.org.txt\"\r\n"},
		{"boundary", from + "Content-Type: multipart/mixed; boundary=\"old@gmail.com\"\r\n", ours + "Content-Type: multipart/mixed; boundary=\"old@gmail.com\"\r\n"},
		{"comment", from + "To: x@y.example (for old@gmail.com)\r\n", ours + "To: x@y.example\r\n"},
		{"hops and marks", "Received: a\r\nX-Onward-Loop: abc\r\nReceived: b; x\r\n\x00(old@gmail.com)\r\n" + from, ours + "Received: by private.invalid\r\nX-Onward-Loop: abc\r\nReceived: by private.invalid\r\n"},
		{"what programs add", from + "Disposition-Notification-To: old@gmail.com\r\nAutocrypt: addr=old@gmail.com\r\nSender: old@gmail.com\r\nResent-From: old@gmail.com\r\nX-Mailer: x\r\nBcc: y@z.example\r\nAuto-Submitted: auto-replied\r\n",
			ours + "Auto-Submitted: auto-replied\r\n"},
		{"nothing that is no field", " junk\r\n" + from + "junk\r\n", ours},
	} {
		if got := reply(t, tt.in); got != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.name, got, tt.want)
		}
	}
}

// TestReplyOfIDN holds that both forms of the domain are private.
func TestReplyOfIDN(t *testing.T) {
	got := reply(t, "From: B <old@bücher.example>\r\nSubject: old@BÜCHER.example, Old@xn--bcher-kva.example\r\nCc: old@bücher.example\r\n")
	if want := "From: \"B\" <me@example.org>\r\nSubject: me@example.org, me@example.org\r\nCc: me@example.org\r\n"; got != want {
		t.Errorf("%q", got)
	}
}

var private = regexp.MustCompile("(?i)(^|[^\\pL\\pN\\x{FFFD}.!#$%&'*+/=?^_`{|}~-])old(\\+[a-z0-9]*)?@gmail\\.com")

// FuzzReply holds that the private address is not in what is written, whatever
// came with it, and that From is the alias.
func FuzzReply(f *testing.F) {
	f.Add("Subject: old@gmail.com", "Old@gmail.com", "x@y.example (old+a@gmail.com)")
	f.Add("Message-ID: <x.old@gmail.com>", "=?utf-8?Q?old=40gmail.com?=", "\"old@gmail.com\" <reply-abcdefghijklmnopqrstuvwxyz@mx.example.org>")
	f.Add("Received: x; old@gmail.com", "", "old@\r\n gmail.com")
	f.Fuzz(func(t *testing.T, header, name, to string) {
		one := func(s string) string { return strings.NewReplacer("\r", "", "\n", "").Replace(s) }
		in := lines(header) + "\r\nFrom: " + one(name) + " <old@gmail.com>\r\nTo: " + one(to) + "\r\n"
		if dmarc.ParseFrom(receive(t, in).Fields()).Mailbox.String() != "old@gmail.com" {
			t.Skip("not written by the target")
		}
		got := reply(t, in)
		m := receive(t, got)
		if from := dmarc.ParseFrom(m.Fields()); from.Mailbox != alias || from.Fields != 1 || from.Mistake != "" {
			t.Fatalf("%q: From is read as %+v\n%s", in, from, got)
		}
		for _, f := range m.Fields() {
			if private.MatchString(f.Value()) && !f.Is("Content-Type") {
				t.Fatalf("%q: %q names the target", in, f.Raw)
			}
		}
		for line := range strings.SplitAfterSeq(got, "\n") {
			text, _ := strings.CutSuffix(line, "\r\n")
			if strings.ContainsAny(text, "\r\n") || len(text) > 998 && !strings.Contains(in, text) {
				t.Fatalf("%q: line %.1500q", in, line)
			}
		}
	})
}
