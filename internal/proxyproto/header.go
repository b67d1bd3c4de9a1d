package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// Limits of a header. Version 1 has 107 octets at most (section 2.1). Version 2
// could have 65,535 after its first 16; real ones have addresses and a few
// small extensions (section 2.2.7), which we do not need.
const (
	maxLine    = 107
	maxPayload = 2048
)

// signature begins a header of version 2: octets that no SMTP client sends.
var signature = []byte("\r\n\r\n\x00\r\nQUIT\n")

var errNoHeader = errors.New("what comes first is no PROXY protocol header")

// readHeader reads one header and not an octet more. The address is that of the
// client, or invalid when the proxy speaks for itself (a health check).
func readHeader(r io.Reader) (netip.AddrPort, error) {
	start := make([]byte, len(signature)) // no header is shorter
	if _, err := io.ReadFull(r, start); err != nil {
		return netip.AddrPort{}, err
	}
	switch {
	case bytes.Equal(start, signature):
		return readBinary(r)
	case bytes.HasPrefix(start, []byte("PROXY ")):
		return readLine(r, start)
	}
	return netip.AddrPort{}, errNoHeader
}

// readLine reads the rest of a header of version 1 (section 2.1), such as
// "PROXY TCP4 192.0.2.1 192.0.2.2 56324 25\r\n".
func readLine(r io.Reader, line []byte) (netip.AddrPort, error) {
	for next := make([]byte, 1); !bytes.HasSuffix(line, []byte("\r\n")); line = append(line, next[0]) {
		if len(line) == maxLine {
			return netip.AddrPort{}, fmt.Errorf("no CR LF within %d octets", maxLine)
		}
		if _, err := io.ReadFull(r, next); err != nil {
			return netip.AddrPort{}, err
		}
	}
	text := string(line[:len(line)-2])
	if text == "PROXY UNKNOWN" || strings.HasPrefix(text, "PROXY UNKNOWN ") {
		return netip.AddrPort{}, nil
	}
	words := strings.Split(text, " ")
	if len(words) != 6 {
		return netip.AddrPort{}, fmt.Errorf("%.107q has not six words", text)
	}
	source, err := parseEndpoint(words[1], words[2], words[4])
	if err != nil {
		return netip.AddrPort{}, err
	}
	if _, err := parseEndpoint(words[1], words[3], words[5]); err != nil {
		return netip.AddrPort{}, err
	}
	return client(source)
}

// parseEndpoint reads one address and port of version 1.
func parseEndpoint(protocol, address, port string) (netip.AddrPort, error) {
	ip, err := netip.ParseAddr(address)
	fits := protocol == "TCP4" && ip.Is4() || protocol == "TCP6" && ip.Is6() && ip.Zone() == ""
	if err != nil || !fits {
		return netip.AddrPort{}, fmt.Errorf("%.40q is no address for %.10q", address, protocol)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || port != strconv.FormatUint(n, 10) {
		return netip.AddrPort{}, fmt.Errorf("%.10q is no port", port)
	}
	return netip.AddrPortFrom(ip, uint16(n)), nil
}

// readBinary reads a header of version 2 after its signature (section 2.2).
func readBinary(r io.Reader) (netip.AddrPort, error) {
	var fixed [4]byte // version and command, family and protocol, length
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return netip.AddrPort{}, err
	}
	length := int(binary.BigEndian.Uint16(fixed[2:]))
	if length > maxPayload {
		return netip.AddrPort{}, fmt.Errorf("a header of %d octets", length)
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(r, payload); err != nil {
		return netip.AddrPort{}, err
	}
	const local, proxy = 0x20, 0x21
	const unspecified, tcp4, tcp6 = 0x00, 0x11, 0x21
	size := map[byte]int{tcp4: 4, tcp6: 16}[fixed[1]]
	switch {
	case fixed[0] == local, fixed[0] == proxy && fixed[1] == unspecified:
		return netip.AddrPort{}, nil
	case fixed[0] != proxy:
		return netip.AddrPort{}, fmt.Errorf("version and command %#x are unknown", fixed[0])
	case size == 0:
		return netip.AddrPort{}, fmt.Errorf("family and protocol %#x are not TCP over IP", fixed[1])
	case length < 2*size+4:
		return netip.AddrPort{}, fmt.Errorf("%d octets are too few for two addresses", length)
	}
	ip, _ := netip.AddrFromSlice(payload[:size])
	return client(netip.AddrPortFrom(ip, binary.BigEndian.Uint16(payload[2*size:])))
}

// client returns the address of a client as it is known everywhere else: an
// IPv4-mapped one as IPv4.
func client(source netip.AddrPort) (netip.AddrPort, error) {
	ip := source.Addr().Unmap()
	if ip.IsUnspecified() || ip.IsMulticast() {
		return netip.AddrPort{}, fmt.Errorf("%v cannot be a client", ip)
	}
	return netip.AddrPortFrom(ip, source.Port()), nil
}
