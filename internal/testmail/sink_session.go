package testmail

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// maxSinkLine is the longest command line (RFC 5321 4.5.3.1.4, with room for
// the parameters of extensions).
const maxSinkLine = 1024

// errDropped ends a session that the script drops.
var errDropped = errors.New("dropped as told")

// A session is one connection to a sink.
type session struct {
	sink *Sink
	id   int
	tcp  net.Conn
	conn net.Conn // tcp, or TLS over it
	r    *bufio.Reader

	helo    string
	tls     string
	offered map[string]string // by the last EHLO
	mail    string
	rcpt    []string
}

func newSession(s *Sink, conn net.Conn, id int) *session {
	return &session{sink: s, id: id, tcp: conn, conn: conn, r: bufio.NewReaderSize(conn, 32<<10)}
}

// run holds the dialogue until somebody closes.
func (s *session) run() {
	defer s.tcp.Close()
	defer context.AfterFunc(s.sink.ctx, func() { s.tcp.Close() })()
	if _, err := s.answer("CONNECT", "220 sink.test ESMTP"); err != nil {
		return
	}
	for {
		text, err := s.command()
		if err != nil {
			return
		}
		s.sink.heard(text)
		if err := s.obey(text); err != nil {
			return
		}
	}
}

// command reads one command line and looks for what it must not have.
func (s *session) command() (string, error) {
	raw, err := s.r.ReadSlice('\n')
	if err != nil {
		if len(raw) > 0 {
			s.sink.fault(s.id, "half a command line, %q", raw)
		}
		return "", err
	}
	text, ok := strings.CutSuffix(string(raw), "\r\n")
	if !ok {
		s.sink.fault(s.id, "command line %q ends in a bare LF", raw)
		text = strings.TrimSuffix(string(raw), "\n")
	}
	if strings.ContainsAny(text, "\r\x00") {
		s.sink.fault(s.id, "CR or NUL inside command line %q", text)
	}
	if len(raw) > maxSinkLine {
		s.sink.fault(s.id, "command line of %d octets", len(raw))
	}
	return text, nil
}

// obey carries out one command.
func (s *session) obey(text string) error {
	verb, argument, _ := strings.Cut(text, " ")
	verb = strings.ToUpper(verb)
	s.checkPipelining(verb)
	switch verb {
	case "EHLO", "HELO":
		return s.hello(text, verb == "EHLO")
	case "STARTTLS":
		return s.startTLS(text)
	case "MAIL":
		return s.from(text)
	case "RCPT":
		return s.to(text)
	case "DATA":
		return s.data(text)
	case "RSET":
		s.mail, s.rcpt = "", nil
	case "QUIT":
		s.answer(text, "221 2.0.0 bye")
		return io.EOF
	case "NOOP", "VRFY", "HELP":
	default:
		s.sink.fault(s.id, "unknown command %q", text)
		_, err := s.answer(text, "500 5.5.1 unknown command")
		return err
	}
	if verb == "RSET" && argument != "" {
		s.sink.fault(s.id, "argument in %q", text)
	}
	_, err := s.answer(text, "250 2.0.0 ok")
	return err
}

// answer does what the script says about text, or gives the usual reply. It
// returns the code that was sent.
func (s *session) answer(text, usual string) (int, error) {
	return s.perform(s.sink.action(s.step(text)), usual)
}

// step describes where the session is.
func (s *session) step(text string) Step {
	_, helo, _ := strings.Cut(s.helo, " ")
	return Step{Session: s.id, Peer: s.peer(), TLS: s.tls, Text: text, Early: s.r.Buffered() > 0, Helo: helo, Mail: s.mail, Rcpt: s.rcpt}
}

// peer returns the address of the client.
func (s *session) peer() netip.AddrPort {
	peer := s.tcp.RemoteAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
}

// perform does as a says.
func (s *session) perform(a Action, usual string) (int, error) {
	if a.Delay > 0 {
		if err := s.sleep(a.Delay); err != nil {
			return 0, err
		}
	}
	reply := cmp.Or(a.Reply, usual)
	if !a.mute() {
		end := "\r\n"
		if a.Raw {
			end = ""
		}
		if _, err := io.WriteString(s.conn, reply+end); err != nil {
			return 0, err
		}
	}
	if a.Hang {
		io.Copy(io.Discard, s.conn)
	}
	if tcp, ok := s.tcp.(*net.TCPConn); ok && a.Reset {
		tcp.SetLinger(0)
	}
	if a.Hang || a.Drop || a.Reset {
		return 0, errDropped
	}
	if len(reply) < 3 {
		return 0, nil
	}
	code, _ := strconv.Atoi(reply[:3])
	return code, nil
}

// mute reports whether a leaves the client without an answer.
func (a Action) mute() bool { return a.Reply == "" && (a.Hang || a.Drop || a.Reset) }

// sleep waits, or returns early with an error when the sink is closed.
func (s *session) sleep(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-s.sink.ctx.Done():
		return s.sink.ctx.Err()
	}
}
