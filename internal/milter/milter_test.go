package milter

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"onward/internal/address"
	"onward/internal/filter"
	"onward/internal/testpeer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const letter = "From: ada@sender.example\r\nSubject:  hello\r\n\tworld\r\nEmpty:\r\n\r\n.\x00 \xff\r\n"

// client makes a Client of a milter, whose log is the returned buffer.
func client(milter string) (*Client, *bytes.Buffer) {
	log := &bytes.Buffer{}
	return New(milter, "mx.example.org", slog.New(slog.NewTextHandler(log, nil))), log
}

// serve starts a milter that does with each connection what handle says, and
// returns where it is.
func serve(t testing.TB, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l, handle)
}

func serveOn(t testing.TB, l net.Listener, handle func(net.Conn)) string {
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String()
}

// packet is one of a milter.
func packet(code byte, text string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(1+len(text)))) + string(code) + text
}

// agreed answers the negotiation.
func agreed(version, wishes uint32) string {
	b := binary.BigEndian.AppendUint32(nil, version)
	return packet('O', string(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, 0), wishes)))
}

// listen reads a packet.
func listen(conn net.Conn) (code byte, text string, err error) {
	var head [5]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return 0, "", err
	}
	b := make([]byte, binary.BigEndian.Uint32(head[:])-1)
	_, err = io.ReadFull(conn, b)
	return head[4], string(b), err
}

// A fake milter answers each command with what answers has for it, or "go on", and
// notes what it heard.
type fake struct {
	answers map[byte]string
	wishes  uint32

	mu    sync.Mutex
	heard []string
}

func (f *fake) handle(conn net.Conn) {
	for {
		code, text, err := listen(conn)
		if err != nil {
			return
		}
		f.mu.Lock()
		f.heard = append(f.heard, fmt.Sprintf("%c %q", code, text))
		f.mu.Unlock()
		answer, ok := f.answers[code]
		switch {
		case ok:
		case code == negotiate:
			answer = agreed(6, f.wishes)
		case code != macros && f.wishes&wishes[code].unasked == 0:
			answer = packet(goOn, "")
		}
		io.WriteString(conn, answer)
	}
}

func TestOpinions(t *testing.T) {
	a, c, r, d, tf := packet(accept, ""), packet(goOn, ""), packet(reject, ""), packet(discard, ""), packet(tempFail, "")
	says := func(text string) string { return packet(replyCode, text+"\x00") }
	q := packet(quarantine, "looks odd\x00")
	const refused, later = "550 5.7.1 a filter refuses this message", "451 4.7.1 not now, please try again later"
	for _, tt := range []struct {
		name    string
		answers map[byte]string
		junk    bool
		reply   string
		last    string // what it hears last before "quit"
	}{
		{"nothing", nil, false, "", "E"},
		{"accepted", map[byte]string{endBody: a}, false, "", "E"},
		{"accepted at once", map[byte]string{connect: a}, false, "", "C"},
		{"accepted in the header", map[byte]string{field: a}, false, "", "L"},
		{"accepted in the body", map[byte]string{body: a}, false, "", "B"},
		{"rejected", map[byte]string{endBody: r}, false, refused, "E"},
		{"rejected at once", map[byte]string{connect: r}, false, refused, "C"},
		{"greeting", map[byte]string{helo: r}, false, refused, "H"},
		{"sender", map[byte]string{mail: r}, false, refused, "M"},
		{"recipient", map[byte]string{rcpt: r}, false, refused, "R"},
		{"at DATA", map[byte]string{data: r}, false, refused, "T"},
		{"end of the header", map[byte]string{endHeader: tf}, false, later, "N"},
		{"in the body", map[byte]string{body: tf}, false, later, "B"},
		{"discarded", map[byte]string{endBody: d}, false, refused, "E"},
		{"quarantined", map[byte]string{endBody: q + a}, true, "", "E"},
		{"quarantined, goes on", map[byte]string{endBody: q + c}, true, "", "E"},
		{"quarantined and rejected", map[byte]string{endBody: q + r}, false, refused, "E"},
		{"changes", map[byte]string{endBody: packet('h', "X\x00y\x00") + packet('b', strings.Repeat("x", 100_000)) + packet('m', "\x00\x00\x00\x01X\x00\x00") +
			packet('+', "<a@b>\x00") + packet('-', "<a@b>\x00") + packet('i', "\x00\x00\x00\x00X\x00y\x00") + packet('e', "<>\x00") + packet('2', "<a@b>\x00") + c}, false, "", "E"},
		{"progress", map[byte]string{endBody: packet(progress, "") + packet(progress, "") + r, helo: packet(progress, "") + c}, false, refused, "E"},
		{"enough of the body", map[byte]string{body: packet(skip, "")}, false, "", "E"},
		{"own words", map[byte]string{endBody: says("554 5.7.1 virus Eicar found")}, false, "550 5.7.1 virus Eicar found", "E"},
		{"own words, later", map[byte]string{rcpt: says("421 4.3.2 100%% busy")}, false, "451 4.7.1 100% busy", "R"},
		{"no status", map[byte]string{endBody: says("550 no")}, false, "550 5.7.1 no", "E"},
		{"no words", map[byte]string{endBody: says("550")}, false, "550 5.7.1 a filter refuses this message", "E"},
		{"several lines", map[byte]string{endBody: says("550-5.7.1 one\r\n550-5.7.1 two\r\n550 5.7.1 three\r\n")}, false, "550 5.7.1 one two three", "E"},
		{"hostile words", map[byte]string{endBody: says("550 5.7.1 no\r\r\n250 ok\n\x1b[1m\xff")}, false, "550 5.7.1 no ok ?[1m?", "E"},
		{"long words", map[byte]string{endBody: says("550 5.7.1 " + strings.Repeat("x", 100_000))}, false, "550 5.7.1 " + strings.Repeat("x", 400), "E"},
		{"no end", map[byte]string{endBody: packet(replyCode, "450 4.7.1 wait")}, false, "451 4.7.1 wait", "E"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fake{answers: tt.answers}
			at := serve(t, f.handle)
			c, log := client(at)
			got := c.Check(t.Context(), testpeer.Envelope(), "", testpeer.Message(t, letter))
			said := ""
			if got.Reply != nil {
				said = got.Reply.String()
			}
			if (said != "" || got.Junk) != (got.Why == "milter "+at) {
				t.Errorf("our log hears of %q", got.Why)
			}
			if got.Junk != tt.junk || said != tt.reply || log.Len() > 0 {
				t.Errorf("got %+v, %.500q, log %q; want %v, %.500q", got, said, log, tt.junk, tt.reply)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if n := len(f.heard); !strings.HasPrefix(f.heard[n-1], tt.last) && (!strings.HasPrefix(f.heard[n-1], "Q") || !strings.HasPrefix(f.heard[n-2], tt.last)) {
				t.Errorf("heard %q", f.heard)
			}
		})
	}
}

// TestRequest holds what a milter hears: all about the message, and the message as
// it came, less what it does not want.
func TestRequest(t *testing.T) {
	usual := []string{
		`O "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff"`,
		`D "Cj\x00mx.example.org\x00{daemon_name}\x00mx.example.org\x00v\x00onward\x00_\x00host.sender.example [192.0.2.1]\x00{client_name}\x00host.sender.example\x00{client_addr}\x00192.0.2.1\x00"`,
		`C "host.sender.example\x004\x00\x00192.0.2.1\x00"`,
		`H "mail.sender.example\x00"`,
		`D "Mi\x0001K0000000000000000000TEST\x00{mail_addr}\x00\"ada b\"@sender.example\x00"`,
		`M "<\"ada b\"@sender.example>\x00"`,
		`D "R{rcpt_addr}\x00me@example.org\x00"`,
		`R "<me@example.org>\x00"`,
		`D "R{rcpt_addr}\x00dürer@example.org\x00"`,
		`R "<dürer@example.org>\x00"`,
		`T ""`,
		`L "From\x00ada@sender.example\x00"`,
		`L "Subject\x00 hello\n\tworld\x00"`,
		`L "Empty\x00\x00"`,
		`N ""`,
		`B ".\x00 \xff\r\n"`,
		`E ""`,
		`Q ""`,
	}
	without := func(commands string) (rest []string) {
		for _, line := range usual {
			if !strings.ContainsRune(commands, rune(line[0])) && (line[0] != macros || !strings.ContainsRune(commands, rune(line[3]))) {
				rest = append(rest, line)
			}
		}
		return rest
	}
	exact := slices.Clone(usual)
	exact[11], exact[12] = `L "From\x00 ada@sender.example\x00"`, `L "Subject\x00  hello\n\tworld\x00"`
	for _, tt := range []struct {
		name   string
		wishes uint32
		want   []string
	}{
		{"all", 0, usual},
		{"asked for less", 0b10_0111_1111, []string{usual[0], usual[16], usual[17]}},
		{"asked for no body", 1 << 4, without("B")},
		{"asked for no DATA", 1 << 9, without("T")},
		{"asked for no envelope", 0b1100, without("MR")},
		{"asked for no answers", 0xff080, usual},
		{"asked for leading spaces", 1 << 20, exact},
		{"asked for what is not", 1<<31 | 1<<8 | 1<<10 | 1<<11 | 1<<17, usual},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fake{wishes: tt.wishes}
			done := make(chan struct{})
			c, log := client(serve(t, func(conn net.Conn) { f.handle(conn); close(done) }))
			if o := c.Check(t.Context(), testpeer.Envelope(), "host.sender.example", testpeer.Message(t, letter)); o != (filter.Opinion{}) || log.Len() > 0 {
				t.Errorf("got %+v, log %q", o, log)
			}
			<-done
			if !slices.Equal(f.heard, tt.want) {
				t.Errorf("heard\n%s\nwant\n%s", strings.Join(f.heard, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

// TestUnusual: a bounce from an unknown host over IPv6, more of everything than
// there may be, an old milter at a socket of this machine.
func TestUnusual(t *testing.T) {
	f := &fake{answers: map[byte]string{negotiate: agreed(2, 0)}}
	file := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", file)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	serveOn(t, l, func(conn net.Conn) { f.handle(conn); close(done) })
	c, log := client("unix:" + file)
	env := testpeer.Envelope()
	env.Client, env.From = netip.MustParseAddr("2001:db8::1"), address.ReversePath{}
	for range 200 {
		env.Recipients = append(env.Recipients, env.Recipients[0])
	}
	long := strings.Repeat("x", 100_000)
	msg := testpeer.Message(t, "Long: "+long+"\r\n"+strings.Repeat("N", 2000)+": x\r\nno field\r\nLast: x\r\n\r\n", long)
	if o := c.Check(t.Context(), env, "", msg); o != (filter.Opinion{}) || log.Len() > 0 {
		t.Errorf("got %+v, log %q", o, log)
	}
	<-done
	if slices.Contains(f.heard, `T ""`) {
		t.Error("an old milter hears a command that it does not know")
	}
	recipients, sizes := 0, map[byte][]int{}
	for _, line := range f.heard {
		if line[0] == rcpt {
			recipients++
		}
		sizes[line[0]] = append(sizes[line[0]], len(line)-len(`L ""`))
	}
	all := strings.Join(f.heard, "\n")
	for _, want := range []string{`C "unknown\x006\x00\x002001:db8::1\x00"`, `M "<>\x00"`, `{mail_addr}\x00\x00"`, `_\x00unknown [2001:db8::1]\x00`} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s", want)
		}
	}
	nul := len(`\x00`) - 1
	if recipients != maxRecipients || !slices.Equal(sizes[field], []int{maxSent + 2*nul, len("Last") + 1 + 2 + 2*nul}) || !slices.Equal(sizes[body], []int{maxSent, 100_000 - maxSent}) {
		t.Errorf("%d recipients, fields of %v, body of %v", recipients, sizes[field], sizes[body])
	}
}

// TestTrouble holds that no trouble of the milter refuses or delays mail, and that
// each is told.
func TestTrouble(t *testing.T) {
	at := func(code byte, answer string) func(net.Conn) {
		return (&fake{answers: map[byte]string{code: answer}}).handle
	}
	endless := func(text string) func(net.Conn) {
		return func(conn net.Conn) {
			io.WriteString(conn, agreed(6, 0))
			for {
				if _, err := io.WriteString(conn, text); err != nil {
					return
				}
			}
		}
	}
	for _, tt := range []struct {
		name string
		do   func(net.Conn)
		log  string
		more int // octets of the message
	}{
		{"hangs up", func(conn net.Conn) {}, "after|EOF|reset|broken pipe", 0},
		{"hangs up in the middle", func(conn net.Conn) { listen(conn); io.WriteString(conn, agreed(6, 0)); listen(conn) }, "EOF|reset|broken pipe", 16 << 20},
		{"half a packet", at(helo, packet(reject, "")[:3]), "deadline", 0},
		{"half a packet and gone", func(conn net.Conn) { listen(conn); io.WriteString(conn, agreed(6, 0)+"\x00\x00\x00\x09r") }, "EOF|reset|broken pipe", 0},
		{"silence", func(conn net.Conn) { io.Copy(io.Discard, conn) }, "deadline", 0},
		{"silence at the end", at(endBody, ""), "deadline", 0},
		{"does not listen", func(conn net.Conn) { io.WriteString(conn, agreed(6, 0xff080)); time.Sleep(1500 * time.Millisecond) }, "deadline", 16 << 20},
		{"garbage", func(conn net.Conn) { io.WriteString(conn, "220 mx.example.org ESMTP\r\n"); io.Copy(io.Discard, conn) }, "impossible length", 0},
		{"no negotiation", at(negotiate, packet(accept, "")), "does not speak", 0},
		{"half a negotiation", at(negotiate, packet(negotiate, "\x00\x00\x00\x06")), "does not speak", 0},
		{"version 1", at(negotiate, agreed(1, 0)), "does not speak", 0},
		{"no packet", at(connect, "\x00\x00\x00\x00r"), "impossible length", 0},
		{"4 GiB", at(connect, "\xff\xff\xff\xffr"), "impossible length", 0},
		{"over a MiB", at(endBody, packet('b', strings.Repeat("x", maxHeard+1))+packet(reject, "")), "impossible length", 0},
		{"no answer", at(mail, packet('z', "")), "answers 'z' to 'M'", 0},
		{"shutdown", at(connect, packet('4', "")), "answers '4' to 'C'", 0},
		{"connection failure", at(connect, packet('f', "")), "answers 'f' to 'C'", 0},
		{"skip in the header", at(field, packet(skip, "")), "answers 's' to 'L'", 0},
		{"negotiates again", at(endBody, agreed(6, 0)), "answers 'O' to 'E'", 0},
		{"refuses with success", at(endBody, packet(replyCode, "250 2.0.0 ok\x00")), "it refuses with", 0},
		{"refuses with nothing", at(endBody, packet(replyCode, "")), "it refuses with", 0},
		{"endless progress", endless(packet(progress, "")), "deadline", 0},
		{"endless changes", endless(packet('b', strings.Repeat("x", maxHeard-1))), "deadline", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, log := client(serve(t, tt.do))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if o := c.Check(ctx, testpeer.Envelope(), "", testpeer.Message(t, letter, strings.Repeat("x", tt.more))); o != (filter.Opinion{}) {
				t.Errorf("got %+v", o)
			}
			told := slices.ContainsFunc(strings.Split(tt.log, "|"), func(s string) bool { return strings.Contains(log.String(), s) })
			if !told || !strings.Contains(log.String(), "01K0000000000000000000TEST") {
				t.Errorf("log %q, want %q", log, tt.log)
			}
		})
	}
}

// TestAway holds that a milter which is not there costs no time, and is written
// about once.
func TestAway(t *testing.T) {
	c, log := client("unix:" + filepath.Join(t.TempDir(), "none"))
	for range 3 {
		if o := c.Check(t.Context(), testpeer.Envelope(), "", testpeer.Message(t, letter)); o != (filter.Opinion{}) {
			t.Errorf("got %+v", o)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "no such file") {
		t.Errorf("%d lines: %s", n, log)
	}
	c, log = client("unix:" + filepath.Join(t.TempDir(), "none"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.Check(ctx, testpeer.Envelope(), "", testpeer.Message(t, letter))
	if log.Len() > 0 {
		t.Errorf("our own stop is blamed on the milter: %s", log)
	}
}

// TestSlow holds our own patience, which no sign of life renews.
func TestSlow(t *testing.T) {
	t.Parallel()
	c, log := client(serve(t, func(conn net.Conn) {
		for answer := agreed(6, 0); ; answer = packet(progress, "") {
			if _, err := io.WriteString(conn, answer); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}))
	began := time.Now()
	o := c.Check(t.Context(), testpeer.Envelope(), "", testpeer.Message(t, letter))
	if took := time.Since(began); o != (filter.Opinion{}) || took < timeout || took > timeout+5*time.Second || log.Len() == 0 {
		t.Errorf("got %+v after %v, log %q", o, took, log)
	}
}

// TestAtOnce holds how many connections there are, and that the others wait.
func TestAtOnce(t *testing.T) {
	var now, most, all atomic.Int32
	f := &fake{answers: map[byte]string{}}
	c, log := client(serve(t, func(conn net.Conn) {
		all.Add(1)
		for n := now.Add(1); ; {
			if old := most.Load(); n <= old || most.CompareAndSwap(old, n) {
				break
			}
		}
		time.Sleep(20 * time.Millisecond)
		f.handle(conn)
		now.Add(-1)
	}))
	msg := testpeer.Message(t, letter)
	var checks sync.WaitGroup
	for range 3 * maxAtOnce {
		checks.Go(func() { c.Check(t.Context(), testpeer.Envelope(), "", msg) })
	}
	checks.Wait()
	// A connection that we have closed may count here a little longer.
	if n := most.Load(); n > 2*maxAtOnce || all.Load() != 3*maxAtOnce || log.Len() > 0 {
		t.Errorf("%d connections, %d of them at once, log %q", all.Load(), n, log)
	}
}

// TestMemory holds that neither a message of 50 MiB is held in memory, nor what a
// milter would make of it.
func TestMemory(t *testing.T) {
	changed := []byte(strings.Repeat(packet('b', strings.Repeat("x", maxHeard-1)), 50) + packet(goOn, ""))
	var size atomic.Int64
	c, log := client(serve(t, func(conn net.Conn) {
		r := bufio.NewReaderSize(conn, 1<<16)
		for {
			var head [5]byte
			if _, err := io.ReadFull(r, head[:]); err != nil {
				return
			}
			n, _ := r.Discard(int(binary.BigEndian.Uint32(head[:])) - 1)
			switch head[4] {
			case negotiate:
				io.WriteString(conn, agreed(6, 0xff080))
			case body:
				size.Add(int64(n))
			case endBody:
				conn.Write(changed)
			}
		}
	}))
	pieces := []string{"Subject: large\r\n\r\n"}
	block := strings.Repeat("0123456789abcd\r\n", 1<<16)
	for range 49 {
		pieces = append(pieces, block)
	}
	msg := testpeer.Message(t, pieces...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	o := c.Check(t.Context(), testpeer.Envelope(), "", msg)
	runtime.ReadMemStats(&after)
	if o != (filter.Opinion{}) || log.Len() > 0 || size.Load() != 49<<20 {
		t.Errorf("got %+v for %d octets, log %q", o, size.Load(), log)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("allocated %d octets", used)
	}
}

// FuzzMilter: whatever a milter says, it is bounded, and an opinion that is fit for
// the wire or an error.
func FuzzMilter(f *testing.F) {
	for _, s := range []string{
		agreed(6, 0), agreed(6, 0xff080) + packet(replyCode, "550 5.7.1 no\x00"), agreed(2, 0x7f) + packet(quarantine, "x\x00") + packet(accept, ""),
		agreed(6, 0) + packet(progress, "") + packet(goOn, "") + packet(reject, ""), packet(negotiate, ""), "\xff\xff\xff\xff", "",
		agreed(6, 0xff080) + packet(replyCode, "550-\r\n4\n\x1b%%\x00"),
	} {
		f.Add([]byte(s))
	}
	msg := testpeer.Message(f, letter)
	c, _ := client("127.0.0.1:1")
	f.Fuzz(func(t *testing.T, said []byte) {
		d := &dialogue{hostname: "mx.example.org", r: bufio.NewReader(bytes.NewReader(said)), w: bufio.NewWriter(io.Discard)}
		d.show(testpeer.Envelope(), "", msg)
		if d.err != nil || len(d.said) > maxKept {
			return
		}
		o, err := c.opinion(d)
		if err != nil || o.Reply == nil {
			return
		}
		line := o.Reply.String()
		if o.Junk || len(line) > 512-2 || !strings.HasPrefix(line, "550 5.7.1 ") && !strings.HasPrefix(line, "451 4.7.1 ") ||
			strings.ContainsFunc(o.Reply.Text, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Fatalf("%q: %q, %+v", said, line, o)
		}
	})
}

// rules make a real rspamd do what the subject says, and tell what it knows.
const rules = `
rspamd_config:register_symbol({name = 'ORDER', type = 'prefilter', callback = function(task)
  local subject = task:get_header('Subject') or ''
  local words = {}
  table.insert(words, tostring(task:get_from_ip()))
  table.insert(words, tostring(task:get_helo()))
  table.insert(words, tostring(task:get_hostname()))
  table.insert(words, tostring((task:get_from('smtp') or {{}})[1].addr))
  for _, r in ipairs(task:get_recipients('smtp') or {}) do table.insert(words, r.addr) end
  table.insert(words, tostring(task:get_queue_id()))
  table.insert(words, tostring(task:get_request_header('MTA-Name')))
  table.insert(words, tostring(task:get_size()))
  table.insert(words, tostring(task:get_header_raw('Folded')))
  task:set_pre_result(subject, table.concat(words, ' '), 'test')
end})
`

// TestRealRspamd meets a milter that is none of libmilter's.
func TestRealRspamd(t *testing.T) {
	testpeer.Need(t, "rspamd")
	c, log := client(testpeer.StartRspamdMilter(t, rules))
	body := "\r\nFolded: a\r\n\tb\r\n\r\n" + strings.Repeat("0123456789abcd\r\n", 1<<16)
	for _, tt := range []struct {
		action string
		code   int
	}{
		{"no action", 0}, {"greylist", 0}, {"add header", 0}, {"rewrite subject", 0}, {"soft reject", 451}, {"reject", 550},
	} {
		msg := testpeer.Message(t, "From: a@b.example\r\nSubject: ", tt.action, body)
		env := testpeer.Envelope() // rspamd 3.4 leaves out the recipient that is not ASCII
		o := c.Check(t.Context(), env, "host.sender.example", msg)
		code, said := 0, ""
		if o.Reply != nil {
			code, said = o.Reply.Code, o.Reply.Text
		}
		want := fmt.Sprintf("192.0.2.1 mail.sender.example host.sender.example ada b@sender.example me@example.org %s mx.example.org %d a b", env.ID, msg.Size()-1) // a fold is LF
		if code != tt.code || o.Junk || code != 0 && said != want {
			t.Errorf("%s: %+v, %d %q; want %q", tt.action, o, code, said, want)
		}
	}
	if log.Len() > 0 {
		t.Error(log)
	}
}

// methods make libmilter do what the subject says, and tell what it knows.
const methods = `
    def connect(self, name, family, address):
        self.heard = ['connect %s %s %s' % (name, address[0], self.getsymval('j'))]
        self.subject, self.octets = '', 0
        return Milter.CONTINUE
    def hear(self, *words):
        self.heard.append(' '.join(words))
        return self.act(words[0])
    def hello(self, name): return self.hear('hello', name)
    def envfrom(self, sender, *args): return self.hear('from', sender, self.getsymval('i'))
    def envrcpt(self, to, *args): return self.hear('rcpt', to)
    def data(self): return self.hear('data')
    def header(self, name, value):
        if name == 'Subject': self.subject = value
        return self.hear('header', name, repr(value[:20]), str(len(value)))
    def eoh(self): return self.hear('eoh')
    def body(self, chunk):
        self.octets += len(chunk)
        return self.act('body')
    def eom(self):
        self.addheader('X-New', 'x')
        self.chgheader('Subject', 1, 'x')
        self.replacebody('x' * 200000)
        self.addrcpt('<eve@example.org>')
        self.delrcpt('<me@example.org>')
        self.chgfrom('<>')
        return self.hear('eom', str(self.octets))
    def act(self, where):
        if self.subject == where + ' reject': return Milter.REJECT
        if self.subject == where + ' tempfail': return Milter.TEMPFAIL
        if self.subject == where + ' discard': return Milter.DISCARD
        if self.subject == where + ' accept': return Milter.ACCEPT
        if self.subject == where + ' quarantine': self.quarantine('looks odd')
        if self.subject == where + ' words':
            self.setreply('554', '5.7.1', '; '.join(self.heard))
            return Milter.REJECT
        if self.subject == where + ' lines':
            self.setreply('452', '4.2.2', 'one', '100%% two')
            return Milter.TEMPFAIL
        return Milter.CONTINUE
`

// TestRealLibmilter meets the library that most milters are made with.
func TestRealLibmilter(t *testing.T) {
	c, log := client(testpeer.StartMilter(t, methods))
	const refused, later = "550 5.7.1 a filter refuses this message", "451 4.7.1 not now, please try again later"
	for _, tt := range []struct {
		subject string
		junk    bool
		reply   string
	}{
		{"nothing", false, ""},
		{"eom accept", false, ""},
		{"header accept", false, ""},
		{"eom reject", false, refused},
		{"header reject", false, refused},
		{"body reject", false, refused},
		{"eoh tempfail", false, later},
		{"eom discard", false, refused},
		{"eom quarantine", true, ""},
		{"eom lines", false, "451 4.7.1 one 100% two"},
		{"eom words", false, "550 5.7.1 connect unknown 192.0.2.1 mx.example.org; hello mail.sender.example; from <\"ada b\"@sender.example> 01K0000000000000000000TEST; " +
			"rcpt <me@example.org>; data; header Subject 'eom words' 9; header Folded 'a\\n\\tb' 4; header Long '0123456789abcd\\n\\t0123' 65529; eoh; eom 2621"},
	} {
		env := testpeer.Envelope()
		env.Recipients = env.Recipients[:1]
		long := strings.Repeat("0123456789abcd\r\n\t", 6000)
		o := c.Check(t.Context(), env, "", testpeer.Message(t, "Subject: ", tt.subject, "\r\nFolded: a\r\n\tb\r\nLong: ", long, "x\r\n\r\n", strings.Repeat("0123456789abcd\r\n", 1<<14)))
		said := ""
		if o.Reply != nil {
			said = o.Reply.String()
		}
		if o.Junk != tt.junk || said[:min(len(said), len(tt.reply))] != tt.reply || tt.reply == "" && said != "" {
			t.Errorf("%s: %v %q, want %v %q", tt.subject, o.Junk, said, tt.junk, tt.reply)
		}
	}
	if log.Len() > 0 {
		t.Error(log)
	}
}
