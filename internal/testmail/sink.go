package testmail

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// A Sink is a destination that does as it is told: it takes mail, keeps every
// octet of it, and can be made to refuse, stall, hang up or lie at any point of
// the dialogue. It is written apart from the daemon's own SMTP code, on the
// letter of the RFCs, to be an independent judge of it: whatever a client does
// that it must not is kept as a fault.
//
// A new Sink takes everything and offers PIPELINING, SIZE, 8BITMIME, SMTPUTF8,
// ENHANCEDSTATUSCODES and STARTTLS with a self-signed certificate.
type Sink struct {
	listener net.Listener
	tls      *tls.Config
	ctx      context.Context // ends with Close
	stop     context.CancelFunc
	wg       sync.WaitGroup

	mu         sync.Mutex // guards what follows
	extensions []string
	script     []*line
	mood       func(Step) Action
	sessions   int
	open       int
	count      int
	forget     bool
	deliveries []*Delivery
	refusals   []*Delivery
	commands   []string
	faults     []string
	cut        []Cut
	changed    chan struct{} // closed and replaced with each accepted message and each session's end
}

// A Delivery is one message the sink has taken, with what was said around it.
type Delivery struct {
	Session int       // counts from 1, in the order of connecting
	Time    time.Time // of the final dot
	Peer    netip.AddrPort
	Helo    string // the command line: "EHLO mx.example.org"
	TLS     string // version; empty in clear
	Mail    string // the command line as received: "MAIL FROM:<a@example.org> SIZE=10"
	Rcpt    []string
	Data    []byte // the message, dots un-stuffed, final dot removed; nothing else changed
	Reply   string // what was answered to the final dot; empty when nothing was
	Unheard bool   // the client cannot know Reply: nothing was said, or the connection broke under it

	Answered time.Time // when Reply had been written; zero before that
}

// A Cut is a message whose end never came. The sink drops it, as it must.
type Cut struct {
	Data []byte // what there was, dots un-stuffed
	Err  error  // how the connection ended: io.EOF, or a reset
}

// An Action is what the sink does instead of its usual answer to one step.
type Action struct {
	Reply string        // lines parted by CRLF, the last without; empty: the usual answer
	Raw   bool          // Reply is sent as it is, without CRLF
	Delay time.Duration // before answering
	Hang  bool          // say no more, until the client or the sink closes: after Reply, or without any answer when that is empty
	Drop  bool          // close the connection, likewise
	Reset bool          // like Drop, by a TCP reset
	Keep  bool          // at the final dot: take the message, also when the client hears nothing of it
	Times int           // how often, before the usual answer is back; 0 means always
}

// A Step is one point of a dialogue, for a mood to decide about.
type Step struct {
	Session int
	Peer    netip.AddrPort
	TLS     string   // version; empty in clear
	Text    string   // the command line; "CONNECT", or "." for the final dot
	Early   bool     // more was sent after it, before its answer
	Helo    string   // what the client calls itself, without the command
	Mail    string   // what has been said and taken in this transaction
	Rcpt    []string // likewise
	Data    []byte   // the message, at the final dot
}

// A line of the script is one Action and where it applies.
type line struct {
	prefix string // upper case
	Action
}

// StartSink starts a sink on addr, such as "127.0.0.1:0". Close it when done.
func StartSink(addr string) (*Sink, error) {
	certificate, err := selfSigned()
	if err != nil {
		return nil, fmt.Errorf("sink certificate: %w", err)
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	s := &Sink{
		listener: listener,
		tls:      &tls.Config{Certificates: []tls.Certificate{certificate}},
		changed:  make(chan struct{}),
		extensions: []string{"PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8",
			"ENHANCEDSTATUSCODES", "STARTTLS"},
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.wg.Go(s.serve)
	return s, nil
}

// selfSigned returns one certificate for the life of the process.
var selfSigned = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "sink.test"},
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
})

// serve accepts connections until the listener is closed.
func (s *Sink) serve() {
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		s.mu.Lock()
		s.sessions++
		s.open++
		session := newSession(s, conn, s.sessions)
		s.mu.Unlock()
		s.wg.Go(func() {
			session.run()
			s.left()
		})
	}
}

// Close ends all sessions and waits for them.
func (s *Sink) Close() {
	s.listener.Close()
	s.stop()
	s.wg.Wait()
}

// Addr returns where the sink listens.
func (s *Sink) Addr() netip.AddrPort {
	return s.listener.Addr().(*net.TCPAddr).AddrPort()
}

// Offer sets what EHLO offers from the next EHLO on, in this order and spelling.
// "SIZE n" is also the limit.
func (s *Sink) Offer(extensions ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.extensions = extensions
}

// Show sets the certificate that is shown from the next STARTTLS on.
func (s *Sink) Show(c tls.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tls = &tls.Config{Certificates: []tls.Certificate{c}}
}

func (s *Sink) certificate() *tls.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tls
}

// Answer makes reply the answer wherever prefix matches; see Do.
func (s *Sink) Answer(prefix, reply string) { s.Do(prefix, Action{Reply: reply}) }

// Do makes the sink act at every command line that begins with prefix, in any
// case: "RCPT", or "RCPT TO:<ada@example.org>". "CONNECT" is the greeting and
// "." the final dot. The longest prefix wins, then the newest Action.
//
// Only what the Reply says happens: after any other reply than 2xx to MAIL and
// RCPT or 354 to DATA the command counts for nothing.
func (s *Sink) Do(prefix string, a Action) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = append(s.script, &line{strings.ToUpper(prefix), a})
}

// Behave makes mood decide at every step. Its zero Action leaves the step to
// the script of Do. Sessions ask it at the same time.
func (s *Sink) Behave(mood func(Step) Action) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mood = mood
}

// Reset forgets all Actions, the mood and everything recorded.
func (s *Sink) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mood, s.refusals = nil, nil
	s.script, s.deliveries, s.commands, s.faults, s.cut, s.count = nil, nil, nil, nil, nil, 0
}

// Forget makes the sink only count messages from now on, for tests of speed.
func (s *Sink) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget = true
}

// action returns what the mood or else the script says about a step.
func (s *Sink) action(step Step) Action {
	s.mu.Lock()
	mood := s.mood
	s.mu.Unlock()
	if mood != nil {
		if a := mood(step); a != (Action{}) {
			return a
		}
	}
	return s.scripted(step.Text)
}

// scripted returns what the script says about a command line.
func (s *Sink) scripted(text string) Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	var best *line
	for _, l := range s.script {
		if hasPrefixFold(text, l.prefix) && (best == nil || len(l.prefix) >= len(best.prefix)) && l.Times >= 0 {
			best = l
		}
	}
	if best == nil {
		return Action{}
	}
	a := best.Action
	if best.Times > 0 {
		if best.Times--; best.Times == 0 {
			best.Times = -1 // used up
		}
	}
	return a
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
