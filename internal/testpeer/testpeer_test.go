package testpeer_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"onward/internal/testpeer"
)

// The peers among themselves, before onward stands between them: what a test
// of onward compares must survive the trip without it.
func TestPostfixToPostfix(t *testing.T) {
	testpeer.Need(t, "postfix", "smtp-source")
	port := testpeer.FreePort(t, "127.0.0.2", "127.0.0.3")
	destination := testpeer.StartPostfix(t, testpeer.PostfixConfig{
		Hostname:  "mx.dest.example",
		Listen:    fmt.Sprintf("127.0.0.3:%d", port),
		Mailboxes: []string{"bob@dest.example"},
	})
	tap := testpeer.StartTap(t, fmt.Sprintf("127.0.0.3:%d", port))
	sender := testpeer.StartPostfix(t, testpeer.PostfixConfig{
		Hostname:  "mx.sender.example",
		Mailboxes: []string{"ann@sender.example"},
		Params: map[string]string{
			"relayhost":               "[127.0.0.1]" + tap.Addr()[strings.LastIndexByte(tap.Addr(), ':'):],
			"smtp_tls_security_level": "none", // the tap reads along
		},
	})

	t.Run("delivers the octets it was given", func(t *testing.T) {
		message := "Subject: dots\n\n.\n..\n.x\n" + strings.Repeat("long ", 1000) + "\nf\xc3\xbcr 8 bit\n"
		sender.Submit(t, message, "ann@sender.example", "bob@dest.example")
		got := destination.WaitMail(t, "bob@dest.example", 1)[0]
		testpeer.Wait(t, "the end of the session", func() bool { return len(tap.Messages()) == 1 })
		given := tap.Messages()[0]
		if !strings.HasSuffix(given, strings.ReplaceAll(message[strings.Index(message, "\n\n"):], "\n", "\r\n")) {
			t.Errorf("the tap heard %q", given)
		}
		if !strings.HasSuffix(got, given) || !strings.HasPrefix(got, "Return-Path: <ann@sender.example>\r\n") {
			t.Errorf("given %q\nkept %q", given, got)
		}
	})

	t.Run("bounces what is refused", func(t *testing.T) {
		sender.Submit(t, "Subject: nobody home\n\nhello\n", "ann@sender.example", "nobody@dest.example")
		bounce := sender.WaitMail(t, "ann@sender.example", 1)[0]
		if !strings.Contains(bounce, "550 5.1.1 <nobody@dest.example>") || !strings.HasPrefix(bounce, "Return-Path: <>\r\n") {
			t.Errorf("bounce %q", bounce)
		}
	})

	t.Run("keeps and flushes what it cannot deliver", func(t *testing.T) {
		destination.Stop(t)
		sender.Submit(t, "Subject: later\n\nhello\n", "", "bob@dest.example")
		testpeer.Wait(t, "a deferred message", func() bool {
			queue := sender.Queue(t)
			return len(queue) == 1 && queue[0].Queue == "deferred" && queue[0].Recipients[0].Reason != ""
		})
		destination.Start(t)
		sender.Flush(t)
		got := destination.WaitMail(t, "bob@dest.example", 2)
		if !slices.ContainsFunc(got, func(m string) bool { return strings.HasPrefix(m, "Return-Path: <>\r\n") }) {
			t.Errorf("mailbox %q", got)
		}
	})

	t.Run("takes what smtp-source sends", func(t *testing.T) {
		before := len(tap.Messages())
		if out, status := testpeer.Run(t, "", "smtp-source", "-s", "3", "-m", "9", "-l", "5000", "-d",
			"-f", "ann@sender.example", "-t", "bob@dest.example", tap.Addr()); status != 0 {
			t.Fatal(out)
		}
		got := destination.WaitMail(t, "bob@dest.example", 2+9)
		testpeer.Wait(t, "nine messages", func() bool { return len(tap.Messages()) == before+9 })
		for _, given := range tap.Messages()[before:] {
			if len(given) < 5000 || !slices.ContainsFunc(got, func(m string) bool { return strings.HasSuffix(m, given) }) {
				t.Errorf("not in the mailbox: %q", given)
			}
		}
	})
}

func TestUnbound(t *testing.T) {
	testpeer.Need(t, "unbound")
	server := testpeer.StartUnbound(t,
		"dest.example. 60 IN MX 10 mx.dest.example.",
		`dest.example. 60 IN TXT "v=spf1 -all"`,
		"mx.dest.example. 60 IN A 127.0.0.3")
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.String())
	}}
	mx, err := resolver.LookupMX(t.Context(), "dest.example.")
	if err != nil || len(mx) != 1 || *mx[0] != (net.MX{Host: "mx.dest.example.", Pref: 10}) {
		t.Errorf("MX %v, %v", mx, err)
	}
	if txt, err := resolver.LookupTXT(t.Context(), "dest.example."); err != nil || !slices.Equal(txt, []string{"v=spf1 -all"}) {
		t.Errorf("TXT %q, %v", txt, err)
	}
	_, err = resolver.LookupHost(t.Context(), "www.example.com.")
	if e, ok := err.(*net.DNSError); !ok || !e.IsNotFound || e.Timeout() {
		t.Errorf("a name it was not told: %v, want not found", err)
	}
}

func TestSwaks(t *testing.T) {
	testpeer.Need(t, "postfix", "swaks")
	port := testpeer.FreePort(t, "127.0.0.3")
	addr := fmt.Sprintf("127.0.0.3:%d", port)
	destination := testpeer.StartPostfix(t, testpeer.PostfixConfig{
		Hostname: "mx.dest.example", Listen: addr, Mailboxes: []string{"bob@dest.example"},
	})
	out, status := testpeer.Run(t, "", "swaks", "--server", addr, "--tls", "--pipeline",
		"--from", "ann@sender.example", "--to", "bob@dest.example", "--data", "Subject: x\n\n.dot\n")
	if status != 0 || !strings.Contains(out, "TLS started") {
		t.Errorf("status %d: %s", status, out)
	}
	if got := destination.WaitMail(t, "bob@dest.example", 1)[0]; !strings.Contains(got, "\r\n\r\n.dot\r\n") {
		t.Errorf("kept %q", got)
	}
}
