// Package reply is the outcome of an SMTP command as the whole journey sees it:
// a code, an enhanced status code and one line of text.
//
// Whether trouble is temporary or permanent is decided where it happens, as a
// Reply, and carried unchanged to the wire, the log and the report. Trouble of
// our own (DNS, disk, a bug) is always 4xx; see From.
package reply

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MaxText is the most octets of text a Reply puts on the wire, so that code,
// status and text stay within the 512 octets of RFC 5321 4.5.3.1.5.
const MaxText = 400

// A Reply is one SMTP outcome, said by us or heard from a destination. It is an
// error when Code is 4xx or 5xx, and then satisfies errors.As through the
// layers that wrap it.
type Reply struct {
	Code   int    // RFC 5321 4.2: 250, 451, 550
	Status string // RFC 3463: "5.1.1"; empty where none applies (220, 354)
	Text   string // for the peer: no paths, no rules, no host names of ours
	Err    error  // for our log only; may be nil
}

// New returns a Reply whose text is formatted as by fmt.Sprintf.
func New(code int, status, format string, args ...any) *Reply {
	return &Reply{Code: code, Status: status, Text: fmt.Sprintf(format, args...)}
}

// Trouble is the answer to any trouble of our own: 451 4.3.0, with err for the
// log and nothing of it for the peer (RELIABILITY.md T7: never 5xx).
func Trouble(err error) *Reply {
	return &Reply{Code: 451, Status: "4.3.0", Text: "trouble on our side, please try again later", Err: err}
}

// From returns the Reply inside err, or Trouble(err) when there is none:
// what does not say that it is permanent is worth another try.
func From(err error) *Reply {
	if r, ok := errors.AsType[*Reply](err); ok {
		return r
	}
	return Trouble(err)
}

// Parse reads what String wrote, or nil from anything else.
func Parse(s string) *Reply {
	code, rest, _ := strings.Cut(s, " ")
	n, err := strconv.Atoi(code)
	if err != nil || n < 200 || n > 599 {
		return nil
	}
	r := &Reply{Code: n, Text: rest}
	if status, text, _ := strings.Cut(rest, " "); strings.Count(status, ".") == 2 && strings.Trim(status, "0123456789.") == "" {
		r.Status, r.Text = status, text
	}
	return r
}

// Error returns the reply as it would stand on the wire, and the cause.
func (r *Reply) Error() string {
	if r.Err != nil {
		return r.String() + ": " + r.Err.Error()
	}
	return r.String()
}

// Unwrap returns the cause, for errors.Is and errors.As.
func (r *Reply) Unwrap() error { return r.Err }

// String returns "550 5.1.1 text" without control characters.
func (r *Reply) String() string {
	if r.Status == "" {
		return fmt.Sprintf("%d %s", r.Code, Clean(r.Text))
	}
	return fmt.Sprintf("%d %s %s", r.Code, r.Status, Clean(r.Text))
}

// Positive reports whether the command was accepted (2xx or 3xx).
func (r *Reply) Positive() bool { return r.Code/100 == 2 || r.Code/100 == 3 }

// Permanent reports whether trying again is pointless (5xx).
func (r *Reply) Permanent() bool { return r.Code/100 == 5 }

// Clean makes foreign text fit for one reply line, one log value or one report
// field: printable ASCII, anything else as '?', at most MaxText octets. A word that
// is cut goes as a whole: who hides an address would not know half of one.
func Clean(s string) string {
	var b strings.Builder
	for _, r := range s {
		if b.Len() == MaxText {
			whole := b.String()
			if end := strings.LastIndexByte(whole, ' '); end > 0 && !strings.ContainsRune(" \t\r\n", r) {
				whole = whole[:end]
			}
			return whole
		}
		switch {
		case r == '\t' || r == '\r' || r == '\n':
			b.WriteByte(' ')
		case r < ' ' || r > '~':
			b.WriteByte('?')
		default:
			b.WriteByte(byte(r))
		}
	}
	return b.String()
}
