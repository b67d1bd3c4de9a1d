package testpeer

import (
	"io"
	"net/netip"
	"testing"

	"onward/internal/address"
	"onward/internal/message"
)

// Envelope is one to show a filter: with a space in the sender, and a recipient that
// is not ASCII.
func Envelope() *message.Envelope {
	return &message.Envelope{
		ID:     "01K0000000000000000000TEST",
		Client: netip.MustParseAddr("192.0.2.1"),
		Helo:   "mail.sender.example",
		From:   address.ReversePath{Mailbox: address.Mailbox{Local: "ada b", Domain: "sender.example"}},
		Recipients: []message.Recipient{
			{Address: address.Mailbox{Local: "me", Domain: "example.org"}},
			{Address: address.Mailbox{Local: "dürer", Domain: "example.org"}},
		},
	}
}

// Message is one of that text, as it is received.
func Message(t testing.TB, text ...string) *message.Message {
	t.Helper()
	b := message.NewBuffer(t.TempDir())
	for _, s := range text {
		if _, err := io.WriteString(b, s); err != nil {
			t.Fatal(err)
		}
	}
	m, err := b.Message()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}
