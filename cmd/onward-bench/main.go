// Onward-bench measures onward beside other ways to forward mail, on loopback
// and with the same messages, and prints one table. It is for Linux and root,
// as Postfix is; `make bench` fetches and builds what it needs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// A bench is everything that the systems under test have in common.
type bench struct {
	ctx        context.Context
	dir        string // for all files, on the disk that is measured
	group      string // the control group of all programs but the bench
	onward     string // the program
	commit     string // of it
	world      *world
	sink       *sink
	scale      float64 // of the numbers of messages; below 1 to try the bench itself
	perSession int
	peers      []peer // that work, onward among them

	letters []*letter // of 10 KB
	large   []*letter // of 25 MiB

	// What came out.
	results     []result
	troubles    []error
	ceiling     string  // of this machine
	others      float64 // processors that other programs used meanwhile
	idle        int     // octets
	syncsPer    [2]float64
	aliasCost   float64 // the part that 100,000 aliases add to a message
	aliasLoad   time.Duration
	aliasMemory int
	inFlight    int // octets for one more large message
	deep        deep
}

func main() {
	onward := flag.String("onward", "", "the `program` to measure")
	scale := flag.Float64("scale", 1, "send so many times the messages")
	perSession := flag.Int("messages", 10, "messages before a client connects anew")
	profile := flag.String("profile", "", "only profile onward under load, and write the profiles to this `directory`")
	only := flag.String("only", "", "measure only this `system`, to try it: onward, postfix, stack, exim or chasquid")
	against := flag.String("against", "", "measure only onward, beside this other `program` of it")
	commit := flag.String("commit", "unknown", "what the program was built from, for the table")
	flag.Parse()
	if err := run(*onward, *scale, *perSession, *profile, *only, *against, *commit); err != nil {
		fmt.Fprintln(os.Stderr, "onward-bench:", err)
		os.Exit(1)
	}
}

func run(program string, scale float64, perSession int, profile, only, against, commit string) error {
	dir := os.Getenv(insideVariable)
	if dir == "" {
		return enter()
	}
	defer os.RemoveAll(dir)
	program, err := filepath.Abs(program)
	if err == nil && against != "" {
		against, err = filepath.Abs(against)
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	group, err := newGroup(groups)
	if err != nil {
		return err
	}
	defer os.Remove(group)
	b := &bench{ctx: ctx, dir: dir, group: group, onward: program, commit: commit, scale: scale, perSession: perSession, peers: peers}
	if b.world, err = newWorld(); err != nil {
		return err
	}
	if b.sink, err = startSink(ctx); err != nil {
		return err
	}
	switch {
	case profile != "":
		return b.profile(profile)
	case only != "":
		return b.try(only)
	case against != "":
		return b.against(os.Stdout, against)
	}
	return b.compare(os.Stdout)
}

// insideVariable names the directory for all files once we are inside.
const insideVariable = "ONWARD_BENCH_DIR"

// inside makes a loopback interface of our own, and our DNS server the only one:
// no program can meet anything of this machine, or keep a port from it. It makes
// sure that the control groups of version 2 are in their place.
const inside = `ip link set lo up && ip address add "$1/32" dev lo && ip address add "$2" dev lo && mount --bind "$3" /etc/resolv.conf &&
{ [ -e "$4/cgroup.procs" ] || mount -t cgroup2 cgroup2 "$4"; } && shift 4 && exec "$@"`

// enter starts this program again, inside. It returns on errors only.
func enter() error {
	if os.Getuid() != 0 {
		return errors.New("only root can start Postfix and give it a DNS of its own")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "onward-bench-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // most peers give up root
		return err
	}
	resolvConf := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolvConf, []byte("nameserver "+dnsIP+"\n"), 0o644); err != nil {
		return err
	}
	args := []string{unshare, "--net", "--mount", "--propagation", "private", "sh", "-c", inside, "sh", dnsIP, clients, resolvConf, groups, self}
	return syscall.Exec(unshare, append(args, os.Args[1:]...), append(os.Environ(), insideVariable+"="+dir))
}
