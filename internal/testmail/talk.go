package testmail

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"
)

// patience is how long a Talk waits for anything.
const patience = 10 * time.Second

// T is what a Talk needs of *testing.T; the demo brings its own.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
}

// A Talk is an SMTP client that says exactly what the test says, octet for
// octet, and fails the test when it hears something else than expected.
type Talk struct {
	t    T
	conn net.Conn
	r    *bufio.Reader
}

// Dial connects to addr. It does not read the greeting.
func Dial(t T, addr string) *Talk {
	t.Helper()
	return DialFrom(t, netip.Addr{}, addr)
}

// DialFrom is Dial from an address of this machine's; the zero one is any.
func DialFrom(t T, from netip.Addr, addr string) *Talk {
	t.Helper()
	dialer := net.Dialer{Timeout: patience}
	if from.IsValid() {
		dialer.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
	}
	conn, err := dialer.Dial("tcp", addr)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	return &Talk{t: t, conn: conn, r: bufio.NewReader(conn)}
}

// Send writes octets as they are.
func (k *Talk) Send(octets string) {
	k.t.Helper()
	k.conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(k.conn, octets); err != nil {
		k.t.Fatalf("send %.60q: %v", octets, err)
	}
}

// Expect reads one reply, all its lines, and returns it without the final
// CRLF. It fails the test unless the reply begins with prefix, such as "250" or
// "550 5.1.1".
func (k *Talk) Expect(prefix string) string {
	k.t.Helper()
	k.conn.SetDeadline(time.Now().Add(patience))
	var reply strings.Builder
	for {
		line, err := k.r.ReadString('\n')
		reply.WriteString(line)
		if err != nil {
			k.t.Fatalf("got %q and %v, want a reply %q", reply.String(), err, prefix)
		}
		if len(line) < 4 || line[3] != '-' {
			break
		}
	}
	got := strings.TrimSuffix(reply.String(), "\r\n")
	if !strings.HasPrefix(got, prefix) {
		k.t.Fatalf("got reply %q, want %q", got, prefix)
	}
	return got
}

// Say sends one line with CRLF and expects the reply; see Expect.
func (k *Talk) Say(line, prefix string) string {
	k.t.Helper()
	k.Send(line + "\r\n")
	return k.Expect(prefix)
}

// ExpectClose fails the test unless the peer closes the connection now, without
// another word.
func (k *Talk) ExpectClose() {
	k.t.Helper()
	k.conn.SetDeadline(time.Now().Add(patience))
	rest, err := io.ReadAll(k.r)
	if timeout, ok := err.(net.Error); len(rest) > 0 || ok && timeout.Timeout() {
		k.t.Fatalf("got %q and %v, want the connection closed", rest, err)
	}
}

// StartTLS makes the handshake, after the 220 to STARTTLS. The certificate is
// not looked at.
func (k *Talk) StartTLS() {
	k.t.Helper()
	k.conn.SetDeadline(time.Now().Add(patience))
	conn := tls.Client(k.conn, &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		k.t.Fatalf("handshake: %v", err)
	}
	k.conn = conn
	k.r.Reset(conn)
}

// Conn returns the connection, TLS if that is on, for what Talk cannot say.
func (k *Talk) Conn() net.Conn { return k.conn }

// Close hangs up.
func (k *Talk) Close() { k.conn.Close() }
