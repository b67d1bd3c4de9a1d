package inbound

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"time"

	"onward/internal/address"
	"onward/internal/message"
)

// Received composes our Received field (RFC 5321 4.4, STANDARDS.md P5) for a
// message that came by EHLO, or not (esmtp), and over TLS where state is not
// nil. The recipient is named only where there is one, so that no copy tells
// of another (RFC 5321 7.2).
func Received(env *message.Envelope, hostname address.Domain, esmtp bool, state *tls.ConnectionState) []byte {
	b := fmt.Appendf(nil, "Received: from %s (%s)\r\n\tby %s with %s", env.Helo, literal(env.Client), hostname, protocol(env.UTF8, esmtp, state != nil))
	if state != nil {
		b = fmt.Appendf(b, "\r\n\t(%s)", describeTLS(state))
	}
	b = fmt.Appendf(b, "\r\n\tid %s", env.ID)
	if len(env.Recipients) == 1 {
		b = fmt.Appendf(b, "\r\n\tfor <%s>", env.Recipients[0].Address)
	}
	return fmt.Appendf(b, ";\r\n\t%s\r\n", env.Arrived.Format(time.RFC1123Z))
}

// protocol names the protocol as RFC 3848 and RFC 6531 do; neither has a name
// for TLS without EHLO.
func protocol(utf8, esmtp, secure bool) string {
	name := "SMTP"
	switch {
	case utf8:
		name = "UTF8SMTP"
	case esmtp || secure:
		name = "ESMTP"
	}
	if secure {
		name += "S"
	}
	return name
}

// literal writes an address as an address literal (RFC 5321 4.1.3).
func literal(ip netip.Addr) string {
	switch {
	case !ip.IsValid():
		return "unknown"
	case ip.Is6():
		return "[IPv6:" + ip.String() + "]"
	}
	return "[" + ip.String() + "]"
}
