package main

import (
	"net/netip"

	"onward/internal/address"
	"onward/internal/mailauth/arc"
	"onward/internal/mailauth/dkim"
	"onward/internal/mailauth/dmarc"
	"onward/internal/mailauth/iprev"
	"onward/internal/mailauth/spf"
)

// A messageReport is what "explain --json" prints (DESIGN.md 5.2). Result words
// are those of RFC 8601.
type messageReport struct {
	Client   clientReport      `json:"client"`
	SPF      spfResults        `json:"spf"`
	DKIM     []signatureReport `json:"dkim"` // top to bottom
	ARC      arcReport         `json:"arc"`
	DMARC    dmarc.Verdict     `json:"dmarc"`
	Decision decisionReport    `json:"decision"`
	Survives bool              `json:"survives"`
	Fate     string            `json:"fate"` // why it survives, or does not
	Outgoing outgoingReport    `json:"outgoing"`
	Notes    []string          `json:"notes"` // what was assumed
}

type clientReport struct {
	IP     string        `json:"ip"`
	Hidden bool          `json:"hidden"` // a private address, which tells nothing
	IPRev  iprev.Verdict `json:"iprev"`
	Helo   string        `json:"helo"`
	From   string        `json:"from"` // the envelope sender; empty is null
}

type spfResults struct {
	Helo     spf.Check `json:"helo"`
	MailFrom spf.Check `json:"mailfrom"`
}

type signatureReport struct {
	Result     string   `json:"result"`
	Domain     string   `json:"domain"`
	Selector   string   `json:"selector"`
	Algorithm  string   `json:"algorithm"`
	Reason     string   `json:"reason"`
	Identity   string   `json:"identity"`
	Fields     []string `json:"fields"`
	Header     string   `json:"header_canonicalization"`
	Body       string   `json:"body_canonicalization"`
	BodySigned []byte   `json:"body_hash_signed,omitempty"`
	BodyFound  []byte   `json:"body_hash_computed,omitempty"`
	HeaderHash []byte   `json:"header_hash,omitempty"`
	KeyType    string   `json:"key_type,omitempty"`
	KeyBits    int      `json:"key_bits,omitempty"`
}

type arcReport struct {
	Result     string      `json:"result"`
	Sets       int         `json:"sets"`
	Reason     string      `json:"reason"`
	OldestPass int         `json:"oldest_pass"`
	Chain      []setReport `json:"chain"` // oldest first
}

type setReport struct {
	Instance int          `json:"instance"`
	CV       string       `json:"cv"`
	Seal     arcSignature `json:"seal"`
	Message  arcSignature `json:"message_signature"`
	Results  string       `json:"authentication_results"`
}

type arcSignature struct {
	Result   string `json:"result"`
	Domain   string `json:"domain"`
	Selector string `json:"selector"`
	Reason   string `json:"reason"`
}

type decisionReport struct {
	Action string `json:"action"` // accept, refuse or defer
	Code   int    `json:"code"`   // of SMTP
	Status string `json:"status"` // RFC 3463
	Text   string `json:"text"`
}

type outgoingReport struct {
	Recipient  string   `json:"recipient"`
	Refused    string   `json:"refused,omitempty"` // the answer to RCPT, when the recipient is refused
	Targets    []string `json:"targets"`
	ReturnPath string   `json:"return_path"`
	Rewritten  bool     `json:"rewritten"`        // From becomes an address of ours
	Unsent     string   `json:"unsent,omitempty"` // why it is refused after all, since DMARC would break
	Fields     string   `json:"fields"`           // ours, on top of the message; all of them when rewritten
	Removed    []string `json:"removed"`          // fields that claimed to be ours
}

func (j *judgement) report() messageReport {
	v := j.verdict
	return messageReport{
		Client:   clientReport{IP: addrText(v.Client), Hidden: v.Hidden, IPRev: v.IPRev, Helo: v.Sender.Helo, From: v.From.String()},
		SPF:      spfResults{v.Helo, v.MailFrom},
		DKIM:     signatureReports(v.DKIM),
		ARC:      j.arcReport(),
		DMARC:    v.DMARC,
		Decision: j.decisionReport(),
		Survives: j.survives,
		Fate:     j.fate,
		Outgoing: j.outgoing.report(),
		Notes:    append([]string{}, j.notes...),
	}
}

func addrText(ip netip.Addr) string {
	if !ip.IsValid() {
		return ""
	}
	return ip.String()
}

func signatureReports(all []dkim.Result) []signatureReport {
	list := []signatureReport{}
	for _, r := range all {
		s := signatureReport{
			Result: r.Result, Domain: r.Domain, Selector: r.Selector, Algorithm: string(r.Algorithm), Reason: r.Reason,
			Identity: r.Identity, Fields: append([]string{}, r.Names...),
			Header: r.Signature.Header.String(), Body: r.Signature.Body.String(), BodySigned: r.BodyHash,
		}
		if r.Computed != nil {
			s.BodyFound = r.Computed.Sum[:]
			s.HeaderHash = headerHash(r)
		}
		if r.Key != nil {
			s.KeyType, s.KeyBits = r.Key.Type, r.Key.Bits
		}
		list = append(list, s)
	}
	return list
}

// arcReport counts the sets also of a chain that cannot be put together.
func (j *judgement) arcReport() arcReport {
	a := j.verdict.ARC
	r := arcReport{Result: a.Result, Reason: a.Reason, OldestPass: a.OldestPass, Chain: []setReport{}}
	for _, f := range j.message.Fields() {
		if f.Is("ARC-Seal") {
			r.Sets++
		}
	}
	for _, s := range a.Sets {
		r.Chain = append(r.Chain, setReport{s.Instance, s.CV, signerReport(s.Seal), signerReport(s.Message), s.Text})
	}
	return r
}

func signerReport(s arc.Signature) arcSignature {
	return arcSignature{s.Result, s.Domain, s.Selector, s.Reason}
}

func (j *judgement) decisionReport() decisionReport {
	var d decisionReport
	d.Action, d.Code = outcome(j.decision)
	d.Status, d.Text = "2.0.0", j.decision.Why
	if r := j.decision.Reply; r != nil {
		d.Status, d.Text = r.Status, r.Text
	}
	return d
}

func (o outgoing) report() outgoingReport {
	r := outgoingReport{Recipient: o.recipient.String(), Targets: mailboxes(o.targets), ReturnPath: o.from.String(), Rewritten: o.rewritten, Fields: o.fields, Removed: []string{}}
	for _, f := range o.removed {
		r.Removed = append(r.Removed, string(f.Raw))
	}
	for _, f := range o.rewrote {
		r.Fields += string(f.Raw)
	}
	if o.unsent != nil {
		r.Unsent = refusalText(o.unsent)
	}
	if o.refusal != nil {
		r.Refused = refusalText(o.refusal)
	}
	return r
}

func mailboxes(list []address.Mailbox) []string {
	texts := []string{}
	for _, m := range list {
		texts = append(texts, m.String())
	}
	return texts
}
