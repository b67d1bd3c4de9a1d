package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"onward/internal/smtpclient"
	"onward/internal/store"
)

// TestLimitsReachTheirUsers holds that each limit of the configuration that is not of
// the listener is at work where it belongs.
func TestLimitsReachTheirUsers(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "onward.yaml")
	text := `hostname: mx.example.org
postmaster: old@gmail.com
state_dir: ` + dir + `/state
dns: {resolvers: ["127.0.0.1:53"]}
domains: {example.org: {aliases: {me: old@gmail.com}}}
queue: {messages: 7, size: 8MiB}
limits: {authentication_time: 30s, dkim_signatures: 9, delivery_time: 1m, answer_time: 4m, mail_hosts_in_session: 3, mail_hosts: 4, connect_timeout: 20s,
  sender_reports_per_hour: 5, reports_per_hour: 6, report_lifetime: 12h, free_space: 2GiB, free_percent: 3, drain_time: 40s}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, table, problems := read(path)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	d, err := newDaemon(t.Context(), cfg, table, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r := d.current.Load()
	session, queue := r.route.Deliverer.(*smtpclient.Client), r.queueRoute()
	for _, tt := range []struct {
		what      string
		got, want any
	}{
		{"authentication_time", r.policy.Verifier.Time, 30 * time.Second},
		{"dkim_signatures", r.policy.Verifier.Signatures, 9},
		{"delivery_time", r.route.DotBudget, time.Minute},
		{"answer_time", session.Timeouts.Answer, 150 * time.Second}, // what is left of it
		{"mail_hosts_in_session", session.MaxHosts, 3},
		{"mail_hosts", r.queued.MaxHosts, 4},
		{"connect_timeout", r.queued.Timeouts.Connect, 20 * time.Second},
		{"the other times of the queue", r.queued.Timeouts.Answer, 10 * time.Minute},
		{"sender_reports_per_hour", queue.SenderReports, 5},
		{"reports_per_hour", queue.Reports, 6},
		{"report_lifetime", queue.ReportLifetime, 12 * time.Hour},
		{"drain_time", queue.Drain, 40 * time.Second},
		{"drain_time of the listener", r.policy.Limits.DrainTime, 40 * time.Second},
		{"room", storeLimits(cfg), store.Limits{Items: 7, Bytes: 8 << 20, Free: 2 << 30, FreePercent: 3}},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %v, want %v", tt.what, tt.got, tt.want)
		}
	}
}
