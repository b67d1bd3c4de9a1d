package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"onward/internal/address"
	"onward/internal/config"
	"onward/internal/doctor"
	"onward/internal/problem"
	"onward/internal/resolver"
)

// initTime bounds the look into the DNS for what is there already.
const initTime = 15 * time.Second

// initFlags are what was asked for on the command line.
type initFlags struct {
	hostname, postmaster string
	ips                  []string
	dir, stateDir        string
	from                 string // --import
	zone                 string
	add, yes, json       bool
}

func initCommand() *cobra.Command {
	var f initFlags
	cmd := &cobra.Command{
		Use:   "init [DOMAIN] [ALIAS=TARGET...]",
		Short: "Write a configuration and keys, and print the DNS records to paste",
		Long: `Write onward.yaml and the keys, and print the DNS records to paste: six at most
for the first domain, one for each further one. What is not given is asked for,
on a terminal. Records that are in the DNS already are merged.

A configuration that is there is not changed: only the records are printed
again. With --add, a further domain is put into it; without aliases of its own
that gets those of the first domain.

With --import, the aliases are read from a file: Postfix virtual, chasquid
aliases, Forward Email TXT records, or what the APIs of Cloudflare and ImprovMX
return. What cannot be carried over is printed.`,
		Example: `  onward init
  onward init example.org me=you@gmail.com team=a@gmail.com,b@outlook.com
  onward init --add example.net
  onward init --import /etc/postfix/virtual`,
		RunE: action(func(cmd *cobra.Command, args []string) error {
			return initialise(cmd, f, args)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.hostname, "hostname", "", "`name` of this server (default mx.DOMAIN)")
	flags.StringVar(&f.postmaster, "postmaster", "", "`address` for postmaster@ and notices (default the first target)")
	flags.StringArrayVar(&f.ips, "ip", nil, "public `address` of this server; may be given again (default what is found)")
	flags.StringVar(&f.dir, "dir", "", "`directory` for onward.yaml, in place of -c")
	flags.StringVar(&f.stateDir, "state-dir", "", "`directory` for keys, queue and journal (default state, beside onward.yaml)")
	flags.StringVar(&f.from, "import", "", "`file` to read aliases from; - is standard input")
	flags.BoolVar(&f.add, "add", false, "put the domain into a configuration that is there")
	flags.BoolVarP(&f.yes, "yes", "y", false, "ask nothing, take the defaults")
	flags.StringVar(&f.zone, "zone", "", "`file` to take all DNS from: a master file, or JSON")
	flags.BoolVar(&f.json, "json", false, "print data")
	return cmd
}

// A beginning is what init does: with which file, and what came of it.
type beginning struct {
	initFlags
	cmd     *cobra.Command
	path    string
	ips     []netip.Addr
	domains []*newDomain // to write, the first one first
	lost    []loss       // what could not be imported

	written, added, keys bool // the file was written, or changed; keys were made
}

// initialise is the whole command, step by step.
func initialise(cmd *cobra.Command, f initFlags, args []string) error {
	b := &beginning{initFlags: f, cmd: cmd}
	var err error
	if b.ips, err = parseIPs(f.ips); err != nil {
		return err
	}
	if b.path, err = f.path(cmd); err != nil {
		return err
	}
	if err := b.read(args); err != nil {
		return err
	}
	_, err = os.Stat(b.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && f.add:
		return fmt.Errorf("there is no %s to add a domain to; leave --add away to write one", b.path)
	case errors.Is(err, fs.ErrNotExist):
		err = b.create()
	case err == nil && f.add:
		err = b.append()
	}
	if err != nil {
		return err
	}
	cfg, err := b.load()
	if err != nil {
		return err
	}
	if b.keys, err = makeKeys(cfg); err != nil {
		return err
	}
	return b.report(cfg)
}

// path is where the configuration is, or will be.
func (f *initFlags) path(cmd *cobra.Command) (string, error) {
	named, _ := cmd.Flags().GetString("config")
	if f.dir != "" && named != "" {
		return "", misuse{errors.New("give either -c or --dir, not both")}
	}
	if f.dir != "" {
		return filepath.Join(f.dir, "onward.yaml"), nil
	}
	if path, err := config.Find(named); err == nil {
		return path, nil
	}
	if os.Getenv("STATE_DIRECTORY") != "" { // a service, or a container
		return "/etc/onward/onward.yaml", nil
	}
	return "onward.yaml", nil
}

// read takes the operands, or the file to import.
func (b *beginning) read(args []string) error {
	var first address.Domain
	if len(args) > 0 {
		var err error
		if first, err = parseOwnDomain(args[0]); err != nil {
			return misuse{err}
		}
		args = args[1:]
	}
	if b.from != "" {
		if len(args) > 0 {
			return misuse{errors.New("give either --import or aliases, not both")}
		}
		found, err := importFile(b.from, b.cmd.InOrStdin(), first)
		if err != nil {
			return err
		}
		b.domains, b.lost = found.domains, found.lost
		return nil
	}
	if first == "" {
		return nil
	}
	d := &newDomain{name: first}
	b.domains = []*newDomain{d}
	for _, text := range args {
		if err := d.parse(text); err != nil {
			return misuse{err}
		}
	}
	return nil
}

func parseOwnDomain(text string) (address.Domain, error) {
	d, err := address.ParseDomain(strings.TrimSuffix(text, "."))
	if err != nil || d.IsLiteral() || !strings.Contains(d.String(), ".") {
		return "", fmt.Errorf("%q is no domain; write one such as example.org", text)
	}
	return d, nil
}

// load reads the configuration as it is now.
func (b *beginning) load() (*config.Config, error) {
	cfg, _, problems := read(b.path)
	if n := len(problems.Fatal()); n > 0 {
		problem.Write(os.Stderr, problems.Fatal(), isTerminal(os.Stderr))
		return nil, &failure{fmt.Errorf("%s in the configuration", count(n, "problem"))}
	}
	return cfg, nil
}

// create asks for what is missing and writes a new configuration.
func (b *beginning) create() error {
	a := newAsker(b.cmd, b.yes)
	if len(b.domains) == 0 {
		text, err := a.ask("Your domain", "", "DOMAIN", func(s string) error { _, err := parseOwnDomain(s); return err })
		if err != nil {
			return err
		}
		d, _ := parseOwnDomain(text)
		b.domains = []*newDomain{{name: d}}
	}
	first := b.domains[0]
	hostname, err := a.ask("Name of this server", cmp.Or(b.hostname, "mx."+first.name.String()), "--hostname", func(s string) error { _, err := parseOwnDomain(s); return err })
	if err != nil {
		return err
	}
	if b.from == "" {
		if err := a.aliases(first); err != nil {
			return err
		}
	}
	postmaster, err := a.ask("Who gets mail to postmaster@, and notices", cmp.Or(b.postmaster, mostUsed(b.domains)), "--postmaster", func(s string) error { _, err := address.Parse(s); return err })
	if err != nil {
		return err
	}
	host, _ := parseOwnDomain(hostname)
	if err := b.askAddress(a, host); err != nil {
		return err
	}
	setup := setup{hostname: host, postmaster: postmaster, stateDir: b.stateText(), domains: b.domains}
	if b.lost, err = setup.write(b.path, b.from != "", b.lost); err != nil {
		return err
	}
	b.written = true
	if a.there {
		fmt.Fprintln(a.out)
	}
	return nil
}

// askAddress asks for the public address where this machine does not show one.
func (b *beginning) askAddress(a *asker, host address.Domain) error {
	if len(b.ips) > 0 || !a.there || len(doctor.PublicAddresses()) > 0 {
		return nil
	}
	text, err := a.ask("Public addresses, with commas (empty: those of "+host.String()+" in the DNS)", "", "", func(s string) error {
		if s == "" {
			return nil
		}
		_, err := parseIPs([]string{s})
		return err
	})
	if err != nil || text == "" {
		return err
	}
	b.ips, err = parseIPs([]string{text})
	return err
}

// stateText is what the file says of state_dir; empty where the environment
// decides.
func (b *beginning) stateText() string {
	dir, _ := filepath.Abs(filepath.Dir(b.path))
	switch {
	case b.stateDir != "":
		text, _ := filepath.Abs(b.stateDir)
		return text
	case os.Getenv("STATE_DIRECTORY") != "":
		return ""
	case dir == "/etc/onward":
		return "/var/lib/onward"
	}
	return filepath.Join(dir, "state")
}

// append puts the new domains into the configuration that is there.
func (b *beginning) append() error {
	if len(b.domains) == 0 {
		return misuse{errors.New("--add needs a DOMAIN, or --import")}
	}
	cfg, err := b.load()
	if err != nil {
		return err
	}
	for _, d := range b.domains {
		if i := slices.IndexFunc(cfg.Domains, func(c *config.Domain) bool { return c.Name == d.name }); i >= 0 {
			return fmt.Errorf("%s is at %s already; add its aliases there:\n%s", d.name, cfg.Domains[i].Position, strings.Join(d.aliasLines("      "), "\n"))
		}
		if len(d.aliases) == 0 && b.from == "" {
			d.sameAs = firstWithAliases(cfg)
		}
	}
	if b.lost, err = addDomains(b.path, cfg, b.domains, b.from != "", b.lost); err != nil {
		return err
	}
	b.added = true
	return nil
}

func firstWithAliases(cfg *config.Config) address.Domain {
	for _, d := range cfg.Domains {
		if d.SameAs == "" {
			return d.Name
		}
	}
	return ""
}

// makeKeys makes the SRS secret and the DKIM keys that are missing. A daemon
// that runs has made them itself, and holds the lock.
func makeKeys(cfg *config.Config) (made bool, err error) {
	secret := cmp.Or(cfg.SRS.SecretFile, filepath.Join(cfg.StateDir, "srs-secret"))
	_, secretErr := os.Stat(secret)
	_, keyErr := keyRecords(cfg)
	if secretErr == nil && keyErr == nil {
		return false, nil
	}
	if keyErr != nil && !errors.Is(keyErr, fs.ErrNotExist) {
		return false, keyErr
	}
	lock, err := lockDir(cfg.StateDir)
	if err != nil {
		return false, err
	}
	defer lock.Close()
	if _, err := loadSecrets(cfg, cfg.StateDir, true); err != nil {
		return false, err
	}
	_, err = signers(cfg, cfg.StateDir)
	return true, err
}

// report prints what was done, and the records.
func (b *beginning) report(cfg *config.Config) error {
	dns, _, err := dnsOf(cfg, b.zone)
	if err != nil && b.zone != "" {
		return err
	}
	if err != nil {
		dns = silence{}
	}
	if c, ok := dns.(*resolver.Client); ok {
		defer c.Close()
	}
	ctx, cancel := context.WithTimeout(b.cmd.Context(), initTime)
	defer cancel()
	r := &begun{Config: b.path, Written: b.written, Added: b.added, KeysMade: b.keys, Lost: b.lost, Records: []doctor.Record{}, Reverse: []doctor.Record{}, cfg: cfg, container: os.Getenv("STATE_DIRECTORY") != "" && doctor.InContainer()}
	s := subject(ctx, cfg, dns, b.ips)
	if s.KeysErr != nil {
		return s.KeysErr
	}
	if r.Deaf = !s.Answers(ctx); r.Deaf {
		s.Resolver = resolver.NewZone() // rather than wait for each answer
	}
	wanted, server, err := b.wanted(cfg)
	if err != nil {
		return err
	}
	if server {
		r.Records = append(r.Records, s.ServerRecords(ctx)...)
		r.Reverse = append(r.Reverse, s.ReverseRecords(ctx)...)
	}
	for _, d := range wanted {
		r.Records = append(r.Records, s.DomainRecords(ctx, d)...)
	}
	if b.json {
		return printJSON(b.cmd.OutOrStdout(), r)
	}
	return r.print(b.cmd.OutOrStdout())
}

// silence is the DNS of a machine that knows of no server.
type silence struct{}

// Lookup implements resolver.Resolver.
func (silence) Lookup(_ context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	return nil, &resolver.Error{Name: name, Type: t, Kind: resolver.ErrTemporary}
}

// wanted says whose records are to be printed: those of the domains that were
// named, and with the first domain of the file those of the server.
func (b *beginning) wanted(cfg *config.Config) (domains []address.Domain, server bool, err error) {
	if len(b.domains) == 0 || b.written {
		for _, d := range cfg.Domains {
			domains = append(domains, d.Name)
		}
		return domains, true, nil
	}
	for _, d := range b.domains {
		i := slices.IndexFunc(cfg.Domains, func(c *config.Domain) bool { return c.Name == d.name })
		if i < 0 {
			return nil, false, fmt.Errorf("%s is there and was not changed; it does not have %s, which --add would put into it", b.path, d.name)
		}
		domains, server = append(domains, d.name), server || i == 0
	}
	return domains, server, nil
}

// A newDomain is a domain to be written.
type newDomain struct {
	name    address.Domain
	sameAs  address.Domain
	keepTag bool
	aliases []*newAlias
}

// A newAlias is a line to be written. Exactly one of to, reject and discard is
// set.
type newAlias struct {
	key     string
	to      []string
	reject  string
	discard bool

	from string // where it was found, when it was imported
	line int    // in the file as it is written
}

// parse reads "me=a@gmail.com,b@outlook.com", or "me@example.org=a@gmail.com".
func (d *newDomain) parse(text string) error {
	key, targets, ok := strings.Cut(text, "=")
	if strings.HasPrefix(text, "/") { // a regular expression may have a "=" too
		i := strings.LastIndex(text, "/=")
		ok = i > 0
		if ok {
			key, targets = text[:i+1], text[i+2:]
		}
	}
	key = strings.TrimSpace(key)
	if !ok || key == "" || strings.TrimSpace(targets) == "" {
		return fmt.Errorf("%q: write ALIAS=TARGET, such as me=you@gmail.com", text)
	}
	if local, domain, found := strings.Cut(key, "@"); found && !strings.HasPrefix(key, "/") {
		if own, err := parseOwnDomain(domain); err != nil || own != d.name {
			return fmt.Errorf("%q is not an alias of %s", key, d.name)
		}
		key = cmp.Or(local, "*")
	}
	a := d.alias(key)
	for target := range strings.SplitSeq(targets, ",") {
		target = strings.TrimSpace(target)
		if _, err := address.Parse(target); err != nil && !strings.HasPrefix(key, "/") {
			return fmt.Errorf("%q: %w", text, err)
		}
		if !slices.Contains(a.to, target) {
			a.to = append(a.to, target)
		}
	}
	return nil
}

// alias returns the alias of that key, a new one when there is none.
func (d *newDomain) alias(key string) *newAlias {
	fold := func(s string) string {
		if strings.HasPrefix(s, "/") {
			return s
		}
		return strings.ToLower(s)
	}
	for _, a := range d.aliases {
		if fold(a.key) == fold(key) {
			return a
		}
	}
	a := &newAlias{key: key}
	d.aliases = append(d.aliases, a)
	return a
}

// mostUsed is the target that most aliases have, which is mostly the owner's
// mailbox.
func mostUsed(all []*newDomain) string {
	uses := map[string]int{}
	best := ""
	for _, d := range all {
		for _, a := range d.aliases {
			for _, to := range a.to {
				m, err := address.Parse(to)
				if err != nil || slices.ContainsFunc(all, func(d *newDomain) bool { return d.name == m.Domain }) {
					continue
				}
				if uses[to]++; best == "" || uses[to] > uses[best] {
					best = to
				}
			}
		}
	}
	return best
}
