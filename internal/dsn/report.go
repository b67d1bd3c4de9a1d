package dsn

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/message"
	"onward/internal/reply"
)

// maxHeader bounds what a report returns of the message: whole fields within
// this many octets. The body never goes back (RELIABILITY.md 5).
const maxHeader = 32 << 10

// A Report says that a message could not be delivered to one alias, or to several
// that stand for the same mailbox.
type Report struct {
	Hostname address.Domain  // ours
	ID       string          // of the report itself: message.NewID
	Now      time.Time       //
	Sender   address.Mailbox // who wrote, as MAIL FROM came in
	Alias    address.Mailbox // what it was written to
	Also     []address.Mailbox
	Target   address.Mailbox // where it should have gone, to leave that out
	Arrived  time.Time

	Expired bool         // tried for all its lifetime; otherwise refused
	Host    string       // of the destination, where it is known, to leave that out too
	Reply   *reply.Reply // why, as the sender may hear it
	Said    *reply.Reply // the destination's own last words; nil when there were none

	Header []byte // all fields of the copy that did not go through
}

// Compose returns the report. It fails only when an address has a line end in
// it, which no parsed address has.
func (r Report) Compose() (Mail, error) {
	kind := "message/delivery-status"
	utf8 := func(m address.Mailbox) bool { return !m.IsASCII() }
	if utf8(r.Sender) || slices.ContainsFunc(r.aliases(), utf8) { // N4, RFC 6533 3
		kind = "message/global-delivery-status"
	}
	status, err := r.status()
	if err != nil {
		return Mail{}, err
	}
	e := envelope{hostname: r.Hostname, id: r.ID, date: r.Now, to: r.Sender, auto: "auto-replied", // N1
		subject: fmt.Sprintf("Not delivered: your message to %s", r.Alias)}
	if n := len(r.Also); n > 0 {
		e.subject += fmt.Sprintf(" and %d more", n)
	}
	original := r.original()
	if id := messageID(original); id != "" {
		e.more = []string{"In-Reply-To", id, "References", id} // RFC 3834 3.1.5
	}
	return multipart(e.header(), "report", map[string]string{"report-type": "delivery-status"}, // N2, RFC 6522
		text(r.text()),
		part{kind: kind, content: status, raw: true},
		part{kind: "text/rfc822-headers", content: join(original)})
}

// status returns the part for machines (RFC 3464 2.2, 2.3). Nobody can give us
// ORCPT, so the original recipient is the one that RCPT named: the alias, as is
// the final one (N3).
func (r Report) status() ([]byte, error) {
	var b bytes.Buffer
	if err := block(&b, "Reporting-MTA", "dns; "+r.Hostname.String(), "Arrival-Date", stamp(r.Arrived)); err != nil {
		return nil, err
	}
	for _, alias := range r.aliases() {
		name := "rfc822; " + alias.String()
		if !alias.IsASCII() {
			name = "utf-8; " + alias.String()
		}
		recipient := []string{"Original-Recipient", name, "Final-Recipient", name, "Action", "failed", "Status", r.code()}
		if r.Said != nil {
			recipient = append(recipient, "Diagnostic-Code", "smtp; "+r.said(r.Said))
		}
		if err := block(&b, recipient...); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// aliases returns what the message was written to.
func (r Report) aliases() []address.Mailbox { return append([]address.Mailbox{r.Alias}, r.Also...) }

// code returns the enhanced status. A message that was tried for all its
// lifetime is "abandoned", which RFC 3463 3.5 calls 4.4.7, not 5.
func (r Report) code() string {
	switch {
	case r.Expired:
		return "4.4.7"
	case strings.HasPrefix(r.Reply.Status, "5."):
		return clean(r.Reply.Status)
	default:
		return "5.0.0"
	}
}

// text returns the part for people.
func (r Report) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Your message of %s\r\ncould not be delivered to\r\n\r\n", day(r.Arrived))
	for _, alias := range r.aliases() {
		fmt.Fprintf(&b, "    %s\r\n", alias)
	}
	b.WriteString("\r\n")
	b.WriteString(wrap("", r.happened()))
	words := r.Said
	if words == nil { // ours, which are for the operator too
		hidden := *r.Reply
		hidden.Text = HideNames(hidden.Text, r.Target.Domain, r.Host)
		words = &hidden
	}
	fmt.Fprintf(&b, "\r\n%s\r\n", wrap("    ", r.said(words)))
	b.WriteString(wrap("", r.advice()))
	b.WriteString("\r\n" + wrap("", fmt.Sprintf("If you cannot make it out, write to postmaster@%s. The header of your message is attached; the message itself is not.", cmp.Or(r.Alias.Domain, r.Hostname))))
	fmt.Fprintf(&b, "\r\n%s\r\n", r.Hostname)
	return b.String()
}

func (r Report) happened() string {
	switch {
	case r.Expired && r.Said != nil:
		return fmt.Sprintf("Its mailbox could not take the message for %s, and we have stopped trying. The last answer was:", r.age())
	case r.Expired:
		return fmt.Sprintf("Its mailbox could not be reached for %s, and we have stopped trying. The last obstacle was:", r.age())
	case r.Said != nil:
		return "Its mailbox refused the message. The answer was:"
	default:
		return "It cannot be handed over to the mailbox behind that address:"
	}
}

func (r Report) advice() string {
	if r.Expired {
		return "You can send it once more later, or reach the recipient in another way."
	}
	return "You can check the address, mend what the answer complains of and send the message once more, or reach the recipient in another way."
}

// age returns how long the message was tried, in whole days or hours.
func (r Report) age() string {
	hours := int(r.Now.Sub(r.Arrived).Round(time.Hour) / time.Hour)
	switch {
	case hours >= 36:
		return fmt.Sprintf("%d days", (hours+12)/24)
	case hours == 1:
		return "one hour"
	default:
		return fmt.Sprintf("%d hours", hours)
	}
}

// said returns a reply on one line, with the target left out.
func (r Report) said(words *reply.Reply) string {
	hidden := *words
	hidden.Text = Hide(words.Text, r.Target, r.Alias)
	return clean(hidden.String())
}

// original returns the fields of the message from our own Received down: what
// stands above it names the target. Not a word is changed in them, as that would
// show a sender who knows the target which one it is.
func (r Report) original() []message.Field {
	all := new(message.Message).With(r.Header).Fields()
	for i, f := range all {
		if f.Is("Received") {
			return all[i:]
		}
	}
	return nil
}

// join returns as many of the fields as a report returns.
func join(fields []message.Field) []byte {
	var b bytes.Buffer
	for _, f := range fields {
		if b.Len()+len(f.Raw) > maxHeader {
			break
		}
		b.Write(f.Raw)
	}
	return b.Bytes()
}

// messageID returns the id of the message, or "" when it has none that can
// stand in a field of ours.
func messageID(fields []message.Field) string {
	for _, f := range fields {
		if !f.Is("Message-ID") {
			continue
		}
		id := f.Value()
		strange := strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' })
		inner, opened := strings.CutPrefix(id, "<")
		inner, closed := strings.CutSuffix(inner, ">")
		if opened && closed && !strange && len(id) <= 250 && !strings.ContainsAny(inner, "<>") {
			return id
		}
		return ""
	}
	return ""
}

// Hide returns what a destination said with every address in the target's
// domain replaced by the alias, compared without case (STANDARDS.md N3): the
// target itself, with a tag or without, and whatever else the destination calls
// that mailbox.
func Hide(s string, target, alias address.Mailbox) string {
	for _, domain := range []string{target.Domain.String(), target.Domain.Unicode()} {
		s = hideDomain(s, "@"+domain, alias.String())
	}
	return s
}

// HideNames returns words of ours, which name the target's domain and its mail
// hosts where that helps an operator, without them. Addresses are for Hide. What a
// destination says is left alone, as the same domain may be meant as the sender's.
func HideNames(s string, domain address.Domain, host string) string {
	var b strings.Builder
	for s != "" {
		n := strings.IndexFunc(s, func(r rune) bool { return r > '~' || !partOfName(byte(r)) })
		if n < 0 {
			n = len(s)
		}
		name := strings.ToLower(strings.TrimRight(s[:n], "."))
		switch {
		case name == "" || strings.HasSuffix(b.String(), "@"):
			n = max(n, 1)
			b.WriteString(s[:n])
		case name == domain.String():
			b.WriteString("the destination" + s[len(name):n])
		case strings.EqualFold(name, host), strings.HasSuffix(name, "."+domain.String()):
			b.WriteString("(hidden)" + s[len(name):n])
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// hideDomain replaces every local part before at, and at itself.
func hideDomain(s, at, with string) string {
	var b strings.Builder
	for {
		i := indexFold(s, at)
		if i < 0 {
			return b.String() + s
		}
		end := i + len(at)
		if end < len(s) && partOfName(s[end]) && !(s[end] == '.' && (end+1 == len(s) || !partOfName(s[end+1]))) {
			b.WriteString(s[:end]) // a longer domain that begins with this one
		} else {
			b.WriteString(s[:localStart(s[:i])] + with)
		}
		s = s[end:]
	}
}

// localStart returns where the local part that s ends with begins.
func localStart(s string) int {
	if strings.HasSuffix(s, `"`) {
		return max(0, strings.LastIndexByte(s[:len(s)-1], '"'))
	}
	return strings.LastIndexAny(s, " \t\r\n<>()[]\",:;=") + 1
}

func partOfName(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_'
}

// indexFold is strings.Index without regard to ASCII case.
func indexFold(s, sub string) int {
	for i := 0; i+len(sub) <= len(s); i++ {
		if strings.EqualFold(s[i:i+len(sub)], sub) {
			return i
		}
	}
	return -1
}
