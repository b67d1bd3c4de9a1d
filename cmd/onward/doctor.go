package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"onward/internal/address"
	"onward/internal/config"
	"onward/internal/dnsbl"
	"onward/internal/doctor"
	"onward/internal/journal"
	"onward/internal/message"
	"onward/internal/problem"
	"onward/internal/resolver"
	"onward/internal/signing"
)

// doctorTime bounds all checks, and sendTime the way of a probe.
const (
	doctorTime = 30 * time.Second
	sendTime   = 90 * time.Second
)

// doctorFlags are what was asked for on the command line.
type doctorFlags struct {
	ips  []string
	zone string
	send string
	json bool
}

func doctorCommand() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for everything that makes forwarding fail",
		Long: `Look for everything that makes forwarding fail: DNS records, the names of our
addresses, ports, the certificate, blocklists, the clock, the disk. Each failure
comes with the record or the command that mends it. The exit status is 1 when
there is a failure; a warning alone is none.

Nothing is changed, and no mail is sent. With --send, a probe is sent to an
address of yours through the running daemon, and followed to the answer of its
destination, for 90 s at most.`,
		Example: `  onward doctor
  onward doctor --ip 192.0.2.25            behind NAT: how the internet knows us
  onward doctor --send me@example.org      does mail arrive?`,
		Args: noOperands,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			return examine(cmd, f)
		}),
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.ips, "ip", nil, "`address` at which the internet knows this server; may be given again")
	flags.StringVar(&f.zone, "zone", "", "`file` to take all DNS from: a master file, or JSON")
	flags.StringVar(&f.send, "send", "", "send a probe to this `address` of yours, and follow it")
	flags.BoolVar(&f.json, "json", false, "print data")
	return cmd
}

// examine does one of the two things that the command is for.
func examine(cmd *cobra.Command, f doctorFlags) error {
	ips, err := parseIPs(f.ips)
	if err != nil {
		return err
	}
	to, err := address.ParsePath(cmp.Or(f.send, "postmaster"))
	if err != nil {
		return misuse{fmt.Errorf("--send: %w", err)}
	}
	cfg, _, err := load(cmd)
	if err != nil {
		return err
	}
	dns, servers, err := dnsOf(cfg, f.zone)
	if err != nil {
		return err
	}
	if c, ok := dns.(*resolver.Client); ok {
		defer c.Close()
	}
	limit := doctorTime
	if f.send != "" {
		limit = sendTime
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), limit)
	defer cancel()
	s := subject(ctx, cfg, dns, ips)
	s.Servers = servers
	var checks []doctor.Check
	if f.send != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "Sending a probe to %s and following it; this may take up to %.0f s.\n", visible(to.String()), sendTime.Seconds())
		checks = s.Send(ctx, doctor.Probe{To: to, Sign: ownSigner(cfg)})
	} else {
		checks = doctor.Examine(ctx, s)
	}
	if err := printChecks(cmd.OutOrStdout(), checks, f.json); err != nil {
		return err
	}
	if slices.ContainsFunc(checks, func(c doctor.Check) bool { return c.State == doctor.Failure }) {
		return &failure{}
	}
	return nil
}

// parseIPs reads --ip.
func parseIPs(texts []string) ([]netip.Addr, error) {
	var ips []netip.Addr
	for _, text := range texts {
		for part := range strings.SplitSeq(text, ",") {
			ip, err := netip.ParseAddr(strings.TrimSpace(part))
			if err != nil || ip.Zone() != "" || ip.IsUnspecified() {
				return nil, misuse{fmt.Errorf("--ip %q: write an IP address such as 192.0.2.25", part)}
			}
			if ip = ip.Unmap(); !slices.Contains(ips, ip) {
				ips = append(ips, ip)
			}
		}
	}
	return ips, nil
}

// dnsOf returns the DNS to ask, a file or that of the configuration, and the
// servers that the latter names.
func dnsOf(cfg *config.Config, zone string) (resolver.Resolver, []netip.AddrPort, error) {
	if zone != "" {
		dns, err := (&site{config: cfg}).resolver(zone)
		return dns, cfg.DNS.Resolvers, err
	}
	dns, err := newResolver(cfg)
	if err != nil {
		return nil, nil, err
	}
	servers, err := dnsServers(cfg)
	if err != nil {
		return nil, nil, err
	}
	return dns, behindStub(servers), nil
}

// behindStub adds the servers that the stub of systemd passes questions on to:
// it is they that blocklists see.
func behindStub(servers []netip.AddrPort) []netip.AddrPort {
	stub := netip.MustParseAddrPort("127.0.0.53:53")
	if len(servers) != 1 || servers[0] != stub {
		return servers
	}
	behind, err := resolver.SystemServers("/run/systemd/resolve/resolv.conf")
	if err != nil {
		return servers
	}
	return append(slices.Clone(servers), behind...)
}

// subject gathers what is known of the server of a configuration.
func subject(ctx context.Context, cfg *config.Config, dns resolver.Resolver, ips []netip.Addr) doctor.Subject {
	s := doctor.Subject{
		Config:    cfg,
		Resolver:  dns,
		Addresses: ips,
		Targets:   targetDomains(cfg),
		Clients:   lateClients(ctx, cfg),
		Web:       web(cfg, dns),
		Built:     built(),
		Now:       time.Now(),
	}
	s.Web.Roots = acmeRoots(cfg)
	s.Lists = blocklists(cfg)
	s.Keys, s.KeysErr = keyRecords(cfg)
	return s
}

// blocklists are those that we look ourselves up in: the configured ones, which
// may come with a key, and the common ones.
func blocklists(cfg *config.Config) []dnsbl.List {
	var lists []dnsbl.List
	for _, text := range append(slices.Clone(cfg.Policy.DNSBL), doctor.CommonLists...) {
		l, err := dnsbl.ParseList(text)
		if err == nil && !slices.ContainsFunc(lists, func(other dnsbl.List) bool { return other.Name == l.Name }) {
			lists = append(lists, l)
		}
	}
	return lists
}

// acmeRoots are the authorities that all trust, and those that the owner does;
// nil where that is nobody else.
func acmeRoots(cfg *config.Config) *x509.CertPool {
	settings, err := certificateSettings(cfg)
	if err != nil || settings.ACME == nil || settings.ACME.Roots == nil {
		return nil
	}
	return settings.ACME.Roots
}

// keyRecords returns the records of all keys that mail is signed with, or why
// one of them cannot be read.
func keyRecords(cfg *config.Config) ([]signing.Record, error) {
	if !cfg.DKIM.Sign {
		return nil, nil
	}
	keys, err := openKeys(cfg, cfg.StateDir, false)
	if err != nil {
		return nil, err
	}
	domains := slices.Sorted(maps.Values(srsDomains(cfg)))
	var records []signing.Record
	for _, d := range slices.Compact(append(domains, cfg.Hostname)) {
		signer, err := keys.Signer(d)
		if err != nil {
			return nil, err
		}
		for _, r := range signer.Records() {
			if !slices.Contains(records, r) {
				records = append(records, r)
			}
		}
	}
	return records, nil
}

// ownSigner signs what the server writes itself, or is nil where it cannot.
func ownSigner(cfg *config.Config) func(*message.Message) ([]byte, error) {
	keys, err := openKeys(cfg, cfg.StateDir, false)
	if err != nil || !cfg.DKIM.Sign {
		return nil
	}
	signer, err := keys.Signer(cfg.Hostname)
	if err != nil {
		return nil
	}
	return signer.Sign
}

// targetDomains are the domains that mail goes on to, those with most aliases
// first.
func targetDomains(cfg *config.Config) []address.Domain {
	uses := map[address.Domain]int{cfg.Postmaster.Domain: 1}
	for _, d := range cfg.Domains {
		for _, a := range d.Aliases {
			for _, to := range a.To {
				if m, err := address.Parse(to); err == nil {
					uses[m.Domain]++
				}
			}
		}
	}
	for _, d := range cfg.Domains {
		delete(uses, d.Name)
	}
	delete(uses, cfg.Hostname)
	return slices.SortedFunc(maps.Keys(uses), func(a, b address.Domain) int {
		return cmp.Or(uses[b]-uses[a], cmp.Compare(a, b))
	})
}

// lateClients are the clients of the last messages, as far as the journal can be
// read.
func lateClients(ctx context.Context, cfg *config.Config) []netip.Addr {
	const most = 20 // messages
	r, err := journal.OpenReader(ctx, cfg.StateDir)
	if err != nil {
		return nil
	}
	defer r.Close()
	events, err := r.Newest(ctx, journal.Filter{Since: time.Now().AddDate(0, 0, -7), Limit: 5 * most})
	if err != nil {
		return nil
	}
	var clients []netip.Addr
	seen := map[string]bool{}
	for _, e := range slices.Backward(events) {
		if seen[e.Message] || len(seen) == most {
			continue
		}
		seen[e.Message] = true
		story, err := r.Story(ctx, e.Message)
		if err != nil {
			continue
		}
		if ip, err := netip.ParseAddr(story.Client); err == nil {
			clients = append(clients, ip.Unmap())
		}
	}
	return clients
}

// built is when the sources of this program were written, or zero.
func built() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.time" {
			t, _ := time.Parse(time.RFC3339, setting.Value)
			return t
		}
	}
	return time.Time{}
}

// printChecks prints a line for each check, and below it what mends it, as it is
// to be copied.
func printChecks(w io.Writer, checks []doctor.Check, asJSON bool) error {
	if asJSON {
		return printJSON(w, checks)
	}
	s := newScreen(w)
	s.checks(checks)
	return s.Flush()
}

func (s *screen) checks(checks []doctor.Check) {
	width, found := 0, map[doctor.State]int{}
	for _, c := range checks {
		width, found[c.State] = max(width, problem.Cells(visible(c.Name))), found[c.State]+1
	}
	const states = len("failure  ")
	most := 40 // an IPv6 address
	if s.narrow() {
		most = 22
	}
	width = min(width, most)
	for _, c := range checks {
		head := paint(s.colour, stateColour(c.State), string(c.State)) + strings.Repeat(" ", states-len(c.State)) + s.cell(c.Name, width) + "  "
		for i, line := range s.wrapped(c.Sentence, states+width+2, states+width+2) {
			if i > 0 {
				head = strings.Repeat(" ", states+width+2)
			}
			s.line(head, line)
		}
		if c.Mend == "" {
			continue
		}
		for line := range strings.SplitSeq(c.Mend, "\n") {
			s.line("    ", visible(line))
		}
	}
	fmt.Fprintf(s, "\n%d ok, %s, %s.\n", found[doctor.OK], count(found[doctor.Warning], "warning"), count(found[doctor.Failure], "failure"))
}

func stateColour(state doctor.State) string {
	switch state {
	case doctor.OK:
		return green
	case doctor.Warning:
		return yellow
	}
	return red
}
