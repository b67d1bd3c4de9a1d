package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"hash/fnv"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// A behaviour is what the destination does to messages.
type behaviour struct {
	delay    time.Duration // before the answer to the final dot, as a large provider's
	allLater bool          // 451 to everything
	forever  bool          // nothing changes that; what is queued stays queued
	later    int           // percent of messages that are answered 451 at first
	never    int           // percent that are answered 550
}

// A sink is the destination: it takes messages and notes when each arrived. It
// judges no client, to leave the machine to the system under test.
type sink struct {
	ctx      context.Context // nothing is waited for when it has ended
	listener net.Listener

	mu     sync.Mutex
	behave behaviour
	marks  map[string]*mark // by id
	fate   tally
	show   *bytes.Buffer // takes the header of the next message, if it is there
}

// A mark is what the destination knows of one message.
type mark struct {
	arrived time.Time // first
	times   int       // taken
	asked   int
	refused bool // 550
}

// A tally counts what reached the destination.
type tally struct {
	delivered  int // different messages taken
	duplicates int // taken once more
	deferred   int // answers 451
	refused    int // answers 550
	bounces    int // messages with a null sender
	strangers  int // messages that nobody sent
}

func (t *tally) add(other tally) {
	t.delivered += other.delivered
	t.duplicates += other.duplicates
	t.deferred += other.deferred
	t.refused += other.refused
	t.bounces += other.bounces
	t.strangers += other.strangers
}

func startSink(ctx context.Context) (*sink, error) {
	listener, err := net.Listen("tcp", sinkIP+":25")
	if err != nil {
		return nil, err
	}
	s := &sink{ctx: ctx, listener: listener}
	go s.serve()
	return s, nil
}

// reset forgets everything and expects these letters.
func (s *sink) reset(letters []*letter, b behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behave, s.fate = b, tally{}
	s.marks = make(map[string]*mark, len(letters))
	for _, l := range letters {
		s.marks[l.id] = &mark{}
	}
}

func (s *sink) tally() tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fate
}

// arrived returns when each letter did; zero for one that did not.
func (s *sink) arrived(letters []*letter) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := make([]time.Time, len(letters))
	for i, l := range letters {
		at[i] = s.marks[l.id].arrived
	}
	return at
}

func (s *sink) serve() {
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			go s.session(conn)
		}
	}
}

// session talks to one client.
func (s *sink) session(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 16<<10)
	w := bufio.NewWriter(conn)
	w.WriteString("220 mx.dest.example ESMTP\r\n")
	from, null := "", false
	for {
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		verb := strings.ToUpper(string(line[:min(4, len(line))]))
		switch verb {
		case "EHLO", "HELO":
			w.WriteString("250-mx.dest.example\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n")
		case "MAIL":
			from = string(line)
			null = bytes.Contains(line, []byte("<>"))
			w.WriteString("250 2.1.0 ok\r\n")
		case "DATA":
			w.WriteString("354 go ahead\r\n")
			if w.Flush() != nil {
				return
			}
			id, err := readMessage(r, s.showing(from))
			if err != nil {
				return
			}
			answer, delay := s.take(id, null)
			time.Sleep(delay)
			w.WriteString(answer)
		case "QUIT":
			w.WriteString("221 2.0.0 bye\r\n")
			w.Flush()
			return
		default:
			w.WriteString("250 2.0.0 ok\r\n")
		}
	}
}

// readMessage reads up to the final dot and returns the Message-ID, the last in
// the header if there are more. The header goes to show, which may be nil.
func readMessage(r *bufio.Reader, show *bytes.Buffer) (id string, err error) {
	const field = "message-id: <"
	inHeader, start := true, true
	for {
		line, err := r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return "", err
		}
		switch {
		case start && string(line) == ".\r\n":
			return id, nil
		case inHeader && string(line) == "\r\n":
			inHeader = false
		case inHeader && len(line) > len(field) && strings.EqualFold(string(line[:len(field)]), field):
			id, _, _ = strings.Cut(string(line[len(field):]), ">")
		}
		if inHeader && show != nil {
			show.Write(line)
		}
		start = err == nil
	}
}

// take notes one message and returns the answer.
func (s *sink) take(id string, null bool) (answer string, delay time.Duration) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	const taken = "250 2.0.0 taken\r\n"
	m := s.marks[id]
	switch {
	case null:
		s.fate.bounces++
		return taken, 0
	case m == nil:
		s.fate.strangers++
		return taken, 0
	}
	m.asked++
	percent := share(id)
	switch b := s.behave; {
	case percent < b.never:
		s.fate.refused++
		m.refused = true
		return "550 5.7.1 not here\r\n", b.delay
	case b.allLater, percent < b.never+b.later && m.asked == 1:
		s.fate.deferred++
		return "451 4.7.1 later\r\n", b.delay
	}
	if m.times++; m.times > 1 {
		s.fate.duplicates++
	} else {
		s.fate.delivered++
		m.arrived = now
	}
	return taken, s.behave.delay
}

// share puts a message into one of a hundred groups.
func share(id string) int {
	h := fnv.New32a()
	io.WriteString(h, id)
	return int(h.Sum32() % 100)
}

// answered counts the messages that have had an answer, each time.
func (s *sink) answered() int {
	t := s.tally()
	return t.delivered + t.duplicates + t.deferred + t.refused
}

// change makes the destination behave otherwise from now on.
func (s *sink) change(b behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behave = b
}

// missing counts the letters that were accepted, and that the destination has
// neither taken nor refused.
func (s *sink) missing(letters []*letter, answers []answer) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, l := range letters {
		if m := s.marks[l.id]; answers[i].code/100 == 2 && m.times == 0 && !m.refused {
			n++
		}
	}
	return n
}

// wait waits until no letter is missing, or until nothing has changed for so
// long. It returns how many are missing still.
func (s *sink) wait(letters []*letter, answers []answer, patience time.Duration) int {
	least, since := len(letters)+1, time.Now()
	for {
		n := s.missing(letters, answers)
		if n < least {
			least, since = n, time.Now()
		}
		if n == 0 || s.ctx.Err() != nil || time.Since(since) > patience {
			return n
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// keepHeader makes the sink put the header of the next message into show.
func (s *sink) keepHeader(show *bytes.Buffer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.show = show
}

// showing returns where the header of one message goes, behind its MAIL
// command, which is nowhere for all others.
func (s *sink) showing(from string) *bytes.Buffer {
	s.mu.Lock()
	defer s.mu.Unlock()
	show := s.show
	s.show = nil
	if show != nil {
		show.WriteString(from)
	}
	return show
}
