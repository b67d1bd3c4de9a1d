package testmail

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"onward/internal/resolver"
)

// Faults is how a DNS server misbehaves, whatever the question. For a failure
// of one name there is Zone.Fail. The zero value is a good server, which
// validates nothing.
type Faults struct {
	Validated bool // set the AD bit for whoever asks for it, as if DNSSEC had been checked

	Delay    time.Duration // before each answer
	Drop     bool          // never answer; with a forgery, send only that
	Truncate bool          // over UDP, say only that the answer is too long
	CutTCP   bool          // say it over TCP
	Shout    bool          // repeat the question, and all owners, in capitals
	Lame     bool          // neither authoritative nor recursive, and without records
	Garbage  []byte        // send this in place of an answer, after the right ID

	// Before each answer over UDP send forgeries of it, whose addresses are 203.0.113.66
	// and whose texts are "forged":
	WrongID       int // so many with the wrong ID
	WrongQuestion int // so many to another question: name and type in turn
}

// A DNS is a name server on one port of UDP and TCP.
type DNS struct {
	zone   *resolver.Zone
	udp    *dns.Server
	tcp    *dns.Server
	closed chan struct{}
	wg     sync.WaitGroup

	mu      sync.Mutex
	faults  Faults
	queries map[string]int // by "name TYPE"
	overTCP int
}

// StartDNS serves zone on addr, such as "127.0.0.1:0".
func StartDNS(zone *resolver.Zone, addr string) (*DNS, error) {
	listener, packets, err := listenBoth(addr)
	if err != nil {
		return nil, err
	}
	d := &DNS{zone: zone, closed: make(chan struct{}), queries: make(map[string]int)}
	d.tcp = &dns.Server{Listener: listener, Handler: dns.HandlerFunc(d.serve)}
	d.udp = &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(d.serve)}
	for _, s := range []*dns.Server{d.tcp, d.udp} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		d.wg.Go(func() { s.ActivateAndServe() })
		<-started
	}
	return d, nil
}

// listenBoth finds one port that is free in both protocols.
func listenBoth(addr string) (net.Listener, net.PacketConn, error) {
	for attempt := 0; ; attempt++ {
		listener, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, nil, err
		}
		packets, err := net.ListenPacket("udp", listener.Addr().String())
		if err == nil {
			return listener, packets, nil
		}
		listener.Close()
		if attempt == 10 {
			return nil, nil, fmt.Errorf("UDP port beside TCP: %w", err)
		}
	}
}

// Addr returns where the server listens.
func (d *DNS) Addr() netip.AddrPort {
	return d.udp.PacketConn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// Close ends the server. Answers that are being delayed are not sent.
func (d *DNS) Close() {
	close(d.closed)
	d.udp.Shutdown()
	d.tcp.Shutdown()
	d.wg.Wait()
}

// SetFaults replaces the faults for all further questions.
func (d *DNS) SetFaults(f Faults) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = f
}

// Queries returns how often the server was asked for name and type, over UDP
// and TCP.
func (d *DNS) Queries(name string, t resolver.Type) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.queries[key(name, t)]
}

// Total returns how often the server was asked anything, and how often of that
// over TCP.
func (d *DNS) Total() (all, overTCP int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.queries {
		all += n
	}
	return all, d.overTCP
}

func key(name string, t resolver.Type) string {
	return strings.ToLower(dns.Fqdn(name)) + " " + t.String()
}

// serve answers one question.
func (d *DNS) serve(w dns.ResponseWriter, asked *dns.Msg) {
	_, overTCP := w.RemoteAddr().(*net.TCPAddr)
	q := asked.Question[0]
	faults := d.note(q, overTCP)
	select {
	case <-time.After(faults.Delay):
	case <-d.closed:
		return
	}
	answer := d.zone.Reply(q.Name, resolver.Type(q.Qtype))
	if answer == nil {
		return
	}
	complete(answer, asked)
	answer.AuthenticatedData = faults.Validated && asked.AuthenticatedData
	if !overTCP {
		forge(w, answer, faults)
	}
	switch {
	case faults.Drop:
		return
	case faults.Garbage != nil:
		w.Write(append([]byte{byte(asked.Id >> 8), byte(asked.Id)}, faults.Garbage...))
		return
	case faults.Lame:
		answer.Authoritative, answer.RecursionAvailable = false, false
		answer.Answer, answer.Ns = nil, nil
	case faults.Truncate && !overTCP, faults.CutTCP && overTCP:
		answer.Answer, answer.Ns = nil, nil
		answer.Truncated = true
	case !overTCP:
		answer.Truncate(datagram(asked))
	}
	if faults.Shout {
		answer = shouted(answer)
	}
	w.WriteMsg(answer)
}

// note counts a question and returns the faults of the day.
func (d *DNS) note(q dns.Question, overTCP bool) Faults {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queries[key(q.Name, resolver.Type(q.Qtype))]++
	if overTCP {
		d.overTCP++
	}
	return d.faults
}

// complete makes answer one to asked, from a recursive server.
func complete(answer, asked *dns.Msg) {
	answer.Id = asked.Id
	answer.Question = asked.Question
	answer.RecursionDesired = asked.RecursionDesired
	answer.RecursionAvailable = true
	answer.Compress = true
	if opt := asked.IsEdns0(); opt != nil {
		answer.SetEdns0(opt.UDPSize(), false)
	}
}

// datagram returns the octets that fit (RFC 1035 4.2.1, RFC 6891 6.2.3).
func datagram(asked *dns.Msg) int {
	if opt := asked.IsEdns0(); opt != nil {
		return int(max(opt.UDPSize(), dns.MinMsgSize))
	}
	return dns.MinMsgSize
}

// forge sends what somebody who wants to be believed would send.
func forge(w dns.ResponseWriter, answer *dns.Msg, faults Faults) {
	fake := answer.Copy()
	for _, rr := range fake.Answer {
		switch r := rr.(type) {
		case *dns.A:
			r.A = net.IPv4(203, 0, 113, 66)
		case *dns.TXT:
			r.Txt = []string{"forged"}
		}
	}
	for i := range faults.WrongID {
		fake.Id = answer.Id + uint16(i) + 1
		w.WriteMsg(fake)
	}
	fake.Id = answer.Id
	q := &fake.Question[0]
	for i := range faults.WrongQuestion {
		*q = answer.Question[0]
		if i%2 == 0 {
			q.Name = other(q.Name)
		} else {
			q.Qtype++
		}
		w.WriteMsg(fake)
	}
}

// other returns a name like name, of the same length.
func other(name string) string {
	if name[0] == 'x' {
		return "y" + name[1:]
	}
	return "x" + name[1:]
}

// shouted returns answer in capitals, which changes no meaning (RFC 4343).
func shouted(answer *dns.Msg) *dns.Msg {
	loud := answer.Copy() // the zone's records are not ours to change
	loud.Question[0].Name = strings.ToUpper(loud.Question[0].Name)
	for _, rr := range loud.Answer {
		rr.Header().Name = strings.ToUpper(rr.Header().Name)
	}
	return loud
}
