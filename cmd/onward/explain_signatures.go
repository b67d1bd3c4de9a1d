package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"onward/internal/mailauth/arc"
	"onward/internal/mailauth/dkim"
)

func (j *judgement) printDKIM(p *page) {
	p.section("DKIM", "Which domains have signed the message, and is it still what they signed? RFC 6376.")
	if len(j.verdict.DKIM) == 0 {
		p.text(2, "Nobody has signed it.")
	}
	for i, r := range j.verdict.DKIM {
		p.entry(2, 0, "", r.Result, fmt.Sprintf("signature %d of %d, by %s", i+1, len(j.verdict.DKIM), cmp.Or(r.Domain, "nobody that can be read")))
		if r.Reason != "" {
			p.entry(4, 14, "why", "", r.Reason)
		}
		printSignature(p, r)
	}
}

func printSignature(p *page, r dkim.Result) {
	if r.Domain == "" {
		return
	}
	p.entry(4, 14, "who", "", fmt.Sprintf("d=%s s=%s %s", r.Domain, r.Selector, identity(r)))
	p.entry(4, 14, "how", "", joined(fmt.Sprintf("%s, header %s, body %s", r.Algorithm, r.Signature.Header, r.Signature.Body), times(r), length(r)))
	p.entry(4, 14, "fields", "", strings.Join(r.Names, " "))
	if len(r.Duplicated) > 0 {
		p.entry(4, 14, "", "", "A field can be added without breaking the signature: "+strings.Join(r.Duplicated, ", "))
	}
	if r.Key != nil {
		p.entry(4, 14, "key", "", fmt.Sprintf("%s, %d bits, at %s._domainkey.%s%s", r.Key.Type, r.Key.Bits, r.Selector, r.Domain, onTrial(r.Key)))
	}
	if r.Computed == nil {
		return
	}
	signed, computed := encode(r.BodyHash), encode(r.Computed.Sum[:])
	word := "differs"
	if signed == computed {
		word = "equal"
	}
	p.entry(4, 14, "body hash", word, fmt.Sprintf("over %d octets of body", covered(r.Computed)))
	p.entry(4, 14, "", "", "signed    "+signed)
	p.entry(4, 14, "", "", "computed  "+computed)
	if hash := headerHash(r); hash != nil {
		word, meaning := headerWord(r)
		p.entry(4, 14, "header hash", word, meaning)
		p.entry(4, 14, "", "", "computed  "+encode(hash))
	}
}

func identity(r dkim.Result) string {
	if r.Identity == "@"+r.Domain {
		return ""
	}
	return "i=" + r.Identity
}

func times(r dkim.Result) string {
	var said []string
	if !r.Timestamp.IsZero() {
		said = append(said, "made "+r.Timestamp.UTC().Format("2006-01-02 15:04:05 MST"))
	}
	if !r.Expires.IsZero() {
		said = append(said, "expires "+r.Expires.UTC().Format("2006-01-02 15:04:05 MST"))
	}
	return strings.Join(said, ", ")
}

func length(r dkim.Result) string {
	if r.Signed == dkim.NoLimit {
		return ""
	}
	return fmt.Sprintf("only the first %d octets of the body (l=)", r.Signed)
}

func onTrial(k *dkim.Key) string {
	if k.Testing {
		return ", of an owner who is testing (t=y)"
	}
	return ""
}

// covered is how much of the canonical body went into a hash.
func covered(h *dkim.BodyHash) int64 {
	if h.Limit == dkim.NoLimit {
		return h.Length
	}
	return min(h.Limit, h.Length)
}

// headerHash is the digest that b= signs, nil when it was not computed.
func headerHash(r dkim.Result) []byte {
	if r.Text == nil {
		return nil
	}
	sum := sha256.Sum256(r.Text)
	return sum[:]
}

// headerWord says whether b= is the signature of the header hash, also where
// something else was wrong before that could matter.
func headerWord(r dkim.Result) (word, meaning string) {
	if r.Key == nil {
		return "unknown", "without a key nobody can say what was signed"
	}
	err := r.Key.Verify(r.Algorithm, sha256.Sum256(r.Text), r.Value)
	if f, ok := errors.AsType[*dkim.Failure](err); ok && f.Result != dkim.Fail {
		return "unknown", "without a usable key nobody can say what was signed"
	}
	if err != nil {
		return "differs", fmt.Sprintf("from what was signed (b=), over %d octets of fields", len(r.Text))
	}
	return "equal", fmt.Sprintf("to what was signed (b=), over %d octets of fields", len(r.Text))
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func (j *judgement) printARC(p *page) {
	a := j.verdict.ARC
	p.section("ARC", "What did forwarders before us see when the message reached them? RFC 8617.")
	if a.Result == arc.None {
		p.text(2, "Nobody has said so.")
		return
	}
	p.entry(2, 0, "", a.Result, cmp.Or(a.Reason, fmt.Sprintf("a chain of %s", count(len(a.Sets), "set"))))
	for _, s := range a.Sets {
		p.entry(2, 7, fmt.Sprintf("i=%d", s.Instance), "", "added by "+cmp.Or(s.Seal.Domain, "nobody that can be read"))
		p.entry(9, 10, "saw", "", s.Text)
		p.entry(9, 10, "chain", s.CV, "was what it found of the sets before its own")
		p.entry(9, 10, "message", cmp.Or(s.Message.Result, "not checked"), joined(s.Message.Reason, holds(s.Message, "the message is as it was after this hop")))
		p.entry(9, 10, "seal", cmp.Or(s.Seal.Result, "not checked"), joined(s.Seal.Reason, holds(s.Seal, "this set and those before it are as they were")))
	}
	if a.OldestPass > 1 {
		p.text(2, fmt.Sprintf("The message was changed on its way: only from i=%d on is it still what was signed.", a.OldestPass))
	}
	if a.Result == arc.Pass {
		p.text(2, "A pass proves who handled the message, not that they are honest; it counts for sealers under arc.trusted_sealers only.")
	}
}

// holds says what a signature of a set means when it is good.
func holds(s arc.Signature, meaning string) string {
	if s.Result != dkim.Pass {
		return ""
	}
	return meaning + ", says " + s.Domain
}
