package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"onward/forward"
	"onward/inbound"
	"onward/internal/address"
	"onward/internal/alias"
	"onward/internal/config"
	"onward/internal/mailauth"
	"onward/internal/problem"
	"onward/internal/resolver"
	"onward/internal/returnpath"
	"onward/internal/smtpclient"
)

// A daemon is `onward serve` at work.
type daemon struct {
	log        *slog.Logger
	state      *state
	selfSigned tls.Certificate
	lists      inbound.Lists
	current    atomic.Pointer[running]
}

// running is everything that one reading of the configuration decides. It is
// never changed; a reload puts another in its place, and a message that is
// under way ends with the one it began with.
type running struct {
	config   *config.Config
	resolver *resolver.Client
	policy   *inbound.Policy
	route    forward.Route
}

// start listens, opens the state and makes a daemon of a configuration. On an
// error nothing is left behind: senders who came too early hear nothing.
func start(ctx context.Context, cfg *config.Config, table *alias.Table, log *slog.Logger) (*daemon, []net.Listener, error) {
	listeners, err := listen(cfg.Listen)
	if err != nil {
		return nil, nil, err
	}
	d, err := newDaemon(ctx, cfg, table, log)
	if err != nil {
		for _, l := range listeners {
			l.Close()
		}
		return nil, nil, err
	}
	return d, listeners, nil
}

// newDaemon opens the state and builds what the configuration describes.
func newDaemon(ctx context.Context, cfg *config.Config, table *alias.Table, log *slog.Logger) (*daemon, error) {
	d := &daemon{log: log}
	var err error
	if d.selfSigned, err = selfSigned(cfg.Hostname); err != nil {
		return nil, err
	}
	if cfg.TLS.Cert == "" {
		log.Warn("no tls.cert in the configuration: using a self-signed certificate")
	}
	if d.state, err = openState(ctx, cfg); err != nil {
		return nil, err
	}
	next, err := d.prepare(cfg, table)
	if err != nil {
		d.state.Close()
		return nil, err
	}
	d.current.Store(next)
	return d, nil
}

// Close gives up what a daemon holds.
func (d *daemon) Close() error {
	d.current.Load().resolver.Close()
	return d.state.Close()
}

// listen opens every listening address, or none.
func listen(addrs []string) ([]net.Listener, error) {
	var listeners []net.Listener
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
			Route: func() forward.Route { return d.current.Load().route },
			Log:   d.log,
		},
	}
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		cfg := d.current.Load().config
		config.Watch(ctx, cfg.Files[0], cfg, hup, d.reload)
	})
	defer watching.Wait()
	defer cancel()
	for _, l := range listeners {
		d.log.Info("listening", "addr", l.Addr())
	}
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
	if n := len(problems.Fatal()); n > 0 {
		d.log.Error("configuration not reloaded, the old one stays in force", "problems", n)
		return
	}
	next, err := d.prepare(cfg, table)
	if err != nil {
		d.log.Error("configuration not reloaded, the old one stays in force", "err", err)
		return
	}
	old := d.current.Swap(next).config
	if !slices.Equal(old.Listen, cfg.Listen) || old.StateDir != cfg.StateDir {
		d.log.Warn("listen and state_dir change at the next start only")
	}
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
	cert, err := certificate(cfg, d.selfSigned)
	if err != nil {
		return nil, err
	}
	secrets, err := loadSecrets(cfg, d.state.dir, false)
	if err != nil {
		return nil, err
	}
	returns, err := returnPaths(cfg, secrets, d.state.store)
	if err != nil {
		return nil, err
	}
	dns, err := d.resolve(cfg)
	if err != nil {
		return nil, err
	}
	byDomain := srsDomains(cfg)
	r := &running{config: cfg, resolver: dns}
	r.policy = &inbound.Policy{
		Hostname: cfg.Hostname,
		Limits:   withinDescriptors(cfg.Limits, d.log),
		TLS:      cert,
		Aliases:  table,
		Returns:  returns,
		Verifier: &mailauth.Verifier{Resolver: dns, Hostname: cfg.Hostname, Loopback: cfg.Delivery.AllowPrivate},
		Judge:    inbound.NewJudge(cfg, &d.lists),
	}
	r.route = forward.Route{
		Deliverer: d.client(cfg, dns),
		ReturnPath: func(ctx context.Context, from address.ReversePath, recipient address.Domain) (address.ReversePath, error) {
			return returns.Rewrite(ctx, from, byDomain[recipient])
		},
	}
	return r, nil
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
	if old != nil && slices.Equal(old.config.DNS.Resolvers, cfg.DNS.Resolvers) && old.config.DNS.Timeout == cfg.DNS.Timeout {
		return old.resolver, nil
	}
	return newResolver(cfg)
}

// newResolver makes a resolver of the servers that are configured, or else
// those of the system.
func newResolver(cfg *config.Config) (*resolver.Client, error) {
	servers := cfg.DNS.Resolvers
	if len(servers) == 0 {
		var err error
		if servers, err = resolver.SystemServers("/etc/resolv.conf"); err != nil {
			return nil, fmt.Errorf("dns: %w", err)
		}
	}
	return resolver.NewClient(servers, cfg.DNS.Timeout), nil
}

// withinDescriptors lowers the limit on sessions to what the process may open:
// a session needs up to four descriptors (RELIABILITY 72).
func withinDescriptors(limits config.Limits, log *slog.Logger) config.Limits {
	var files syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files) != nil || files.Cur > 1<<30 {
		return limits
	}
	if most := max(1, int(files.Cur/4)); limits.Sessions == 0 || limits.Sessions > most {
		log.Warn("limits.sessions lowered to a quarter of the open files this process may have (ulimit -n)", "sessions", most)
		limits.Sessions = most
	}
	return limits
}

// client makes the client that talks to destinations.
func (d *daemon) client(cfg *config.Config, dns resolver.Resolver) *smtpclient.Client {
	return &smtpclient.Client{
		Resolver:     dns,
		Hostname:     cfg.Hostname.String(),
		Port:         cfg.Delivery.Port,
		IPv6:         cfg.Delivery.IPv6,
		AllowPrivate: cfg.Delivery.AllowPrivate,
		Source:       cfg.Delivery.Source,
		Timeouts:     smtpclient.Timeouts{Answer: forward.AnswerBudget},
		Log:          d.log,
	}
}
