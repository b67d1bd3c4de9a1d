package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// tick is the unit of times in /proc: USER_HZ is 100 on every machine that Go runs on.
const tick = 10 * time.Millisecond

// A process is one program of a system under test, with all it starts.
type process struct {
	cmd   *exec.Cmd
	alive io.Closer // while this is open the program runs
	group string    // the directory of its control group
}

// leash runs between us and a program until our end of its standard input
// closes. That happens in stop, and also when we die without any clean-up. The
// program is in a control group ($0), which whatever it starts cannot leave: what
// it does not end itself ends with it.
const leash = `(echo 0 >"$0/cgroup.procs" && exec "$@") </dev/null & peer=$!
read -r _; echo 0 >"$0/cgroup.freeze"; kill "$peer"; wait "$peer"
echo 1 >"$0/cgroup.kill"; until rmdir "$0" 2>/dev/null; do sleep 0.01; done`

// start starts a program in a new control group within another one. What it
// prints goes to the file log.
func start(within, log string, program ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	group, err := os.MkdirTemp(within, "")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("sh", append([]string{"-c", leash, group}, program...)...)
	cmd.Dir = filepath.Dir(log)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt from the terminal is for us, not for the leash
	cmd.Stdout, cmd.Stderr = out, out
	alive, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(group))
	}
	return &process{cmd, alive, group}, nil
}

// stop ends the program and waits for it.
func (p *process) stop() {
	p.alive.Close()
	timer := time.AfterFunc(time.Minute, func() { os.WriteFile(filepath.Join(p.group, "cgroup.kill"), []byte("1"), 0) })
	p.cmd.Wait()
	timer.Stop()
}

// groups is where the control groups of version 2 are, once we are inside.
const groups = "/sys/fs/cgroup"

// newGroup makes a control group within our own, for all programs, in the hierarchy
// that is mounted there.
func newGroup(groups string) (string, error) {
	if _, err := os.Stat(filepath.Join(groups, "cgroup.procs")); err != nil {
		return "", err
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if own, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return os.MkdirTemp(filepath.Join(groups, own), "onward-bench-")
		}
	}
	return "", errors.New("this kernel has no control groups of version 2")
}

// usage returns what all that ever ran in a control group has used. What parents
// know of their children is not enough: Exim does not wait for those that deliver.
func usage(group string) time.Duration {
	text, _ := os.ReadFile(filepath.Join(group, "cpu.stat"))
	micro, _, _ := strings.Cut(strings.TrimPrefix(string(text), "usage_usec "), "\n")
	n, _ := strconv.Atoi(micro)
	return time.Duration(n) * time.Microsecond
}

// cpu returns what the programs and everything they have ever started have used.
func cpu(roots []*process) (total time.Duration) {
	for _, r := range roots {
		total += usage(r.group)
	}
	return total
}

// busy returns the time of all processors that anything has used, and the part of
// it that was the bench and all systems, which are in the control group.
func busy(group string) (all, own time.Duration) {
	text, _ := os.ReadFile("/proc/stat")
	first, _, _ := strings.Cut(string(text), "\n")
	for i, f := range strings.Fields(first) {
		if n, _ := strconv.Atoi(f); i >= 1 && i <= 8 && i != 4 && i != 5 { // neither idle nor waiting for the disk
			all += time.Duration(n) * tick
		}
	}
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return all, time.Duration(u.Utime.Nano()+u.Stime.Nano()) + usage(group)
}

// freeze stops the programs where they are, or lets them go on.
func freeze(roots []*process, still bool) error {
	state := "0"
	if still {
		state = "1"
	}
	var errs []error
	for _, r := range roots {
		errs = append(errs, os.WriteFile(filepath.Join(r.group, "cgroup.freeze"), []byte(state), 0))
	}
	return errors.Join(errs...)
}

// memory returns what is resident in the programs, in octets. Pages that several
// of them share count once (Pss), which is in favour of those with many processes.
func memory(roots []*process) (total int) {
	for _, r := range roots {
		pids, _ := os.ReadFile(filepath.Join(r.group, "cgroup.procs"))
		for pid := range strings.FieldsSeq(string(pids)) {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%s/smaps_rollup", pid))
			for line := range strings.Lines(string(text)) {
				if value, ok := strings.CutPrefix(line, "Pss:"); ok {
					kib, _ := strconv.Atoi(strings.Fields(value)[0])
					total += kib << 10
				}
			}
		}
	}
	return total
}

// watch measures memory now and then, for at most a fiftieth of the time of one
// processor, until the returned function is called, which returns the largest.
func watch(roots []*process) func() int {
	stop := make(chan struct{})
	peak := memory(roots)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			began := time.Now()
			peak = max(peak, memory(roots))
			select {
			case <-stop:
				return
			case <-time.After(max(100*time.Millisecond, 50*time.Since(began))):
			}
		}
	})
	return func() int {
		close(stop)
		wg.Wait()
		return max(peak, memory(roots))
	}
}
