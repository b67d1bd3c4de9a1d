package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"onward/forward"
	"onward/inbound"
	"onward/internal/address"
	"onward/internal/alias"
	"onward/internal/certificate"
	"onward/internal/config"
	"onward/internal/dialguard"
	"onward/internal/dnsbl"
	"onward/internal/journal"
	"onward/internal/listenfd"
	"onward/internal/loop"
	"onward/internal/mailauth"
	"onward/internal/message"
	"onward/internal/milter"
	"onward/internal/problem"
	"onward/internal/proxyproto"
	"onward/internal/queue"
	"onward/internal/ratelimit"
	"onward/internal/replyaddr"
	"onward/internal/resolver"
	"onward/internal/returnpath"
	"onward/internal/rspamd"
	"onward/internal/signing"
	"onward/internal/smtpclient"
	"onward/internal/status"
	"onward/internal/tlspolicy"
	"onward/internal/webclient"
)

// A daemon is `onward serve` at work.
type daemon struct {
	log       *slog.Logger
	state     *state
	queue     *queue.Queue
	metrics   *status.Metrics
	listening []netip.AddrPort // our listeners
	keeper    atomic.Pointer[certificate.Keeper]
	lists     *ratelimit.Limiter
	uses      replyaddr.Uses
	broken    atomic.Pointer[string] // why the configuration on disk is not in force; nil when it is
	current   atomic.Pointer[running]
}

// running is everything that one reading of the configuration decides. It is
// never changed; a reload puts another in its place, and a message that is
// under way ends with the one it began with.
type running struct {
	config   *config.Config
	resolver *resolver.Client
	policy   *inbound.Policy
	route    forward.Route
	queued   *smtpclient.Client                            // what the queue delivers with
	signer   func(address.Domain) (*signing.Signer, error) // nil: nothing is signed
}

// start listens, opens the state and makes a daemon of a configuration. On an
// error nothing is left behind: senders who came too early hear nothing.
func start(ctx context.Context, cfg *config.Config, table *alias.Table, log *slog.Logger) (*daemon, []net.Listener, error) {
	listeners, err := listen(cfg.Listen)
	if err != nil {
		return nil, nil, err
	}
	d, err := newDaemon(ctx, cfg, table, listeners, log)
	if err != nil {
		for _, l := range listeners {
			l.Close()
		}
		return nil, nil, err
	}
	return d, listeners, nil
}

// newDaemon opens the state and builds what the configuration describes.
func newDaemon(ctx context.Context, cfg *config.Config, table *alias.Table, listeners []net.Listener, log *slog.Logger) (*daemon, error) {
	d := &daemon{log: log, lists: inbound.NewLists(), metrics: status.NewMetrics(smtpclient.Operator)}
	for _, l := range listeners {
		if tcp, ok := l.Addr().(*net.TCPAddr); ok {
			d.listening = append(d.listening, tcp.AddrPort())
		}
	}
	var err error
	limits := func() journal.Limits { // asked by the journal's own goroutine
		kept := cfg.Journal
		if now := d.current.Load(); now != nil {
			kept = now.config.Journal
		}
		return journal.Limits{Keep: kept.Keep, Size: kept.Size}
	}
	if d.state, err = openState(ctx, cfg, limits, log); err != nil {
		return nil, err
	}
	keeper, err := openCertificate(cfg, log)
	if err != nil {
		d.state.Close()
		return nil, err
	}
	d.keeper.Store(keeper)
	next, err := d.prepare(cfg, table)
	if err != nil {
		keeper.Close()
		d.state.Close()
		return nil, err
	}
	d.current.Store(next)
	debug.FreeOSMemory() // reading a large configuration leaves 80 MB behind, for 100,000 aliases
	d.queue = queue.New(queue.Config{
		Store:  d.state.store,
		Size:   cfg.Queue.Size,
		Owner:  "onward", // the lock on the state directory keeps others away
		Route:  func() queue.Route { return d.current.Load().queueRoute() },
		Record: d.recordFate,
		Log:    log,
	})
	return d, nil
}

// Close gives up what a daemon holds.
func (d *daemon) Close() error {
	d.keeper.Load().Close()
	d.current.Load().resolver.Close()
	return d.state.Close()
}

// notify tells the service manager how we are, when there is one.
func (d *daemon) notify(state string) {
	if err := listenfd.Notify(state); err != nil {
		d.log.Warn("the service manager cannot be told", "state", state, "err", err)
	}
}

// listen takes the sockets of the service manager, or else opens every listening
// address, or none.
func listen(addrs []string) ([]net.Listener, error) {
	var listeners []net.Listener
	given, err := listenfd.Sockets()
	if err != nil {
		return nil, err
	}
	for _, socket := range given {
		listeners = append(listeners, socket.Listener)
	}
	if len(given) > 0 {
		return listeners, nil
	}
	for _, addr := range addrs {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return nil, listenError(addr, err)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// listenError says what to do about the two usual reasons.
func listenError(addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen %s: the port is in use; stop the other mail server (ss -ltnp shows it) or change listen", addr)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen %s: not allowed; ports below 1024 need root or CAP_NET_BIND_SERVICE (setcap cap_net_bind_service=+ep onward)", addr)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	return fmt.Errorf("listen %s: %w", addr, err)
}

// run serves until ctx ends, and reloads when a file changes or hup receives.
func (d *daemon) run(ctx context.Context, listeners []net.Listener, hup <-chan os.Signal) error {
	defer d.Close()
	server := &inbound.Server{
		Policy:  func() *inbound.Policy { return d.current.Load().policy },
		TempDir: d.state.tempDir(),
		Log:     d.log,
		Acceptor: &forward.Forwarder{
			Route:   func() forward.Route { return d.current.Load().route },
			Queue:   d.queue,
			Replies: d.state.store,
			Record:  d.recordAttempt,
			Log:     d.log,
		},
		Record: d.record,
	}
	ctx, cancel := context.WithCancel(ctx)
	var working sync.WaitGroup
	working.Go(func() {
		cfg := d.current.Load().config
		config.Watch(ctx, cfg.Files[0], cfg, hup, d.reload)
	})
	working.Go(func() { d.queue.Run(ctx) })
	working.Go(func() { d.state.tlsReports.Run(ctx, d.tlsReports) })
	working.Go(func() { d.serveStatus(ctx) })
	working.Go(func() { listenfd.Watchdog(ctx, func() bool { return true }) })
	defer working.Wait()
	defer cancel()
	for i, l := range listeners {
		d.log.Info("listening", "addr", l.Addr())
		listeners[i] = proxyproto.Listen(l, d.proxies, d.log)
	}
	d.notify("READY=1")
	context.AfterFunc(ctx, func() { d.notify("STOPPING=1") })
	err := server.Serve(ctx, listeners...)
	d.log.Info("stopped")
	return err
}

// reload puts a configuration that was read again into force, or keeps the old
// one and says why (RELIABILITY 82).
func (d *daemon) reload(cfg *config.Config, problems problem.List) {
	table, problems := withAliases(cfg, problems)
	for _, p := range problems {
		logProblem(d.log, p)
	}
	d.broken.Store(nil)
	if n := len(problems.Fatal()); n > 0 {
		text := fmt.Sprintf("The configuration has %d mistakes and is not in force; the one before is. The first: %v", n, problems.Fatal()[0])
		d.broken.Store(&text)
		d.log.Error("configuration not reloaded, the old one stays in force", "problems", n)
		return
	}
	next, err := d.prepare(cfg, table)
	if err != nil {
		text := fmt.Sprintf("The configuration is not in force; the one before is: %v", err)
		d.broken.Store(&text)
		d.log.Error("configuration not reloaded, the old one stays in force", "err", err)
		return
	}
	old := d.current.Swap(next).config
	if !slices.Equal(old.Listen, cfg.Listen) || old.StateDir != cfg.StateDir || storeLimits(old) != storeLimits(cfg) {
		d.log.Warn("listen, state_dir and how much the queue may hold change at the next start only")
	}
	debug.FreeOSMemory()
	d.log.Info("configuration reloaded", "domains", len(cfg.Domains))
}

func logProblem(log *slog.Logger, p problem.Problem) {
	level := slog.LevelError
	if p.Warning {
		level = slog.LevelWarn
	}
	log.Log(context.Background(), level, "configuration", "at", p.Position.String(), "err", p.Text, "line", strings.TrimSpace(p.Source))
}

// prepare builds what a configuration describes.
func (d *daemon) prepare(cfg *config.Config, table *alias.Table) (*running, error) {
	secrets, err := loadSecrets(cfg, d.state.dir, false)
	if err != nil {
		return nil, err
	}
	returns, err := returnPaths(cfg, secrets, d.state.store)
	if err != nil {
		return nil, err
	}
	signer, err := signers(cfg, d.state.dir)
	if err != nil {
		return nil, err
	}
	dns, err := d.resolve(cfg)
	if err != nil {
		return nil, err
	}
	relay, err := relay(cfg)
	if err != nil {
		return nil, err
	}
	blocklists, err := lists(cfg, dns, d.log)
	if err != nil {
		return nil, err
	}
	filters, err := filters(cfg, d.log)
	if err != nil {
		return nil, err
	}
	if err := d.keepCertificate(cfg); err != nil {
		return nil, err
	}
	domains := srsDomains(cfg)
	book := replyaddr.New(slices.Collect(maps.Values(domains)), d.state.store, &d.uses)
	r := &running{config: cfg, resolver: dns, signer: signer}
	session := d.client(cfg, dns, relay)
	limits := cfg.Limits
	session.MaxHosts = limits.MailHostsInSession
	session.Timeouts = smtpclient.Timeouts{Answer: limits.AnswerTime - limits.AuthenticationTime - limits.DeliveryTime}
	r.queued = d.client(cfg, dns, relay)
	r.queued.Timeouts, r.queued.MaxHosts, r.queued.SlotWait = smtpclient.QueueTimeouts, limits.MailHosts, time.Second
	r.queued.Timeouts.Connect = limits.ConnectTimeout
	r.policy = &inbound.Policy{
		Hostname:    cfg.Hostname,
		Limits:      withinDescriptors(limits, d.log),
		TLS:         d.keeper.Load().TLS(),
		Aliases:     table,
		Returns:     returns,
		Replies:     book,
		Marker:      loop.Marker{Secrets: secrets},
		Verifier:    verifier(cfg, dns),
		Judge:       inbound.NewJudge(cfg, d.lists),
		Lists:       blocklists,
		Filters:     filters,
		AutoReplies: cfg.SRS.AutoReplies,
		Breaks:      message.Breaks(cfg.Policy.Breaks),
	}
	r.route = forward.Route{
		Hostname:  cfg.Hostname,
		Deliverer: session,
		ReturnPath: func(ctx context.Context, from address.ReversePath, recipient address.Domain) (address.ReversePath, error) {
			return returns.Rewrite(ctx, from, domains[recipient])
		},
		Conceal: func(ctx context.Context, from address.ReversePath, recipient address.Domain) (address.ReversePath, error) {
			return returns.Conceal(ctx, from, domains[recipient])
		},
		ReplyAddress: book.For,
		Domain:       func(recipient address.Domain) address.Domain { return domains[recipient] },
		Signer:       signer,
		Seal:         seals(cfg),
		Marker:       loop.Marker{Secrets: secrets},
		HideTargets:  cfg.Delivery.HideTargets,
		RewriteAll:   cfg.Delivery.RelayFrom == "rewrite",
		QueueFirst:   cfg.Delivery.Mode == "queue",
		DotBudget:    limits.DeliveryTime,
		Lifetime:     cfg.Queue.Lifetime,
	}
	return r, nil
}

// verifier finds out who messages are from, by a configuration.
func verifier(cfg *config.Config, dns resolver.Resolver) *mailauth.Verifier {
	return &mailauth.Verifier{
		Resolver:   dns,
		Hostname:   cfg.Hostname,
		Loopback:   cfg.Delivery.AllowPrivate,
		Time:       cfg.Limits.AuthenticationTime,
		Signatures: cfg.Limits.DKIMSignatures,
	}
}

// queueRoute is how mail leaves the queue. Reports of ours are signed as what we
// forward is (N1).
func (r *running) queueRoute() queue.Route {
	route := queue.Route{
		Deliverer:      r.queued,
		Hostname:       r.config.Hostname,
		Postmaster:     r.config.Postmaster,
		Sign:           func(*message.Message) ([]byte, error) { return nil, nil },
		PerDestination: r.config.Delivery.PerDestination,
		Home:           r.home,
		SenderReports:  r.config.Limits.SenderReportsPerHour,
		Reports:        r.config.Limits.ReportsPerHour,
		ReportLifetime: r.config.Limits.ReportLifetime,
		Drain:          r.config.Limits.DrainTime,
	}
	if r.signer != nil {
		route.Sign = func(msg *message.Message) ([]byte, error) {
			signer, err := r.signer(r.config.Hostname)
			if err != nil {
				return nil, err
			}
			return signer.Sign(msg)
		}
	}
	return route
}

// home is where mail of ours to an address goes: to a return path of ours, as with
// what comes in, to whom it stands for. Where that is nobody any more there are no
// targets.
func (r *running) home(to address.Mailbox) []address.Mailbox {
	if r.policy.Returns.Is(to) {
		sender, err := r.policy.Returns.Restore(context.Background(), to) // asks the store at most
		if err != nil {
			return nil
		}
		to = sender
	}
	if !r.policy.Aliases.Owns(to.Domain) {
		return []address.Mailbox{to}
	}
	match, _ := r.policy.Aliases.Lookup(to, time.Now()) // of nobody there are no targets
	return match.Targets
}

// signers returns who signs for each SRS domain, with all keys made and read, or
// nil when nothing is to be signed.
func signers(cfg *config.Config, stateDir string) (func(address.Domain) (*signing.Signer, error), error) {
	if !cfg.DKIM.Sign {
		return nil, nil
	}
	keys, err := openKeys(cfg, stateDir, true)
	if err != nil {
		return nil, err
	}
	for _, domain := range append(slices.Collect(maps.Values(srsDomains(cfg))), cfg.Hostname) {
		if _, err := keys.Signer(domain); err != nil {
			return nil, err
		}
	}
	return keys.Signer, nil
}

// seals returns which targets want an ARC set. They are known by the domain of
// the address; what is signed by nobody is not sealed.
func seals(cfg *config.Config) func(address.Domain) bool {
	return func(target address.Domain) bool {
		return cfg.ARC.Seal || slices.Contains(cfg.ARC.SealFor, target.String())
	}
}

// returnPaths builds what writes and reads our return paths.
func returnPaths(cfg *config.Config, secrets []string, store returnpath.Store) (*returnpath.Rewriter, error) {
	return returnpath.New(returnpath.Settings{
		Secrets:    secrets,
		HashLength: cfg.SRS.HashLength,
		MaxAge:     cfg.SRS.MaxAge,
		Domains:    slices.Collect(maps.Values(srsDomains(cfg))),
	}, store)
}

// srsDomains returns the SRS domain for mail to each domain (DESIGN.md 4). The
// empty key stands for the bare postmaster.
func srsDomains(cfg *config.Config) map[address.Domain]address.Domain {
	common := cfg.SRS.Domain
	domains := map[address.Domain]address.Domain{"": common, common: common, cfg.Hostname: common}
	for _, domain := range cfg.Domains {
		srs := domain.SRSDomain
		if srs == "" {
			srs = common
		}
		domains[domain.Name] = srs
		if domains[srs] == "" {
			domains[srs] = srs
		}
	}
	return domains
}

// resolve returns a resolver as configured: the one at work, whose cache is
// worth keeping, unless another is asked for. One that is replaced serves the
// messages that are under way, and holds nothing that must be closed.
func (d *daemon) resolve(cfg *config.Config) (*resolver.Client, error) {
	old := d.current.Load()
	if old != nil && slices.Equal(old.config.DNS.Resolvers, cfg.DNS.Resolvers) && old.config.DNS.Timeout == cfg.DNS.Timeout && old.config.DNS.TrustAD == cfg.DNS.TrustAD {
		return old.resolver, nil
	}
	return newResolver(cfg)
}

// dnsServers are the servers that are configured, or else those of the system.
func dnsServers(cfg *config.Config) ([]netip.AddrPort, error) {
	if len(cfg.DNS.Resolvers) > 0 {
		return cfg.DNS.Resolvers, nil
	}
	servers, err := resolver.SystemServers("/etc/resolv.conf")
	if err != nil {
		return nil, fmt.Errorf("dns: %w", err)
	}
	return servers, nil
}

// newResolver makes a resolver that asks dnsServers.
func newResolver(cfg *config.Config) (*resolver.Client, error) {
	servers, err := dnsServers(cfg)
	if err != nil {
		return nil, err
	}
	client := resolver.NewClient(servers, cfg.DNS.Timeout)
	client.TrustAD = cfg.DNS.TrustAD
	return client, nil
}

// lists are the DNS lists to ask about clients, or nil without any.
func lists(cfg *config.Config, dns resolver.Resolver, log *slog.Logger) (*dnsbl.Checker, error) {
	c := &dnsbl.Checker{Resolver: dns, Timeout: 5 * time.Second, Log: log}
	for _, kind := range []struct {
		key   string
		texts []string
		list  *[]dnsbl.List
	}{{"policy.dnsbl", cfg.Policy.DNSBL, &c.Block}, {"policy.dnswl", cfg.Policy.DNSWL, &c.Welcome}} {
		for _, text := range kind.texts {
			list, err := dnsbl.ParseList(text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", kind.key, err)
			}
			*kind.list = append(*kind.list, list)
		}
	}
	if len(c.Block) == 0 {
		return nil, nil
	}
	return c, nil
}

// filters are those to ask about each message.
func filters(cfg *config.Config, log *slog.Logger) ([]inbound.Filter, error) {
	var all []inbound.Filter
	if cfg.Policy.Rspamd != "" {
		client, err := rspamd.New(cfg.Policy.Rspamd, cfg.Hostname, log)
		if err != nil {
			return nil, fmt.Errorf("policy.rspamd: %w", err)
		}
		all = append(all, client)
	}
	for _, at := range cfg.Policy.Milters {
		all = append(all, milter.New(at, cfg.Hostname, log))
	}
	return all, nil
}

// web makes the client that fetches policies and posts reports.
func web(cfg *config.Config, dns resolver.Resolver) *webclient.Client {
	return &webclient.Client{Resolver: dns, Guard: dialguard.Guard{AllowPrivate: cfg.Delivery.AllowPrivate}}
}

// proxies are the networks whose connections tell who the client is.
func (d *daemon) proxies() []netip.Prefix {
	var networks []netip.Prefix
	for _, text := range d.current.Load().config.Policy.ProxyProtocolFrom {
		if network, err := netip.ParsePrefix(text); err == nil { // config has checked them
			networks = append(networks, network)
		}
	}
	return networks
}

// withinDescriptors lowers the limit on sessions to what the process may open:
// a session needs up to four descriptors, and everything else about thirty
// (RELIABILITY 72).
func withinDescriptors(limits config.Limits, log *slog.Logger) config.Limits {
	var files syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files) != nil || files.Cur > 1<<30 {
		return limits
	}
	if most := max(1, (int(files.Cur)-32)/4); limits.Sessions == 0 || limits.Sessions > most {
		log.Warn("limits.sessions lowered to what the open files suffice for that this process may have (ulimit -n)", "sessions", most)
		limits.Sessions = most
	}
	return limits
}

// client makes a client that talks to destinations. All share what is known
// about them.
func (d *daemon) client(cfg *config.Config, dns resolver.Resolver, relay *smtpclient.Relay) *smtpclient.Client {
	return &smtpclient.Client{
		Resolver:     dns,
		Hostname:     cfg.Hostname.String(),
		Port:         cfg.Delivery.Port,
		IPv6:         cfg.Delivery.IPv6,
		AllowPrivate: cfg.Delivery.AllowPrivate,
		Source:       cfg.Delivery.Source,
		Relay:        relay,
		TLS:          &tlspolicy.Finder{Resolver: dns, Policies: d.state.policies, Web: web(cfg, dns), Port: cfg.Delivery.Port, Report: d.noteTLS},
		Destinations: d.state.destinations,
		Listening:    d.listening,
		Limits: smtpclient.Limits{
			PerDestination:      cfg.Delivery.PerDestination,
			PerMailbox:          cfg.Delivery.PerMailbox,
			PerMailboxPerSecond: cfg.Delivery.PerMailboxPerSecond,
		},
		Log: d.log,
	}
}

// relay returns the relay host of a configuration, or nil without one.
func relay(cfg *config.Config) (*smtpclient.Relay, error) {
	if cfg.Delivery.Relay == "" {
		return nil, nil
	}
	r, err := smtpclient.ParseRelay(cfg.Delivery.Relay)
	if err != nil {
		return nil, fmt.Errorf("delivery.relay: %w", err)
	}
	if r.User == "" {
		return &r, nil
	}
	r.Password = func() (string, error) { return relayPassword(cfg) }
	if _, err := r.Password(); err != nil {
		return nil, err
	}
	return &r, nil
}

// relayPassword reads the password each time it is needed, so that a new one is
// taken up without a restart.
func relayPassword(cfg *config.Config) (string, error) {
	if file := cfg.Delivery.RelayPasswordFile; file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("delivery.relay_password_file: %w", err)
		}
		return strings.TrimRight(string(text), "\r\n"), nil
	}
	if password := os.Getenv("ONWARD_RELAY_PASSWORD"); password != "" {
		return password, nil
	}
	return "", errors.New("delivery.relay has a user but no password; name a file in delivery.relay_password_file, or set ONWARD_RELAY_PASSWORD")
}
