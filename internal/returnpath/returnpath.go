// Package returnpath makes the envelope sender of what we forward, and finds the
// first sender again when a bounce comes back to it.
//
// Most senders are carried by the address itself (package srs). Those that do
// not fit in 64 octets, or need quotes, UTF-8 or an address literal, are stored
// under a random token, which is then carried as the sender TOKEN@1:
//
//	SRS0=hash=stamp=1=TOKEN@srs.domain
//
// so that forgery, age and case are dealt with in one place. No sender can claim
// that domain: address.ParseDomain refuses a number.
//
// A sender gets one token a UTC day, which is also the day of the stamp: the
// row and the address that needs it end together. The token is on disk before
// Rewrite returns. The store is asked only when a token is needed.
//
// Every error is a *reply.Reply. Accept mail to a return path from the null
// sender only (STANDARDS.md S4), and send what comes out of Restore to its own
// MX, never through the alias table (S6).
package returnpath

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/reply"
	"onward/srs"
)

// tokenDomain is the domain of a sender that is a token.
const tokenDomain = "1"

// tokenForm is what crypto/rand.Text makes: 26 characters of base32, 130 bits.
// Anything shorter could be guessed and is not looked up (S9).
var tokenForm = regexp.MustCompile(`^[A-Z2-7]{26}$`)

// A Store keeps senders under tokens. What KeepToken returned is on disk.
type Store interface {
	// KeepToken stores token for sender as of day, a count of UTC days, and
	// returns it, or returns the one that the sender has for that day already.
	// It may forget the tokens from before the day oldest.
	KeepToken(ctx context.Context, token string, sender address.Mailbox, day, oldest int) (string, error)
	// TokenSender returns whose token this is, or the zero Mailbox.
	TokenSender(ctx context.Context, token string) (address.Mailbox, error)
}

// Settings are what the configuration says about return paths.
type Settings struct {
	Secrets    []string         // the first signs, all verify; see LoadSecrets
	HashLength int              // characters, 4 to 27; 0: 10
	MaxAge     time.Duration    // whole days, 1 to 1000; 0: 14 days
	Domains    []address.Domain // every SRS domain of ours
}

// A Rewriter makes and reads return paths. It does not change and may be used by
// several goroutines; a new configuration makes a new one on the same store.
type Rewriter struct {
	codecs map[address.Domain]srs.Codec
	store  Store
	maxAge int // days
}

// New returns a Rewriter, or what is wrong with the settings.
func New(s Settings, store Store) (*Rewriter, error) {
	if s.MaxAge == 0 {
		s.MaxAge = srs.DefaultMaxAge
	}
	r := &Rewriter{codecs: make(map[address.Domain]srs.Codec), store: store, maxAge: int(s.MaxAge / (24 * time.Hour))}
	for _, domain := range s.Domains {
		codec := srs.Codec{Secrets: s.Secrets, Domain: string(domain), HashLength: s.HashLength, MaxAge: s.MaxAge}
		longest := rand.Text() + "@" + tokenDomain
		if _, err := codec.Encode(longest, time.Now()); err != nil {
			return nil, fmt.Errorf("SRS domain %s: %w", domain, err)
		}
		r.codecs[domain] = codec
	}
	return r, nil
}

// Is reports whether mail to this address is a bounce for Restore to judge: it
// has the form of SRS and is in a domain of ours. The SRS addresses of others
// are ordinary addresses (RELIABILITY.md 23).
func (r *Rewriter) Is(to address.Mailbox) bool {
	_, ours := r.codecs[to.Domain]
	return ours && srs.Is(to.Local)
}

// Rewrite returns the envelope sender under which mail from this sender goes on,
// in srsDomain, which must be one of Settings.Domains. The null sender stays
// null (S1), and a sender in an SRS domain of ours stays as it is, unless it is
// a forged one: 550 5.1.8 (DESIGN.md 9.10). 451 4.3.0 is for trouble of ours.
func (r *Rewriter) Rewrite(ctx context.Context, from address.ReversePath, srsDomain address.Domain) (address.ReversePath, error) {
	if _, ours := r.codecs[from.Domain]; ours {
		return from, r.checkOwn(ctx, from.Mailbox)
	}
	return r.rewrite(ctx, from, srsDomain, r.encode)
}

// Conceal is Rewrite for a sender that nobody may read from its return path: it
// is stored under a token, whatever would fit.
func (r *Rewriter) Conceal(ctx context.Context, from address.ReversePath, srsDomain address.Domain) (address.ReversePath, error) {
	return r.rewrite(ctx, from, srsDomain, r.encodeToken)
}

func (r *Rewriter) rewrite(ctx context.Context, from address.ReversePath, srsDomain address.Domain,
	encode func(context.Context, srs.Codec, address.Mailbox, time.Time) (string, error)) (address.ReversePath, error) {
	if from.IsNull() {
		return from, nil
	}
	codec, ok := r.codecs[srsDomain]
	if !ok {
		return address.ReversePath{}, reply.Trouble(fmt.Errorf("%s is not a configured SRS domain", srsDomain))
	}
	text, err := encode(ctx, codec, from.Mailbox, time.Now()) // one moment for stamp and row
	if err != nil {
		return address.ReversePath{}, err
	}
	path, err := address.ParseReversePath(text)
	if err != nil {
		return address.ReversePath{}, reply.Trouble(err)
	}
	return path, nil
}

// encode takes the stateless form where the sender fits, else a token.
func (r *Rewriter) encode(ctx context.Context, codec srs.Codec, from address.Mailbox, now time.Time) (string, error) {
	if from.Domain == tokenDomain {
		return "", reply.New(553, "5.1.7", "<%s>: not a sender address", from)
	}
	if text, err := codec.Encode(from.String(), now); err == nil {
		return text, nil
	}
	return r.encodeToken(ctx, codec, from, now)
}

func (r *Rewriter) encodeToken(ctx context.Context, codec srs.Codec, from address.Mailbox, now time.Time) (string, error) {
	token, err := r.token(ctx, from, now)
	if err != nil {
		return "", err
	}
	text, err := codec.Encode(token+"@"+tokenDomain, now)
	if err != nil {
		return "", reply.Trouble(err)
	}
	return text, nil
}

// token returns the token of a sender for today. A row is of use as long as an
// address with the stamp of its day is, and is kept a day longer.
func (r *Rewriter) token(ctx context.Context, from address.Mailbox, now time.Time) (string, error) {
	today := int(now.Unix() / (24 * 60 * 60))
	token, err := r.store.KeepToken(ctx, rand.Text(), from, today, today-r.maxAge-1)
	if err != nil {
		return "", reply.Trouble(err)
	}
	return token, nil
}

// checkOwn refuses a sender that claims to be a return path of ours and is none.
func (r *Rewriter) checkOwn(ctx context.Context, from address.Mailbox) error {
	if !r.Is(from) {
		return nil
	}
	_, err := r.Restore(ctx, from)
	if err != nil && reply.From(err).Permanent() {
		refusal := reply.New(550, "5.1.8", "<%s>: sender is not a valid return path of ours", from)
		refusal.Err = err
		return refusal
	}
	return err
}

// Restore returns the sender whom this return path stands for, or the SRS0
// address at the first forwarder for an SRS1. Errors are 550 5.1.1, with
// "expired" in the text where that is the reason (S3), and 451 4.3.0.
func (r *Rewriter) Restore(ctx context.Context, to address.Mailbox) (address.Mailbox, error) {
	from, err := r.restore(ctx, to)
	if err == nil && r.Is(from) {
		from, err = r.restore(ctx, from) // an SRS1 of mail that came by us twice
	}
	if err == nil && r.Is(from) {
		err = errUnknown
	}
	if err != nil {
		return address.Mailbox{}, refuse(to, err)
	}
	return from, nil
}

// errUnknown is a token that nobody has, or a path that leads to us for ever.
var errUnknown = errors.New("stands for no sender")

// restore takes off one layer.
func (r *Rewriter) restore(ctx context.Context, to address.Mailbox) (address.Mailbox, error) {
	codec, ours := r.codecs[to.Domain]
	if !ours {
		return address.Mailbox{}, srs.ErrNotSRS
	}
	text, err := codec.Decode(to.String(), time.Now())
	if err != nil {
		return address.Mailbox{}, err
	}
	if token, ok := strings.CutSuffix(text, "@"+tokenDomain); ok {
		return r.sender(ctx, strings.ToUpper(token))
	}
	return address.Parse(text)
}

// sender looks a token up.
func (r *Rewriter) sender(ctx context.Context, token string) (address.Mailbox, error) {
	if !tokenForm.MatchString(token) {
		return address.Mailbox{}, errUnknown
	}
	from, err := r.store.TokenSender(ctx, token)
	if err != nil {
		return address.Mailbox{}, reply.Trouble(err)
	}
	if from == (address.Mailbox{}) {
		return address.Mailbox{}, errUnknown
	}
	return from, nil
}

// refuse turns any error but trouble of ours into the answer to RCPT.
func refuse(to address.Mailbox, err error) *reply.Reply {
	if r, ok := errors.AsType[*reply.Reply](err); ok {
		return r
	}
	text := "no such address here"
	if errors.Is(err, srs.ErrExpired) {
		text = "this return path has expired"
	}
	refusal := reply.New(550, "5.1.1", "<%s>: %s", to, text)
	refusal.Err = err
	return refusal
}
