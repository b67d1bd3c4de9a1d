// Package rewrite makes the header of a copy that cannot go on as it came: From
// for mail that would fail DMARC at its target (DESIGN.md 4, "Unforwardable
// mail"), and Reply for the answer to it, which must not tell where its author's
// mail is kept (DESIGN.md 9.5).
//
// Both are pure functions of header fields; the body stays as it is. What they
// write is for people and programs that know neither us nor the first version:
//
//   - It is well formed whatever came: every line is ours or as it came, none of
//     ours is longer than RFC 5322 2.1.1 allows, and text from outside gets into a
//     line through quotes or encoded words only (RELIABILITY 62).
//   - From has one address, which is ours to answer for. The name beside it is the
//     author's, in any language, and never looks like another address.
//   - Who reads the copy has what was there: fields that would now say something
//     untrue stay under another name.
package rewrite

import (
	"bytes"
	"strings"

	"onward/internal/address"
	"onward/internal/mailauth/dmarc"
	"onward/internal/message"
)

// original is put before the name of a field that no longer holds.
const original = "X-Original-"

// maxLine is the longest line that may be made, without CRLF (RFC 5322 2.1.1).
const maxLine = 998

// maxAuthors is how many authors are named.
const maxAuthors = 20

// From returns the header section of a copy whose From is an address of ours:
//
//	From: "Ada Lovelace via example.org" <reply-...@mx.example.org>
//	Reply-To: "Ada Lovelace" <ada@sender.example>
//	X-Original-From: Ada Lovelace <ada@sender.example>
//
// author is what dmarc.ParseFrom says of the fields, via the domain that the mail
// was written to, and reply the address that stands for the author.
//
// Reply-To is added when there is none, and names all authors; one that is there
// stays. Sender goes, to X-Original-Sender: it would name a stranger as the one who
// speaks for our address, and hosts that relay for their customers refuse it as
// they refuse a foreign From. DKIM-Signature goes likewise: each covers From (RFC
// 6376 5.4), so none can verify, and a failure under the author's name is worth
// less than none. ARC and Resent fields stay. A line that is no field goes:
// verifiers would not agree on what our own signature covers (RELIABILITY 52).
func From(fields []message.Field, author dmarc.From, via address.Domain, reply address.Mailbox) []byte {
	authors := authorsOf(fields, author)
	var line layout
	line.begin("From")
	line.words(append(phrase(namesOf(authors)+" via "+via.Unicode()), "<"+reply.String()+">"))
	line.end()
	if !answered(fields) {
		line.field("Reply-To", authors)
	}
	var header bytes.Buffer
	placed := false
	for _, f := range fields {
		switch {
		case f.Is("From"):
			if !placed {
				header.Write(line.text)
			}
			placed = true
			header.Write(renamed(f))
		case f.Is("Sender"), f.Is("DKIM-Signature"):
			header.Write(renamed(f))
		case f.Name == "", f.Is("Reply-To") && f.Value() == "":
		default:
			header.Write(f.Raw)
		}
	}
	if !placed {
		return append(line.text, header.Bytes()...)
	}
	return header.Bytes()
}

// authorsOf returns who wrote the message. Where there is one author by the rules
// that DMARC goes by, it is that one, whatever else could be read there.
func authorsOf(fields []message.Field, author dmarc.From) []person {
	var all []person
	for _, f := range fields {
		if f.Is("From") {
			all = append(all, readPersons(f.Value(), maxAuthors-len(all))...)
		}
	}
	if author.Mailbox == (address.Mailbox{}) {
		return all
	}
	for _, p := range all {
		if p.mailbox == author.Mailbox {
			return []person{p}
		}
	}
	return []person{{mailbox: author.Mailbox}}
}

// namesOf returns what to call the authors. Without a name it is the address, in
// a form that nobody takes for one.
func namesOf(authors []person) string {
	var names []string
	for _, p := range authors {
		if name := clean(p.name); name != "" {
			names = append(names, name)
		} else if p.mailbox != (address.Mailbox{}) {
			names = append(names, clean(p.mailbox.Local+" at "+p.mailbox.Domain.Unicode()))
		}
	}
	if names == nil {
		return "unknown"
	}
	return shorten(strings.Join(names, ", "))
}

// answered reports whether there is a Reply-To that says something.
func answered(fields []message.Field) bool {
	for _, f := range fields {
		if f.Is("Reply-To") && f.Value() != "" {
			return true
		}
	}
	return false
}

// renamed returns a field as it stands under its new name, or nothing where its
// first line would become too long.
func renamed(f message.Field) []byte {
	first, _, _ := bytes.Cut(f.Raw, []byte("\r\n"))
	if len(original)+len(first) > maxLine {
		return nil
	}
	return append([]byte(original), f.Raw...)
}
