package spf

import (
	"context"
	"fmt"
	"net"

	library "blitiri.com.ar/go/spf"

	"onward/internal/resolver"
)

// stand is the name that takes the place of a target in what the library is
// given. A target is foreign octets, which it would expand once more.
const stand = "target.invalid"

// ask has the library judge one of a, mx and exists, in a record that holds
// nothing else (RFC 7208 5.3, 5.4, 5.7).
func (e *evaluation) ask(ctx context.Context, step *Step, t Term, target string) (bool, error) {
	record := fmt.Sprintf("v=spf1 %s/%d//%d", t.Name, t.Bits4, t.Bits6)
	if t.Name == "exists" {
		record = "v=spf1 exists:" + stand
	}
	q := &questions{e: e, step: step, record: record, target: target, family: resolver.TypeA}
	if t.Name != "exists" && e.in.IP.Is6() { // exists asks for A in any case
		q.family = resolver.TypeAAAA
	}
	// Its error says something even of a pass: the result alone counts (B14).
	result, err := library.CheckHostWithSender(e.in.IP.AsSlice(), stand, "postmaster@"+stand,
		library.WithContext(ctx), library.WithResolver(q))
	if err := e.overVoids(); err != nil {
		return false, err
	}
	switch result {
	case library.Pass:
		return true, nil
	case library.Neutral:
		return false, nil
	case library.PermError: // more than 10 MX
		return false, trouble{PermError, fmt.Sprintf("%.200q: %v", t.Text, err)}
	default:
		return false, fmt.Errorf("%.200q: %w", t.Text, q.err)
	}
}

// questions answers what the library asks about one term.
type questions struct {
	e      *evaluation
	step   *Step
	record string
	target string
	family resolver.Type // of the client's address
	err    error         // the last trouble
}

// LookupTXT returns the record made for the term.
func (q *questions) LookupTXT(context.Context, string) ([]string, error) {
	return []string{q.record}, nil
}

// LookupMX returns the mail exchangers of the target.
func (q *questions) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	answer, err := q.lookup(ctx, name, resolver.TypeMX)
	if err != nil {
		return nil, err
	}
	var hosts []*net.MX
	for _, mx := range answer.MX() {
		hosts = append(hosts, &net.MX{Host: mx.Host, Pref: mx.Preference})
	}
	return hosts, nil
}

// LookupIPAddr returns those addresses of the target or an exchanger that can
// match.
func (q *questions) LookupIPAddr(ctx context.Context, name string) ([]net.IPAddr, error) {
	answer, err := q.lookup(ctx, name, q.family)
	if err != nil {
		return nil, err
	}
	var addrs []net.IPAddr
	for _, a := range answer.Addrs() {
		addrs = append(addrs, net.IPAddr{IP: a.AsSlice()})
	}
	return addrs, nil
}

// LookupAddr is for ptr, which the library is not asked about.
func (q *questions) LookupAddr(context.Context, string) ([]string, error) { return nil, nil }

// lookup asks for us. Its error has the one type that the library tells
// temporary from permanent by (B10).
func (q *questions) lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	primary := name == stand
	if primary {
		name = q.target
	}
	answer, err := q.e.lookup(ctx, q.step, name, t)
	if primary {
		q.e.void(q.step, err)
	}
	switch {
	case err == nil:
		return answer, nil
	case isNo(err):
		return nil, &net.DNSError{Err: err.Error(), Name: name, IsNotFound: true}
	default:
		q.err = err
		return nil, &net.DNSError{Err: err.Error(), Name: name, IsTemporary: true}
	}
}
