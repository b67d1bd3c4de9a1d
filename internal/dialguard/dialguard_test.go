package dialguard

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// Nothing is sent to an address inside, however it is spelt.
func TestPrivate(t *testing.T) {
	for _, s := range strings.Fields(`
		0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.0.1 169.254.169.254
		172.16.0.1 172.31.255.255 192.0.0.8 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.19.255.255 198.51.100.7
		203.0.113.9 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255
		:: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 64:ff9b::808:808 64:ff9b:1::1 100::1
		2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:10::1 2001:db8::1 2002:7f00:1:: 2002:a00:1::1 3fff::1 5f00::1
		fc00::1 fd12:3456::1 fe80::1 fec0::1 ff02::1`) {
		conn, err := Guard{}.Dial(t.Context(), net.Dialer{}, netip.AddrPortFrom(netip.MustParseAddr(s), 25))
		if !errors.Is(err, ErrPrivate) {
			t.Errorf("%s: %v, %v; want %v", s, conn, err, ErrPrivate)
		}
	}
	if Public(netip.MustParseAddr("fe80::1%eth0")) || Public(netip.Addr{}) {
		t.Error("an address with a zone, or none, counts as public")
	}
}

func TestPublic(t *testing.T) {
	for _, s := range strings.Fields(`
		1.1.1.1 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1 142.250.1.26 169.253.0.1
		172.15.255.255 172.32.0.1 192.0.1.1 192.167.1.1 192.169.1.1 198.17.0.1 198.20.0.1 223.255.255.255
		::ffff:142.250.1.26 2001:4860:4860::8888 2a00:1450:4001::1a 2606:4700::1111 2001:200::1`) {
		if !Public(netip.MustParseAddr(s)) {
			t.Errorf("%s does not count as public", s)
		}
	}
}

// With AllowPrivate the guard permits loopback, which is also what an address
// of this machine looks like.
func TestAllowPrivate(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := Guard{AllowPrivate: true}.Dial(t.Context(), net.Dialer{}, listener.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if !own(conn) {
		t.Error("a connection to this machine does not look like one")
	}
	other, err := net.DialTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, listener.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if own(other) {
		t.Error("a connection between two addresses looks like one to ourselves")
	}
}
