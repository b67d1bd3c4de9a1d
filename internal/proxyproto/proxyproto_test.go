package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// binaryHeader is a header of version 2.
func binaryHeader(versionCommand, familyProtocol byte, payload ...byte) string {
	b := append([]byte(nil), signature...)
	b = append(b, versionCommand, familyProtocol)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	return string(append(b, payload...))
}

// endpoints is the payload of version 2 for a client and our address.
func endpoints(client, server string, more ...byte) []byte {
	from, to := netip.MustParseAddrPort(client), netip.MustParseAddrPort(server)
	b := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	return append(b, more...)
}

// good are headers, and the client that each tells; empty: the proxy itself.
var good = []struct{ name, header, client string }{
	{"v1 over IPv4", "PROXY TCP4 192.0.2.1 198.51.100.7 56324 25\r\n", "192.0.2.1:56324"},
	{"v1 over IPv6", "PROXY TCP6 2001:db8::1 2001:db8::25 56324 25\r\n", "[2001:db8::1]:56324"},
	{"v1, mapped", "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.7 1 25\r\n", "192.0.2.1:1"},
	{"v1, longest", "PROXY TCP6 2001:0db8:0000:0000:0000:0000:0000:0001 2001:0db8:0000:0000:0000:0000:0000:0025 65535 65535\r\n", "[2001:db8::1]:65535"},
	{"v1, health check", "PROXY UNKNOWN\r\n", ""},
	{"v1, health check with addresses", "PROXY UNKNOWN 2001:db8::1 ::2 65535 25\r\n", ""},
	{"v2 over IPv4", binaryHeader(0x21, 0x11, endpoints("192.0.2.1:56324", "198.51.100.7:25")...), "192.0.2.1:56324"},
	{"v2 over IPv6", binaryHeader(0x21, 0x21, endpoints("[2001:db8::1]:9", "[2001:db8::25]:25")...), "[2001:db8::1]:9"},
	{"v2, mapped", binaryHeader(0x21, 0x21, endpoints("[::ffff:192.0.2.1]:9", "[2001:db8::25]:25")...), "192.0.2.1:9"},
	{"v2 with extensions", binaryHeader(0x21, 0x11, endpoints("192.0.2.1:56324", "198.51.100.7:25", bytes.Repeat([]byte{4, 0, 1, 0}, 100)...)...), "192.0.2.1:56324"},
	{"v2, health check", binaryHeader(0x20, 0x00), ""},
	{"v2, health check with addresses", binaryHeader(0x20, 0x11, endpoints("192.0.2.1:56324", "198.51.100.7:25")...), ""},
	{"v2, no family", binaryHeader(0x21, 0x00, 1, 2, 3), ""},
}

// bad is what a proxy must not begin with.
var bad = []struct{ name, header string }{
	{"SMTP", "EHLO client.example\r\n"},
	{"nothing but a line end", "\r\n\r\n\r\n\r\n\r\n\r\n\r\n"},
	{"lower case", "proxy TCP4 192.0.2.1 198.51.100.7 56324 25\r\n"},
	{"bare LF", "PROXY TCP4 192.0.2.1 198.51.100.7 56324 25\nEHLO client.example\r\n"},
	{"no end", "PROXY TCP4 " + strings.Repeat("1", 200)},
	{"an octet too long", "PROXY UNKNOWN " + strings.Repeat("x", maxLine-15) + "\r\n"},
	{"IPv6 in TCP4", "PROXY TCP4 2001:db8::1 2001:db8::25 56324 25\r\n"},
	{"IPv4 in TCP6", "PROXY TCP6 192.0.2.1 198.51.100.7 56324 25\r\n"},
	{"UDP", "PROXY UDP4 192.0.2.1 198.51.100.7 56324 25\r\n"},
	{"a zone", "PROXY TCP6 fe80::1%eth0 fe80::2 56324 25\r\n"},
	{"port too large", "PROXY TCP4 192.0.2.1 198.51.100.7 65536 25\r\n"},
	{"leading zero", "PROXY TCP4 192.0.2.1 198.51.100.7 056324 25\r\n"},
	{"a sign", "PROXY TCP4 192.0.2.1 198.51.100.7 +5632 25\r\n"},
	{"our address is none", "PROXY TCP4 192.0.2.1 example.org 56324 25\r\n"},
	{"two spaces", "PROXY TCP4  192.0.2.1 198.51.100.7 56324 25\r\n"},
	{"a word more", "PROXY TCP4 192.0.2.1 198.51.100.7 56324 25 x\r\n"},
	{"a word less", "PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n"},
	{"nobody", "PROXY TCP4 0.0.0.0 198.51.100.7 56324 25\r\n"},
	{"multicast", "PROXY TCP6 ff02::1 2001:db8::25 56324 25\r\n"},
	{"v2, wrong version", binaryHeader(0x11, 0x11, endpoints("192.0.2.1:1", "198.51.100.7:25")...)},
	{"v2, wrong command", binaryHeader(0x22, 0x11, endpoints("192.0.2.1:1", "198.51.100.7:25")...)},
	{"v2, UDP", binaryHeader(0x21, 0x12, endpoints("192.0.2.1:1", "198.51.100.7:25")...)},
	{"v2, a socket file", binaryHeader(0x21, 0x31, make([]byte, 216)...)},
	{"v2, too short", binaryHeader(0x21, 0x21, endpoints("192.0.2.1:1", "198.51.100.7:25")...)},
	{"v2, too long", binaryHeader(0x21, 0x11, make([]byte, maxPayload+1)...)},
	{"v2, nobody", binaryHeader(0x21, 0x11, endpoints("0.0.0.0:1", "198.51.100.7:25")...)},
}

// A world is a listener whose proxies are those of one loopback network.
type world struct {
	net.Listener
	t       *testing.T
	proxies atomic.Pointer[[]netip.Prefix]
}

func open(t *testing.T) *world {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t}
	w.list("127.0.0.2/32")
	w.Listener = Listen(inner, func() []netip.Prefix { return *w.proxies.Load() }, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { w.Close() })
	return w
}

func (w *world) list(networks ...string) {
	var prefixes []netip.Prefix
	for _, n := range networks {
		prefixes = append(prefixes, netip.MustParsePrefix(n))
	}
	w.proxies.Store(&prefixes)
}

// dial connects from an address of ours, and says something.
func (w *world) dial(from, words string) *net.TCPConn {
	w.t.Helper()
	local := &net.TCPAddr{IP: net.ParseIP(from)}
	c, err := net.DialTCP("tcp", local, w.Addr().(*net.TCPAddr))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, words); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// accept returns the next connection, and its client.
func (w *world) accept() (net.Conn, string) {
	w.t.Helper()
	c, err := w.Accept()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, c.RemoteAddr().String()
}

// closed waits until the other side closed a connection without a word.
func closed(t *testing.T, c net.Conn) {
	t.Helper()
	n, err := io.Copy(io.Discard, c)
	if timeout, ok := errors.AsType[net.Error](err); n > 0 || ok && timeout.Timeout() {
		t.Errorf("got %d octets, %v; want the connection closed", n, err)
	}
}

func TestHeaders(t *testing.T) {
	w := open(t)
	for _, tt := range good {
		t.Run(tt.name, func(t *testing.T) {
			proxy := w.dial("127.0.0.2", tt.header+"EHLO c\r\n")
			c, client := w.accept()
			if want := tt.client; want != "" && client != want || want == "" && client != proxy.LocalAddr().String() {
				t.Errorf("client is %s, want %q", client, want)
			}
			rest := make([]byte, 8)
			if _, err := io.ReadFull(c, rest); err != nil || string(rest) != "EHLO c\r\n" {
				t.Errorf("then %q, %v", rest, err)
			}
			half, ok := c.(interface{ CloseWrite() error })
			if !ok || half.CloseWrite() != nil {
				t.Error("the connection cannot be half closed")
			}
			closed(t, proxy)
		})
	}
}

// TestPieces sends headers octet by octet: what comes after belongs to the
// client, however the packets are cut.
func TestPieces(t *testing.T) {
	for _, tt := range good {
		r := oneByOne{strings.NewReader(tt.header + "EHLO")}
		client, err := readHeader(r)
		rest, _ := io.ReadAll(r)
		if err != nil || string(rest) != "EHLO" || client.IsValid() != (tt.client != "") {
			t.Errorf("%s: %v, %v, then %q", tt.name, client, err, rest)
		}
	}
}

type oneByOne struct{ io.Reader }

func (r oneByOne) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(1, len(p))]) }

func TestBadHeaders(t *testing.T) {
	w := open(t)
	for _, tt := range bad {
		t.Run(tt.name, func(t *testing.T) {
			closed(t, w.dial("127.0.0.2", tt.header))
			w.dial("127.0.0.2", good[0].header)
			if _, client := w.accept(); client != good[0].client { // nobody else came through
				t.Errorf("got %s", client)
			}
		})
	}
}

// TestUnlisted holds that nobody but a proxy chooses an address.
func TestUnlisted(t *testing.T) {
	w := open(t)
	for _, tt := range good {
		dialled := w.dial("127.0.0.1", tt.header)
		c, client := w.accept()
		if client != dialled.LocalAddr().String() {
			t.Errorf("%s: client is %s", tt.name, client)
		}
		got := make([]byte, len(tt.header))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != tt.header {
			t.Errorf("%s: got %q, %v; want the header as it was sent", tt.name, got, err)
		}
	}
}

// TestReload holds that the list is asked at every connection.
func TestReload(t *testing.T) {
	w := open(t)
	w.list()
	w.dial("127.0.0.2", good[0].header)
	if _, client := w.accept(); !strings.HasPrefix(client, "127.0.0.2:") {
		t.Errorf("an empty list: client is %s", client)
	}
	w.list("127.0.0.0/24", "::1/128")
	w.dial("127.0.0.1", good[1].header)
	if _, client := w.accept(); client != good[1].client {
		t.Errorf("a listed network: client is %s", client)
	}
}

// TestSilentProxies holds that headers which do not come delay nobody, and how
// many are waited for.
func TestSilentProxies(t *testing.T) {
	t.Parallel()
	w := open(t)
	began := time.Now()
	var silent []net.Conn
	for range maxPending {
		silent = append(silent, w.dial("127.0.0.2", "PROXY "))
	}
	w.dial("127.0.0.1", "")
	if _, client := w.accept(); !strings.HasPrefix(client, "127.0.0.1:") { // all silent ones came before it
		t.Errorf("client is %s", client)
	}
	closed(t, w.dial("127.0.0.2", "PROXY "))
	if time.Since(began) >= headerTimeout {
		t.Skip("this machine is too slow to tell")
	}
	for _, c := range silent {
		closed(t, c)
	}
	if took := time.Since(began); took < headerTimeout || took > headerTimeout+10*time.Second {
		t.Errorf("closed after %v", took)
	}
	w.dial("127.0.0.2", good[0].header)
	if _, client := w.accept(); client != good[0].client {
		t.Errorf("afterwards client is %s", client)
	}
}

// TestClose holds that nothing is left over: no goroutine, no connection.
func TestClose(t *testing.T) {
	w := open(t)
	waiting := w.dial("127.0.0.2", "PROXY ")
	known := w.dial("127.0.0.2", good[0].header) // and nobody accepts it
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took >= headerTimeout/2 {
		t.Errorf("closing took %v", took)
	}
	closed(t, waiting)
	closed(t, known)
	if _, err := w.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept gives %v", err)
	}
}

// TestAcceptError holds that errors are handed on one by one (RELIABILITY 72).
func TestAcceptError(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	failing := &failing{Listener: inner}
	l := Listen(failing, func() []netip.Prefix { return nil }, slog.New(slog.DiscardHandler))
	defer l.Close()
	for i := range 3 {
		if _, err := l.Accept(); err == nil || err.Error() != fmt.Sprint("too many open files ", i+1) {
			t.Errorf("got %v", err)
		}
	}
	time.Sleep(50 * time.Millisecond)
	if n := failing.calls.Load(); n > 4 {
		t.Errorf("accepted %d times while nobody asked", n)
	}
}

type failing struct {
	net.Listener
	calls atomic.Int32
}

func (f *failing) Accept() (net.Conn, error) {
	return nil, fmt.Errorf("too many open files %d", f.calls.Add(1))
}

// FuzzHeader reads what a proxy may send. A header that is accepted is bounded,
// ends where it says, and names a client that can exist.
func FuzzHeader(f *testing.F) {
	for _, tt := range good {
		f.Add([]byte(tt.header))
	}
	for _, tt := range bad {
		f.Add([]byte(tt.header))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		r := bytes.NewReader(sent)
		client, err := readHeader(r)
		used := len(sent) - r.Len()
		if used > 16+maxPayload {
			t.Fatalf("read %d octets", used)
		}
		if err != nil {
			return
		}
		again := bytes.NewReader(append(sent[:used:used], "more"...))
		if second, err := readHeader(again); second != client || err != nil || again.Len() != 4 {
			t.Errorf("with more behind it: %v, %v, %d left; want %v", second, err, again.Len(), client)
		}
		if _, err := readHeader(bytes.NewReader(sent[:used-1])); err == nil {
			t.Error("its last octet does not matter")
		}
		if ip := client.Addr(); client.IsValid() && (ip.IsUnspecified() || ip.Is4In6() || ip.Zone() != "") {
			t.Errorf("client %v", client)
		}
		if words := strings.Split(string(sent[:used]), " "); words[0] == "PROXY" && client.IsValid() {
			if ip := netip.MustParseAddr(words[2]).Unmap(); ip != client.Addr() || words[4] != fmt.Sprint(client.Port()) {
				t.Errorf("%q gave %v", sent[:used], client)
			}
		}
	})
}
