// Package inbound is the MX listener: the SMTP dialogue with a sender, its
// limits, who may write to whom, and one message read to its end.
//
//	Server -> conn (one client) -> transaction (MAIL to the final answer)
//	       -> Envelope and Message -> Acceptor -> the answer
//
// The dialogue is go-smtp's, behind a guard. A conn stands between the wire and
// the library: it reads and checks every line, answers what the library would
// answer wrongly, keeps all deadlines and limits, does STARTTLS, and reads the
// message itself. The library sees well-formed commands in the right order and
// calls the session back. Each trap of DEPENDENCIES.md 1 has a test here that
// fails without its guard.
//
// What is answered with 250 to the final dot is owned by somebody: the Acceptor
// says so. Trouble of ours is always 4xx.
package inbound

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"

	"onward/internal/address"
	"onward/internal/alias"
	"onward/internal/config"
	"onward/internal/dnsbl"
	"onward/internal/filter"
	"onward/internal/journal"
	"onward/internal/loop"
	"onward/internal/mailauth"
	"onward/internal/message"
	"onward/internal/ratelimit"
	"onward/internal/reply"
	"onward/internal/replyaddr"
	"onward/internal/returnpath"
)

// An Acceptor finds an owner for a message. Its answer is 2xx when a destination
// has the message, or, with queued, when it is on disk; 5xx that it never will
// be; and anything else that the sender still owns it. The message is closed when
// Accept returns.
//
// Answered says later whether the sender has heard the answer: it went on
// speaking. One that did not may send the message again.
type Acceptor interface {
	Accept(ctx context.Context, env *message.Envelope, verdict *mailauth.Verdict, msg *message.Message) (answer *reply.Reply, queued bool)
	Answered(id string, heard bool)
}

// A Filter judges the content of messages. client is the confirmed name of the client,
// or empty. It answers within ten seconds.
type Filter interface {
	Check(ctx context.Context, env *message.Envelope, client address.Domain, msg *message.Message) filter.Opinion
}

// A Policy is what decides about a message and what a reload replaces.
type Policy struct {
	Hostname address.Domain
	Limits   config.Limits
	TLS      *tls.Config
	Aliases  *alias.Table
	Returns  *returnpath.Rewriter
	Replies  *replyaddr.Book
	Marker   loop.Marker
	Verifier *mailauth.Verifier
	Judge    *Judge

	Lists   *dnsbl.Checker // nil: none are asked
	Filters []Filter       // rspamd and milters, in the order of the configuration

	AutoReplies bool           // may come back through a return path too
	Breaks      message.Breaks // where an alias does not say itself
}

// A Server answers on the listening addresses. All fields are required.
type Server struct {
	Policy   func() *Policy // the one in force; never nil
	Acceptor Acceptor
	Record   func(journal.Entry) // keeps one answer for the operator
	TempDir  string              // for messages too large for memory
	Log      *slog.Logger

	clients  *clients
	inFlight atomic.Int64 // octets of messages that are here now
	senders  *ratelimit.Limiter
	aliases  *ratelimit.Limiter
	returns  *ratelimit.Limiter // bounces to each return path
	hidden   hourglass          // of the warning about hidden clients
	smtp     *smtp.Server
	ctx      context.Context // of the deliveries; ends after the grace time
}

// maxKeys bounds what each limit remembers: domains, aliases, return paths.
const maxKeys = 100_000

// grace is how long a message may take to find its owner after the server was
// told to stop, where the limits do not say: under the 90 s after which most
// supervisors kill.
const grace = 60 * time.Second

// Serve answers on the listeners until ctx ends, then stops: listeners first,
// then every connection that waits for its client, then, at most limits.drain_time
// later, those whose message is being delivered (RELIABILITY 85).
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	deliveries, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	s.ctx = deliveries
	s.clients = newClients()
	s.senders, s.aliases = ratelimit.New(time.Minute, maxKeys), ratelimit.New(time.Minute, maxKeys)
	s.returns = ratelimit.New(24*time.Hour, maxKeys)
	s.smtp = smtp.NewServer(smtp.BackendFunc(s.session))
	s.smtp.MaxLineLength = blockSize // conn has stricter ones (DEPENDENCIES.md B4)
	s.smtp.Domain = s.Policy().Hostname.String()
	s.smtp.ErrorLog = &errorLog{s.Log}

	var accepting sync.WaitGroup
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		accepting.Go(func() { failed <- s.smtp.Serve(&listener{Listener: l, server: s}) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.stop(cancel, listeners)
	accepting.Wait()
	return err
}

// stop ends the listeners and all connections. go-smtp alone would wait for
// idle ones for ever (DEPENDENCIES.md B5).
func (s *Server) stop(cancelDeliveries func(), listeners []net.Listener) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.smtp.Shutdown(context.Background())
	}()
	s.clients.interrupt()
	select {
	case <-done:
	case <-time.After(cmp.Or(s.Policy().Limits.DrainTime, grace)):
		cancelDeliveries()
		s.clients.kill()
		select {
		case <-done:
		case <-time.After(time.Second): // a delivery that hangs after its final dot
		}
	}
	for _, l := range listeners { // one that go-smtp had not come to know yet
		l.Close()
	}
}

// session is go-smtp's NewSession.
func (s *Server) session(c *smtp.Conn) (smtp.Session, error) {
	guarded, ok := c.Conn().(*conn)
	if !ok {
		return nil, errors.New("connection without guard")
	}
	return &session{guarded}, nil
}

// patience is how long a client may think about its next command.
func (s *Server) patience() time.Duration {
	if s.clients.crowded(s.Policy().Limits.Sessions) {
		return stressTimeout
	}
	return cmp.Or(s.Policy().Limits.CommandTimeout, commandTimeout)
}

// patienceWithErrors is how many refused commands end a session: one when
// sessions are scarce.
func (s *Server) patienceWithErrors() int {
	if s.clients.crowded(s.Policy().Limits.Sessions) {
		return 1
	}
	return cmp.Or(s.Policy().Limits.Errors, maxErrors)
}

// errCrowded means that all messages together are at their limit.
var errCrowded = errors.New("limits.in_flight: too much mail at the same moment")

// A room is what one message takes of limits.in_flight; a limit of 0 is none.
type room struct {
	inFlight *atomic.Int64 // of all messages
	limit    int64
	taken    int64
}

// take makes room for more octets, or says that there is none.
func (r *room) take(octets int) error {
	if now := r.inFlight.Add(int64(octets)); over(now, r.limit) {
		r.inFlight.Add(-int64(octets))
		return errCrowded
	}
	r.taken += int64(octets)
	return nil
}

// give gives all of it back.
func (r *room) give() {
	r.inFlight.Add(-r.taken)
	r.taken = 0
}

// A listener accepts connections and guards them.
type listener struct {
	net.Listener
	server *Server
}

// Accept returns the next connection within the limits. Others hear why not;
// their farewell is written without waiting, so they delay nobody.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := newConn(l.server, raw, clientAddr(raw))
		r := l.server.clients.enter(c, time.Now(), l.server.Policy().Limits)
		if r == nil {
			return c, nil
		}
		c.log.Info("connection refused", "code", r.Code, "status", r.Status, "text", r.Text)
		raw.SetWriteDeadline(time.Now().Add(time.Second))
		raw.Write([]byte(r.String() + "\r\n"))
		raw.Close()
	}
}

// clientAddr returns the peer's address, an IPv4-mapped one as IPv4.
func clientAddr(c net.Conn) netip.Addr {
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.IPv4Unspecified()
}

// errorLog passes go-smtp's own messages to the log: panics, accept errors.
type errorLog struct{ log *slog.Logger }

// Printf and Println implement smtp.Logger.
func (l *errorLog) Printf(format string, v ...any) {
	l.log.Error("smtp server", "err", fmt.Sprintf(format, v...))
}
func (l *errorLog) Println(v ...any) { l.log.Error("smtp server", "err", fmt.Sprint(v...)) }
