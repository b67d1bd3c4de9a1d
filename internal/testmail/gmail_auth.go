package testmail

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/mailauth/dkim"
	"onward/internal/mailauth/dmarc"
	"onward/internal/mailauth/iprev"
	"onward/internal/mailauth/spf"
	"onward/internal/message"
)

// authentication is what Gmail finds out about a message.
type authentication struct {
	ptr       iprev.Result
	spf       spf.Check
	spfDomain string // that passed
	signer    string // the topmost domain whose signature passed
	dmarc     dmarc.Verdict
	trouble   error
}

// authenticate looks at a message as it arrived.
func (g *Gmail) authenticate(ctx context.Context, s Step) (found authentication) {
	buffer := message.NewBuffer(os.TempDir())
	buffer.Write(s.Data)
	msg, err := buffer.Message()
	if err != nil {
		return authentication{trouble: err}
	}
	defer msg.Close()
	from, err := address.ParseReversePath(path(s.Mail))
	if err != nil {
		return authentication{trouble: err}
	}
	found.ptr = iprev.Verify(ctx, g.dns, s.Peer.Addr()).Result
	_, found.spf = spf.Verify(ctx, g.dns, spf.Input{IP: s.Peer.Addr(), Helo: s.Helo, From: from, Hostname: "mx.google.example", Now: time.Now()})
	in := dmarc.Input{From: dmarc.ParseFrom(msg.Fields()), SPF: dmarc.Identifier{Result: dmarc.Result(found.spf.Result), Domain: found.spf.Domain}}
	if found.spf.Result == spf.Pass {
		found.spfDomain = found.spf.Domain
	}
	for _, r := range dkim.Verify(ctx, g.dns, msg, dkim.Options{Now: time.Now()}) {
		in.DKIM = append(in.DKIM, dmarc.Identifier{Result: dmarc.Result(r.Result), Domain: r.Domain})
		if r.Result == dkim.Pass && found.signer == "" {
			found.signer = r.Domain
		}
	}
	found.dmarc = dmarc.Evaluate(ctx, g.dns, in)
	return found
}

// objection returns what Gmail has against the sender of a message.
func (a authentication) objection(policy GmailPolicy, s Step) Action {
	limited := func(status, why string) Action {
		return say(421, status, "Your email has been rate limited because "+why)
	}
	ip := s.Peer.Addr()
	passed := a.spfDomain != "" || a.signer != ""
	switch {
	case a.trouble != nil:
		return say(451, "4.3.0", "Mail server temporarily rejected message: "+a.trouble.Error())
	case a.ptr != iprev.Pass && ip.Is6():
		return say(550, "5.7.1", fmt.Sprintf("[%s] Our system has detected that this message does not meet IPv6 sending guidelines regarding PTR records and authentication.", ip))
	case a.ptr != iprev.Pass && policy.Lenient:
		return say(451, "4.7.23", fmt.Sprintf("[%s] The sending IP address for this message doesn't have a PTR record, or the PTR record's forward DNS entry doesn't match the sending IP address. To protect users from spam, your email has been temporarily rate limited.", ip))
	case a.ptr != iprev.Pass:
		return say(550, "5.7.25", fmt.Sprintf("[%s] The IP address sending this message does not have a PTR record setup, or the corresponding forward DNS entry does not point to the sending IP.", ip))
	case openSPF(a.spf):
		return say(421, "4.7.24", fmt.Sprintf("The SPF record of the sending domain [%s] has one or more suspicious entries. To protect users from spam, your email has been temporarily rate limited.", a.spf.Domain))
	case !passed && policy.Lenient:
		return limited("4.7.26", "it is unauthenticated. Gmail requires all senders to authenticate with either SPF or DKIM.")
	case a.spf.Result == spf.Fail && a.signer == "":
		return say(550, "5.7.26", fmt.Sprintf("The MAIL FROM domain [%s] has an SPF record with a hard fail policy (-all) but it fails to pass SPF checks with the ip: [%s].", a.spf.Domain, ip))
	case !passed:
		return say(550, "5.7.26", fmt.Sprintf("Your email has been blocked because the sender is unauthenticated. Authentication results: DKIM = did not pass, SPF [%s] with ip: [%s] = did not pass", a.spf.Domain, ip))
	case a.dmarc.Result == dmarc.Fail && a.dmarc.Policy == dmarc.PolicyReject:
		return say(550, "5.7.26", fmt.Sprintf("Unauthenticated email from %s is not accepted due to domain's DMARC policy. Please contact the administrator of %s domain if this was a legitimate mail.", a.dmarc.Domain, a.dmarc.Domain))
	case !policy.Bulk:
		return Action{}
	case a.spfDomain == "":
		return limited("4.7.27", fmt.Sprintf("SPF authentication didn't pass for this message. Gmail requires bulk email senders to authenticate their email with SPF: %s", a.spf.Domain))
	case s.TLS == "":
		return limited("4.7.29", "this message wasn't sent over a TLS connection. Gmail requires all bulk email senders to use TLS/SSL for SMTP connections.")
	case a.signer == "":
		return limited("4.7.30", "DKIM authentication didn't pass for this message. Gmail requires bulk email senders to authenticate their email with DKIM.")
	case !a.dmarc.SPFAligned && !a.dmarc.DKIMAligned:
		return limited("4.7.32", "the From: header (RFC5322) in this message isn't aligned with either the authenticated SPF or DKIM organizational domain.")
	case a.dmarc.Policy == "":
		return limited("4.7.40", fmt.Sprintf("the sending domain doesn't have a DMARC record, or the DMARC record doesn't specify a DMARC policy: %s", a.dmarc.Domain))
	}
	return Action{}
}

// openSPF reports whether everybody passes.
func openSPF(c spf.Check) bool {
	return slices.Contains([]string{"all", "+all"}, strings.ToLower(c.Mechanism)) && c.Result == spf.Pass
}
