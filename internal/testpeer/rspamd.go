package testpeer

import (
	"fmt"
	"path/filepath"
	"testing"
)

// StartRspamd starts an rspamd that scans messages on a port of 127.0.0.1, with
// the given Lua as its only rules, and returns its URL. It asks no DNS.
func StartRspamd(t testing.TB, rules string) string {
	t.Helper()
	return "http://" + startRspamd(t, rules, `worker "normal" { bind_socket = "%s"; count = 1; }`)
}

// StartRspamdMilter starts the same as a milter, and returns its host and port.
func StartRspamdMilter(t testing.TB, rules string) string {
	t.Helper()
	return startRspamd(t, rules, `worker "rspamd_proxy" {
  bind_socket = "%s";
  count = 1;
  milter = yes;
  upstream "local" { default = yes; self_scan = yes; }
}`)
}

// startRspamd starts an rspamd with one worker, and returns where that listens.
func startRspamd(t testing.TB, rules, worker string) string {
	t.Helper()
	dir := tempDir(t, "rspamd")
	addr := fmt.Sprintf("127.0.0.1:%d", FreePort(t, "127.0.0.1"))
	config := filepath.Join(dir, "rspamd.conf")
	writeFile(t, filepath.Join(dir, "rules.lua"), rules)
	writeFile(t, filepath.Join(dir, "suffixes"), "example\n") // the real list takes minutes to compile
	writeFile(t, config, fmt.Sprintf(`options {
  pidfile = false;
  tempdir = "%[1]s";
  url_tld = "%[1]s/suffixes";
  disable_hyperscan = true;
  dns { nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 1; }
}
logging { type = "console"; level = "info"; }
actions { reject = 15; add_header = 6; greylist = 4; }
lua = "%[1]s/rules.lua";
%[2]s
`, dir, fmt.Sprintf(worker, addr)))
	rspamd := start(t, filepath.Join(dir, "log"), "rspamd", "-i", "-f", "-c", config, "--var", "DBDIR="+dir)
	t.Cleanup(func() {
		if err := rspamd.stop(); err != nil {
			t.Error(err)
		}
	})
	Wait(t, "rspamd", func() bool { return listens(addr) })
	return addr
}
