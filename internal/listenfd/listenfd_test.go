package listenfd

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestMain is also the child: it takes its sockets, tells their names, and
// answers one connection on each with the name.
func TestMain(m *testing.M) {
	if os.Getenv("LISTENFD_CHILD") == "" {
		os.Exit(m.Run())
	}
	sockets, err := Sockets()
	fmt.Println(len(sockets), err, os.Getenv("LISTEN_FDS"))
	for _, s := range sockets {
		if c, err := s.Accept(); err == nil {
			fmt.Fprint(c, s.Name)
			c.Close()
		}
	}
	again, err := Sockets()
	fmt.Println(len(again), err)
}

// child runs the child with files as its descriptors from 3 on. pid is a shell
// word: $$ is the child's own.
func child(t *testing.T, pid, count, names string, files ...*os.File) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sh", "-c", `LISTEN_PID=`+pid+` exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), "LISTENFD_CHILD=1", "LISTEN_FDS="+count)
	if names != "" {
		cmd.Env = append(cmd.Env, "LISTEN_FDNAMES="+names)
	}
	cmd.ExtraFiles = files
	return cmd
}

// socket opens a socket and returns it as the manager would hold it.
func socket(t *testing.T) (*os.File, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, l.Addr().String()
}

func TestSockets(t *testing.T) {
	for _, tt := range []struct {
		name, names string
		want        [2]string
	}{
		{"with names", "smtp:acme", [2]string{"smtp", "acme"}},
		{"one name", "smtp", [2]string{"smtp", ""}},
		{"without names", "", [2]string{"", ""}},
		{"too many names", "a:b:c", [2]string{"a", "b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			one, addr1 := socket(t)
			two, addr2 := socket(t)
			cmd := child(t, "$$", "2", tt.names, one, two)
			out := &strings.Builder{}
			cmd.Stdout = out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for i, addr := range []string{addr1, addr2} {
				c, err := net.Dial("tcp", addr) // waits in the queue until the child is there
				if err != nil {
					t.Fatal(err)
				}
				c.SetDeadline(time.Now().Add(20 * time.Second))
				if name, err := io.ReadAll(c); string(name) != tt.want[i] || err != nil {
					t.Errorf("socket %d answers %q, %v; want %q", i, name, err, tt.want[i])
				}
				c.Close()
			}
			if err := cmd.Wait(); err != nil || out.String() != "2 <nil> \n0 <nil>\n" {
				t.Errorf("%v, %q", err, out)
			}
		})
	}
}

func TestNoSockets(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	good, _ := socket(t)
	for _, tt := range []struct {
		name, pid, count, want string
		files                  []*os.File
	}{
		{"for another process", "1", "1", "0 <nil>", []*os.File{good}},
		{"for nobody", "''", "1", "0 <nil>", []*os.File{good}},
		{"none", "$$", "0", "0 <nil>", nil},
		{"no number", "$$", "x", "no number of sockets", nil},
		{"negative", "$$", "-1", "no number of sockets", nil},
		{"far too many", "$$", "1000000000", "no number of sockets", nil},
		{"a file", "$$", "1", "ListenStream=", []*os.File{file}},
		{"one is a file", "$$", "2", "ListenStream=", []*os.File{good, file}},
		{"not there", "$$", "1", "ListenStream=", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := child(t, tt.pid, tt.count, "", tt.files...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), tt.want) {
				t.Errorf("%v, %s; want %q", err, out, tt.want)
			}
		})
	}
}

// manager is a socket for what we tell; it is set for the test.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Setenv("NOTIFY_SOCKET", name)
	return c
}

func heard(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestNotify(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), fmt.Sprintf("@onward-test-%d", os.Getpid())} {
		c := manager(t, name)
		if err := Notify("READY=1"); err != nil {
			t.Error(err)
		}
		if got := heard(t, c); got != "READY=1" {
			t.Errorf("heard %q", got)
		}
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	if err := Notify("READY=1"); err == nil {
		t.Error("nobody heard it")
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify("READY=1"); err != nil {
		t.Error(err)
	}
}

func TestWatchdog(t *testing.T) {
	c := manager(t, filepath.Join(t.TempDir(), "notify"))
	Watchdog(t.Context(), nil) // nobody wants to hear it
	t.Setenv("WATCHDOG_USEC", "200000")
	t.Setenv("WATCHDOG_PID", "1")
	Watchdog(t.Context(), nil) // nor from us
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	var alive atomic.Bool
	alive.Store(true)
	done := make(chan struct{})
	began := time.Now()
	go func() { Watchdog(ctx, alive.Load); close(done) }()
	for range 3 {
		if got := heard(t, c); got != "WATCHDOG=1" {
			t.Errorf("heard %q", got)
		}
	}
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("three signs in %v", took)
	}
	alive.Store(false)
	time.Sleep(150 * time.Millisecond) // one may be under way
	c.SetDeadline(time.Now().Add(300 * time.Millisecond))
	for n := 0; ; n++ {
		if _, err := c.Read(make([]byte, 100)); err != nil {
			break
		} else if n > 1 {
			t.Fatal("it is dead and goes on telling")
		}
	}
	cancel()
	<-done
}
