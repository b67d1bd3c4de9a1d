package main_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"net/smtp"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"onward/internal/testmail"
	"onward/internal/testpeer"
)

const (
	containerAddr = "127.0.25.1:25" // a port that needs the capability
	clientAddr    = "127.0.25.99"   // the sender that Received has to name
	imageLimit    = 30e6            // octets
)

// The committed Dockerfile and docker-compose.yml, built and run by a real
// engine as the README tells a person to.
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

	sink, err := testmail.StartSink("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sink.Close)
	c := e.up(t, sink.Addr())
	t.Run("healthy", func(t *testing.T) {
		testpeer.Wait(t, "HEALTHCHECK", func() bool { return c.inspect(t, "{{.State.Health.Status}}") == "healthy" })
	})
	t.Run("privileges", func(t *testing.T) { testPrivileges(t, c.inspect(t, "{{.State.Pid}}")) })
	t.Run("forwards", func(t *testing.T) { testForwards(t, sink) })
	t.Run("sees an edited configuration", func(t *testing.T) { testEdit(t, c) })
	t.Run("stops", func(t *testing.T) {
		c.compose(t, "stop")
		if got := c.inspect(t, "{{.State.Status}} {{.State.ExitCode}}"); got != "exited 0" {
			t.Errorf("after stop: %s", got)
		}
	})
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

// up starts the committed compose file beside a configuration with one alias.
// Only the interval of the health check is shorter than committed.
func (e *engine) up(t *testing.T, destination netip.AddrPort) *container {
	committed, err := os.ReadFile("../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	e.writeFile(t, "project/docker-compose.yml", string(committed))
	e.writeFile(t, "project/interval.yml", "services: {onward: {healthcheck: {interval: 1s}}}\n")
	config := strings.NewReplacer("state_dir: DIR/state\n", "", "127.0.0.1:0", containerAddr).Replace(settings(t, destination))
	e.writeFile(t, "project/config/onward.yaml", config+"domains: {alias.example: {aliases: {me: ann@dest.example}}}\n")
	c := &container{engine: e}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the container's log:\n%s", c.compose(t, "logs"))
		}
		c.compose(t, "down", "--volumes", "--timeout", "1")
	})
	c.compose(t, "up", "--detach", "--no-build")
	c.id = c.compose(t, "ps", "--quiet", "onward")
	return c
}

// compose runs one command of docker compose on the project.
func (c *container) compose(t *testing.T, args ...string) string {
	t.Helper()
	files := []string{"--file", c.dir + "/project/docker-compose.yml", "--file", c.dir + "/project/interval.yml"}
	return c.run(t, slices.Concat(c.dockerCompose, files, args)...)
}

func (c *container) inspect(t *testing.T, format string) string {
	t.Helper()
	return c.run(t, "docker", "inspect", "--format", format, c.id)
}

// testPrivileges asks the kernel what the daemon is and may.
func testPrivileges(t *testing.T, pid string) {
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
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
		if !strings.Contains(string(status), "\n"+field+":\t"+want+"\n") {
			t.Errorf("%s is not %q in\n%s", field, want, status)
		}
	}
	root := "/proc/" + pid + "/root"
	if err := os.WriteFile(root+"/x", nil, 0o644); err == nil {
		t.Error("the root file system can be written")
	}
	if err := os.WriteFile(root+"/etc/onward/x", nil, 0o644); err == nil {
		t.Error("the configuration can be written")
	}
	if _, err := os.Stat(root + "/var/lib/onward/srs-secret"); err != nil {
		t.Errorf("no secret in the state volume: %v", err)
	}
}

// testForwards sends one message through the container.
func testForwards(t *testing.T, sink *testmail.Sink) {
	const message = "From: bob@sender.example\r\nSubject: through a container\r\n\r\n.dots and\r\nlines\r\n"
	sender := dialContainer(t)
	if err := recipient(sender, "me@alias.example"); err != nil {
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
	got := string(sink.Messages()[0].Data)
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

// testEdit saves the configuration as an editor does, by renaming.
func testEdit(t *testing.T, c *container) {
	old, err := os.ReadFile(c.dir + "/project/config/onward.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c.writeFile(t, "project/config/new", strings.Replace(string(old), "{me:", "{you:", 1))
	if err := os.Rename(c.dir+"/project/config/new", c.dir+"/project/config/onward.yaml"); err != nil {
		t.Fatal(err)
	}
	testpeer.Wait(t, "the reload", func() bool {
		return strings.Contains(c.compose(t, "logs"), "configuration reloaded")
	})
	if err := recipient(dialContainer(t), "you@alias.example"); err != nil {
		t.Error(err)
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
