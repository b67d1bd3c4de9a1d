// Package dsn composes the mail that onward itself writes: the report that a
// message could not be delivered (RFC 3464), and the notice to the postmaster
// that mail is held.
//
// Rules for a caller:
//   - A report is written only about mail that was accepted, to a sender that
//     was authenticated, and never about another report (N1, RELIABILITY 30).
//     That is the queue's decision; nothing here looks into it.
//   - Both go out with a null reverse path (N1, RFC 3461 6.1) and are signed like
//     any other copy: what Compose returns is a header without its empty line,
//     and the rest.
//   - The target never appears (N3): not its address, and not the name of its
//     host, which for mail hosted by Microsoft spells the target's domain. So
//     there is no Remote-MTA, and every address in the target's domain is
//     replaced by the alias in what the destination said.
//   - Whatever strangers said comes out as printable ASCII (RELIABILITY 65);
//     every line ends in CRLF, there is no other CR or LF, and none is over 998
//     octets.
//
// go-message writes the MIME frame. It sees nothing that is passed on.
package dsn

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	gomessage "github.com/emersion/go-message"
	"github.com/emersion/go-message/textproto"

	"onward/internal/address"
	"onward/internal/reply"
)

// A Mail is a composed message.
type Mail struct {
	Header   []byte // all fields, each with its CRLF
	Rest     []byte // the empty line and the body
	EightBit bool   // some octet is above 127
	UTF8     bool   // some header field has such octets: it needs SMTPUTF8 (RFC 6531)
}

// An envelope is what both kinds of mail have on top.
type envelope struct {
	hostname address.Domain
	id       string
	date     time.Time
	to       address.Mailbox
	subject  string
	auto     string // Auto-Submitted (RFC 3834 5)
	more     []string
}

// header returns the fields, without those about the content.
func (e envelope) header() gomessage.Header {
	return fields(append([]string{
		"Date", stamp(e.date),
		"From", fmt.Sprintf("Mail Delivery System <postmaster@%s>", e.hostname),
		"To", fmt.Sprintf("<%s>", e.to),
		"Subject", e.subject,
		"Message-ID", fmt.Sprintf("<%s@%s>", e.id, e.hostname),
		"Auto-Submitted", e.auto,
	}, e.more...)...)
}

// fields returns a header of names and values in this order. Values with CR or
// LF are refused when it is written.
func fields(pairs ...string) gomessage.Header {
	var h gomessage.Header
	for i := len(pairs) - 2; i >= 0; i -= 2 { // Add puts a field on top
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// A part is one entity: its type with parameters, and its content, whose lines
// end in CRLF.
type part struct {
	kind    string
	params  map[string]string
	content []byte
	raw     bool // 8-bit content stays as it is
}

// header returns the part's header, with an encoding under which its lines are
// 7-bit and short enough.
func (p part) header(h gomessage.Header) gomessage.Header {
	h.SetContentType(p.kind, p.params)
	switch {
	case plain(p.content):
		h.Set("Content-Transfer-Encoding", "7bit")
	case p.raw:
		h.Set("Content-Transfer-Encoding", "8bit")
	default:
		h.Set("Content-Transfer-Encoding", "quoted-printable")
	}
	return h
}

// text returns a part for people to read.
func text(s string) part {
	charset := "us-ascii"
	if !ascii([]byte(s)) {
		charset = "utf-8"
	}
	return part{kind: "text/plain", params: map[string]string{"charset": charset}, content: []byte(s)}
}

// plain reports whether content can stand in a message as it is: 7-bit, no
// line over 998 octets (RFC 5322 2.1.1), no NUL, and no CR or LF but in pairs.
func plain(content []byte) bool {
	for line := range bytes.Lines(content) {
		body, ended := bytes.CutSuffix(line, []byte("\r\n"))
		if !ended || len(body) > 998 || !ascii(body) || bytes.ContainsAny(body, "\r\n\x00") {
			return false
		}
	}
	return true
}

func ascii(p []byte) bool {
	return !bytes.ContainsFunc(p, func(r rune) bool { return r > '~' })
}

// single composes a message of one part.
func single(h gomessage.Header, p part) (Mail, error) {
	var b bytes.Buffer
	if err := write(&b, p.header(h), p.content); err != nil {
		return Mail{}, err
	}
	return split(b.Bytes(), false), nil
}

// multipart composes a message of several parts. Its boundary is random, so
// that no text of a stranger can hold it.
func multipart(h gomessage.Header, subtype string, params map[string]string, parts ...part) (Mail, error) {
	var b bytes.Buffer
	h.SetContentType("multipart/"+subtype, params)
	w, err := gomessage.CreateWriter(&b, h)
	if err != nil {
		return Mail{}, err
	}
	eightBit := false
	for _, p := range parts {
		eightBit = eightBit || p.raw && !plain(p.content)
		pw, err := w.CreatePart(p.header(gomessage.Header{}))
		if err != nil {
			return Mail{}, err
		}
		if err := fill(pw, p.content); err != nil {
			return Mail{}, err
		}
	}
	if err := w.Close(); err != nil {
		return Mail{}, err
	}
	return split(b.Bytes(), eightBit), nil
}

// write writes an entity: header and content.
func write(b *bytes.Buffer, h gomessage.Header, content []byte) error {
	w, err := gomessage.CreateWriter(b, h)
	if err != nil {
		return err
	}
	return fill(w, content)
}

func fill(w io.WriteCloser, content []byte) error {
	if _, err := w.Write(content); err != nil {
		return err
	}
	return w.Close()
}

// split returns the message in two. The encoding of a multipart with an 8-bit
// part is added here, since go-message deletes it (RFC 2045 6.4).
func split(m []byte, eightBit bool) Mail {
	at := bytes.Index(m, []byte("\r\n\r\n")) + 2
	header := bytes.Clone(m[:at])
	if eightBit {
		header = append(header, "Content-Transfer-Encoding: 8bit\r\n"...)
	}
	return Mail{Header: header, Rest: m[at:], EightBit: !ascii(m), UTF8: !ascii(header)}
}

// block writes fields as a block with the empty line that ends it, as
// message/delivery-status is made of (RFC 3464 2.1).
func block(b *bytes.Buffer, pairs ...string) error {
	return textproto.WriteHeader(b, fields(pairs...).Header)
}

// stamp returns t as RFC 5322 3.3 writes it.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC1123Z) }

// day returns t for people.
func day(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }

// clean makes foreign text one line of printable ASCII without runs of white
// space, so that no field is ever folded into an empty line, and without encoded
// words (RFC 2047), so that nobody reads in it what Hide did not see.
func clean(s string) string {
	s = strings.ReplaceAll(reply.Clean(s), "=?", "= ?")
	return strings.Join(strings.Fields(s), " ")
}

// wrap returns words in lines of at most 72 octets, where they allow it, each
// behind the indent and ending in CRLF.
func wrap(indent, s string) string {
	var b strings.Builder
	line := ""
	for _, word := range strings.Fields(s) {
		if line != "" && len(indent)+len(line)+1+len(word) > 72 {
			b.WriteString(indent + line + "\r\n")
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return b.String() + indent + line + "\r\n"
}
