package smtpclient

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"onward/internal/reply"
)

// errLines means that a message has a CR or LF that is not half of a CRLF, or
// does not end in CRLF. Sent as it is, it could end early and go on as
// commands; mended, its signatures would break (P1, RELIABILITY 2).
var errLines = errors.New("message has a bare CR or LF, or does not end in CRLF")

// stuff reads a message to its end and doubles the dot at the beginning of a
// line (RFC 5321 4.5.2, P3, RELIABILITY 5). Full blocks go to write; what is
// left for the last one is returned, with room for the final dot, and not
// written, so that the caller has the last word. An error is a *reply.Reply:
// write's own, or trouble with the message.
func (b *blocks) stuff(r io.Reader, write func([]byte) error) ([]byte, error) {
	out := b.out[:0]
	line := lineState{start: true}
	for idle := 0; ; {
		n, err := r.Read(b.in[:])
		if len(out)+2*n > len(b.out)-len(dot) { // stuffing at most doubles
			if err := write(out); err != nil {
				return nil, err
			}
			out = b.out[:0]
		}
		var ok bool
		if out, ok = line.append(out, b.in[:n]); !ok {
			return nil, reply.Trouble(errLines)
		}
		if idle++; n > 0 {
			idle = 0
		}
		switch {
		case err == io.EOF && !line.start:
			return nil, reply.Trouble(errLines)
		case err == io.EOF:
			return out, nil
		case err != nil:
			return nil, reply.Trouble(fmt.Errorf("reading the message: %w", err))
		case idle == 100:
			return nil, reply.Trouble(fmt.Errorf("reading the message: %w", io.ErrNoProgress))
		}
	}
}

// A lineState is where in a line the last block ended.
type lineState struct {
	start bool // after CRLF, or before everything
	cr    bool // after a CR whose LF is still to come
}

// append adds p to out with dots doubled, and reports whether every CR and LF
// so far is half of a CRLF.
func (s *lineState) append(out, p []byte) ([]byte, bool) {
	for len(p) > 0 {
		if s.cr && p[0] != '\n' {
			return out, false
		}
		if s.start && p[0] == '.' {
			out = append(out, '.')
		}
		end := bytes.IndexByte(p, '\n')
		text := p
		if end >= 0 {
			text = p[:end]
		}
		cr := bytes.IndexByte(text, '\r')
		switch {
		case cr >= 0 && cr != len(text)-1: // followed by something else
			return out, false
		case end >= 0 && !s.cr && cr < 0:
			return out, false
		case end < 0:
			s.start, s.cr = false, cr >= 0
			return append(out, p...), true
		}
		out = append(out, p[:end+1]...)
		p = p[end+1:]
		s.start, s.cr = true, false
	}
	return out, true
}
