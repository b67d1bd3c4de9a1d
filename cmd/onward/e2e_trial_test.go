package main_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"onward/internal/resolver"
	"onward/internal/testmail"
	"onward/internal/testpeer"
)

// A trial is a daemon between many senders and two destinations, on a state
// directory that outlives it, with all limits lifted. It ends with an audit.
//
//	box.N@alias.example   boxN@dest.example
//	fan.N@alias.example   fanN@dest.example and fanN@other.example
type trial struct {
	*daemon
	at      string         // where it listens, in every life
	dest    *testmail.Sink // of dest.example
	other   *testmail.Sink // of other.example
	writers *testmail.Sink // of all senders, for reports
	cast    *testmail.Cast
	ledger  *testmail.Ledger
}

// Where the trial's hosts are.
var (
	destHost   = netip.MustParseAddr("127.0.0.10")
	otherHost  = netip.MustParseAddr("127.0.0.11")
	writerHost = netip.MustParseAddr("127.0.0.12")
)

// newTrial starts everything. What it makes is kept when the test fails.
func newTrial(t *testing.T) *trial {
	t.Helper()
	port := testpeer.FreePort(t, destHost.String(), otherHost.String(), writerHost.String())
	zone, err := resolver.ParseZone("trial", strings.NewReader(fmt.Sprintf(`
dest.example. 60 IN MX 10 mx.dest.example.
mx.dest.example. 60 IN A %s
other.example. 60 IN MX 10 mx.other.example.
mx.other.example. 60 IN A %s
`, destHost, otherHost)))
	if err != nil {
		t.Fatal(err)
	}
	s := &trial{ledger: &testmail.Ledger{}, cast: testmail.NewCast(zone, writerHost)}
	dns, err := testmail.StartDNS(zone, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dns.Close)
	for host, sink := range map[netip.Addr]**testmail.Sink{destHost: &s.dest, otherHost: &s.other, writerHost: &s.writers} {
		if *sink, err = testmail.StartSink(netip.AddrPortFrom(host, uint16(port)).String()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup((*sink).Close)
	}
	s.at = fmt.Sprintf("127.0.0.1:%d", testpeer.FreePort(t, "127.0.0.1"))
	s.daemon = &daemon{dir: keptDir(t)}
	s.configure(t, fmt.Sprintf(`
hostname: mx.onward.example
postmaster: owner@dest.example
state_dir: DIR/state
listen: [%q]
admin: {listen: "off"}
domains:
  alias.example:
    aliases:
      /^box\.([0-9]+)$/: box$1@dest.example
      /^fan\.([0-9]+)$/: [fan$1@dest.example, fan$1@other.example]
dns: {resolvers: [%q]}
delivery: {port: %d, allow_private: true}
limits: {messages: 0, sessions: 0, client_sessions: 0, client_connections_per_minute: 0, client_messages_per_minute: 0}
`, s.at, dns.Addr(), port))
	s.start(t)
	t.Cleanup(func() {
		if s.cmd != nil {
			s.stop(t)
		}
		s.keepLog(t)
	})
	return s
}

// keptDir makes a directory that stays when the test fails.
func keptDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "onward-trial-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("state, configuration and logs are kept in %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return dir
}

// keepLog puts the log of the daemon's last life into its directory.
func (s *trial) keepLog(t testing.TB) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	text := s.log.String()
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
	for _, trouble := range []string{"DATA RACE", "msg=panic", "panic:", "level=ERROR"} {
		if i := strings.Index(text, trouble); i >= 0 {
			t.Errorf("the daemon logged %.2000s", text[max(0, i-200):])
		}
	}
}

// crash kills the daemon.
func (s *trial) crash(t testing.TB) {
	t.Helper()
	s.kill(t)
	s.ledger.Killed()
	s.keepLog(t)
}

// stillborn starts the daemon and kills it so long after, perhaps before it
// listens.
func (s *trial) stillborn(t testing.TB, after time.Duration) {
	t.Helper()
	s.log = newLogLines()
	s.cmd = exec.Command(program, "serve", "--log", "text", "-c", s.config())
	s.cmd.Stderr = s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(after)
	s.crash(t)
}

// load is a load on the daemon by these writers; the caller sets how much of it.
func (s *trial) load(writers ...*testmail.Writer) *testmail.Load {
	return &testmail.Load{
		Addr:     func() string { return s.at },
		Ledger:   s.ledger,
		Writers:  writers,
		To:       func(r *rand.Rand) []string { return []string{fmt.Sprintf("box.%d@alias.example", r.IntN(100))} },
		Sessions: 20,
	}
}

// targets is where the aliases lead.
func targets(recipient string) []string {
	name, domain, _ := strings.Cut(recipient, "@")
	kind, number, _ := strings.Cut(name, ".")
	switch {
	case domain != "alias.example":
		return nil
	case kind == "box":
		return []string{"box" + number + "@dest.example"}
	case kind == "fan":
		return []string{"fan" + number + "@dest.example", "fan" + number + "@other.example"}
	}
	return nil
}

// audit stops the daemon, if it runs, and holds everything against the promise.
func (s *trial) audit(t *testing.T) *testmail.Audit {
	t.Helper()
	if s.cmd != nil {
		s.stop(t)
	}
	pending, err := testmail.ReadQueue(t.Context(), filepath.Join(s.dir, "state"))
	if err != nil {
		t.Errorf("the queue: %v", err)
	}
	audit := testmail.Evidence{
		Ledger: s.ledger, Targets: targets, Queue: pending, Postmaster: "owner@dest.example",
		Sink:   slices.Concat(s.dest.Messages(), s.other.Messages(), s.writers.Messages()),
		Moment: 5 * time.Second, Recorded: s.recorded(t),
	}.Check()
	if !audit.Clean() {
		os.WriteFile(filepath.Join(s.dir, "audit"), []byte(audit.String()), 0o600)
		t.Errorf("the auditor has %d findings (all in %s/audit), the first: %s", len(audit.Findings), s.dir, strings.Join(audit.Findings[:min(5, len(audit.Findings))], "\n"))
	}
	for name, sink := range map[string]*testmail.Sink{"dest": s.dest, "other": s.other, "writers": s.writers} {
		if faults := sink.Faults(); len(faults) > 0 {
			t.Errorf("%d faults at the sink of %s, the first: %s", len(faults), name, faults[0])
		}
	}
	return audit
}

// recorded reads in the log of all lives what the daemon said is settled: that a
// delivery out of the queue is written down, which it says after the commit, and
// that a message was delivered in the session to everybody.
func (s *trial) recorded(t *testing.T) func(d testmail.Delivery, to string) []time.Time {
	t.Helper()
	earlier, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	said := map[string][]time.Time{} // by id, and id and target
	note := func(key, text string) {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		said[key] = append(said[key], at.Add(time.Millisecond)) // which it is rounded down to
	}
	for line := range strings.Lines(string(earlier) + s.log.String()) {
		if m := outOfQueue.FindStringSubmatch(line); m != nil {
			note(m[2]+" "+m[3], m[1])
		} else if m := inSession.FindStringSubmatch(line); m != nil && !strings.Contains(line, "queued") {
			note(m[2], m[1])
		}
	}
	return func(d testmail.Delivery, to string) []time.Time {
		id := receivedID.FindSubmatch(d.Data)
		if id == nil { // a report
			return nil
		}
		return slices.Concat(said[string(id[1])], said[string(id[1])+" "+to])
	}
}

var (
	outOfQueue = regexp.MustCompile(`^time=(\S+) level=INFO msg=delivered id=(\S+) item=\d+ kind=mail .*target=(\S+) `)
	inSession  = regexp.MustCompile(`^time=(\S+) level=INFO msg=accepted .*\bid=(\S+) `)
	receivedID = regexp.MustCompile(`(?m)^\tid (\w+)\r$`)
)

// within returns a context for waits of the test.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// raced is whether the daemon was built with -race, which makes it slow and large.
var raced = slices.Contains(buildFlags(), "-race")

// memory returns the most resident memory the daemon has had, in octets.
func (d *daemon) memory(t testing.TB) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	match := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if match == nil {
		t.Fatalf("no VmHWM in %q, %v", status, err)
	}
	n, _ := strconv.Atoi(string(match[1]))
	return n << 10
}
