package smtpclient_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"onward/internal/address"
	"onward/internal/resolver"
	"onward/internal/smtpclient"
	"onward/internal/testmail"
)

func TestDelivered(t *testing.T) {
	for _, tt := range []struct {
		name  string
		offer []string
		tls   bool
		mail  string
	}{
		{"everything", nil, true, "MAIL FROM:<SRS0=x=y=example.net=ada@onward.test> SIZE="},
		// DEPENDENCIES.md C: keywords in any case are offers.
		{"strange case", []string{"sTaRtTlS", "Pipelining", "size 9999999"}, true, "MAIL FROM:<SRS0=x=y=example.net=ada@onward.test> SIZE="},
		{"no limit named", []string{"SIZE"}, false, "MAIL FROM:<SRS0=x=y=example.net=ada@onward.test> SIZE="},
		{"nothing", []string{}, false, "MAIL FROM:<SRS0=x=y=example.net=ada@onward.test>"},
	} {
		for _, body := range []string{"", short, ".\r\n..\r\n\r\n.\r\n", strings.Repeat(strings.Repeat("x", 998)+"\r\n.\r\n", 2000)} {
			t.Run(fmt.Sprintf("%s/%d", tt.name, len(body)), func(t *testing.T) {
				w := newWorld(t)
				if tt.offer != nil {
					w.sink.Offer(tt.offer...)
				}
				out := w.Deliver(t.Context(), to("Joe@example.org", body))
				want(t, out, smtpclient.Delivered, "250 2.0.0 taken", "dot")
				if out.Said != out.Reply || out.Host != "mail.test" || out.Addr != w.sink.Addr() || (out.TLS != "") != tt.tls || out.TLSFailure != nil {
					t.Errorf("outcome %+v", out)
				}
				clean(t, w.sink)
				got := w.sink.Messages()
				if len(got) != 1 || string(got[0].Data) != body {
					t.Fatalf("%d messages, or octets changed", len(got))
				}
				mail := strings.Replace(tt.mail, "SIZE=", fmt.Sprintf("SIZE=%d", len(body)), 1)
				if d := got[0]; d.Mail != mail || !slices.Equal(d.Rcpt, []string{"RCPT TO:<Joe@example.org>"}) || (d.TLS != "") != tt.tls {
					t.Errorf("delivery %q %q %q", d.Mail, d.Rcpt, d.TLS)
				}
				for _, line := range w.sink.Commands() { // B9: our name, also before TLS
					if strings.HasPrefix(line, "EHLO") && line != "EHLO mx.onward.test" {
						t.Errorf("said %q", line)
					}
				}
				if last := w.sink.Commands(); last[len(last)-1] != "QUIT" {
					t.Errorf("left without QUIT: %q", last)
				}
			})
		}
	}
}

// TestExtensions: what the peer cannot take is not sent, and refused with the
// code of DESIGN.md 9.1 or its RFC.
func TestExtensions(t *testing.T) {
	intl := to("josé@example.org", short)
	for _, tt := range []struct {
		name   string
		change func(*smtpclient.Transaction)
		offer  []string
		reply  string
		mail   string // the parameters
	}{
		{"too large", nil, []string{"SIZE 24"}, "552 5.3.4", ""},
		{"just fits", nil, []string{"SIZE 25"}, "250", " SIZE=25"},
		{"any size", nil, []string{"SIZE 0"}, "250", " SIZE=25"},
		{"absurd limit", nil, []string{"SIZE 99999999999999999999"}, "250", " SIZE=25"},
		{"8-bit", func(t *smtpclient.Transaction) { t.EightBit = true }, []string{"8BITMIME"}, "250", " BODY=8BITMIME"},
		{"8-bit not taken", func(t *smtpclient.Transaction) { t.EightBit = true }, []string{"SMTPUTF8"}, "554 5.6.3", ""},
		{"UTF-8 header", func(t *smtpclient.Transaction) { t.UTF8 = true }, []string{"SMTPUTF8"}, "250", " SMTPUTF8"},
		{"UTF-8 header not taken", func(t *smtpclient.Transaction) { t.UTF8 = true }, []string{"8BITMIME"}, "550 5.6.7", ""},
		{"UTF-8 target", func(t *smtpclient.Transaction) { t.To = intl.To }, []string{"SMTPUTF8"}, "250", " SMTPUTF8"},
		{"UTF-8 target not taken", func(t *smtpclient.Transaction) { t.To = intl.To }, []string{"SIZE"}, "550 5.6.7", ""},
		{"UTF-8 sender not taken", func(t *smtpclient.Transaction) { t.From.Mailbox = intl.To }, []string{"SIZE"}, "550 5.6.7", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.sink.Offer(tt.offer...)
			transaction := to("joe@example.org", short)
			if tt.change != nil {
				tt.change(transaction)
			}
			out := w.Deliver(t.Context(), transaction)
			clean(t, w.sink)
			got := w.sink.Messages()
			if out.Result != smtpclient.Delivered {
				want(t, out, smtpclient.Refused, tt.reply, "EHLO")
				if out.Said != nil || slices.ContainsFunc(w.sink.Commands(), func(s string) bool { return strings.HasPrefix(s, "MAIL") }) {
					t.Errorf("%+v after %q", out, w.sink.Commands())
				}
			} else if tt.reply != "250" || len(got) != 1 || !strings.HasSuffix(got[0].Mail, ">"+tt.mail) {
				t.Errorf("%v; got %+v", out.Reply, got)
			}
		})
	}
}

// TestExtensionsElsewhere: a host that cannot take the message does not speak
// for the next, nor for one that cannot be asked today.
func TestExtensionsElsewhere(t *testing.T) {
	w := newWorld(t)
	second := w.second(t)
	w.set(t, "example.org", resolver.TypeMX, "10 mail.test.", "20 mail2.test.")
	w.sink.Offer("SIZE 10")
	want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Delivered, "250", "dot")
	second.Answer("RCPT", "450 4.2.0 not now")
	want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Deferred, "450 4.2.0 not now", "RCPT")
	second.Offer("SIZE 10")
	want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Refused, "552 5.3.4", "EHLO")

	// Nor do all that were asked speak for one that was not.
	w.set(t, "third.test", resolver.TypeA, "127.0.0.3")
	third := sinkAt(t, fmt.Sprintf("127.0.0.3:%d", w.Port))
	w.set(t, "example.org", resolver.TypeMX, "10 mail.test.", "20 mail2.test.", "30 third.test.")
	want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Deferred, "451 4.3.4 message of 25 octets", "EHLO")
	if n := third.Sessions(); n != 0 {
		t.Errorf("%d sessions at the third host", n)
	}
	w.MaxHosts = 3
	want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Delivered, "250", "dot")
	third.Offer("SIZE 10")
	want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Refused, "552 5.3.4", "EHLO")
}

func TestNullSenderAndQuoting(t *testing.T) {
	w := newWorld(t)
	transaction := to(`"a > b\"c"@example.org`, short)
	transaction.From = address.ReversePath{}
	want(t, w.Deliver(t.Context(), transaction), smtpclient.Delivered, "250", "dot")
	d := w.sink.Messages()[0]
	if d.Mail != "MAIL FROM:<> SIZE=25" || d.Rcpt[0] != `RCPT TO:<"a > b\"c"@example.org>` {
		t.Errorf("envelope %q %q", d.Mail, d.Rcpt)
	}
	// An address that was never parsed is not sent if it could break the line.
	transaction.To.Domain = "example.org"
	transaction.To.Local = "x\r\nRCPT TO:<y@example.org>"
	want(t, w.Deliver(t.Context(), transaction), smtpclient.Deferred, "451 4.3.0", "EHLO")
	if w.sink.Count() != 1 {
		t.Error("sent all the same")
	}
}

// TestNextHost: which outcomes at the first host lead to the second.
func TestNextHost(t *testing.T) {
	for _, tt := range []struct {
		name, step string
		action     testmail.Action
		next       bool
	}{
		{"greeting 554", "CONNECT", testmail.Action{Reply: "554 5.7.1 bad reputation"}, true},
		{"greeting 421", "CONNECT", testmail.Action{Reply: "421 4.3.2 busy"}, true},
		{"greeting drop", "CONNECT", testmail.Action{Drop: true}, true},
		{"EHLO 550", "EHLO", testmail.Action{Reply: "421 4.7.0 go away"}, true},
		{"injected STARTTLS", "STARTTLS", testmail.Action{Reply: "220 go\r\n250 sink"}, true},
		{"MAIL 451", "MAIL", testmail.Action{Reply: "451 4.7.1 later"}, true},
		{"MAIL 550", "MAIL", testmail.Action{Reply: "550 5.7.1 no"}, false},
		{"MAIL blocklist", "MAIL", testmail.Action{Reply: "550 5.7.1 listed at zen.spamhaus.org"}, true},
		{"RCPT 550", "RCPT", testmail.Action{Reply: "550 5.1.1 no such user"}, false},
		{"RCPT 450", "RCPT", testmail.Action{Reply: "450 4.2.1 greylisted"}, true},
		{"RCPT 5.7.25", "RCPT", testmail.Action{Reply: "550 5.7.25 no PTR"}, true},
		{"DATA drop", "DATA", testmail.Action{Drop: true}, true},
		{"dot 451", ".", testmail.Action{Reply: "451 4.3.0 later"}, false},
		{"dot 550", ".", testmail.Action{Reply: "550 5.7.1 spam"}, false},
		{"dot drop", ".", testmail.Action{Drop: true}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			second := w.second(t)
			w.set(t, "example.org", resolver.TypeMX, "20 mail2.test.", "10 mail.test.")
			w.sink.Do(tt.step, tt.action)
			out := w.Deliver(t.Context(), to("joe@example.org", short))
			if (out.Result == smtpclient.Delivered) != tt.next || second.Sessions() > 0 != tt.next || w.sink.Sessions() != 1 {
				t.Errorf("%v %v, second host seen: %v", out.Result, out.Reply, second.Sessions() > 0)
			}
			if tt.next && (out.Host != "mail2.test" || out.Addr != second.Addr()) {
				t.Errorf("delivered to %s %v", out.Host, out.Addr)
			}
		})
	}
}

// TestLimits: two sessions and five addresses (RELIABILITY.md 5), and the words of
// a host that spoke outweigh those about one that did not.
func TestLimits(t *testing.T) {
	w := newWorld(t)
	second := w.second(t)
	w.set(t, "third.test", resolver.TypeA, "127.0.0.3")
	third := sinkAt(t, fmt.Sprintf("127.0.0.3:%d", w.Port))
	w.set(t, "example.org", resolver.TypeMX, "1 mail.test.", "2 mail2.test.", "3 third.test.")
	w.sink.Answer("RCPT", "450 4.2.1 greylisted")
	second.Do("CONNECT", testmail.Action{Drop: true})
	want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Deferred, "450 4.2.1 greylisted", "RCPT")
	if third.Sessions() != 0 {
		t.Error("held a third session")
	}
	w.MaxHosts = 3
	want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Delivered, "250", "dot")

	// Nobody listens at these; the sixth address would take it.
	w.set(t, "deaf.test", resolver.TypeA, "127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4", "127.0.1.5", "127.0.0.3")
	w.set(t, "example.org", resolver.TypeMX, "1 deaf.test.")
	want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Deferred, "451 4.4.1", "connect")
	w.set(t, "deaf.test", resolver.TypeA, "127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4", "127.0.0.3")
	want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Delivered, "250", "dot")

	w.set(t, "deaf.test", resolver.TypeA, "127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4", "127.0.1.5", "127.0.0.3")
	w.MaxHosts = 6 // so many, where more hosts are asked for
	want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Delivered, "250", "dot")

	// A host that has answered is not asked again at its other address.
	w.set(t, "twice.test", resolver.TypeA, "127.0.0.1", "127.0.0.3")
	w.set(t, "example.org", resolver.TypeMX, "1 twice.test.")
	want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Deferred, "450 4.2.1 greylisted", "RCPT")
}

func TestFamilies(t *testing.T) {
	w := newWorld(t)
	six, err := testmail.StartSink(fmt.Sprintf("[::1]:%d", w.Port))
	if err != nil {
		t.Skipf("no IPv6 on loopback here: %v", err)
	}
	defer six.Close()
	w.set(t, "mail.test", resolver.TypeAAAA, "::1")
	w.set(t, "six.test", resolver.TypeAAAA, "::1")
	v4, v6, unspecified := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"), netip.Addr{}
	for _, tt := range []struct {
		ipv6, target string
		source, want netip.Addr // want unspecified: deferred
	}{
		{"", "a@mail.test", unspecified, v4},
		{"auto", "a@mail.test", unspecified, v4},
		{"on", "a@mail.test", unspecified, v6},
		{"off", "a@mail.test", unspecified, v4},
		{"auto", "a@six.test", unspecified, v6},
		{"off", "a@six.test", unspecified, unspecified},
		{"on", "a@mail.test", v4, v4},
		{"auto", "a@six.test", v4, unspecified},
		{"auto", "a@mail.test", v6, v6},
		{"auto", "a@[127.0.0.1]", unspecified, v4},
		{"auto", "a@[IPv6:::1]", unspecified, v6},
		{"off", "a@[IPv6:::1]", unspecified, unspecified},
	} {
		t.Run(fmt.Sprintf("%s %s from %v", tt.ipv6, tt.target, tt.source), func(t *testing.T) {
			w.IPv6, w.Source = tt.ipv6, tt.source
			out := w.Deliver(t.Context(), to(tt.target, short))
			if !tt.want.IsValid() {
				want(t, out, smtpclient.Deferred, "451 4.4.1", "lookup")
				return
			}
			want(t, out, smtpclient.Delivered, "250", "dot")
			if out.Addr.Addr() != tt.want {
				t.Errorf("went to %v", out.Addr)
			}
		})
	}
	// IPv6 broken, IPv4 works.
	six.Close()
	w.IPv6, w.Source = "on", netip.Addr{}
	want(t, w.Deliver(t.Context(), to("a@mail.test", short)), smtpclient.Delivered, "250", "dot")
}

func TestLog(t *testing.T) {
	w := newWorld(t)
	second := w.second(t)
	w.set(t, "example.org", resolver.TypeMX, "1 mail.test.", "2 mail2.test.")
	w.sink.Answer("CONNECT", "554 5.7.1 your\x1b[31m address\u2028 is listed")
	var log bytes.Buffer
	w.Log = slog.New(slog.NewJSONHandler(&log, nil))
	w.Deliver(t.Context(), to("joe@example.org", short))
	lines := json.NewDecoder(&log)
	for _, want := range []map[string]any{
		{"level": "WARN", "msg": "attempt", "id": "01K", "to": "joe@example.org", "dest": "mail.test", "peer": w.sink.Addr().String(), "result": "deferred",
			"step": "greeting", "code": 554., "status": "5.7.1", "text": "your?[31m address? is listed", "about_us": true, "tls": ""},
		{"level": "INFO", "dest": "mail2.test", "peer": second.Addr().String(), "result": "delivered", "code": 250., "step": "dot", "about_us": false},
	} {
		var got map[string]any
		if err := lines.Decode(&got); err != nil {
			t.Fatal(err)
		}
		for key, value := range want {
			if got[key] != value {
				t.Errorf("%s = %v, want %v", key, got[key], value)
			}
		}
	}
	if err := lines.Decode(new(any)); err != io.EOF {
		t.Errorf("more lines: %v", err)
	}
}

// BenchmarkDeliver is messages of 10 KB to one host, each over a connection of
// its own or over those that are kept.
func BenchmarkDeliver(b *testing.B) {
	for _, mode := range []string{"clear", "TLS"} {
		for _, pool := range []string{"alone", "pool"} {
			for _, senders := range []int{1, 16} {
				b.Run(fmt.Sprintf("%s/%s/%d", mode, pool, senders), func(b *testing.B) {
					w := newWorld(b)
					w.sink.Forget()
					if mode == "clear" {
						w.sink.Offer("PIPELINING", "SIZE", "8BITMIME")
					}
					if pool == "pool" {
						w.share(b, nil)
					}
					b.SetBytes(int64(len(letter)))
					b.ReportAllocs()
					b.SetParallelism(senders) // times GOMAXPROCS
					b.RunParallel(func(pb *testing.PB) {
						transaction := to("joe@example.org", letter)
						for pb.Next() {
							if out := w.Deliver(b.Context(), transaction); out.Result != smtpclient.Delivered {
								b.Error(out.Reply.Error())
								return
							}
						}
					})
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
					b.ReportMetric(float64(w.sink.Sessions()), "sessions")
				})
			}
		}
	}
}

var letter = strings.Repeat(strings.Repeat("x", 70)+"\r\n", 10<<10/72)
