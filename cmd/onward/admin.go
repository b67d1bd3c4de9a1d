package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"onward/internal/alias"
	"onward/internal/config"
	"onward/internal/doctor"
	"onward/internal/status"
)

// serveStatus shows the daemon over HTTP until ctx ends. That it cannot is said in
// the log, and no reason to stop mail.
func (d *daemon) serveStatus(ctx context.Context) {
	admin := d.current.Load().config.Admin
	if admin.Listen == "off" {
		return
	}
	err := func() error {
		token, err := adminToken(admin)
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", admin.Listen)
		if err != nil {
			return listenError(admin.Listen, err)
		}
		return d.page(admin, token).Serve(ctx, l)
	}()
	if err != nil {
		d.log.Error("no status page", "err", err)
	}
}

// page is what the status page is made of.
func (d *daemon) page(admin config.Admin, token string) *status.Page {
	return &status.Page{
		Version:      version(),
		StateDir:     d.state.dir,
		Store:        d.state.store,
		Journal:      d.state.journal,
		Destinations: d.state.destinations.Snapshot,
		Config:       func() *config.Config { return d.current.Load().config },
		Aliases:      func() *alias.Table { return d.current.Load().policy.Aliases },
		Metrics:      d.metrics,
		Log:          d.log,
		Ready:        d.state.store.Healthy,
		Expires:      d.certificateEnds,
		Troubles:     d.troubles,
		Examine:      d.examine,
		Token:        token,
		Hosts:        admin.Hosts,
	}
}

// adminToken reads the token, each start anew; there is none without a file.
func adminToken(admin config.Admin) (string, error) {
	if admin.TokenFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(admin.TokenFile)
	if err != nil {
		return "", fmt.Errorf("admin.token_file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if len(token) < status.MinToken {
		return "", fmt.Errorf("admin.token_file %s: the token has %d characters, and needs at least %d", admin.TokenFile, len(token), status.MinToken)
	}
	return token, nil
}

// certificateEnds is when the certificate of others' making ends.
func (d *daemon) certificateEnds() time.Time {
	s := d.keeper.Load().Status(time.Now())
	if s.SelfSigned || s.Leaf == nil {
		return time.Time{}
	}
	return s.Leaf.NotAfter
}

// troubles are what is wrong with the daemon itself, a sentence each.
func (d *daemon) troubles() []string {
	var list []string
	if text := d.broken.Load(); text != nil {
		list = append(list, *text)
	}
	cert := d.keeper.Load().Status(time.Now())
	if err := errors.Join(cert.Mismatch, cert.Trouble); err != nil {
		list = append(list, "Certificate: "+err.Error()+".")
	}
	return list
}

// examine does what `onward doctor` does.
func (d *daemon) examine(ctx context.Context) []status.Check {
	now := d.current.Load()
	var checks []status.Check
	for _, c := range doctor.Examine(ctx, subject(ctx, now.config, now.resolver, nil)) {
		checks = append(checks, status.Check{Name: c.Name, State: status.State(c.State), Sentence: c.Sentence, Mend: c.Mend})
	}
	return checks
}
