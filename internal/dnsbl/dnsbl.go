// Package dnsbl asks DNS lists about a client: blocklists, which name addresses
// that send spam, and lists of senders that are not to be refused (RFC 5782).
//
// Check asks all of them at the same time, with one deadline for all, and
// Finding.Reply is the decision. Rules:
//   - Only a code that counts is a listing (ParseList). The codes by which lists
//     say that they refuse to answer are none; they are logged, once an hour for
//     each list, with what to do.
//   - No answer in time, or any other trouble, never refuses mail.
//   - A list that also names 127.0.0.1 names the whole world, as lists do that
//     were given up; it is not believed (RFC 5782 5).
//   - A welcome outweighs all listings.
//   - Addresses that are not of the open internet are on no list, and not asked
//     about.
//
// What the lists said is remembered by the resolver for as long as they allow.
package dnsbl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"onward/internal/parallel"
	"onward/internal/reply"
	"onward/internal/resolver"
)

// A Checker asks lists. All fields but the lists are required. It is safe for
// concurrent use.
type Checker struct {
	Resolver resolver.Resolver
	Block    []List        // that name clients to refuse
	Welcome  []List        // that name clients not to refuse, whatever Block says
	Timeout  time.Duration // for all lists together
	Log      *slog.Logger

	mu     sync.Mutex
	warned map[string]time.Time // by the name of a list
}

// A Finding is what the lists say about one client.
type Finding struct {
	Client  netip.Addr
	Listed  []Listing // by the blocklists, in their order
	Welcome []Listing // by the others
}

// A Listing is one list's word about a client.
type Listing struct {
	List   string
	Code   netip.Addr // the first that counts
	Reason string     // what the list says about it, cleaned; may be empty
}

// Check asks all lists about a client. It returns no later than ctx ends, or
// the Timeout is over; what was not said by then counts as nothing.
func (c *Checker) Check(ctx context.Context, client netip.Addr) Finding {
	client = client.Unmap().WithZone("")
	f := Finding{Client: client}
	if !public(client) {
		return f
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	blocks := make([]*Listing, len(c.Block))
	welcomes := make([]*Listing, len(c.Welcome))
	var wg parallel.Group
	for i, l := range c.Block {
		wg.Go(func() { blocks[i] = c.ask(ctx, l, client) })
	}
	for i, l := range c.Welcome {
		wg.Go(func() { welcomes[i] = c.ask(ctx, l, client) })
	}
	wg.Wait()
	f.Listed, f.Welcome = present(blocks), present(welcomes)
	return f
}

func present(all []*Listing) []Listing {
	var some []Listing
	for _, l := range all {
		if l != nil {
			some = append(some, *l)
		}
	}
	return some
}

// shared is the address space of carrier-grade NAT (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

// public reports whether lists can know an address.
func public(ip netip.Addr) bool {
	return ip.IsGlobalUnicast() && !ip.IsPrivate() && !shared.Contains(ip)
}

// ask returns what a list says about a client, or nil.
func (c *Checker) ask(ctx context.Context, l List, client netip.Addr) *Listing {
	name := l.query(client)
	answer, err := c.Resolver.Lookup(ctx, name, resolver.TypeA)
	if err != nil {
		c.trouble(ctx, l, err)
		return nil
	}
	code, err := l.read(answer.Addrs())
	if err != nil {
		c.trouble(ctx, l, err)
		return nil
	}
	if !code.IsValid() {
		return nil
	}
	listing := &Listing{List: l.Name, Code: code}
	var reading parallel.Group
	reading.Go(func() { listing.Reason = c.reason(ctx, l, name) })
	err = c.sane(ctx, l, client)
	reading.Wait()
	if err != nil {
		c.trouble(ctx, l, err)
		return nil
	}
	return listing
}

// read returns the first code that counts, if any, or why none may.
func (l List) read(said []netip.Addr) (code netip.Addr, err error) {
	for _, a := range said {
		if err := l.refusal(a); err != nil {
			return netip.Addr{}, err
		}
		if !code.IsValid() && l.counts(a) {
			code = a
		}
	}
	return code, nil
}

// refusal reads the codes that mean something other than a listing
// (spamhaus.org, "DNSBL return codes"; dnswl.org; RFC 5782 2.1).
func (l List) refusal(code netip.Addr) error {
	const tooOften = "it says that you ask too often; get a key or a subscription from the list, or take it off"
	switch text := code.String(); {
	case !code.Is4() || code.As4()[0] != 127:
		return fmt.Errorf("it answers %v, which is no code: the list is gone, or the DNS server replaces answers; take the list off, or name another server in dns.resolvers", code)
	case text == "127.0.0.1":
		return errors.New("it refuses to answer (127.0.0.1), mostly because the DNS server is a public one or asks too often; name a resolver of your own in dns.resolvers, or get a key from the list")
	case text == "127.0.0.255" && l.Name == "list.dnswl.org":
		return errors.New(tooOften)
	case text == "127.255.255.252":
		return errors.New("it says that its name is mistyped; correct the name in the configuration")
	case text == "127.255.255.254":
		return errors.New("it does not answer public DNS servers; run a resolver of your own and name it in dns.resolvers, or get a key from the list")
	case text == "127.255.255.255":
		return errors.New(tooOften)
	case strings.HasPrefix(text, "127.255.255."):
		return fmt.Errorf("it answers with an error, %v; its website says what that means", code)
	}
	return nil
}

// maxReason is the most octets of a list's own words: with ours about them, the
// whole answer must fit a reply.
const maxReason = 250

// reason returns what a list says about a listing, often with an address of a
// page to read. Without it a listing counts all the same.
func (c *Checker) reason(ctx context.Context, l List, name string) string {
	answer, err := c.Resolver.Lookup(ctx, name, resolver.TypeTXT)
	if err != nil || len(answer.TXT()) == 0 {
		return ""
	}
	text := strings.ReplaceAll(answer.TXT()[0], l.zone, l.Name) // which has no key
	text = strings.Join(strings.Fields(reply.Clean(text)), " ")
	return text[:min(len(text), maxReason)]
}

// never4 and never6 are on no list that works (RFC 5782 5).
var (
	never4 = netip.MustParseAddr("127.0.0.1")
	never6 = netip.MustParseAddr("::ffff:127.0.0.1")
)

// sane returns nil when a list does not name everybody.
func (c *Checker) sane(ctx context.Context, l List, client netip.Addr) error {
	never := never4
	if client.Is6() {
		never = never6
	}
	_, err := c.Resolver.Lookup(ctx, l.query(never), resolver.TypeA)
	if err == nil {
		return errors.New("it lists even 127.0.0.1, so everybody: the list is gone or broken; take it off")
	}
	if errors.Is(err, resolver.ErrTemporary) {
		return err
	}
	return nil
}

// trouble writes what is wrong with a list, once an hour. The name that was
// asked for stays out: it may hold a key.
func (c *Checker) trouble(ctx context.Context, l List, err error) {
	if errors.Is(err, resolver.ErrNotFound) || errors.Is(err, resolver.ErrNoData) || errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	if e, ok := errors.AsType[*resolver.Error](err); ok {
		err = fmt.Errorf("%w: %w; a list that never answers only costs time", e.Kind, e.Err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if last, ok := c.warned[l.Name]; ok && now.Sub(last) < time.Hour {
		return
	}
	if c.warned == nil {
		c.warned = map[string]time.Time{}
	}
	c.warned[l.Name] = now
	c.Log.Warn("a DNS list is of no use", "list", l.Name, "err", err)
}

// Reply returns the refusal of a client that is listed and not welcome, or nil.
// It says by whom, and where to read more.
func (f Finding) Reply() *reply.Reply {
	if len(f.Listed) == 0 || len(f.Welcome) > 0 {
		return nil
	}
	first := f.Listed[0]
	why := first.Reason
	if why == "" {
		why = "the list gives no reason; ask whoever runs it"
	}
	return reply.New(550, "5.7.1", "%v is listed by %s: %s", f.Client, first.List, why)
}
