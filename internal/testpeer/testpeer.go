// Package testpeer runs real mail and DNS software beside a test: Postfix as
// sender and destination, unbound as the resolver, rspamd and a milter as filters,
// smtp-sink as a destination in a bad mood, swaks and smtp-source as clients.
// Imported by tests only.
//
// Rules for the caller:
//   - Call Need first. Without the programs the test skips and names them; with
//     ONWARD_REQUIRE_PEERS=1 it fails, so that a run that claims to have met its
//     peers has met them.
//   - Every peer has a directory of its own under the temporary directory,
//     listens on loopback only, asks no DNS but what the test gave it, and ends
//     with the test. Nothing of the machine's own mail set-up is read or touched.
//   - A failed test prints the peer's log and keeps its directory.
package testpeer

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is how long a peer may take for anything a test waits for.
const patience = 30 * time.Second

// Need skips the test unless every program is here; "postfix" must also be run
// as root. With ONWARD_REQUIRE_PEERS=1 the test fails instead.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	var missing []string
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		} else if name == "postfix" && os.Geteuid() != 0 {
			missing = append(missing, "root, to start postfix")
		}
	}
	if missing != nil {
		Lack(t, strings.Join(missing, ", "))
	}
}

// Lack ends a test that cannot do without what is not here, as Need does.
func Lack(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("ONWARD_REQUIRE_PEERS") == "1" {
		t.Fatal("needs " + what)
	}
	t.Skip("needs " + what)
}

// Run runs a program to its end, with input on its standard input, and returns
// what it printed (both streams) and its exit status, which is -1 when it had
// to be stopped because it did not end.
func Run(t testing.TB, input, program string, args ...string) (output string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// FreePort returns a port nobody listens on at any of the addresses, over TCP
// or UDP. It is free when FreePort looks; take it soon.
func FreePort(t testing.TB, addresses ...string) int {
	t.Helper()
	for range 100 {
		first, err := net.Listen("tcp", net.JoinHostPort(addresses[0], "0"))
		if err != nil {
			t.Fatal(err)
		}
		port := first.Addr().(*net.TCPAddr).Port
		first.Close()
		if free(port, addresses) {
			return port
		}
	}
	t.Fatalf("no port is free at all of %v", addresses)
	return 0
}

func free(port int, addresses []string) bool {
	for _, a := range addresses {
		hostport := net.JoinHostPort(a, strconv.Itoa(port))
		tcp, err := net.Listen("tcp", hostport)
		if err != nil {
			return false
		}
		tcp.Close()
		udp, err := net.ListenPacket("udp", hostport)
		if err != nil {
			return false
		}
		udp.Close()
	}
	return true
}

// Wait polls until done reports true, and fails the test with what it waited
// for when that does not come. For things that give no event: another
// program's files and queues.
func Wait(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// tempDir makes a directory that other users may enter, as Postfix gives up
// root for most of its work. It goes away with the test unless that failed.
func tempDir(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "onward-"+name+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s: files kept in %s", name, dir)
			return
		}
		os.RemoveAll(dir)
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A process is a peer that runs until stop.
type process struct {
	cmd   *exec.Cmd
	alive io.Closer // while this is open the peer runs
}

// leash is the shell script between us and a peer: it ends the peer, by its
// pid, when our end of its standard input closes. That happens in stop, and
// also when the test process dies without any clean-up.
const leash = `"$@" </dev/null & peer=$!; read -r _; kill "$peer"; wait "$peer"`

// start starts a peer, with both its streams going to the file log.
func start(t testing.TB, log string, program string, args ...string) *process {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("sh", append([]string{"-c", leash, "sh", program}, args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	alive, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &process{cmd, alive}
}

// stop ends the peer and waits for it. Its exit status means nothing here.
func (p *process) stop() error {
	p.alive.Close()
	timer := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
	p.cmd.Wait()
	if !timer.Stop() {
		return fmt.Errorf("%v does not end", p.cmd.Args)
	}
	return nil
}
