package dkim

import (
	"bytes"
	"encoding/binary"
	"io"
)

// A Canonicalization is one of the two ways to make the bytes of a header
// field or a body comparable after small changes on the way (RFC 6376 3.4).
type Canonicalization uint8

// Simple tolerates next to nothing; Relaxed forgives white space and the case
// of field names.
const (
	Simple Canonicalization = iota
	Relaxed
)

// String returns the word that stands in a c= tag.
func (c Canonicalization) String() string {
	if c == Relaxed {
		return "relaxed"
	}
	return "simple"
}

// AppendField appends the canonical form of one raw header field, CRLF
// included (RFC 6376 3.4.1, 3.4.2). It is linear in len(raw).
func (c Canonicalization) AppendField(dst, raw []byte) []byte {
	if c == Simple {
		return append(dst, raw...)
	}
	name, value, colon := bytes.Cut(raw, []byte(":"))
	dst = appendLower(dst, bytes.TrimRight(name, " \t"))
	if colon {
		dst = append(dst, ':')
	}
	return append(appendReduced(dst, value), "\r\n"...)
}

// AppendSigned appends the canonical form of the field that carries a
// signature, as that signature covers it: with the value of its b= tag
// deleted, and without the CRLF at its end (RFC 6376 3.7).
func (c Canonicalization) AppendSigned(dst, raw []byte) []byte {
	start, end := signatureValue(raw)
	emptied := make([]byte, 0, len(raw))
	emptied = append(append(emptied, raw[:start]...), raw[end:]...)
	return bytes.TrimSuffix(c.AppendField(dst, emptied), []byte("\r\n"))
}

// signatureValue returns where the value of the b= tag begins and ends in a
// raw field, all white space around it included. Without one both are the end.
func signatureValue(raw []byte) (start, end int) {
	whole := len(bytes.TrimSuffix(raw, []byte("\r\n")))
	at := bytes.IndexByte(raw, ':') + 1
	for at < whole {
		next := whole
		if i := bytes.IndexByte(raw[at:whole], ';'); i >= 0 {
			next = at + i
		}
		equals := bytes.IndexByte(raw[at:next], '=')
		if equals >= 0 && string(bytes.Trim(raw[at:at+equals], " \t\r\n")) == "b" {
			return at + equals + 1, next
		}
		at = next + 1
	}
	return whole, whole
}

func appendLower[S string | []byte](dst []byte, s S) []byte {
	for i := range len(s) {
		c := s[i]
		if c-'A' <= 'Z'-'A' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// appendReduced appends a field body unfolded, runs of white space as one
// space, and none at its ends.
func appendReduced(dst, value []byte) []byte {
	start := len(dst)
	for i := 0; i < len(value); {
		word := i
		for i < len(value) && !isSpace(value[i]) {
			i++
		}
		if i > word && len(dst) > start {
			dst = append(dst, ' ')
		}
		dst = append(dst, value[word:i]...)
		for i < len(value) && isSpace(value[i]) {
			i++
		}
	}
	return dst
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// Body returns a writer that passes the canonical form of a body to w
// (RFC 6376 3.4.3, 3.4.4). Close ends the body, and leaves w open. It holds a
// few octets whatever it is given: trailing empty lines are counted, not kept
// (RELIABILITY 54). A CR or LF that is not part of CRLF is an ordinary octet.
func (c Canonicalization) Body(w io.Writer) io.WriteCloser {
	end := &lineTrimmer{w: w, simple: c == Simple}
	if c == Simple {
		return end
	}
	return &spaceReducer{next: end}
}

// A lineTrimmer holds back CRLFs until something follows them.
type lineTrimmer struct {
	w       io.Writer
	simple  bool
	held    int64 // CRLFs not passed on
	cr      bool  // then a CR that may become one more
	content bool  // something was passed on
	err     error
}

var manyCRLF = bytes.Repeat([]byte("\r\n"), 512)

func (t *lineTrimmer) Write(p []byte) (int, error) {
	size := len(p)
	if size == 0 {
		return 0, t.err
	}
	if t.cr && p[0] == '\n' {
		t.held, t.cr, p = t.held+1, false, p[1:]
	} else if t.cr {
		t.release()
		t.pass([]byte("\r"))
		t.cr = false
	}
	end, cr := len(p), false
	if end > 0 && p[end-1] == '\r' {
		end, cr = end-1, true
	}
	crlfs := 0
	for end >= 2 && p[end-2] == '\r' && p[end-1] == '\n' {
		end, crlfs = end-2, crlfs+1
	}
	if end > 0 {
		t.release()
		t.pass(p[:end])
	}
	t.held, t.cr = t.held+int64(crlfs), cr
	return size, t.err
}

// release passes on the CRLFs that were held back.
func (t *lineTrimmer) release() {
	for t.held > 0 {
		n := min(t.held, int64(len(manyCRLF)/2))
		t.pass(manyCRLF[:2*n])
		t.held -= n
	}
}

func (t *lineTrimmer) pass(p []byte) {
	t.content = true
	if t.err == nil {
		_, t.err = t.w.Write(p)
	}
}

// Close ends the last line. An empty body is CRLF in simple and nothing in
// relaxed (RFC 6376 3.4.3, 3.4.4).
func (t *lineTrimmer) Close() error {
	if t.cr {
		t.release()
		t.pass([]byte("\r"))
	}
	if t.content || t.simple {
		t.pass([]byte("\r\n"))
	}
	return t.err
}

// A spaceReducer removes white space at the end of lines and makes one space
// of it elsewhere.
type spaceReducer struct {
	next  *lineTrimmer
	space bool // white space was seen and not passed on
	cr    bool // then a CR, which may end the line
	out   []byte
}

func (r *spaceReducer) Write(p []byte) (int, error) {
	size, tab := len(p), -1
	for len(p) > 0 {
		if tab < 0 {
			if tab = bytes.IndexByte(p, '\t'); tab < 0 {
				tab = len(p)
			}
		}
		n := 0
		if !r.space && !r.cr {
			n = plain(p[:tab])
		}
		switch {
		case n == 0:
			r.octet(p[0])
			n = 1
		case n < copied:
			r.out = append(r.out, p[:n]...)
		default:
			r.flush()
			r.next.Write(p[:n])
		}
		p, tab = p[n:], tab-n
	}
	r.flush()
	return size, r.next.err
}

// copied is how many octets are worth a call of their own.
const copied = 512

func (r *spaceReducer) flush() {
	r.next.Write(r.out)
	r.out = r.out[:0]
}

// plain returns how many octets at the beginning of p, in which no tab is,
// surely stand for themselves: no space among them is before white space or the
// end of a line. It looks at sixteen octets at a time, which makes the
// difference between a body that costs as much as its hash and one that costs
// twice that.
func plain(p []byte) int {
	i := 0
	for ; i+17 <= len(p); i += 16 {
		q := p[i : i+17 : i+17]
		a, b := binary.LittleEndian.Uint64(q), binary.LittleEndian.Uint64(q[8:])
		if equal(a, ' ')&below(binary.LittleEndian.Uint64(q[1:]), '!')|
			equal(b, ' ')&below(binary.LittleEndian.Uint64(q[9:]), '!') != 0 {
			break
		}
	}
	for end := min(i+16, len(p)); i < end; i++ {
		if p[i] == ' ' && (i+1 == len(p) || p[i+1] <= ' ') {
			break
		}
	}
	return i
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// equal marks the octets of v that are c, and below those that are less than
// c, with their highest bits. Without such an octet there is no mark; with one
// there may be false marks above it.
func equal(v uint64, c byte) uint64 { return below(v^ones*uint64(c), 1) }

func below(v uint64, c byte) uint64 { return (v - ones*uint64(c)) &^ v & highs }

func (r *spaceReducer) octet(c byte) {
	if r.cr {
		r.cr = false
		if c == '\n' {
			r.out, r.space = append(r.out, "\r\n"...), false
			return
		}
		r.ordinary('\r')
	}
	switch c {
	case ' ', '\t':
		r.space = true
	case '\r':
		r.cr = true
	default:
		r.ordinary(c)
	}
}

func (r *spaceReducer) ordinary(c byte) {
	if r.space {
		r.out, r.space = append(r.out, ' '), false
	}
	r.out = append(r.out, c)
}

func (r *spaceReducer) Close() error {
	if r.cr {
		r.ordinary('\r')
		r.flush()
	}
	return r.next.Close()
}
