package main_test

import (
	"encoding/binary"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"onward/internal/resolver"
	"onward/internal/testmail"
	"onward/internal/testpeer"
)

// Where proxies are, one that the daemon knows of and one that it does not.
var (
	proxyHost  = netip.MustParseAddr("127.0.0.50")
	secretHost = netip.MustParseAddr("127.0.0.51")
)

// headerV1 is a PROXY header for a client, in version 1.
func headerV1(client string) string {
	family := "TCP4 " + client + " 192.0.2.25"
	if strings.Contains(client, ":") {
		family = "TCP6 " + client + " 2001:db8::25"
	}
	return "PROXY " + family + " 50000 25\r\n"
}

// headerV2 is the same in version 2.
func headerV2(client string) string {
	ip := netip.MustParseAddr(client)
	family, to := byte(0x11), netip.MustParseAddr("192.0.2.25")
	if ip.Is6() {
		family, to = 0x21, netip.MustParseAddr("2001:db8::25")
	}
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x21, family)
	b = binary.BigEndian.AppendUint16(b, uint16(2*ip.BitLen()/8+4))
	b = append(append(b, ip.AsSlice()...), to.AsSlice()...)
	return string(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, 50000), 25))
}

// TestProxy holds that the client is who a known proxy says, in every place where
// that matters, and that nobody else is believed.
func TestProxy(t *testing.T) {
	s := newStandOf(t, &daemon{}, "policy: {proxy_protocol_from: [127.0.0.50]}\n", "me: ann@dest.example")
	if err := s.zone.Set("real.example", resolver.TypeTXT, "v=spf1 ip4:198.51.100.10 ip6:2001:db8::10 -all"); err != nil {
		t.Fatal(err)
	}
	passed := 0
	for _, tt := range []struct {
		header, client, spf string
		pieces              bool
	}{
		{header: headerV1("198.51.100.10"), client: "[198.51.100.10]", spf: "spf=pass"},
		{header: headerV1("198.51.100.11"), client: "[198.51.100.11]", spf: "spf=fail", pieces: true},
		{header: headerV2("198.51.100.10"), client: "[198.51.100.10]", spf: "spf=pass", pieces: true},
		{header: headerV1("2001:db8::10"), client: "[IPv6:2001:db8::10]", spf: "spf=pass"},
		{header: headerV2("2001:db8::11"), client: "[IPv6:2001:db8::11]", spf: "spf=fail"},
	} {
		talk := testmail.DialFrom(t, proxyHost, s.addr)
		if tt.pieces {
			for i := range tt.header {
				talk.Send(tt.header[i : i+1])
				time.Sleep(time.Millisecond)
			}
		} else {
			talk.Send(tt.header)
		}
		talk.Expect("220 ")
		talk.Say("EHLO mx.real.example", "250")
		send(talk, "ada@real.example", "me@alias.example", "250 2.0.0 ")
		talk.Say("QUIT", "221 ") // who hangs up may not have heard, and the same letter again be its retry
		talk.Close()
		passed++
		text := string(s.arrived(t, passed).Data)
		if !strings.Contains(text, "Received: from mx.real.example ("+tt.client+")") || !strings.Contains(text, tt.spf) {
			t.Errorf("%q: want %s and %s in\n%s", tt.header, tt.client, tt.spf, text)
		}
	}

	for _, said := range []string{"", "EHLO mx.real.example\r\n", "PROXY TCP4 198.51.100.10\r\n", headerV1("198.51.100.10")[:20], headerV1("0.0.0.0"), "GET / HTTP/1.0\r\n\r\n"} {
		talk := testmail.DialFrom(t, proxyHost, s.addr)
		talk.Send(said)
		if said == "" || strings.HasPrefix(headerV1("198.51.100.10"), said) {
			talk.Conn().(interface{ CloseWrite() error }).CloseWrite()
		}
		talk.ExpectClose()
		talk.Close()
	}
	for _, header := range []string{headerV1("198.51.100.10"), headerV2("198.51.100.10")} {
		talk := testmail.DialFrom(t, secretHost, s.addr)
		io.WriteString(talk.Conn(), header)
		talk.Conn().SetDeadline(time.Now().Add(patience))
		heard, _ := io.ReadAll(talk.Conn())
		if text := string(heard); !strings.HasPrefix(text, "554 5.5.0") && !strings.HasPrefix(lastLine(text), "500 5.5") {
			t.Errorf("a proxy that nobody told us of hears %q", text)
		}
		talk.Close()
	}
	send(s.dial(t), "ada@real.example", "me@alias.example", "250 2.0.0 ") // directly, without a header
	if text := string(s.arrived(t, passed+1).Data); !strings.Contains(text, "([127.0.0.1])") {
		t.Errorf("a client without a proxy became another: %s", text)
	}
}

// TestDNSLists holds what becomes of clients that lists name, behind a proxy, as
// no list names our own.
func TestDNSLists(t *testing.T) {
	s := newStandOf(t, &daemon{}, "policy: {proxy_protocol_from: [127.0.0.50], dnsbl: [bl.example], dnswl: [wl.example]}\n", "me: ann@dest.example")
	set := func(name string, kind resolver.Type, data string) {
		t.Helper()
		if err := s.zone.Set(name, kind, data); err != nil {
			t.Fatal(err)
		}
	}
	for _, last := range []string{"7", "8"} {
		set(last+".100.51.198.bl.example", resolver.TypeA, "127.0.0.2")
		set(last+".100.51.198.bl.example", resolver.TypeTXT, "ask https://bl.example/"+last)
	}
	set("8.100.51.198.wl.example", resolver.TypeA, "127.0.0.3")
	set("9.100.51.198.bl.example", resolver.TypeA, "127.255.255.254") // the list refuses to answer
	set("7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.example", resolver.TypeA, "127.0.0.2")
	for _, tt := range []struct{ client, to, want string }{
		{"198.51.100.7", "me@alias.example", "550 5.7.1 198.51.100.7 is listed by bl.example: ask https://bl.example/7"},
		{"198.51.100.7", "postmaster@alias.example", "250 "},
		{"2001:db8::7", "me@alias.example", "550 5.7.1 2001:db8::7 is listed by bl.example"},
		{"198.51.100.8", "me@alias.example", "250 "},
		{"198.51.100.9", "me@alias.example", "250 "},
		{"198.51.100.1", "me@alias.example", "250 "},
	} {
		talk := testmail.DialFrom(t, proxyHost, s.addr)
		talk.Send(headerV1(tt.client))
		talk.Expect("220 ")
		talk.Say("EHLO mx.sender.example", "250")
		talk.Say("MAIL FROM:<ada@sender.example>", "250 ")
		talk.Say("RCPT TO:<"+tt.to+">", tt.want)
		talk.Close()
	}
	s.log.wait(t, 0, `a DNS list is of no use.*bl\.example`)
}

// TestMilters holds what becomes of a message that libmilter has an opinion of,
// behind a milter that is away.
func TestMilters(t *testing.T) {
	at := testpeer.StartMilter(t, `
    def header(self, name, value):
        if name == 'Subject': self.subject = value
        return Milter.CONTINUE
    def eom(self):
        self.addheader('X-New', 'x')
        self.chgheader('Subject', 1, 'x')
        self.replacebody('x')
        self.addrcpt('<eve@gmail.com>')
        if self.subject == 'virus':
            self.setreply('554', '5.7.1', 'a virus')
            return Milter.REJECT
        if self.subject == 'odd': self.quarantine('looks odd')
        if self.subject == 'away': return Milter.DISCARD
        if self.subject == 'later': return Milter.TEMPFAIL
        return Milter.ACCEPT
`)
	s := newStandOf(t, &daemon{}, "policy: {milters: [\"unix:/nowhere/socket\", \""+at+"\"]}\n", "me: {to: ann@gmail.com, tag_suspect: true}")
	if err := s.zone.Set("gmail.com", resolver.TypeMX, "10 mx.dest.example."); err != nil {
		t.Fatal(err)
	}
	passed := 0
	for _, tt := range []struct{ subject, want, target string }{
		{"hello", "250 2.0.0 ", "ann@gmail.com"},
		{"virus", "550 5.7.1 a virus (", ""},
		{"later", "451 4.7.1 not now", ""},
		{"away", "550 5.7.1 a filter refuses", ""},
		{"odd", "250 2.0.0 ", "ann+suspect@gmail.com"},
	} {
		talk := s.dial(t)
		talk.Say("MAIL FROM:<ada@sender.example>", "250 ")
		talk.Say("RCPT TO:<me@alias.example>", "250 ")
		talk.Say("DATA", "354 ")
		text := "From: ada@sender.example\r\nSubject: " + tt.subject + "\r\n\r\nhello\r\n"
		talk.Say(text+".", tt.want)
		talk.Close()
		if tt.target == "" {
			continue
		}
		passed++
		if d := s.arrived(t, passed); d.Rcpt[0] != "RCPT TO:<"+tt.target+">" || !strings.HasSuffix(string(d.Data), text) {
			t.Errorf("%s: %s, %.2000q", tt.subject, d.Rcpt, d.Data)
		}
	}
	if n := s.sink.Count(); n != passed {
		t.Errorf("%d messages at the destination, want %d", n, passed)
	}
	s.log.wait(t, 0, `a filter did not check a message.*milter unix:/nowhere/socket`)
	s.log.wait(t, 0, `rejected.*a virus.*milter `+at)
}

// TestRspamd holds what becomes of a message that a real rspamd has an opinion of.
func TestRspamd(t *testing.T) {
	testpeer.Need(t, "rspamd")
	url := testpeer.StartRspamd(t, `
rspamd_config:register_symbol({name = 'ORDER', type = 'prefilter', callback = function(task)
  task:set_pre_result(task:get_header('Subject') or '', 'as you wish', 'test')
end})
`)
	s := newStandOf(t, &daemon{}, "policy: {rspamd: "+url+"}\n", "me: {to: ann@gmail.com, tag_suspect: true}", "plain: ann@gmail.com")
	if err := s.zone.Set("gmail.com", resolver.TypeMX, "10 mx.dest.example."); err != nil {
		t.Fatal(err)
	}
	passed := 0
	for _, tt := range []struct{ action, alias, want, target string }{
		{"no action", "me", "250 2.0.0 ", "ann@gmail.com"},
		{"add header", "me", "250 2.0.0 ", "ann+suspect@gmail.com"},
		{"add header", "plain", "250 2.0.0 ", "ann@gmail.com"},
		{"greylist", "me", "250 2.0.0 ", "ann@gmail.com"},
		{"soft reject", "me", "451 4.7.1 as you wish", ""},
		{"reject", "me", "550 5.7.1 as you wish", ""},
	} {
		talk := s.dial(t)
		talk.Say("MAIL FROM:<ada@sender.example>", "250 ")
		talk.Say("RCPT TO:<"+tt.alias+"@alias.example>", "250 ")
		talk.Say("DATA", "354 ")
		text := "From: ada@sender.example\r\nSubject: " + tt.action + "\r\n\r\nhello\r\n"
		talk.Say(text+".", tt.want)
		talk.Close()
		if tt.target == "" {
			continue
		}
		passed++
		if d := s.arrived(t, passed); d.Rcpt[0] != "RCPT TO:<"+tt.target+">" || !strings.HasSuffix(string(d.Data), text) {
			t.Errorf("%s for %s: %s, %.2000q", tt.action, tt.alias, d.Rcpt, d.Data)
		}
	}
	if n := s.sink.Count(); n != passed {
		t.Errorf("%d messages at the destination, want %d", n, passed)
	}
}
