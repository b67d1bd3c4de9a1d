package mailauth

import (
	"onward/internal/address"
	"onward/internal/mailauth/arc"
	"onward/internal/mailauth/authres"
	"onward/internal/mailauth/dkim"
)

// maxReported is how many signatures the field lists.
const maxReported = dkim.MaxVerified

// Results returns what the Authentication-Results field of this host says
// (STANDARDS.md R2, RFC 8601). Values are foreign text; authres makes them safe.
func (v *Verdict) Results(hostname address.Domain) authres.Header {
	h := authres.Header{ID: hostname.String()}
	add := func(method, value, reason string, properties ...authres.Property) {
		h.Results = append(h.Results, authres.Result{Method: method, Value: value, Reason: reason, Properties: properties})
	}
	add("iprev", string(v.IPRev.Result), "", property("policy", "iprev", v.Client.String()))
	add("spf", string(v.MailFrom.Result), failing(string(v.MailFrom.Result), v.MailFrom.Reason),
		property("smtp", "mailfrom", v.From.String()), property("smtp", "helo", v.Sender.Helo))
	v.addDKIM(add)
	add("arc", v.ARC.Result, failing(v.ARC.Result, v.ARC.Reason))
	add("dmarc", string(v.DMARC.Result), "",
		property("header", "from", v.DMARC.Domain.String()), property("policy", "dmarc", string(v.DMARC.Policy)))
	return h
}

func (v *Verdict) addDKIM(add func(method, value, reason string, properties ...authres.Property)) {
	if len(v.DKIM) == 0 {
		add("dkim", dkim.None, "")
	}
	for _, d := range v.reported() {
		add("dkim", d.Result, failing(d.Result, d.Reason),
			property("header", "d", d.Domain), property("header", "s", d.Selector),
			property("header", "a", string(d.Algorithm)), property("header", "b", d.B()))
	}
}

// reported returns the signatures that the field lists, in header order: all
// that were verified, wherever they stand, so that it shows why DMARC passed;
// then, as far as there is room, the topmost others.
func (v *Verdict) reported() []dkim.Result {
	room := maxReported
	for _, d := range v.DKIM {
		if d.Computed != nil {
			room--
		}
	}
	var listed []dkim.Result
	for _, d := range v.DKIM {
		if d.Computed == nil {
			room--
		}
		if d.Computed != nil || room >= 0 {
			listed = append(listed, d)
		}
	}
	return listed
}

// failing returns why, where there is something to explain.
func failing(result, reason string) string {
	if result == dkim.Pass || result == arc.None {
		return ""
	}
	return reason
}

func property(kind, name, value string) authres.Property {
	return authres.Property{Type: kind, Name: name, Value: value}
}
