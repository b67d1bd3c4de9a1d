package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/mailauth"
	"onward/internal/mailauth/dkim"
	"onward/internal/mailauth/dmarc"
	"onward/internal/mailauth/spf"
	"onward/internal/resolver"
	"onward/internal/signing"
	"onward/internal/testmail"
	"onward/internal/testpeer"
)

// egress is the host of the daemon, as destinations see it.
const egress = `
mx.onward.example. 60 IN A 127.0.0.1
mx.onward.example. 60 IN TXT "v=spf1 ip4:127.0.0.1 -all"
_dmarc.mx.onward.example. 60 IN TXT "v=DMARC1; p=reject"
1.0.0.127.in-addr.arpa. 60 IN PTR mx.onward.example.
dest.example. 60 IN MX 10 mx.dest.example.
mx.dest.example. 60 IN A 127.0.0.1
`

// corpora are the author domains of the generated messages: what they publish,
// and so what becomes of a message whose signature is broken, or is none that
// counts everywhere.
var corpora = []struct{ domain, dmarc, spf string }{
	{"reject.example", "v=DMARC1; p=reject", ""},                                                // refused
	{"none.example", "v=DMARC1; p=none", "v=spf1 -all"},                                         // goes on as it is
	{"unpublished.example", "", "v=spf1 ip4:127.0.0.2 -all"},                                    // likewise
	{"spf.example", "v=DMARC1; p=reject", "v=spf1 ip4:127.0.0.2 -all"},                          // passes by SPF, and goes on rewritten
	{"quarantine.example", "v=DMARC1; p=quarantine; aspf=s", "v=spf1 include:spf.example ~all"}, // likewise
}

// A specimen is one message on its way through the daemon.
type specimen struct {
	domain string
	sent   []byte
	try    testmail.Try
	before *mailauth.Verdict // of what was sent
	after  *mailauth.Verdict // of what arrived
	copies []testmail.Delivery
}

// TestCorpus sends generated messages, odd and broken ones among them, through
// the real daemon, and holds what arrives against what was sent: every octet,
// every signature (by two verifiers that are not ours), our own signature, and
// DMARC as the destination will find it.
func TestCorpus(t *testing.T) {
	const each = 400
	zone, err := resolver.ParseZone("world", strings.NewReader(egress))
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{} // of everybody, for the verifiers
	var specimens []*specimen
	for i, author := range corpora {
		corpus := testmail.NewCorpus(uint64(100+i), author.domain)
		corpus.Publish(zone)
		maps.Copy(keys, corpus.Keys)
		publish(t, zone, author.domain, author.spf)
		publish(t, zone, "_dmarc."+author.domain, author.dmarc)
		for range each {
			sent := corpus.Next()
			if !bytes.HasSuffix(sent, []byte("\r\n")) {
				sent = append(sent, "\r\n"...) // as SMTP does
			}
			specimens = append(specimens, &specimen{domain: author.domain, sent: sent})
		}
	}
	began := time.Now()
	sink := passAll(t, zone, keys, specimens)
	t.Logf("%d messages through the daemon in %v", len(specimens), time.Since(began).Round(time.Millisecond))
	for _, fault := range sink.Faults() {
		t.Error(fault)
	}
	verifyAll(t, zone, specimens)
	askPeers(t, keys, specimens)
}

func publish(t *testing.T, zone *resolver.Zone, name, text string) {
	t.Helper()
	if text == "" {
		return
	}
	if err := zone.Set(name, resolver.TypeTXT, text); err != nil {
		t.Fatal(err)
	}
}

// passAll sends every specimen and notes what was heard and what arrived. It
// publishes the daemon's keys, as its owner does.
func passAll(t *testing.T, zone *resolver.Zone, keys map[string]string, specimens []*specimen) *testmail.Sink {
	t.Helper()
	sink, err := testmail.StartSink("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sink.Close)
	dns, err := testmail.StartDNS(zone, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dns.Close)
	d := serve(t, fmt.Sprintf(`
hostname: mx.onward.example
postmaster: owner@dest.example
state_dir: DIR/state
listen: ["127.0.0.1:0"]
domains: {alias.example: {aliases: {"/^m([0-9]+)$/": "m$1@dest.example"}}}
dns: {resolvers: [%q]}
delivery: {port: %d, allow_private: true}
limits: {messages: 0, sessions: 0, client_sessions: 0, client_connections_per_minute: 0, client_messages_per_minute: 0}
`, dns.Addr(), sink.Addr().Port()))
	publishKeys(t, zone, keys, filepath.Join(d.dir, "state", "dkim"), "mx.onward.example")

	w := &testmail.Writer{Client: netip.MustParseAddr("127.0.0.2"), Helo: "mx.writer.example"}
	ctx := within(t, 2*time.Minute)
	next := make(chan int)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := range next {
				s := specimens[n]
				s.try = w.Send(ctx, d.addr, "ada@"+s.domain, []string{fmt.Sprintf("m%d@alias.example", n)}, s.sent)
			}
		})
	}
	for n := range specimens {
		next <- n
	}
	close(next)
	wg.Wait()
	for _, delivery := range sink.Messages() {
		var n int
		if _, err := fmt.Sscanf(delivery.Rcpt[0], "RCPT TO:<m%d@dest.example>", &n); err != nil {
			t.Fatalf("%q: %v", delivery.Rcpt, err)
		}
		specimens[n].copies = append(specimens[n].copies, delivery)
	}
	return sink
}

// publishKeys puts the key records of a domain of ours into the DNS.
func publishKeys(t *testing.T, zone *resolver.Zone, keys map[string]string, dir string, domain address.Domain) {
	t.Helper()
	all, err := signing.Open(signing.Settings{Dir: dir, Selector: "onward"})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := all.Signer(domain)
	if errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no key of %s: %v", domain, err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range signer.Records() {
		publish(t, zone, record.Name, record.Value)
		keys[record.Name] = record.Value
	}
}

// verifyAll evaluates each message where it was sent from and where it arrived,
// and holds the two against each other.
func verifyAll(t *testing.T, zone *resolver.Zone, specimens []*specimen) {
	t.Helper()
	verifier := &mailauth.Verifier{Resolver: zone, Hostname: "mx.dest.example", Loopback: true}
	verify := func(client, helo, from string, octets []byte) *mailauth.Verdict {
		reverse, err := address.ParseReversePath(from)
		if err != nil {
			t.Fatal(err)
		}
		v, err := verifier.Verify(context.Background(), mailauth.Sender{Client: netip.MustParseAddr(client), Helo: helo, From: reverse, Now: time.Now()}, testpeer.Message(t, string(octets)))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	counts := map[string]int{}
	for n, s := range specimens {
		s.before = verify("127.0.0.2", "mx.writer.example", "ada@"+s.domain, s.sent)
		if want := s.wanted(); !strings.HasPrefix(s.try.Text, want) {
			t.Errorf("message %d of %s, which is dmarc=%s: answered %q, want %s", n, s.domain, s.before.DMARC.Result, s.try.Text, want)
			continue
		}
		if s.try.Code != 250 {
			counts["refused"]++
			if len(s.copies) > 0 {
				t.Errorf("message %d of %s: refused, and %d copies arrived", n, s.domain, len(s.copies))
			}
			continue
		}
		if len(s.copies) != 1 {
			t.Errorf("message %d of %s: %d copies arrived", n, s.domain, len(s.copies))
			continue
		}
		arrived := s.copies[0]
		_, helo, _ := strings.Cut(arrived.Helo, " ")
		s.after = verify(arrived.Peer.Addr().String(), helo, pathOf(arrived.Mail), arrived.Data)
		counts["arrived"]++
		counts[fmt.Sprintf("dmarc=%s before, %s after, p=%s", s.before.DMARC.Result, s.after.DMARC.Result, s.before.DMARC.Policy)]++
		if s.after.MailFrom.Result != spf.Pass || s.after.MailFrom.Domain != "mx.onward.example" {
			t.Errorf("message %d of %s: SPF for %s is %s at the destination", n, s.domain, s.after.MailFrom.Domain, s.after.MailFrom.Result)
		}
		// Where a policy asks for nothing, From is left as it is (DESIGN.md 4).
		if s.before.DMARC.Result == dmarc.Pass && s.after.DMARC.Result != dmarc.Pass && s.before.DMARC.Policy != dmarc.PolicyNone {
			t.Errorf("message %d of %s: DMARC passed on arrival and is %s at the destination (%s)\n%.3000s", n, s.domain, s.after.DMARC.Result, s.after.DMARC.Reason, arrived.Data)
		}
		s.compare(t, n, counts)
	}
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%5d %s", counts[what], what)
	}
}

// wanted is how the answer must begin.
func (s *specimen) wanted() string {
	switch {
	case s.before.Author.Domain == "":
		return "550 5.6.0 "
	case s.before.DMARC.Result == dmarc.Fail && s.before.DMARC.Policy == dmarc.PolicyReject:
		return "550 5.7.1 "
	}
	return "250 2.0.0 "
}

// mayRewrite reports whether From has to be ours at the destination: DMARC
// passes only by SPF, which ends here, and somebody wants failures punished.
func (s *specimen) mayRewrite() bool {
	v := s.before.DMARC
	if v.Result != dmarc.Pass || v.Policy != dmarc.PolicyReject && v.Policy != dmarc.PolicyQuarantine {
		return false
	}
	for _, d := range s.before.DKIM { // the corpus signs by no other domain
		if d.Result == dkim.Pass && d.Algorithm == dkim.RSASHA256 && !s.seals(d.Names) {
			return false
		}
	}
	return true
}

// seals reports whether h= names Received more often than the message has it. Of
// such a signature no forwarder can be kept from breaking it (K5).
func (s *specimen) seals(names []string) bool {
	named := 0
	for _, name := range names {
		named += one(strings.EqualFold(name, "Received"))
	}
	header, _, _ := bytes.Cut(s.sent, []byte("\r\n\r\n"))
	return named > len(receivedField.FindAll(header, -1))
}

var receivedField = regexp.MustCompile(`(?im)^received:`)

// beginning is what the verifiers name a signature by.
func beginning(d dkim.Result) string {
	b, _ := d.Tags.Get("b")
	b = strings.Join(strings.Fields(b), "")
	return b[:min(16, len(b))]
}

// compare holds the octets of the copy against those sent, and finds our
// signature on it.
func (s *specimen) compare(t *testing.T, n int, counts map[string]int) {
	t.Helper()
	data := s.copies[0].Data
	const signer = "mx.onward.example" // the SRS domain, and that of a rewritten From
	added, found := bytes.CutSuffix(data, s.sent)
	switch {
	case found && s.mayRewrite():
		t.Errorf("message %d of %s: passes DMARC by SPF alone, and was not rewritten", n, s.domain)
	case !found && !s.mayRewrite():
		t.Errorf("message %d of %s: changed on the way\nsent    %.1500q\narrived %.2500q", n, s.domain, s.sent, data)
	case !found:
		counts["rewritten"]++
		_, sentBody, _ := bytes.Cut(s.sent, []byte("\r\n\r\n"))
		_, body, _ := bytes.Cut(data, []byte("\r\n\r\n"))
		if !bytes.Equal(body, sentBody) {
			t.Errorf("message %d of %s: rewritten, and its body changed", n, s.domain)
		}
		if author := string(s.after.Author.Domain); author != signer {
			t.Errorf("message %d of %s: From rewritten to %s", n, s.domain, author)
		}
	case len(added) == 0:
		t.Errorf("message %d of %s: nothing on top", n, s.domain)
	}
	ours := s.ours(signer)
	if ours == nil || ours.Result != dkim.Pass || ours.Position != 0 {
		t.Errorf("message %d of %s: no valid signature of %s on top: %+v\n%.800s", n, s.domain, signer, ours, data)
	}
}

// ours returns the topmost signature by a domain.
func (s *specimen) ours(domain string) *dkim.Result {
	for i, d := range s.after.DKIM {
		if d.Domain == domain {
			return &s.after.DKIM[i]
		}
	}
	return nil
}

func pathOf(line string) string {
	_, path, _ := strings.Cut(line, "<")
	path, _, _ = strings.Cut(path, ">")
	return path
}

// askPeers asks each verifier about what arrived: our signature must be valid, and
// one of the sender's may be invalid only where it was as sent.
func askPeers(t *testing.T, keys map[string]string, specimens []*specimen) {
	const scripts = "../../internal/mailauth/dkim/testdata/"
	peers := map[string]testpeer.DKIM{
		"python3-dkim": testpeer.StartDKIM(t, keys, "/usr/bin/python3", scripts+"peer.py"),
		"Mail::DKIM":   testpeer.StartDKIM(t, keys, "perl", scripts+"peer.pl"),
	}
	var wg sync.WaitGroup
	for name, peer := range peers {
		wg.Go(func() {
			var counts peerCounts
			for n, s := range specimens {
				if s.after == nil || len(s.after.DKIM) == 0 {
					continue
				}
				if err := s.askPeer(peer, &counts); err != nil {
					t.Errorf("message %d of %s: %s: %v", n, s.domain, name, err)
				}
			}
			t.Logf("%s: %d signatures valid as sent are valid as arrived, all but %d that forbid any forwarding; %d of ours are valid", name, counts.kept, counts.lost, counts.ours)
		})
	}
	wg.Wait()
}

// peerCounts is what one verifier found.
type peerCounts struct{ kept, lost, ours int }

// askPeer asks one verifier about one message.
func (s *specimen) askPeer(peer testpeer.DKIM, counts *peerCounts) error {
	arrived, err := peer(s.copies[0].Data)
	if err != nil {
		return err
	}
	if said := arrived[beginning(s.after.DKIM[0])]; said != "pass" {
		return fmt.Errorf("%q about our signature", said)
	}
	counts.ours++
	if s.mayRewrite() {
		return nil
	}
	var sent map[string]string // asked for only where something is invalid
	for _, d := range s.before.DKIM {
		b := beginning(d)
		if arrived[b] == "pass" {
			counts.kept++
			continue
		}
		if sent == nil {
			if sent, err = peer(s.sent); err != nil {
				return err
			}
		}
		switch {
		case sent[b] != "pass":
		case s.seals(d.Names):
			counts.lost++
		default:
			return fmt.Errorf("%s was valid as sent, and is %q as arrived", b, arrived[b])
		}
	}
	return nil
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}
