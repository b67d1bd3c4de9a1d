package main_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// plain is a configuration that asks nobody anything.
const plain = `
hostname: mx.onward.example
postmaster: owner@dest.example
state_dir: DIR/state
listen: ["127.0.0.1:0"]
domains: {alias.example: {aliases: {me: ann@dest.example}}}
dns: {resolvers: ["127.0.0.1:9"]}
`

// What keeps the daemon from starting is one sentence that says what to do, and
// exit status 1. Nothing listens then, and nothing is in the way of the next
// start.
func TestRefusesToStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	listen := func(addrs string) string { return strings.Replace(plain, `"127.0.0.1:0"`, addrs, 1) }
	secret := plain + "srs: {secret_file: DIR/secret}\n"

	for _, tt := range []struct {
		name, config string
		files        map[string]string // made before, with mode 0644
		want         []string          // in what it says
	}{
		{"port in use", listen(`"` + taken.Addr().String() + `"`), nil, []string{taken.Addr().String(), "in use"}},
		{"second of two ports in use", listen(`"127.0.0.1:0", "` + taken.Addr().String() + `"`), nil, []string{taken.Addr().String(), "in use"}},
		{"address of another machine", listen(`"192.0.2.1:2525"`), nil, []string{"192.0.2.1:2525"}},
		{"state_dir in a missing directory", strings.Replace(plain, "DIR/state", "DIR/a/b", 1), nil, []string{"state_dir", "/a/b"}},
		{"state_dir is a file", plain, map[string]string{"state": ""}, []string{"state_dir", "/state"}},
		{"secret_file missing", secret, nil, []string{"/secret"}},
		{"secret_file open to others", secret, map[string]string{"secret": "0123456789abcdef0123456789abcdef\n"}, []string{"/secret", "chmod 600"}},
		{"database broken", plain, map[string]string{"state/onward.db": strings.Repeat("no database ", 100)}, []string{"onward.db"}},
		{"certificate missing", plain + "tls: {cert: DIR/cert.pem, key: DIR/key.pem}\n", nil, []string{"cert.pem"}},
		{"certificate broken", plain + "tls: {cert: DIR/cert.pem, key: DIR/key.pem}\n", map[string]string{"cert.pem": "x", "key.pem": "y"}, []string{"cert.pem"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &daemon{dir: t.TempDir()}
			d.configure(t, tt.config)
			for name, text := range tt.files {
				path := filepath.Join(d.dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			stdout, stderr, status := onward(t, "serve", "-c", d.config())
			if status != 1 || stdout != "" || strings.Contains(stderr, "msg=listening") {
				t.Errorf("exit status %d, want 1; %q %q", status, stdout, stderr)
			}
			if !strings.HasPrefix(lastLine(stderr), "onward: ") {
				t.Errorf("no sentence at the end of %q", stderr)
			}
			for _, want := range tt.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("no %q in %q", want, stderr)
				}
			}
		})
	}
}

// A configuration that was written for another machine names a directory that a
// container or a service does not have.
func TestStateDirOfAnotherMachine(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/var/lib/onward")
	d := &daemon{dir: t.TempDir()}
	d.configure(t, strings.Replace(plain, "DIR/state", "DIR/a/b", 1))
	_, stderr, status := onward(t, "serve", "-c", d.config())
	if status != 1 || !strings.Contains(lastLine(stderr), "/a/b") || !strings.Contains(lastLine(stderr), "take state_dir out of the configuration, and /var/lib/onward is used") {
		t.Errorf("%d %q", status, stderr)
	}
}

func lastLine(s string) string {
	s = strings.TrimSuffix(s, "\n")
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// A bad configuration is told by place, line and remedy, the same by serve and
// by check, and nothing is made or opened.
func TestBadConfiguration(t *testing.T) {
	aliases := func(lines string) string { return strings.Replace(plain, "{me: ann@dest.example}", lines, 1) }
	for _, tt := range []struct {
		name, config string
		want         []string // at which place, and what about
	}{
		{"broken YAML", aliases("{me: [ann@dest.example}"), []string{"onward.yaml:6"}},
		{"unknown key", plain + "listne: []\n", []string{"onward.yaml:8:1: ", "listne", "listen"}},
		{"wrong type", plain + "limits: {recipients: many}\n", []string{"onward.yaml:8:22: ", "recipients"}},
		{"bad address", aliases("{me: ann at dest.example}"), []string{"onward.yaml:6:", "ann at dest.example"}},
		{"alias loop", aliases("{me: you@alias.example, you: me@alias.example}"), []string{"onward.yaml:6:", "you@alias.example", "me@alias.example"}},
		{"alias to itself", aliases("{me: me@alias.example}"), []string{"onward.yaml:6:", "me@alias.example"}},
		{"alias twice", aliases("{me: ann@dest.example, ME: bob@dest.example}"), []string{"onward.yaml:6:", "ME"}},
		{"two at once", aliases("{me: ann at dest.example}") + "listne: []\n", []string{"onward.yaml:6:", "onward.yaml:8:1: "}},
		{"nothing to include", plain + "include: [missing.d/*.yaml]\n", []string{"onward.yaml:8:11: ", "missing.d"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &daemon{dir: t.TempDir()}
			d.configure(t, tt.config)
			for _, command := range []string{"check", "serve"} {
				stdout, stderr, status := onward(t, command, "-c", d.config())
				if status != 1 || stdout != "" || !strings.HasPrefix(lastLine(stderr), "onward: ") {
					t.Errorf("%s: exit status %d, want 1 and a last sentence; %q %q", command, status, stdout, stderr)
				}
				for _, want := range tt.want {
					if !strings.Contains(stderr, want) {
						t.Errorf("%s: no %q in %q", command, want, stderr)
					}
				}
			}
			if _, err := os.Stat(filepath.Join(d.dir, "state")); err == nil {
				t.Error("state_dir was made")
			}
		})
	}
}

// One state directory has one daemon, also after a crash.
func TestOneDaemonPerStateDir(t *testing.T) {
	d := serve(t, plain)
	for range 2 {
		_, stderr, status := onward(t, "serve", "-c", d.config())
		if status != 1 || !strings.Contains(lastLine(stderr), filepath.Join(d.dir, "state")) {
			t.Errorf("the second daemon: exit status %d, %q; want 1 and the directory", status, stderr)
		}
		d.dial(t) // the first is as it was
		d.kill(t)
		d.start(t)
	}
}

// The secret is made at the first start, for its owner's eyes only, and stays.
func TestSecretFile(t *testing.T) {
	d := serve(t, plain)
	path := filepath.Join(d.dir, "state", "srs-secret")
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): os.ModeDir | 0o700} {
		if info, err := os.Stat(file); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v; want %v", file, info.Mode(), err, want)
		}
	}
	d.kill(t)
	d.start(t)
	if again, err := os.ReadFile(path); err != nil || string(again) != string(first) {
		t.Errorf("after a restart the secret is another: %v", err)
	}
}

// Wrong usage is exit status 2, one sentence of ours, and where the help of that
// very command is.
func TestWrongUsage(t *testing.T) {
	for _, tt := range []struct{ args, says, help string }{
		{"serev", "unknown command", "onward"},
		{"serve now", `serve takes no operand, and got "now"`, "onward serve"},
		{"serve --port 25", "unknown flag: --port", "onward serve"},
		{"serve --log xml", `--log "xml": the forms are text and json`, "onward serve"},
		{"alias", "alias needs one ADDRESS, and got 0", "onward alias"},
		{"alias me", "no @domain", "onward alias"},
		{"srs encode", "srs encode needs one ADDRESS, and got 0", "onward srs encode"},
		{"srs encode --hash-length x ann@dest.example", `--hash-length "x": write a whole number`, "onward srs encode"},
		{"check -c", "flag needs an argument", "onward check"},
		{"log --limit x", `--limit "x": write a whole number`, "onward log"},
		{"log --limit 99999999999999999999", `--limit "99999999999999999999": write a whole number of at most 18 digits`, "onward log"},
		{"log --json=maybe", `--json "maybe": write --json, or --json=false`, "onward log"},
		{"queue nope", "unknown command", "onward queue"},
	} {
		stdout, stderr, status := onward(t, strings.Fields(tt.args)...)
		if status != 2 || stdout != "" || !strings.HasPrefix(stderr, "onward: ") || !strings.Contains(stderr, tt.says) || lastLine(stderr) != "Run '"+tt.help+" --help' for how to use it." {
			t.Errorf("onward %s: exit status %d, %q, %q; want 2, %q and the help of %s", tt.args, status, stdout, stderr, tt.says, tt.help)
		}
		if strings.Contains(stderr, "strconv") {
			t.Errorf("onward %s: %s", tt.args, stderr)
		}
	}
}
