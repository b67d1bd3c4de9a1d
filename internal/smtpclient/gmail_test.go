package smtpclient_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"onward/internal/smtpclient"
	"onward/internal/testmail"
)

// destinationSays is STANDARDS.md 3.1 in Google's words, and what others say in
// the same place. want is the result and, in this order: "us" for AboutUs,
// "warn" for a warning in the log, and who is left alone afterwards.
var destinationSays = []struct{ step, said, want string }{
	// Recipient rate limit: defer that recipient.
	{"RCPT", "450 4.2.1 The user you are trying to contact is receiving mail too quickly. Please resend your message at a later time", "deferred mailbox"},
	{".", "450-4.2.1 The user you are trying to contact is receiving mail at a rate that\r\n450 4.2.1 prevents additional messages from being delivered", "deferred mailbox"},
	{"RCPT", "550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages from being delivered", "refused"},
	// Mailbox full: defer, or fail.
	{"RCPT", "452 4.2.2 The recipient's inbox is out of storage space", "deferred"},
	{"RCPT", "552 5.2.2 The recipient's inbox is out of storage space and inactive", "refused"},
	{"RCPT", "550 5.2.1 The email account that you tried to reach is inactive", "refused"},
	{"RCPT", "550 5.1.1 The email account that you tried to reach does not exist", "refused"},
	{"DATA", "451 4.3.0 Multiple destination domains per transaction is unsupported. Please try again", "deferred"},
	{"MAIL", "421 4.3.0 Temporary System Problem. Try again later", "deferred"},
	{"MAIL", "421 4.4.5 Server busy, try again later", "deferred"},
	// x.7.0, for now: back off, unless a stranger could bring it about.
	{"CONNECT", "421 4.7.0 Try again later, closing connection", "deferred us warn destination"},
	{"EHLO", "421 4.7.0 Try again later, closing connection. (EHLO)", "deferred us warn destination"},
	{"MAIL", "421 4.7.0 Try again later, closing connection. (MAIL)", "deferred destination"},
	{"MAIL", "451 4.7.0 slow down", "deferred destination"},
	{".", "421 4.7.0 This message is suspicious due to the very low reputation of the sending IP address", "deferred destination"},
	{".", "421 4.7.0 The IP address sending this message does not have a PTR record, or the corresponding forward DNS entry does not point to the sending IP", "deferred us warn destination"},
	{"RCPT", "421 4.7.0 IP not in whitelist for RCPT domain, closing connection", "deferred destination"},
	{"RCPT", "421 4.7.0 TLS required for RCPT domain, closing connection", "deferred us warn"},
	{".", "421 4.7.0 This message is suspicious due to the nature of the content or the links within", "deferred message"},
	{".", "421 4.7.0 This message is suspicious due to the very low reputation of the sending domain", "deferred message"},
	{"MAIL", "421 4.7.0 Connection expired, try reconnecting", "deferred"},
	// Before MAIL no mailbox and no message can be meant.
	{"CONNECT", "450 4.2.1 receiving mail too quickly", "deferred us warn"},
	{"EHLO", "450 4.7.28 one of your URL domains", "deferred us warn"},
	// PTR and SPF of our own: the operator must look.
	{".", "421 4.7.23 The sending IP address for this message doesn't have a PTR record", "deferred us warn"},
	{".", "451 4.7.24 The SPF record of the sending domain has one or more suspicious entries", "deferred us warn"},
	{".", "550 5.7.24 The SPF record of the sending domain has one or more suspicious entries", "deferred us warn"},
	{".", "550 5.7.25 The IP address sending this message does not have a PTR record setup", "deferred us warn"},
	// The domain of our return path, where only that can be meant.
	{"MAIL", "550 5.1.8 Domain of sender address does not exist", "deferred us warn"},
	{"RCPT", "553 5.1.8 <ada@onward.test>: Sender address rejected: Domain not found", "deferred us warn"},
	{"MAIL", "501 5.1.7 Bad sender address syntax", "deferred us warn"},
	{"RCPT", "550 5.7.27 <ada@onward.test>: Sender address rejected: Domain does not accept mail (nullMX)", "deferred us warn"},
	{".", "550 5.1.8 Domain of the From address does not exist", "refused"},
	{"RCPT", "550 5.1.10 Recipient domain has null MX", "refused"},
	// Unauthenticated, for now: defer, alert.
	{".", "451 4.7.26 Unauthenticated email from example.net is not accepted due to domain's DMARC policy, but temporary DNS failures prevent authentication", "deferred warn"},
	{".", "421 4.7.26 This mail has been rate limited because it is unauthenticated", "deferred warn"},
	{".", "421 4.7.27 Your email has been rate limited because SPF authentication didn't pass for this message", "deferred warn"},
	{".", "421 4.7.29 Your email has been rate limited because this message wasn't sent over a TLS connection", "deferred us warn"},
	{".", "421 4.7.30 Your email has been rate limited because DKIM authentication didn't pass", "deferred warn"},
	{".", "421 4.7.32 Your email has been rate limited because the From: header isn't aligned", "deferred warn"},
	{".", "421 4.7.40 Your email has been rate limited because of DMARC", "deferred warn"},
	// Quotas: the breaker, where it is our quota.
	{".", "421 4.7.28 Gmail has detected an unusual rate of unsolicited mail", "deferred destination"},
	{"CONNECT", "421 4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your IP address 192.0.2.1", "deferred us warn destination"},
	{".", "421-4.7.28 Gmail has detected an unusual rate of unsolicited mail originating\r\n421 4.7.28 from your IP Netblock 192.0.2.0/24", "deferred destination"},
	{".", "451 4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your SPF domain onward.test", "deferred destination"},
	{".", "421 4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your DKIM domain onward.test", "deferred destination"},
	{".", "421 4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your DKIM domain example.net", "deferred message"},
	{".", "421 4.7.28 Gmail has detected an unusual rate of unsolicited mail containing one of your URL domains", "deferred message"},
	{".", "421 4.7.28 Gmail has detected this message exceeded its quota for sending messages with the same Message-ID:", "deferred message"},
	{".", "550 5.7.28 There is an unusual rate of unsolicited mail originating from your IP address", "deferred us warn destination"},
	{".", "550 5.7.28 This mail has been blocked because DKIM does not pass", "refused"},
	// About the message: passed back.
	{".", "550 5.7.1 This message is likely unsolicited mail", "refused"},
	{".", "550 5.7.1 Messages missing a valid Message-ID: header are not accepted", "refused"},
	{".", "550 5.7.1 This message does not meet IPv6 sending guidelines regarding PTR records and authentication", "refused warn"},
	{".", "550 5.7.26 This mail has been blocked because the sender is unauthenticated", "refused"},
	{".", "550 5.7.26 The MAIL FROM domain [onward.test] has an SPF record with a hard fail policy (-all)", "refused warn"},
	{".", "550 5.7.27 This mail has been blocked because SPF does not pass", "refused"},
	{"MAIL", "552 5.3.4 Your message exceeded Google's message size limits", "refused"},
	{".", "554 5.4.6 Message exceeded 50 hops, this may indicate a mail loop", "refused"},
	{".", "552 5.7.0 This message was blocked because its content presents a potential security issue", "refused"},
	{".", "550 5.7.0 blocked attachment", "refused"},
	{"MAIL", "530 5.7.0 Must issue a STARTTLS command first", "deferred us warn"},
	{"MAIL", "523 5.7.10 SMTP protocol violation, no commands allowed to pipeline after STARTTLS", "deferred us warn"},
	// Of a relay: our own quota there.
	{"MAIL", "550 5.4.5 Daily SMTP relay limit exceeded for user", "deferred us warn destination"},
	{"RCPT", "450 4.2.1 Peak SMTP relay limit exceeded for this customer", "deferred us warn destination"},
	{".", "454 Throttling failure: Maximum sending rate exceeded.", "deferred us warn destination"},
	// Others.
	{"MAIL", "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation", "deferred destination"},
	{"CONNECT", "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints", "deferred us warn destination"},
	{"MAIL", "421 4.7.1 Messages to x deferred due to excessive volume. Try again later", "deferred destination"},
	{"CONNECT", "421 4.7.0 mx.example.org Error: too many connections from 192.0.2.1", "deferred us warn"},
	{"MAIL", "451 4.7.0 Temporary server error. Please try again later. PRX4", "deferred"},
	{"RCPT", "450 4.2.1 greylisted", "deferred"},
	{"RCPT", "451 4.7.1 Greylisting in action, please come back in 00:05:00", "deferred"},
	{"RCPT", "451 4.7.0 Graylisted", "deferred"},
	{"RCPT", "451 4.7.1 Try again later", "deferred"},
	{"MAIL", "550 5.7.606 Access denied, banned sending IP [192.0.2.1]", "deferred us warn"},
	{".", "550 5.7.515 Access denied, sending domain EXAMPLE.NET does not meet the required authentication level", "refused"},
	{".", "554 5.7.1 [HM07] Message rejected due to local policy", "refused"},
}

// TestDestinationSays plays a destination that says each line once, and sees
// what is sent to it afterwards (DESIGN.md 9.8, RELIABILITY 77).
func TestDestinationSays(t *testing.T) {
	for _, tt := range destinationSays {
		t.Run(tt.step+" "+tt.said[:min(len(tt.said), 50)], func(t *testing.T) {
			var log bytes.Buffer
			w := newWorld(t)
			w.share(t, nil)
			w.Log = logTo(&log)
			w.Limits.PerMailboxPerSecond = 0 // is TestPace's
			w.sink.Do(tt.step, testmail.Action{Reply: tt.said, Times: 1})
			out := w.Deliver(t.Context(), to("joe@example.org", short))
			got := []string{out.Result.String()}
			if out.AboutUs {
				got = append(got, "us")
			}
			if strings.Contains(log.String(), "level=WARN") {
				got = append(got, "warn")
			}
			others := w.Deliver(t.Context(), to("ann@example.org", short))
			same := w.Deliver(t.Context(), to("JOE@example.org", short))
			switch {
			case !others.Tried && !same.Tried:
				got = append(got, "destination")
				want(t, others, smtpclient.Deferred, "451 4.7.0 the destination wants", "wait")
			case !same.Tried:
				got = append(got, "mailbox")
				want(t, same, smtpclient.Deferred, "450 4.2.1 the mailbox takes", "wait")
				want(t, others, smtpclient.Delivered, "250", "dot")
			default:
				if out.Limited {
					got = append(got, "message")
				}
				want(t, others, smtpclient.Delivered, "250", "dot")
				want(t, same, smtpclient.Delivered, "250", "dot")
			}
			t.Logf("%-8s%-40.100s -> %s", tt.step, strings.ReplaceAll(tt.said, "\r\n", " / "), strings.Join(got, ", "))
			if !slices.Equal(got, strings.Fields(tt.want)) {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if !out.Tried || out.Said == nil || strings.HasPrefix(tt.want, "refused") && !strings.HasPrefix(tt.said, out.Reply.String()[:9]) {
				t.Errorf("outcome %+v", out)
			}
			if limited := out.Limited; limited == out.NotBefore.IsZero() || limited && time.Until(out.NotBefore) < 14*time.Minute {
				t.Errorf("limited %v, not before %v", limited, out.NotBefore)
			}
			if held := same; !held.Tried && (!held.Limited || !held.NotBefore.Equal(out.NotBefore) || held.Said != nil) {
				t.Errorf("held %+v", held)
			}
			w.Destinations.Close()
			clean(t, w.sink)
		})
	}
}
