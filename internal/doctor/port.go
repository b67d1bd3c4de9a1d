package doctor

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"onward/internal/address"
	"onward/internal/dialguard"
	"onward/internal/resolver"
	"onward/internal/smtpclient"
)

// How long a connection may take, and how long we wait for each line.
const (
	dialTime = 8 * time.Second
	lineTime = 10 * time.Second
)

// A peer is the server at the other end, as far as it has introduced itself.
type peer struct {
	greeting string // its last line, such as "220 mx.google.com ESMTP"
	chain    []*x509.Certificate
}

// meet hears the greeting on a connection, sees the certificate where that is
// wanted and offered, and takes its leave.
func meet(ctx context.Context, conn net.Conn, hello string, wantTLS bool) (peer, error) {
	defer conn.Close()
	c, stop := newDialogue(ctx, conn)
	defer stop()
	var h peer
	var err error
	if h.greeting, err = c.hear(); err != nil {
		return h, err
	}
	if wantTLS && strings.HasPrefix(h.greeting, "220") {
		h.chain = c.certificates(hello)
	}
	c.say("QUIT")
	return h, nil
}

// A dialogue is a conversation in SMTP. The end of its context ends it.
type dialogue struct {
	ctx      context.Context
	conn     net.Conn
	r        *bufio.Reader
	patience time.Duration // for a line of the other end
}

func newDialogue(ctx context.Context, conn net.Conn) (c *dialogue, stop func() bool) {
	c = &dialogue{ctx: ctx, conn: conn, r: bufio.NewReaderSize(conn, 2048), patience: lineTime}
	return c, context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
}

// arm sets the deadline of what comes next. The context is looked at after that,
// so that the deadline in the past is never put off.
func (c *dialogue) arm(d time.Duration) error {
	c.conn.SetDeadline(time.Now().Add(d))
	return c.ctx.Err()
}

const maxLines = 50 // of a reply

// hear returns the last line of a reply.
func (c *dialogue) hear() (string, error) {
	for range maxLines {
		if err := c.arm(c.patience); err != nil {
			return "", err
		}
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return "", err
		}
		text := strings.TrimRight(string(line), "\r\n")
		if len(text) < 4 || text[3] != '-' {
			return text, nil
		}
	}
	return "", errors.New("the reply has no end")
}

func (c *dialogue) say(line string) {
	if c.arm(lineTime) == nil {
		c.conn.Write([]byte(line + "\r\n")) // what went wrong is heard as the answer that does not come
	}
}

// certificates turns TLS on and returns what the server shows, whatever it is
// worth; none when it does not come to that.
func (c *dialogue) certificates(hello string) []*x509.Certificate {
	for _, line := range []string{"EHLO " + hello, "STARTTLS"} {
		c.say(line)
		if answer, err := c.hear(); err != nil || !strings.HasPrefix(answer, "2") {
			return nil
		}
	}
	c.arm(lineTime)
	secure := tls.Client(c.conn, &tls.Config{ServerName: hello, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	if err := secure.HandshakeContext(c.ctx); err != nil {
		return nil
	}
	c.conn = secure
	return secure.ConnectionState().PeerCertificates
}

// outbound connects to the mail hosts of targets, or to the relay, and hears
// whether they talk to us. Where nobody can be reached, the port is closed to us,
// as many providers do.
func (e *examination) outbound(ctx context.Context) []Check {
	const check = "outbound"
	if e.Config.Delivery.Relay != "" {
		return e.relay(ctx)
	}
	const most = 3 // domains that are asked
	targets := e.Targets[:min(len(e.Targets), most)]
	results := make([]Check, len(targets))
	closed := make([]bool, len(targets))
	var wg sync.WaitGroup
	for i, d := range targets {
		wg.Go(func() { results[i], closed[i] = e.visit(ctx, d) })
	}
	wg.Wait()
	if len(targets) > 0 && !slices.Contains(closed, false) {
		return []Check{{check, Failure,
			fmt.Sprintf("No mail host can be reached on port %d (%s); ask your provider to open it, or send through a relay.", e.Config.Delivery.Port, list(targets)),
			"delivery: {relay: \"smtp+starttls://USER@HOST:587\", relay_password_file: FILE}"}}
	}
	return results
}

// visit connects to the best mail host of a domain. closed is true when none of
// its addresses takes a connection.
func (e *examination) visit(ctx context.Context, d address.Domain) (c Check, closed bool) {
	c = Check{Name: "outbound " + d.String(), State: Warning}
	hosts, err := e.mailHosts(ctx, d)
	if err != nil {
		c.Sentence = fmt.Sprintf("Mail goes on to %s, whose mail host cannot be found: %s.", d, quote(outcome(err).Error()))
		return c, false
	}
	for _, host := range hosts {
		for _, ip := range e.egressTo(e.resolve(ctx, host).addrs) {
			var conn net.Conn
			to := netip.AddrPortFrom(ip, uint16(e.Config.Delivery.Port))
			if conn, err = e.dialOut(ctx, to); err != nil {
				c.Sentence = unreached(d, host, ip, err)
				continue
			}
			met, trouble := meet(ctx, conn, e.hostname().String(), false)
			switch {
			case trouble != nil:
				c.Sentence = fmt.Sprintf("%s of %s takes a connection and says nothing (%s).", quote(host), d, quote(trouble.Error()))
			case strings.HasPrefix(met.greeting, "220"):
				c.State, c.Sentence = OK, fmt.Sprintf("%s of %s greets us.", quote(host), d)
			default:
				c.State, c.Sentence = Failure, fmt.Sprintf("%s of %s does not want us: %s.", quote(host), d, quote(met.greeting))
			}
			return c, false
		}
	}
	if err == nil {
		c.Sentence = fmt.Sprintf("No mail host of %s has an address that we could connect to.", d)
	}
	return c, !errors.Is(err, dialguard.ErrPrivate) && !errors.Is(err, dialguard.ErrOwn)
}

// unreached says why the last of the mail hosts of a domain was not connected to.
func unreached(d address.Domain, host string, ip netip.Addr, err error) string {
	switch {
	case errors.Is(err, dialguard.ErrPrivate):
		return fmt.Sprintf("%s of %s is at %s, which is not a public address, so no mail goes there unless delivery.allow_private is set.", quote(host), d, ip)
	case errors.Is(err, dialguard.ErrOwn):
		return fmt.Sprintf("%s of %s is at %s, which is this machine itself, so no mail goes there.", quote(host), d, ip)
	}
	return fmt.Sprintf("No mail host of %s can be reached: %s.", d, quote(cause(err)))
}

// mailHosts returns the hosts of a domain that are to be tried first.
func (e *examination) mailHosts(ctx context.Context, d address.Domain) ([]string, error) {
	answer, err := e.Resolver.Lookup(ctx, d.String(), resolver.TypeMX)
	switch {
	case errors.Is(err, resolver.ErrNoData):
		return []string{d.String()}, nil
	case err != nil:
		return nil, err
	}
	all := answer.MX()
	slices.SortStableFunc(all, func(a, b resolver.MX) int { return int(a.Preference) - int(b.Preference) })
	var hosts []string
	for _, mx := range all[:min(len(all), 2)] {
		if mx.IsNull() {
			return nil, errors.New("it takes no mail (RFC 7505)")
		}
		hosts = append(hosts, mx.Host)
	}
	return hosts, nil
}

// egressTo returns two addresses at most of those that mail would go to.
func (e *examination) egressTo(all []netip.Addr) []netip.Addr {
	d := e.Config.Delivery
	all = slices.DeleteFunc(slices.Clone(all), func(ip netip.Addr) bool {
		return ip.Is6() && d.IPv6 == "off" || d.Source.IsValid() && d.Source.Is4() != ip.Is4()
	})
	return all[:min(len(all), 2)]
}

// dialOut connects as deliveries do.
func (e *examination) dialOut(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTime}
	if source := e.Config.Delivery.Source; source.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	return dialguard.Guard{AllowPrivate: e.Config.Delivery.AllowPrivate}.Dial(ctx, dialer, to)
}

// relay connects to the relay host.
func (e *examination) relay(ctx context.Context) []Check {
	const check = "outbound"
	r, err := smtpclient.ParseRelay(e.Config.Delivery.Relay)
	if err != nil {
		return []Check{{check, Failure, fmt.Sprintf("delivery.relay: %s.", quote(err.Error())), ""}}
	}
	at := net.JoinHostPort(r.Host, strconv.Itoa(int(r.Port)))
	mend := "nc -v " + r.Host + " " + strconv.Itoa(int(r.Port))
	n := e.resolve(ctx, r.Host)
	if literal, err := netip.ParseAddr(strings.TrimPrefix(strings.Trim(r.Host, "[]"), "IPv6:")); err == nil {
		n.addrs = []netip.Addr{literal}
	}
	err = errors.New("its name has no address")
	for _, ip := range e.egressTo(n.addrs) {
		var conn net.Conn
		if conn, err = (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "tcp", netip.AddrPortFrom(ip, r.Port).String()); err != nil {
			continue
		}
		if r.ImplicitTLS {
			conn = tls.Client(conn, &tls.Config{ServerName: r.Host, MinVersion: tls.VersionTLS12})
		}
		met, trouble := meet(ctx, conn, e.hostname().String(), false)
		if err = trouble; err == nil && strings.HasPrefix(met.greeting, "220") {
			return []Check{{check, OK, fmt.Sprintf("The relay %s greets us.", at), ""}}
		}
		if err == nil {
			err = errors.New(met.greeting)
		}
	}
	return []Check{{check, Failure, fmt.Sprintf("The relay %s, which everything goes through, cannot be reached: %s.", at, quote(cause(err))), mend}}
}

// cause leaves out of a network error what stands beside it anyway.
func cause(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		err = op.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	return strings.TrimPrefix(err.Error(), "connect: ")
}

// inbound connects to our own listener, from this machine and by our addresses,
// and looks at the certificate that it shows.
func (e *examination) inbound(ctx context.Context) []Check {
	const check = "inbound"
	at, err := e.listener()
	if err != nil {
		return []Check{{check, Failure, fmt.Sprintf("Our listener cannot be connected to: %s.", quote(err.Error())), ""}}
	}
	met, err := e.knock(ctx, at, true)
	switch {
	case err != nil:
		return e.withCertificate(nil, Check{check, Failure, fmt.Sprintf("Nobody answers on %s (%s); is onward running?", at, quote(cause(err))), "onward serve -c " + e.file()})
	case !e.isOurs(met):
		return []Check{{check, Failure, fmt.Sprintf("Another program answers on %s: %s.", at, quote(met.greeting)), "ss -ltnp 'sport = :" + port(at) + "'"}}
	}
	for _, ip := range e.ours {
		outside := netip.AddrPortFrom(ip, 25)
		if ip.IsLoopback() { // where tests have their internet
			outside = at
		}
		seen, err := e.knock(ctx, outside, false)
		if err != nil {
			return e.withCertificate(met.chain, Check{check, Warning, fmt.Sprintf("onward answers here, but not at %s as seen from this machine (%s); a firewall is in between, or just a router that does not lead back. Try from elsewhere.", outside, quote(cause(err))), "nc -v " + ip.String() + " 25"})
		}
		if !e.isOurs(seen) {
			return e.withCertificate(met.chain, Check{check, Failure, fmt.Sprintf("At %s another server answers: %s.", outside, quote(seen.greeting)), "nc -v " + ip.String() + " 25"})
		}
	}
	if len(e.ours) == 0 {
		return e.withCertificate(met.chain, Check{check, OK, fmt.Sprintf("onward answers on %s.", at), ""})
	}
	return e.withCertificate(met.chain, Check{check, OK, fmt.Sprintf("onward answers at %s, as far as this machine can see; only others see a firewall before it.", list(e.ours)), ""})
}

// listener is the first of our listeners, as it is reached from this machine.
func (e *examination) listener() (netip.AddrPort, error) {
	if len(e.Config.Listen) == 0 {
		return netip.AddrPort{}, errors.New("no address to listen on is configured")
	}
	text := e.Config.Listen[0]
	if strings.HasPrefix(text, ":") {
		text = "127.0.0.1" + text
	}
	at, err := netip.ParseAddrPort(text)
	switch {
	case err != nil:
		return at, err
	case at.Addr() == netip.IPv4Unspecified():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port()), nil
	case at.Addr() == netip.IPv6Unspecified():
		return netip.AddrPortFrom(netip.IPv6Loopback(), at.Port()), nil
	}
	return at, nil
}

func (e *examination) knock(ctx context.Context, at netip.AddrPort, wantTLS bool) (peer, error) {
	conn, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return peer{}, err
	}
	e.introduce(conn)
	return meet(ctx, conn, e.hostname().String(), wantTLS)
}

// introduce says that we speak for ourselves where our listener takes us for a
// proxy (policy.proxy_protocol_from).
func (s *Subject) introduce(conn net.Conn) {
	us := conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	for _, text := range s.Config.Policy.ProxyProtocolFrom {
		if network, err := netip.ParsePrefix(text); err == nil && network.Contains(us) {
			io.WriteString(conn, "PROXY UNKNOWN\r\n")
			return
		}
	}
}

// isOurs reports whether a greeting is our own. A full server says 421.
func (e *examination) isOurs(h peer) bool {
	fields := strings.Fields(h.greeting)
	return len(fields) > 1 && (fields[0] == "220" || fields[0] == "421") && strings.EqualFold(fields[1], e.hostname().String())
}

func port(at netip.AddrPort) string { return strconv.Itoa(int(at.Port())) }

// file is the configuration file.
func (s *Subject) file() string {
	if len(s.Config.Files) == 0 {
		return "onward.yaml"
	}
	return s.Config.Files[0]
}
