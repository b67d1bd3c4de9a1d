// Package doctor looks for everything that makes forwarding fail: DNS records,
// the names of our addresses, ports, the certificate, blocklists, and what the
// machine itself lacks.
//
// Examine makes all checks at the same time, and returns them as plain data for
// the command, for JSON and for the status page. ServerRecords and DomainRecords
// are what has to be in the DNS; init prints them, and where a check fails for
// want of a record the mend is that very record.
//
// Rules for a caller:
//   - Nothing is changed and no mail is sent. Mail hosts of targets are connected
//     to, and told QUIT when they have greeted.
//   - One thing that is wrong is one check that is not OK: what follows from it
//     is judged as if it were mended. Without any DNS only the local checks are
//     made.
//   - Texts in a Check are printable ASCII and bounded, whatever the DNS or a
//     server has said.
//   - Where this machine cannot see itself from outside, a check says so rather
//     than guess.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"onward/internal/address"
	"onward/internal/config"
	"onward/internal/dnsbl"
	"onward/internal/reply"
	"onward/internal/resolver"
	"onward/internal/signing"
	"onward/internal/webclient"
)

// A State is how a check went.
type State string

// The states. A Failure keeps mail from arriving somewhere; a Warning may, or
// hides something.
const (
	OK      State = "ok"
	Warning State = "warning"
	Failure State = "failure"
)

// A Check is one thing that was looked at.
type Check struct {
	Name     string `json:"name"` // such as "MX example.org"
	State    State  `json:"state"`
	Sentence string `json:"sentence"`

	// Mend is the record or the command that mends it, to be used as it is; a
	// line each. Empty for OK, and where no single one does.
	Mend string `json:"mend,omitempty"`
}

// A Subject is the server that is examined, and what is known of it.
type Subject struct {
	Config   *config.Config
	Resolver resolver.Resolver
	Servers  []netip.AddrPort // whom Resolver asks; empty when it asks nobody

	// Addresses are those at which the internet knows this server, as far as
	// somebody knows. Empty: the public addresses of this machine, or those that
	// the DNS gives for our name.
	Addresses []netip.Addr

	Keys    []signing.Record // what the DNS has to say of our DKIM keys; none when nothing is signed
	KeysErr error            // why they cannot be read

	Targets []address.Domain // domains that mail goes on to
	Clients []netip.Addr     // who has sent us mail lately; empty when nothing is known
	Lists   []dnsbl.List     // blocklists to look us up in
	Web     *webclient.Client

	Built time.Time // of this program; zero when unknown
	Now   time.Time
}

// An examination is a Subject and what was found out before the checks.
type examination struct {
	*Subject
	ours  []netip.Addr // our addresses on the internet
	sure  bool         // that these are ours, rather than just what the DNS says
	named named        // what the DNS gives for our name
}

// Examine makes all checks and returns no later than ctx ends, which should be
// within half a minute.
func Examine(ctx context.Context, s Subject) []Check {
	e := &examination{Subject: &s}
	servers, work := e.servers(ctx)
	checks := []Check{servers}
	var groups []func(context.Context) []Check
	if work {
		e.look(ctx)
		groups = e.abroad()
	} else {
		checks = append(checks, Check{"records", Warning, "No record, port or blocklist was looked at, because the DNS does not answer.", ""})
	}
	groups = append(groups, e.inbound, e.clients, e.clock, e.disk, e.private)
	results := make([][]Check, len(groups))
	var wg sync.WaitGroup
	for i, group := range groups {
		wg.Go(func() { results[i] = group(ctx) })
	}
	wg.Wait()
	return append(checks, slices.Concat(results...)...)
}

// abroad are the checks that need the DNS, in the order in which they are shown.
func (e *examination) abroad() []func(context.Context) []Check {
	groups := []func(context.Context) []Check{e.hostAddresses}
	for _, ip := range e.ours {
		groups = append(groups, func(ctx context.Context) []Check { return e.reverse(ctx, ip) })
	}
	each := func(check func(context.Context, address.Domain) []Check, domains []address.Domain) {
		for _, d := range domains {
			groups = append(groups, func(ctx context.Context) []Check { return check(ctx, d) })
		}
	}
	own := e.names()
	each(e.mx, own)
	each(e.bounces, e.srsDomains())
	each(e.spf, e.srsDomains())
	groups = append(groups, e.dkim)
	each(e.dmarc, own)
	each(e.srsPolicy, e.srsDomains())
	each(e.mtaSTS, own)
	each(e.tlsRPT, own)
	groups = append(groups, e.dnssec, e.outbound)
	for _, ip := range e.ours {
		groups = append(groups, func(ctx context.Context) []Check { return e.blocklists(ctx, ip) })
	}
	return groups
}

// names are the domains we receive mail for.
func (s *Subject) names() []address.Domain {
	names := make([]address.Domain, len(s.Config.Domains))
	for i, d := range s.Config.Domains {
		names[i] = d.Name
	}
	return names
}

// srsDomains are the domains of return paths, each once.
func (s *Subject) srsDomains() []address.Domain {
	all := []address.Domain{s.Config.SRS.Domain}
	for _, d := range s.Config.Domains {
		if srs := s.srsOf(d.Name); !slices.Contains(all, srs) {
			all = append(all, srs)
		}
	}
	return all
}

// srsOf returns the SRS domain for mail to a domain.
func (s *Subject) srsOf(name address.Domain) address.Domain {
	for _, d := range s.Config.Domains {
		if d.Name == name && d.SRSDomain != "" {
			return d.SRSDomain
		}
	}
	return s.Config.SRS.Domain
}

func (s *Subject) hostname() address.Domain { return s.Config.Hostname }

// lookup asks the DNS. That there is nothing is no error: the Answer is then nil.
func (s *Subject) lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	answer, err := s.Resolver.Lookup(ctx, name, t)
	if errors.Is(err, resolver.ErrNotFound) || errors.Is(err, resolver.ErrNoData) {
		return nil, nil
	}
	return answer, err
}

// texts returns the TXT records at a name that begin as those of one kind do, up
// to what follows, in any case.
func (s *Subject) texts(ctx context.Context, name, begin string) ([]string, error) {
	answer, err := s.lookup(ctx, name, resolver.TypeTXT)
	if answer == nil {
		return nil, err
	}
	return slices.DeleteFunc(answer.TXT(), func(text string) bool {
		return len(text) < len(begin) || !strings.EqualFold(text[:len(begin)], begin)
	}), nil
}

// unanswered is the check of something that the DNS did not tell.
func unanswered(check, name string, t resolver.Type, err error) []Check {
	return []Check{{check, Failure,
		fmt.Sprintf("The DNS does not say what is at %s (%s); mend the name servers of the domain, or try again.", quote(name), quote(outcome(err).Error())),
		fmt.Sprintf("dig +trace %s %v", name, t)}}
}

// outcome is what a question to the DNS came to, without the question.
func outcome(err error) error {
	e, ok := errors.AsType[*resolver.Error](err)
	switch {
	case !ok:
		return err
	case e.Err != nil:
		return e.Err
	}
	return e.Kind
}

// maxQuote is the most octets of foreign text in a sentence.
const maxQuote = 160

// quote makes foreign text fit for a sentence.
func quote(s string) string {
	s = strings.Join(strings.Fields(reply.Clean(s)), " ")
	if len(s) > maxQuote {
		return s[:maxQuote-3] + "..."
	}
	return s
}

// list joins words for a sentence.
func list[T fmt.Stringer](words []T) string {
	texts := make([]string, len(words))
	for i, w := range words {
		texts[i] = w.String()
	}
	return join(texts)
}

func join(texts []string) string {
	if n := len(texts); n > 1 {
		return strings.Join(texts[:n-1], ", ") + " and " + texts[n-1]
	}
	return strings.Join(texts, "")
}
