package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"onward/internal/testpeer"
)

func TestQuantile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(100-i)) // 100 to 1
	}
	for _, tt := range []struct {
		times []time.Duration
		q     float64
		want  time.Duration
	}{
		{nil, 0.5, 0},
		{hundred[:1], 0.99, 100},
		{hundred[:2], 0.5, 99},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred[:10], 0.99, 100},
	} {
		if got := quantile(tt.times, tt.q); got != tt.want {
			t.Errorf("%v of %d times: %d, want %d", tt.q, len(tt.times), got, tt.want)
		}
	}
}

// TestSyncs: what strace writes of a call that another thread interrupts has two
// lines, and is one sync.
func TestSyncs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "syncs")
	const trace = `101 fsync(9</s/onward.db-wal>) = 0
102 fsync(9</s/onward.db-wal> <unfinished ...>
103 fsync(7</s/journal.db>) = 0
102 <... fsync resumed>) = 0
103 fdatasync(8</s/onward.db>) = 0
`
	if err := os.WriteFile(path, []byte(trace), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, log := syncsOf(path, anyFile), syncsOf(path, queueLog); all != 4 || log != 2 {
		t.Errorf("%d syncs, want 4; of the log %d, want 2", all, log)
	}
}

// TestProcess: what a program starts and does not wait for is counted, and ends
// with it.
func TestProcess(t *testing.T) {
	if os.Geteuid() != 0 {
		testpeer.Lack(t, "root, to mount control groups")
	}
	groups := t.TempDir()
	if err := syscall.Mount("cgroup2", groups, "cgroup2", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(groups, 0) })
	group, err := newGroup(groups)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(group) })
	const program = `setsid sleep 1000 & trap '' CHLD; (i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done) & exec sleep 1000`
	p, err := start(group, filepath.Join(t.TempDir(), "log"), "sh", "-c", program)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	roots := []*process{p}
	for end := time.Now().Add(time.Minute); cpu(roots) < 20*time.Millisecond || memory(roots) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%v of CPU and %d octets of memory after a minute", cpu(roots), memory(roots))
		}
	}
	p.stop()
	if _, err := os.Stat(p.group); !os.IsNotExist(err) {
		t.Errorf("its control group is there still, or: %v", err)
	}
}

// TestClientConnectsAnew: a server may close the connection between two
// messages, and nothing is lost by it.
func TestClientConnectsAnew(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "220 a\r\n250 b\r\n250 c\r\n250 d\r\n354 e\r\n250 f\r\n") // the client waits for each answer, but not for more
			r := bufio.NewReader(conn)
			for line := ""; err == nil && line != ".\r\n"; line, err = r.ReadString('\n') {
			}
			conn.Close()
		}
	}()
	l := &letter{header: []byte("A: b\r\n"), body: []byte("\r\n")}
	c := &client{addr: listener.Addr().String(), ip: net.IPv4(127, 0, 0, 1).To16()}
	defer c.drop()
	for i := range 3 {
		if a := c.send(l); a.code != 250 {
			t.Errorf("message %d: %d %s", i, a.code, a.text)
		}
	}
}
