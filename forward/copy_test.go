package forward

import (
	"bytes"
	"context"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/mailauth"
	"onward/internal/mailauth/arc"
	"onward/internal/mailauth/dkim"
	"onward/internal/mailauth/dmarc"
	"onward/internal/message"
	"onward/internal/reply"
	"onward/internal/resolver"
	"onward/internal/signing"
	"onward/internal/smtpclient"
)

// A world is the DNS, with the keys of everybody in it, and us.
type world struct {
	t    testing.TB
	zone *resolver.Zone
	keys *signing.Keys // of everybody
	f    *Forwarder
	sent []*smtpclient.Transaction
}

func (w *world) Deliver(_ context.Context, t *smtpclient.Transaction) smtpclient.Outcome {
	w.sent = append(w.sent, t)
	return smtpclient.Outcome{Result: smtpclient.Delivered, Reply: reply.New(250, "2.0.0", "kept"), Tried: true}
}

// newWorld has signed.example and letters.example with p=reject, none.example
// with p=none, and example.org, ours, with p=quarantine; all send from loopback.
func newWorld(t testing.TB, ed25519 bool) *world {
	t.Helper()
	zone, err := resolver.ParseZone("test", strings.NewReader(`
signed.example.          60 IN TXT "v=spf1 ip4:192.0.2.0/24 -all"
_dmarc.signed.example.   60 IN TXT "v=DMARC1; p=reject"
letters.example.         60 IN TXT "v=spf1 ip4:127.0.0.0/8 -all"
_dmarc.letters.example.  60 IN TXT "v=DMARC1; p=reject"
none.example.            60 IN TXT "v=spf1 ip4:127.0.0.0/8 -all"
_dmarc.none.example.     60 IN TXT "v=DMARC1; p=none"
_dmarc.example.org.      60 IN TXT "v=DMARC1; p=quarantine"
mx.example.org.          60 IN TXT "v=spf1 ip4:127.0.0.0/8 -all"
`))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, zone: zone}
	if w.keys, err = signing.Open(signing.Settings{Dir: t.TempDir(), Selector: "s", Ed25519: ed25519, Create: true}); err != nil {
		t.Fatal(err)
	}
	w.f, _ = over(t, w)
	w.change(func(r *Route) { r.Signer = w.signer })
	return w
}

func (w *world) change(do func(*Route)) {
	route := w.f.Route()
	do(&route)
	w.f.Route = func() Route { return route }
}

// signer returns who signs for a domain, and publishes its keys.
func (w *world) signer(domain address.Domain) (*signing.Signer, error) {
	s, err := w.keys.Signer(domain)
	if err != nil {
		return nil, err
	}
	for _, r := range s.Records() {
		if err := w.zone.Set(r.Name, resolver.TypeTXT, r.Value); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// signed returns a message with the signature of a domain on top.
func (w *world) signed(domain address.Domain, text string) string {
	w.t.Helper()
	s, err := w.signer(domain)
	if err != nil {
		w.t.Fatal(err)
	}
	fields, err := s.Sign(content(w.t, text))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(fields) + text
}

// judge verifies a message as its receiver would.
func (w *world) judge(from string, msg *message.Message) *mailauth.Verdict {
	w.t.Helper()
	path, err := address.ParseReversePath(from)
	if err != nil {
		w.t.Fatal(err)
	}
	v := mailauth.Verifier{Resolver: w.zone, Hostname: "mx.example.org", Loopback: true}
	verdict, err := v.Verify(w.t.Context(), mailauth.Sender{Client: netip.MustParseAddr("127.0.0.1"), Helo: "h.example", From: path, Now: time.Now()}, msg)
	if err != nil {
		w.t.Fatal(err)
	}
	return verdict
}

// send forwards a message, and returns the answer, what went out, and what its
// receiver finds about that.
func (w *world) send(from, text string, breaks message.Breaks) (*reply.Reply, string, *mailauth.Verdict) {
	w.t.Helper()
	msg := content(w.t, text)
	verdict := w.judge(from, msg)
	env := envelope(w.t, "me@example.org>old@gmail.com")
	env.From, env.Recipients[0].Breaks = verdict.From, breaks
	before := len(w.sent)
	answer, _ := w.f.Accept(w.t.Context(), env, verdict, msg)
	w.f.Answered(env.ID, true)
	if len(w.sent) == before {
		return answer, "", nil
	}
	tx := w.sent[len(w.sent)-1]
	var out bytes.Buffer
	out.ReadFrom(tx.Open())
	if int64(out.Len()) != tx.Size {
		w.t.Errorf("%d octets went out, %d were announced", out.Len(), tx.Size)
	}
	return answer, out.String(), w.judge(tx.From.String(), content(w.t, out.String()))
}

const letter = "From: =?utf-8?q?D=C3=B6ra?= <dora@%s>\r\nTo: me@example.org\r\nSubject: x\r\nDate: Thu, 19 Nov 2026 11:40:00 +0000\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n"

func from(domain string) string { return strings.Replace(letter, "%s", domain, 1) }

// TestSurvival holds what becomes of a message by how it passed DMARC here: as it
// is where it will pass at the mailbox too or no policy asks, else as the alias
// wants (DESIGN.md 4, "Unforwardable mail").
func TestSurvival(t *testing.T) {
	w := newWorld(t, false)
	for _, tt := range []struct {
		name, sender, text string
		breaks             message.Breaks
		code               int
		rewritten          bool
		dmarc              dmarc.Result // at the mailbox
	}{
		{"signed", "x@elsewhere.example", w.signed("signed.example", from("signed.example")), message.Rewrite, 250, false, dmarc.Pass},
		{"SPF alone, rewritten", "x@letters.example", from("letters.example"), message.Rewrite, 250, true, dmarc.Pass},
		{"SPF alone, refused", "x@letters.example", from("letters.example"), message.Refuse, 550, false, ""},
		{"SPF alone, as it is", "x@letters.example", from("letters.example"), message.Forward, 250, false, dmarc.Fail},
		{"SPF alone, p=none", "x@none.example", from("none.example"), message.Rewrite, 250, false, dmarc.Fail},
		{"no policy", "x@none.example", from("unknown.example"), message.Rewrite, 250, false, dmarc.None},
		{"somebody else's signature", "x@letters.example", w.signed("signed.example", from("letters.example")), message.Rewrite, 250, true, dmarc.Pass},
		{"our own domain, forged", "x@none.example", from("example.org"), message.Forward, 250, true, dmarc.Pass},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answer, out, after := w.send(tt.sender, tt.text, tt.breaks)
			if answer.Code != tt.code {
				t.Fatalf("answer %v", answer)
			}
			if after == nil {
				if tt.code == 250 || !strings.Contains(answer.Text, "DMARC") || strings.Contains(answer.Text, "gmail") {
					t.Errorf("answer %v", answer)
				}
				return
			}
			if after.DMARC.Result != tt.dmarc {
				t.Errorf("DMARC at the mailbox is %s, want %s: %s", after.DMARC.Result, tt.dmarc, after.DMARC.Reason)
			}
			if intact := strings.HasSuffix(out, "\r\n"+tt.text); intact == tt.rewritten {
				t.Errorf("rewritten is %v:\n%s", !intact, out)
			}
			ours := after.DKIM[0]
			if ours.Result != dkim.Pass || ours.Domain != "mx.example.org" {
				t.Errorf("our signature: %s of %s, %s", ours.Result, ours.Domain, ours.Reason)
			}
			if tt.rewritten && (after.Author.Domain != "mx.example.org" || !strings.Contains(out, "Reply-To: ") || !strings.HasSuffix(out, "\r\n\r\nhello\r\n")) {
				t.Errorf("the rewritten copy is\n%s", out)
			}
		})
	}
}

// TestMildestRule holds that where recipients with different rules lead to one
// mailbox, the mildest of them decides about the copy, whatever order they come in.
// So it is with all that a copy takes from one of them: its return path, who signs,
// whether our own signature would vouch for a forged From, and whether a reply address
// keeps the writer private.
func TestMildestRule(t *testing.T) {
	alias := func(name string, rule message.Breaks) message.Recipient {
		return message.Recipient{Address: mailbox(t, name), Targets: []address.Mailbox{mailbox(t, "old@gmail.com")}, Breaks: rule}
	}
	answered := alias("reply-x@mx.example.org", message.Forward)
	answered.As = mailbox(t, "me@example.org")
	for _, tt := range []struct {
		name, sender, author string
		recipients           []message.Recipient
		code                 int
		want                 address.Domain // of the author, at the mailbox
	}{
		{"refuse, rewrite", "x@letters.example", "letters.example", []message.Recipient{alias("a@example.org", message.Refuse), alias("b@example.org", message.Rewrite)}, 250, "mx.example.org"},
		{"refuse, forward", "x@letters.example", "letters.example", []message.Recipient{alias("a@example.org", message.Refuse), alias("b@example.org", message.Forward)}, 250, "letters.example"},
		{"rewrite, forward", "x@letters.example", "letters.example", []message.Recipient{alias("a@example.org", message.Rewrite), alias("b@example.org", message.Forward)}, 250, "letters.example"},
		{"refuse twice", "x@letters.example", "letters.example", []message.Recipient{alias("a@example.org", message.Refuse), alias("b@example.org", message.Refuse)}, 550, ""},
		{"two SRS domains", "x@none.example", "example.org", []message.Recipient{alias("a@example.org", message.Rewrite), alias("b@letters.example", message.Rewrite)}, 250, "mx.example.org"},
		{"a reply address", "x@none.example", "none.example", []message.Recipient{alias("a@example.org", message.Forward), answered}, 250, "example.org"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var copies []string
			for range 2 {
				slices.Reverse(tt.recipients)
				w := newWorld(t, false)
				w.change(func(r *Route) {
					r.Conceal = srsLike
					r.Domain = func(d address.Domain) address.Domain { return "mx." + d }
				})
				msg := content(t, from(tt.author))
				verdict := w.judge(tt.sender, msg)
				env := envelope(t)
				env.From, env.Recipients = verdict.From, tt.recipients
				if answer, _ := w.f.Accept(t.Context(), env, verdict, msg); answer.Code != tt.code {
					t.Fatalf("answer %v", answer)
				}
				if tt.code != 250 {
					continue
				}
				if len(w.sent) != 1 {
					t.Fatalf("%d copies", len(w.sent))
				}
				b, _ := io.ReadAll(w.sent[0].Open())
				after := w.judge(w.sent[0].From.String(), content(t, string(b)))
				if after.Author.Domain != tt.want {
					t.Errorf("From is %s, want %s in\n%s", after.Author.Domain, tt.want, b)
				}
				copies = append(copies, w.sent[0].From.String()+" signed by "+after.DKIM[0].Domain)
			}
			if tt.code == 250 && copies[0] != copies[1] {
				t.Errorf("the order decides: %q", copies)
			}
		})
	}
}

// TestUnknownSignature holds that no message is refused for good because the DNS
// does not say whether its signature would survive.
func TestUnknownSignature(t *testing.T) {
	w := newWorld(t, false)
	text := w.signed("letters.example", from("letters.example"))
	if err := w.zone.Fail("s._domainkey.letters.example", resolver.TypeTXT, "SERVFAIL"); err != nil {
		t.Fatal(err)
	}
	if answer, out, _ := w.send("x@letters.example", text, message.Refuse); answer.Code != 451 || answer.Status != "4.7.0" || out != "" {
		t.Errorf("%v, sent %q", answer, out)
	}
	if answer, _, after := w.send("x@letters.example", text, message.Rewrite); answer.Code != 250 || after.DMARC.Result != dmarc.Pass {
		t.Errorf("%v, DMARC is %+v", answer, after.DMARC)
	}
}

// TestEd25519AloneBreaks holds that a signature which not all receivers can
// verify does not count as surviving.
func TestEd25519AloneBreaks(t *testing.T) {
	w := newWorld(t, true)
	both := w.signed("letters.example", from("letters.example"))
	second := both[strings.LastIndex(both, "DKIM-Signature:"):] // Ed25519 is the second
	_, _, after := w.send("x@letters.example", second, message.Rewrite)
	if after.Author.Domain != "mx.example.org" {
		t.Errorf("From is not rewritten for a message with %d signatures", len(after.DKIM))
	}
	if _, _, after := w.send("x@letters.example", both, message.Rewrite); after.Author.Domain != "letters.example" {
		t.Error("From is rewritten although the RSA signature survives")
	}
}

// TestProof holds that a copy which breaks a signature is never sent, nor any
// other copy of that message, and that the sender keeps it (DESIGN.md 9.4).
func TestProof(t *testing.T) {
	w := newWorld(t, false)
	text := w.signed("signed.example", from("signed.example"))
	verdict := w.judge("x@signed.example", content(t, text))
	for name, broken := range map[string]string{
		"body":   strings.Replace(text, "hello", "hallo", 1),
		"header": strings.Replace(text, "Subject: x", "Subject: y", 1),
		"gone":   text[strings.Index(text, "From: "):],
	} {
		answer, _ := w.f.Accept(t.Context(), envelope(t, "me@example.org>old@gmail.com"), verdict, content(t, broken))
		if answer.Code != 451 || len(w.sent) != 0 {
			t.Errorf("%s: %v, %d sent", name, answer, len(w.sent))
		}
	}
}

// TestSignatureThatForbids holds that a signature which forbids a field that a
// forwarder must add is expected to break: no trouble of ours, and no survivor.
func TestSignatureThatForbids(t *testing.T) {
	w := newWorld(t, false)
	text := "Received: from a by b; Thu, 19 Nov 2026 11:40:00 +0000\r\n" + from("letters.example")
	s, err := w.signer("letters.example")
	if err != nil {
		t.Fatal(err)
	}
	var bodies dkim.BodyHashes
	body := signing.Ask(&bodies)
	if err := bodies.Read(content(t, text).Body()); err != nil {
		t.Fatal(err)
	}
	forbids, err := s.Seal(content(t, text).Fields(), body.Sum, arc.Result{Result: arc.None}, w.judge("x@letters.example", content(t, text)).Results("x"), time.Now())
	if err != nil || len(forbids) == 0 {
		t.Fatal(err)
	}
	answer, _, after := w.send("x@letters.example", string(forbids)+text, message.Rewrite)
	if answer.Code != 250 || after.Author.Domain != "mx.example.org" {
		t.Errorf("%v, From %v", answer, after.Author)
	}
}

// TestSignedOnce holds that copies which look the same to their readers have the
// same signature, which each of them verifies: the body is read once however many
// targets there are. Copies with a From of their own have their own.
func TestSignedOnce(t *testing.T) {
	w := newWorld(t, false)
	for _, tt := range []struct {
		sender, text string
		want         int // signatures
	}{
		{"x@none.example", from("none.example"), 1},
		{"x@letters.example", from("letters.example"), 2}, // From is rewritten, for two aliases
	} {
		msg := content(t, tt.text)
		verdict := w.judge(tt.sender, msg)
		env := envelope(t, "me@example.org>a@gmail.com,b@gmail.com", "you@example.org>c@gmail.com,d@gmail.com")
		for i := range env.Recipients {
			env.Recipients[i].Breaks = message.Rewrite
		}
		env.From = verdict.From
		m := &mail{env: env, verdict: verdict, msg: msg, route: w.f.Route()}
		if err := w.f.prepare(t.Context(), m); err != nil || len(m.deliveries) != 4 {
			t.Fatal(err, len(m.deliveries))
		}
		for _, d := range m.deliveries {
			if after := w.judge(d.from.String(), d.copy); after.DKIM[0].Result != dkim.Pass || after.DKIM[0].Domain != "mx.example.org" {
				t.Errorf("%s: %+v", d.target, after.DKIM[0])
			}
		}
		if len(m.signatures) != tt.want {
			t.Errorf("%s: %d signatures, want %d", tt.sender, len(m.signatures), tt.want)
		}
	}
}

// TestSealing holds that an ARC set is put on top for the targets that want one,
// and that the whole verifies.
func TestSealing(t *testing.T) {
	w := newWorld(t, false)
	w.change(func(r *Route) { r.Seal = func(d address.Domain) bool { return d == "gmail.com" } })
	_, out, after := w.send("x@letters.example", w.signed("signed.example", from("signed.example")), message.Rewrite)
	if after.ARC.Result != arc.Pass || len(after.ARC.Sets) != 1 || after.ARC.Sets[0].Seal.Domain != "mx.example.org" || !strings.HasPrefix(out, "ARC-Seal:") {
		t.Errorf("ARC is %+v in\n%s", after.ARC, out)
	}
	w.change(func(r *Route) { r.Seal = func(d address.Domain) bool { return d == "yahoo.com" } })
	if _, out, _ = w.send("x@letters.example", from("none.example"), message.Rewrite); strings.Contains(out, "ARC-") {
		t.Errorf("sealed for gmail.com:\n%s", out)
	}
}

// TestAnswerInTheNameOfTheAlias holds that what goes to an author in the name of
// an alias tells nothing of the mailbox behind it: not its address, nor the server
// that sent it to us, also where its domain wants an ARC set (DESIGN.md 9.5).
func TestAnswerInTheNameOfTheAlias(t *testing.T) {
	w := newWorld(t, false)
	w.change(func(r *Route) {
		r.Seal = func(address.Domain) bool { return true }
		r.Conceal = srsLike
	})
	msg := content(t, w.signed("letters.example", from("letters.example")))
	verdict := w.judge("old@letters.example", msg)
	env := envelope(t, "reply-x@mx.example.org>bob@sender.example")
	env.Helo, env.From = "mail.letters.example", address.ReversePath{Mailbox: address.Mailbox{Local: "private", Domain: "none.example"}}
	env.Received = []byte("Received: from mail.letters.example ([192.0.2.1])\r\n\tby mx.example.org; Sun, 1 Mar 2026 10:00:00 +0100\r\n")
	env.Results = []byte("Authentication-Results: mx.example.org; spf=pass smtp.mailfrom=old@letters.example\r\n")
	env.Recipients[0].As = address.Mailbox{Local: "me", Domain: "example.org"}
	answer, _ := w.f.Accept(t.Context(), env, verdict, msg)
	if answer.Code != 250 || len(w.sent) != 1 {
		t.Fatal(answer, len(w.sent))
	}
	b, _ := io.ReadAll(w.sent[0].Open())
	out := string(b)
	if strings.Contains(out, "letters.example") || strings.Contains(out, "192.0.2.1") || !strings.Contains(out, " <me@example.org>\r\n") {
		t.Errorf("the copy is\n%s", out)
	}
	if !strings.Contains(out, "Received: by mx.example.org id "+env.ID) {
		t.Errorf("no hop of ours in\n%s", out)
	}
}

// TestHiddenTarget holds that the target stands nowhere in the copy when it is to
// stay private.
func TestHiddenTarget(t *testing.T) {
	w := newWorld(t, false)
	w.change(func(r *Route) { r.HideTargets = true })
	if _, out, _ := w.send("x@none.example", from("none.example"), message.Rewrite); strings.Contains(out, "old@") || !strings.Contains(out, "X-Forwarded-For: me@example.org\r\n") {
		t.Errorf("the copy is\n%s", out)
	}
}

// TestRelayThatWantsOurFrom holds that behind such a relay every From is ours,
// also of bounces and of messages that nobody could answer.
func TestRelayThatWantsOurFrom(t *testing.T) {
	w := newWorld(t, false)
	w.change(func(r *Route) { r.RewriteAll = true })
	for _, tt := range []struct{ sender, text string }{
		{"x@none.example", from("none.example")},
		{"x@none.example", w.signed("signed.example", from("signed.example"))},
		{"", "From: <>\r\nSubject: bounce\r\n\r\nx\r\n"},
		{"", "Subject: bounce\r\n\r\nx\r\n"},
	} {
		answer, out, after := w.send(tt.sender, tt.text, message.Rewrite)
		if answer.Code != 250 || after.Author.Domain != "mx.example.org" || after.Author.Mistake != "" {
			t.Errorf("%v, From is %+v in\n%s", answer, after.Author, out)
		}
	}
}
