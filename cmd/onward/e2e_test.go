package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"onward/internal/testmail"
)

// patience is how long anything may take that a test waits for.
const patience = 30 * time.Second

// program is the real onward, built once for all tests here.
var program string

func TestMain(m *testing.M) {
	os.Setenv("GORACE", "atexit_sleep_ms=0") // else every command that is built with -race ends a second later
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "onward-program-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "onward")
		build := exec.Command("go", append(buildFlags(), "-o", program, ".")...)
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v: %v\n%s", build.Args, err, out)
			return 1
		}
		return m.Run()
	}())
}

// buildFlags makes `go test -race` find races in the daemon too: they end it
// with another exit status than 0.
func buildFlags() []string {
	flags := []string{"build"}
	info, _ := debug.ReadBuildInfo()
	if info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		flags = append(flags, "-race")
	}
	return flags
}

// onward runs a command to its end and returns its output and exit status,
// which is -1 when it had to be stopped because it did not end.
func onward(t testing.TB, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, err bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = &out, &err
	if e := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(e)
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

// A daemon is `onward serve` in a process of its own, and its directory, which
// holds onward.yaml and, unless the configuration says otherwise, state.
type daemon struct {
	dir  string
	addr string // where it listens
	log  *logLines
	cmd  *exec.Cmd // nil when it does not run

	under []string   // a command that runs the program with its arguments, such as one that sets limits
	env   []string   // beside the environment of the tests
	files []*os.File // it finds open, from descriptor 3 on
}

// serve starts a daemon with a configuration and stops it with the test, which
// fails unless it ends well.
func serve(t testing.TB, config string) *daemon {
	t.Helper()
	d := &daemon{}
	d.serve(t, config)
	return d
}

func (d *daemon) serve(t testing.TB, config string) {
	t.Helper()
	d.dir = t.TempDir()
	d.configure(t, config)
	d.start(t)
	t.Cleanup(func() {
		if d.cmd != nil {
			d.stop(t)
		}
		if t.Failed() {
			t.Logf("log of onward:\n%s", d.log)
		}
	})
}

// config is the file of the configuration.
func (d *daemon) config() string { return filepath.Join(d.dir, "onward.yaml") }

// configure writes the configuration. DIR in it stands for the daemon's
// directory. The file is replaced in one step, as editors and sed -i do it.
func (d *daemon) configure(t testing.TB, text string) {
	t.Helper()
	next := d.config() + ".next"
	if err := os.WriteFile(next, []byte(strings.ReplaceAll(text, "DIR", d.dir)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, d.config()); err != nil {
		t.Fatal(err)
	}
}

// start starts the daemon and returns when it listens.
func (d *daemon) start(t testing.TB) {
	t.Helper()
	d.log = newLogLines()
	line := append(slices.Clone(d.under), program, "serve", "--log", "text", "-c", d.config())
	d.cmd = exec.Command(line[0], line[1:]...)
	d.cmd.Stderr, d.cmd.Env, d.cmd.ExtraFiles = d.log, append(os.Environ(), d.env...), d.files
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.addr = d.log.wait(t, 0, `msg=listening addr=(\S+)`)[1]
}

// end waits for the process and returns its exit status, -1 after a signal.
func (d *daemon) end(t testing.TB) int {
	t.Helper()
	timer := time.AfterFunc(patience, func() { d.cmd.Process.Kill() })
	err := d.cmd.Wait()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Error(err)
	}
	if !timer.Stop() {
		t.Errorf("onward did not end within %v", patience)
	}
	status := d.cmd.ProcessState.ExitCode()
	d.cmd = nil
	return status
}

// stop asks the daemon to end, and the test fails unless it ends well.
func (d *daemon) stop(t testing.TB) {
	t.Helper()
	d.signal(t, syscall.SIGTERM)
	if status := d.end(t); status != 0 {
		t.Errorf("onward ended with %d after SIGTERM, want 0", status)
	}
}

// kill ends the daemon as a crash does.
func (d *daemon) kill(t testing.TB) {
	t.Helper()
	d.signal(t, syscall.SIGKILL)
	d.end(t)
}

func (d *daemon) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// logLines is a log that can be waited for.
type logLines struct {
	mu      sync.Mutex
	text    []byte
	written chan struct{} // closed at the next Write
}

func newLogLines() *logLines { return &logLines{written: make(chan struct{})} }

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	close(l.written)
	l.written = make(chan struct{})
	return len(p), nil
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// mark is the place in the log that the next line will have.
func (l *logLines) mark() int { return len(l.String()) }

// wait waits for a line after mark that matches, and returns the match and its
// groups.
func (l *logLines) wait(t testing.TB, mark int, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(patience)
	for {
		l.mu.Lock()
		text, written := string(l.text), l.written
		l.mu.Unlock()
		if match := re.FindStringSubmatch(text[mark:]); match != nil && strings.HasSuffix(text, "\n") {
			return match
		}
		select {
		case <-written:
		case <-timeout:
			t.Fatalf("waited %v for %q in the log:\n%s", patience, pattern, text)
		}
	}
}

// dial connects to the daemon and says EHLO.
func (d *daemon) dial(t testing.TB) *testmail.Talk {
	t.Helper()
	talk := testmail.Dial(t, d.addr)
	t.Cleanup(talk.Close)
	talk.Expect("220 ")
	talk.Say("EHLO mx.sender.example", "250")
	return talk
}
