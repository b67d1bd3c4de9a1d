package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"onward/internal/address"
)

// A Mail is a report on its way. It is to be signed (DKIM) and sent whatever
// TLS its destination offers, and how that went is not to be noted (RFC 8460
// 3). When it cannot be delivered within a day, nobody needs to hear of it.
type Mail struct {
	From, To address.Mailbox
	Header   []byte // all fields, without the empty line
	Rest     []byte // the empty line and the body
}

// A report is what is sent about one domain and one day (RFC 8460 4.4).
type report struct {
	Organization string `json:"organization-name"`
	Range        struct {
		Start time.Time `json:"start-datetime"`
		End   time.Time `json:"end-datetime"`
	} `json:"date-range"`
	Contact  string   `json:"contact-info"`
	ID       string   `json:"report-id"`
	Policies []*tally `json:"policies"`

	domain, submitter string
}

// newReport makes the report about a domain and the day that began at start.
// Its ID is the same each time, so that who gets it twice can tell.
func newReport(domain string, start time.Time, policies []*tally, s Settings) *report {
	r := &report{
		Organization: string(s.Submitter), Contact: s.From.String(), Policies: policies,
		domain: domain, submitter: string(s.Submitter),
	}
	r.Range.Start, r.Range.End = start, start.Add(24*time.Hour-time.Second)
	r.ID = fmt.Sprintf("%s.%s@%s", start.Format("20060102"), r.digest(), s.Submitter)
	return r
}

// digest tells the report from others of the day.
func (r *report) digest() string {
	sum := sha256.Sum256([]byte(r.submitter + " " + r.domain + " " + r.Range.Start.Format(time.DateOnly)))
	return hex.EncodeToString(sum[:8])
}

// compressed returns the report as it is sent, JSON in gzip.
func (r *report) compressed() ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if err := json.NewEncoder(z).Encode(r); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// mail puts the compressed report into a message (RFC 8460 5.3).
func (r *report) mail(data []byte, s Settings, to address.Mailbox) *Mail {
	boundary := "=_" + r.digest() // "=" and "_" are together in no base64
	name := fmt.Sprintf("%s!%s!%d!%d!%s.json.gz", r.submitter, r.domain, r.Range.Start.Unix(), r.Range.End.Unix(), r.digest())
	header := lines(
		"From: "+s.From.String(),
		"To: "+to.String(),
		"Subject: Report Domain: "+r.domain,
		" Submitter: "+r.submitter,
		" Report-ID: <"+r.ID+">",
		"Date: "+time.Now().UTC().Format(time.RFC1123Z),
		"Message-ID: <"+r.ID+">",
		"Auto-Submitted: auto-generated",
		"TLS-Required: No", // RFC 8689 5: it is to arrive though TLS is what is broken
		"TLS-Report-Domain: "+r.domain,
		"TLS-Report-Submitter: "+r.submitter,
		"MIME-Version: 1.0",
		`Content-Type: multipart/report; report-type="tlsrpt";`,
		` boundary="`+boundary+`"`,
	)
	rest := lines(
		"",
		"--"+boundary,
		"Content-Type: text/plain; charset=us-ascii",
		"",
		"This is an aggregate TLS report from "+r.submitter,
		"about mail to "+r.domain+" on "+r.Range.Start.Format(time.DateOnly)+" (UTC).",
		"",
		"--"+boundary,
		"Content-Type: application/tlsrpt+gzip",
		"Content-Transfer-Encoding: base64",
		"Content-Disposition: attachment;",
		` filename="`+name+`"`,
		"",
	)
	for text := base64.StdEncoding.EncodeToString(data); text != ""; {
		n := min(76, len(text))
		rest += text[:n] + "\r\n"
		text = text[n:]
	}
	rest += lines("--" + boundary + "--")
	return &Mail{From: s.From, To: to, Header: []byte(header), Rest: []byte(rest)}
}

func lines(all ...string) string { return strings.Join(all, "\r\n") + "\r\n" }
