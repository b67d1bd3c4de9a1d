package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/mailauth"
	"onward/internal/mailauth/dmarc"
	"onward/internal/message"
	"onward/internal/testmail"
	"onward/testdata/messages"
)

// stories are what the demo plays, in this order: each finds the mailbox as the
// one before left it.
var stories = []struct {
	title string
	play  func(*stage, *playbill)
}{
	{"A newsletter reaches the mailbox", newsletter},
	{"An unknown alias is refused before the message is sent", unknownAlias},
	{"The mailbox refuses, and the sender hears it at once", mailboxRefuses},
	{"A bounce travels back to the first sender", bounceReturns},
	{"The alias file is edited, and the next message goes elsewhere", aliasEdited},
	{"A letter in a bank's name is refused, whoever vouches for it", spoofRefused},
	{"A mailing list broke the signature, and the letter goes on all the same", listGoesOn},
	{"Forwarding would break DMARC, so From is rewritten, and the mailbox takes it", fromRewritten},
	{"A message comes back to us, and the loop ends at once", loopStopped},
	{"The mailbox is away for a while, and the message arrives later", mailboxAway},
	{"It fails in the end, and the sender, who is known, gets a report", senderTold},
	{"Nobody knows who the sender is, so it keeps the message", senderUnknown},
}

func newsletter(s *stage, p *playbill) {
	v := p.visit(s)
	v.say("MAIL FROM:<letters@paperboat.example>", "250")
	v.say("RCPT TO:<me@example.org>", "250")
	p.sender("MAIL FROM:<letters@paperboat.example> RCPT TO:<me@example.org>")
	answer := v.message(messages.Newsletter, "250 2.0.0")
	got, err := s.next(1)
	p.check(err)
	p.onward(envelope(got.Mail, got.Rcpt[0]))
	p.mailbox(got.Reply)
	p.answer(answer)
	p.results(got.Data)
	p.unchanged(got.Data, messages.Newsletter)
	p.good("%d octets arrived as they were sent (SHA-256 %.8x…), under a return path of ours", len(messages.Newsletter), sha256.Sum256(messages.Newsletter))
}

func unknownAlias(s *stage, p *playbill) {
	v := p.visit(s)
	v.say("MAIL FROM:<bob@sender.example>", "250")
	p.sender("RCPT TO:<mee@example.org>")
	p.answer(v.say("RCPT TO:<mee@example.org>", "550 5.1.1"))
	p.sender("RCPT TO:<press@example.org>")
	p.answer(v.say("RCPT TO:<press@example.org>", "550"))
	p.expect(s.mailbox.Count() == 1, "nothing goes to the mailbox")
	p.good("the sender knows at once; nobody is sent a bounce")
}

func mailboxRefuses(s *stage, p *playbill) {
	s.mailbox.Do("RCPT", testmail.Action{Reply: "550 5.2.1 ada@mailbox.example: this mailbox is closed", Times: 1})
	v := p.visit(s)
	v.say("MAIL FROM:<bob@sender.example>", "250")
	v.say("RCPT TO:<me@example.org>", "250")
	p.sender("MAIL FROM:<bob@sender.example> RCPT TO:<me@example.org>")
	answer := v.message(messages.Note, "550 5.2.1")
	p.mailbox("550 5.2.1 ada@mailbox.example: this mailbox is closed")
	p.answer(answer)
	p.expect(!strings.Contains(answer, "ada@"), "the private address stays private")
	p.good("the mailbox's own words, without the private address; the sender's server tells its user")
}

func bounceReturns(s *stage, p *playbill) {
	v := p.visit(s)
	v.say("MAIL FROM:<bob@sender.example>", "250")
	v.say("RCPT TO:<me@example.org>", "250")
	v.message(messages.Note, "250 2.0.0")
	forwarded, err := s.next(2)
	p.check(err)
	path := returnPath(forwarded)
	p.onward(envelope(forwarded.Mail))

	v = p.visit(s)
	v.say("MAIL FROM:<eve@elsewhere.example>", "250")
	v.say("RCPT TO:<"+path+">", "550 5.1.1") // a return path is for bounces only
	v.say("RSET", "250")
	v.say("MAIL FROM:<>", "250")
	v.say("RCPT TO:<"+path+">", "250")
	p.say("mailbox", "onward", "MAIL FROM:<> RCPT TO:<"+path+">")
	v.message(messages.Bounce, "250 2.0.0")
	bounce, err := s.next(3)
	p.check(err)
	p.say("onward", "bob's server", envelope(bounce.Mail, bounce.Rcpt[0]))
	p.expect(bounce.Rcpt[0] == "RCPT TO:<bob@sender.example>", "it goes to the first sender")
	p.unchanged(bounce.Data, messages.Bounce)
	p.good("the return path knew the way; from anyone but a bounce it takes nothing (550 5.1.1)")
}

func aliasEdited(s *stage, p *playbill) {
	p.say("you", "onward.yaml", "sed -i 's/me: ada@mailbox.example/me: ada+new@mailbox.example/'")
	p.check(s.edit("me: ada@mailbox.example", "me: ada+new@mailbox.example"))
	v := p.visit(s) // one connection, open all the while
	want := "RCPT TO:<ada+new@mailbox.example>"
	for n, end := s.mailbox.Count()+1, time.Now().Add(5*time.Second); ; n++ {
		v.say("MAIL FROM:<bob@sender.example>", "250")
		v.say("RCPT TO:<me@example.org>", "250")
		answer := v.message(messages.Note, "250 2.0.0")
		got, err := s.next(n)
		p.check(err)
		if got.Rcpt[0] == want {
			p.onward(got.Rcpt[0])
			p.answer(answer)
			break
		}
		p.expect(time.Now().Before(end), "the change is noticed within two seconds")
		time.Sleep(200 * time.Millisecond)
	}
	p.good("no restart, and no connection was dropped; a file with a mistake would have been ignored")
}

func spoofRefused(s *stage, p *playbill) {
	for _, from := range []string{"security@bank.example", "eve@attacker.example"} {
		v := p.visit(s)
		v.say("MAIL FROM:<"+from+">", "250")
		v.say("RCPT TO:<me@example.org>", "250")
		p.sender("MAIL FROM:<" + from + ">, and then From: Your Bank <security@bank.example>")
		answer := v.message(messages.Forged, "550 5.7.1")
		p.answer(answer)
		p.field(s.results(from, messages.Forged))
		p.expect(strings.Contains(answer, "DMARC") && strings.Contains(answer, "bank.example"), "the refusal says why")
	}
	p.good("the bank's DMARC record asks for this; that the attacker's own domain passes SPF excuses nothing")
}

func listGoesOn(s *stage, p *playbill) {
	n := s.mailbox.Count() + 1
	v := p.visit(s)
	v.say("MAIL FROM:<talk-bounces@lists.example>", "250")
	v.say("RCPT TO:<me@example.org>", "250")
	p.sender("MAIL FROM:<talk-bounces@lists.example>, and then From: Carol Jones <carol@bank.example>")
	answer := v.message(messages.List, "250 2.0.0")
	got, err := s.next(n)
	p.check(err)
	p.results(got.Data)
	p.answer(answer)
	p.unchanged(got.Data, messages.List)
	p.expect(bytes.Contains(got.Data, []byte("dmarc=fail")), "the failure is on record")
	p.good("the list added a footer and says who it is; the failure is written down, and the mailbox decides")
}

func fromRewritten(s *stage, p *playbill) {
	n := s.mailbox.Count() + 1
	v := p.visit(s)
	v.say("MAIL FROM:<dora@letters.example>", "250")
	v.say("RCPT TO:<me@example.org>", "250")
	p.sender("MAIL FROM:<dora@letters.example>, then From: <dora@letters.example>, not signed")
	answer := v.message(messages.Unsigned, "250 2.0.0")
	got, err := s.next(n)
	p.check(err)
	p.onward(fieldOf(got.Data, "From"))
	p.onward(fieldOf(got.Data, "Reply-To"))
	p.answer(answer)
	verdict := s.judge(returnPath(got), got.Data)
	p.expect(verdict != nil && verdict.DMARC.Result == dmarc.Pass && verdict.DMARC.DKIMAligned, "the mailbox finds that it passes DMARC")
	p.good("only SPF vouched for it, and SPF ends here; now our signature does, and the mailbox finds dmarc=pass")
}

func loopStopped(s *stage, p *playbill) {
	all := s.mailbox.Messages()
	before := all[len(all)-1].Data
	v := p.visit(s)
	v.say("MAIL FROM:<ada@mailbox.example>", "250")
	v.say("RCPT TO:<me@example.org>", "250")
	p.say("mailbox", "onward", "the message from before, forwarded back to me@example.org")
	p.say("onward", "mailbox", v.message(before, "554 5.4.6"))
	p.expect(s.mailbox.Count() == len(all), "nothing goes round again")
	p.good("X-Onward-Loop, a mark that only we can make, gave it away")
}

func mailboxAway(s *stage, p *playbill) {
	n := s.mailbox.Count() + 1
	away := "451 4.3.2 back in a minute"
	s.mailbox.Do("RCPT", testmail.Action{Reply: away, Times: 1})
	v := p.visit(s)
	v.say("MAIL FROM:<bob@sender.example>", "250")
	v.say("RCPT TO:<me@example.org>", "250")
	p.sender("MAIL FROM:<bob@sender.example> RCPT TO:<me@example.org>")
	answer := v.message(messages.Note, "250 2.0.0")
	p.mailbox(away)
	p.answer(answer)
	p.say("you", "onward", "onward queue retry --all, rather than wait for two minutes")
	p.check(s.retry())
	got, err := s.next(n)
	p.check(err)
	p.onward(envelope(got.Mail, got.Rcpt[0]))
	p.unchanged(got.Data, messages.Note)
	p.good("250 meant that it was on disk; bob's server passes SPF, so that he could be told of a failure")
}

func senderTold(s *stage, p *playbill) {
	n := s.mailbox.Count() + 1
	gone := "550 5.1.1 ada@mailbox.example has moved"
	s.mailbox.Do("RCPT TO:<ada", testmail.Action{Reply: gone, Times: 1}) // the second time
	s.mailbox.Do("RCPT TO:<ada", testmail.Action{Reply: "451 4.3.2 back in a minute", Times: 1})
	v := p.visit(s)
	v.say("MAIL FROM:<bob@sender.example>", "250")
	v.say("RCPT TO:<me@example.org>", "250")
	p.answer(v.message(messages.Note, "250 2.0.0"))
	p.check(s.retry())
	p.mailbox(gone)
	report, err := s.next(n)
	p.check(err)
	p.say("onward", "bob's server", envelope(report.Mail, report.Rcpt[0]))
	for _, field := range []string{"Final-Recipient", "Diagnostic-Code"} {
		p.row("", "", fieldOf(report.Data, field))
	}
	p.expect(returnPath(report) == "" && report.Rcpt[0] == "RCPT TO:<bob@sender.example>", "the report goes to bob, from the null sender")
	p.expect(!bytes.Contains(report.Data, []byte("ada@mailbox")), "the private address stays private")
	p.good("the report is signed and names the alias, not the mailbox behind it")
}

func senderUnknown(s *stage, p *playbill) {
	away := "451 4.3.2 back in a minute"
	s.mailbox.Do("RCPT", testmail.Action{Reply: away, Times: 1})
	n := s.mailbox.Count()
	v := p.visit(s)
	v.say("MAIL FROM:<someone@nowhere.example>", "250")
	v.say("RCPT TO:<me@example.org>", "250")
	p.sender("MAIL FROM:<someone@nowhere.example>, which no SPF record vouches for")
	answer := v.message(messages.Stranger, "451 4.3.2")
	p.mailbox(away)
	p.answer(answer)
	p.expect(s.mailbox.Count() == n, "nothing was delivered")
	p.good("a report could only go to somebody who did not write; a real server tries again, a forger does not")
}

// results returns what the daemon finds about a message that it does not pass
// on.
func (s *stage) results(from string, eml []byte) []byte {
	verdict := s.judge(from, eml)
	if verdict == nil {
		return nil
	}
	return verdict.Results("mx.example.org").Field()
}

// judge verifies a message that comes from this machine, as its receiver would.
func (s *stage) judge(from string, eml []byte) *mailauth.Verdict {
	sender, _ := address.ParseReversePath(from)
	buffer := message.NewBuffer(os.TempDir())
	buffer.Write(eml)
	msg, err := buffer.Message()
	if err != nil {
		return nil
	}
	defer msg.Close()
	verifier := mailauth.Verifier{Resolver: s.zone, Hostname: "mx.example.org", Loopback: true}
	verdict, err := verifier.Verify(context.Background(), mailauth.Sender{
		Client: netip.MustParseAddr("127.0.0.1"), Helo: "mail.sender.example", From: sender, Now: time.Now(),
	}, msg)
	if err != nil {
		return nil
	}
	return verdict
}

// fieldOf returns the first field of that name, on one line.
func fieldOf(data []byte, name string) string {
	at := bytes.Index(data, []byte("\r\n"+name+":"))
	if at < 0 {
		return name + ": (none)"
	}
	field := strings.ReplaceAll(string(data[at+2:]), "\r\n ", " ")
	field, _, _ = strings.Cut(field, "\r\n")
	return field
}

// results shows the Authentication-Results on top of a delivered message.
func (p *playbill) results(data []byte) {
	at := bytes.Index(data, []byte("Authentication-Results:"))
	p.expect(at >= 0, "the results are on top of the message")
	end := bytes.Index(data[at:], []byte("\r\nReceived:"))
	p.expect(end >= 0, "our Received field is below them")
	p.field(data[at : at+end])
}

// field shows the results of one field, without the name of this host.
func (p *playbill) field(field []byte) {
	_, body, _ := strings.Cut(string(field), ";")
	var results []string
	for result := range strings.SplitSeq(body, ";") {
		if result = strings.TrimSpace(result); !strings.HasPrefix(result, "iprev") {
			results = append(results, result)
		}
	}
	p.findings(results)
}

// returnPath returns the address in MAIL FROM.
func returnPath(d testmail.Delivery) string {
	_, path, _ := strings.Cut(d.Mail, "<")
	path, _, _ = strings.Cut(path, ">")
	return path
}

// A visit is one connection of the sender.
type visit struct{ *testmail.Talk }

// visit connects to onward and says EHLO. The visit before ends as it should.
func (p *playbill) visit(s *stage) visit {
	if p.visitor.Talk != nil {
		p.visitor.say("QUIT", "221")
		p.visitor.Close()
	}
	v := visit{testmail.Dial(p, s.address)}
	p.visitor = v
	v.Expect("220")
	v.say("EHLO mail.sender.example", "250")
	return v
}

// say sends a line and returns the reply, which must begin with want.
func (v visit) say(line, want string) string { return v.Talk.Say(line, want) }

// message sends the message and returns the final answer.
func (v visit) message(eml []byte, want string) string {
	v.say("DATA", "354")
	stuffed := bytes.ReplaceAll(append([]byte("\r\n"), eml...), []byte("\r\n."), []byte("\r\n.."))[2:]
	v.Send(string(stuffed) + ".\r\n")
	return v.Expect(want)
}

// unchanged expects that got is want with fields of ours on top, and nothing
// else different.
func (p *playbill) unchanged(got, want []byte) {
	fields, ok := bytes.CutSuffix(got, want)
	p.expect(ok && bytes.Contains(fields, []byte("Received: from mail.sender.example")), "the message arrives byte for byte below our fields")
}

func (p *playbill) check(err error) {
	if err != nil {
		panic(plotHole(err.Error()))
	}
}

func (p *playbill) expect(ok bool, what string) {
	if !ok {
		panic(plotHole("expected that " + what))
	}
}

// Helper and Fatalf let the playbill stand in for a test (testmail.T).
func (p *playbill) Helper() {}

func (p *playbill) Fatalf(format string, args ...any) {
	panic(plotHole(fmt.Sprintf(format, args...)))
}
