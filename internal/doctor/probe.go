package doctor

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/journal"
	"onward/internal/message"
)

// A Probe is a message that is sent the whole way, from our own listener to a
// target.
type Probe struct {
	To   address.Mailbox
	Sign func(*message.Message) ([]byte, error) // as what we write ourselves is; nil: unsigned
}

// Pace of looking into the journal, and how long an answer of ours may take
// (DESIGN.md 9.1).
const (
	lookTime   = 250 * time.Millisecond
	answerTime = 5 * time.Minute
)

// Send hands the probe to our listener as any sender does, and follows it in the
// journal until every target has answered or ctx ends. It returns one check for
// our answer and one for each target.
func (s Subject) Send(ctx context.Context, p Probe) []Check {
	e := &examination{Subject: &s}
	const check = "probe"
	at, err := e.listener()
	if err != nil {
		return []Check{{check, Failure, fmt.Sprintf("Our listener cannot be connected to: %s.", quote(err.Error())), ""}}
	}
	text, err := p.write(s)
	if err != nil {
		return []Check{{check, Failure, fmt.Sprintf("The probe cannot be written: %s.", quote(err.Error())), ""}}
	}
	conn, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return []Check{{check, Failure, fmt.Sprintf("Nobody answers on %s (%s); is onward running?", at, quote(cause(err))), "onward serve -c " + s.file()}}
	}
	s.introduce(conn)
	answer, err := p.hand(ctx, conn, s.hostname(), text)
	if err != nil {
		return []Check{{check, Failure, fmt.Sprintf("onward on %s did not answer: %s.", at, quote(cause(err))), ""}}
	}
	id := idForm.FindString(answer)
	first := Check{check, OK, fmt.Sprintf("onward took the probe for %s and said: %s.", p.To, quote(answer)), ""}
	if !strings.HasPrefix(answer, "2") {
		first = Check{check, Failure, fmt.Sprintf("onward does not take the probe for %s: %s.", p.To, quote(answer)), "onward alias " + p.To.String()}
	}
	targets := s.follow(ctx, id, first.State == OK)
	if first.State == Failure && len(targets) > 0 {
		first.Mend = "onward log " + id // it was not for the alias
	}
	return append([]Check{first}, targets...)
}

// idForm is the id of a message in an answer of ours.
var idForm = regexp.MustCompile(`\b[0-9A-HJKMNP-TV-Z]{26}\b`)

// sender is who writes the probe. It is not the null sender, so that the way of
// a return path is gone too.
func (p Probe) sender(hostname address.Domain) string { return "postmaster@" + hostname.String() }

// write composes the probe, with its signature.
func (p Probe) write(s Subject) (string, error) {
	from := p.sender(s.hostname())
	text := strings.Join([]string{
		"From: onward doctor <" + from + ">",
		"To: <" + p.To.String() + ">",
		"Subject: onward probe",
		"Date: " + s.Now.Format("Mon, 02 Jan 2006 15:04:05 -0700"),
		"Message-ID: <probe." + rand.Text() + "@" + s.hostname().String() + ">",
		"Auto-Submitted: auto-generated",
		"MIME-Version: 1.0",
		"Content-Type: text/plain; charset=us-ascii",
		"",
		"onward doctor --send has sent this to " + strings.Map(ascii, p.To.String()) + ",",
		"to see whether it arrives. It has.",
		"",
	}, "\r\n")
	if p.Sign == nil {
		return text, nil
	}
	b := message.NewBuffer("") // which is small enough for memory
	defer b.Close()
	if _, err := io.WriteString(b, text); err != nil {
		return "", err
	}
	m, err := b.Message()
	if err != nil {
		return "", err
	}
	fields, err := p.Sign(m)
	return string(fields) + text, err
}

func ascii(r rune) rune {
	if r < ' ' || r > '~' {
		return '?'
	}
	return r
}

// hand speaks SMTP with our listener, and returns the answer that decided. No
// line of the probe begins with a dot.
func (p Probe) hand(ctx context.Context, conn net.Conn, hostname address.Domain, text string) (string, error) {
	defer conn.Close()
	c, stop := newDialogue(ctx, conn)
	defer stop()
	c.patience = answerTime
	params := ""
	if !p.To.IsASCII() {
		params = " BODY=8BITMIME SMTPUTF8"
	}
	answer, err := c.hear()
	for _, step := range []struct{ line, want string }{
		{"EHLO " + hostname.String(), "220"},
		{"MAIL FROM:<" + p.sender(hostname) + ">" + params, "250"},
		{"RCPT TO:<" + p.To.String() + ">", "250"},
		{"DATA", "250"},
		{text + ".", "354"},
	} {
		if err != nil || !strings.HasPrefix(answer, step.want) {
			return answer, err
		}
		c.say(step.line)
		answer, err = c.hear()
	}
	if err == nil {
		c.say("QUIT")
	}
	return answer, err
}

// follow reads what became of a message. One that we did not take has nothing
// more to wait for than what is known.
func (s Subject) follow(ctx context.Context, id string, taken bool) []Check {
	r, err := journal.OpenReader(ctx, s.Config.StateDir)
	if err != nil || id == "" {
		return nil // not ours to read; the answer says what there is to say
	}
	defer r.Close()
	if !taken {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 8*lookTime)
		defer cancel()
	}
	story := &journal.Story{}
	for {
		now, err := r.Story(ctx, id)
		if err == nil {
			story = now
		}
		if ctx.Err() != nil || settled(story.Fates) {
			return fates(story, id)
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookTime):
		}
	}
}

// settled reports whether nothing more will happen to a message for now.
func settled(all []journal.Fate) bool {
	for _, f := range all {
		if stateOf(f.Outcome) == Warning {
			return false
		}
	}
	return len(all) > 0
}

// stateOf says how well a target has fared. A Warning is not the end of it.
func stateOf(o journal.Outcome) State {
	switch o {
	case journal.Delivered, journal.Forwarded, journal.Discarded:
		return OK
	case journal.Queued, journal.Deferred, journal.Released, journal.Retried, "unknown":
		return Warning
	}
	return Failure
}

// fates are the checks of the targets of a message.
func fates(story *journal.Story, id string) []Check {
	var checks []Check
	for _, f := range story.Fates {
		name := f.Target
		if name == "" {
			name = f.Recipient
		}
		c := Check{Name: "probe " + quote(name), State: stateOf(f.Outcome)}
		c.Sentence = fmt.Sprintf("%s: %s", f.Outcome, quote(f.Answer.String()))
		if host := hostOf(story, f.Target); host != "" {
			c.Sentence = fmt.Sprintf("%s, %s said: %s", f.Outcome, quote(host), quote(f.Answer.String()))
		}
		if c.State != OK {
			c.Mend = "onward log " + id
		}
		checks = append(checks, c)
	}
	return checks
}

// hostOf is who answered the last attempt at a target.
func hostOf(story *journal.Story, target string) string {
	host := ""
	for _, a := range story.Attempts {
		if a.Target == target && a.Answer.Code != 0 {
			host = a.Host
		}
	}
	return host
}
