package inbound

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"onward/internal/dnsbl"
	"onward/internal/resolver"
)

// A publicListener has clients whose address DNS lists can know.
type publicListener struct{ net.Listener }

type publicConn struct{ net.Conn }

func (l publicListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return publicConn{conn}, err
}

func (publicConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 25} }

// A broken resolver panics.
type broken struct{}

func (broken) Lookup(context.Context, string, resolver.Type) (*resolver.Answer, error) {
	panic("a bug of ours")
}

// TestListsPanic holds that a panic about one client's listing is temporary
// trouble of that client only (RELIABILITY 89).
func TestListsPanic(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, func(p *Policy) {
		p.Lists = &dnsbl.Checker{Resolver: broken{}, Block: []dnsbl.List{{Name: "zen.spamhaus.org"}}, Timeout: time.Minute, Log: slog.New(slog.DiscardHandler)}
	})
	h.connectTo(l.Addr().String())
	h.serve(publicListener{l})
	for range 2 {
		c := h.dial()
		c.say("EHLO client.example", "250")
		c.say("MAIL FROM:<eve@sender.example>", "250 2.1.0")
		c.say("RCPT TO:<me@example.org>", "4")
		c.closed()
	}
}
