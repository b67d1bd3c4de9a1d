package smtpclient_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"onward/internal/resolver"
	"onward/internal/smtpclient"
	"onward/internal/testmail"
)

// TestRefusalOfOurMaking: that one host does not exist, or cannot take the
// message, is final only when every other one was asked. One that is paused, or
// that there was no time left for, may take it another day.
func TestRefusalOfOurMaking(t *testing.T) {
	t.Run("the next is paused", func(t *testing.T) {
		w := newWorld(t)
		w.share(t, nil)
		w.set(t, "example.org", mx, "10 gone.test.", "20 mail.test.")
		w.sink.Answer("MAIL", "421 4.7.28 unusual rate from your IP address")
		want(t, w.Deliver(t.Context(), to("ann@example.org", short)), smtpclient.Deferred, "451 4.7.28", "MAIL")
		out := w.Deliver(t.Context(), to("joe@example.org", short))
		want(t, out, smtpclient.Deferred, "451 4.7.0", "wait")
		if !out.Limited || out.NotBefore.IsZero() {
			t.Errorf("%+v", out)
		}
	})
	t.Run("no slot", func(t *testing.T) {
		w := newWorld(t)
		w.share(t, nil)
		w.Limits.PerDestination = 1
		w.set(t, "example.org", mx, "10 gone.test.", "20 mail.test.")
		w.sink.Do("RCPT TO:<slow@", testmail.Action{Hang: true})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Deliver(ctx, to("slow@example.org", short)) }()
		for !slices.Contains(w.sink.Commands(), "RCPT TO:<slow@example.org>") {
			time.Sleep(time.Millisecond)
		}
		w.SlotWait = 10 * time.Millisecond
		want(t, w.Deliver(t.Context(), to("joe@example.org", short)), smtpclient.Deferred, "451 4.4.5", "wait")
		cancel()
		<-done
	})
	t.Run("no time", func(t *testing.T) {
		w := newWorld(t)
		w.set(t, "example.org", mx, "10 gone.test.", "20 mail.test.")
		ctx, cancel := context.WithCancel(t.Context())
		w.Resolver = endsAt{w.zone, "gone.test", cancel}
		out := w.Deliver(ctx, to("joe@example.org", short))
		if out.Result != smtpclient.Deferred {
			t.Errorf("%v: %v", out.Result, out.Reply)
		}
	})
}

// endsAt ends the time for everything once a name has been looked up.
type endsAt struct {
	resolver.Resolver
	name string
	end  func()
}

func (e endsAt) Lookup(ctx context.Context, name string, t resolver.Type) (*resolver.Answer, error) {
	a, err := e.Resolver.Lookup(ctx, name, t)
	if name == e.name && t == resolver.TypeAAAA {
		e.end()
	}
	return a, err
}
