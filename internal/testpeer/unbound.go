package testpeer

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
)

// StartUnbound starts unbound as a DNS server on a port of 127.0.0.1 that
// knows the records, each a line of a zone file ("a.example. 60 IN A
// 127.0.0.2"), and nothing else: it answers NXDOMAIN and never asks anybody.
func StartUnbound(t testing.TB, records ...string) netip.AddrPort {
	t.Helper()
	dir := tempDir(t, "unbound")
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(FreePort(t, "127.0.0.1")))
	config := filepath.Join(dir, "unbound.conf")
	writeFile(t, config, unboundConf(dir, addr, records))
	unbound := start(t, filepath.Join(dir, "log"), "unbound", "-d", "-c", config)
	t.Cleanup(func() {
		if err := unbound.stop(); err != nil {
			t.Error(err)
		}
	})
	// Its UDP socket is there before the TCP one.
	Wait(t, "unbound", func() bool { return listens(addr.String()) })
	return addr
}

func unboundConf(dir string, addr netip.AddrPort, records []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `server:
  interface: %s@%d
  directory: %q
  pidfile: ""
  chroot: ""
  username: ""
  use-syslog: no
  module-config: "iterator"
  local-zone: "." static
`, addr.Addr(), addr.Port(), dir)
	for _, r := range records {
		fmt.Fprintf(&b, "  local-data: '%s'\n", r)
	}
	return b.String()
}
