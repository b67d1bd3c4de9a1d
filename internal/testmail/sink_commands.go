package testmail

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checkPipelining looks for commands that came too early: only some may be
// followed by others before their answer, and only where that is offered
// (RFC 2920 3.1, P2).
func (s *session) checkPipelining(verb string) {
	if s.r.Buffered() == 0 {
		return
	}
	if _, ok := s.offered["PIPELINING"]; !ok {
		s.sink.fault(s.id, "something sent after %s, and PIPELINING is not offered", verb)
	} else if !slices.Contains([]string{"MAIL", "RCPT", "RSET", "NOOP"}, verb) {
		s.sink.fault(s.id, "something sent after %s, before its answer", verb)
	}
}

// hello answers EHLO or HELO.
func (s *session) hello(text string, extended bool) error {
	reply := "250 sink.test"
	offered := map[string]string{}
	if extended {
		lines := []string{"sink.test"}
		s.sink.mu.Lock()
		for _, extension := range s.sink.extensions {
			keyword, value, _ := strings.Cut(strings.ToUpper(extension), " ")
			if keyword == "STARTTLS" && s.tls != "" {
				continue
			}
			offered[keyword] = value
			lines = append(lines, extension)
		}
		s.sink.mu.Unlock()
		reply = "250-" + strings.Join(lines, "\r\n250-")
		last := strings.LastIndex(reply, "250-")
		reply = reply[:last] + "250 " + reply[last+4:]
	}
	code, err := s.answer(text, reply)
	if code/100 == 2 {
		s.helo, s.offered, s.mail, s.rcpt = text, offered, "", nil
	}
	return err
}

// startTLS turns TLS on (RFC 3207).
func (s *session) startTLS(text string) error {
	if _, ok := s.offered["STARTTLS"]; !ok {
		s.sink.fault(s.id, "STARTTLS, which is not offered")
		_, err := s.answer(text, "502 5.5.1 not offered")
		return err
	}
	code, err := s.answer(text, "220 2.0.0 go ahead")
	if err != nil || code != 220 {
		return err
	}
	conn := tls.Server(s.tcp, s.sink.certificate())
	if err := conn.HandshakeContext(s.sink.ctx); err != nil {
		return err
	}
	s.conn, s.tls = conn, tls.VersionName(conn.ConnectionState().Version)
	s.r.Reset(conn)
	s.helo, s.offered = "", nil
	return nil
}

// from answers MAIL.
func (s *session) from(text string) error {
	switch {
	case s.helo == "":
		s.sink.fault(s.id, "MAIL before EHLO")
	case s.mail != "":
		s.sink.fault(s.id, "MAIL inside a transaction")
		_, err := s.answer(text, "503 5.5.1 nested MAIL")
		return err
	}
	s.checkPath(text, "MAIL FROM:<")
	usual := "250 2.1.0 ok"
	if n, limit := sizeParameter(text), s.limit(); limit > 0 && n > limit {
		usual = "552 5.3.4 too large"
	}
	for _, parameter := range parameters(text) {
		keyword, _, _ := strings.Cut(strings.ToUpper(parameter), "=")
		extension := map[string]string{"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8"}[keyword]
		if _, ok := s.offered[extension]; !ok {
			s.sink.fault(s.id, "parameter %q, which is not offered", parameter)
			usual = "555 5.5.4 unknown parameter"
		}
	}
	code, err := s.answer(text, usual)
	if code/100 == 2 {
		s.mail = text
	}
	return err
}

// to answers RCPT.
func (s *session) to(text string) error {
	s.checkPath(text, "RCPT TO:<")
	usual := "250 2.1.5 ok"
	if s.mail == "" {
		usual = "503 5.5.1 no MAIL"
	}
	code, err := s.answer(text, usual)
	if code/100 == 2 && s.mail != "" {
		s.rcpt = append(s.rcpt, text)
	}
	return err
}

// checkPath looks for what no client of ours may write.
func (s *session) checkPath(text, prefix string) {
	if !hasPrefixFold(text, prefix) || !strings.Contains(text, ">") {
		s.sink.fault(s.id, "malformed %q", text)
	}
	if _, ok := s.offered["SMTPUTF8"]; !ok && strings.ContainsFunc(text, func(r rune) bool { return r > '~' }) {
		s.sink.fault(s.id, "non-ASCII in %q, and SMTPUTF8 is not offered", text)
	}
}

// parameters returns what follows the path in a MAIL or RCPT line.
func parameters(text string) []string {
	end := strings.LastIndexByte(text, '>')
	if end < 0 {
		return nil
	}
	return strings.Fields(text[end+1:])
}

// sizeParameter returns n of SIZE=n in a MAIL line, or -1.
func sizeParameter(text string) int {
	for _, parameter := range parameters(text) {
		if value, ok := strings.CutPrefix(strings.ToUpper(parameter), "SIZE="); ok {
			if n, err := strconv.Atoi(value); err == nil {
				return n
			}
		}
	}
	return -1
}

// limit returns the offered SIZE, 0 for none.
func (s *session) limit() int {
	n, _ := strconv.Atoi(s.offered["SIZE"])
	return n
}

// data answers DATA, reads the message and answers the final dot.
func (s *session) data(text string) error {
	usual := "354 go ahead"
	if len(s.rcpt) == 0 {
		usual = "503 5.5.1 no recipient"
	}
	code, err := s.answer(text, usual)
	if err != nil || code != 354 {
		return err
	}
	message, err := s.message()
	if err != nil {
		s.sink.broken(message, err)
		return err
	}
	s.sink.heard(".")
	s.checkMessage(message)
	usual = "250 2.0.0 taken"
	if limit := s.limit(); limit > 0 && len(message) > limit {
		usual = "552 5.3.4 too large"
	}
	d := &Delivery{
		Session: s.id, Time: time.Now(), Peer: s.peer(),
		Helo: s.helo, TLS: s.tls, Mail: s.mail, Rcpt: s.rcpt, Data: message,
	}
	step := s.step(".")
	step.Data = message
	s.mail, s.rcpt = "", nil
	return s.take(d, s.sink.action(step), usual)
}

// take answers the final dot, and keeps the message if the answer is 2xx. It is
// kept before the answer goes out: whoever has heard 250 finds it there.
func (s *session) take(d *Delivery, a Action, usual string) error {
	if !a.mute() {
		d.Reply = cmp.Or(a.Reply, usual)
	}
	d.Unheard = a.mute() || a.Reset
	s.sink.keep(d, a.Keep || strings.HasPrefix(d.Reply, "2"))
	_, err := s.perform(a, usual)
	s.sink.answered(d, err == nil || errors.Is(err, errDropped))
	return err
}

// message reads up to the final dot, or as far as it can. Lines end in CRLF and nothing else does:
// only CRLF.CRLF ends a message (RFC 5321 4.1.1.4, P1).
func (s *session) message() ([]byte, error) {
	var message []byte
	start := true // of a line
	for {
		piece, err := s.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return append(message, piece...), err
		}
		if start && string(piece) == ".\r\n" {
			return message, nil
		}
		if start {
			if bytes.HasPrefix(piece, []byte(".")) && !bytes.HasPrefix(piece, []byte("..")) {
				s.sink.fault(s.id, "a dot not doubled: %.40q", piece)
			}
			piece = bytes.TrimPrefix(piece, []byte("."))
		}
		message = append(message, piece...)
		start = bytes.HasSuffix(message, []byte("\r\n"))
	}
}

// checkMessage holds a message against what was said about it.
func (s *session) checkMessage(message []byte) {
	ends := bytes.Count(message, []byte("\r\n"))
	if bytes.Count(message, []byte("\r")) != ends || bytes.Count(message, []byte("\n")) != ends {
		s.sink.fault(s.id, "bare CR or LF in the message")
	}
	if n := sizeParameter(s.mail); n >= 0 && n != len(message) {
		s.sink.fault(s.id, "SIZE=%d for %d octets", n, len(message))
	}
	eightBit := bytes.ContainsFunc(message, func(r rune) bool { return r > '~' })
	if eightBit && !strings.Contains(strings.ToUpper(s.mail), "BODY=8BITMIME") {
		s.sink.fault(s.id, "8-bit message without BODY=8BITMIME")
	}
}
