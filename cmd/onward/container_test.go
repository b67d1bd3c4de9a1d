package main_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/smtp"
	"os"
	"regexp"
	"strings"
	"testing"

	"onward/internal/resolver"
	"onward/internal/testmail"
	"onward/internal/testpeer"
)

const (
	containerAddr = "127.0.25.1:25" // a port that needs the capability
	clientAddr    = "127.0.25.99"   // the sender that Received has to name
	imageLimit    = 30e6            // octets
)

// README.md's way with Docker, each command as it stands there and in its order,
// with the committed Dockerfile and docker-compose.yml and a real engine: from a
// directory without a configuration to mail that arrives.
func TestContainer(t *testing.T) {
	testpeer.Need(t, "dockerd", "docker", "setcap", "tar")
	if os.Geteuid() != 0 {
		lack(t, "root, to start dockerd")
	}
	e := startEngine(t)
	if _, err := e.try(append(e.dockerCompose, "version")...); err != nil {
		lack(t, "docker compose")
	}
	e.importBuilder(t)
	e.run(t, "docker", "build", "--network", "none", "--tag", "onward", "../..")
	t.Run("image", func(t *testing.T) { testImage(t, e) })

	zone, sink := outside(t)
	c := e.project(t)
	commands := readme(t)
	if len(commands) != 5 {
		t.Fatalf("README.md has %q, want mkdir, init, up, doctor and doctor --send", commands)
	}
	t.Run("without chown", func(t *testing.T) {
		c.do(t, "mkdir config")
		if _, err := c.attempt(commands[1]); err == nil || !strings.Contains(err.Error(), "user 25025 may not write in /etc/onward; chown 25025 it") {
			t.Errorf("init says %v", err)
		}
		c.do(t, "rmdir config")
	})
	c.do(t, commands[0])
	if out := c.do(t, commands[1]); !strings.Contains(out, "\nNext\n  Paste the records, then run:\n  "+commands[2]+"\n  "+commands[3]) {
		t.Errorf("init does not tell what README.md does:\n%s", out)
	}
	c.prepare(t, zone)
	c.do(t, commands[2])
	c.id = c.do(t, "docker compose ps --quiet onward")
	t.Run("healthy", func(t *testing.T) {
		testpeer.Wait(t, "HEALTHCHECK", func() bool { return c.inspect(t, "{{.State.Health.Status}}") == "healthy" })
	})
	t.Run("privileges", func(t *testing.T) { testPrivileges(t, c.proc(t)) })
	t.Run("doctor", func(t *testing.T) {
		c.ok(t, commands[3], "state", "DKIM mx.example.org", "MX example.org")
	})
	t.Run("probe", func(t *testing.T) { c.ok(t, commands[4], "probe", "probe you@gmail.com") })
	t.Run("forwards", func(t *testing.T) { testForwards(t, sink) })
	t.Run("keeps keys and queue", func(t *testing.T) { testKeeps(t, c, sink, commands) })
	t.Run("sees an edited configuration", func(t *testing.T) { testEdit(t, c) })
	t.Run("init in the daemon's place", func(t *testing.T) {
		_, err := c.attempt("docker compose exec onward /onward init --add example.net")
		if err == nil || !strings.Contains(err.Error(), "/etc/onward can only be read here; for a container, docker compose run --rm init may write it") {
			t.Errorf("init says %v", err)
		}
		if out := c.do(t, "docker compose run --rm init --add example.net"); !strings.Contains(out, "example.net. 3600 IN MX 10 mx.example.org.") {
			t.Errorf("init --add says\n%s", out)
		}
	})
	t.Run("stops", func(t *testing.T) {
		c.do(t, "docker compose stop")
		if got := c.inspect(t, "{{.State.Status}} {{.State.ExitCode}}"); got != "exited 0" {
			t.Errorf("after stop: %s", got)
		}
	})
}

// readme returns the commands of README.md's way with Docker.
func readme(t *testing.T) (commands []string) {
	t.Helper()
	_, section, _ := strings.Cut(content(t, "../../README.md"), "\n### With Docker")
	section, _, _ = strings.Cut(section, "\n##")
	for line := range strings.Lines(section) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	return commands
}

// outside is the DNS that the containers ask, and Gmail.
func outside(t *testing.T) (*resolver.Zone, *testmail.Sink) {
	t.Helper()
	zone, err := resolver.ParseZone("outside", strings.NewReader(`
gmail.com. 60 IN MX 10 mx.gmail.com.
mx.gmail.com. 60 IN A 127.0.25.3
sender.example. 60 IN TXT "v=spf1 ip4:`+clientAddr+` -all"
`))
	if err != nil {
		t.Fatal(err)
	}
	dns, err := testmail.StartDNS(zone, "127.0.25.2:53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dns.Close)
	sink, err := testmail.StartSink("127.0.25.3:25")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sink.Close)
	return zone, sink
}

// testImage looks at what a person would pull.
func testImage(t *testing.T, e *engine) {
	var images []struct {
		Size   int64
		Config struct {
			User         string
			Entrypoint   []string
			Cmd          []string
			Volumes      map[string]any
			ExposedPorts map[string]any
			Healthcheck  struct{ Test []string }
		}
	}
	if err := json.Unmarshal([]byte(e.run(t, "docker", "image", "inspect", "onward")), &images); err != nil {
		t.Fatal(err)
	}
	image := images[0]
	t.Logf("%.1f MB", float64(image.Size)/1e6)
	if image.Size >= imageLimit {
		t.Errorf("the image has %d octets, want less than %d", image.Size, int64(imageLimit))
	}
	got := fmt.Sprint(image.Config)
	want := "{25025:25025 [/onward] [serve] map[/var/lib/onward:map[]] map[25/tcp:map[]] {[CMD /onward health]}}"
	if got != want {
		t.Errorf("image %s\nwant  %s", got, want)
	}
	e.run(t, "docker", "run", "--rm", "--network", "none", "onward", "demo")
}

// A container is the compose file at work in a directory of its own.
type container struct {
	*engine
	id string
}

// project copies the committed compose file into a new directory. What is added
// to it is the DNS of the test, and a shorter interval of the health check.
func (e *engine) project(t *testing.T) *container {
	e.writeFile(t, "project/docker-compose.yml", content(t, "../../docker-compose.yml"))
	e.writeFile(t, "project/docker-compose.override.yml", "services: {onward: {dns: [127.0.25.2], healthcheck: {interval: 1s}}, init: {dns: [127.0.25.2]}}\n")
	c := &container{engine: e}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the container's log:\n%s", c.do(t, "docker compose logs"))
		}
		c.do(t, "docker compose down --volumes --timeout 1")
	})
	return c
}

// prepare does what a person does between init and up, which is to paste the
// records, and moves all ports to addresses of the test.
func (c *container) prepare(t *testing.T, zone *resolver.Zone) {
	t.Helper()
	var b begun
	if err := json.Unmarshal([]byte(c.do(t, "docker compose run --rm init --json")), &b); err != nil || len(b.Records) == 0 {
		t.Fatal(err, b)
	}
	for _, r := range append(b.Records, b.Reverse...) {
		paste(t, zone, r)
	}
	f, err := os.OpenFile(c.config(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintf(f, "listen: [%q]\nadmin: {listen: \"off\"}\ndelivery: {allow_private: true}\n", containerAddr)
}

func (c *container) config() string { return c.dir + "/project/config/onward.yaml" }

// do runs a line of the shell in the project as a person at a terminal would, who
// is root here.
func (c *container) do(t *testing.T, line string) string {
	t.Helper()
	out, err := c.attempt(line)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (c *container) attempt(line string) (string, error) {
	tool := strings.Join(c.dockerCompose, " ")
	line = strings.NewReplacer("sudo ", "", "docker compose run", tool+" run -T", "docker compose exec", tool+" exec -T", "docker compose", tool).Replace(line)
	return c.try("sh", "-c", `cd "$0/project" && `+line, c.dir)
}

// ok runs doctor and expects that these checks went well. Others may not: they
// depend on the addresses of this machine.
func (c *container) ok(t *testing.T, doctor string, checks ...string) {
	t.Helper()
	out, _ := c.attempt(doctor)
	for _, check := range checks {
		if !regexp.MustCompile(`(?m)^ok +` + regexp.QuoteMeta(check) + `  `).MatchString(out) {
			t.Errorf("%s is not ok in\n%s", check, out)
		}
	}
}

func (c *container) inspect(t *testing.T, format string) string {
	t.Helper()
	return c.run(t, "docker", "inspect", "--format", format, c.id)
}

// proc is the directory in /proc of the daemon.
func (c *container) proc(t *testing.T) string { return "/proc/" + c.inspect(t, "{{.State.Pid}}") }

// testPrivileges asks the kernel what the daemon is and may.
func testPrivileges(t *testing.T, proc string) {
	status := content(t, proc+"/status")
	const bindService = "0000000000000400" // 1 << CAP_NET_BIND_SERVICE
	for field, want := range map[string]string{
		"Uid":    "25025\t25025\t25025\t25025",
		"Gid":    "25025\t25025\t25025\t25025",
		"CapPrm": bindService,
		"CapEff": bindService,
		"CapBnd": bindService,
		"CapInh": "0000000000000000",
		"CapAmb": "0000000000000000",
	} {
		if !strings.Contains(status, "\n"+field+":\t"+want+"\n") {
			t.Errorf("%s is not %q in\n%s", field, want, status)
		}
	}
	root := proc + "/root"
	if err := os.WriteFile(root+"/x", nil, 0o644); err == nil {
		t.Error("the root file system can be written")
	}
	if err := os.WriteFile(root+"/etc/onward/x", nil, 0o644); err == nil {
		t.Error("the configuration can be written")
	}
}

// testForwards sends one message through the container.
func testForwards(t *testing.T, sink *testmail.Sink) {
	const message = "From: bob@sender.example\r\nSubject: through a container\r\n\r\n.dots and\r\nlines\r\n"
	writeToMe(t, message)
	all := sink.Messages()
	got := string(all[len(all)-1].Data)
	if !strings.HasSuffix(got, message) {
		t.Errorf("arrived\n%s", got)
	}
	for _, fault := range sink.Faults() {
		t.Error(fault)
	}
	if received := regexp.MustCompile(`(?m)^Received: from \S+ \(.*\[` + regexp.QuoteMeta(clientAddr) + `\]\)`); !received.MatchString(got) {
		t.Errorf("Received does not name the client %s:\n%s", clientAddr, got)
	}
}

// testKeeps takes the container away while a message waits, and makes a new one.
func testKeeps(t *testing.T, c *container, sink *testmail.Sink, commands []string) {
	const message = "From: bob@sender.example\r\nSubject: later\r\n\r\nhello\r\n"
	keys := func() string {
		state := c.proc(t) + "/root/var/lib/onward/"
		return content(t, state+"srs-secret") + content(t, state+"dkim/onward._domainkey.mx.example.org.pem")
	}
	before := keys()
	sink.Answer("RCPT", "451 4.2.1 later")
	writeToMe(t, message)
	c.do(t, "docker compose down")
	sink.Reset()
	c.do(t, commands[2])
	c.id = c.do(t, "docker compose ps --quiet onward")
	testpeer.Wait(t, "the second container", func() bool {
		_, err := c.attempt("docker compose exec onward /onward queue retry --all")
		return err == nil
	})
	all, err := sink.Wait(within(t, patience), 1)
	if err != nil || !strings.HasSuffix(string(all[0].Data), message) {
		t.Errorf("what waited has not arrived: %v", err)
	}
	if keys() != before {
		t.Error("the second container has other keys")
	}
	c.ok(t, commands[3], "state", "DKIM mx.example.org")
}

// testEdit saves the configuration as an editor does, by renaming.
func testEdit(t *testing.T, c *container) {
	c.writeFile(t, "project/config/new", strings.Replace(content(t, c.config()), " me: ", " you: ", 1))
	if err := os.Rename(c.dir+"/project/config/new", c.config()); err != nil {
		t.Fatal(err)
	}
	testpeer.Wait(t, "the reload", func() bool {
		return strings.Contains(c.do(t, "docker compose logs"), "configuration reloaded")
	})
	if err := recipient(dialContainer(t), "you@example.org"); err != nil {
		t.Error(err)
	}
}

// writeToMe has the container take a message for me@example.org.
func writeToMe(t *testing.T, message string) {
	t.Helper()
	sender := dialContainer(t)
	if err := recipient(sender, "me@example.org"); err != nil {
		t.Fatal(err)
	}
	w, err := sender.Data()
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte(message))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// dialContainer connects to the container from clientAddr.
func dialContainer(t *testing.T) *smtp.Client {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(clientAddr)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", containerAddr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	client, err := smtp.NewClient(conn, "mx.onward.example")
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// recipient starts a transaction with one recipient.
func recipient(c *smtp.Client, to string) error {
	if err := c.Hello("sender.example"); err != nil {
		return err
	}
	if err := c.Mail("bob@sender.example"); err != nil {
		return err
	}
	return c.Rcpt(to)
}
