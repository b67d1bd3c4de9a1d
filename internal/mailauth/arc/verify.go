package arc

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"onward/internal/mailauth/dkim"
	"onward/internal/parallel"
	"onward/internal/resolver"
)

// Finish verifies a chain, after the bodies given to Prepare have been read.
// It asks for the keys of the newest set, and only when its message signature
// verifies for others, a few sets together, until one does not verify. Expiry is
// judged at now.
func (c *Chain) Finish(ctx context.Context, r resolver.Resolver, now time.Time) Result {
	v := verifier{chain: c, resolver: r, now: now, keys: map[keyName]keyAnswer{}}
	v.result = Result{Result: None, Sets: c.report()}
	switch {
	case c.fault != "":
		v.end(Fail, c.fault)
	case len(c.sets) > 0:
		v.verify(ctx)
	}
	return v.result
}

// report returns what the sets say.
func (c *Chain) report() []Set {
	var sets []Set
	for i, s := range c.sets {
		sets = append(sets, Set{
			Instance: i + 1,
			CV:       s.seal.cv,
			Seal:     Signature{Domain: s.seal.domain, Selector: s.seal.selector, Algorithm: string(s.seal.algorithm)},
			Message:  Signature{Domain: s.message.Domain, Selector: s.message.Selector, Algorithm: string(s.message.Algorithm)},
			Text:     s.results.text,
			Results:  s.results.header,
		})
	}
	return sets
}

// A verifier is one Finish.
type verifier struct {
	chain    *Chain
	resolver resolver.Resolver
	now      time.Time
	keys     map[keyName]keyAnswer
	result   Result
}

// end sets the verdict.
func (v *verifier) end(result, reason string) { v.result.Result, v.result.Reason = result, reason }

// verify follows RFC 8617 5.2 from step 4.
func (v *verifier) verify(ctx context.Context) {
	newest := len(v.chain.sets) - 1
	if !v.bodyMatches(newest) { // no need to ask for a key
		v.endWith(newest, "message signature", v.result.Sets[newest].Message)
		return
	}
	v.fetch(ctx, v.messageKey(newest), v.sealKey(newest))
	if v.checkMessage(newest); v.result.Sets[newest].Message.Result != dkim.Pass {
		v.endWith(newest, "message signature", v.result.Sets[newest].Message)
		return
	}
	oldest := v.oldestBody()
	if v.checkSeals(ctx, oldest); v.result.Result != None {
		return
	}
	v.end(Pass, "")
	v.result.OldestPass = v.oldestPass(oldest)
}

// endWith sets the verdict by one signature that did not pass.
func (v *verifier) endWith(i int, kind string, s Signature) {
	result := Fail
	if s.Result == dkim.TempError {
		result = TempError
	}
	v.end(result, fmt.Sprintf("%s of set %d (%s): %s", kind, i+1, s.Domain, s.Reason))
}

// bodyMatches judges what can be judged of a message signature without its key.
func (v *verifier) bodyMatches(i int) bool {
	m := v.chain.sets[i].message
	err := m.CheckBody(v.chain.sets[i].body)
	if err == nil && !m.Expires.IsZero() && !v.now.Before(m.Expires) {
		err = &dkim.Failure{Result: dkim.Fail, Reason: "signature has expired"}
	}
	note(&v.result.Sets[i].Message, err)
	return err == nil
}

// checkMessage verifies a message signature whose body matches.
func (v *verifier) checkMessage(i int) {
	m := v.chain.sets[i].message
	digest, _ := m.Digest(v.chain.header, m.position)
	v.check(&v.result.Sets[i].Message, v.messageKey(i), digest, m.Value)
}

// checkSeals verifies the seals, newest first, and gets all keys from oldest. It
// stops asking for keys when a seal does not verify. Of those that keys are there
// for, one that is wrong decides before one whose key is not to be had, and a newer
// one before an older one.
func (v *verifier) checkSeals(ctx context.Context, oldest int) {
	digests := v.chain.sealDigests()
	for i := len(digests) - 1; i >= 0 && v.result.Result == None; {
		for end := v.fetchFrom(ctx, i, oldest); i > end; i-- {
			v.checkSeal(i, digests[i])
		}
	}
}

func (v *verifier) checkSeal(i int, digest [sha256.Size]byte) {
	s := &v.result.Sets[i].Seal
	v.check(s, v.sealKey(i), digest, v.chain.sets[i].seal.value)
	switch {
	case s.Result == dkim.Pass:
	case v.result.Result == None, v.result.Result == TempError && s.Result != dkim.TempError:
		v.endWith(i, "seal", *s)
	}
}

// oldestBody returns the lowest index from which the bodies of all message
// signatures match: below it there is no use in asking for a key.
func (v *verifier) oldestBody() int {
	i := len(v.chain.sets) - 1
	for i > 0 && v.bodyMatches(i-1) {
		i--
	}
	return i
}

// oldestPass verifies older message signatures down to the first that fails
// (RFC 8617 5.2 step 5), and returns the instance above it, or 0.
func (v *verifier) oldestPass(oldest int) int {
	for i := len(v.chain.sets) - 2; i >= oldest; i-- {
		if v.checkMessage(i); v.result.Sets[i].Message.Result != dkim.Pass {
			return i + 2
		}
	}
	if oldest > 0 {
		return oldest + 1
	}
	return 0
}

// check verifies one signature and notes the outcome.
func (v *verifier) check(s *Signature, name keyName, digest [sha256.Size]byte, value []byte) {
	answer := v.keys[name]
	err := answer.err
	if err == nil {
		s.Bits = answer.key.Bits
		err = answer.key.Verify(dkim.Algorithm(s.Algorithm), digest, value)
	}
	note(s, err)
}

// note writes an outcome into s.
func note(s *Signature, err error) {
	f, ok := errors.AsType[*dkim.Failure](err)
	switch {
	case err == nil:
		s.Result, s.Reason = dkim.Pass, ""
	case ok:
		s.Result, s.Reason = f.Result, f.Reason
	default:
		s.Result, s.Reason = dkim.Fail, err.Error()
	}
}

// A keyName is where a key is published.
type keyName struct{ selector, domain string }

type keyAnswer struct {
	key *dkim.Key
	err error // a *dkim.Failure
}

func (v *verifier) sealKey(i int) keyName {
	return keyName{v.chain.sets[i].seal.selector, v.chain.sets[i].seal.domain}
}

func (v *verifier) messageKey(i int) keyName {
	return keyName{v.chain.sets[i].message.Selector, v.chain.sets[i].message.Domain}
}

// maxLookups is the most keys asked for at once: each may be a lookup that the
// server of a stranger keeps open.
const maxLookups = 8

// fetchFrom gets the keys of set i and of older ones, as many sets as maxLookups
// allows, and returns the next. A message signature older than oldest needs none.
func (v *verifier) fetchFrom(ctx context.Context, i, oldest int) int {
	var names []keyName
	for ; i >= 0; i-- {
		more := v.unknown(names, v.sealKey(i))
		if i >= oldest {
			more = v.unknown(more, v.messageKey(i))
		}
		if len(more) > maxLookups {
			break
		}
		names = more
	}
	v.fetch(ctx, names...)
	return i
}

// unknown returns names and another, unless that is there or known already.
func (v *verifier) unknown(names []keyName, name keyName) []keyName {
	if _, known := v.keys[name]; known || slices.Contains(names, name) {
		return names
	}
	return append(names, name)
}

// fetch asks for the keys not yet known, all at once.
func (v *verifier) fetch(ctx context.Context, names ...keyName) {
	answers := map[keyName]*keyAnswer{}
	for _, name := range names {
		if _, known := v.keys[name]; !known {
			answers[name] = new(keyAnswer)
		}
	}
	var wg parallel.Group
	for name, answer := range answers {
		wg.Go(func() {
			answer.key, answer.err = dkim.LookupKey(ctx, v.resolver, name.selector, name.domain)
		})
	}
	wg.Wait()
	for name, answer := range answers {
		v.keys[name] = *answer
	}
}
