package smtpclient_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"onward/internal/smtpclient"
	"onward/internal/testmail"
)

// hung is when a test that makes its peer hang gives up waiting.
const hung = 250 * time.Millisecond

// An expectation is a result and the reply it comes with.
type expectation struct {
	result smtpclient.Result
	reply  string
}

// TestEveryAnswer gives every kind of answer at every step of the conversation.
func TestEveryAnswer(t *testing.T) {
	deferred := func(reply string) expectation { return expectation{smtpclient.Deferred, reply} }
	refused := func(reply string) expectation { return expectation{smtpclient.Refused, reply} }
	delivered := func(reply string) expectation { return expectation{smtpclient.Delivered, reply} }
	unknown := expectation{smtpclient.Unknown, "451 4.4.2"}
	same := func(e expectation) [3]expectation { return [3]expectation{e, e, e} }
	say := func(reply string) testmail.Action { return testmail.Action{Reply: reply} }
	const us = "the destination refuses our server: "
	broken, nonsense := deferred("451 4.4.2"), deferred("451 4.5.0")
	lost := [3]expectation{broken, broken, unknown}
	garbled := [3]expectation{nonsense, nonsense, unknown}

	for _, tt := range []struct {
		name   string
		action testmail.Action
		want   [3]expectation // at greeting and EHLO; MAIL, RCPT and DATA; the final dot
	}{
		{"4xx", say("450 4.2.1 try later"), [3]expectation{deferred("451 4.2.1 " + us + "try later"), deferred("450 4.2.1 try later"), deferred("450 4.2.1 try later")}},
		{"421", say("421 4.3.2 closing"), [3]expectation{deferred("451 4.3.2 " + us + "closing"), deferred("451 4.3.2 closing"), deferred("451 4.3.2 closing")}},
		{"5xx", say("550 5.1.1 no such user"), [3]expectation{deferred("451 4.1.1 " + us), refused("550 5.1.1 no such user"), refused("550 5.1.1 no such user")}},
		{"5xx without status", say("550 no such user"), [3]expectation{deferred("451 4.0.0 " + us), refused("550 5.0.0 no such user"), refused("550 5.0.0 no such user")}},
		{"5xx and nothing", say("550"), [3]expectation{deferred("451 4.0.0 " + us), refused("550 5.0.0 "), refused("550 5.0.0 ")}},
		{"5xx in lines", say("550-5.7.1 Blocked by\r\n550-5.7.1 policy. See\r\n550 5.7.1 there. x1-y"),
			[3]expectation{deferred("451 4.7.1 " + us), refused("550 5.7.1 Blocked by policy. See there. x1-y"), refused("550 5.7.1 Blocked by policy. See there. x1-y")}},
		{"5xx about the message", say("550 5.7.26 unauthenticated"), [3]expectation{deferred("451 4.7.26 " + us), refused("550 5.7.26"), refused("550 5.7.26")}},
		{"5xx PTR", say("550 5.7.25 no PTR"), same(deferred("451 4.7.25 " + us))},
		{"4xx SPF", say("421 4.7.23 SPF"), same(deferred("451 4.7.23 " + us))},
		{"5xx SPF", say("550 5.7.24 SPF"), same(deferred("451 4.7.24 " + us))},
		{"5xx blocklist", say("554 5.7.1 Client host blocked using zen.spamhaus.org"), same(deferred("451 4.7.1 " + us))},
		{"5xx wants TLS", say("530 5.7.0 Must issue a STARTTLS command first"), same(deferred("451 4.7.0 " + us))},
		{"2xx", say("252 2.5.2 perhaps"), [3]expectation{{}, {}, delivered("252 2.5.2 perhaps")}},
		{"3xx", say("334 go on"), garbled},
		{"6xx", say("650 what"), garbled},
		{"1xx", say("150 wait"), garbled},
		{"99", say("99 bottles"), garbled},
		{"text", say("hello"), garbled},
		{"empty line", say("\r\n"), garbled},
		{"no space", say("250ok"), garbled},
		{"codes differ", say("550-5.1.1 no\r\n250 2.0.0 yes"), garbled},
		{"bare LF", testmail.Action{Reply: "550 5.1.1 no\n", Raw: true}, [3]expectation{deferred("451 4.1.1"), refused("550 5.1.1 no"), refused("550 5.1.1 no")}},
		{"octets to be cleaned", say("550 5.1.1 \x1b[31m\xff\x00 a\rb\tc"), [3]expectation{deferred("451 4.1.1"), refused("550 5.1.1 ?[31m?? a b c"), refused("550 5.1.1 ?[31m?? a b c")}},
		{"drop", testmail.Action{Drop: true}, lost},
		{"reset", testmail.Action{Reset: true}, [3]expectation{{}, broken, unknown}},
		{"hang", testmail.Action{Hang: true}, lost},
		{"drop in a line", testmail.Action{Reply: "250 o", Raw: true, Drop: true}, lost},
		{"drop between lines", testmail.Action{Reply: "250-o\r\n", Raw: true, Drop: true}, lost},
		{"hang in a line", testmail.Action{Reply: "250-o\r\n25", Raw: true, Hang: true}, lost},
	} {
		for _, step := range []string{"CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."} {
			for _, offer := range [][]string{{"PIPELINING"}, {}} {
				t.Run(fmt.Sprint(tt.name, " ", step, offer), func(t *testing.T) {
					w := newWorld(t)
					w.sink.Offer(offer...)
					if tt.action.Hang {
						w.Timeouts.Hello, w.Timeouts.Command, w.Timeouts.Reply, w.Timeouts.Answer = hung, hung, hung, hung
					}
					w.sink.Do(step, tt.action)
					e, name := tt.want[1], step
					switch step {
					case "CONNECT":
						e, name = tt.want[0], "greeting"
					case "EHLO":
						e = tt.want[0]
						w.sink.Do("HELO", tt.action)
					case ".":
						e, name = tt.want[2], "dot"
					}
					if e.result == 0 {
						t.Skip("good, or the kernel is first to say it")
					}
					out := w.Deliver(t.Context(), to("joe@example.org", short))
					want(t, out, e.result, e.reply, name)
					if out.AboutUs != strings.Contains(out.Reply.Text, "refuses our server") {
						t.Errorf("AboutUs %v with %v", out.AboutUs, out.Reply)
					}
					if delivered := out.Result == smtpclient.Delivered; out.Result != smtpclient.Unknown && delivered != (w.sink.Count() == 1) {
						t.Errorf("%v, and the sink has %d", out.Result, w.sink.Count())
					}
					if sent := slices.Contains(w.sink.Commands(), "."); sent != (step == ".") {
						t.Errorf("final dot sent: %v", sent)
					}
					clean(t, w.sink)
				})
			}
		}
	}
}

// TestHELO: a server that does not know EHLO gets HELO, and no parameters.
func TestHELO(t *testing.T) {
	w := newWorld(t)
	w.sink.Answer("EHLO", "502 5.5.1 what?")
	want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Delivered, "250", "dot")
	if d := w.sink.Messages()[0]; d.Helo != "HELO mx.onward.test" || strings.Contains(d.Mail, "SIZE") {
		t.Errorf("%q %q", d.Helo, d.Mail)
	}
	clean(t, w.sink)
}

// TestTLSFails: broken TLS means clear text (T1, RELIABILITY 84), a lie in the
// middle of STARTTLS means nothing at all (RELIABILITY 7).
func TestTLSFails(t *testing.T) {
	for _, tt := range []struct {
		name     string
		action   testmail.Action
		sessions int // 0: not delivered
	}{
		{"handshake cut", testmail.Action{Reply: "220 go", Drop: true}, 2},
		{"handshake hangs", testmail.Action{Reply: "220 go", Hang: true}, 2},
		{"refused for now", testmail.Action{Reply: "454 4.7.0 TLS not available"}, 1},
		{"refused", testmail.Action{Reply: "502 5.5.1 what?"}, 1},
		{"octets before TLS", testmail.Action{Reply: "220 go\r\n250-sink.test\r\n250 SIZE"}, 0},
		{"closing", testmail.Action{Reply: "421 4.3.2 bye", Drop: true}, 0},
		{"gone", testmail.Action{Drop: true}, 0},
		{"nonsense", testmail.Action{Reply: "hello"}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			if tt.action.Hang {
				w.Timeouts.Hello, w.Timeouts.Command = hung, hung
			}
			w.sink.Do("STARTTLS", tt.action)
			out := w.Deliver(t.Context(), to("joe@example.org", short))
			clean(t, w.sink)
			if tt.sessions == 0 {
				if out.Result != smtpclient.Deferred || out.Step != "STARTTLS" || w.sink.Sessions() != 1 {
					t.Errorf("%v after %s in %d sessions: %v", out.Result, out.Step, w.sink.Sessions(), out.Reply)
				}
				if last := w.sink.Commands(); strings.HasPrefix(last[len(last)-1], "MAIL") {
					t.Errorf("went on with %q", last)
				}
				return
			}
			want(t, out, smtpclient.Delivered, "250", "dot")
			if out.TLS != "" || out.TLSFailure == nil {
				t.Errorf("TLS %q, failure %v", out.TLS, out.TLSFailure)
			}
			if w.sink.Sessions() != tt.sessions {
				t.Errorf("%d sessions, want %d", w.sink.Sessions(), tt.sessions)
			}
		})
	}
}

// TestOldTLS: nothing below TLS 1.2, not even instead of clear text.
func TestOldTLS(t *testing.T) {
	web := httptest.NewTLSServer(nil) // has a certificate to lend
	defer web.Close()
	seen := make(chan string, 10)
	w := newWorld(t)
	w.Port = scripted(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		io.WriteString(conn, "220 old\r\n")
		r.ReadString('\n')
		io.WriteString(conn, "250-old\r\n250 STARTTLS\r\n")
		line, _ := r.ReadString('\n')
		if line != "STARTTLS\r\n" {
			seen <- "clear"
			return
		}
		io.WriteString(conn, "220 go\r\n")
		old := &tls.Config{Certificates: web.TLS.Certificates, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
		seen <- fmt.Sprint("TLS: ", tls.Server(conn, old).Handshake() == nil)
	})
	want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Deferred, "451 4.4.2", "MAIL")
	if first, second := <-seen, <-seen; first != "TLS: false" || second != "clear" {
		t.Errorf("connections %q, %q", first, second)
	}
}

// TestPipelinedMixes: with MAIL, RCPT and DATA in one write, the first refusal
// decides and no message follows, whatever DATA is answered (RFC 2920 3.1).
func TestPipelinedMixes(t *testing.T) {
	for _, tt := range []struct {
		replies string
		expectation
		step string
	}{
		{"550 5.7.1 no\r\n503 5.5.1 no MAIL\r\n503 5.5.1 no RCPT\r\n", expectation{smtpclient.Refused, "550 5.7.1 no"}, "MAIL"},
		{"451 4.7.1 no\r\n250 ok\r\n354 go\r\n", expectation{smtpclient.Deferred, "451 4.7.1 no"}, "MAIL"},
		{"250 ok\r\n550 5.1.1 no\r\n354 go\r\n", expectation{smtpclient.Refused, "550 5.1.1 no"}, "RCPT"},
		{"250 ok\r\n550 5.1.1 no\r\n503 5.5.1 no RCPT\r\n", expectation{smtpclient.Refused, "550 5.1.1 no"}, "RCPT"},
		{"250 ok\r\n450 4.2.1 no\r\n554 5.5.1 no RCPT\r\n", expectation{smtpclient.Deferred, "450 4.2.1 no"}, "RCPT"},
		{"250 ok\r\n250 ok\r\n554 5.7.1 no\r\n", expectation{smtpclient.Refused, "554 5.7.1 no"}, "DATA"},
		{"250 ok\r\n250 ok\r\n250 ok\r\n", expectation{smtpclient.Deferred, "451 4.5.0"}, "DATA"},
		{"250 ok\r\n550 5.1.1 no\r\n", expectation{smtpclient.Refused, "550 5.1.1 no"}, "RCPT"},
		{"354 go\r\n", expectation{smtpclient.Deferred, "451 4.5.0"}, "MAIL"},
		// The 250 to a message it has not seen must not count as its answer.
		{"250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n", expectation{smtpclient.Deferred, "451 4.5.0"}, "body"},
	} {
		t.Run(strings.ReplaceAll(tt.replies, "\r\n", ","), func(t *testing.T) {
			after := make(chan string, 1)
			w := newWorld(t)
			w.Port = scripted(t, func(conn net.Conn) {
				r := bufio.NewReader(conn)
				io.WriteString(conn, "220 x\r\n")
				r.ReadString('\n')
				io.WriteString(conn, "250-x\r\n250 PIPELINING\r\n")
				for range 3 {
					r.ReadString('\n')
				}
				io.WriteString(conn, tt.replies)
				rest, _ := io.ReadAll(r)
				after <- string(rest)
			})
			out := w.Deliver(t.Context(), to("joe@example.org", short))
			want(t, out, tt.result, tt.reply, tt.step)
			if got := <-after; got != "" && got != "QUIT\r\n" {
				t.Errorf("then sent %q", got)
			}
		})
	}
}

// TestMessageCutShort: whatever stops a message half way, the peer never gets
// an end of it (DEPENDENCIES.md A2).
func TestMessageCutShort(t *testing.T) {
	long := strings.Repeat(strings.Repeat("x", 78)+"\r\n", 10000)
	half := long[:len(long)/2]
	trouble := errors.New("disk on fire")
	for _, tt := range []struct {
		name string
		open func(cancel context.CancelFunc) io.Reader
		err  string
	}{
		{"read error", func(context.CancelFunc) io.Reader {
			return io.MultiReader(strings.NewReader(half), iotest.ErrReader(trouble))
		}, "disk on fire"},
		{"file cut short", func(context.CancelFunc) io.Reader { return strings.NewReader(half) }, "octets"},
		{"file that grew", func(context.CancelFunc) io.Reader { return strings.NewReader(long + half) }, "message has"},
		{"no end of line", func(context.CancelFunc) io.Reader { return strings.NewReader(long[:len(long)-2] + "xx") }, "CRLF"},
		{"bare LF", func(context.CancelFunc) io.Reader { return strings.NewReader(long[:len(long)-5] + "xx\n\r\n") }, "CRLF"},
		{"bare CR", func(context.CancelFunc) io.Reader { return strings.NewReader(long[:len(long)-5] + "x\rx\r\n") }, "CRLF"},
		{"cancelled half way", func(cancel context.CancelFunc) io.Reader {
			return io.MultiReader(strings.NewReader(half), atRead(cancel), strings.NewReader(half))
		}, "context canceled"},
		{"cancelled before the dot", func(cancel context.CancelFunc) io.Reader {
			return io.MultiReader(strings.NewReader(long), atRead(cancel))
		}, "context canceled"},
	} {
		for _, offer := range []string{"PIPELINING", "STARTTLS"} {
			t.Run(tt.name+" "+offer, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				w := newWorld(t)
				w.sink.Offer(offer)
				transaction := to("joe@example.org", long)
				transaction.Open = func() io.Reader { return tt.open(cancel) }
				out := w.Deliver(ctx, transaction)
				if out.Result != smtpclient.Deferred || out.Step != "body" || out.Reply.Err == nil || !strings.Contains(out.Reply.Err.Error(), tt.err) {
					t.Errorf("%v after %s: %v", out.Result, out.Step, out.Reply.Error())
				}
				clean(t, w.sink)
				if commands := w.sink.Commands(); w.sink.Count() != 0 || commands[len(commands)-1] != "DATA" {
					t.Errorf("%d delivered, after %q", w.sink.Count(), commands)
				}
				cuts := w.sink.Cuts()
				if len(cuts) != 1 || !errors.Is(cuts[0].Err, syscall.ECONNRESET) || strings.Contains(string(cuts[0].Data), "QUIT") {
					t.Errorf("%d cuts, or not by a reset", len(cuts))
				}
			})
		}
	}
}

// atRead is an empty reader that calls f.
type atRead func()

func (f atRead) Read([]byte) (int, error) { f(); return 0, io.EOF }

// TestAfterTheDot: the end of ctx no longer matters (RELIABILITY 2.2).
func TestAfterTheDot(t *testing.T) {
	w := newWorld(t)
	w.sink.Do(".", testmail.Action{Reply: "250 2.0.0 at last", Delay: hung})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		w.sink.Wait(t.Context(), 1) // the sink has the dot, and thinks
		cancel()
	})
	want(t, w.Deliver(ctx, to("joe@example.org", short)), smtpclient.Delivered, "250 2.0.0 at last", "dot")
	wg.Wait()
	w.Timeouts.Answer = hung
	w.sink.Do(".", testmail.Action{Hang: true})
	want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Unknown, "451 4.4.2", "dot")
}

// TestBudget: before the dot, the end of ctx ends the attempt at once, wherever
// it is.
func TestBudget(t *testing.T) {
	for _, step := range []string{"CONNECT", "EHLO", "STARTTLS", "MAIL", "RCPT", "DATA"} {
		for _, how := range []string{"deadline", "cancel"} {
			t.Run(step+" "+how, func(t *testing.T) {
				w := newWorld(t)
				second := w.second(t)
				w.set(t, "example.org", mx, "1 mail.test.", "2 mail2.test.")
				w.sink.Do(step, testmail.Action{Hang: true})
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				if how == "cancel" {
					ctx, cancel = context.WithCancel(t.Context())
					time.AfterFunc(50*time.Millisecond, cancel)
				}
				defer cancel()
				began := time.Now()
				out := w.Deliver(ctx, to("joe@example.org", short))
				if out.Result != smtpclient.Deferred || time.Since(began) > patient/2 || second.Sessions() > 0 {
					t.Errorf("%v in %v: %v; second host seen: %v", out.Result, time.Since(began), out.Reply.Error(), second.Sessions() > 0)
				}
			})
		}
	}
}

// TestSlowReader: a peer that stops reading holds us for as long as Timeouts.Block
// or ctx say, and no longer (DEPENDENCIES.md A5).
func TestSlowReader(t *testing.T) {
	long := to("joe@example.org", strings.Repeat("xxxxxxxxxxxxxx\r\n", 2<<20))
	for _, how := range []string{"block", "ctx"} {
		t.Run(how, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			release := make(chan struct{})
			w := newWorld(t)
			w.Port = scripted(t, func(conn net.Conn) {
				conn.(*net.TCPConn).SetReadBuffer(4096)
				r := bufio.NewReader(conn)
				io.WriteString(conn, "220 x\r\n")
				for _, reply := range []string{"250 x", "250 ok", "250 ok", "354 go"} {
					r.ReadString('\n')
					io.WriteString(conn, reply+"\r\n")
				}
				if r.ReadByte(); how == "ctx" { // the message has begun
					cancel()
				}
				<-release
			})
			defer close(release)
			if how == "block" {
				w.Timeouts.Block = hung
			}
			began := time.Now()
			out := w.Deliver(ctx, long)
			want(t, out, smtpclient.Deferred, "451 4.4.2", "body")
			if took := time.Since(began); took > patient/2 {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestEarlyAnswer: a peer that refuses in the middle of a message and hangs up
// is heard.
func TestEarlyAnswer(t *testing.T) {
	w := newWorld(t)
	w.Port = scripted(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		io.WriteString(conn, "220 x\r\n")
		for _, reply := range []string{"250 x", "250 ok", "250 ok", "354 go"} {
			r.ReadString('\n')
			io.WriteString(conn, reply+"\r\n")
		}
		io.WriteString(conn, "552 5.3.4 too much\r\n")
	})
	out := w.Deliver(t.Context(), to("joe@example.org", strings.Repeat("xxxxxxxxxxxxxx\r\n", 2<<20)))
	want(t, out, smtpclient.Refused, "552 5.3.4 too much", "body")
}

// TestHostileReplies: bounded in octets, lines and time (RELIABILITY 64,
// DEPENDENCIES.md A6).
func TestHostileReplies(t *testing.T) {
	endless := func(line string, pause time.Duration) func(net.Conn) {
		return func(conn net.Conn) {
			for {
				if _, err := io.WriteString(conn, line); err != nil {
					return
				}
				time.Sleep(pause)
			}
		}
	}
	for _, tt := range []struct {
		name  string
		talk  func(net.Conn)
		reply string
	}{
		{"endless lines", endless("220-x\r\n", 0), "451 4.5.0"},
		{"endless large lines", endless("220-"+strings.Repeat("x", 1000)+"\r\n", 0), "451 4.5.0"},
		{"endless line", endless("220 xxxxxxxx", 0), "451 4.5.0"},
		{"drip", endless("2", 20*time.Millisecond), "451 4.4.2"},
		{"drip of lines", endless("220-x\r\n", 20*time.Millisecond), "451 4.4.2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.Timeouts.Reply = 200 * time.Millisecond
			w.Port = scripted(t, tt.talk)
			began := time.Now()
			want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Deferred, tt.reply, "greeting")
			if took := time.Since(began); took > patient/2 {
				t.Errorf("took %v", took)
			}
		})
	}
}
