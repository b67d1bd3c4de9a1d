package smtpclient

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"onward/internal/reply"
)

func TestThisMachine(t *testing.T) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if ip := netip.MustParsePrefix(a.String()).Addr(); !thisMachine(ip) {
			t.Errorf("%v is not this machine", ip)
		}
	}
	for _, s := range []string{"203.0.113.77", "2001:db8::1", "0.0.0.0"} {
		if thisMachine(netip.MustParseAddr(s)) {
			t.Errorf("%s is this machine", s)
		}
	}
	if !thisMachine(netip.MustParseAddr("127.0.0.9")) || !thisMachine(netip.MustParseAddr("::1")) {
		t.Error("loopback is not this machine")
	}
}

// unstuff is the judge of stuff, written the other way round: line by line.
func unstuff(wire []byte) (message []byte, ok bool) {
	for {
		line, rest, found := bytes.Cut(wire, []byte("\r\n"))
		switch {
		case !found:
			return nil, false
		case string(line) == ".":
			return message, len(rest) == 0
		}
		message = append(message, bytes.TrimPrefix(line, []byte("."))...)
		message = append(message, "\r\n"...)
		wire = rest
	}
}

// valid says what a message may be, in the simplest words there are.
func valid(message string) bool {
	return !strings.ContainsAny(strings.ReplaceAll(message, "\r\n", ""), "\r\n") && (message == "" || strings.HasSuffix(message, "\r\n"))
}

// stuffed returns message as it goes over the wire when read through r.
func stuffed(r io.Reader) ([]byte, error) {
	b := blockPool.Get().(*blocks)
	defer blockPool.Put(b)
	var wire []byte
	rest, err := b.stuff(r, func(p []byte) error { wire = append(wire, p...); return nil })
	if err != nil {
		return nil, err
	}
	return append(append(wire, rest...), dot...), nil
}

// checkStuffing holds one message against the judge, read in pieces of every
// kind.
func checkStuffing(t *testing.T, message string, seed uint64) {
	t.Helper()
	for name, r := range map[string]io.Reader{
		"at once":       strings.NewReader(message),
		"octet-wise":    iotest.OneByteReader(strings.NewReader(message)),
		"with EOF":      iotest.DataErrReader(strings.NewReader(message)),
		"at random":     &randomReader{strings.NewReader(message), rand.New(rand.NewPCG(seed, 0))},
		"half a buffer": iotest.HalfReader(strings.NewReader(message)),
	} {
		wire, err := stuffed(r)
		if (err == nil) != valid(message) {
			t.Fatalf("%s: %.100q: %v, and valid is %v", name, message, err, valid(message))
		}
		if err != nil {
			if !errors.Is(err, errLines) {
				t.Fatalf("%s: %v", name, err)
			}
			continue
		}
		if got, ok := unstuff(wire); !ok || string(got) != message {
			t.Fatalf("%s: %.100q became %.100q", name, message, wire)
		}
	}
}

// A randomReader reads pieces of random length, some empty.
type randomReader struct {
	r      io.Reader
	random *rand.Rand
}

func (r *randomReader) Read(p []byte) (int, error) {
	return r.r.Read(p[:r.random.IntN(min(len(p), 50)+1)])
}

// TestStuff is RELIABILITY 5: dots, line ends and block ends in every relation.
func TestStuff(t *testing.T) {
	for _, message := range []string{
		"", "\r\n", ".\r\n", "..\r\n", ".x\r\n", "x.\r\n", "\r\n.\r\n", "a\r\n.\r\nb\r\n", "\r\n\r\n..\r\n.\r\n\r\n", "a..\r\n...\r\n",
		"x", ".", "\r", "\n", "a\n", "a\r", "a\nb\r\n", "a\rb\r\n", "\n\r\n", "\r\r\n", "\r\n\n", "\r\n\r", "\r\n.", "\r\n.\r", "\n.\n", "\r.\r", "\r\n.\n\r\n",
	} {
		checkStuffing(t, message, 1)
	}
	// Every place of a dot-line around the ends of both blocks.
	b := new(blocks)
	for _, size := range []int{len(b.in), len(b.out) - len(dot), len(b.out)} {
		for shift := range 12 {
			checkStuffing(t, strings.Repeat("x", size-shift)+"\r\n.\r\n..\r\n", 1)
		}
	}
	// The worst there is: every line a dot.
	checkStuffing(t, strings.Repeat(".\r\n", 100000), 1)
	if _, err := stuffed(iotest.ErrReader(nil)); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader that never reads: %v", err)
	}
}

func FuzzBody(f *testing.F) {
	for _, s := range []string{"", ".\r\n", "a\r\n.\r\n\r\n..b\r\n", "a\n.\r\n", "a\r.\r\n", strings.Repeat("x", 32<<10) + "\r\n.\r\n"} {
		f.Add(s, uint64(1))
	}
	f.Fuzz(checkStuffing)
}

func BenchmarkStuff(b *testing.B) {
	for name, line := range map[string]string{"text": strings.Repeat("x", 76) + "\r\n", "short": "x\r\n", "dots": ".\r\n"} {
		b.Run(name, func(b *testing.B) {
			message := strings.Repeat(line, 1<<20/len(line))
			b.SetBytes(int64(len(message)))
			b.ReportAllocs()
			var blocks blocks
			for b.Loop() {
				if _, err := blocks.stuff(strings.NewReader(message), func([]byte) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestReply(t *testing.T) {
	for _, tt := range []struct{ wire, want string }{
		{"250 2.0.0 OK 1700000000 x-gsmtp\r\n", "250 2.0.0 OK 1700000000 x-gsmtp"},
		{"250\r\n", "250 2.0.0 "},
		{"250 \r\n", "250 2.0.0 "},
		{"250 2.0.0\r\n", "250 2.0.0 "},
		{"354 3.0.0 go\r\n", "354 3.0.0 go"},
		{"354 go\r\n", "354 go"},
		{"550 mailbox unavailable\r\n", "550 5.0.0 mailbox unavailable"},
		{"550 4.2.2 full\r\n", "550 5.0.0 4.2.2 full"},     // another class
		{"550 5.2 full\r\n", "550 5.0.0 5.2 full"},         // no status
		{"550 5.1234.1 x\r\n", "550 5.0.0 5.1234.1 x"},     // no status
		{"550 5.1.1, sorry\r\n", "550 5.0.0 5.1.1, sorry"}, // no status
		{"550 5.1.10 x\n", "550 5.1.10 x"},
		{"550-5.1.1 a\r\n550-5.1.1 b\r\n550 5.1.1 c\r\n", "550 5.1.1 a b c"},
		{"550-5.1.1 a\r\n550-5.1.2 b\r\n550 c\r\n", "550 5.1.1 a 5.1.2 b c"},
		{"550-a\r\n550 5.1.1 b\r\n", "550 5.0.0 a 5.1.1 b"},
		{"550-5.1.1\r\n550-\r\n550   c  \r\n", "550 5.1.1 c"},
		{"550 5.1.1 " + strings.Repeat("x", 1000) + "\r\n", "550 5.1.1 " + strings.Repeat("x", reply.MaxText)},
		{"550-5.1.1 a\r\n550 5.1.1 \x00\xe4\r\x1b b\r\n", "550 5.1.1 a ?? ? b"},
	} {
		a, err := readAnswer(bufio.NewReaderSize(strings.NewReader(tt.wire), maxReplyLine))
		if err != nil {
			t.Errorf("%q: %v", tt.wire, err)
		} else if got := a.reply().String(); got != tt.want {
			t.Errorf("%q became %q, want %q", tt.wire, got, tt.want)
		}
	}
	line := "250-" + strings.Repeat("x", 700) + "\r\n"
	for name, wire := range map[string]string{
		"101 lines": strings.Repeat("250-x\r\n", 100) + "250 x\r\n",
		"too large": strings.Repeat(line, 99) + "250 x\r\n",
		"long line": "250 " + strings.Repeat("x", 1020) + "\r\n",
		"no end":    "250-x\r\n250",
		"nothing":   "",
		"199":       "199 x\r\n",
		"600":       "600 x\r\n",
		"25":        "25\r\n",
		"letters":   "2x0 y\r\n",
		"differs":   "250-x\r\n251 x\r\n",
		"tab":       "250\tx\r\n",
	} {
		if a, err := readAnswer(bufio.NewReaderSize(strings.NewReader(wire), maxReplyLine)); err == nil {
			t.Errorf("%s: read %+v", name, a)
		} else if r := reply.From(err); r.Code != 451 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := readAnswer(bufio.NewReaderSize(strings.NewReader(strings.Repeat("250-x\r\n", 99)+"250 x\r\n"), maxReplyLine)); err != nil {
		t.Errorf("100 lines: %v", err)
	}
}

// FuzzReply: whatever a destination says, reading it is bounded, and what is
// made of it fits one line and agrees with itself.
func FuzzReply(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "250-PIPELINING\r\n250 SIZE 10\r\n", "550-5.1.1 a\r\n550 5.1.1 b\r\n", "421\n", "354 \xff\x00\r\n", "250-", "999 x\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		a, err := readAnswer(bufio.NewReaderSize(bytes.NewReader(wire), maxReplyLine))
		if err != nil {
			if r := reply.From(err); r.Code != 451 {
				t.Fatalf("%q: %v", wire, err)
			}
			return
		}
		if a.code < 200 || a.code > 599 || len(a.lines) == 0 || len(a.lines) > maxReplyLines {
			t.Fatalf("%q: %+v", wire, a)
		}
		a.extensions()
		r := a.reply()
		if s := r.String(); len(s) > 512-2 || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Fatalf("%q: %q", wire, s)
		}
		if r.Status != "" && r.Status[0] != wire[0] || r.Status == "" && a.code/100 != 3 {
			t.Fatalf("%q: status %q", wire, r.Status)
		}
		if a.code >= 400 {
			out := judge(Outcome{Step: stepRCPT}, nil, &refusal{r})
			if out.Reply.Code/100 == 5 != (out.Result == Refused) || out.Reply.Status[0] != '0'+byte(out.Reply.Code/100) {
				t.Fatalf("%q: %v with %v", wire, out.Result, out.Reply)
			}
		}
	})
}

// TestAboutUs is DESIGN.md 9.8's table.
func TestAboutUs(t *testing.T) {
	for _, tt := range []struct {
		step, status, text string
		code               int
		want               bool
	}{
		{stepGreeting, "5.7.1", "no", 554, true},
		{stepRCPT, "5.7.1", "Client host [192.0.2.1] blocked using zen.spamhaus.org", 554, true},
		{stepMAIL, "5.7.1", "part of their network is on our block list (S3150)", 550, true},
		{stepDot, "5.7.1", "listed in RBL", 550, true},
		{stepRCPT, "5.0.0", "Blacklisted: see b.barracudacentral.org", 550, true},
		{stepMAIL, "5.7.606", "Access denied, banned sending IP [192.0.2.1]", 550, true},
		{stepDot, "5.7.1", "a link in it is on SURBL's blacklist", 550, false},
		{stepDot, "5.7.1", "blocked by https://www.spamhaus.org/query/dbl?domain=x", 550, false},
		{stepRCPT, "5.1.1", "<spamhaus@example.org>: no such user", 550, false},
		{stepDot, "5.7.1", "garbled and terrible", 550, false},
		{stepDot, "5.7.26", "unauthenticated", 550, false},
		{stepDot, "4.7.28", "too much", 421, false},
		{stepDot, "5.7.25", "no PTR", 550, true},
		{stepMAIL, "4.7.24", "SPF", 451, true},
		{stepMAIL, "5.7.0", "Must issue STARTTLS", 530, true},
	} {
		if got := verdictOn(tt.step, &reply.Reply{Code: tt.code, Status: tt.status, Text: tt.text}, false).us; got != tt.want {
			t.Errorf("%s %d %s %q: %v", tt.step, tt.code, tt.status, tt.text, got)
		}
	}
}

// A halfConn is a connection that takes only so many octets.
type halfConn struct {
	net.Conn // nil: nothing else is used
	takes    int
}

func (c *halfConn) SetDeadline(time.Time) error { return nil }
func (c *halfConn) Read([]byte) (int, error)    { return 0, io.EOF }
func (c *halfConn) Write(p []byte) (int, error) {
	if len(p) > c.takes {
		return c.takes, os.ErrDeadlineExceeded
	}
	return len(p), nil
}

// TestLastWrite: when the last write fails, what matters is whether any of the
// final dot has left. If not, the message can go elsewhere. If so, the peer may
// have it.
func TestLastWrite(t *testing.T) {
	message := "hello\r\n"
	for takes := range len(message) + len(dot) + 1 {
		wire := &halfConn{takes: takes}
		c := &conn{tcp: wire, stream: wire, r: bufio.NewReader(wire), commit: func() {}, times: Timeouts{}.withDefaults()}
		err := c.body(t.Context(), &Transaction{Size: int64(len(message)), Open: func() io.Reader { return strings.NewReader(message) }})
		out := judge(Outcome{Step: c.step}, nil, err)
		switch {
		case takes == len(message)+len(dot):
			if err != nil || c.step != stepDot {
				t.Errorf("all taken: %v after %s", err, c.step)
			}
		case takes > len(message):
			if out.Result != Unknown || out.Step != stepDot {
				t.Errorf("%d octets taken: %v after %s", takes, out.Result, out.Step)
			}
		case out.Result != Deferred || out.final():
			t.Errorf("%d octets taken: %v after %s", takes, out.Result, out.Step)
		}
	}
}
