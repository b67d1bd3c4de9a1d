package main_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"onward/internal/testpeer"
)

// An engine is a Docker engine of the test's own: its socket, its images and
// its containers stand in one directory and go with it. It has no network, so
// nothing can be pulled, and the machine's own engine, if there is one, is
// neither asked nor touched.
type engine struct {
	dir           string
	env           []string
	dockerCompose []string // the command: docker compose, or the older docker-compose
}

// leash ends the engine, by its pid, when our end of its standard input
// closes: at the end of the test, or when the test process dies before that.
const leash = `"$@" </dev/null & engine=$!; read -r _; kill "$engine"; wait "$engine"`

// startEngine starts an engine and waits until it answers.
func startEngine(t *testing.T) *engine {
	dir, err := os.MkdirTemp("", "onward-engine-") // a short name: a socket's path has at most 107 octets
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{dir: dir, env: append(os.Environ(), "DOCKER_HOST=unix://"+dir+"/docker.sock")}
	e.writeFile(t, "engine.json", "{}") // instead of the machine's settings
	cmd := exec.Command("sh", "-c", leash, "sh", "dockerd",
		"--config-file", dir+"/engine.json", "--host", "unix://"+dir+"/docker.sock", "--pidfile", dir+"/docker.pid",
		"--data-root", dir+"/data", "--exec-root", dir+"/exec",
		"--containerd-namespace", filepath.Base(dir), "--containerd-plugins-namespace", filepath.Base(dir)+"-plugins",
		"--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")
	cmd.Env = e.env
	log, err := os.Create(dir + "/engine.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	alive, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		alive.Close()
		cmd.Wait()
		e.remove(t)
	})
	testpeer.Wait(t, "the engine", func() bool {
		_, err := e.try("docker", "version")
		return err == nil
	})
	e.dockerCompose = []string{"docker", "compose"}
	if _, err := e.try("docker", "compose", "version"); err != nil {
		e.dockerCompose = []string{"docker-compose"}
	}
	return e
}

// remove deletes everything the engine made. A failed test prints the engine's
// complaints first.
func (e *engine) remove(t *testing.T) {
	if log, err := os.ReadFile(e.dir + "/engine.log"); err == nil && t.Failed() {
		for line := range strings.Lines(string(log)) {
			if !strings.Contains(line, "level=info") {
				t.Logf("engine: %s", line)
			}
		}
	}
	// What engines leave mounted: the host's network namespace, their images.
	for _, mounted := range []string{"/exec/netns/default", "/data"} {
		if err := syscall.Unmount(e.dir+mounted, 0); err != nil && err != syscall.EINVAL && err != syscall.ENOENT {
			t.Errorf("unmount %s: %v", mounted, err)
		}
	}
	if err := os.RemoveAll(e.dir); err != nil {
		t.Error(err)
	}
}

// try runs a command against the engine and returns its standard output.
func (e *engine) try(command ...string) (string, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = e.env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s%s", strings.Join(command, " "), err, out, &stderr)
	}
	return strings.TrimSpace(string(out)), err
}

// run is try for a command that has to work.
func (e *engine) run(t *testing.T, command ...string) string {
	t.Helper()
	out, err := e.try(command...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (e *engine) writeFile(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(e.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

// importBuilder makes a stand-in for golang:1.26 out of this machine: its Go,
// the few programs that the Dockerfile runs with their libraries, and the
// modules, served by a module proxy that is a directory. apt-get does nothing,
// as what the Dockerfile would have it install is there already.
func (e *engine) importBuilder(t *testing.T) {
	link := func(target, name string) {
		path := filepath.Join(e.dir, "builder", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	link(e.run(t, "go", "env", "GOROOT"), "usr/local/go")
	link(e.modules(t), "modules")
	link("/etc/ssl/certs/ca-certificates.crt", "etc/ssl/certs/ca-certificates.crt")
	for _, name := range []string{"sh", "mkdir", "chmod", "cp", "setcap"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		link(path, "bin/"+name)
		for word := range strings.FieldsSeq(e.run(t, "ldd", path)) {
			if strings.HasPrefix(word, "/") {
				link(word, word)
			}
		}
	}
	e.writeFile(t, "builder/bin/apt-get", "#!/bin/sh\n")
	e.writeFile(t, "builder/tmp/here", "")
	e.run(t, "sh", "-c", `tar -C "$0/builder" -ch --exclude=testdata --exclude='*_test.go' \
		--exclude=usr/local/go/test --exclude=usr/local/go/doc --exclude=usr/local/go/api . |
		docker import --change 'ENV PATH=/usr/local/go/bin:/bin GOPROXY=file:///modules GOSUMDB=off GOTOOLCHAIN=local' - golang:1.26`, e.dir)
}

// modules returns a directory with the modules of go.mod as a proxy serves
// them, taken from this machine's cache.
func (e *engine) modules(t *testing.T) string {
	cmd := exec.Command("go", "mod", "download")
	cmd.Env = append(os.Environ(), "GOMODCACHE="+e.dir+"/modcache", "GOFLAGS=-modcacherw", "GOSUMDB=off",
		"GOPROXY=file://"+e.run(t, "go", "env", "GOMODCACHE")+"/cache/download")
	if out, err := cmd.CombinedOutput(); err != nil {
		lack(t, "every module of go.mod in the cache (run: go mod download): "+string(bytes.TrimSpace(out)))
	}
	return e.dir + "/modcache/cache/download"
}

// lack ends the test for want of something that is not a program
// (testpeer.Need looks for those), under the same rule.
func lack(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("ONWARD_REQUIRE_PEERS") == "1" {
		t.Fatal("needs " + what)
	}
	t.Skip("needs " + what)
}
