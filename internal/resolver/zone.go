package resolver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// zoneTTL is the TTL, in seconds, of records whose source gives none, and of
// every "no" below no SOA.
const zoneTTL = 300

// everyOther stands in a node for all types that it does not list.
const everyOther Type = 0

// A Zone is a Resolver whose records are all the DNS there is: a name that is
// not in it does not exist. Aliases are followed, wildcards expanded (RFC 4592).
// It may be changed while in use.
type Zone struct {
	mu    sync.RWMutex
	nodes map[string]node // by canonical name
	below map[string]int  // nodes below a name, which exists then too (RFC 4592 2.2.2)
}

// A node is what a zone has at one name. Without any set, the name still exists.
type node map[Type]rrset

// An rrset is the records of one type, or the failure of every such question.
type rrset struct {
	records []dns.RR
	rcode   string // "SERVFAIL", "TIMEOUT", or empty
}

// NewZone returns a zone with nothing in it.
func NewZone() *Zone {
	return &Zone{nodes: make(map[string]node), below: make(map[string]int)}
}

// Set makes data the records of type t at name. Data is written as in a master
// file, with absolute names ("10 mx.example.org."), but TXT is the bare text, of
// any length. Without data the name exists and has none. The name may be a
// wildcard, "*.example.org".
func (z *Zone) Set(name string, t Type, data ...string) error {
	owner, err := canonical(name)
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	var set rrset
	for _, d := range data {
		rr, err := newRecord(owner, t, d)
		if err != nil {
			return fmt.Errorf("%s %v: %w", name, t, err)
		}
		set.records = append(set.records, rr)
	}
	z.put(owner, t, set)
	return nil
}

// Fail makes every question for type t at name fail with an RCODE, such as
// "SERVFAIL" or "REFUSED", or with silence: "TIMEOUT".
func (z *Zone) Fail(name string, t Type, rcode string) error {
	owner, err := canonical(name)
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	if _, ok := dns.StringToRcode[rcode]; !ok && rcode != "TIMEOUT" {
		return fmt.Errorf("%s %v: rcode %q is neither an RCODE nor TIMEOUT", name, t, rcode)
	}
	z.put(owner, t, rrset{rcode: rcode})
	return nil
}

// Remove takes away what Set or Fail has put at name for type t. With the last
// type the name is gone.
func (z *Zone) Remove(name string, t Type) {
	owner, err := canonical(name)
	if err != nil {
		return
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	n, ok := z.nodes[owner]
	delete(n, t)
	if ok && len(n) == 0 {
		delete(z.nodes, owner)
		z.count(owner, -1)
	}
}

func (z *Zone) put(owner string, t Type, set rrset) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.nodes[owner] == nil {
		z.nodes[owner] = make(node)
		z.count(owner, +1)
	}
	z.nodes[owner][t] = set
}

// count notes for all names above owner that a node came or went.
func (z *Zone) count(owner string, change int) {
	for owner != "." {
		owner = parent(owner)
		z.below[owner] += change
	}
}

// parent returns the name one label up; the root is its own.
func parent(name string) string {
	if i, end := dns.NextLabel(name, 0); !end {
		return name[i:]
	}
	return "."
}

// Lookup implements Resolver. It never waits: a TIMEOUT is reported at once.
func (z *Zone) Lookup(ctx context.Context, name string, t Type) (*Answer, error) {
	q := question{tidy(name), t}
	if err := ctx.Err(); err != nil {
		return nil, wrap(q, err)
	}
	owner, err := canonical(q.name)
	if err != nil {
		return nil, &Error{Name: q.name, Type: t, Kind: ErrNotFound, Err: err}
	}
	msg := z.Reply(owner, t)
	if msg == nil {
		return nil, wrap(q, errors.New("no server answered in time"))
	}
	a, err := read(msg, owner, t)
	return a, wrap(q, err)
}

// Reply returns the message with which a server of this zone answers, without
// ID and question, or nil where it is to stay silent.
func (z *Zone) Reply(name string, t Type) *dns.Msg {
	msg := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, Authoritative: true}}
	owner, err := canonical(name)
	if err != nil {
		msg.Rcode = dns.RcodeFormatError
		return msg
	}
	z.mu.RLock()
	defer z.mu.RUnlock()
	for range maxChain + 1 {
		n, exists := z.at(owner)
		set, alias := n.answer(t)
		switch {
		case !exists:
			msg.Rcode = dns.RcodeNameError
			msg.Ns = z.authority(owner)
			return msg
		case set.rcode == "TIMEOUT":
			return nil
		case set.rcode != "":
			msg.Rcode = dns.StringToRcode[set.rcode]
			return msg
		case len(set.records) == 0:
			msg.Ns = z.authority(owner)
			return msg
		}
		msg.Answer = append(msg.Answer, owned(set.records, owner)...)
		if !alias {
			return msg
		}
		owner, _ = canonical(set.records[0].(*dns.CNAME).Target)
	}
	return &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, Rcode: dns.RcodeServerFailure}}
}

// at returns the node at name, or of the wildcard that stands for it: the one
// directly below the closest name that exists (RFC 4592 3.3.1).
func (z *Zone) at(name string) (n node, exists bool) {
	for at := name; !z.exists(at) && at != "."; at = parent(at) {
		name = "*." + strings.TrimPrefix(parent(at), ".")
	}
	return z.nodes[name], z.exists(name)
}

func (z *Zone) exists(name string) bool {
	return z.nodes[name] != nil || z.below[name] > 0
}

// answer returns what n has for type t, and whether that is an alias instead.
func (n node) answer(t Type) (set rrset, alias bool) {
	if set, ok := n[t]; ok {
		return set, false
	}
	if set, ok := n[TypeCNAME]; ok && len(set.records) > 0 {
		return set, true
	}
	return n[everyOther], false
}

// owned returns records under the name that was asked for, not the wildcard's.
func owned(records []dns.RR, owner string) []dns.RR {
	if lower(records[0].Header().Name) == owner {
		return records
	}
	copies := make([]dns.RR, len(records))
	for i, rr := range records {
		copies[i] = dns.Copy(rr)
		copies[i].Header().Name = owner
	}
	return copies
}

// authority returns the SOA that says how long a "no" about name holds
// (RFC 2308 3).
func (z *Zone) authority(name string) []dns.RR {
	for {
		if set := z.nodes[name][Type(dns.TypeSOA)]; len(set.records) > 0 {
			return set.records[:1]
		}
		if name == "." {
			hdr := dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: zoneTTL}
			return []dns.RR{&dns.SOA{Hdr: hdr, Ns: ".", Mbox: ".", Serial: 1, Minttl: zoneTTL}}
		}
		name = parent(name)
	}
}
