package main

import (
	"bytes"
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
}

// leash runs between us and a program until our end of its standard input
// closes. That happens in stop, and also when we die without any clean-up.
const leash = `"$@" </dev/null & peer=$!; read -r _; kill "$peer"; wait "$peer"`

// start starts a program. What it prints goes to the file log.
func start(log string, program ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command("sh", append([]string{"-c", leash, "sh"}, program...)...)
	cmd.Dir = filepath.Dir(log)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt from the terminal is for us, not for the leash
	cmd.Stdout, cmd.Stderr = out, out
	alive, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return &process{cmd, alive}, cmd.Start()
}

// stop ends the program and waits for it.
func (p *process) stop() {
	p.alive.Close()
	timer := time.AfterFunc(time.Minute, func() { p.cmd.Process.Kill() })
	p.cmd.Wait()
	timer.Stop()
}

// family returns the ids of the processes below roots: the programs themselves
// and all they have started, without the shells between.
func family(roots []*process) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		if fields := stat(path); fields != nil {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			parent, _ := strconv.Atoi(fields[1])
			children[parent] = append(children[parent], pid)
		}
	}
	var all []int
	var walk func(pid int)
	walk = func(pid int) {
		all = append(all, pid)
		for _, c := range children[pid] {
			walk(c)
		}
	}
	for _, r := range roots {
		for _, c := range children[r.cmd.Process.Pid] {
			walk(c)
		}
	}
	return all
}

// stat returns the fields of /proc/PID/stat from the third, the state, on.
func stat(path string) []string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// cpu returns what the programs and everything they have ever started have
// used. The ends of processes do not lose it: their parents keep it.
func cpu(roots []*process) time.Duration {
	var total time.Duration
	for _, pid := range family(roots) {
		if fields := stat(fmt.Sprintf("/proc/%d/stat", pid)); fields != nil {
			for _, f := range fields[11:15] { // utime, stime, cutime, cstime
				n, _ := strconv.Atoi(f)
				total += time.Duration(n) * tick
			}
		}
	}
	return total
}

// busy returns the time of all processors that anything has used, and the part of
// it that was the bench and all systems that it has stopped.
func busy() (all, own time.Duration) {
	text, _ := os.ReadFile("/proc/stat")
	first, _, _ := strings.Cut(string(text), "\n")
	for i, f := range strings.Fields(first) {
		if n, _ := strconv.Atoi(f); i >= 1 && i <= 8 && i != 4 && i != 5 { // neither idle nor waiting for the disk
			all += time.Duration(n) * tick
		}
	}
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		syscall.Getrusage(who, &u)
		own += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return all, own
}

// memory returns what is resident in the programs, in octets. Pages that several
// of them share count once (Pss), which is in favour of those with many processes.
func memory(roots []*process) (total int) {
	for _, pid := range family(roots) {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, "Pss:"); ok {
				kib, _ := strconv.Atoi(strings.Fields(value)[0])
				total += kib << 10
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
