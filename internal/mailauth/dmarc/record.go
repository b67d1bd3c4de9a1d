package dmarc

import (
	"fmt"
	"net/url"
	"strings"
)

// Limits of what is read of a record.
const (
	maxRecord = 8 << 10 // octets (RELIABILITY 50); a longer TXT is no DMARC record
	maxTags   = 100     // eleven are defined
)

// A Policy is what a domain owner asks receivers to do with mail that fails
// (RFC 9989 4.7, "p"). The empty Policy means that none is published.
type Policy string

// The policies, mildest first.
const (
	PolicyNone       Policy = "none"
	PolicyQuarantine Policy = "quarantine"
	PolicyReject     Policy = "reject"
)

// milder is the policy one step down, as "t=y" asks for (DM10).
func (p Policy) milder() Policy {
	if p == PolicyReject {
		return PolicyQuarantine
	}
	return PolicyNone
}

// A Record is a DMARC policy record (RFC 9989 4.7), its tags as they were
// published and what they come to. A tag with a mistake has its default.
type Record struct {
	Text string `json:"text"` // as published
	Tags []Tag  `json:"tags"` // in order, "v" first

	P          Policy   `json:"p"` // empty: absent or mistaken; so are sp and np
	SP         Policy   `json:"sp"`
	NP         Policy   `json:"np"`
	StrictDKIM bool     `json:"strict_dkim"`   // adkim=s
	StrictSPF  bool     `json:"strict_spf"`    // aspf=s
	PSD        string   `json:"psd"`           // "y", "n" or "u" (the default)
	Testing    bool     `json:"testing"`       // t=y
	RUA        []string `json:"rua,omitempty"` // the valid URIs, without "!size" (DM11)
	RUF        []string `json:"ruf,omitempty"`
	FO         string   `json:"fo"` // failure reporting options; "0" is the default

	mistaken bool // sp or np is there, with a mistake
}

// A Tag is one "name=value" of a record, explained.
type Tag struct {
	Name    string `json:"name"` // lower case
	Value   string `json:"value"`
	Meaning string `json:"meaning,omitempty"` // one sentence; empty when the tag counts for nothing
	Mistake string `json:"mistake,omitempty"` // what is wrong with it, or why it is ignored
}

// ParseRecord reads the text of one TXT record. It reports false for a text
// that is no DMARC record: it has to begin with "v=DMARC1", the value exactly
// so (DM5, DM11). Anything wrong after that is noted in Tags and ignored.
func ParseRecord(text string) (*Record, bool) {
	first, rest, _ := strings.Cut(text, ";")
	if !isVersion(first) || len(text) > maxRecord {
		return nil, false
	}
	r := &Record{Text: text, PSD: "u", FO: "0"}
	r.Tags = append(r.Tags, Tag{Name: "v", Value: "DMARC1", Meaning: "This is a DMARC record."})
	seen := map[string]bool{"v": true}
	for rest != "" && len(r.Tags) < maxTags {
		var part string
		part, rest, _ = strings.Cut(rest, ";")
		if part = strings.Trim(part, " \t"); part != "" {
			r.Tags = append(r.Tags, r.readTag(part, seen))
		}
	}
	return r, true
}

// isVersion reports whether s is the version tag of RFC 9989 4.8: the name in
// either case, the value exactly "DMARC1", nothing before it.
func isVersion(s string) bool {
	name, value, ok := strings.Cut(s, "=")
	return ok && strings.EqualFold(strings.TrimRight(name, " \t"), "v") && strings.Trim(value, " \t") == "DMARC1"
}

// readTag reads one tag. Of several with one name the first counts.
func (r *Record) readTag(part string, seen map[string]bool) Tag {
	name, value, ok := strings.Cut(part, "=")
	t := Tag{Name: strings.ToLower(strings.TrimRight(name, " \t")), Value: strings.TrimLeft(value, " \t")}
	read, known := readers[t.Name]
	switch {
	case !ok || !isPrintable(part):
		t.Mistake = "not of the form name=value in printable ASCII, ignored"
	case seen[t.Name]:
		t.Mistake = "given before, ignored"
	case !known && removed[t.Name]:
		t.Mistake = "removed from the standard by RFC 9989, ignored"
	case !known:
		t.Mistake = "unknown, ignored"
	default:
		t.Meaning, t.Mistake = read(r, t.Value)
	}
	seen[t.Name] = true
	return t
}

func isPrintable(s string) bool {
	return strings.IndexFunc(s, func(c rune) bool { return c < ' ' && c != '\t' || c > '~' }) < 0
}

// Tags of RFC 7489 that are still common (DM11).
var removed = map[string]bool{"pct": true, "rf": true, "ri": true}

// readers has for each tag of RFC 9989 4.7 how to read its value into a Record,
// and what to say about it.
var readers = map[string]func(r *Record, value string) (meaning, mistake string){
	"p": func(r *Record, value string) (string, string) {
		return readPolicy(&r.P, value, "this domain, and below it where nothing else is said")
	},
	"sp": func(r *Record, value string) (string, string) {
		meaning, mistake := readPolicy(&r.SP, value, "subdomains")
		r.mistaken = r.mistaken || mistake != ""
		return meaning, mistake
	},
	"np": func(r *Record, value string) (string, string) {
		meaning, mistake := readPolicy(&r.NP, value, "subdomains that do not exist")
		r.mistaken = r.mistaken || mistake != ""
		return meaning, mistake
	},
	"adkim": func(r *Record, value string) (string, string) { return readMode(&r.StrictDKIM, value, "DKIM") },
	"aspf":  func(r *Record, value string) (string, string) { return readMode(&r.StrictSPF, value, "SPF") },
	"psd": func(r *Record, value string) (string, string) {
		meaning, ok := psdMeanings[strings.ToLower(value)]
		if !ok {
			return "", "neither y, n nor u; taken as u"
		}
		r.PSD = strings.ToLower(value)
		return meaning, ""
	},
	"t": func(r *Record, value string) (string, string) {
		switch strings.ToLower(value) {
		case "y":
			r.Testing = true
			return "The owner is testing: failing mail is treated one step milder than the policy says.", ""
		case "n":
			return "The policy is meant as it stands.", ""
		}
		return "", "neither y nor n; taken as n"
	},
	"rua": func(r *Record, value string) (string, string) { return readURIs(&r.RUA, value, "Aggregate") },
	"ruf": func(r *Record, value string) (string, string) { return readURIs(&r.RUF, value, "Failure") },
	"fo": func(r *Record, value string) (string, string) {
		for option := range strings.SplitSeq(strings.ToLower(value), ":") {
			if option != "0" && option != "1" && option != "d" && option != "s" {
				return "", "a list of 0, 1, d and s is expected; taken as 0"
			}
		}
		r.FO = strings.ToLower(value)
		return "When to send failure reports: 0 nothing aligned passed, 1 anything did not, d a signature failed, s SPF failed.", ""
	},
}

var psdMeanings = map[string]string{
	"y": "This is a public suffix: the domains directly below it belong to others.",
	"n": "This is an organizational domain: the search for one ends here.",
	"u": "Whether this is an organizational domain is found by the tree walk.",
}

var policyMeanings = map[Policy]string{
	PolicyNone:       "Do nothing special with failing mail from %s.",
	PolicyQuarantine: "Treat failing mail from %s as suspicious.",
	PolicyReject:     "Refuse failing mail from %s.",
}

func readPolicy(p *Policy, value, of string) (meaning, mistake string) {
	named := Policy(strings.ToLower(value))
	sentence, ok := policyMeanings[named]
	if !ok {
		return "", "neither none, quarantine nor reject"
	}
	*p = named
	return fmt.Sprintf(sentence, of), ""
}

func readMode(strict *bool, value, of string) (meaning, mistake string) {
	switch strings.ToLower(value) {
	case "s":
		*strict = true
		return "Strict: the " + of + " domain has to equal the author domain.", ""
	case "r":
		return "Relaxed: the " + of + " domain and the author domain need the same organizational domain.", ""
	}
	return "", "neither r nor s; taken as r"
}

// readURIs reads a list of reporting addresses (RFC 9989 4.6, 4.8). The size
// after "!" of RFC 7489 is ignored (DM11).
func readURIs(uris *[]string, value, of string) (meaning, mistake string) {
	for text := range strings.SplitSeq(value, ",") {
		text, _, _ = strings.Cut(strings.Trim(text, " \t"), "!")
		if isURI(text) {
			*uris = append(*uris, text)
		} else {
			mistake = "not every part is a URI such as mailto:dmarc@example.org"
		}
	}
	if len(*uris) > 0 {
		meaning = of + " reports are to be sent to these addresses."
	}
	return meaning, mistake
}

// isURI takes absolute URIs. Those of mailto, the one scheme that everybody
// supports, need an "@".
func isURI(text string) bool {
	u, err := url.Parse(text)
	if err != nil || strings.ContainsAny(text, " \t") || u.Scheme == "" || u.Opaque == "" && u.Host == "" {
		return false
	}
	local, domain, _ := strings.Cut(u.Opaque, "@")
	return u.Scheme != "mailto" || local != "" && domain != ""
}

// Usable reports whether the record says anything about failing mail. One with
// a missing or mistaken "p", or a mistaken "sp" or "np", does only when it asks
// for aggregate reports, and then it says "none" (DM9, RFC 9989 4.10.1).
func (r *Record) Usable() bool { return !r.broken() || len(r.RUA) > 0 }

func (r *Record) broken() bool { return r.P == "" || r.mistaken }

// own returns the policy for the domain that published r.
func (r *Record) own() Policy { return r.inForce(r.P) }

// below returns the policy for a name that exists below the one that published
// r; missing for a name that does not (DM8).
func (r *Record) below() Policy   { return r.inForce(r.SP, r.P) }
func (r *Record) missing() Policy { return r.inForce(r.NP, r.SP, r.P) }

// inForce returns the first policy that is published, after the mistakes (DM9)
// and the test mode (DM10) of the record.
func (r *Record) inForce(published ...Policy) Policy {
	if r.broken() {
		return PolicyNone
	}
	for _, p := range published {
		if p != "" && r.Testing {
			return p.milder()
		}
		if p != "" {
			return p
		}
	}
	return PolicyNone
}
