package testpeer

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// A Tap stands between an SMTP client and a server and keeps what the client
// says, so that a test knows the octets a program sent without asking it. The
// dialogue must be in clear and every DATA in it accepted.
type Tap struct {
	listener net.Listener
	server   string
	conns    sync.WaitGroup

	mu      sync.Mutex
	streams []*bytes.Buffer // one for each connection
}

// StartTap starts a tap in front of server.
func StartTap(t testing.TB, server string) *Tap {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tap := &Tap{listener: listener, server: server}
	tap.conns.Go(tap.accept)
	t.Cleanup(func() {
		listener.Close()
		tap.conns.Wait()
	})
	return tap
}

// Addr returns the address to connect to.
func (tap *Tap) Addr() string { return tap.listener.Addr().String() }

func (tap *Tap) accept() {
	for {
		client, err := tap.listener.Accept()
		if err != nil {
			return
		}
		tap.conns.Go(func() { tap.serve(client.(*net.TCPConn)) })
	}
}

// serve passes octets both ways until both sides have finished.
func (tap *Tap) serve(client *net.TCPConn) {
	defer client.Close()
	conn, err := net.Dial("tcp", tap.server)
	if err != nil {
		return
	}
	server := conn.(*net.TCPConn)
	defer server.Close()
	var said bytes.Buffer
	var up sync.WaitGroup
	up.Go(func() {
		io.Copy(io.MultiWriter(&said, server), client)
		server.CloseWrite()
	})
	io.Copy(client, server)
	client.CloseWrite()
	up.Wait()
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.streams = append(tap.streams, &said)
}

// Messages returns every message of the finished connections as it was before
// its dots were doubled, in no particular order.
func (tap *Tap) Messages() []string {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	var messages []string
	for _, s := range tap.streams {
		messages = append(messages, dataOf(s.String())...)
	}
	return messages
}

// dataOf returns the messages in the client's half of a dialogue.
func dataOf(said string) []string {
	var messages []string
	for {
		_, after, found := strings.Cut(said, "\r\nDATA\r\n")
		if !found {
			return messages
		}
		body, rest, found := strings.Cut("\r\n"+after, "\r\n.\r\n")
		if !found {
			return messages
		}
		messages = append(messages, strings.ReplaceAll(body+"\r\n", "\r\n.", "\r\n")[2:])
		said = "\r\n" + rest
	}
}
