package main_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"onward/internal/doctor"
	"onward/internal/resolver"
	"onward/internal/testmail"
)

// TestNewUser goes the way of a new user on this machine: init, the records into
// the DNS, doctor, serve, a probe. One thing after the other turns green.
func TestNewUser(t *testing.T) {
	sink, err := testmail.StartSink("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	zone := resolver.NewZone()
	dns, err := testmail.StartDNS(zone, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	zone.Set("gmail.example", resolver.TypeMX, "10 mx.gmail.example.")
	zone.Set("mx.gmail.example", resolver.TypeA, "127.0.0.1")

	d := &daemon{dir: t.TempDir()}
	begun := begin(t, "{}", "--dir", d.dir, "example.org", "me=you@gmail.example")
	d.configure(t, content(t, d.config())+fmt.Sprintf(`
listen: ["127.0.0.1:%d"]
dns: {resolvers: [%q]}
delivery: {port: %d, allow_private: true}
`, freePort(t), dns.Addr(), sink.Addr().Port()))

	// Nothing is pasted yet, and nobody listens.
	want := []string{"failure address", "failure reverse 127.0.0.1", "failure MX example.org", "failure SPF mx.example.org", "failure DKIM mx.example.org", "warning DMARC example.org", "failure inbound"}
	if got := d.ails(t, 1); !slices.Equal(got, want) {
		t.Errorf("before: %q, want %q", got, want)
	}
	for _, r := range append(begun.Records, begun.Reverse...) {
		paste(t, zone, r)
	}
	if got := d.ails(t, 1); !slices.Equal(got, []string{"failure inbound"}) {
		t.Errorf("with records: %q", got)
	}
	d.start(t)
	defer d.stop(t)
	if got := d.ails(t, 0); len(got) > 0 {
		t.Errorf("running: %q", got)
	}
	out, stderr, status := onward(t, "doctor", "-c", d.config(), "--ip", "127.0.0.1")
	if status != 0 || stderr != "" || !strings.Contains(out, ", 0 warnings, 0 failures.\n") {
		t.Errorf("%d %s%s", status, out, stderr)
	}

	// A probe arrives, with our signature, and its way is told.
	out, stderr, status = onward(t, "doctor", "-c", d.config(), "--send", "me+tag@example.org")
	if status != 0 || stderr != "Sending a probe to me+tag@example.org and following it; this may take up to 90 s.\n" || !strings.Contains(out, "forwarded") || !strings.Contains(out, "probe you@gmail.example") || !strings.Contains(out, "mx.gmail.example said: 250") {
		t.Errorf("%d %s%s", status, out, stderr)
	}
	if got := sink.Messages(); len(got) != 1 || !strings.Contains(string(got[0].Data), "DKIM-Signature:") || !strings.Contains(string(got[0].Data), "dmarc=pass") {
		t.Errorf("%d messages: %+v", len(got), got)
	}

	// What a destination says about us is told word for word.
	sink.Answer("RCPT", "550 5.2.1 \x1b[31mclosed")
	out, _, status = onward(t, "doctor", "-c", d.config(), "--send", "me@example.org")
	if status != 1 || !strings.Contains(out, "550 5.2.1") || !strings.Contains(out, "?[31mclosed") || !strings.Contains(out, "onward log 0") {
		t.Errorf("%d %s", status, out)
	}
	out, _, status = onward(t, "doctor", "-c", d.config(), "--send", "nobody@example.org", "--json")
	if status != 1 || !strings.Contains(out, "no such alias here") {
		t.Errorf("%d %s", status, out)
	}
}

// ails runs doctor and returns what is not ok.
func (d *daemon) ails(t *testing.T, want int) []string {
	t.Helper()
	out, stderr, status := onward(t, "doctor", "-c", d.config(), "--ip", "127.0.0.1", "--json")
	var checks []doctor.Check
	if err := json.Unmarshal([]byte(out), &checks); err != nil || status != want || stderr != "" {
		t.Fatalf("doctor: %d, want %d: %v: %s%s", status, want, err, out, stderr)
	}
	ailing := []string{}
	for _, c := range checks {
		if c.State != doctor.OK {
			ailing = append(ailing, string(c.State)+" "+c.Name)
		}
	}
	return ailing
}

// paste does what a person does with a web form.
func paste(t *testing.T, zone *resolver.Zone, r doctor.Record) {
	t.Helper()
	types := map[string]resolver.Type{"A": resolver.TypeA, "AAAA": resolver.TypeAAAA, "MX": resolver.TypeMX, "TXT": resolver.TypeTXT, "PTR": resolver.TypePTR}
	value := r.Value
	switch r.Type {
	case "MX":
		value = fmt.Sprintf("%d %s.", r.Priority, r.Value)
	case "PTR":
		value += "."
	}
	if err := zone.Set(r.Name, types[r.Type], value); err != nil {
		t.Fatal(err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestDoctorZone takes all DNS from a file, and looks at the configured servers
// all the same.
func TestDoctorZone(t *testing.T) {
	dir := t.TempDir()
	begun := begin(t, "{}", "--dir", dir, "example.org", "me=you@dest.example")
	path := filepath.Join(dir, "onward.yaml")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "listen: [\"127.0.0.1:%d\"]\ndns: {resolvers: [1.1.1.1]}\ndelivery: {allow_private: true}\n", freePort(t))
	f.Close()
	zone := ""
	for _, r := range append(begun.Records, begun.Reverse...) {
		zone += r.String() + "\n"
	}
	file := filepath.Join(dir, "zone")
	os.WriteFile(file, []byte(zone), 0o600)
	out, stderr, status := onward(t, "doctor", "-c", path, "--zone", file, "--ip", "127.0.0.1", "--json")
	var checks []doctor.Check
	if err := json.Unmarshal([]byte(out), &checks); err != nil || status != 1 || stderr != "" {
		t.Fatalf("%d %v %s%s", status, err, out, stderr)
	}
	var got []string
	for _, c := range checks {
		if c.State != doctor.OK {
			got = append(got, string(c.State)+" "+c.Name)
		}
	}
	if want := []string{"warning resolver", "warning outbound dest.example", "failure inbound"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, args := range [][]string{{"--ip", "here"}, {"--send", "no address"}, {"operand"}} {
		if out, _, status := onward(t, append([]string{"doctor", "-c", path}, args...)...); status != 2 || out != "" {
			t.Errorf("%q: %d %s", args, status, out)
		}
	}
}
