// Package authres writes, reads and recognises Authentication-Results fields
// (RFC 8601), and the same text where it stands in ARC-Authentication-Results
// (RFC 8617 4.1.1).
//
// Rules for a caller:
//   - Before a field of ours is added, every field for which Claims reports true
//     is taken out (R1, R5); all others stay (R4). A program behind us believes
//     whatever bears our name.
//   - Values and reasons may be anything a stranger sent: Field makes them
//     harmless (R3). All else in a Result is the caller's own words.
//   - What Parse returns is foreign text, however well formed. It proves nothing
//     unless the field came from somebody trusted.
package authres

import (
	"fmt"
	"strconv"
	"strings"
)

// Name is the name of the field, which is compared without case.
const Name = "Authentication-Results"

// Limits of what Parse accepts. Its work is linear in the length of the field,
// which the header limit bounds; these bound what it makes of it.
const (
	maxResults    = 100 // in a field
	maxProperties = 50  // of a result
	maxWord       = 64  // octets of a method, result or property name
)

// A Header is what one field says.
type Header struct {
	ID      string   // authserv-id: who says it; a domain name as a rule
	Results []Result // in order; empty when nothing was checked ("none")
}

// A Result is the outcome of one method (RFC 8601 2.2 resinfo).
type Result struct {
	Method     string // lower case: "spf", "dkim", "arc", "dmarc", "iprev"
	Value      string // lower case: "pass", "fail", "none", "temperror" ...
	Comment    string // the first one after the value, without its parentheses
	Reason     string
	Properties []Property
}

// A Property is one thing the result was found from, such as header.d=example.org.
// Type is empty for "action=none", which Microsoft writes and no standard knows.
type Property struct {
	Type  string // lower case: "smtp", "header", "body", "policy"
	Name  string // lower case
	Value string
}

// Property returns the value of the first property of that type and name.
func (r Result) Property(ptype, name string) string {
	for _, p := range r.Properties {
		if p.Type == ptype && p.Name == name {
			return p.Value
		}
	}
	return ""
}

// Parse reads the body of a field, folded or not. It takes comments, folds and
// quotes wherever the grammar has them, and a little of what is written in
// violation of it: no result at all, an empty one, a property without a type.
// Anything else is an error.
func Parse(body string) (Header, error) {
	s := scanner{rest: body}
	id, err := s.id()
	if err != nil {
		return Header{}, err
	}
	h := Header{ID: id}
	for s.take(';') {
		if s.rest == "" || s.rest[0] == ';' {
			continue
		}
		r, none, err := s.result()
		if err != nil {
			return Header{}, err
		}
		if none {
			continue
		}
		if h.Results = append(h.Results, r); len(h.Results) > maxResults {
			return Header{}, fmt.Errorf("more than %d results", maxResults)
		}
	}
	if s.rest != "" || s.unclosed {
		return Header{}, s.unexpected("end of result")
	}
	return h, nil
}

// id reads the authserv-id and the version that may follow it.
func (s *scanner) id() (string, error) {
	s.cfws()
	id := s.value()
	s.cfws()
	if version := s.word(); strings.Trim(version, "0123456789") != "" {
		return "", fmt.Errorf("version %.40q is no number", version)
	}
	s.cfws()
	if id == "" || s.unclosed || s.rest != "" && s.rest[0] != ';' {
		return "", s.unexpected("authserv-id")
	}
	return id, nil
}

// result reads "method/1=value (comment) reason=... ptype.property=...", or the
// word "none", which says that there are no results.
func (s *scanner) result() (r Result, none bool, err error) {
	r.Method = strings.ToLower(s.word())
	if s.cfws(); r.Method == "none" && (s.rest == "" || s.rest[0] == ';') {
		return r, true, nil
	}
	if s.take('/') { // the version of the method; there is only one
		s.word()
		s.cfws()
	}
	equals := s.take('=')
	r.Value = strings.ToLower(s.word())
	if r.Method == "" || !equals || r.Value == "" {
		return r, false, s.unexpected("method=result")
	}
	r.Comment = s.cfws()
	for s.rest != "" && s.rest[0] != ';' {
		if err := s.property(&r); err != nil {
			return r, false, err
		}
	}
	return r, false, nil
}

// property reads one "ptype.property=value" or "reason=value" into r.
func (s *scanner) property(r *Result) error {
	var p Property
	p.Name = strings.ToLower(s.word())
	s.cfws()
	typed := s.take('.')
	if typed {
		p.Type, p.Name = p.Name, strings.ToLower(s.word())
		s.cfws()
	}
	if p.Name == "" || typed && p.Type == "" || !s.take('=') {
		return s.unexpected("ptype.property=value")
	}
	p.Value = s.value()
	s.cfws()
	if p.Type == "" && p.Name == "reason" {
		r.Reason = p.Value
		return nil
	}
	if r.Properties = append(r.Properties, p); len(r.Properties) > maxProperties {
		return fmt.Errorf("more than %d properties", maxProperties)
	}
	return nil
}

// ParseInstance splits the body of an ARC-Authentication-Results field into its
// instance number, which comes first, and the rest, which Parse reads (RFC 8617
// 4.1.1). The number is not checked beyond being one of two digits at most.
func ParseInstance(body string) (instance int, rest string, err error) {
	s := scanner{rest: body}
	s.cfws()
	tag := s.word()
	s.cfws()
	if tag != "i" || !s.take('=') {
		return 0, "", s.unexpected("i= at the start")
	}
	digits := s.word()
	s.cfws()
	i, err := strconv.ParseUint(digits, 10, 8)
	if err != nil || len(digits) > 2 {
		return 0, "", fmt.Errorf("instance %.40q is no number of at most two digits", digits)
	}
	if !strings.HasPrefix(s.rest, ";") {
		return 0, "", s.unexpected("semicolon after the instance")
	}
	return int(i), s.rest[1:], nil
}
