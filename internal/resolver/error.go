package resolver

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// The kinds of failure, for errors.Is. Every *Error is exactly one of them.
var (
	// ErrNotFound: the name does not exist, nor any name below it (NXDOMAIN, RFC 8020).
	ErrNotFound = errors.New("no such name")

	// ErrNoData: the name exists, but has no record of this type (RFC 2308 2.2).
	ErrNoData = errors.New("no record of this type")

	// ErrTemporary: nothing was learned. SERVFAIL, REFUSED and every other
	// RCODE, a timeout, a network error, a malformed answer, a loop of CNAMEs,
	// or the caller's context ended.
	ErrTemporary = errors.New("temporary DNS trouble")
)

// An Error is a question that brought no records.
type Error struct {
	Name string // as asked
	Type Type
	Kind error // ErrNotFound, ErrNoData or ErrTemporary
	Err  error // what exactly happened; nil when Kind says it all
}

// Error returns one line: name, type, kind, cause.
func (e *Error) Error() string {
	s := "lookup " + e.Name + " " + e.Type.String() + ": " + e.Kind.Error()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives errors.Is both the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// wrap makes an Error about q from what a lookup came to: ErrNotFound,
// ErrNoData, or any other, which is the cause of temporary trouble.
func wrap(q question, err error) error {
	switch err {
	case nil:
		return nil
	case ErrNotFound, ErrNoData:
		return &Error{Name: q.name, Type: q.t, Kind: err}
	default:
		return &Error{Name: q.name, Type: q.t, Kind: ErrTemporary, Err: err}
	}
}

// panicError is a panic as an error: what strangers put into the DNS ends one lookup
// at most, never the process (RELIABILITY 89).
func panicError(p any) error { return fmt.Errorf("panic: %v\n%s", p, debug.Stack()) }
