package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"onward/internal/resolver"
	"onward/internal/store"
	"onward/internal/testmail"
)

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "See the whole journey of a message on this machine",
		Long: `Run the real daemon on loopback, between a sender, a DNS server and a mailbox
that are built in, and tell what happens to a few messages. Nothing needs to be
installed or configured, and nothing leaves this machine. The exit status is 0
only when everything went as told.`,
		Example: "  onward demo",
		Args:    noOperands,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd.Context(), cmd.OutOrStdout())
		}),
	}
}

// demoConfig is the configuration of the demo: only the last block differs from
// what a person would write, as the mailbox is on loopback and not on port 25.
const demoConfig = `hostname: mx.example.org
postmaster: ada@mailbox.example
listen: ["127.0.0.1:0"]
domains:
  example.org:
    aliases:
      me: ada@mailbox.example
      press: {reject: "closed until spring, write to me@example.org"}

dns: {resolvers: ["%s"]}
delivery: {port: %d, allow_private: true}
`

// demoZone is the DNS of the demo.
//
//go:embed demo.zone
var demoZone string

// A stage is where the stories of the demo are played: the daemon with its own
// configuration and state, the DNS server, and the mailbox.
type stage struct {
	config  string // path of onward.yaml
	address string // where onward listens
	mailbox *testmail.Sink
	zone    *resolver.Zone
	daemon  *daemon
	log     bytes.Buffer
	close   []func()
}

// runDemo plays every story and prints what happened.
func runDemo(ctx context.Context, w io.Writer) error {
	s, err := newStage(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	p := &playbill{w: w, colour: isTerminal(w)}
	p.title("onward demo", "the real daemon between a sender and a mailbox, all on this machine")
	for i, story := range stories {
		p.story(i+1, story.title)
		if err := play(s, p, story.play); err != nil {
			p.failed(err)
			s.Close() // the log is whole now
			fmt.Fprintf(w, "\nWhat the daemon logged:\n%s", s.log.String())
			return &failure{fmt.Errorf("story %d did not go as told", i+1)}
		}
	}
	p.ending(len(stories))
	return nil
}

// newStage starts everything. On an error nothing keeps running.
func newStage(ctx context.Context) (_ *stage, err error) {
	s := &stage{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	dir, err := os.MkdirTemp("", "onward-demo-")
	if err != nil {
		return nil, err
	}
	s.onClose(func() { os.RemoveAll(dir) })
	if s.zone, err = resolver.ParseZone("demo.zone", strings.NewReader(demoZone)); err != nil {
		return nil, err
	}
	dns, err := testmail.StartDNS(s.zone, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.onClose(dns.Close)
	if s.mailbox, err = testmail.StartSink("127.0.0.1:0"); err != nil {
		return nil, err
	}
	s.onClose(s.mailbox.Close)
	s.config = filepath.Join(dir, "onward.yaml")
	text := fmt.Sprintf(demoConfig, dns.Addr(), s.mailbox.Addr().Port())
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return s, s.startDaemon(ctx, filepath.Join(dir, "state"))
}

// startDaemon runs what `onward serve` runs, with its log kept for the case
// that something goes wrong.
func (s *stage) startDaemon(ctx context.Context, stateDir string) error {
	cfg, table, problems := read(s.config)
	if len(problems.Fatal()) > 0 {
		return problems
	}
	cfg.StateDir = stateDir
	d, listeners, err := start(ctx, cfg, table, slog.New(slog.NewTextHandler(&s.log, nil)))
	if err != nil {
		return err
	}
	s.daemon, s.address = d, listeners[0].Addr().String()
	signer, err := d.current.Load().signer("mx.example.org")
	if err != nil {
		return err
	}
	for _, record := range signer.Records() {
		if err := s.zone.Set(record.Name, resolver.TypeTXT, record.Value); err != nil {
			return err
		}
	}
	ctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- d.run(ctx, listeners, nil) }()
	s.onClose(func() { stop(); <-done })
	return nil
}

// onClose adds what Close does first.
func (s *stage) onClose(f func()) { s.close = append([]func(){f}, s.close...) }

// Close stops everything in the reverse order of starting. Twice does no harm.
func (s *stage) Close() {
	for _, f := range s.close {
		f()
	}
	s.close = nil
}

// edit changes the configuration file as an editor would, by replacing it.
func (s *stage) edit(old, new string) error {
	text, err := os.ReadFile(s.config)
	if err != nil {
		return err
	}
	changed := strings.Replace(string(text), old, new, 1)
	if err := os.WriteFile(s.config+".new", []byte(changed), 0o600); err != nil {
		return err
	}
	return os.Rename(s.config+".new", s.config)
}

// next waits for the mailbox to hold n messages and returns the last.
func (s *stage) next(n int) (testmail.Delivery, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	all, err := s.mailbox.Wait(ctx, n)
	if err != nil {
		return testmail.Delivery{}, fmt.Errorf("the mailbox has %d messages, not %d", s.mailbox.Count(), n)
	}
	return all[n-1], nil
}

// retry does what `onward queue retry --all` does.
func (s *stage) retry() error {
	ctx := context.Background()
	items, err := s.daemon.state.store.Items(ctx, store.Filter{State: store.Waiting})
	for _, item := range items {
		if e := s.daemon.state.store.Retry(ctx, item.ID, time.Now()); !errors.Is(e, store.ErrBusy) && !errors.Is(e, store.ErrNotFound) { // it is being tried, or has been
			err = errors.Join(err, e)
		}
	}
	return err
}

// play runs one story. What does not go as told ends it with an error.
func play(s *stage, p *playbill, story func(*stage, *playbill)) (err error) {
	defer func() {
		if r := recover(); r != nil {
			broken, ok := r.(plotHole)
			if !ok {
				panic(r)
			}
			err = broken
		}
	}()
	story(s, p)
	return nil
}

// A plotHole ends a story that does not go as told.
type plotHole string

func (h plotHole) Error() string { return string(h) }
