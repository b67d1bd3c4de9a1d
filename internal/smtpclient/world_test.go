package smtpclient_test

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"onward/internal/address"
	"onward/internal/resolver"
	"onward/internal/smtpclient"
	"onward/internal/testmail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A world is a zone, a client and, on 127.0.0.1, the sink that the zone's
// mail.test. is. Further hosts are 127.0.0.2 and so on, at the same port.
type world struct {
	*smtpclient.Client
	zone *resolver.Zone
	sink *testmail.Sink
}

// patient is longer than anything on loopback takes.
const patient = 10 * time.Second

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{zone: resolver.NewZone(), sink: freeSink(t)}
	w.set(t, "mail.test", resolver.TypeA, "127.0.0.1")
	w.set(t, "example.org", resolver.TypeMX, "10 mail.test.")
	w.Client = &smtpclient.Client{
		Resolver: w.zone, Hostname: "mx.onward.test", Port: int(w.sink.Addr().Port()), AllowPrivate: true,
		Timeouts: smtpclient.Timeouts{Connect: patient, Hello: patient, Command: patient, Reply: patient, Block: patient, Answer: patient},
	}
	return w
}

// freeSink starts a sink at a port that should be free at other addresses too:
// below those that the system gives to whoever asks for any.
func freeSink(t testing.TB) *testmail.Sink {
	t.Helper()
	for range 100 {
		if sink, err := testmail.StartSink(fmt.Sprint("127.0.0.1:", 10000+rand.IntN(20000))); err == nil {
			t.Cleanup(sink.Close)
			return sink
		}
	}
	return sinkAt(t, "127.0.0.1:0")
}

func sinkAt(t testing.TB, addr string) *testmail.Sink {
	t.Helper()
	sink, err := testmail.StartSink(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sink.Close)
	return sink
}

// second starts another sink, at 127.0.0.2, as mail2.test.
func (w *world) second(t testing.TB) *testmail.Sink {
	t.Helper()
	w.set(t, "mail2.test", resolver.TypeA, "127.0.0.2")
	return sinkAt(t, fmt.Sprintf("127.0.0.2:%d", w.Port))
}

// share gives the client the Destinations of a whole process, with the limits of
// the default configuration.
func (w *world) share(t testing.TB, pauses smtpclient.Pauses) *smtpclient.Destinations {
	t.Helper()
	d, err := smtpclient.NewDestinations(t.Context(), pauses, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	w.Destinations = d
	w.Limits = smtpclient.Limits{PerDestination: 20, PerMailbox: 2, PerMailboxPerSecond: 1}
	return d
}

func (w *world) set(t testing.TB, name string, kind resolver.Type, data ...string) {
	t.Helper()
	if err := w.zone.Set(name, kind, data...); err != nil {
		t.Fatal(err)
	}
}

const short = "Subject: hello\r\n\r\nhello\r\n"

// to returns a transaction of body for one target.
func to(target, body string) *smtpclient.Transaction {
	mailbox, err := address.Parse(target)
	if err != nil {
		panic(err)
	}
	from, err := address.ParseReversePath("SRS0=x=y=example.net=ada@onward.test")
	if err != nil {
		panic(err)
	}
	return &smtpclient.Transaction{
		ID: "01K", From: from, To: mailbox, Size: int64(len(body)),
		Open: func() io.Reader { return strings.NewReader(body) },
	}
}

// want checks an outcome: its result, how its reply begins, and the step.
func want(t testing.TB, out smtpclient.Outcome, result smtpclient.Result, reply, step string) {
	t.Helper()
	if out.Result != result || !strings.HasPrefix(out.Reply.String(), reply) || out.Step != step {
		t.Errorf("%v after %s: %v\nwant %v after %s: %s", out.Result, out.Step, out.Reply.Error(), result, step, reply)
	}
	class := map[smtpclient.Result]int{smtpclient.Delivered: 2, smtpclient.Refused: 5, smtpclient.Deferred: 4, smtpclient.Unknown: 4}
	if out.Reply.Code/100 != class[out.Result] {
		t.Errorf("%v with reply %v", out.Result, out.Reply)
	}
}

// clean waits until all sessions are over and checks that the sink has nothing
// to complain of.
func clean(t testing.TB, sink *testmail.Sink) {
	t.Helper()
	if err := sink.Settle(t.Context()); err != nil {
		t.Error(err)
	}
	if faults := sink.Faults(); len(faults) > 0 {
		t.Errorf("the sink complains: %q", faults)
	}
}

// scripted serves one connection after another with talk, on a socket of the
// test's own, for what a sink cannot do.
func scripted(t testing.TB, talk func(net.Conn)) (port int) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			talk(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	return listener.Addr().(*net.TCPAddr).Port
}

const mx = resolver.TypeMX

func addrPorts(a ...netip.AddrPort) []netip.AddrPort { return a }

func logTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
