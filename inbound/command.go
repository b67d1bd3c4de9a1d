package inbound

import (
	"errors"
	"strconv"
	"strings"

	"onward/internal/address"
	"onward/internal/reply"
)

// A command is one SMTP command line, parsed once. Whatever is wrong with the
// line is a Reply, and the line goes no further.
type command struct {
	verb string // upper case
	arg  string // HELO and EHLO: the client's name

	from  address.ReversePath // MAIL
	to    address.Mailbox     // RCPT
	utf8  bool                // MAIL: SMTPUTF8
	size  int64               // MAIL: SIZE, 0 when not declared
	fatal bool                // the client speaks no SMTP: answer and close
}

// parseCommand parses one line without its CRLF (RFC 5321 4.1.1).
func parseCommand(line string) (command, error) {
	verb, arg, _ := strings.Cut(line, " ")
	c := command{verb: upper(verb), arg: strings.TrimRight(arg, " ")}
	for i := range len(line) {
		if line[i] < ' ' || line[i] == 0x7f {
			c.fatal = true
			return c, reply.New(500, "5.5.2", "control character in command")
		}
	}
	switch c.verb {
	case "HELO", "EHLO":
		return c, checkHelo(c.arg)
	case "MAIL":
		return c, c.parseMail()
	case "RCPT":
		return c, c.parseRcpt()
	case "DATA", "RSET", "QUIT", "STARTTLS":
		if c.arg != "" {
			return c, reply.New(501, "5.5.4", "%s takes no argument", c.verb)
		}
		return c, nil
	case "NOOP", "HELP", "VRFY":
		return c, nil
	case "EXPN", "AUTH", "ETRN", "TURN", "SEND", "SOML", "SAML":
		return c, reply.New(502, "5.5.1", "%s is not offered here", c.verb)
	default:
		// BDAT is not offered, and the octets of its chunk must never be read
		// as commands (RELIABILITY 10). Nor must a web request or a TLS hello
		// on this port (RELIABILITY 11), or what a proxy says that nobody told
		// us of: it would make all clients one.
		c.fatal = c.verb == "BDAT" || !isSMTPVerb(c.verb)
		return c, reply.New(500, "5.5.1", "command not recognised")
	}
}

// upper is for the words of the protocol, which are ASCII: strings.ToUpper
// would make an "S" of "ſ", and others would read the line in another way.
func upper(word string) string {
	b := []byte(word)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// isSMTPVerb reports whether an unknown verb could be SMTP: letters, and not
// the verb of another protocol that lands on port 25 by mistake or malice.
func isSMTPVerb(verb string) bool {
	switch verb {
	case "", "GET", "PUT", "POST", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE", "PRI", "PROXY":
		return false
	}
	return strings.Trim(verb, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// checkHelo takes any name that is safe inside the parentheses and angle
// brackets of a Received field. Whether it is a name that exists does not
// matter here: many honest senders call themselves by one that does not.
func checkHelo(name string) error {
	if name == "" || len(name) > address.MaxDomain {
		return reply.New(501, "5.5.4", "HELO and EHLO need your host name")
	}
	for i := range len(name) {
		c := name[i]
		if c <= ' ' || c > '~' || strings.IndexByte(`()<>@,;\"`, c) >= 0 {
			return reply.New(501, "5.5.4", "that is not a host name")
		}
	}
	return nil
}

// parseMail parses "FROM:<path> parameters" (RFC 5321 4.1.1.2).
func (c *command) parseMail() error {
	path, params, err := cutPath(c.arg, "FROM:")
	if err != nil {
		return err
	}
	if c.from, err = address.ParseReversePath(path); err != nil {
		return badAddress(err, "5.1.7", "sender")
	}
	seen := map[string]bool{}
	for _, param := range params {
		key, value, _ := strings.Cut(param, "=")
		key = upper(key)
		if seen[key] {
			return reply.New(501, "5.5.4", "%s is given twice", reply.Clean(key))
		}
		seen[key] = true
		if err := c.mailParam(key, value); err != nil {
			return err
		}
	}
	if !c.utf8 && !c.from.IsASCII() {
		return reply.New(553, "5.6.7", "an address in UTF-8 needs SMTPUTF8")
	}
	return nil
}

// mailParam takes one parameter of MAIL. DSN, AUTH and others that EHLO does
// not offer are 555 (STANDARDS.md D13).
func (c *command) mailParam(key, value string) error {
	switch key {
	case "SIZE": // RFC 1870
		n, err := strconv.ParseUint(value, 10, 63)
		if errors.Is(err, strconv.ErrRange) {
			return reply.New(552, "5.3.4", "message is too large")
		}
		if err != nil {
			return reply.New(501, "5.5.4", "SIZE needs a number")
		}
		c.size = int64(n)
	case "BODY": // RFC 6152; what the bytes are is seen when they come
		if !strings.EqualFold(value, "7BIT") && !strings.EqualFold(value, "8BITMIME") {
			return reply.New(501, "5.5.4", "BODY is 7BIT or 8BITMIME")
		}
	case "SMTPUTF8": // RFC 6531
		if value != "" {
			return reply.New(501, "5.5.4", "SMTPUTF8 takes no value")
		}
		c.utf8 = true
	default:
		return reply.New(555, "5.5.4", "parameter not recognised")
	}
	return nil
}

// parseRcpt parses "TO:<path>" (RFC 5321 4.1.1.3). No parameter is known.
func (c *command) parseRcpt() error {
	path, params, err := cutPath(c.arg, "TO:")
	if err != nil {
		return err
	}
	if len(params) > 0 {
		return reply.New(555, "5.5.4", "parameter not recognised")
	}
	if c.to, err = address.ParsePath(path); err != nil {
		return badAddress(err, "5.1.3", "recipient")
	}
	return nil
}

// cutPath splits "FROM:<path> a b" into path and parameters. A space after the
// colon is common and harmless; missing brackets are not (RFC 5321 4.1.2).
func cutPath(arg, prefix string) (path string, params []string, err error) {
	bad := reply.New(501, "5.5.4", "the form is %s<address>", prefix)
	if len(arg) < len(prefix) || upper(arg[:len(prefix)]) != prefix {
		return "", nil, bad
	}
	rest, ok := strings.CutPrefix(strings.TrimLeft(arg[len(prefix):], " "), "<")
	if !ok {
		return "", nil, bad
	}
	end := endOfPath(rest)
	if end < 0 {
		return "", nil, bad
	}
	tail := rest[end+1:]
	if tail != "" && tail[0] != ' ' {
		return "", nil, bad
	}
	return rest[:end], strings.Fields(tail), nil
}

// endOfPath returns the index of the ">" that closes a path, which is not one
// inside a quoted local part, or -1.
func endOfPath(s string) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '>' && !quoted:
			return i
		}
	}
	return -1
}

// badAddress answers an address that does not parse.
func badAddress(err error, status, whose string) error {
	switch {
	case errors.Is(err, address.ErrTooLong):
		return &reply.Reply{Code: 501, Status: status, Text: whose + " address is too long", Err: err}
	case errors.Is(err, address.ErrNoUTF8):
		return &reply.Reply{Code: 501, Status: status, Text: whose + " address is not UTF-8", Err: err}
	default:
		return &reply.Reply{Code: 501, Status: status, Text: "bad syntax in " + whose + " address", Err: err}
	}
}
