package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strings"

	"onward/internal/resolver"
	"onward/internal/testmail"
)

const (
	dnsIP     = "192.0.2.53"     // not on loopback, where the resolver of opendkim would not ask it
	ourHost   = "mx.fwd.example" // what every system under test calls itself
	domain    = "fwd.example"    // of the aliases a0 to a99
	aliases   = 100
	senders   = 50          // domains, each with a key, SPF and a DMARC policy that refuses
	clientIPs = 250         // within clients, with names
	sinkIP    = "127.0.0.9" // of the MX of all domains but ours

	// clients are where mail comes from: not on loopback, which libspf2 takes for
	// authorised whatever a domain says.
	clients = "198.51.100.0/24"
)

// A world is the DNS that every system asks, and the keys of the senders.
type world struct {
	zone *resolver.Zone
	dns  *testmail.DNS
	keys []*testmail.Key
}

func newWorld() (*world, error) {
	w := &world{zone: resolver.NewZone()}
	w.set("mx.dest.example", resolver.TypeA, sinkIP)
	w.set("dest.example", resolver.TypeMX, "10 mx.dest.example.")
	w.set(ourHost, resolver.TypeA, "127.0.0.1")
	w.set(ourHost, resolver.TypeTXT, "v=spf1 ip4:127.0.0.0/8 -all")
	w.set("_dmarc."+ourHost, resolver.TypeTXT, "v=DMARC1; p=none")
	for n := range clientIPs {
		host := fmt.Sprintf("c%d.writer.example", n)
		w.set(host, resolver.TypeA, clientIP(n).String())
		w.set(fmt.Sprintf("%d.100.51.198.in-addr.arpa", 1+n), resolver.TypePTR, host+".")
	}
	for i := range senders {
		name := senderDomain(i)
		key := testmail.NewKey(name, "s1")
		w.keys = append(w.keys, key)
		w.set(key.Record())
		w.set(name, resolver.TypeMX, "10 mx.dest.example.")
		w.set(name, resolver.TypeTXT, "v=spf1 ip4:"+clients+" -all")
		w.set("_dmarc."+name, resolver.TypeTXT, "v=DMARC1; p=reject")
	}
	var err error
	w.dns, err = testmail.StartDNS(w.zone, dnsIP+":53") // the only port that resolv.conf can name
	return w, err
}

// forge makes letters that claim to be from the senders and are not: DMARC fails
// where it is checked.
func (w *world) forge(n int) []*letter {
	w.set("forger.example", resolver.TypeTXT, "v=spf1 -all")
	letters := w.write(n, kb)
	for _, l := range letters {
		l.id = "forged." + l.id
		l.from = "eve@forger.example"
		l.header = fmt.Appendf(nil, "From: <ann@%s>\r\nDate: Sun, 1 Mar 2026 10:00:00 +0000\r\nMessage-ID: <%s>\r\n", senderDomain(0), l.id)
	}
	return letters
}

// set publishes a record that is right by construction.
func (w *world) set(name string, t resolver.Type, data string) {
	if err := w.zone.Set(name, t, data); err != nil {
		panic(err)
	}
}

func clientIP(n int) net.IP { return net.IPv4(198, 51, 100, byte(1+n)) }

func senderDomain(i int) string { return fmt.Sprintf("s%d.example", i) }

// A letter is one signed message, ready to be sent: dots need no doubling.
type letter struct {
	id     string
	from   string
	to     string
	header []byte
	body   []byte // with the empty line before it; shared between letters
}

func (l *letter) size() int { return len(l.header) + len(l.body) }

// write makes n letters of about size octets, from all domains in turn.
// Every one has a signature of its own, as its Message-ID is signed.
func (w *world) write(n, size int) []*letter {
	r := rand.New(rand.NewPCG(uint64(size), 8))
	var bodies []string
	for range min(n, 1+(1<<20)/size) {
		bodies = append(bodies, prose(r, size))
	}
	letters := make([]*letter, n)
	for i := range letters {
		letters[i] = w.letter(i, size, bodies[i%len(bodies)])
	}
	return letters
}

func (w *world) letter(i, size int, body string) *letter {
	name := senderDomain(i % senders)
	l := &letter{
		id:   fmt.Sprintf("%d.%d@%s", i, size, name),
		from: fmt.Sprintf("ann%d@%s", i%40, name),
		to:   fmt.Sprintf("a%d@%s", i%aliases, domain),
	}
	header := fmt.Sprintf("From: Ann <%s>\r\nTo: <%s>\r\nSubject: letter %d\r\nDate: Sun, 1 Mar 2026 10:00:00 +0000\r\nMessage-ID: <%s>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n",
		l.from, l.to, i, l.id)
	l.header = []byte(w.keys[i%senders].Sign(header, body) + header)
	l.body = []byte("\r\n" + body)
	return l
}

// prose returns lines of 72 characters.
func prose(r *rand.Rand, size int) string {
	var b strings.Builder
	for b.Len() < size {
		for range 4 {
			fmt.Fprintf(&b, "%016x ", r.Uint64())
		}
		b.WriteString("etc.\r\n")
	}
	return b.String()
}
