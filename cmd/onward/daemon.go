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
	"os/signal"
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
	resolver   *resolver.Client
	current    atomic.Pointer[running]
}

// running is everything that one reading of the configuration decides. It is
// never changed; a reload puts another in its place, and a message that is
// under way ends with the one it began with.
type running struct {
	config *config.Config
	policy *inbound.Policy
	route  forward.Route
}

// newDaemon reads the configuration and opens the state. Nothing is listening
// yet, and on an error nothing is left behind.
func newDaemon(ctx context.Context, cfg *config.Config, table *alias.Table, log *slog.Logger) (*daemon, error) {
	d := &daemon{log: log}
	var err error
	if d.selfSigned, err = selfSigned(cfg.Hostname); err != nil {
		return nil, err
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
	return fmt.Errorf("listen %s: %w", addr, err)
}

// run serves until ctx ends, and reloads on SIGHUP and when a file changes.
func (d *daemon) run(ctx context.Context, listeners []net.Listener) error {
	defer d.state.Close()
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
	watching.Go(func() { d.watch(ctx) })
	defer watching.Wait()
	defer cancel()
	for _, l := range listeners {
		d.log.Info("listening", "addr", l.Addr())
	}
	err := server.Serve(ctx, listeners...)
	d.log.Info("stopped")
	return err
}

// watch reloads the configuration when it changes, and on SIGHUP.
func (d *daemon) watch(ctx context.Context) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	cfg := d.current.Load().config
	config.Watch(ctx, cfg.Files[0], cfg, hup, d.reload)
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
	if !slices.Equal(old.Listen, cfg.Listen) || old.StateDir != cfg.StateDir || old.SRS.SecretFile != cfg.SRS.SecretFile {
		d.log.Warn("listen, state_dir and secret_file change at the next start only")
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
	cert, err := d.certificate(cfg)
	if err != nil {
		return nil, err
	}
	if err := d.resolve(cfg); err != nil {
		return nil, err
	}
	byDomain := srsDomains(cfg)
	returns, err := returnpath.New(returnpath.Settings{
		Secrets:    d.state.secrets,
		HashLength: cfg.SRS.HashLength,
		MaxAge:     cfg.SRS.MaxAge,
		Domains:    slices.Collect(maps.Values(byDomain)),
	}, d.state.store)
	if err != nil {
		return nil, err
	}
	r := &running{config: cfg}
	r.policy = &inbound.Policy{
		Hostname: cfg.Hostname,
		Limits:   cfg.Limits,
		TLS:      cert,
		Aliases:  table,
		Returns:  returns,
	}
	r.route = forward.Route{
		Deliverer: d.client(cfg),
		ReturnPath: func(ctx context.Context, from address.ReversePath, recipient address.Domain) (address.ReversePath, error) {
			return returns.Rewrite(ctx, from, byDomain[recipient])
		},
	}
	return r, nil
}

// srsDomains returns the SRS domain for mail to each domain (DESIGN.md 4). The
// empty key stands for the bare postmaster.
func srsDomains(cfg *config.Config) map[address.Domain]address.Domain {
	common := cfg.SRS.Domain
	if common == "" {
		common = cfg.Hostname
	}
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

// resolve makes a resolver when the configuration asks for another than the
// one at work, whose cache is worth keeping.
func (d *daemon) resolve(cfg *config.Config) error {
	old := d.current.Load()
	if old != nil && slices.Equal(old.config.DNS.Resolvers, cfg.DNS.Resolvers) && old.config.DNS.Timeout == cfg.DNS.Timeout {
		return nil
	}
	servers := cfg.DNS.Resolvers
	if len(servers) == 0 {
		var err error
		if servers, err = resolver.SystemServers("/etc/resolv.conf"); err != nil {
			return fmt.Errorf("dns: %w", err)
		}
	}
	d.resolver = resolver.NewClient(servers, cfg.DNS.Timeout)
	return nil
}

// client makes the client that talks to destinations.
func (d *daemon) client(cfg *config.Config) *smtpclient.Client {
	return &smtpclient.Client{
		Resolver:     d.resolver,
		Hostname:     cfg.Hostname.String(),
		Port:         cfg.Delivery.Port,
		IPv6:         cfg.Delivery.IPv6,
		AllowPrivate: cfg.Delivery.AllowPrivate,
		Source:       cfg.Delivery.Source,
		Timeouts:     smtpclient.Timeouts{Answer: forward.AnswerBudget},
		Log:          d.log,
	}
}
