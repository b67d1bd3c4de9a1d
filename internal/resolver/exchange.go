package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

const (
	maxDatagram = 1232 // octets; fits one unfragmented packet on any path (DNS Flag Day 2020)
	maxStrays   = 16   // datagrams that are not our answer, after which only TCP can be trusted
	headerSize  = 12   // octets (RFC 1035 4.1.1)
	optSize     = 11   // octets of an empty OPT record (RFC 6891 6.1.2)
)

// exchange asks one server one question, over UDP, and over TCP when the
// answer does not fit a datagram or somebody is guessing at it. It returns
// when ctx ends.
func exchange(ctx context.Context, addr netip.AddrPort, name string, t Type) (*dns.Msg, error) {
	q, err := newQuery(name, t)
	if err != nil {
		return nil, err
	}
	msg, err := q.overUDP(ctx, addr)
	if errors.Is(err, errUseTCP) {
		msg, err = q.overTCP(ctx, addr)
	}
	return msg, err
}

var errUseTCP = errors.New("cut short, or forged")

// A query is one message to a server, as on the wire: header, question, OPT.
type query []byte

// newQuery asks for recursion, tells how large a datagram may be (RFC 6891),
// and asks whether the answer was validated (AD bit, RFC 6840 5.7).
func newQuery(name string, t Type) (query, error) {
	m := new(dns.Msg)
	m.SetQuestion(name, uint16(t)) // with a random ID
	m.AuthenticatedData = true
	m.SetEdns0(maxDatagram, false)
	return m.Pack()
}

// overUDP uses a socket of its own, so the port is random and the kernel drops
// what comes from another address.
func (q query) overUDP(ctx context.Context, addr netip.AddrPort) (*dns.Msg, error) {
	conn, err := dial(ctx, "udp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write(q); err != nil {
		return nil, err
	}
	buf := make([]byte, maxDatagram+1)
	for range maxStrays {
		n, err := conn.Read(buf)
		switch {
		case err != nil:
			return nil, err
		case !q.answeredBy(buf[:n]):
			continue
		case n > maxDatagram || truncated(buf):
			return nil, errUseTCP
		default:
			return parse(buf[:n])
		}
	}
	return nil, errUseTCP
}

// overTCP reads one message; its length field bounds it to 64 KiB (RFC 1035 4.2.2).
func (q query) overTCP(ctx context.Context, addr netip.AddrPort) (*dns.Msg, error) {
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(q)), uint16(len(q)))
	if _, err := conn.Write(append(framed, q...)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	raw := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, raw); err != nil {
		return nil, err
	}
	if !q.answeredBy(raw) || truncated(raw) {
		return nil, errors.New("wrong or truncated answer over TCP")
	}
	return parse(raw)
}

// A boundConn is a connection on which reading and writing end with a context.
type boundConn struct {
	net.Conn
	release func() bool
}

func dial(ctx context.Context, network string, addr netip.AddrPort) (*boundConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr.String())
	if err != nil {
		return nil, err
	}
	release := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	return &boundConn{conn, release}, nil
}

func (c *boundConn) Close() error {
	c.release()
	return c.Conn.Close()
}

// answeredBy reports whether raw is a response to q: same ID, same question.
// Without that, anybody who can guess our port can answer for the server.
func (q query) answeredBy(raw []byte) bool {
	end := len(q) - optSize
	return len(raw) >= end &&
		raw[0] == q[0] && raw[1] == q[1] && // ID
		raw[2]&0xf8 == 0x80 && // QR set, opcode QUERY
		binary.BigEndian.Uint16(raw[4:]) == 1 && // QDCOUNT
		sameName(raw[headerSize:end-4], q[headerSize:end-4]) &&
		string(raw[end-4:end]) == string(q[end-4:end]) // type and class
}

// sameName compares names on the wire, ASCII letters in either case (RFC 4343).
// Length octets are below the letters.
func sameName(a, b []byte) bool {
	for i := range a {
		if lowerByte(a[i]) != lowerByte(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

func truncated(raw []byte) bool { return raw[2]&0x02 != 0 }

// parse reads a message that came from the network. A panic in the library is
// only a malformed message: the mail behind this question waits, the daemon
// goes on.
func parse(raw []byte) (msg *dns.Msg, err error) {
	defer func() {
		if p := recover(); p != nil {
			msg, err = nil, fmt.Errorf("malformed message: %w", panicError(p))
		}
	}()
	msg = new(dns.Msg)
	if err := msg.Unpack(raw); err != nil {
		return nil, fmt.Errorf("malformed message: %w", err)
	}
	// The library stops in silence where the octets do. Read as a whole, a part
	// would say that there is nothing more.
	if len(msg.Answer) != int(binary.BigEndian.Uint16(raw[6:])) || len(msg.Ns) != int(binary.BigEndian.Uint16(raw[8:])) {
		return nil, errors.New("malformed message: fewer records than it announces")
	}
	// It also reads absent data as zero. An MX without any would be the null
	// MX, and refuse mail for good.
	for _, rr := range msg.Answer {
		if rr.Header().Rdlength == 0 {
			return nil, errors.New("malformed message: a record without data")
		}
	}
	return msg, nil
}
