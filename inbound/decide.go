package inbound

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/config"
	"onward/internal/mailauth"
	"onward/internal/mailauth/arc"
	"onward/internal/mailauth/dkim"
	"onward/internal/mailauth/dmarc"
	"onward/internal/mailauth/spf"
	"onward/internal/ratelimit"
	"onward/internal/reply"
)

// A Judge decides about messages by what authentication found (DESIGN.md 4).
// It remembers how much each mailing list was excused lately.
type Judge struct {
	mode       string // policy.dmarc
	networks   []netip.Prefix
	forwarders []address.Domain
	sealers    []address.Domain
	lists      *ratelimit.Limiter
}

// NewJudge makes a Judge of a configuration. Judges of one daemon share lists.
func NewJudge(cfg *config.Config, lists *ratelimit.Limiter) *Judge {
	j := &Judge{mode: cfg.Policy.DMARC, lists: lists}
	for _, s := range cfg.Policy.TrustedForwarders { // config has checked them
		if network, err := netip.ParsePrefix(s); err == nil {
			j.networks = append(j.networks, network)
		} else {
			j.forwarders = append(j.forwarders, address.Domain(s))
		}
	}
	for _, s := range cfg.ARC.TrustedSealers {
		j.sealers = append(j.sealers, address.Domain(s))
	}
	return j
}

// A Decision is what becomes of a message, and why.
type Decision struct {
	Reply *reply.Reply // the refusal, 4xx or 5xx; nil to accept
	Why   string       // one sentence, for the log and for people
}

// Decide judges one message. listID is the value of its List-Id field, if any.
//
//	no single author          550 5.6.0 (STANDARDS.md DM2); a bounce
//	                          that names nobody goes on
//	DMARC fail, p=reject      550 5.7.1, unless the mail is plausibly indirect
//	DMARC unknown, and it
//	matters                   451 4.7.0 (DM14)
//	anything else             accept; p=none and p=quarantine never refuse
//
// strict excuses no indirect mail, observe refuses nothing.
func (j *Judge) Decide(v *mailauth.Verdict, listID string) Decision {
	switch {
	case j.mode == "observe":
		return Decision{Why: "policy.dmarc is observe: nothing is refused"}
	case v.Author.Nobody && v.From.IsNull():
		return Decision{Why: "a bounce that names nobody in From: nobody is impersonated, and nobody would hear a refusal"}
	case v.Author.Domain == "": // whatever the DNS says
		return refuse(reply.New(550, "5.6.0", "a message needs one From field with one author's domain: %s (RFC 9989 11.5)", v.Author.Mistake))
	case v.DMARC.Result == dmarc.TempError:
		return j.unknown(v)
	case v.DMARC.Result != dmarc.Fail || v.DMARC.Policy != dmarc.PolicyReject:
		return Decision{Why: fmt.Sprintf("DMARC is %s with policy %s", v.DMARC.Result, orNone(v.DMARC.Policy))}
	}
	excuse, list := j.excuse(v, listID, known)
	switch {
	case list != "" && !j.lists.Allow(list, listPerHour, v.Now):
		return refuse(reply.New(451, "4.7.1", "too many messages that fail DMARC through the list %s, please try again later", list))
	case excuse != "":
		return Decision{Why: excuse}
	}
	if excuse, _ := j.excuse(v, listID, possible); excuse == "" {
		return refuse(refusal(v))
	} else if v.Hidden {
		return Decision{Why: "the client's address is hidden from us; for all we know, " + excuse}
	}
	return refuse(reply.New(451, "4.7.0", "DMARC: this fails for %s, and the DNS does not say just now whether a list or forwarder explains it; please try again later", author(v)))
}

// known and possible are two readings of the same findings: only what passed,
// or also what may have passed, had the DNS answered (RELIABILITY 45).
const (
	known    = false
	possible = true
)

func refuse(r *reply.Reply) Decision { return Decision{Reply: r, Why: r.Text} }

// unknown decides where the DNS did not say. A hidden client is our trouble
// and no reason to hold mail up (DESIGN.md 9.11).
func (j *Judge) unknown(v *mailauth.Verdict) Decision {
	policy := v.DMARC.Policy
	switch {
	case v.Hidden:
		return Decision{Why: "the client's address is hidden from us, so SPF cannot count against the message"}
	case policy == dmarc.PolicyNone || policy == dmarc.PolicyQuarantine:
		return Decision{Why: fmt.Sprintf("DMARC could not be evaluated, and its policy %s refuses nothing", policy)}
	}
	return refuse(reply.New(451, "4.7.0", "DMARC of %s cannot be evaluated just now, as the DNS does not answer; please try again later", author(v)))
}

// refusal says who wants what, what failed, and where to read more (DM18).
func refusal(v *mailauth.Verdict) *reply.Reply {
	return reply.New(550, "5.7.1", "DMARC: %s wants mail refused that it did not authenticate (p=reject). %s. %s. See https://www.rfc-editor.org/info/rfc9989",
		author(v), describeSPF(v), describeDKIM(v))
}

func author(v *mailauth.Verdict) string { return v.DMARC.Domain.String() }

func describeSPF(v *mailauth.Verdict) string {
	if v.MailFrom.Result == spf.Pass {
		return fmt.Sprintf("SPF passed for %s, which is another domain", v.MailFrom.Domain)
	}
	return fmt.Sprintf("SPF of %s: %s", v.MailFrom.Domain, v.MailFrom.Result)
}

func describeDKIM(v *mailauth.Verdict) string {
	if len(v.DKIM) == 0 {
		return "No DKIM signature"
	}
	d := v.DKIM[0]
	for _, other := range v.DKIM {
		if other.Result == dkim.Pass {
			return fmt.Sprintf("DKIM passed for %s, which is another domain", other.Domain)
		}
	}
	if d.Domain == "" {
		return fmt.Sprintf("DKIM: %s", d.Result)
	}
	return fmt.Sprintf("DKIM of %s: %s", d.Domain, d.Result)
}

// excuse returns why a failing message is plausibly indirect mail, or ""
// (RFC 9989 7.4, DESIGN.md 4), and the mailing list whose budget that costs. A
// pass of some unrelated domain excuses nothing.
func (j *Judge) excuse(v *mailauth.Verdict, listID string, maybe bool) (why, list string) {
	if j.mode == "strict" {
		return "", ""
	}
	if sealer := j.trustedSealer(v, maybe); sealer != "" {
		return fmt.Sprintf("%s, a trusted sealer, saw the message pass DMARC", sealer), ""
	}
	if forwarder := j.trustedForwarder(v, maybe); forwarder != "" {
		return fmt.Sprintf("it comes through %s, a trusted forwarder", forwarder), ""
	}
	if list := listOf(v, listID, maybe); list != "" {
		return fmt.Sprintf("it comes through the mailing list %s, which authenticated itself", list), organization(list)
	}
	return "", ""
}

// trustedSealer returns the sealer of an intact chain whose newest set is a
// trusted sealer's, seal and message signature both, and says dmarc=pass once
// and of this author.
func (j *Judge) trustedSealer(v *mailauth.Verdict, maybe bool) string {
	intact := v.ARC.Result == arc.Pass || maybe && v.ARC.Result == arc.TempError
	if !intact || len(v.ARC.Sets) == 0 {
		return ""
	}
	newest := v.ARC.Sets[len(v.ARC.Sets)-1]
	if !among(newest.Seal.Domain, j.sealers) || !among(newest.Message.Domain, j.sealers) {
		return ""
	}
	said := 0
	sealer := ""
	for _, r := range newest.Results.Results {
		if r.Method != "dmarc" {
			continue
		}
		said++
		from, err := address.ParseDomain(r.Property("header", "from"))
		if r.Value == "pass" && err == nil && from == v.Author.Domain {
			sealer = newest.Seal.Domain
		}
	}
	if said != 1 {
		return ""
	}
	return sealer
}

// trustedForwarder returns the forwarder that a message comes through: by its
// network, or by a domain of its that passed SPF or DKIM.
func (j *Judge) trustedForwarder(v *mailauth.Verdict, maybe bool) string {
	for _, network := range j.networks {
		if network.Contains(v.Client) && !v.Hidden {
			return network.String()
		}
	}
	for _, domain := range authenticated(v, maybe) {
		if among(domain, j.forwarders) {
			return domain
		}
	}
	return ""
}

// listOf returns the domain of the mailing list that a message comes through,
// when that domain authenticated itself (RFC 2919: List-Id: Name <id.domain>).
func listOf(v *mailauth.Verdict, listID string, maybe bool) string {
	_, id, ok := strings.Cut(listID, "<")
	id, _, closed := strings.Cut(id, ">")
	if !ok || !closed {
		return ""
	}
	list, err := address.ParseDomain(strings.TrimSpace(id))
	if err != nil {
		return ""
	}
	for _, domain := range authenticated(v, maybe) {
		if strings.Contains(domain, ".") && within(list.String(), domain) {
			return domain
		}
	}
	return ""
}

// organization returns the domain that somebody registered for one that
// authenticated itself: subdomains cost nothing, so they share a budget. What
// the domain itself publishes must not decide that.
func organization(domain string) string {
	d, err := address.ParseDomain(domain)
	if err != nil {
		return domain
	}
	return d.Registered().String()
}

// authenticated lists the domains that passed SPF or DKIM, and those that may
// have.
func authenticated(v *mailauth.Verdict, maybe bool) []string {
	var domains []string
	if v.MailFrom.Result == spf.Pass || maybe && v.MailFrom.Result == spf.TempError {
		domains = append(domains, v.MailFrom.Domain)
	}
	for _, d := range v.DKIM {
		if d.Result == dkim.Pass || maybe && d.Result == dkim.TempError {
			domains = append(domains, d.Domain)
		}
	}
	return domains
}

// among reports whether name is one of the domains or below one.
func among(name string, domains []address.Domain) bool {
	for _, d := range domains {
		if within(name, d.String()) {
			return true
		}
	}
	return false
}

// within reports whether name is domain or below it.
func within(name, domain string) bool { return name == domain || strings.HasSuffix(name, "."+domain) }

func orNone(p dmarc.Policy) string {
	if p == "" {
		return "none published"
	}
	return string(p)
}

// NewLists makes the memory that Judges share: how often each mailing list was
// excused in this hour.
func NewLists() *ratelimit.Limiter { return ratelimit.New(time.Hour, maxKeys) }

const listPerHour = 200
