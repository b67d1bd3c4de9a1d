package smtpclient_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"onward/internal/resolver"
	"onward/internal/smtpclient"
	"onward/internal/testmail"
)

// deliver sends a message that must be taken.
func (w *world) deliver(t testing.TB, target string) {
	t.Helper()
	want(t, w.Deliver(t.Context(), to(target, short)), smtpclient.Delivered, "250", "dot")
}

// settled ends the idle connections and checks that the sink has seen so many
// sessions, and nothing to complain of.
func (w *world) settled(t testing.TB, sessions int) {
	t.Helper()
	w.Destinations.Close()
	clean(t, w.sink)
	if n := w.sink.Sessions(); n != sessions {
		t.Errorf("%d sessions, want %d; heard %q", n, sessions, w.sink.Commands())
	}
}

// idle returns how many connections are kept.
func (w *world) idle() (n int) {
	for _, s := range w.Destinations.Snapshot() {
		n += s.Idle
	}
	return n
}

// TestReuse: messages to one host go over one connection, by plain MAIL.
func TestReuse(t *testing.T) {
	for _, offer := range [][]string{{"PIPELINING", "STARTTLS"}, {"PIPELINING"}, {"STARTTLS"}, {}} {
		t.Run(fmt.Sprint(offer), func(t *testing.T) {
			w := newWorld(t)
			w.share(t, nil)
			w.sink.Offer(offer...)
			w.set(t, "example.net", mx, "10 MAIL.test.")
			other := *w.Client // another Client of the process
			for i := range 6 {
				ctx, cancel := context.WithCancel(t.Context())
				client := []*smtpclient.Client{w.Client, &other}[i%2]
				target := []string{"joe@example.org", "ann@example.net"}[i/2%2]
				out := client.Deliver(ctx, to(target, fmt.Sprintf("Subject: %d\r\n\r\n.\r\n", i)))
				cancel() // nothing of one message concerns the next
				want(t, out, smtpclient.Delivered, "250", "dot")
				if secure := slices.Contains(offer, "STARTTLS"); (out.TLS != "") != secure || !strings.EqualFold(out.Host, "mail.test") || out.Addr != w.sink.Addr() {
					t.Errorf("outcome %+v", out)
				}
			}
			if n := w.idle(); n != 1 {
				t.Errorf("%d connections kept", n)
			}
			w.settled(t, 1)
			commands := w.sink.Commands()
			if slices.Contains(commands, "RSET") || commands[len(commands)-1] != "QUIT" {
				t.Errorf("said %q", commands)
			}
			for i, d := range w.sink.Messages() {
				if string(d.Data) != fmt.Sprintf("Subject: %d\r\n\r\n.\r\n", i) {
					t.Errorf("message %d is %q", i, d.Data)
				}
			}
		})
	}
}

// TestReuseAfterRefusal: a transaction that was refused is brought to its end,
// and the connection goes on with RSET; 421 and half a message end it.
func TestReuseAfterRefusal(t *testing.T) {
	for _, step := range []string{"MAIL", "RCPT", "DATA", "."} {
		for _, reply := range []string{"450 4.2.0 no", "550 5.1.1 no", "421 4.3.2 no"} {
			for _, offer := range [][]string{{"PIPELINING"}, {}} {
				t.Run(fmt.Sprint(step, " ", reply[:3], offer), func(t *testing.T) {
					w := newWorld(t)
					w.share(t, nil)
					w.sink.Offer(offer...)
					w.sink.Do(step, testmail.Action{Reply: reply, Times: 1})
					ctx, cancel := context.WithCancel(t.Context())
					if out := w.Deliver(ctx, to("joe@example.org", short)); out.Result == smtpclient.Delivered {
						t.Error("delivered")
					}
					cancel()
					time.Sleep(5 * time.Millisecond) // nothing of one message concerns the next
					w.deliver(t, "joe@example.org")
					w.deliver(t, "joe@example.org")
					sessions := 1
					if strings.HasPrefix(reply, "421") {
						sessions = 2
					}
					w.settled(t, sessions)
					resets := 0
					for _, line := range w.sink.Commands() {
						if line == "RSET" {
							resets++
						}
					}
					if resets != 2-sessions {
						t.Errorf("%d times RSET in %q", resets, w.sink.Commands())
					}
				})
			}
		}
	}
	for name, open := range map[string]io.Reader{
		"read error": io.MultiReader(strings.NewReader(short[:5]), iotest.ErrReader(errors.New("disk on fire"))),
		"too short":  strings.NewReader(short[:9]),
		"bare LF":    strings.NewReader(strings.Replace(short, "lo\r\n", "l\n\r\n", 1)),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.share(t, nil)
			w.deliver(t, "joe@example.org")
			cut := to("joe@example.org", short)
			cut.Open = func() io.Reader { return open }
			want(t, w.Deliver(t.Context(), cut), smtpclient.Deferred, "451", "body")
			w.deliver(t, "joe@example.org")
			w.settled(t, 2)
			if n := w.sink.Count(); n != 2 || len(w.sink.Cuts()) != 1 {
				t.Errorf("%d delivered, %d cut", n, len(w.sink.Cuts()))
			}
		})
	}
}

// TestDataAfterRefusal: with DATA answered 354 although RCPT was refused, the
// only way out is a reset: even QUIT would be a message.
func TestDataAfterRefusal(t *testing.T) {
	for _, replies := range []string{
		"250 ok\r\n550 5.1.1 no\r\n354 go\r\n", "550 5.1.1 no\r\n503 no\r\n354 go\r\n", "250 ok\r\n550 5.1.1 no\r\n250 what\r\n",
		"250 ok\r\nhello\r\n503 no\r\n503 no\r\n",
		"250 ok\r\n550 5.1.1 no\r\n421 bye\r\n", "250 ok\r\n550 5.1.1 no\r\nhello\r\n", "250 ok\r\n550 5.1.1 no\r\n503 no\r\n421 bye\r\n",
	} {
		t.Run(strings.ReplaceAll(replies, "\r\n", ","), func(t *testing.T) {
			after := make(chan string, 1)
			w := newWorld(t)
			w.share(t, nil)
			w.Port = scripted(t, func(conn net.Conn) {
				r := bufio.NewReader(conn)
				io.WriteString(conn, "220 x\r\n")
				r.ReadString('\n')
				io.WriteString(conn, "250-x\r\n250 PIPELINING\r\n")
				for range 3 {
					r.ReadString('\n')
				}
				io.WriteString(conn, replies)
				rest, err := io.ReadAll(r)
				after <- fmt.Sprintf("%s%v", rest, err != nil)
			})
			out := w.Deliver(t.Context(), to("joe@example.org", short))
			if out.Result == smtpclient.Delivered || w.idle() != 0 {
				t.Errorf("%v, %d kept", out.Result, w.idle())
			}
			if got := <-after; !strings.HasSuffix(replies, "503 no\r\n421 bye\r\n") && got != "true" {
				t.Errorf("then %q, want a reset", got)
			}
		})
	}
}

// TestEarlyAnswerIsNotReused: whatever is answered inside a message, what comes
// next on that connection is the message (DEPENDENCIES.md A2).
func TestEarlyAnswerIsNotReused(t *testing.T) {
	rest := make(chan error, 1)
	w := newWorld(t)
	w.share(t, nil)
	w.Timeouts.Block = hung
	w.Port = scripted(t, func(conn net.Conn) {
		conn.(*net.TCPConn).SetReadBuffer(4096)
		r := bufio.NewReader(conn)
		io.WriteString(conn, "220 x\r\n")
		for _, reply := range []string{"250 x", "250 ok", "250 ok", "354 go"} {
			r.ReadString('\n')
			io.WriteString(conn, reply+"\r\n")
		}
		r.ReadByte()
		io.WriteString(conn, "552 5.3.4 too much\r\n500 what\r\n500 what\r\n")
		time.Sleep(2 * hung)
		_, err := io.Copy(io.Discard, r)
		rest <- err
	})
	out := w.Deliver(t.Context(), to("joe@example.org", strings.Repeat("xxxxxxxxxxxxxx\r\n", 2<<20)))
	want(t, out, smtpclient.Refused, "552 5.3.4 too much", "body")
	if n := w.idle(); n != 0 {
		t.Errorf("%d kept", n)
	}
	if err := <-rest; err == nil {
		t.Error("not reset")
	}
}

// TestReusedIsDead: a connection that ends, or has had enough, before MAIL is
// accepted on it is no failed attempt (STANDARDS.md 3.2, Yahoo).
func TestReusedIsDead(t *testing.T) {
	for _, tt := range []struct {
		name       string
		first, now testmail.Action // at the first final dot, at the second MAIL
		sessions   int
		reply      string
	}{
		{"closed at once", testmail.Action{Reply: "250 2.0.0 taken", Drop: true}, testmail.Action{}, 2, "250"},
		{"reset at once", testmail.Action{Reply: "250 2.0.0 taken", Reset: true}, testmail.Action{}, 2, "250"},
		{"closed at MAIL", testmail.Action{}, testmail.Action{Drop: true}, 2, "250"},
		{"reset at MAIL", testmail.Action{}, testmail.Action{Reset: true}, 2, "250"},
		{"hangs at MAIL", testmail.Action{}, testmail.Action{Hang: true}, 2, "250"},
		{"421", testmail.Action{}, testmail.Action{Reply: "421 4.7.0 Connection expired, try reconnecting", Drop: true}, 2, "250"},
		{"452", testmail.Action{}, testmail.Action{Reply: "452 4.5.3 too many messages"}, 2, "250"},
		{"503", testmail.Action{}, testmail.Action{Reply: "503 5.5.1 nested MAIL"}, 2, "250"},
		{"nonsense", testmail.Action{}, testmail.Action{Reply: "hello"}, 2, "250"},
		// What is as good on it as on a new one.
		{"rate limit", testmail.Action{}, testmail.Action{Reply: "421 4.7.28 unusual rate"}, 1, "451 4.7.28"},
	} {
		for _, offer := range [][]string{{"PIPELINING", "STARTTLS"}, {}} {
			t.Run(fmt.Sprint(tt.name, offer), func(t *testing.T) {
				var log strings.Builder
				w := newWorld(t)
				w.share(t, nil)
				w.sink.Offer(offer...)
				w.Log = logTo(&log)
				tt.first.Times, tt.now.Times = 1, 1
				w.sink.Do(".", tt.first)
				w.deliver(t, "joe@example.org")
				if tt.now != (testmail.Action{Times: 1}) {
					w.sink.Do("MAIL", tt.now)
				}
				if tt.now.Hang {
					w.Timeouts.Hello = hung
				}
				began := time.Now()
				out := w.Deliver(t.Context(), to("joe@example.org", short))
				if took := time.Since(began); !strings.HasPrefix(out.Reply.String(), tt.reply) || took > patient/2 {
					t.Errorf("%v after %s and %v", out.Reply, out.Step, took)
				}
				if n := strings.Count(log.String(), "\n"); n != 2 {
					t.Errorf("%d attempts in the log", n)
				}
				w.settled(t, tt.sessions)
			})
		}
	}
	t.Run("refused on both", func(t *testing.T) {
		w := newWorld(t)
		w.share(t, nil)
		w.deliver(t, "joe@example.org")
		w.sink.Answer("MAIL", "550 5.7.1 bad sender")
		want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Refused, "550 5.7.1", "MAIL")
		w.settled(t, 2)
	})
	t.Run("dies later", func(t *testing.T) { // that is an attempt
		w := newWorld(t)
		w.share(t, nil)
		w.deliver(t, "joe@example.org")
		w.sink.Do("RCPT", testmail.Action{Drop: true, Times: 1})
		want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Deferred, "451 4.4.2", "RCPT")
		w.settled(t, 1)
	})
	t.Run("cancelled", func(t *testing.T) {
		w := newWorld(t)
		w.share(t, nil)
		w.deliver(t, "joe@example.org")
		w.sink.Do("RCPT", testmail.Action{Hang: true})
		ctx, cancel := context.WithCancel(t.Context())
		defer time.AfterFunc(50*time.Millisecond, cancel).Stop()
		began := time.Now()
		want(t, w.Deliver(ctx, to("joe@example.org", short)), smtpclient.Deferred, "451 4.4.2", "RCPT")
		if took := time.Since(began); took > patient/2 {
			t.Errorf("took %v", took)
		}
	})
	t.Run("out of time", func(t *testing.T) {
		w := newWorld(t)
		w.share(t, nil)
		w.deliver(t, "joe@example.org")
		w.sink.Do("MAIL", testmail.Action{Hang: true})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		want(t, w.Deliver(ctx, to("joe@example.org", short)), smtpclient.Deferred, "451 4.4.2", "MAIL")
		w.settled(t, 1)
	})
}

// TestUnsolicited: what a peer says while nobody asks is not an answer to what
// comes next; the connection is given up.
func TestUnsolicited(t *testing.T) {
	for name, pause := range map[string]time.Duration{"with the answer": 0, "later": 20 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan string, 2) // what we said after the message
			w := newWorld(t)
			w.share(t, nil)
			w.Port = scripted(t, func(conn net.Conn) {
				r := bufio.NewReader(conn)
				io.WriteString(conn, "220 x\r\n")
				for _, reply := range []string{"250 x", "250 ok", "250 ok", "354 go"} {
					r.ReadString('\n')
					io.WriteString(conn, reply+"\r\n")
				}
				for line := ""; line != ".\r\n"; {
					line, _ = r.ReadString('\n')
				}
				answer, bye := "250 taken\r\n", "250 and the next one too\r\n"
				if pause == 0 {
					answer, bye = answer+bye, ""
				}
				io.WriteString(conn, answer)
				time.Sleep(pause)
				io.WriteString(conn, bye)
				rest, _ := io.ReadAll(r)
				seen <- string(rest)
			})
			for range 2 {
				w.deliver(t, "joe@example.org")
				if after := <-seen; after != "" && after != "QUIT\r\n" {
					t.Errorf("then said %q", after)
				}
				if n := w.idle(); n != 0 {
					t.Errorf("%d kept", n)
				}
			}
		})
	}
}

// TestIdleLimits: a connection is kept for so long, for so many messages, and
// not beside too many others.
func TestIdleLimits(t *testing.T) {
	t.Run("time", func(t *testing.T) {
		w := newWorld(t)
		w.share(t, nil).SetIdleTime(50 * time.Millisecond)
		w.deliver(t, "joe@example.org")
		clean(t, w.sink) // it leaves by itself
		if commands := w.sink.Commands(); w.idle() != 0 || commands[len(commands)-1] != "QUIT" || len(w.Destinations.Snapshot()) != 0 {
			t.Errorf("%d kept, after %q", w.idle(), commands)
		}
		w.deliver(t, "joe@example.org")
		w.settled(t, 2)
	})
	t.Run("messages", func(t *testing.T) {
		w := newWorld(t)
		w.share(t, nil)
		w.sink.Offer("PIPELINING")
		for range 201 {
			w.deliver(t, "joe@example.org")
		}
		w.settled(t, 3)
	})
	for limits, sessions := range map[string]int{"LIMITS RCPTMAX=10 MAILMAX=2": 3, "limits mailmax=1": 5, "LIMITS MAILMAX=0": 5, "LIMITS MAILMAX=x": 1, "LIMITS": 1} {
		t.Run(limits, func(t *testing.T) { // RFC 9422
			w := newWorld(t)
			w.share(t, nil)
			w.sink.Offer("PIPELINING", limits)
			for range 5 {
				w.deliver(t, "joe@example.org")
			}
			w.settled(t, sessions)
		})
	}
	t.Run("number", func(t *testing.T) {
		w := newWorld(t)
		w.share(t, nil)
		w.Limits.PerDestination = 0
		w.sink.Do(".", testmail.Action{Delay: 100 * time.Millisecond})
		var wg sync.WaitGroup
		for i := range 25 {
			wg.Go(func() { w.deliver(t, fmt.Sprintf("box%d@example.org", i)) })
		}
		wg.Wait()
		if n := w.idle(); n != 10 {
			t.Errorf("%d kept", n)
		}
		w.settled(t, 25)
	})
}

// TestStrangers: a connection serves only those who would have opened the same.
func TestStrangers(t *testing.T) {
	w := newWorld(t)
	w.share(t, nil)
	named, bound := *w.Client, *w.Client
	named.Hostname = "other.onward.test"
	bound.Source = netip.MustParseAddr("127.0.0.1")
	for range 2 {
		for _, client := range []*smtpclient.Client{w.Client, &named, &bound} {
			want(t, client.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Delivered, "250", "dot")
		}
	}
	if n := w.idle(); n != 3 {
		t.Errorf("%d kept", n)
	}
	for _, d := range w.sink.Messages() {
		if other := d.Session == 2; other != (d.Helo == "EHLO other.onward.test") {
			t.Errorf("%q in session %d", d.Helo, d.Session)
		}
	}
	// Those that are kept count too: with one slot there is one connection.
	w.Limits.PerDestination, named.Limits.PerDestination = 1, 1
	w.deliver(t, "joe@example.org") // its own
	want(t, named.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Delivered, "250", "dot")
	named.Hostname = "third.onward.test"
	want(t, named.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Delivered, "250", "dot")
	if n := w.idle(); n != 1 {
		t.Errorf("%d kept with one slot", n)
	}
	w.settled(t, 4)
}

// TestClearIsNotKept: where TLS has failed, the next message may have more luck.
func TestClearIsNotKept(t *testing.T) {
	for _, action := range []testmail.Action{{Reply: "454 4.7.0 not now", Times: 1}, {Reply: "220 go", Drop: true, Times: 1}} {
		w := newWorld(t)
		w.share(t, nil)
		w.sink.Do("STARTTLS", action)
		if out := w.Deliver(t.Context(), to("joe@example.org", short)); out.TLSFailure == nil || out.Result != smtpclient.Delivered {
			t.Errorf("%v, %v", out.Result, out.TLSFailure)
		}
		if out := w.Deliver(t.Context(), to("joe@example.org", short)); out.TLS == "" {
			t.Error("in clear again")
		}
	}
}

// TestPauseSendsNothing: once a destination has had enough nothing reaches it,
// not even QUIT later than at once, and other destinations get theirs.
func TestPauseSendsNothing(t *testing.T) {
	var log strings.Builder
	w := newWorld(t)
	d, err := smtpclient.NewDestinations(t.Context(), nil, logTo(&log))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	w.Destinations = d
	second := w.second(t)
	w.set(t, "example.net", mx, "10 mail2.test.")
	w.set(t, "alt.mail.test", resolver.TypeA, "127.0.0.2") // the same operator
	w.set(t, "example.com", mx, "10 alt.mail.test.")
	w.sink.Do(".", testmail.Action{Delay: 50 * time.Millisecond})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { w.deliver(t, "joe@example.org") })
	}
	wg.Wait()
	w.sink.Do("RCPT TO:<slow@", testmail.Action{Delay: 100 * time.Millisecond})
	wg.Go(func() { w.deliver(t, "slow@example.org") }) // and those under way are not kept either
	for slow := "RCPT TO:<slow@example.org>"; !slices.Contains(w.sink.Commands(), slow); time.Sleep(time.Millisecond) {
	}
	w.sink.Do("RCPT TO:<joe@", testmail.Action{Reply: "421-4.7.28 unusual rate of unsolicited mail\r\n421 4.7.28 originating from your SPF domain [onward.test 35]"})
	out := w.Deliver(t.Context(), to("joe@example.org", short))
	want(t, out, smtpclient.Deferred, "451 4.7.28 unusual rate", "RCPT")
	wg.Wait()
	if n := w.idle(); n != 0 { // the other connections too are over
		t.Errorf("%d kept", n)
	}
	clean(t, w.sink)
	heard := len(w.sink.Commands())
	for _, target := range []string{"joe@example.org", "ann@example.com"} {
		out := w.Deliver(t.Context(), to(target, short))
		want(t, out, smtpclient.Deferred, "451 4.7.0 the destination wants no more messages from us for now", "wait")
		if out.Tried || !out.Limited || time.Until(out.NotBefore) < 14*time.Minute || out.AboutUs {
			t.Errorf("outcome %+v", out)
		}
	}
	w.deliver(t, "joe@example.net")
	if w.sink.Sessions() != 3 || len(w.sink.Commands()) != heard || second.Sessions() != 1 {
		t.Errorf("%d sessions, %d at the other", w.sink.Sessions(), second.Sessions())
	}
	states := w.Destinations.Snapshot()
	if i := slices.IndexFunc(states, func(s smtpclient.DestinationState) bool { return s.Operator == "mail.test" }); i < 0 ||
		!strings.Contains(states[i].Reason, "your SPF domain [onward.test 35]") || states[i].Step != 1 || !states[i].Until.Equal(out.NotBefore) {
		t.Errorf("snapshot %+v", states)
	}
	if !strings.Contains(log.String(), "level=WARN msg=\"destination paused\" dest=mail.test") {
		t.Errorf("logged %q", log.String())
	}
}

// TestHangingDestination: messages for it hold its slots and wait for them, as
// long as they may; messages for others do not notice (RELIABILITY 75).
func TestHangingDestination(t *testing.T) {
	w := newWorld(t)
	w.share(t, nil)
	second := w.second(t)
	w.set(t, "example.net", mx, "10 mail2.test.")
	w.sink.Do("MAIL", testmail.Action{Hang: true})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	tried := map[bool]int{}
	for i := range 12 {
		wg.Go(func() {
			out := w.Deliver(ctx, to(fmt.Sprintf("box%d@example.org", i), short))
			mu.Lock()
			defer mu.Unlock()
			tried[out.Tried]++
			if out.Result != smtpclient.Deferred || out.Limited || !out.Tried && !strings.HasPrefix(out.Reply.String(), "451 4.4.5 too many messages") {
				t.Errorf("outcome %+v", out)
			}
		})
	}
	for deadline := time.Now().Add(patient); ; time.Sleep(time.Millisecond) {
		states := w.Destinations.Snapshot()
		if len(states) == 1 && states[0].Waiting == 7 && states[0].InUse == 5 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("states %+v", states)
		}
	}
	queue := *w.Client
	queue.SlotWait = 50 * time.Millisecond
	began := time.Now()
	out := queue.Deliver(t.Context(), to("joe@example.org", short))
	if took := time.Since(began); out.Tried || took < 50*time.Millisecond || took > patient/2 {
		t.Errorf("%+v after %v", out, took)
	}
	for range 20 {
		w.deliver(t, "joe@example.net")
	}
	cancel()
	wg.Wait()
	if tried[true] != 5 || tried[false] != 7 || w.sink.Sessions() != 5 || second.Count() != 20 {
		t.Errorf("tried %v, %d sessions, %d to the other", tried, w.sink.Sessions(), second.Count())
	}
}

// TestManyAtOnce: whatever happens to connections, every message that was said
// to be delivered is there once, whole.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	w.share(t, nil)
	w.sink.Offer("PIPELINING", "STARTTLS", "LIMITS MAILMAX=7")
	for i := range 30 {
		w.sink.Do(fmt.Sprintf("RCPT TO:<box%d@", 7*i), testmail.Action{Reply: "550 5.1.1 no"})
		w.sink.Do(fmt.Sprintf("RCPT TO:<box%d@", 11*i), testmail.Action{Drop: true, Times: 1})
		w.sink.Do("MAIL", testmail.Action{Drop: true, Times: 1})
	}
	var wg sync.WaitGroup
	results := make([]smtpclient.Result, 300)
	for i := range results {
		wg.Go(func() {
			body := strings.Repeat(fmt.Sprintf("line of %d\r\n", i), i)
			results[i] = w.Deliver(t.Context(), to(fmt.Sprintf("box%d@example.org", i), body)).Result
		})
	}
	wg.Wait()
	w.Destinations.Close()
	clean(t, w.sink)
	got := map[string]int{}
	for _, d := range w.sink.Messages() {
		got[d.Rcpt[0]+" "+string(d.Data)]++
	}
	delivered := 0
	for i, result := range results {
		key := fmt.Sprintf("RCPT TO:<box%d@example.org> %s", i, strings.Repeat(fmt.Sprintf("line of %d\r\n", i), i))
		if n := got[key]; (result == smtpclient.Delivered) != (n == 1) {
			t.Errorf("message %d: %v, and %d are there", i, result, n)
		}
		if result == smtpclient.Delivered {
			delivered++
		}
	}
	if delivered < 200 || len(got) != delivered {
		t.Errorf("%d delivered, %d there", delivered, len(got))
	}
}

// TestClosed: after Close messages still go out, and nothing is kept.
func TestClosed(t *testing.T) {
	w := newWorld(t)
	d := w.share(t, nil)
	w.deliver(t, "joe@example.org")
	d.Close()
	w.deliver(t, "joe@example.org")
	if n := w.idle(); n != 0 {
		t.Errorf("%d kept", n)
	}
	w.settled(t, 2)
}
