package smtpclient

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"onward/internal/address"
	"onward/internal/reply"
	"onward/internal/store"
)

// A kept is a store of pauses.
type kept struct {
	mu   sync.Mutex
	rows map[string]store.Pause
	err  error
}

func (k *kept) SavePause(_ context.Context, p store.Pause) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rows[p.Key] = p
	return k.err
}

func (k *kept) Pauses(context.Context) ([]store.Pause, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []store.Pause
	for _, p := range k.rows {
		all = append(all, p)
	}
	return all, k.err
}

// A party is Destinations and the limits under which messages come to them.
type party struct {
	*Destinations
	Limits
	t *testing.T
}

func newParty(t *testing.T, pauses Pauses) *party {
	d, err := NewDestinations(t.Context(), pauses, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &party{d, Limits{PerDestination: 20, PerMailbox: 2, PerMailboxPerSecond: 1}, t}
}

// begin makes a turn of a message for a mailbox that is behind hosts.
func (p *party) begin(to string, hosts ...string) *turn {
	m, err := address.Parse(to)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.Destinations.begin(m, hosts, p.Limits)
}

// at returns a turn that is at the first of hosts with a free slot, or nil when
// there is none at once.
func (p *party) at(to string, hosts ...string) *turn {
	turn := p.begin(to, hosts...)
	if _, held := turn.next(ended, 0); held != nil {
		turn.end()
		return nil
	}
	return turn
}

// fill takes slots until there are none, and returns their turns.
func (p *party) fill(hosts ...string) []*turn {
	var turns []*turn
	for i := 0; ; i++ {
		turn := p.at(fmt.Sprintf("box%d@example.org", i), hosts...)
		if turn == nil {
			return turns
		}
		turns = append(turns, turn)
	}
}

// done ends turns that all came to the same.
func done(out Outcome, turns ...*turn) {
	for _, turn := range turns {
		turn.learn(out)
		turn.end()
	}
}

// ended is a context that is over: whoever waits with it does not.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

var (
	delivered = Outcome{Result: Delivered, Step: stepDot, Said: reply.New(250, "2.0.0", "ok")}
	away      = Outcome{Result: Deferred, Step: stepConnect}
	limited   = Outcome{Step: stepDot}.refused(reply.New(421, "4.7.28", "unusual rate from your IP address 192.0.2.1"))
	mailboxed = Outcome{Step: stepRCPT}.refused(reply.New(450, "4.2.1", "too quickly"))
)

// TestSlots: five at first, one more with each success, up to the limit, and
// five again after trouble (RELIABILITY.md 5, 76); fewer when the destination
// says that these are too many; each host for itself (75).
func TestSlots(t *testing.T) {
	p := newParty(t, nil)
	room := func(host string, want int) {
		t.Helper()
		turns := p.fill(host)
		if len(turns) != want {
			t.Errorf("%d slots at %s, want %d", len(turns), host, want)
		}
		done(Outcome{}, turns...)
	}
	hold := p.begin("x@example.org", "a.test", "b.test") // so that what was learned stays
	room("a.test", 5)
	done(delivered, p.at("x@example.org", "a.test"))
	room("a.test", 6)
	room("b.test", 5)
	done(delivered, p.fill("a.test")...)
	room("a.test", 12)
	for range 20 {
		done(delivered, p.at("x@example.org", "a.test"))
	}
	room("a.test", 20)
	busy := p.fill("a.test")
	room("b.test", 5)
	done(Outcome{}, busy[3:]...)
	room("a.test", 17)
	busy[0].learn(Outcome{Result: Deferred, Step: stepGreeting, Said: reply.New(421, "4.0.0", "too many")})
	busy[0].end()
	room("a.test", 0) // the two that remain are what it bears
	done(Outcome{}, busy[1:3]...)
	room("a.test", 2)
	done(away, p.at("x@example.org", "a.test"))
	room("a.test", 2)
	for range 20 {
		done(delivered, p.at("x@example.org", "a.test"))
	}
	done(away, p.at("x@example.org", "a.test"))
	room("a.test", 5)
	p.PerDestination = 3
	room("a.test", 3)
	p.PerDestination = 0
	var many []*turn
	for range 100 {
		many = append(many, p.at("x@example.org", "a.test"))
	}
	done(Outcome{}, many...)
	hold.end()
	if len(p.operators) != 0 || len(p.mailboxes) != 0 {
		t.Errorf("%d operators and %d mailboxes are still known", len(p.operators), len(p.mailboxes))
	}
}

// TestOtherHosts: a host that is full, or paused, is passed by.
func TestOtherHosts(t *testing.T) {
	p := newParty(t, nil)
	full := p.fill("a.test")
	turn := p.at("x@example.org", "a.test", "b.test")
	if turn == nil || turn.at.name != "b.test" {
		t.Fatalf("%+v", turn)
	}
	if _, held := turn.next(ended, 0); held == nil || !held.until.IsZero() {
		t.Errorf("a.test is full: %+v", held)
	}
	done(Outcome{}, full...)
	if host, held := turn.next(ended, 0); held != nil || host != "a.test" || len(turn.left) != 0 {
		t.Errorf("then %q, %+v", host, held)
	}
	done(limited, turn)
	if turn := p.begin("x@example.org", "c.test", "C.test", "c.test"); len(turn.left) != 1 {
		t.Errorf("c.test is %d hosts", len(turn.left))
	} else {
		turn.end()
	}
	if turn = p.at("x@example.org", "a.test", "b.test"); turn == nil || turn.at.name != "b.test" {
		t.Errorf("a.test is paused: %+v", turn)
	}
	turn.end()
}

// TestWaiting: who waits longest is first, and nobody waits beyond the end of
// its context, nor for a host that will not take it.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, nil)
		p.PerDestination = 1
		first := p.at("x@example.org", "a.test")
		var order []int
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				turn := p.begin("x@example.org", "a.test")
				defer turn.end()
				if _, held := turn.next(t.Context(), 0); held != nil {
					t.Errorf("%d: %+v", i, held)
				}
				order = append(order, i) // the slot is the lock
				time.Sleep(time.Second)
			})
			synctest.Wait()
		}
		began := time.Now()
		impatient := p.begin("x@example.org", "a.test")
		if _, held := impatient.next(t.Context(), 3*time.Second); held == nil || held.outcome().Limited || held.outcome().Tried || time.Since(began) != 3*time.Second {
			t.Errorf("after %v: %+v", time.Since(began), held)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, held := impatient.next(ctx, 3*time.Second); held == nil || time.Since(began) != 4*time.Second {
			t.Errorf("after %v: %+v", time.Since(began), held)
		}
		impatient.end()
		first.end()
		wg.Wait()
		if !slices.IsSorted(order) || len(order) != 5 {
			t.Errorf("order %v", order)
		}
		// Who goes on to the next host makes room at the last.
		first = p.at("x@example.org", "a.test", "b.test")
		waiter := p.begin("x@example.org", "a.test")
		wg.Go(func() {
			if _, held := waiter.next(t.Context(), time.Minute); held != nil {
				t.Errorf("%+v", held)
			}
		})
		synctest.Wait()
		first.next(t.Context(), 0)
		wg.Wait()
		waiter.end()
		first.end()
		// A pause sends those away who wait.
		first = p.at("x@example.org", "a.test")
		for range 5 {
			wg.Go(func() {
				turn := p.begin("x@example.org", "a.test")
				defer turn.end()
				if _, held := turn.next(t.Context(), 0); held == nil || held.until.IsZero() {
					t.Errorf("went on: %+v", held)
				}
			})
		}
		synctest.Wait()
		done(limited, first)
		wg.Wait()
		if len(p.operators["a.test"].waiting) != 0 {
			t.Error("somebody still waits")
		}
	})
}

// TestBreaker: 15 minutes, doubling to 4 hours, for all hosts of an operator and
// nobody else; then one connection, and one more with each success (G9).
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &kept{rows: map[string]store.Pause{}}
		p := newParty(t, store)
		p.PerMailbox, p.PerMailboxPerSecond = 0, 0
		const a, b, other = "gmail-smtp-in.l.google.com", "alt1.gmail-smtp-in.l.google.com", "mx.example.com"
		flight := p.fill(a)
		for i, length := range []time.Duration{15, 30, 60, 120, 240, 240, 240} {
			length *= time.Minute
			out := flight[0].learn(limited)
			if d := time.Until(out.NotBefore); !out.Limited || d != length {
				t.Fatalf("limit %d: %v until %v", i, out.Limited, d)
			}
			flight[0].end()
			time.Sleep(time.Minute)
			for n, late := range flight[1:] { // those on their way hear the same, or are still served
				if n == 0 {
					done(delivered, late)
					continue
				}
				if d := time.Until(late.learn(limited).NotBefore); d != length-time.Minute {
					t.Errorf("limit %d, heard again: %v", i, d)
				}
				late.end()
			}
			time.Sleep(length - time.Minute - time.Nanosecond)
			for _, host := range []string{a, b} {
				if p.at("x@example.org", host) != nil {
					t.Fatalf("limit %d: sent to %s in the pause", i, host)
				}
			}
			if turn := p.at("x@example.org", other); turn == nil {
				t.Error("another operator is paused too")
			} else {
				turn.end()
			}
			time.Sleep(time.Nanosecond)
			flight = p.fill(b, a)
			if len(flight) != 1 {
				t.Fatalf("limit %d: %d connections after the pause", i, len(flight))
			}
			if i == 3 {
				p = newParty(t, store) // a restart
				p.PerMailbox, p.PerMailboxPerSecond = 0, 0
				if flight = p.fill(a); len(flight) != 1 {
					t.Fatalf("%d connections after a restart", len(flight))
				}
			}
		}
		for want := 1; want < 20; want++ {
			if len(flight) != min(want, 5+5) {
				t.Fatalf("%d connections at %d", len(flight), want)
			}
			done(Outcome{}, flight[1:]...)
			done(delivered, flight[0])
			flight = p.fill(a, b) // these have 5 and more each
			if want >= 9 {
				break
			}
		}
		done(Outcome{}, flight...)
		time.Sleep(pauseMemory)
		last := p.at("x@example.org", a)
		if d := time.Until(last.learn(limited).NotBefore); d != shortestPause {
			t.Errorf("long after: %v", d)
		}
		last.end()
		time.Sleep(shortestPause + pauseMemory)
		if flight = p.fill(a, b); len(flight) != 10 {
			t.Errorf("%d connections after a pause nobody remembers", len(flight))
		}
		done(Outcome{}, flight...)
		if row := store.rows["destination:google.com"]; row.Step != 1 || row.Reason != limited.Said.String() {
			t.Errorf("kept: %+v", row)
		}
	})
}

// TestPace: a mailbox that has limited us, or one at a destination that has, is
// sent two messages at the same time and one a second, for some hours; no other
// is (DESIGN.md 9.12).
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, nil)
		free := func(to string) {
			t.Helper()
			var turns []*turn
			for range 5 {
				turns = append(turns, p.at(to, "a.test"))
			}
			if slices.Contains(turns, nil) {
				t.Errorf("%s is bounded", to)
				return
			}
			done(Outcome{}, turns...)
		}
		bounded := func(to string) {
			t.Helper()
			began := time.Now()
			var turns []*turn
			for i := range 2 {
				turn := p.begin(to, "a.test")
				if _, held := turn.next(t.Context(), 0); held != nil || time.Since(began) != time.Duration(i)*time.Second {
					t.Errorf("%s: message %d after %v: %+v", to, i, time.Since(began), held)
				}
				turns = append(turns, turn)
			}
			third := p.begin(to, "a.test")
			time.AfterFunc(5*time.Second, func() { turns[0].end() })
			if _, held := third.next(t.Context(), 0); held != nil || time.Since(began) != 6*time.Second {
				t.Errorf("%s: the third after %v: %+v", to, time.Since(began), held)
			}
			done(Outcome{}, turns[1], third)
			time.Sleep(time.Second)
		}
		free("joe@example.org")
		joe := p.at("joe@example.org", "a.test")
		if out := joe.learn(mailboxed); time.Until(out.NotBefore) != shortestPause {
			t.Errorf("not before %v", out.NotBefore)
		}
		joe.end()
		if turn := p.begin("Joe@example.org", "a.test"); true {
			_, held := turn.next(t.Context(), 0)
			if held == nil || !held.outcome().Limited || held.reply.Status != "4.2.1" || held.until.IsZero() {
				t.Errorf("paused: %+v", held)
			}
			turn.end()
		}
		free("ann@example.org")
		time.Sleep(shortestPause)
		bounded("joe@example.org")
		free("ann@example.org")
		began := time.Now()
		for range 4 { // one after another
			turn := p.begin("joe@example.org", "a.test")
			turn.next(t.Context(), 0)
			done(delivered, turn)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("four messages in %v", took)
		}
		// A message that has left its host counts until its end.
		one, two := p.begin("joe@example.org", "a.test"), p.begin("joe@example.org", "a.test")
		one.next(t.Context(), 0)
		two.next(t.Context(), 0)
		p.mu.Lock()
		one.leave(time.Now())
		p.mu.Unlock()
		third := p.begin("joe@example.org", "a.test")
		time.AfterFunc(time.Minute, one.end)
		began = time.Now()
		if _, held := third.next(t.Context(), 0); held != nil || time.Since(began) != time.Minute {
			t.Errorf("the third after %v: %+v", time.Since(began), held)
		}
		done(Outcome{}, two, third)
		time.Sleep(pauseMemory)
		free("joe@example.org")

		// Nobody waits for the pace of a mailbox, or for its messages under way, when
		// nothing may be sent.
		one, two = p.at("ann@example.org", "a.test"), p.at("ann@example.org", "a.test")
		done(limited, p.at("x@example.org", "a.test"))
		began = time.Now()
		if turn := p.begin("ann@example.org", "a.test"); true {
			if _, held := turn.next(t.Context(), 0); held == nil || held.reply.Status != "4.7.0" || time.Since(began) > 0 {
				t.Errorf("after %v: %+v", time.Since(began), held)
			}
			turn.end()
		}
		done(Outcome{}, one, two)
		time.Sleep(shortestPause)
		for range 20 { // to the end of the ramp
			turn := p.begin("x@example.org", "a.test")
			turn.next(t.Context(), 0)
			done(delivered, turn)
		}
		bounded("ann@example.org")
		began = time.Now()
		for range 4 { // one after another
			turn := p.begin("ann@example.org", "a.test")
			turn.next(t.Context(), 0)
			done(delivered, turn)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("four messages in %v", took)
		}
		time.Sleep(pauseMemory)
		free("ann@example.org")
		if n := len(p.mailboxes); n > 2 {
			t.Errorf("%d mailboxes are still known", n)
		}
	})
}

// TestKeptPauses: what a store may hold at the start.
func TestKeptPauses(t *testing.T) {
	now := time.Now()
	rows := map[string]store.Pause{}
	for _, row := range []store.Pause{
		{Key: "destination:open.test", Until: now.Add(time.Hour), Step: 3, Reason: "421 4.7.28 yours"},
		{Key: "destination:wrong-clock.test", Until: now.Add(1000 * time.Hour), Step: 1},
		{Key: "destination:late.test", Until: now.Add(-time.Hour), Step: 2},
		{Key: "destination:forgotten.test", Until: now.Add(-5 * time.Hour), Step: 2},
		{Key: "notice", Until: now.Add(time.Hour)},
	} {
		rows[row.Key] = row
	}
	pauses := &kept{rows: rows}
	p := newParty(t, pauses)
	var got []string
	for _, s := range p.Snapshot() {
		got = append(got, fmt.Sprintf("%s %.0f %d %s", s.Operator, time.Until(s.Until).Hours(), s.Step, s.Reason))
	}
	if want := []string{"late.test -1 2 ", "open.test 1 3 421 4.7.28 yours", "wrong-clock.test 4 1 "}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if n := len(p.operators); n != 3 {
		t.Errorf("%d operators are known", n)
	}
	if p.at("x@example.org", "mx.open.test") != nil || len(p.fill("mx.late.test")) != 1 {
		t.Error("kept pauses do not count")
	}
	pauses.err = context.DeadlineExceeded // a store in trouble is no reason to send on
	done(limited, p.at("x@example.org", "mx.new.test"))
	if p.at("x@example.org", "mx.new.test") != nil {
		t.Error("sent on")
	}
	if _, err := NewDestinations(t.Context(), pauses, nil); err == nil {
		t.Error("began without knowing the pauses")
	}
}

// TestSnapshot is what the status page shows.
func TestSnapshot(t *testing.T) {
	p := newParty(t, nil)
	turns := []*turn{p.at("x@example.org", "mx1.b.test"), p.at("x@example.org", "mx2.b.test"), p.at("x@example.org", "a.test")}
	p.PerDestination = 1
	done(limited, p.at("x@example.org", "c.test"))
	var got []string
	for _, s := range p.Snapshot() {
		got = append(got, fmt.Sprint(s.Operator, " ", s.Host, " ", s.InUse, s.Idle, s.Waiting, s.Slots, s.Step))
	}
	if want := []string{"a.test a.test 1 0 0 5 0", "b.test mx1.b.test 1 0 0 5 0", "b.test mx2.b.test 1 0 0 5 0", "c.test  0 0 0 0 1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	done(Outcome{}, turns...)
}

// TestManyMailboxes: strangers decide how many mailboxes there are.
func TestManyMailboxes(t *testing.T) {
	p := newParty(t, nil)
	for i := range 2 * maxMailboxes {
		done(mailboxed, p.at(fmt.Sprintf("box%d@example.org", i), "a.test"))
	}
	if n := len(p.mailboxes); n > maxMailboxes+1 {
		t.Errorf("%d mailboxes are known", n)
	}
}

func TestOperatorOf(t *testing.T) {
	for host, want := range map[string]string{
		"alt4.gmail-smtp-in.l.google.com": "google.com", "example-org.mail.protection.outlook.com": "outlook.com",
		"mx.example.co.uk": "example.co.uk", "localhost": "localhost", "com": "com", "[192.0.2.1]": "[192.0.2.1]", "[IPv6:2001:db8::1]": "[IPv6:2001:db8::1]",
	} {
		if got := Operator(host); got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
}

// TestSpokenWhileTaken: a peer that speaks just when its connection is taken for
// the next message is heard before that is sent.
func TestSpokenWhileTaken(t *testing.T) {
	p := newParty(t, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	tcp, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	peer, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	turn := p.at("x@example.org", "a.test")
	turn.keep(&conn{tcp: tcp, stream: tcp, r: bufio.NewReader(tcp), commit: func() {}})
	reused := make(chan *conn)
	p.mu.Lock() // who asks for it first has it first
	go func() { reused <- turn.reuse(connKey{}) }()
	time.Sleep(20 * time.Millisecond)
	peer.Write([]byte("421 bye\r\n"))
	time.Sleep(20 * time.Millisecond)
	p.mu.Unlock()
	if c := <-reused; c != nil {
		t.Error("taken all the same")
	}
	turn.end()
	p.Close()
}
