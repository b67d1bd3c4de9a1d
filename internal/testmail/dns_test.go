package testmail_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"onward/internal/resolver"
	"onward/internal/testmail"
)

// startDNS serves one name, and returns with the server a resolver that is not
// ours to ask it with.
func startDNS(t *testing.T) (*testmail.DNS, *net.Resolver) {
	t.Helper()
	zone := resolver.NewZone()
	if err := zone.Set("example.org", resolver.TypeMX, "10 mx.example.org."); err != nil {
		t.Fatal(err)
	}
	if err := zone.Fail("broken.example.org", resolver.TypeMX, "SERVFAIL"); err != nil {
		t.Fatal(err)
	}
	d, err := testmail.StartDNS(zone, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return d, &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, d.Addr().String())
	}}
}

// A stranger's resolver understands the server, over both protocols.
func TestDNS(t *testing.T) {
	d, r := startDNS(t)
	defer d.Close()
	for _, truncate := range []bool{false, true} {
		d.SetFaults(testmail.Faults{Truncate: truncate})
		mx, err := r.LookupMX(t.Context(), "example.org.")
		if err != nil || len(mx) != 1 || mx[0].Host != "mx.example.org." || mx[0].Pref != 10 {
			t.Errorf("truncate %v: got %v, %v", truncate, mx, err)
		}
	}
	if got := d.Queries("Example.ORG.", resolver.TypeMX); got != 3 {
		t.Errorf("%d questions, want 3", got)
	}
	if all, overTCP := d.Total(); all != 3 || overTCP != 1 {
		t.Errorf("%d questions, %d over TCP; want 3, 1", all, overTCP)
	}
	for name, notFound := range map[string]bool{"missing.example.org.": true, "broken.example.org.": false} {
		_, err := r.LookupMX(t.Context(), name)
		if e, ok := errors.AsType[*net.DNSError](err); !ok || e.IsNotFound != notFound {
			t.Errorf("%s: got %v, want not found: %v", name, err, notFound)
		}
	}
}

// Close does not wait for a delayed answer.
func TestDNSClose(t *testing.T) {
	d, _ := startDNS(t)
	d.SetFaults(testmail.Faults{Delay: time.Hour})
	c := resolver.NewClient([]netip.AddrPort{d.Addr()}, time.Hour)
	asked := make(chan error)
	go func() {
		_, err := c.Lookup(t.Context(), "example.org.", resolver.TypeMX)
		asked <- err
	}()
	for d.Queries("example.org", resolver.TypeMX) == 0 {
		time.Sleep(time.Millisecond)
	}
	d.Close()
	c.Close()
	if err := <-asked; !errors.Is(err, resolver.ErrTemporary) {
		t.Errorf("got %v, want temporary trouble", err)
	}
}

func TestDNSPortInUse(t *testing.T) {
	d, _ := startDNS(t)
	defer d.Close()
	if second, err := testmail.StartDNS(resolver.NewZone(), d.Addr().String()); err == nil {
		second.Close()
		t.Error("two servers on one port")
	}
}
