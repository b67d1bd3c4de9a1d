package main_test

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"onward/internal/testmail"
)

// TestServiceManager holds what a service manager hears of us (sd_notify(3)).
func TestServiceManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	hear := func(want string) { // among signs of life
		t.Helper()
		manager.SetReadDeadline(time.Now().Add(patience))
		for b := make([]byte, 1000); ; {
			n, err := manager.Read(b)
			if got := string(b[:n]); err != nil || got != want && got != "WATCHDOG=1" {
				t.Fatalf("heard %q, %v; want %s", got, err, want)
			} else if got == want {
				return
			}
		}
	}
	s := newStandOf(t, &daemon{env: []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=200000"}}, "", "me: ann@dest.example")
	hear("READY=1")
	hear("WATCHDOG=1")
	send(s.dial(t), "ada@sender.example", "me@alias.example", "250 2.0.0 ")
	s.signal(t, syscall.SIGTERM)
	hear("STOPPING=1")
	if status := s.end(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// TestSocketOfTheManager holds that the daemon answers on the socket that it is
// given, and that who connects while it restarts waits and is served.
func TestSocketOfTheManager(t *testing.T) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	file, err := socket.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d := &daemon{
		under: []string{"sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh"},
		env:   []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=smtp"},
		files: []*os.File{file},
	}
	s := newStandOf(t, d, "", "me: ann@dest.example")
	if s.addr != socket.Addr().String() {
		t.Errorf("listens on %s, want %s", s.addr, socket.Addr())
	}
	for n, end := range []func(testing.TB){s.stop, s.kill} {
		talk := s.dial(t)
		send(talk, "ada@sender.example", "me@alias.example", "250 2.0.0 ")
		talk.Say("QUIT", "221 ")
		s.arrived(t, 2*n+1)
		end(t)
		early := testmail.Dial(t, socket.Addr().String())
		defer early.Close()
		s.start(t)
		early.Expect("220 ")
		early.Say("EHLO mx.sender.example", "250")
		early.Say("MAIL FROM:<bob@sender.example>", "250 ")
		early.Say("RCPT TO:<me@alias.example>", "250 ")
		early.Say("DATA", "354 ")
		early.Say("From: bob@sender.example\r\n\r\nI waited.\r\n.", "250 2.0.0 ")
		early.Say("QUIT", "221 ")
		s.arrived(t, 2*n+2)
	}
}
