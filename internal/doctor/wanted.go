package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"onward/internal/address"
	"onward/internal/mailauth/spf"
	"onward/internal/resolver"
	"onward/internal/smtpclient"
)

// ServerRecords returns what has to be in the DNS for this server, whatever its
// domains: addresses of its name, and SPF, DKIM and where it stands alone DMARC of
// the domains of return paths. What is there already is merged, and marked.
func (s Subject) ServerRecords(ctx context.Context) []Record {
	e := &examination{Subject: &s}
	e.look(ctx)
	var records []Record
	for _, ip := range e.ours {
		r := addressRecord(s.hostname(), ip)
		r.Present = slices.Contains(e.named.addrs, ip)
		for _, stranger := range without(e.named.addrs, e.ours) {
			if stranger.Is4() == ip.Is4() {
				r.Instead = append(r.Instead, stranger.String())
			}
		}
		records = append(records, r)
	}
	for _, srs := range s.srsDomains() {
		if srs != s.hostname() && !slices.Contains(s.names(), srs) {
			records = append(records, e.wantedMX(ctx, srs))
		}
		records = append(records, e.wantedSPF(ctx, srs))
	}
	for _, key := range s.Keys {
		records = append(records, s.present(ctx, textRecord(key.Name, key.Value), "v=DKIM1"))
	}
	for _, srs := range s.srsDomains() {
		if checks := e.srsPolicy(ctx, srs); len(checks) > 0 {
			records = append(records, s.present(ctx, srsPolicyRecord(srs), "v=DMARC1"))
		}
	}
	return s.inZones(ctx, records)
}

// DomainRecords returns what has to be in the DNS for one of the domains: its MX,
// and a strict DMARC policy where our return paths are in it (see the checks).
func (s Subject) DomainRecords(ctx context.Context, d address.Domain) []Record {
	e := &examination{Subject: &s}
	e.look(ctx)
	records := []Record{e.wantedMX(ctx, d)}
	if below(s.srsOf(d), d) {
		existing, _ := s.texts(ctx, "_dmarc."+d.String(), "v=DMARC1")
		r := dmarcRecord(d, strictest(append(existing, "")), true)
		checks := e.dmarc(ctx, d)
		if r.Present = len(existing) == 1 && len(checks) == 1 && checks[0].State == OK; r.Present {
			r.Value = existing[0]
		} else {
			r.Instead = existing
		}
		records = append(records, r)
	}
	return s.inZones(ctx, records)
}

func (e *examination) wantedMX(ctx context.Context, d address.Domain) Record {
	r := mxRecord(d, e.hostname())
	answer, err := e.lookup(ctx, d.String(), resolver.TypeMX)
	if err != nil || answer == nil {
		return r
	}
	for _, mx := range answer.MX() {
		if e.isUs(ctx, mx.Host) {
			r.Present = true
		} else {
			r.Instead = append(r.Instead, fmt.Sprintf("%d %s", mx.Preference, orRoot(mx.Host)))
		}
	}
	return r
}

// wantedSPF merges what a record allows already, such as the mail provider's own
// servers.
func (e *examination) wantedSPF(ctx context.Context, srs address.Domain) Record {
	existing, _ := e.spfTexts(ctx, srs)
	egress := e.egress(e.ours)
	r := spfRecord(srs, existing, e.spfTerms(egress))
	if r.Present = len(existing) == 1 && e.spf(ctx, srs)[0].State == OK; r.Present {
		r.Value = existing[0]
		return r
	}
	r.Instead = existing
	if host := e.relayHost(); host != "" && !strings.HasPrefix(relayTerm(host), "include:") {
		r.Note = fmt.Sprintf("The provider of %s says what SPF has to include for it; put that in place of %s.", host, relayTerm(host))
	}
	if len(existing) > 0 {
		if _, mistakes := spf.Parse(existing[0]); len(mistakes) > 0 {
			r.Note = "The record that is there cannot be read, so nothing of it was kept."
		}
	}
	return r
}

// present marks a TXT record that is there as it should be.
func (s *Subject) present(ctx context.Context, r Record, begin string) Record {
	existing, _ := s.texts(ctx, r.Name, begin)
	for _, text := range existing {
		if text == r.Value {
			r.Present = true
		} else {
			r.Instead = append(r.Instead, text)
		}
	}
	return r
}

// inZones finds the zone that each record goes into, and makes what was found in
// the DNS fit for showing.
func (s *Subject) inZones(ctx context.Context, records []Record) []Record {
	for i := range records {
		r := &records[i]
		r.Zone = s.zoneOf(ctx, r.Name)
		for j, text := range r.Instead {
			r.Instead[j] = quote(text)
		}
	}
	return records
}

// typeSOA stands at the top of every zone (RFC 1035 3.3.13).
const typeSOA resolver.Type = 6

// zoneOf returns the zone of a name: where the DNS has the nearest SOA record
// above it, or, before there is any, the domain of ours above it.
func (s *Subject) zoneOf(ctx context.Context, name string) string {
	for at := name; strings.Contains(at, "."); _, at, _ = strings.Cut(at, ".") {
		if answer, err := s.lookup(ctx, at, typeSOA); err == nil && answer != nil && answer.Name == at {
			return at
		}
	}
	for _, d := range s.names() {
		if below(address.Domain(name), d) {
			return d.String()
		}
	}
	if _, parent, ok := strings.Cut(s.hostname().String(), "."); ok && below(address.Domain(name), address.Domain(parent)) && strings.Contains(parent, ".") {
		return parent
	}
	return name
}

// ReverseRecords returns the names that our addresses have to have. They are
// nobody's to paste: whoever rents out the address sets them.
func (s Subject) ReverseRecords(ctx context.Context) []Record {
	e := &examination{Subject: &s}
	e.look(ctx)
	var records []Record
	for _, ip := range e.ours {
		r := ptrRecord(ip, s.hostname())
		answer, _ := s.lookup(ctx, r.Name, resolver.TypePTR)
		if answer != nil {
			r.Present = slices.Contains(answer.PTR(), r.Value)
		}
		records = append(records, r)
	}
	return records
}

// relayHost is the host of delivery.relay, or empty.
func (s *Subject) relayHost() string {
	if s.Config.Delivery.Relay == "" {
		return ""
	}
	r, _ := smtpclient.ParseRelay(s.Config.Delivery.Relay) // which the daemon has read too
	return r.Host
}

// relays are submission services, and what SPF has to include for them, by what
// their host names end in.
var relays = map[string]string{
	"amazonaws.com":         "amazonses.com",
	"gmail.com":             "_spf.google.com",
	"office365.com":         "spf.protection.outlook.com",
	"mailgun.org":           "mailgun.org",
	"sendgrid.net":          "sendgrid.net",
	"postmarkapp.com":       "spf.mtasv.net",
	"smtp2go.com":           "spf.smtp2go.com",
	"mailjet.com":           "spf.mailjet.com",
	"brevo.com":             "spf.brevo.com",
	"mailbox.org":           "mailbox.org",
	"smtp.fastmail.com":     "spf.messagingengine.com",
	"messagingengine.com":   "spf.messagingengine.com",
	"smtp.migadu.com":       "spf.migadu.com",
	"smtp.forwardemail.net": "spf.forwardemail.net",
}

// relayTerm is the term of SPF that allows what a relay sends. For one that is
// not known it is its host, which is a guess.
func relayTerm(host string) string {
	for at := host; at != ""; _, at, _ = strings.Cut(at, ".") {
		if include := relays[at]; include != "" {
			return "include:" + include
		}
	}
	return "a:" + host
}
