package testpeer

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A Zone is what StartValidator knows of the DNS below one name.
type Zone struct {
	Name    string   // "example."
	Records []string // lines of a zone file, with absolute names; SOA and NS are added
	Signed  bool     // with DNSSEC, and the validator has its key

	// Forge changes the signed zone file, which makes bogus what it touches.
	Forge func(file string) string
}

// StartValidator starts unbound as a DNS server on a port of 127.0.0.1 that
// checks DNSSEC, knows the zones, which "ldns-signzone" signs, and asks nobody
// else: what is in no zone does not exist. Names in "test." are answered by
// unbound itself.
func StartValidator(t testing.TB, zones ...Zone) netip.AddrPort {
	t.Helper()
	dir := tempDir(t, "validator")
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(FreePort(t, "127.0.0.1")))
	var conf strings.Builder
	fmt.Fprintf(&conf, `server:
  interface: %s@%d
  directory: %q
  pidfile: ""
  chroot: ""
  username: ""
  use-syslog: no
  module-config: "validator iterator"
  val-log-level: 2
  root-hints: ""
`, addr.Addr(), addr.Port(), dir)
	var auth strings.Builder
	for i, zone := range append(zones, Zone{Name: "."}) {
		file := filepath.Join(dir, fmt.Sprintf("%d.zone", i))
		writeFile(t, file, zone.file())
		if zone.Signed {
			fmt.Fprintf(&conf, "  trust-anchor-file: %q\n", zone.sign(t, dir, file))
			file += ".signed"
		}
		fmt.Fprintf(&auth, "auth-zone:\n  name: %q\n  zonefile: %q\n  for-upstream: yes\n  for-downstream: no\n  fallback-enabled: no\n", zone.Name, file)
	}
	config := filepath.Join(dir, "unbound.conf")
	writeFile(t, config, conf.String()+auth.String())
	unbound := start(t, filepath.Join(dir, "log"), "unbound", "-d", "-c", config)
	t.Cleanup(func() {
		if err := unbound.stop(); err != nil {
			t.Error(err)
		}
	})
	Wait(t, "unbound", func() bool { return listens(addr.String()) })
	return addr
}

// file returns the zone file, not yet signed. It names nobody who could be
// asked in place of it.
func (z Zone) file() string {
	lines := append([]string{z.Name + " 60 IN SOA . . 1 3600 600 86400 60", z.Name + " 60 IN NS ."}, z.Records...)
	return strings.Join(lines, "\n") + "\n"
}

// sign writes file.signed, and returns the file with the key to trust.
func (z Zone) sign(t testing.TB, dir, file string) (anchor string) {
	t.Helper()
	base, status := Run(t, "", "sh", "-c", `cd "$1" && ldns-keygen -a ECDSAP256SHA256 -k "$2"`, "sh", dir, z.Name)
	key := filepath.Join(dir, strings.TrimSpace(base))
	if status != 0 {
		t.Fatalf("ldns-keygen: %s", base)
	}
	if out, status := Run(t, "", "ldns-signzone", "-o", z.Name, file, key); status != 0 {
		t.Fatalf("ldns-signzone: %s", out)
	}
	if z.Forge != nil {
		signed, err := os.ReadFile(file + ".signed")
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, file+".signed", z.Forge(string(signed)))
	}
	return key + ".ds"
}
