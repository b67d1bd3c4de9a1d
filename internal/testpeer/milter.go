package testpeer

import (
	"net"
	"os/exec"
	"path/filepath"
	"testing"
)

const (
	beforeMilter = `
import sys, Milter

class Filter(Milter.Base):
`
	afterMilter = `
Milter.factory = Filter
Milter.set_flags(Milter.ADDHDRS | Milter.CHGHDRS | Milter.CHGBODY | Milter.ADDRCPT | Milter.DELRCPT | Milter.QUARANTINE | Milter.CHGFROM)
Milter.runmilter('filter', sys.argv[1], 30)
`
)

// StartMilter starts a milter of libmilter itself (python3-milter), whose methods
// are given in Python, and returns where it is: "unix:" and a file.
func StartMilter(t testing.TB, methods string) string {
	t.Helper()
	const python = "/usr/bin/python3"
	if exec.Command(python, "-c", "import Milter").Run() != nil {
		Lack(t, "python3-milter")
	}
	dir := tempDir(t, "milter")
	script, socket := filepath.Join(dir, "filter.py"), filepath.Join(dir, "socket")
	writeFile(t, script, beforeMilter+methods+afterMilter)
	milter := start(t, filepath.Join(dir, "log"), python, script, "unix:"+socket)
	t.Cleanup(func() {
		if err := milter.stop(); err != nil {
			t.Error(err)
		}
	})
	Wait(t, "milter", func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return "unix:" + socket
}
