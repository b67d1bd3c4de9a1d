// Package replyaddr knows the addresses that stand for authors in a From which we
// rewrote, and who may write to them (DESIGN.md 9.5):
//
//	reply-abcdefghijklmnopqrstuvwxyz@mx.example.org
//
// Such an address belongs to one alias and one author. Mail to it goes on to that
// author, in the name of that alias, and comes from the mailbox behind the alias
// or not at all: it is an open relay for nobody. The token in it is random and
// stored; it is no SRS address, and is never read as one.
//
// Steps for a caller: For makes an address. At RCPT, Is tells one and Open finds
// what it stands for; when the message has been authenticated, Permit decides. What
// goes on then gets its header from package rewrite.
//
// Every error is a *reply.Reply.
package replyaddr

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/mailauth/dmarc"
	"onward/internal/reply"
)

// prefix is what the local part begins with.
const prefix = "reply-"

// form is that of a local part: the prefix and what crypto/rand.Text makes, 26
// characters of base32 or 130 bits, in any case (S9). Anything else could be
// guessed, or is somebody's alias.
var form = regexp.MustCompile(`^[Rr][Ee][Pp][Ll][Yy]-[A-Za-z2-7]{26}$`)

// A Store keeps what addresses stand for as long as they are in use. What
// KeepReply returned is on disk.
type Store interface {
	// KeepReply stores token for the author of mail to alias and returns it, or
	// returns the one that there is.
	KeepReply(ctx context.Context, token string, alias, author address.Mailbox, now time.Time) (string, error)
	// Reply returns what a token stands for, or zero Mailboxes, and notes its use.
	Reply(ctx context.Context, token string, now time.Time) (alias, author address.Mailbox, err error)
}

// A Book makes and reads reply addresses. It may be used by several goroutines; a
// new configuration makes a new one with the same store and Uses.
type Book struct {
	domains []address.Domain
	store   Store
	uses    *Uses
}

// New returns a Book for addresses in these domains, which are ours.
func New(domains []address.Domain, store Store, uses *Uses) *Book {
	return &Book{domains: domains, store: store, uses: uses}
}

// For returns the address that stands for the author of mail to alias, in one of
// the domains of the Book. It is the same every time.
func (b *Book) For(ctx context.Context, domain address.Domain, alias, author address.Mailbox) (address.Mailbox, error) {
	if !slices.Contains(b.domains, domain) || author == (address.Mailbox{}) {
		return address.Mailbox{}, reply.Trouble(fmt.Errorf("no reply address in %q for %q", domain, author))
	}
	token, err := b.store.KeepReply(ctx, rand.Text(), alias.Fold(), author, time.Now())
	if err != nil {
		return address.Mailbox{}, reply.Trouble(err)
	}
	return address.Mailbox{Local: prefix + strings.ToLower(token), Domain: domain}, nil
}

// Is reports whether an address is for Open to judge, and for nobody else.
func (b *Book) Is(to address.Mailbox) bool {
	return slices.Contains(b.domains, to.Domain) && form.MatchString(to.Local)
}

// A Pair is what a reply address stands for.
type Pair struct {
	Alias  address.Mailbox // in whose name mail goes on
	Author address.Mailbox // to whom

	token string
}

// Open returns what a reply address stands for. Errors are 550 5.1.1 when it is
// none, and 451 4.3.0.
func (b *Book) Open(ctx context.Context, to address.Mailbox) (Pair, error) {
	p := Pair{token: strings.ToUpper(strings.TrimPrefix(strings.ToLower(to.Local), prefix))}
	if !b.Is(to) {
		return Pair{}, unknown(to)
	}
	var err error
	if p.Alias, p.Author, err = b.store.Reply(ctx, p.token, time.Now()); err != nil {
		return Pair{}, reply.Trouble(err)
	}
	if p.Author == (address.Mailbox{}) {
		return Pair{}, unknown(to)
	}
	return p, nil
}

func unknown(to address.Mailbox) error {
	return reply.New(550, "5.1.1", "<%s>: no such address here", to)
}

// Permit decides whether a message may use the address, and counts it when it may.
// The message is to pass DMARC, with the address of a present target of the alias
// in From: only who reads the mail of the alias may answer it. Errors are
// 550 5.7.1, and 451 4.7.0 where the DNS does not say.
func (b *Book) Permit(p Pair, from dmarc.From, verdict dmarc.Verdict, targets []address.Mailbox) error {
	isAuthor := func(target address.Mailbox) bool { return target.Fold() == from.Mailbox.Fold() }
	switch {
	case verdict.Result == dmarc.TempError && slices.ContainsFunc(targets, isAuthor):
		return &reply.Reply{Code: 451, Status: "4.7.0", Err: errors.New(verdict.Reason),
			Text: "DMARC cannot be evaluated just now for the address in From, as the DNS does not answer; please try again later"}
	case verdict.Result != dmarc.Pass:
		return refuse("DMARC did not pass for the address in From", errors.New(verdict.Reason))
	case !slices.ContainsFunc(targets, isAuthor):
		return refuse("the address in From is not who it is for", fmt.Errorf("%q is no target of %q", from.Mailbox, p.Alias))
	case !b.uses.take(p.token, time.Now()):
		return reply.New(550, "5.7.1", "more than %d messages an hour to this address", MaxUses)
	}
	return nil
}

func refuse(why string, err error) error {
	return &reply.Reply{Code: 550, Status: "5.7.1", Text: "this address takes answers from one mailbox only: " + why, Err: err}
}
