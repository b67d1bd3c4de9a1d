package arc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"onward/internal/mailauth/arc"
	"onward/internal/mailauth/authres"
	"onward/internal/mailauth/dkim"
	"onward/internal/message"
	"onward/internal/resolver"
)

const plain = "From: Ann <ann@author.example>\r\nTo: bob@dest.example\r\nSubject: hello\r\n\r\nHello Bob.\r\n"

// A counter is a resolver that remembers what it was asked.
type counter struct {
	resolver.Resolver
	mu    sync.Mutex
	asked []string
}

func (c *counter) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	c.mu.Lock()
	c.asked = append(c.asked, name)
	c.mu.Unlock()
	return c.Resolver.Lookup(ctx, name, t)
}

var verdict = authres.Header{ID: "hop.example", Results: []authres.Result{
	{Method: "dmarc", Value: "pass", Properties: []authres.Property{{Type: "header", Name: "from", Value: "author.example"}}},
}}

// seal adds a set to text, with the verdict our own verification gives.
func seal(t testing.TB, h hop, text string, zone resolver.Resolver) string {
	t.Helper()
	m := parse(t, text)
	chain, body := verify(context.Background(), t, m, zone)
	s := arc.Sealer{Key: h.key, Domain: h.domain, Selector: h.selector}
	set, err := s.Seal(m.Fields(), body, chain, verdict, now)
	if err != nil {
		t.Fatal(err)
	}
	return string(set) + text
}

// sealed returns text with n sets, all by the hops in turn.
func sealed(t testing.TB, hops []hop, zone resolver.Resolver, n int) string {
	t.Helper()
	text := plain
	for i := range n {
		text = seal(t, hops[i%len(hops)], text, zone)
	}
	return text
}

func TestResult(t *testing.T) {
	hops, dns := newHops(t)
	zone := zoneOf(t, dns)
	text := sealed(t, hops, zone, 3)
	c := &counter{Resolver: zone}
	got, _ := verify(t.Context(), t, parse(t, text), c)
	if got.Result != arc.Pass || got.Reason != "" || len(got.Sets) != 3 || got.OldestPass != 0 {
		t.Fatalf("%+v", got)
	}
	for i, s := range got.Sets {
		want := arc.Signature{Domain: hops[i].domain, Selector: hops[i].selector, Algorithm: "rsa-sha256", Bits: hops[i].key.N.BitLen(), Result: dkim.Pass}
		cv := []string{arc.None, arc.Pass, arc.Pass}[i]
		if s.Instance != i+1 || s.CV != cv || s.Seal != want || s.Message != want {
			t.Errorf("set %d: %+v", i+1, s)
		}
		if !strings.HasPrefix(s.Text, "hop.example;") || len(s.Results.Results) != 1 || s.Results.Results[0].Property("header", "from") != "author.example" {
			t.Errorf("set %d says %q, %+v", i+1, s.Text, s.Results)
		}
	}
	if slices.Sort(c.asked); len(slices.Compact(c.asked)) != len(c.asked) || len(c.asked) != 3 {
		t.Errorf("asked for %v", c.asked)
	}
}

// TestChanges spoils a chain of three in every way that one of its parts should
// notice, and says which one, and how much DNS that may cost.
func TestChanges(t *testing.T) {
	hops, dns := newHops(t)
	zone := zoneOf(t, dns)
	text := sealed(t, hops, zone, 3)
	fields := func(s string) []message.Field { return parse(t, s).Fields() }
	all := fields(text)
	without := func(drop int) string {
		var b strings.Builder
		for i, f := range all {
			if i != drop {
				b.Write(f.Raw)
			}
		}
		return b.String() + "\r\nHello Bob.\r\n"
	}
	oldest := strings.LastIndex(text, "ARC-Seal")
	nth := func(old, new string, n int) string {
		parts := strings.SplitN(text, old, n+1)
		return strings.Join(parts[:n], old) + new + parts[n]
	}
	for _, tt := range []struct {
		name, text, result, reason string
		dns                        int
	}{
		{"nothing", text, arc.Pass, "", 3},
		{"no chain", plain, arc.None, "", 0},
		{"body", text + "footer\r\n", arc.Fail, "message signature of set 3 (hop3.example): body hash", 0},
		{"subject", nth("Subject: ", "Subject: Re: ", 1), arc.Fail, "message signature of set 3 (hop3.example): signature", 1},
		{"newest results", nth("dmarc=pass", "dmarc=fail", 1), arc.Fail, "seal of set 3 (hop3.example)", 3},
		{"middle results", nth("dmarc=pass", "dmarc=fail", 2), arc.Fail, "seal of set 3 (hop3.example)", 3},
		{"oldest results", nth("dmarc=pass", "dmarc=fail", 3), arc.Fail, "seal of set 3 (hop3.example)", 3},
		{"oldest seal", text[:oldest] + strings.Replace(text[oldest:], "t=1767225600", "t=1767225601", 1), arc.Fail, "seal of set 3 (hop3.example)", 3},
		{"other key", nth("s=arc-2021", "s=arc-2021x", 1), arc.Fail, "seal of set 3", 4},
		{"sets 1 and 2 only", without(0), arc.Fail, "2 seals, 3 message signatures and 3 results", 0},
		{"message signature gone", without(1), arc.Fail, "3 seals, 2 message", 0},
		{"results gone", without(2), arc.Fail, "3 seals, 3 message signatures and 2", 0},
		{"gap", strings.ReplaceAll(text, "i=3;", "i=4;"), arc.Fail, "instance 4 in a chain of 3", 0},
		{"zero", strings.ReplaceAll(text, "i=1;", "i=0;"), arc.Fail, "instance 0 in a chain of 3", 0},
		{"twice", strings.ReplaceAll(text, "i=3;", "i=2;"), arc.Fail, "instance 2 stands twice", 0},
		{"cv of the first", nth("cv=none", "cv=pass", 1), arc.Fail, "the seal of set 1 says cv=pass instead", 0},
		{"cv of the second", nth("cv=pass", "cv=none", 2), arc.Fail, "the seal of set 2 says cv=none instead", 0},
		{"cv of the newest", nth("cv=pass", "cv=fail", 1), arc.Fail, "the seal of set 3 says cv=fail", 0},
		{"h= in a seal", nth("cv=pass", "cv=pass; h=from", 1), arc.Fail, "ARC-Seal: tag h= is not allowed", 0},
		{"seal covered", nth("h=from", "h=from:arc-seal", 1), arc.Fail, "covers ARC-Seal", 0},
		{"From not covered", nth("h=from:", "h=", 1), arc.Fail, "does not cover From", 0},
		{"sha1", nth("a=rsa-sha256", "a=rsa-sha1", 1), arc.Fail, "algorithm", 0},
		{"literal", nth("d=hop3.example", "d=[192.0.2.1]", 1), arc.Fail, "d= is not a domain", 0},
		{"hostile selector", nth("s=arc-2022", "s=a b", 1), arc.Fail, "s= is not a selector", 0},
		{"time of a seal", nth("t=1767225600", "t=", 1), arc.Fail, "ARC-Seal: tag t= is not a number", 0},
		{"expired", nth("bh=", "x=1767225600; bh=", 1), arc.Fail, "set 3 (hop3.example): signature has expired", 0},
		{"l= shorter", nth("bh=", "l=0; bh=", 1), arc.Fail, "body hash", 0},
		{"line without a name", nth("Subject: ", "no field\r\nSubject: ", 1), arc.Fail, "a line of the header is no field", 0},
		{"no such key", strings.ReplaceAll(text, "s=arc-2022", "s=gone"), arc.Fail, "set 3 (hop3.example): no key", 1},
	} {
		c := &counter{Resolver: zone}
		got, _ := verify(t.Context(), t, parse(t, tt.text), c)
		if got.Result != tt.result || !strings.Contains(got.Reason, tt.reason) || len(c.asked) > tt.dns {
			t.Errorf("%s: %s (%s) after %d lookups; want %s (%s) after %d", tt.name, got.Result, got.Reason, len(c.asked), tt.result, tt.reason, tt.dns)
		}
	}
}

func TestOldestPass(t *testing.T) {
	hops, dns := newHops(t)
	zone := zoneOf(t, dns)
	for n := range 4 { // the list that changes the message stands before hop n+1
		text := sealed(t, hops, zone, n)
		m := parse(t, text)
		chain, _ := verify(t.Context(), t, m, zone)
		text += "footer\r\n"
		m = parse(t, text)
		_, body := verify(t.Context(), t, m, zone)
		s := arc.Sealer{Key: hops[n].key, Domain: hops[n].domain, Selector: hops[n].selector}
		set, err := s.Seal(m.Fields(), body, chain, verdict, now)
		if err != nil {
			t.Fatal(err)
		}
		text = seal(t, hops[4], string(set)+text, zone)
		got, _ := verify(t.Context(), t, parse(t, text), zone)
		want := n + 1
		if n == 0 {
			want = 0
		}
		if got.Result != arc.Pass || got.OldestPass != want {
			t.Errorf("changed before set %d: %s (%s), oldest pass %d, want %d", n+1, got.Result, got.Reason, got.OldestPass, want)
		}
	}
}

// TestMaxSets seals up to the limit and no further.
func TestMaxSets(t *testing.T) {
	hops, dns := newHops(t)
	zone := zoneOf(t, dns)
	full := sealed(t, hops, zone, arc.MaxSets)
	if got, _ := verify(t.Context(), t, parse(t, full), zone); got.Result != arc.Pass || len(got.Sets) != arc.MaxSets {
		t.Errorf("50 sets: %s (%s)", got.Result, got.Reason)
	}
	if again := seal(t, hops[0], full, zone); again != full {
		t.Error("a set was added to 50")
	}
	set := full[:strings.Index(full, "ARC-Seal: a=rsa-sha256;")+1] + full[:strings.Index(full[10:], "ARC-Seal:")+10]
	c := &counter{Resolver: zone}
	got, _ := verify(t.Context(), t, parse(t, strings.ReplaceAll(set[1:], "i=50;", "i=51;")+full), c)
	if got.Result != arc.Fail || got.Reason != "more than 50 sets" || len(c.asked) != 0 {
		t.Errorf("51 sets: %s (%s), %d lookups", got.Result, got.Reason, len(c.asked))
	}
}

// TestTemporary wants no verdict where DNS gave none, unless there is one anyway.
func TestTemporary(t *testing.T) {
	hops, dns := newHops(t)
	zone := zoneOf(t, dns)
	text := sealed(t, hops, zone, 3)
	for i, h := range hops[:3] {
		zone := zoneOf(t, dns)
		zone.Fail(h.selector+"._domainkey."+h.domain, resolver.TypeTXT, "SERVFAIL")
		got, _ := verify(t.Context(), t, parse(t, text), zone)
		if got.Result != arc.TempError || !strings.Contains(got.Reason, fmt.Sprintf("set %d", i+1)) {
			t.Errorf("no key of set %d: %s (%s)", i+1, got.Result, got.Reason)
		}
		spoiled := strings.Replace(text, "dmarc=pass", "dmarc=fail", 1)
		if got, _ := verify(t.Context(), t, parse(t, spoiled), zone); i < 2 && got.Result != arc.Fail {
			t.Errorf("no key of set %d and set 3 spoiled: %s (%s)", i+1, got.Result, got.Reason)
		}
		if after := seal(t, hops[3], text, zone); after != text {
			t.Error("a set was added without a verdict")
		}
	}
}

// TestWrongBeforeTemporary: a seal that is wrong decides, though the key of a
// newer one is not to be had.
func TestWrongBeforeTemporary(t *testing.T) {
	hops, dns := newHops(t)
	text := sealed(t, hops, zoneOf(t, dns), 3)
	name := func(h hop) string { return h.selector + "._domainkey." + h.domain }
	dns[name(hops[0])] = dns[name(hops[1])]
	zone := zoneOf(t, dns)
	zone.Fail(name(hops[1]), resolver.TypeTXT, "SERVFAIL")
	got, _ := verify(t.Context(), t, parse(t, text), zone)
	if got.Result != arc.Fail || !strings.HasPrefix(got.Reason, "seal of set 1") {
		t.Errorf("%s (%s)", got.Result, got.Reason)
	}
}

// TestDNSWaitsTogether gives each answer a second: two rounds, whatever the sets.
func TestDNSWaitsTogether(t *testing.T) {
	hops, dns := newHops(t)
	zone := zoneOf(t, dns)
	text := sealed(t, hops, zone, 5)
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		got, _ := verify(t.Context(), t, parse(t, text), slow{zone})
		if took := time.Since(start); got.Result != arc.Pass || took != 2*time.Second {
			t.Errorf("%s (%s) after %v", got.Result, got.Reason, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if got, _ := verify(ctx, t, parse(t, text), slow{zone}); got.Result != arc.TempError {
			t.Errorf("at the deadline: %s (%s)", got.Result, got.Reason)
		}
	})
}

// mute has no answer for any name but one, and counts who waits.
type mute struct {
	resolver.Resolver
	but                  string
	asked, waiting, most atomic.Int32
}

func (m *mute) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	if name == m.but {
		return m.Resolver.Lookup(ctx, name, t)
	}
	m.asked.Add(1)
	n := m.waiting.Add(1)
	defer m.waiting.Add(-1)
	for most := m.most.Load(); n > most && !m.most.CompareAndSwap(most, n); most = m.most.Load() {
	}
	time.Sleep(time.Second)
	return nil, &resolver.Error{Name: name, Type: t, Kind: resolver.ErrTemporary}
}

// TestMuteChain: fifty sets whose newest is good, with a name server that keeps
// silent about all others, take few of the lookups that others need.
func TestMuteChain(t *testing.T) {
	hops, dns := newHops(t)
	many := make([]hop, arc.MaxSets)
	name := func(h hop) string { return h.selector + "._domainkey." + h.domain }
	for i := range many {
		many[i] = hop{fmt.Sprintf("d%d.example", i+1), "s", hops[0].key}
		dns[name(many[i])] = dns[name(hops[0])]
	}
	zone := zoneOf(t, dns)
	text := sealed(t, many, zone, arc.MaxSets)
	if got, _ := verify(t.Context(), t, parse(t, text), zone); got.Result != arc.Pass || len(got.Sets) != arc.MaxSets {
		t.Fatalf("%s (%s)", got.Result, got.Reason)
	}
	synctest.Test(t, func(t *testing.T) {
		m := &mute{Resolver: zone, but: name(many[arc.MaxSets-1])}
		got, _ := verify(t.Context(), t, parse(t, text), m)
		if got.Result != arc.TempError || !strings.HasPrefix(got.Reason, "seal of set 49 (") {
			t.Errorf("%s (%s)", got.Result, got.Reason)
		}
		if m.asked.Load() > 8 || m.most.Load() > 8 {
			t.Errorf("asked %d times, %d at once", m.asked.Load(), m.most.Load())
		}
	})
}

type slow struct{ resolver.Resolver }

func (s slow) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	select {
	case <-time.After(time.Second):
		return s.Resolver.Lookup(ctx, name, t)
	case <-ctx.Done():
		return nil, &resolver.Error{Name: name, Type: t, Err: ctx.Err()}
	}
}

// TestSealOdd looks at what is added to a chain that was broken on the way, and
// to a message that is hardly one.
func TestSealOdd(t *testing.T) {
	hops, dns := newHops(t)
	zone := zoneOf(t, dns)
	text := sealed(t, hops, zone, 2)

	after := seal(t, hops[2], text+"footer\r\n", zone)
	added := parse(t, after).Fields()[0].Value()
	if !strings.Contains(added, "cv=fail") || !strings.Contains(added, "i=3;") {
		t.Errorf("the new seal is %q", added)
	}
	if got, _ := verify(t.Context(), t, parse(t, after), zone); got.Result != arc.Fail || got.Reason != "the seal of set 3 says cv=fail" {
		t.Errorf("%s (%s)", got.Result, got.Reason)
	}
	if again := seal(t, hops[3], after, zone); again != after {
		t.Error("a set was added after cv=fail")
	}
	anonymous := seal(t, hops[0], "Subject: no From\r\n\r\n", zone)
	if got, _ := verify(t.Context(), t, parse(t, anonymous), zone); got.Result != arc.Pass {
		t.Errorf("without From: %s (%s)", got.Result, got.Reason)
	}
	gap := strings.ReplaceAll(text, "i=2;", "i=3;")
	if again := seal(t, hops[2], gap, zone); again != gap {
		t.Error("a set was added to a chain with a gap")
	}
}

// TestSealLayout holds the fields to what others can read.
func TestSealLayout(t *testing.T) {
	hops, dns := newHops(t)
	zone := zoneOf(t, dns)
	many := strings.Repeat("DKIM-Signature: v=1\r\n", 300) + plain
	fields := parse(t, seal(t, hops[3], many, zone)).Fields()
	for i, name := range []string{"ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results"} {
		if fields[i].Name != name {
			t.Fatalf("field %d is %s", i, fields[i].Name)
		}
		for line := range strings.SplitSeq(string(fields[i].Raw), "\r\n") {
			if len(line) > 78 && !strings.HasPrefix(line, " b=") {
				t.Errorf("line %q", line)
			}
		}
	}
	names := string(fields[1].Raw)
	if n := strings.Count(names, "dkim-signature"); n != 300 || strings.Contains(names, "reply-to") {
		t.Errorf("%d names of 300 fields: %s", n, names)
	}
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s := arc.Sealer{Key: ec, Domain: "a.example", Selector: "s"}
	if set, err := s.Seal(nil, sha256.Sum256(nil), arc.Result{Result: arc.None}, verdict, now); err == nil {
		t.Errorf("sealed with an elliptic curve: %s", set)
	}
}

// fake returns a message with n sets that look right and are not, each
// signature over every field of the message as often as there is room.
func fake(n, size int) string {
	value := base64.StdEncoding.EncodeToString(make([]byte, 256))
	hash := sha256.Sum256([]byte("Hello Bob.\r\n"))
	var b strings.Builder
	for i := n; i > 0; i-- {
		cv := arc.Pass
		if i == 1 {
			cv = arc.None
		}
		fmt.Fprintf(&b, "ARC-Seal: i=%d; a=rsa-sha256; cv=%s; d=hop%d.example; s=s%d; b=%s\r\n", i, cv, i, i, value)
		fmt.Fprintf(&b, "ARC-Message-Signature: i=%d; a=rsa-sha256; c=relaxed/relaxed; d=hop%d.example; s=m%d; h=from:x; bh=%s; b=%s\r\n",
			i, i, i, base64.StdEncoding.EncodeToString(hash[:]), value)
		fmt.Fprintf(&b, "ARC-Authentication-Results: i=%d; hop%d.example; none\r\n", i, i)
	}
	return b.String() + "X: " + strings.Repeat("a  ", max(0, size-b.Len())/3) + "\r\n" + plain
}

// TestFakeAsksLittle: fifty fakes cost one round of DNS for the newest set.
func TestFakeAsksLittle(t *testing.T) {
	hops, dns := newHops(t)
	for i := range 51 {
		for _, s := range "sm" {
			dns[fmt.Sprintf("%c%d._domainkey.hop%d.example", s, i, i)] = dns[hops[3].selector+"._domainkey."+hops[3].domain]
		}
	}
	c := &counter{Resolver: zoneOf(t, dns)}
	got, _ := verify(t.Context(), t, parse(t, fake(50, 0)), c)
	if got.Result != arc.Fail || len(got.Sets) != 50 || len(c.asked) != 2 {
		t.Errorf("%s (%s), %d sets, asked for %v", got.Result, got.Reason, len(got.Sets), c.asked)
	}
}

func FuzzSet(f *testing.F) {
	key, err := rsa.GenerateKey(nil, 1024)
	if err != nil {
		f.Fatal(err)
	}
	h := hop{"hop1.example", "s", key}
	zone := resolver.NewZone()
	f.Add(fake(1, 0))
	f.Add(fake(3, 0))
	f.Add(seal(f, h, plain, zone))
	f.Fuzz(func(t *testing.T, text string) {
		b := message.NewBuffer(t.TempDir())
		b.Write([]byte(text))
		m, err := b.Message()
		if err != nil {
			return
		}
		defer m.Close()
		got, body := verify(t.Context(), t, m, zone)
		if got.Result == arc.Pass || got.Result == arc.TempError {
			t.Fatalf("%s with no key in DNS: %q", got.Result, text)
		}
		if len(got.Sets) > arc.MaxSets || strings.ContainsAny(got.Reason, "\r\n") {
			t.Fatalf("%q: %+v", text, got)
		}
		s := arc.Sealer{Key: key, Domain: h.domain, Selector: h.selector}
		set, err := s.Seal(m.Fields(), body, got, verdict, now)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(parse(t, string(set)+plain).Fields()); set != nil && n != 6 {
			t.Fatalf("%d fields in %q", n, set)
		}
	})
}
