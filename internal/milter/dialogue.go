package milter

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"onward/internal/address"
	"onward/internal/message"
)

// Commands, and the answers to them (libmilter/mfdef.h).
const (
	negotiate = 'O'
	macros    = 'D' // before the command they are for
	connect   = 'C'
	helo      = 'H'
	mail      = 'M'
	rcpt      = 'R'
	data      = 'T'
	field     = 'L'
	endHeader = 'N'
	body      = 'B'
	endBody   = 'E'
	quit      = 'Q'

	goOn       = 'c'
	accept     = 'a'
	reject     = 'r'
	discard    = 'd'
	tempFail   = 't'
	replyCode  = 'y'
	skip       = 's' // the rest of the body
	progress   = 'p' // it is still at work
	quarantine = 'q'
	changes    = "+2-bhime" // in the message or the envelope
)

// A wish is what a milter asks for of a command: not to be told, or not to be
// asked for an answer.
type wish struct{ untold, unasked uint32 }

var wishes = map[byte]wish{
	connect:   {1 << 0, 1 << 12},
	helo:      {1 << 1, 1 << 13},
	mail:      {1 << 2, 1 << 14},
	rcpt:      {1 << 3, 1 << 15},
	body:      {1 << 4, 1 << 19},
	field:     {1 << 5, 1 << 7},
	endHeader: {1 << 6, 1 << 18},
	data:      {1 << 9, 1 << 16},
}

const (
	version    = 6         // of the protocol
	oldest     = 2         // that there are milters of
	allActions = 1<<9 - 1  // what a milter may want to do
	allWishes  = 1<<21 - 1 // that have a meaning, one of them without a command:
	leadSpace  = 1 << 20   // a field's value begins with the octet behind the colon

	maxSent  = 65535   // octets of data in a packet that libmilter takes
	maxHeard = 1 << 20 // the same that we do
	maxKept  = 4 << 10 // of those; more is only in changes, which nobody makes
	maxName  = 998     // octets of the name of a field (RFC 5322 2.1.1)
)

// A dialogue is one conversation about one message.
type dialogue struct {
	hostname address.Domain
	r        *bufio.Reader
	w        *bufio.Writer

	wishes      uint32
	answer      byte   // the last one
	said        []byte // what came with it
	quarantined bool
	err         error
}

// show tells everything there is to know about a message, until the milter has
// decided. Without an error the answer is its decision.
func (d *dialogue) show(env *message.Envelope, client address.Domain, msg *message.Message) {
	name, ip, family := "unknown", env.Client.String(), byte('4') // as Postfix says it
	if client != "" {
		name = client.String()
	}
	if env.Client.Is6() {
		family = '6'
	}
	from := env.From.String()
	if d.negotiate() &&
		d.tell(connect, texts("j", d.hostname.String(), "{daemon_name}", d.hostname.String(), "v", "onward",
			"_", name+" ["+ip+"]", "{client_name}", name, "{client_addr}", ip),
			append(append(texts(name), family, 0, 0), texts(ip)...)) && // the port is not known
		d.tell(helo, nil, texts(env.Helo)) &&
		d.tell(mail, texts("i", env.ID, "{mail_addr}", from), texts("<"+from+">")) &&
		d.recipients(env.Recipients) &&
		d.tell(data, nil, nil) &&
		d.fields(msg.Fields()) &&
		d.tell(endHeader, nil, nil) &&
		d.body(msg.Body()) {
		d.tell(endBody, nil, nil)
	}
}

func (d *dialogue) recipients(all []message.Recipient) bool {
	for _, r := range all[:min(len(all), maxRecipients)] {
		to := r.Address.String()
		if !d.tell(rcpt, texts("{rcpt_addr}", to), texts("<"+to+">")) {
			return false
		}
	}
	return true
}

// fields tells the header. Values are as sendmail and Postfix have them: folded by
// LF alone, and without the space behind the colon unless the milter wants it.
// What is longer than libmilter takes is cut, as it would end the conversation.
func (d *dialogue) fields(all []message.Field) bool {
	for _, f := range all {
		if f.Name == "" || len(f.Name) > maxName {
			continue // is none
		}
		_, value, _ := bytes.Cut(bytes.TrimSuffix(f.Raw, []byte("\r\n")), []byte(":"))
		value = bytes.ReplaceAll(value, []byte("\r\n"), []byte("\n"))
		if d.wishes&leadSpace == 0 {
			value = bytes.TrimPrefix(value, []byte(" "))
		}
		value = value[:min(len(value), maxSent-len(f.Name)-2)]
		if !d.tell(field, nil, texts(f.Name, string(value))) {
			return false
		}
	}
	return true
}

func (d *dialogue) body(r io.Reader) bool {
	chunk := make([]byte, maxSent)
	for {
		n, err := io.ReadFull(r, chunk)
		if n > 0 && !d.tell(body, nil, chunk[:n]) {
			return false
		}
		switch {
		case err == io.EOF, err == io.ErrUnexpectedEOF, d.answer == skip:
			return true
		case err != nil:
			d.err = fmt.Errorf("our copy of the message: %w", err)
			return false
		}
	}
}

// negotiate agrees on what is told and answered.
func (d *dialogue) negotiate() bool {
	var offer [12]byte
	binary.BigEndian.PutUint32(offer[0:], version)
	binary.BigEndian.PutUint32(offer[4:], allActions)
	binary.BigEndian.PutUint32(offer[8:], allWishes)
	d.send(negotiate, offer[:])
	if d.hear(); d.err != nil {
		return false
	}
	if d.answer != negotiate || len(d.said) < len(offer) || binary.BigEndian.Uint32(d.said) < oldest {
		d.err = fmt.Errorf("it does not speak the milter protocol: %q %.40q", d.answer, d.said)
		return false
	}
	d.wishes = binary.BigEndian.Uint32(d.said[8:])
	if binary.BigEndian.Uint32(d.said) < 4 {
		d.wishes |= wishes[data].untold // it does not know that command
	}
	return true
}

// tell says a command, and reports whether the milter wants to know more.
func (d *dialogue) tell(command byte, values, text []byte) bool {
	wish := wishes[command]
	if d.wishes&wish.untold != 0 {
		return true
	}
	if values != nil {
		d.send(macros, append([]byte{command}, values...))
	}
	d.send(command, text)
	if d.wishes&wish.unasked != 0 {
		return true
	}
	for {
		d.hear()
		switch {
		case d.err != nil:
			d.err = fmt.Errorf("after %q: %w", command, d.err)
			return false
		case d.answer == quarantine:
			d.quarantined = true
		case d.answer == progress, bytes.IndexByte([]byte(changes), d.answer) >= 0:
		case d.answer == goOn, d.answer == skip && command == body:
			return true
		case bytes.IndexByte([]byte{accept, reject, discard, tempFail, replyCode}, d.answer) >= 0:
			return false
		default: // a shutdown too
			d.err = fmt.Errorf("it answers %q to %q", d.answer, command)
			return false
		}
	}
}

// send writes a packet, sooner or later. Errors appear when the answer is read.
func (d *dialogue) send(code byte, text []byte) {
	var head [5]byte
	binary.BigEndian.PutUint32(head[:], uint32(1+len(text)))
	head[4] = code
	d.w.Write(head[:])
	d.w.Write(text)
}

// hear reads a packet.
func (d *dialogue) hear() {
	if d.err = d.w.Flush(); d.err != nil {
		return
	}
	var head [5]byte
	if _, d.err = io.ReadFull(d.r, head[:]); d.err != nil {
		return
	}
	size := int64(binary.BigEndian.Uint32(head[:])) - 1
	if size < 0 || size > maxHeard {
		d.err = errors.New("a packet of impossible length")
		return
	}
	d.answer, d.said = head[4], make([]byte, min(size, maxKept))
	if _, d.err = io.ReadFull(d.r, d.said); d.err == nil {
		_, d.err = d.r.Discard(int(size) - len(d.said))
	}
}

// texts are strings as the protocol has them. None has a NUL in it: names and
// addresses are checked, and a header with one is refused (RELIABILITY 13).
func texts(all ...string) []byte {
	var b []byte
	for _, s := range all {
		b = append(append(b, s...), 0)
	}
	return b
}
