package smtpclient

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"onward/internal/reply"
)

// A verdict says whose fault a refusal is and what follows from it. The zero
// verdict means that its first digit says all: it is about the message or the
// mailbox, 4xx defers and 5xx refuses.
type verdict struct {
	us    bool  // about our server: temporary whatever its first digit, and somebody must look
	alarm bool  // about the message, and yet somebody must look: our part of it may be at fault
	rest  scope // a rate limit, and who is to rest
}

// A scope is what is left alone for a while after a rate limit.
type scope int

const (
	nobody         scope = iota
	thisMessage          // the limit is on something a stranger has put into it: no one else may suffer
	theMailbox           // it gets too much
	theSigner            // a DKIM domain: theDestination if it is ours, thisMessage if it is not
	theDestination       // we send too much: all hosts of that operator
)

var (
	byDigit  = verdict{}
	aboutUs  = verdict{us: true}
	ourPart  = verdict{alarm: true}
	ourQuota = verdict{us: true, rest: theDestination}
)

func limits(rest scope) verdict { return verdict{rest: rest} }

// A fault is a row of the table of faults.
type fault struct {
	code   string         // how the code begins
	status string         // the enhanced code after its first digit; "7." means all of subject 7
	step   string         // where it was said, one or more
	text   *regexp.Regexp // found in the text
	verdict
}

// envelope is where the sender that is spoken of is our return path: a name of
// ours, or none. Many servers say at RCPT what they think of MAIL.
const envelope = stepMAIL + " " + stepRCPT

// faults is DESIGN.md 9.8 and STANDARDS.md 3.1: what answers look like, where an
// empty column fits anything, and what they mean. It goes by first digit and
// enhanced code, because exact codes are renumbered (D15); the one code written
// whole has its meaning from RFC 3207 4 and RFC 4954 6. Texts are looked at only
// where one code says different things. The first row that fits decides, and
// what fits none goes by its first digit.
//
// What a stranger can bring about by what he writes never rests more than his
// message: otherwise one message with a notorious link would stop everybody's
// mail (RELIABILITY 77, the named subject).
var faults = []fault{
	// Limits in name only: asked again soon, or over a new connection, they are gone.
	{"4", "", "", greylisting, byDigit},           // 451 4.7.1 Greylisting in action (RELIABILITY 78)
	{"4", "7.0", "", passing, byDigit},            // 421 4.7.0 Connection expired; 451 4.7.0 Temporary server error
	{"4", "7.0", "", tooManyConnections, byDigit}, // 421 4.7.0 Error: too many connections; leave takes some away

	// About us: our encryption, our names in the DNS, the reputation of our address.
	{"530", "", "", nil, aboutUs},         // 530 5.7.0 Must issue a STARTTLS command first
	{"", "7.10", "", nil, aboutUs},        // 523 5.7.10 no commands allowed to pipeline after STARTTLS
	{"", "7.", "", wantsTLS, aboutUs},     // 421 4.7.0 TLS required for RCPT domain; 421 4.7.29
	{"", "7.23", "", nil, aboutUs},        // 451 4.7.23 no PTR record, or it does not lead back
	{"", "7.24", "", nil, aboutUs},        // 451 4.7.24 suspicious SPF record
	{"", "7.25", "", nil, aboutUs},        // 550 5.7.25 no PTR record
	{"5", "1.7", envelope, nil, aboutUs},  // 553 5.1.7 Bad sender address syntax
	{"5", "1.8", envelope, nil, aboutUs},  // 550 5.1.8 Sender address rejected: Domain not found
	{"5", "7.27", envelope, nil, aboutUs}, // 550 5.7.27 Sender address has null MX
	{"", "7.", "", contentList, byDigit},
	{"", "7.", "", blocklist, aboutUs}, // 554 5.7.1 blocked using zen.spamhaus.org
	{"", "0.", "", contentList, byDigit},
	{"", "0.", "", blocklist, aboutUs}, // the same without an enhanced code
	{"", "", "", relayQuota, ourQuota}, // 550 5.4.5 Daily SMTP relay limit exceeded
	{"4", "7.0", stepAUTH, tooManyLogins, ourQuota},
	{"", "", stepAUTH, nil, aboutUs}, // 535 5.7.8 Username and Password not accepted

	// The message is not authenticated as it must be, and part of that is our work.
	{"4", "7.26", "", nil, ourPart},             // neither SPF nor DKIM
	{"4", "7.27", "", nil, ourPart},             // SPF
	{"4", "7.29", "", nil, ourPart},             // TLS
	{"4", "7.30", "", nil, ourPart},             // DKIM
	{"4", "7.32", "", nil, ourPart},             // alignment
	{"4", "7.40", "", nil, ourPart},             // DMARC
	{"5", "7.26", "", returnPathFails, ourPart}, // the MAIL FROM domain has -all: SRS was left out
	{"5", "7.1", "", ourAddress, ourPart},       // IPv6 without PTR record (G7), reputation of the sending IP

	// Rate limits.
	{"4", "2.1", "", nil, limits(theMailbox)},              // 450 4.2.1 receiving mail too quickly
	{"4", "7.28", "", strangersQuota, limits(thisMessage)}, // one of your URL domains; the same Message-ID
	{"4", "7.28", "", signersQuota, limits(theSigner)},     // your DKIM domain
	{"4", "7.28", "", nil, limits(theDestination)},         // your IP address, IP Netblock, SPF domain
	{"5", "7.28", "", sendersQuota, ourQuota},              // your IP address; in 550 5.7.28 DKIM does not pass it has another meaning
	{"4", "7.0", "", noPTR, ourQuota},                      // 421 4.7.0 does not have a PTR record
	{"4", "7.0", "", strangersFault, limits(thisMessage)},  // 421 4.7.0 suspicious due to the nature of the content
	{"4", "7.0", "", nil, limits(theDestination)},          // 421 4.7.0 very low reputation of the sending IP
	{"4", "7.", "", rateLimit, limits(theDestination)},     // 451 4.7.650 rate limited due to IP reputation; 421 4.7.1
	{"4", "0.", "", rateLimit, limits(theDestination)},     // the same without an enhanced code
}

// relayFaults is what only our relay host says: it speaks of the account we have
// there, where other destinations speak of the message. At MAIL it has nothing to
// judge but our return path, apart from what the parameters say of the message.
var relayFaults = []fault{
	{"5", "0.", "", ourAccount, aboutUs}, // 554 Message rejected: Email address is not verified.
	{"5", "7.", "", ourAccount, aboutUs}, // 554 5.7.1 Relay access denied
	{"5", "2.252", "", nil, aboutUs},     // 554 5.2.252 SendAsDenied
	{"5", "1.90", "", nil, aboutUs},      // 550 5.1.90 you've reached your daily limit for message recipients
	{"552", "", stepMAIL, nil, byDigit},  // too large
	{"5", "3.4", stepMAIL, nil, byDigit}, // the same
	{"5", "6.", stepMAIL, nil, byDigit},  // 8-bit, UTF-8
	{"5", "", stepMAIL, nil, aboutUs},    // 553 5.7.1 Sender address rejected: not owned by user
}

var (
	greylisting        = words(`gr[ae]y-?list`)
	passing            = words(`\bconnection expired|\btry reconnecting|\btemporary (server|system) (error|problem)`)
	tooManyConnections = words(`\btoo many (concurrent |simultaneous )?(smtp )?(connections|sessions)\b`)
	wantsTLS           = words(`\b(must issue a starttls|(tls|starttls|encryption) (is )?required|requires? (tls|starttls|encryption)|sent over a tls)\b`)
	relayQuota         = words(`\bsmtp relay (sending )?limit exceeded|\buser sending limit exceeded|\bthrottling failure:`)
	tooManyLogins      = words(`\btoo many login`)
	strangersQuota     = words(`\burl domains?\b|\bmessage-id\b`)
	signersQuota       = words(`\bdkim domain\b`)
	sendersQuota       = words(`\boriginating from your (ip|spf)\b`)
	strangersFault     = words(`\bnature of the content\b|\breputation of the sending domain\b`)
	rateLimit          = words(`\brate[- ]limit|\bmessages from .* deferred\b|\bdeferred due to\b|\btoo (many messages|much mail)\b|\bthrottled\b`)
	returnPathFails    = words(`\bmail from domain\b`)
	ourAddress         = words(`\bipv6 sending guidelines\b|\breputation of the sending ip\b|\bnot authorized to send email directly\b`)
	noPTR              = words(`\bptr record\b`)

	// ourAccount matches what relays say of us: that we may not use them, may not
	// send under this name, are suspended, or have sent enough.
	ourAccount = words(`\brelay(ing)?( access)? (is )?(denied|prohibited|not (permitted|allowed))|\bunable to relay|\bcredentials for relay\b|` +
		`\b(not (permitted|allowed|authori[sz]ed)|not have permissions?) to (relay|send( as| from|:)|perform .?ses:)|` +
		`\b(sender|sender domain|email address|sender address rejected:) (is |are )?not (owned|verified|confirmed|authori[sz]ed|allowed|logged in)|` +
		`\bverified sender|\bunauthenticated senders?\b|\b(bad outbound|banned) sender|` +
		`\baccount (is |has been |was |is under |under )?(suspended|suspension|disabled|paused|terminated|blocked|deactivated|closed|not (yet )?activated)|` +
		`\bsending (suspended|paused|disabled) for (this|your) account|` +
		`\b(sending|submission) (quota|limit)|\bcredits exceeded|\btenant has exceeded`)

	// blocklist matches texts that name a list of addresses that send bad mail.
	blocklist = words(`\b(block[- ]?list(s|ed|ing)?|black[- ]?list(s|ed|ing)?|deny[- ]?list(s|ed)?|[dr]nsbl|rbl|` +
		`spamhaus|spamcop|barracudacentral|sorbs|uceprotect|mailspike|invaluement|senderscore|banned sending ip)\b`)

	// contentList matches the lists of domains and links found in messages: those
	// are about the message.
	contentList = words(`\b(dbl\.spamhaus|spamhaus\.org/query/(dbl|domain)|surbl|uribl)\b`)
)

func words(pattern string) *regexp.Regexp { return regexp.MustCompile(`(?i)` + pattern) }

// fits reports whether f speaks of an answer said at step.
func (f *fault) fits(step string, said *reply.Reply) bool {
	status := said.Status[2:]
	switch {
	case !strings.HasPrefix(strconv.Itoa(said.Code), f.code):
		return false
	case f.step != "" && !slices.Contains(strings.Fields(f.step), step):
		return false
	case strings.HasSuffix(f.status, ".") && !strings.HasPrefix(status, f.status):
		return false
	case f.status != "" && !strings.HasSuffix(f.status, ".") && f.status != status:
		return false
	}
	return f.text == nil || f.text.MatchString(said.Text)
}

// verdictOn looks a negative answer up in the table of faults, and one of our relay
// host in its own where that does not put it on us. Before MAIL the destination
// knows nothing but us, so it is about us whatever it says, and no mailbox or
// message can be meant.
func verdictOn(step string, said *reply.Reply, relayed bool) verdict {
	v := lookUp(faults, step, said)
	if relayed && !v.us {
		v = cmp.Or(lookUp(relayFaults, step, said), v)
	}
	if beforeMail(step) {
		v.us = true
		if v.rest != theDestination {
			v.rest = nobody
		}
	}
	return v
}

// lookUp returns the verdict of the first row that fits.
func lookUp(table []fault, step string, said *reply.Reply) verdict {
	for i := range table {
		if table[i].fits(step, said) {
			return table[i].verdict
		}
	}
	return byDigit
}

// beforeMail reports whether step is one of those that open a connection.
func beforeMail(step string) bool {
	switch step {
	case stepConnect, stepTLS, stepGreeting, stepEHLO, stepSTARTTLS, stepAUTH:
		return true
	}
	return false
}
