package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A system is one that is measured, while it runs.
type system struct {
	name  string
	share float64 // of the messages: the slow ones get fewer
	addr  string  // where it takes mail
	dir   string  // its files
	group string  // of its processes
	roots []*process
	flush func() error // tries everything in the queue now
	ready time.Duration
}

// stop ends all programs and removes their files.
func (s *system) stop() {
	s.halt()
	os.RemoveAll(s.dir)
}

// halt ends all programs, the last started first.
func (s *system) halt() {
	for i := len(s.roots) - 1; i >= 0; i-- {
		s.roots[i].stop()
	}
	s.roots = nil
}

// A maker starts a system.
type maker func(b *bench) (*system, error)

// A peer is one way to forward mail.
type peer struct {
	name  string
	make  maker
	share float64 // of the messages: the slow ones get fewer
}

var peers = []peer{
	{"onward", onward(aliases), 1},
	{"postfix", postfix, 1},
	{"stack", stack, 0.3},
	{"exim", exim, 0.3},
	{"chasquid", chasquid, 0.5},
}

// make starts a system in a directory of its own and waits until it takes mail.
func (b *bench) make(name string, fill func(s *system) error) (_ *system, err error) {
	dir, err := os.MkdirTemp(b.dir, name+"-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // most programs give up root
		return nil, err
	}
	s := &system{name: name, dir: dir, group: b.group, addr: fmt.Sprintf("127.0.0.1:%d", freePort())}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w\n%s", name, err, s.logs())
			s.stop()
		}
	}()
	if err := fill(s); err != nil {
		return nil, err
	}
	began := time.Now()
	err = s.await()
	s.ready = time.Since(began)
	return s, err
}

func freePort() int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// await waits for the greeting.
func (s *system) await() error {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			continue
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		line, _ := bufio.NewReader(conn).ReadString('\n')
		conn.Close()
		if strings.HasPrefix(line, "220 ") {
			return nil
		}
	}
	return fmt.Errorf("no greeting within a minute")
}

// logs returns the ends of all logs.
func (s *system) logs() string {
	var b strings.Builder
	paths, _ := filepath.Glob(filepath.Join(s.dir, "*.log"))
	within, _ := filepath.Glob(filepath.Join(s.dir, "*", "*.log"))
	for _, p := range append(paths, within...) {
		text, _ := os.ReadFile(p)
		fmt.Fprintf(&b, "== %s\n%s\n", filepath.Base(p), text[max(0, len(text)-2000):])
	}
	return b.String()
}

func (s *system) path(name string) string { return filepath.Join(s.dir, name) }

// run starts a program of the system.
func (s *system) run(program ...string) error {
	p, err := start(s.group, s.path(filepath.Base(program[0])+".log"), program...)
	if err == nil {
		s.roots = append(s.roots, p)
	}
	return err
}

func (s *system) write(name, text string) error {
	return os.WriteFile(s.path(name), []byte(text), 0o644)
}

// onwardConfig lifts the limits that hold clients and destinations back; what
// else differs from the defaults is needed on loopback.
const onwardConfig = `hostname: %s
postmaster: owner@dest.example
state_dir: %s
listen: [%q]
dns: {resolvers: [%q]}
admin: {listen: "127.0.0.1:%d"}
limits:
  message: 50MiB
  messages: 0
  sessions: 0
  client_sessions: 0
  client_connections_per_minute: 0
  client_messages_per_minute: 0
  client_size_per_minute: 0
  in_flight: 0
queue: {messages: 0}
delivery: {allow_private: true, per_destination: 0, per_mailbox: 0, per_mailbox_per_second: 0}
%s
domains:
  %s:
    aliases:
`

// onward makes the daemon, with so many aliases.
func onward(n int) maker { return onwardUnder(n, "") }

// unsigned makes the daemon, without our signature on what it passes on.
var unsigned = onwardUnder(aliases, "dkim: {sign: false}")

// traced makes the daemon under strace, which writes a line or two for each sync
// into the file syncs, one of them with the path.
var traced = onwardUnder(aliases, "", "strace", "-f", "--seccomp-bpf", "-qq", "-y", "-o", "syncs", "-e", "trace=fsync,fdatasync", "-e", "signal=none")

// onwardUnder makes the daemon, with more in its configuration, and started by
// another program if there is one.
func onwardUnder(n int, more string, wrapper ...string) maker {
	return func(b *bench) (*system, error) {
		return b.make("onward", func(s *system) error {
			program, err := os.ReadFile(b.onward)
			if err == nil {
				err = os.WriteFile(s.path("onward"), program, 0o755) // a copy, so that no other one shares its pages
			}
			if err != nil {
				return err
			}
			admin := freePort()
			var config strings.Builder
			fmt.Fprintf(&config, onwardConfig, ourHost, s.path("state"), s.addr, dnsIP, admin, more, domain)
			for i := range n {
				fmt.Fprintf(&config, "      a%d: u%d@dest.example\n", i, i)
			}
			if err := s.write("onward.yaml", config.String()); err != nil {
				return err
			}
			if err := os.Mkdir(s.path("state"), 0o700); err != nil {
				return err
			}
			s.flush = func() error {
				_, err := output(s.path("onward"), "queue", "retry", "--all", "-c", s.path("onward.yaml"))
				return err
			}
			return s.run(slices.Concat(wrapper, []string{s.path("onward"), "serve", "-c", s.path("onward.yaml")})...)
		})
	}
}

// output runs a program to its end.
func output(program ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program[0], program[1:]...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(program, " "), err, out)
	}
	return strings.TrimSpace(string(out)), err
}
