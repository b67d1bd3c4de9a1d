package main_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"onward/internal/resolver"
	"onward/internal/testmail"
	"onward/internal/testpeer"
)

// letter is a message that can be sent line by line.
const letter = "From: Ada <ada@sender.example>\r\nSubject: a letter\r\n\r\nhello\r\n"

// send sends a letter and expects the answer to its final dot.
func send(talk *testmail.Talk, from, to, want string) string {
	talk.Say("MAIL FROM:<"+from+">", "250 ")
	talk.Say("RCPT TO:<"+to+">", "250 ")
	talk.Say("DATA", "354 ")
	return talk.Say(letter+".", want)
}

// A stand is a daemon with one stand-in destination for all the world, which
// is dest.example and sender.example.
type stand struct {
	*daemon
	sink     *testmail.Sink
	zone     *resolver.Zone // the DNS
	settings string         // all of the configuration but the aliases
}

// newStand starts a stand with these aliases of alias.example, a line each.
// The test fails if the daemon does anything to the sink that it must not.
func newStand(t testing.TB, aliases ...string) *stand {
	t.Helper()
	return newStandOf(t, &daemon{}, "", aliases...)
}

// newStandOf starts a stand with a daemon that is to run in some other way, and
// more in its configuration.
func newStandOf(t testing.TB, d *daemon, more string, aliases ...string) *stand {
	t.Helper()
	sink, err := testmail.StartSink("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		sink.Close()
		for _, fault := range sink.Faults() {
			t.Error(fault)
		}
	})
	s := &stand{daemon: d, sink: sink}
	s.zone, s.settings = world(t, sink.Addr())
	s.settings += more
	d.serve(t, s.yaml(aliases...))
	return s
}

// settings is a configuration without aliases, for which destination is the
// host of dest.example and of sender.example.
func settings(t testing.TB, destination netip.AddrPort) string {
	t.Helper()
	_, text := world(t, destination)
	return text
}

// world is the DNS of settings, and them.
func world(t testing.TB, destination netip.AddrPort) (*resolver.Zone, string) {
	t.Helper()
	zone, err := resolver.ParseZone("world", strings.NewReader(strings.ReplaceAll(`
dest.example. 60 IN MX 10 mx.dest.example.
mx.dest.example. 60 IN A DESTINATION
sender.example. 60 IN MX 10 mx.sender.example.
mx.sender.example. 60 IN A DESTINATION
`, "DESTINATION", destination.Addr().String())))
	if err != nil {
		t.Fatal(err)
	}
	dns, err := testmail.StartDNS(zone, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dns.Close)
	return zone, fmt.Sprintf(`hostname: mx.onward.example
postmaster: owner@dest.example
state_dir: DIR/state
listen: ["127.0.0.1:0"]
admin: {listen: "off"}
dns: {resolvers: [%q]}
delivery: {port: %d, allow_private: true}
`, dns.Addr(), destination.Port())
}

// yaml is the configuration with these aliases, the first of which is on the
// line aliasLine.
func (s *stand) yaml(aliases ...string) string {
	return s.settings + "domains:\n  alias.example:\n    aliases:\n      " + strings.Join(aliases, "\n      ") + "\n"
}

const aliasLine = 11

// arrived waits for n messages in all and returns the last.
func (s *stand) arrived(t testing.TB, n int) testmail.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, err := s.sink.Wait(ctx, n)
	if err != nil || len(got) != n {
		t.Fatalf("%d messages at the destination, %v; want %d", len(got), err, n)
	}
	return got[n-1]
}

// heard waits until the sink has heard a command.
func (s *stand) heard(t testing.TB, command string) {
	t.Helper()
	testpeer.Wait(t, command, func() bool { return slices.Contains(s.sink.Commands(), command) })
}
