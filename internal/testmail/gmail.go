package testmail

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"time"

	"onward/internal/resolver"
)

// A Gmail is a sink that takes and refuses mail as Gmail says it does, row by
// row of STANDARDS.md 3.1, in Gmail's words. It finds out by itself who is
// writing, with SPF, DKIM and DMARC as any receiver has them, and it never forgets
// who comes back too soon: a try during a pause makes the pause longer.
type Gmail struct {
	*Sink
	Clock func() time.Time // for pauses; set before the first visit
	dns   resolver.Resolver

	mu       sync.Mutex // guards what follows
	policy   GmailPolicy
	counts   map[string]int       // what has been taken, by what is counted
	pauses   map[string]*pause    // when nothing is taken, by the same
	greeted  map[string]time.Time // when greylisted correspondents first came
	offences []string
	answers  []string
}

// A pause is when nothing is taken. Whoever has been told ought to know.
type pause struct {
	until time.Time
	told  bool
}

// GmailPolicy is what Gmail makes of its mailboxes and of us. The zero value
// takes everything that is well-formed and authenticated.
type GmailPolicy struct {
	Full    map[string]bool // mailboxes without room; true: for good
	Mailbox int             // messages a mailbox may get before it is given a rest; 0: any number
	Quota   map[string]int  // messages before "ip", "spf" domain, "dkim" domain or "message-id" has had too many
	Pause   time.Duration   // of a mailbox or quota; 10 minutes if 0 (STANDARDS.md G9)

	Greylist   time.Duration // a new correspondent is to wait so long; 0: not at all
	Reputation bool          // we are suspicious
	Spam       string        // a word that makes a message unwelcome
	Lenient    bool          // what lacks authentication or a PTR record is put off, not refused
	Bulk       bool          // we send more than 5,000 messages a day, so that more is asked of us
	TLS        bool          // clear text is not taken
}

// StartGmail starts one that asks dns, which holds our SPF, DKIM and PTR records.
func StartGmail(addr string, dns resolver.Resolver) (*Gmail, error) {
	sink, err := StartSink(addr)
	if err != nil {
		return nil, err
	}
	g := &Gmail{Sink: sink, Clock: time.Now, dns: dns, counts: map[string]int{}, pauses: map[string]*pause{}, greeted: map[string]time.Time{}}
	sink.Behave(g.decide)
	return g, nil
}

// SetPolicy replaces the policy, and forgets what was counted and paused.
func (g *Gmail) SetPolicy(p GmailPolicy) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.policy = p
	clear(g.counts)
	clear(g.pauses)
	clear(g.greeted)
}

// Offences returns what was done during a pause, and other things that cost
// reputation, one sentence each.
func (g *Gmail) Offences() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.offences...)
}

// Answers returns what was said beside the usual, the first line of each.
func (g *Gmail) Answers() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.answers...)
}

// help ends every answer.
const help = "For more information, go to https://support.google.com/mail/?p=answers - gsmtp"

// say returns an answer in the form of Gmail's: the status on every line.
func say(code int, status, text string) Action {
	return Action{Reply: fmt.Sprintf("%d-%s %s\r\n%d %s %s", code, status, text, code, status, help), Drop: code == 421}
}

// decide is the mood.
func (g *Gmail) decide(s Step) Action {
	a := g.judge(s)
	if a.Reply != "" {
		first, _, _ := strings.Cut(a.Reply, "\r\n")
		g.mu.Lock()
		defer g.mu.Unlock()
		g.answers = append(g.answers, strings.Replace(first, "-", " ", 1))
	}
	return a
}

// judge looks at one step.
func (g *Gmail) judge(s Step) Action {
	switch verb, _, _ := strings.Cut(strings.ToUpper(s.Text), " "); verb {
	case "CONNECT":
		return g.connect(s)
	case "STARTTLS":
		if s.Early {
			return say(523, "5.7.10", "SMTP protocol violation, no commands allowed to pipeline after STARTTLS")
		}
	case "MAIL":
		if g.inForce().TLS && s.TLS == "" {
			return say(421, "4.7.0", "TLS required for RCPT domain, closing connection.")
		}
	case "RCPT":
		return g.recipient(s)
	case ".":
		return g.message(s)
	}
	return Action{}
}

// inForce returns the policy.
func (g *Gmail) inForce() GmailPolicy {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.policy
}

// connect turns away an address that is to stay away.
func (g *Gmail) connect(s Step) Action {
	if g.paused("ip " + s.Peer.Addr().String()) {
		return tooMuch("ip", s.Peer.Addr().String())
	}
	return Action{}
}

// recipient answers RCPT.
func (g *Gmail) recipient(s Step) Action {
	mailbox := path(s.Text)
	_, domain, _ := strings.Cut(mailbox, "@")
	policy := g.inForce()
	for _, other := range s.Rcpt {
		if _, d, _ := strings.Cut(path(other), "@"); d != domain {
			return say(451, "4.3.0", "Multiple destination domains per transaction is unsupported.  Please try again.")
		}
	}
	permanent, full := policy.Full[mailbox]
	switch {
	case full && permanent:
		return say(552, "5.2.2", "The recipient's inbox is out of storage space and inactive. Please direct the recipient to https://support.google.com/mail/?p=OverQuotaPerm")
	case full:
		return say(452, "4.2.2", "The recipient's inbox is out of storage space. Please direct the recipient to https://support.google.com/mail/?p=OverQuotaTemp")
	case g.paused("mailbox " + mailbox):
		return say(450, "4.2.1", "The user you are trying to contact is receiving mail at a rate that prevents additional messages from being delivered. Please resend your message at a later time.")
	case policy.Greylist > 0 && g.unknown(s.Peer.Addr(), path(s.Mail), mailbox, policy.Greylist):
		return say(451, "4.7.1", "Greylisted, please try again later")
	}
	return Action{}
}

// unknown reports whether a correspondent is too new, and remembers it.
func (g *Gmail) unknown(peer netip.Addr, from, to string, wait time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	// The local part of a return path changes every day.
	key := fmt.Sprint(peer, " ", from[strings.LastIndexByte(from, '@')+1:], " ", to)
	first, seen := g.greeted[key]
	if !seen {
		first = g.Clock()
		g.greeted[key] = first
	}
	return g.Clock().Sub(first) < wait
}

// paused reports whether nothing is taken from or for what is counted as key. To
// ask again is an offence, and makes the pause begin again.
func (g *Gmail) paused(key string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.pauses[key]
	if p == nil || g.Clock().After(p.until) {
		return false
	}
	if p.told {
		g.offences = append(g.offences, fmt.Sprintf("%s tried %v too soon", key, p.until.Sub(g.Clock()).Round(time.Millisecond)))
		p.until = g.Clock().Add(g.policy.pause())
	}
	p.told = true
	return true
}

func (p GmailPolicy) pause() time.Duration { return cmp.Or(p.Pause, 10*time.Minute) }

// spend counts one more message of key, and reports whether that is too many:
// then the pause begins, and whoever sends is told.
func (g *Gmail) spend(key string, most int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if most == 0 {
		return false
	}
	if g.counts[key]++; g.counts[key] <= most {
		return false
	}
	g.counts[key] = 0
	g.pauses[key] = &pause{g.Clock().Add(g.policy.pause()), true}
	return true
}

// fill counts one more message for a mailbox. When it has had enough, the next
// sender is told.
func (g *Gmail) fill(mailbox string) {
	key := "mailbox " + mailbox
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.counts[key]++; g.policy.Mailbox > 0 && g.counts[key] >= g.policy.Mailbox {
		g.counts[key] = 0
		g.pauses[key] = &pause{until: g.Clock().Add(g.policy.pause())}
	}
}

// message answers the final dot.
func (g *Gmail) message(s Step) Action {
	policy := g.inForce()
	if a := malformed(s.Data); a != (Action{}) {
		return a
	}
	found := g.authenticate(context.Background(), s)
	if a := found.objection(policy, s); a != (Action{}) {
		return a
	}
	switch {
	case policy.Reputation:
		return say(421, "4.7.0", fmt.Sprintf("[%s] Our system has detected that this message is suspicious due to the very low reputation of the sending IP address.", s.Peer.Addr()))
	case policy.Spam != "" && strings.Contains(string(s.Data), policy.Spam):
		return say(550, "5.7.1", "Our system has detected that this message is likely unsolicited mail. To reduce the amount of spam sent to Gmail, this message has been blocked.")
	}
	if a := g.quotas(policy, found, s); a != (Action{}) {
		return a
	}
	for _, rcpt := range s.Rcpt {
		g.fill(path(rcpt))
	}
	return Action{}
}

// quotas counts a message everywhere it counts.
func (g *Gmail) quotas(policy GmailPolicy, found authentication, s Step) Action {
	for _, q := range []struct{ kind, value string }{
		{"ip", s.Peer.Addr().String()}, {"spf", found.spfDomain}, {"dkim", found.signer}, {"message-id", messageID(s.Data)},
	} {
		key := q.kind + " " + q.value
		if q.value != "" && (g.paused(key) || g.spend(key, policy.Quota[q.kind])) {
			return tooMuch(q.kind, q.value)
		}
	}
	return Action{}
}

// tooMuch is the answer to whoever has sent too much, named by kind and value.
func tooMuch(kind, value string) Action {
	named := map[string]string{
		"ip": "originating from your IP address [%s]", "spf": "originating from your SPF domain [%s]",
		"dkim": "originating from your DKIM domain [%s]", "message-id": "with the same Message-ID header [%s]",
	}[kind]
	return say(421, "4.7.28", "Gmail has detected an unusual rate of email "+fmt.Sprintf(named, value)+". To protect our users from spam, email has been temporarily rate limited.")
}

// malformed refuses what breaks RFC 5322 or a limit of Gmail's (S12b).
func malformed(data []byte) Action {
	header, _, _ := strings.Cut(string(data), "\r\n\r\n")
	header += "\r\n"
	fields := topField.FindAllString(header, -1)
	count := func(name string) int {
		n := 0
		for _, f := range fields {
			n += one(strings.EqualFold(strings.TrimRight(strings.TrimSuffix(f, ":"), " \t"), name))
		}
		return n
	}
	switch {
	case count("Received") > 50:
		return say(554, "5.4.6", "Message exceeded 50 hops, this may indicate a mail loop")
	case len(header) > 500<<10 || len(fields) > 5000 || longSubject.MatchString(header):
		return say(552, "5.3.4", "The size of the header value exceeds the limit")
	case count("Message-ID") == 0:
		return say(550, "5.7.1", "Messages missing a valid Message-ID header are not accepted.")
	case count("From") != 1:
		return say(550, "5.7.1", "This message is not RFC 5322 compliant: it has no From header, or several.")
	case count("Subject") > 1 || count("To") > 1 || count("Date") > 1 || count("Message-ID") > 1:
		return say(550, "5.7.1", "This message is not RFC 5322 compliant: there are duplicate headers.")
	case len(attachment.FindAll(data, 501)) > 500:
		return say(552, "5.3.4", "The number of attachments exceeds the limit")
	case blocked.Match(data):
		return say(552, "5.7.0", "This message was blocked because its content presents a potential security issue.")
	}
	return Action{}
}

var (
	topField    = regexp.MustCompile(`(?m)^[!-9;-~]+[ \t]*:`)
	longSubject = regexp.MustCompile(`(?im)^Subject:[^\r\n]{999}`)
	attachment  = regexp.MustCompile(`(?im)^Content-Disposition:[ \t]*attachment`)
	blocked     = regexp.MustCompile(`(?i)name="?[^"\r\n]*\.(exe|scr|bat|jar)"?`)
)
