package inbound

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/config"
	"onward/internal/mailauth"
	"onward/internal/mailauth/arc"
	"onward/internal/mailauth/authres"
	"onward/internal/mailauth/dkim"
	"onward/internal/mailauth/dmarc"
	"onward/internal/mailauth/spf"
)

// failing is a message from forged@bank.example that fails DMARC with
// p=reject, as change makes it.
func failing(change func(*mailauth.Verdict)) *mailauth.Verdict {
	v := &mailauth.Verdict{
		Sender: mailauth.Sender{Client: netip.MustParseAddr("198.51.100.1"), Now: time.Now(),
			From: address.ReversePath{Mailbox: address.Mailbox{Local: "x", Domain: "sender.example"}}},
		MailFrom: spf.Check{Result: spf.Fail, Domain: "bank.example"},
		Author:   dmarc.From{Domain: "bank.example", Fields: 1},
		DMARC:    dmarc.Verdict{Result: dmarc.Fail, Domain: "bank.example", Policy: dmarc.PolicyReject},
	}
	if change != nil {
		change(v)
	}
	return v
}

func passedSPF(domain string) func(*mailauth.Verdict) {
	return func(v *mailauth.Verdict) { v.MailFrom = spf.Check{Result: spf.Pass, Domain: domain} }
}

func signed(domain, result string) func(*mailauth.Verdict) {
	return func(v *mailauth.Verdict) {
		v.DKIM = append(v.DKIM, dkim.Result{Signature: &dkim.Signature{Domain: domain}, Result: result})
	}
}

// sealed adds an ARC chain whose newest set is by these domains and says that
// it saw this result of DMARC.
func sealed(chain, seal, message, dmarcResult string) func(*mailauth.Verdict) {
	return func(v *mailauth.Verdict) {
		v.ARC = arc.Result{Result: chain, Sets: []arc.Set{
			{Seal: arc.Signature{Domain: "lists.trusted.example"}, Message: arc.Signature{Domain: "lists.trusted.example"},
				Results: authres.Header{Results: []authres.Result{{Method: "dmarc", Value: "pass"}}}},
			{Seal: arc.Signature{Domain: seal}, Message: arc.Signature{Domain: message},
				Results: authres.Header{Results: []authres.Result{{Method: "spf", Value: "pass"}, saw(dmarcResult, "bank.example")}}},
		}}
	}
}

// saw is what a sealer says of DMARC.
func saw(result, from string) authres.Result {
	return authres.Result{Method: "dmarc", Value: result, Properties: []authres.Property{{Type: "header", Name: "from", Value: from}}}
}

// sawToo makes the newest sealer say these things of DMARC instead.
func sawToo(results ...authres.Result) func(*mailauth.Verdict) {
	return func(v *mailauth.Verdict) {
		sealed(arc.Pass, "trusted.example", "trusted.example", "")(v)
		v.ARC.Sets[1].Results.Results = results
	}
}

// TestDecide holds DESIGN.md 4 and STANDARDS.md DM2, DM14 to DM16, DM18.
func TestDecide(t *testing.T) {
	const list = "Weekly <weekly.lists.example>"
	for _, tt := range []struct {
		name   string
		change func(*mailauth.Verdict)
		listID string
		// the codes by mode: enforce, strict, observe; 0 is accept
		enforce, strict int
	}{
		{"nothing passes", nil, "", 550, 550},
		{"an unrelated domain passes SPF", passedSPF("attacker.example"), "", 550, 550},
		{"an unrelated domain passes DKIM", signed("attacker.example", dkim.Pass), "", 550, 550},
		{"policy quarantine", func(v *mailauth.Verdict) { v.DMARC.Policy = dmarc.PolicyQuarantine }, "", 0, 0},
		{"policy none", func(v *mailauth.Verdict) { v.DMARC.Policy = dmarc.PolicyNone }, "", 0, 0},
		{"pass", func(v *mailauth.Verdict) { v.DMARC.Result = dmarc.Pass }, "", 0, 0},
		{"no policy", func(v *mailauth.Verdict) { v.DMARC.Result, v.DMARC.Policy = dmarc.None, "" }, "", 0, 0},

		{"list by SPF", passedSPF("lists.example"), list, 0, 550},
		{"list by DKIM", signed("lists.example", dkim.Pass), list, 0, 550},
		{"list whose signature fails", signed("lists.example", dkim.Fail), list, 550, 550},
		{"list of another domain", passedSPF("attacker.example"), list, 550, 550},
		{"list below the signer", signed("weekly.lists.example", dkim.Pass), list, 0, 550},
		{"signer below the list", signed("deep.weekly.lists.example", dkim.Pass), list, 550, 550},
		{"signer is a top-level domain", signed("example", dkim.Pass), list, 550, 550},
		{"List-Id without brackets", passedSPF("lists.example"), "weekly.lists.example", 550, 550},

		{"trusted sealer", sealed(arc.Pass, "trusted.example", "trusted.example", "pass"), "", 0, 550},
		{"trusted sealer's subdomain", sealed(arc.Pass, "a.trusted.example", "trusted.example", "pass"), "", 0, 550},
		{"trusted sealer saw a failure", sealed(arc.Pass, "trusted.example", "trusted.example", "fail"), "", 550, 550},
		{"broken chain", sealed(arc.Fail, "trusted.example", "trusted.example", "pass"), "", 550, 550},
		{"newest seal by another", sealed(arc.Pass, "attacker.example", "trusted.example", "pass"), "", 550, 550},
		{"newest message signature by another", sealed(arc.Pass, "trusted.example", "attacker.example", "pass"), "", 550, 550},
		{"trusted sealer saw both", sawToo(saw("fail", "bank.example"), saw("pass", "bank.example")), "", 550, 550},
		{"trusted sealer saw another author", sawToo(saw("pass", "other.example")), "", 550, 550},
		{"trusted sealer names no author", sawToo(authres.Result{Method: "dmarc", Value: "pass"}), "", 550, 550},
		{"the sealer's key is not to be had now", sealed(arc.TempError, "trusted.example", "trusted.example", "pass"), "", 451, 550},
		{"some sealer's key is not to be had now", sealed(arc.TempError, "other.example", "other.example", "pass"), "", 550, 550},
		{"the list's SPF is not to be had now", func(v *mailauth.Verdict) {
			v.MailFrom = spf.Check{Result: spf.TempError, Domain: "lists.example"}
		}, list, 451, 550},
		{"the list's SPF and a hidden client", func(v *mailauth.Verdict) {
			v.MailFrom, v.Hidden = spf.Check{Result: spf.TempError, Domain: "lists.example"}, true
		}, list, 0, 550},
		{"the forwarder's key is not to be had now", signed("uni.example", dkim.TempError), "", 451, 550},
		{"a name that ends alike", sealed(arc.Pass, "untrusted.example", "untrusted.example", "pass"), "", 550, 550},

		{"trusted network", func(v *mailauth.Verdict) { v.Client = netip.MustParseAddr("203.0.113.9") }, "", 0, 550},
		{"trusted forwarder by SPF", passedSPF("mail.uni.example"), "", 0, 550},
		{"trusted forwarder by DKIM", signed("uni.example", dkim.Pass), "", 0, 550},
		{"trusted forwarder by a failing signature", signed("uni.example", dkim.Fail), "", 550, 550},

		{"two From fields", func(v *mailauth.Verdict) { v.Author = dmarc.From{Fields: 2, Mistake: "there are two"} }, "", 550, 550},
		{"no From field", func(v *mailauth.Verdict) {
			v.Author, v.DMARC = dmarc.From{Mistake: "there is none"}, dmarc.Verdict{Result: dmarc.PermError}
		}, "", 550, 550},
		{"no From field in a bounce", func(v *mailauth.Verdict) {
			v.Sender.From = address.ReversePath{}
			v.Author, v.DMARC = dmarc.From{Nobody: true, Mistake: "there is none"}, dmarc.Verdict{Result: dmarc.PermError}
		}, "", 0, 0},
		{"two From fields in a bounce", func(v *mailauth.Verdict) {
			v.Sender.From = address.ReversePath{}
			v.Author = dmarc.From{Fields: 2, Mistake: "there are two"}
		}, "", 550, 550},
		{"several authors and DNS trouble", func(v *mailauth.Verdict) {
			v.Author = dmarc.From{Fields: 1, Mistake: "two domains"}
			v.DMARC = dmarc.Verdict{Result: dmarc.TempError, Policy: dmarc.PolicyQuarantine}
		}, "", 550, 550},
		{"DNS trouble", func(v *mailauth.Verdict) { v.DMARC.Result, v.DMARC.Policy = dmarc.TempError, "" }, "", 451, 451},
		{"DNS trouble and reject", func(v *mailauth.Verdict) { v.DMARC.Result = dmarc.TempError }, "", 451, 451},
		{"DNS trouble that does not matter", func(v *mailauth.Verdict) {
			v.DMARC.Result, v.DMARC.Policy = dmarc.TempError, dmarc.PolicyNone
		}, "", 0, 0},
		{"hidden client", func(v *mailauth.Verdict) { v.DMARC.Result, v.Hidden = dmarc.TempError, true }, "", 0, 0},
	} {
		for mode, want := range map[string]int{"enforce": tt.enforce, "strict": tt.strict, "observe": 0} {
			j := NewJudge(&config.Config{
				Policy: config.Policy{DMARC: mode, TrustedForwarders: []string{"203.0.113.0/24", "uni.example"}},
				ARC:    config.ARC{TrustedSealers: []string{"trusted.example"}},
			}, NewLists())
			d := j.Decide(failing(tt.change), tt.listID)
			code := 0
			if d.Reply != nil {
				code = d.Reply.Code
			}
			if code != want || d.Why == "" {
				t.Errorf("%s, %s: %+v, want %d", tt.name, mode, d, want)
			}
			if code == 550 && d.Reply.Status == "5.7.1" && (!strings.Contains(d.Reply.Text, "DMARC") || !strings.Contains(d.Reply.Text, "bank.example")) {
				t.Errorf("%s: %q does not name DMARC and the domain (DM18)", tt.name, d.Reply.Text)
			}
		}
	}
}

// TestListsAreLimited holds that a list is excused so often an hour, and that
// the rest is asked to come back rather than refused.
func TestListsAreLimited(t *testing.T) {
	j := NewJudge(&config.Config{Policy: config.Policy{DMARC: "enforce"}}, NewLists())
	v := failing(passedSPF("lists.example"))
	codes := map[int]int{}
	for range listPerHour + 5 {
		if d := j.Decide(v, "<weekly.lists.example>"); d.Reply != nil {
			codes[d.Reply.Code]++
		}
	}
	if codes[451] != 5 || len(codes) != 1 {
		t.Errorf("codes %v", codes)
	}
	v.Now = v.Now.Add(time.Hour)
	if d := j.Decide(v, "<weekly.lists.example>"); d.Reply != nil {
		t.Errorf("an hour later: %+v", d)
	}
	for i := range maxKeys + 10 { // strangers cannot use up what others need
		j.lists.Allow(fmt.Sprint(i), listPerHour, v.Now)
	}
	if d := j.Decide(failing(passedSPF("lists.test")), "<weekly.lists.test>"); d.Reply != nil {
		t.Errorf("after many others: %+v", d)
	}
}

// TestSubdomainsShareABudget holds that a list is an organization: names below
// it cost nothing.
func TestSubdomainsShareABudget(t *testing.T) {
	j := NewJudge(&config.Config{Policy: config.Policy{DMARC: "enforce"}}, NewLists())
	excused := 0
	for i := range 2 * listPerHour {
		name := fmt.Sprintf("s%d.evil.example", i)
		v := failing(passedSPF(name))
		v.DMARC.Alignments = []dmarc.Alignment{{Method: "spf", Domain: address.Domain(name), OrganizationalDomain: address.Domain(name)}} // psd=n says so
		if d := j.Decide(v, "<l."+name+">"); d.Reply == nil {
			excused++
		}
	}
	if excused != listPerHour {
		t.Errorf("%d were excused", excused)
	}
}

// TestVerdictOnTheWire goes through the listener: a spoof is refused at the end
// of DATA, whatever else passes; a list and honest mail go on with their results on
// top, and forged results are gone (STANDARDS.md R1, DM17).
func TestVerdictOnTheWire(t *testing.T) {
	h := open(t, func(p *Policy) {
		p.Judge = NewJudge(&config.Config{Policy: config.Policy{DMARC: "enforce"}}, NewLists())
	})
	c := h.dial()
	c.say("EHLO mail.attacker.example", "250")
	send := func(from, header, want string) string {
		t.Helper()
		c.say("MAIL FROM:<"+from+">", "250")
		c.say("RCPT TO:<me@example.org>", "250")
		c.say("DATA", "354")
		return c.say(header+"\r\nhello\r\n.", want)
	}
	spoof := "From: The Bank <security@bank.example>\r\n"
	send("x@bank.example", spoof, "550 5.7.1")
	said := send("x@attacker.example", spoof, "550 5.7.1")
	if !strings.Contains(said, "DMARC") || !strings.Contains(said, "bank.example") || !strings.Contains(said, "attacker.example") {
		t.Errorf("the refusal does not explain: %q", said)
	}
	send("x@attacker.example", spoof+spoof, "550 5.6.0")
	send("x@attacker.example", "Subject: no author\r\n", "550 5.6.0")
	send("x@attacker.example", "From: <>\r\n", "550 5.6.0")
	send("", "From: security@bank.example, x@attacker.example\r\n", "550")
	send("x@attacker.example", "From: x@shop.example\r\n", "250") // p=quarantine
	send("bounce@lists.example", spoof+"List-Id: <news.lists.example>\r\n", "250")
	forged := "Authentication-Results: mx.example.org; dmarc=pass\r\n" +
		"AUTHENTICATION-RESULTS: (a) \"MX.example.org\" 1;\r\n dmarc=pass\r\n" +
		"Authentication-Results: mx.elsewhere.example; dmarc=pass\r\n"
	send("x@attacker.example", forged+"From: x@attacker.example\r\n", "250")
	for _, bounce := range []string{"From: <>\r\n", "From: MAILER-DAEMON (Mail Delivery System)\r\n", "Subject: bounce\r\n"} {
		send("", bounce, "250")
	}
	got := h.owner.messages()
	if len(got) != 6 {
		t.Fatalf("%d messages", len(got))
	}
	if trace := string(got[1].env.Results); !strings.Contains(trace, "spf=pass") || !strings.Contains(trace, "dmarc=fail") || !strings.HasPrefix(trace, "Authentication-Results: mx.example.org;") {
		t.Errorf("results of the list: %q", trace)
	}
	if last := got[2].bytes; last != "Authentication-Results: mx.elsewhere.example; dmarc=pass\r\nFrom: x@attacker.example\r\n\r\nhello\r\n" {
		t.Errorf("forged results: %q", last)
	}
}

// TestHiddenClient holds DESIGN.md 9.11.
func TestHiddenClient(t *testing.T) {
	h := open(t, func(p *Policy) {
		p.Judge = NewJudge(&config.Config{Policy: config.Policy{DMARC: "enforce"}}, NewLists())
		p.Verifier.Loopback = false
	})
	c := h.dial()
	c.say("EHLO c", "250")
	c.say("MAIL FROM:<x@bank.example>", "250")
	c.say("RCPT TO:<me@example.org>", "250")
	c.say("DATA", "354")
	c.say("From: x@bank.example\r\n\r\n.", "250")
	if trace := string(h.owner.messages()[0].env.Results); !strings.Contains(trace, "spf=temperror") {
		t.Errorf("trace %q", trace)
	}
}
