package smtpclient

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"onward/internal/reply"
)

// Limits of one reply (RELIABILITY 64). RFC 5321 4.5.3.1.5 has 512 octets a line.
const (
	maxReplyLine  = 1 << 10 // octets with CRLF
	maxReplyLines = 100
	maxReply      = 64 << 10 // octets of all lines
)

// An answer is one reply as it stands on the wire (RFC 5321 4.2): a code from
// 200 to 599, and at least one line of text, without code and CRLF.
type answer struct {
	code  int
	lines []string
}

// readAnswer reads one reply. r's buffer is maxReplyLine octets, which is what
// bounds a line. A malformed reply is temporary trouble, whatever it wanted to
// say.
func readAnswer(r *bufio.Reader) (answer, error) {
	var a answer
	size := 0
	for {
		raw, err := r.ReadSlice('\n')
		size += len(raw)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return answer{}, nonsense("a reply line over %d octets", maxReplyLine)
		case err != nil:
			return answer{}, broken(err)
		case len(a.lines) == maxReplyLines || size > maxReply:
			return answer{}, nonsense("a reply over %d lines or %d octets", maxReplyLines, maxReply)
		}
		code, more, text, ok := splitLine(strings.TrimRight(string(raw), "\r\n"))
		if !ok || len(a.lines) > 0 && code != a.code {
			return answer{}, nonsense("a malformed reply: %.80q", raw)
		}
		a.code = code
		a.lines = append(a.lines, text)
		if !more {
			return a, nil
		}
	}
}

// splitLine takes "250-text" apart. A line may be the code alone (RFC 5321 4.2).
func splitLine(line string) (code int, more bool, text string, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !isDigit(line[1]) || !isDigit(line[2]) {
		return 0, false, "", false
	}
	code, _ = strconv.Atoi(line[:3])
	if len(line) == 3 {
		return code, false, "", true
	}
	return code, line[3] == '-', line[4:], line[3] == '-' || line[3] == ' '
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// reply returns the answer word for word as a Reply: the lines joined with a
// space, the enhanced code (RFC 2034) taken off each line that repeats it. A
// missing one, and one of another class than the code, is made from the code;
// in the latter case the text keeps what was there.
func (a answer) reply() *reply.Reply {
	r := &reply.Reply{Code: a.code}
	if a.code/100 != 3 {
		r.Status = fmt.Sprintf("%d.0.0", a.code/100)
	}
	first, _, _ := strings.Cut(a.lines[0], " ")
	found := isStatus(first, a.code)
	if found {
		r.Status = first
	}
	texts := make([]string, 0, len(a.lines))
	for _, line := range a.lines {
		if status, rest, _ := strings.Cut(line, " "); found && status == first {
			line = rest
		}
		if line = strings.TrimSpace(line); line != "" {
			texts = append(texts, line)
		}
	}
	r.Text = reply.Clean(strings.Join(texts, " "))
	return r
}

// isStatus reports whether s is an enhanced status code (RFC 3463 2) of the
// class of code.
func isStatus(s string, code int) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || parts[0] != strconv.Itoa(code/100) {
		return false
	}
	for _, p := range parts[1:] {
		if len(p) < 1 || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}

// extensions reads the answer to EHLO (RFC 5321 4.1.1.1). Keywords are in any
// case there: taking only "STARTTLS" for an offer would send in clear what
// "StartTLS" could have protected.
func (a answer) extensions() map[string]string {
	all := make(map[string]string, len(a.lines))
	for _, line := range a.lines[1:] {
		keyword, parameters, _ := strings.Cut(line, " ")
		all[strings.ToUpper(keyword)] = strings.TrimSpace(parameters)
	}
	return all
}

// want returns nil when the answer is the code due here, the peer's refusal
// when it is negative, and trouble when it is anything else.
func (a answer) want(code int) error {
	switch {
	case a.code >= 400:
		return &refusal{a.reply()}
	case a.code != code && (code != 250 || a.code/100 != 2):
		return nonsense("the peer answered %d where %d is due", a.code, code)
	}
	return nil
}

// A refusal is the destination's own negative answer. It is not a *reply.Reply,
// so that nobody relays it before judge has looked at whose fault it is.
type refusal struct{ said *reply.Reply }

func (r *refusal) Error() string { return "the destination said " + r.said.String() }

// broken is the reply for a connection that ended or stood still.
func broken(err error) error {
	if r, ok := errors.AsType[*reply.Reply](err); ok {
		return r
	}
	if err == io.EOF {
		err = errors.New("the peer closed the connection")
	}
	return &reply.Reply{Code: 451, Status: "4.4.2", Text: "the connection to the destination broke", Err: err}
}

// nonsense is the reply for a peer that does not speak SMTP.
func nonsense(format string, args ...any) error {
	return &reply.Reply{Code: 451, Status: "4.5.0", Text: "the destination does not keep to the protocol", Err: fmt.Errorf(format, args...)}
}
