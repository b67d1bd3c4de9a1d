package rewrite

import (
	"regexp"
	"slices"
	"strings"

	"onward/internal/address"
	"onward/internal/mailauth/dmarc"
	"onward/internal/message"
)

// A Reply is mail to a reply address on its way to the author that it stands for
// (DESIGN.md 9.5).
type Reply struct {
	Alias   address.Mailbox // in whose name it goes on
	Address address.Mailbox // the reply address that it was written to
	Author  address.Mailbox // where it goes
}

// kept are the fields that a reply keeps: what makes up the message for its
// reader, or tells a machine not to answer. What else a mailbox provider adds is
// about its customer, often in forms that nobody but it can read, and goes. So do
// signatures and results, which are about a From that is gone.
var kept = []string{"Subject", "Date", "Message-ID", "In-Reply-To", "References", "MIME-Version",
	"Keywords", "Comments", "Thread-Topic", "Thread-Index", "Importance", "Priority", "X-Priority", "Sensitivity",
	"Auto-Submitted", "Precedence", "X-Auto-Response-Suppress"}

// keptPrefixes are of names that are kept as well: what the body is, and our mark
// against loops.
var keptPrefixes = []string{"Content-", "X-Onward-"}

// Header returns the header section of the reply, whose From is the private
// address behind the alias. From becomes the alias, under the name that its owner
// writes under; To and Cc name the author where they had the reply address. Fields
// that name the private address, in whatever case, with any tag, in clear or in
// encoded words, name the alias instead, or go.
//
// The hops so far stay as many as they are, so that a loop is still one (P7), but
// tell nothing but when they were. Our own Authentication-Results would name the
// private address too (smtp.mailfrom), so such a copy goes without.
func (r Reply) Header(fields []message.Field, owner dmarc.From) []byte {
	w := replyWriter{Reply: r, private: owner.Mailbox, names: mention(owner.Mailbox)}
	from := person{mailbox: r.Alias}
	for _, p := range authorsOf(fields, owner) {
		from.name = w.harmless(p.name)
	}
	w.field("From", []person{from})
	for _, f := range fields {
		switch {
		case f.Is("To"), f.Is("Cc"), f.Is("Reply-To"):
			w.list(f)
		case f.Is("Received"):
			w.hop(f)
		case isKept(f.Name):
			w.keep(f)
		}
	}
	return w.text
}

func isKept(name string) bool {
	same := func(k string) bool { return strings.EqualFold(k, name) }
	begins := func(k string) bool { return len(name) > len(k) && strings.EqualFold(k, name[:len(k)]) }
	return slices.ContainsFunc(kept, same) || slices.ContainsFunc(keptPrefixes, begins)
}

// A replyWriter writes a header without the private address.
type replyWriter struct {
	Reply
	layout
	private address.Mailbox
	names   *regexp.Regexp // finds what names it
}

// harmless returns a name, or none when it has the private address in it.
func (w *replyWriter) harmless(name string) string {
	if w.names.MatchString(visible(name)) {
		return ""
	}
	return name
}

// list writes an address list, as it stands where nobody in it has to be replaced.
func (w *replyWriter) list(f message.Field) {
	persons := readPersons(f.Value(), len(f.Raw))
	changed := false
	for i := range persons {
		p := &persons[i]
		before := *p
		switch {
		case p.mailbox.Fold() == w.Address.Fold():
			p.name = strings.TrimSuffix(visible(p.name), " via "+w.Alias.Domain.Unicode())
			p.mailbox = w.Author
		case isTagged(p.mailbox, w.private):
			p.mailbox = w.Alias
		case w.names.MatchString(p.mailbox.Local):
			p.mailbox = address.Mailbox{} // it carries mail to the private address
		}
		p.name = w.harmless(p.name)
		changed = changed || *p != before
	}
	if text, _ := decodeWords(f.Value()); changed || w.names.MatchString(visible(text)) {
		w.field(f.Name, persons)
		return
	}
	w.text = append(w.text, f.Raw...)
}

// isTagged reports whether m is the mailbox of, with or without a tag.
func isTagged(m, of address.Mailbox) bool {
	m.Local, _, _ = strings.Cut(m.Local, "+")
	of.Local, _, _ = strings.Cut(of.Local, "+")
	return m.Fold() == of.Fold()
}

// mention returns what finds a mailbox in a text: in any case, with any tag, with
// the domain in either form, and as addresses stand inside other addresses and in
// parameters, with "=" or "%40" for "@". It finds a little more than it has to.
func mention(m address.Mailbox) *regexp.Regexp {
	base, _, _ := strings.Cut(m.Local, "+")
	local := regexp.QuoteMeta(base) + `(\+[^\s@=%"]*)?`
	return regexp.MustCompile(`(?i)(^|[^\pL\pN])("` + local + `"|` + local + `)\s*(@|=|%40)\s*(` +
		regexp.QuoteMeta(m.Domain.String()) + `|` + regexp.QuoteMeta(m.Domain.Unicode()) + `)`)
}

// keep writes a field as it stands, or with the alias in the place of the private
// address. One that cannot be written anew goes. A boundary is repeated in the
// body, where nothing is changed.
func (w *replyWriter) keep(f message.Field) {
	decoded, _ := decodeWords(f.Value())
	text := visible(decoded)
	if !w.names.MatchString(text) || f.Is("Content-Type") && strings.Contains(strings.ToLower(text), "boundary") {
		w.text = append(w.text, f.Raw...)
		return
	}
	text = w.names.ReplaceAllString(text, "${1}"+strings.ReplaceAll(w.Alias.String(), "$", "$$"))
	words := strings.Fields(text)
	if !isASCII(text) {
		words = encodeWords(text)
	}
	if slices.ContainsFunc(words, func(word string) bool { return len(f.Name)+len(": ")+len(word) > maxLine }) {
		return
	}
	w.begin(f.Name)
	w.words(words)
	w.end()
}

// when is what a date has to look like to be told.
var when = regexp.MustCompile(`^[A-Za-z0-9 ,:+()-]{10,50}$`)

// hop writes a Received field that tells nothing but its time.
func (w *replyWriter) hop(f message.Field) {
	value := f.Value()
	words := []string{"by", "private.invalid"}
	if date := strings.TrimSpace(value[strings.LastIndexByte(value, ';')+1:]); when.MatchString(date) {
		words = []string{"by", "private.invalid;", date}
	}
	w.begin("Received")
	w.words(words)
	w.end()
}
