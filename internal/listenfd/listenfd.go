// Package listenfd speaks with the service manager that started us: it takes
// over sockets that are already open, and tells how we are (sd_listen_fds(3),
// sd_notify(3)).
//
// A socket that the manager holds needs no privilege of ours, and outlives us:
// who connects while we restart waits instead of being turned away.
//
// Without a manager there are no sockets and nobody is told anything.
package listenfd

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Socket is one that the manager opened. Name is FileDescriptorName= of its
// unit, by default the name of the unit.
type Socket struct {
	Name string
	net.Listener
}

// first is the descriptor of the first socket.
const first = 3

// Sockets returns the sockets meant for this process, in the manager's order.
// It may be called once: the descriptors are then spoken for.
func Sockets() ([]Socket, error) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, key := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(key)
	}
	if pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > 100 {
		return nil, fmt.Errorf("LISTEN_FDS is %.20q, which is no number of sockets", count)
	}
	var sockets []Socket
	for i, name := range append(strings.Split(names, ":"), make([]string, n)...)[:n] {
		l, err := take(first + i)
		if err != nil {
			for _, s := range sockets {
				s.Close()
			}
			return nil, fmt.Errorf("socket %d (%.40q) of the service manager: %w; it must be ListenStream= with Accept=no", i+1, name, err)
		}
		sockets = append(sockets, Socket{name, l})
	}
	return sockets, nil
}

// take makes a listener of a descriptor.
func take(fd int) (net.Listener, error) {
	syscall.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), "socket")
	defer file.Close() // the listener has one of its own
	return net.FileListener(file)
}

// Notify tells the manager a new state: "READY=1", "STOPPING=1", "STATUS=...".
func Notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", path) // "@" is an abstract one in both worlds
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}

// Watchdog tells the manager that we are alive, as often as it wants to hear it
// (WatchdogSec=), until ctx ends. While alive reports false it stays silent, and
// the manager starts us again.
func Watchdog(ctx context.Context, alive func() bool) {
	limit, err := strconv.Atoi(os.Getenv("WATCHDOG_USEC"))
	if pid := os.Getenv("WATCHDOG_PID"); err != nil || limit <= 0 || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return
	}
	ticker := time.NewTicker(time.Duration(limit) * time.Microsecond / 2)
	defer ticker.Stop()
	for {
		if alive() {
			Notify("WATCHDOG=1")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
