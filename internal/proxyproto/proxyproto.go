// Package proxyproto learns who a client is from the proxy in front of us, by
// the PROXY protocol, versions 1 and 2 (haproxy.org, doc/proxy-protocol.txt).
//
// Wrap a listener with Listen. Its connections then have the address of the
// client as their RemoteAddr, and begin with what the client said.
//
// Rules:
//   - Only connections from listed networks may carry a header, and they must:
//     anything else from there is closed, since who hides behind it is unknown.
//     To all others a header is so much garbage in place of an SMTP command, so
//     that nobody can choose an address.
//   - Accept never waits for a header: each is read in a goroutine of its own,
//     for at most headerTimeout, maxPending at a time.
//   - A proxy that speaks for itself (LOCAL, UNKNOWN: a health check) is a client
//     under its own address.
package proxyproto

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"onward/internal/reply"
)

// headerTimeout is how long a header may take: one lost packet must not matter,
// and takes 3 s to be sent again (section 2.2).
const headerTimeout = 5 * time.Second

// maxPending is how many headers are waited for at the same time. A proxy sends
// its header with the connection, so more than that is a fault or an attack.
const maxPending = 256

// A listener hands on connections whose client is known.
type listener struct {
	net.Listener
	from    func() []netip.Prefix
	log     *slog.Logger
	known   chan accepted
	pending chan struct{} // one for each header that is waited for
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

type accepted struct {
	conn net.Conn
	err  error
}

// Listen returns a listener for the connections of l. It calls from, which must
// be safe for concurrent use, at every connection, so that a reload changes the
// list. Without any network it changes nothing. Close ends l, and the
// connections whose header is still awaited.
func Listen(l net.Listener, from func() []netip.Prefix, log *slog.Logger) net.Listener {
	p := &listener{Listener: l, from: from, log: log, known: make(chan accepted), pending: make(chan struct{}, maxPending)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Go(p.run)
	return p
}

// Accept returns the next connection whose client is known.
func (p *listener) Accept() (net.Conn, error) {
	select {
	case a := <-p.known:
		return a.conn, a.err
	case <-p.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close ends the listener and waits for everything it started.
func (p *listener) Close() error {
	p.cancel()
	err := p.Listener.Close()
	p.wg.Wait()
	return err
}

// run accepts connections until the listener is closed. It hands on errors too,
// and goes on when somebody took one, so that whoever accepts sets the pace
// while there are no descriptors (RELIABILITY 72).
func (p *listener) run() {
	defer p.cancel()
	for p.ctx.Err() == nil {
		conn, err := p.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if tcp, ok := conn.(*net.TCPConn); ok && p.listed(tcp) {
			p.start(tcp)
		} else {
			p.hand(accepted{conn, err})
		}
	}
}

// listed reports whether a connection comes from a proxy.
func (p *listener) listed(conn *net.TCPConn) bool {
	ip := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(p.from(), func(network netip.Prefix) bool { return network.Contains(ip) })
}

// hand gives a connection to Accept, or closes it when nobody accepts any more.
func (p *listener) hand(a accepted) {
	select {
	case p.known <- a:
	case <-p.ctx.Done():
		if a.conn != nil {
			a.conn.Close()
		}
	}
}

// start reads the header of a connection from a proxy, beside everything else.
func (p *listener) start(tcp *net.TCPConn) {
	select {
	case p.pending <- struct{}{}:
	default:
		p.refuse(tcp, fmt.Errorf("%d others are still waited for", maxPending))
		return
	}
	p.wg.Go(func() {
		defer func() { <-p.pending }()
		client, err := p.read(tcp)
		switch {
		case err != nil:
			p.refuse(tcp, err)
		case client.IsValid():
			p.hand(accepted{conn: conn{tcp, net.TCPAddrFromAddrPort(client)}})
		default:
			p.hand(accepted{conn: tcp})
		}
	})
}

// read reads the header, no longer than its time and the listener's.
func (p *listener) read(conn *net.TCPConn) (netip.AddrPort, error) {
	conn.SetReadDeadline(time.Now().Add(headerTimeout))
	stop := context.AfterFunc(p.ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	client, err := readHeader(conn)
	if !stop() && err == nil {
		err = net.ErrClosed
	}
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	return client, err
}

// refuse closes a connection from a proxy whose client stays unknown. One that
// said nothing is a health check, and not worth a line.
func (p *listener) refuse(conn *net.TCPConn, err error) {
	conn.Close()
	if err != io.EOF && p.ctx.Err() == nil {
		p.log.Warn("connection refused: it comes from a network in policy.proxy_protocol_from, without a good PROXY header; make the proxy send one, or take the network off the list",
			"proxy", conn.RemoteAddr(), "err", reply.Clean(err.Error()))
	}
}

// A conn is a connection through a proxy, under the address of its client.
// Everything else, half-closing too, is the TCP connection's own.
type conn struct {
	*net.TCPConn
	client *net.TCPAddr
}

func (c conn) RemoteAddr() net.Addr { return c.client }
