package inbound

import (
	"bytes"
	"sync"
	"time"

	"onward/internal/config"
	"onward/internal/message"
	"onward/internal/reply"
)

// The pace of a message (RELIABILITY 74, DEPENDENCIES.md A1): whoever falls
// below the rate of the limits on average, after a grace time, is cut off; so is a sender
// that stands still for blockTimeout (RFC 5321 4.5.3.2.5).
const (
	graceTime    = time.Minute
	blockTimeout = 3 * time.Minute
	blockSize    = 32 << 10
)

// blocks are the read buffers of messages on their way in.
var blocks = sync.Pool{New: func() any { return new([blockSize]byte) }}

// receive reads the message of one DATA to its true end, which is CR LF . CR LF
// and nothing else (RFC 5321 4.1.1.4), and removes the doubled dots.
//
// A *reply.Reply is the answer to the whole message, and the connection goes
// on unless the message was far too large. Any other error ends it. size is how
// many octets came, kept or not.
func (c *conn) receive(buffer *message.Buffer, room *room, limits config.Limits) (size int64, err error) {
	c.settle() // go-smtp's 354
	if err := c.flush(); err != nil {
		return 0, err
	}
	block := blocks.Get().(*[blockSize]byte)
	defer blocks.Put(block)
	r := &dataReader{buffer: buffer, limit: limits.Message, lineStart: true, room: room}
	have := copy(block[:], c.rest)
	defer c.waiting.Store(0)
	for began := time.Now(); ; {
		used := r.take(block[:have], have == len(block))
		have = copy(block[:], block[used:have])
		if r.ended || r.hopeless() {
			break
		}
		c.waiting.Store(onPace(began, r.size, limits.DataRate).UnixNano())
		n, err := c.readWire(block[have:], paceDeadline(began, r.size, limits.DataRate))
		if err != nil {
			return r.size, err
		}
		have += n
	}
	c.rest = bytes.Clone(block[:have])
	c.closing = c.closing || !r.ended
	c.pass = ".\r\n" // go-smtp's turn to see the end
	return r.size, r.verdict()
}

// paceDeadline is the moment at which a sender of size octets since began has
// become too slow for a rate in octets a second; 0 is none.
func paceDeadline(began time.Time, size, rate int64) time.Time {
	standing := time.Now().Add(blockTimeout)
	if rate == 0 {
		return standing
	}
	if onAverage := began.Add(graceTime + time.Duration(size/rate)*time.Second); onAverage.Before(standing) {
		return onAverage
	}
	return standing
}

// onPace is the moment at which a sender at that rate would have sent so much:
// since then it keeps us waiting. It is now for one that is faster.
func onPace(began time.Time, size, rate int64) time.Time {
	now := time.Now()
	if rate == 0 {
		return now
	}
	if then := began.Add(time.Duration(size/rate) * time.Second); then.Before(now) {
		return then
	}
	return now
}

// A dataReader is the state of one message between two reads: whole lines are
// taken as they come, lines longer than a block in pieces.
type dataReader struct {
	buffer    *message.Buffer
	limit     int64
	room      *room // for what is kept
	size      int64
	lineStart bool // the last line ended in CR LF, or there was none
	bare      bool // a CR or LF stood alone, or a NUL could hide a dot
	trouble   error
	ended     bool
}

// take reads block as far as it can and returns how many octets it used. When
// full is set there is no room for more, and a line without end is taken in
// part, but for its last octet, which may be the CR of a line end.
func (r *dataReader) take(block []byte, full bool) (used int) {
	kept := 0 // block[kept:used] is content not yet stored
	for !r.ended {
		rest := block[used:]
		i := bytes.IndexByte(rest, '\n')
		line := rest[:i+1]
		if i < 0 {
			if !full || used > 0 {
				break
			}
			line = rest[:len(rest)-1]
		}
		used += len(line)
		if r.lineStart && len(line) > 0 && line[0] == '.' {
			r.store(block[kept : used-len(line)])
			kept = used - len(line) + 1 // the dot goes (RFC 5321 4.5.2)
			r.ended = string(line) == ".\r\n"
			line = line[1:]
		}
		r.bare = r.bare || r.lineStart && hidesDot(line)
		r.check(line, i >= 0)
	}
	if r.ended {
		return used
	}
	r.store(block[kept:used])
	return used
}

// check looks for a CR or LF that stands alone (STANDARDS.md P1). A dot after
// such a line does not stand at the start of one: it neither ends the message
// nor is it removed.
func (r *dataReader) check(line []byte, whole bool) {
	cr := bytes.IndexByte(line, '\r')
	r.lineStart = whole && cr >= 0 && cr == len(line)-2
	if whole && !r.lineStart || !whole && cr >= 0 {
		r.bare = true
	}
	if whole && cr >= 0 && cr < len(line)-2 && line[len(line)-2] == '\r' {
		r.lineStart = true // refused all the same, but here a line does end
	}
}

// hidesDot reports whether a line could be a single dot once its NULs are left
// out: a destination that drops them would take what follows for commands.
func hidesDot(line []byte) bool {
	return bytes.HasPrefix(line, []byte{0}) || bytes.HasPrefix(line, []byte{'.', 0})
}

// store keeps content, until something spoils the message. What was kept of it
// then makes room for others at once: its end may be far.
func (r *dataReader) store(p []byte) {
	r.size += int64(len(p))
	if !r.spoilt() && len(p) > 0 {
		if r.trouble = r.room.take(len(p)); r.trouble == nil {
			_, r.trouble = r.buffer.Write(p)
		}
	}
	if r.spoilt() {
		r.buffer.Close()
		r.room.give()
	}
}

// spoilt reports whether the message will be refused whatever else comes.
func (r *dataReader) spoilt() bool {
	return r.bare || r.trouble != nil || r.limit > 0 && r.size > r.limit
}

// hopeless reports whether the message is so far over the limit that reading
// it to its end is no use (RELIABILITY 4).
func (r *dataReader) hopeless() bool {
	return r.limit > 0 && r.size > r.limit+r.limit/2
}

// verdict answers a message that was read to its end, or is hopeless.
func (r *dataReader) verdict() error {
	switch {
	case r.bare:
		return reply.New(550, "5.6.0", "a bare CR or LF in the message, or a NUL at the start of a line; lines end in CR LF (RFC 5321 2.3.8)")
	case r.limit > 0 && r.size > r.limit:
		return errTooLarge(r.limit)
	case r.trouble != nil: // disk full and the like (RELIABILITY 70)
		return errNoRoom(r.trouble)
	}
	return nil
}

func errNoRoom(err error) *reply.Reply {
	return &reply.Reply{Code: 452, Status: "4.3.1", Text: "no room for the message now, please try again later", Err: err}
}
