package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"onward/internal/doctor"
)

// begun is what "init --json" prints.
type begun struct {
	Config   string          `json:"config"`
	Written  bool            `json:"written"`
	Added    bool            `json:"added"`
	KeysMade bool            `json:"keys_made"`
	Records  []doctor.Record `json:"records"`
	Reverse  []doctor.Record `json:"reverse"`
}

// begin runs init with what the DNS holds, and expects it to go well.
func begin(t *testing.T, zone string, args ...string) begun {
	t.Helper()
	file := filepath.Join(t.TempDir(), "zone")
	if err := os.WriteFile(file, []byte(zone), 0o600); err != nil {
		t.Fatal(err)
	}
	out, stderr, status := onward(t, append([]string{"init", "--json", "--zone", file, "--ip", "127.0.0.1"}, args...)...)
	if status != 0 || stderr != "" {
		t.Fatalf("init %q: status %d: %s%s", args, status, out, stderr)
	}
	var b begun
	if err := json.Unmarshal([]byte(out), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

// names lists records as "name TYPE".
func names(records []doctor.Record) []string {
	var all []string
	for _, r := range records {
		all = append(all, r.Name+" "+r.Type)
	}
	return all
}

// find returns the record of that name and type.
func find(t *testing.T, records []doctor.Record, name string) doctor.Record {
	t.Helper()
	i := slices.Index(names(records), name)
	if i < 0 {
		t.Fatalf("no record %s in %q", name, names(records))
	}
	return records[i]
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestInitTwice: the first run writes a configuration that is good and all keys;
// the second changes nothing and says the same of the DNS.
func TestInitTwice(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "onward.yaml")
	first := begin(t, "{}", "--dir", dir, "example.org", "me=you@gmail.com", "*=you@gmail.com", "yes=a@gmail.com,b@outlook.com")
	if !first.Written || !first.KeysMade {
		t.Errorf("%+v", first)
	}
	want := []string{"mx.example.org A", "mx.example.org TXT", "onward._domainkey.mx.example.org TXT", "example.org MX", "_dmarc.example.org TXT"}
	if !slices.Equal(names(first.Records), want) {
		t.Errorf("records %q, want %q", names(first.Records), want)
	}
	if spf := find(t, first.Records, "mx.example.org TXT"); spf.Value != "v=spf1 ip4:127.0.0.1 -all" || spf.Zone != "example.org" || spf.Label() != "mx" {
		t.Errorf("%+v", spf)
	}
	if out, _, status := onward(t, "check", "-c", path); status != 0 || !strings.Contains(out, "1 domain with 3 aliases on mx.example.org") {
		t.Errorf("check: %d %s", status, out)
	}
	if out, _, status := onward(t, "alias", "-c", path, "yes@example.org"); status != 0 || !strings.Contains(out, "-> b@outlook.com") {
		t.Errorf("alias: %d %s", status, out)
	}
	for file, mode := range map[string]os.FileMode{"state": 0o700, "state/srs-secret": 0o600, "state/dkim/onward._domainkey.mx.example.org.pem": 0o600} {
		if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, want mode %v", file, err, mode)
		}
	}
	before, secret := content(t, path), content(t, filepath.Join(dir, "state/srs-secret"))

	second := begin(t, "{}", "--dir", dir, "example.org", "other=thief@example.com", "--hostname", "mx.other.example")
	if second.Written || second.Added || second.KeysMade || !slices.EqualFunc(second.Records, first.Records, func(a, b doctor.Record) bool { return a.String() == b.String() }) {
		t.Errorf("second run: %+v", second)
	}
	if content(t, path) != before || content(t, filepath.Join(dir, "state/srs-secret")) != secret {
		t.Error("the second run changed something")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
	out, stderr, status := onward(t, "init", "--dir", dir, "--zone", os.DevNull, "example.com", "me=you@gmail.com")
	if status != 1 || !strings.Contains(stderr, "does not have example.com, which --add would put into it") || content(t, path) != before {
		t.Errorf("another domain: %d %s%s", status, out, stderr)
	}
}

// TestInitAdd puts further domains behind the last one and leaves the rest of the
// file as it is.
func TestInitAdd(t *testing.T) {
	const file = `# mine
hostname: mx.example.org
postmaster: you@gmail.com
state_dir: state
domains:
    # the family
    example.org:
        aliases:
            me: you@gmail.com
            # not yet: x@gmail.com

# afterwards
limits: {recipients: 10}
`
	dir := t.TempDir()
	path := filepath.Join(dir, "onward.yaml")
	os.WriteFile(path, []byte(file), 0o640)
	added := begin(t, "{}", "-c", path, "--add", "example.net")
	if !added.Added || !added.KeysMade || !slices.Equal(names(added.Records), []string{"example.net MX"}) {
		t.Errorf("%+v", added)
	}
	begin(t, "{}", "-c", path, "--add", "example.com", "me=you@gmail.com")
	want := strings.Replace(file, "# not yet: x@gmail.com\n", `# not yet: x@gmail.com
    example.net: {same_as: example.org}
    example.com:
      aliases:
        me: you@gmail.com
`, 1)
	if got := content(t, path); got != want {
		t.Errorf("the file is now\n%s\nwant\n%s", got, want)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", info.Mode())
	}
	for _, tt := range []struct{ name, file, want string }{
		{"there already", want, "is at " + path + ":11:5 already; add its aliases there:\n      shop: you@gmail.com"},
		{"in one line", "hostname: mx.example.org\npostmaster: you@gmail.com\nstate_dir: state\ndomains: {example.org: {aliases: {me: you@gmail.com}}}\n", "put this under its domains:\n  example.net:\n    aliases:\n      shop: you@gmail.com"},
		{"with a mistake", "hostname: mx.example.org\npostmaster: nobody\ndomains:\n  example.org: {aliases: {me: you@gmail.com}}\n", "1 problem in the configuration"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			os.WriteFile(path, []byte(tt.file), 0o644)
			_, stderr, status := onward(t, "init", "-c", path, "--zone", os.DevNull, "--add", "example.net", "shop=you@gmail.com")
			if status != 1 || !strings.Contains(stderr, tt.want) || content(t, path) != tt.file {
				t.Errorf("%d %s", status, stderr)
			}
		})
	}
}

// TestInitMerges: where the domain has a record of the kind already, the one that
// is printed says both, and what has to go is named.
func TestInitMerges(t *testing.T) {
	const zone = `
example.org. IN SOA ns.example.org. me.example.org. 1 1 1 1 1
example.org. IN MX 10 mx1.forwarder.example.
mx.example.org. IN A 127.0.0.1
mx.example.org. IN TXT "v=spf1 include:_spf.google.com ~all"
_spf.google.com. IN TXT "v=spf1 ip4:203.0.113.0/24 -all"
_dmarc.example.org. IN TXT "v=DMARC1; p=none; rua=mailto:d@example.org; adkim=r"
`
	got := begin(t, zone, "--dir", t.TempDir(), "example.org", "me=you@gmail.com")
	for _, tt := range []struct {
		name, value string
		present     bool
		instead     string
	}{
		{"mx.example.org A", "127.0.0.1", true, ""},
		{"mx.example.org TXT", "v=spf1 ip4:127.0.0.1 include:_spf.google.com ~all", false, "v=spf1 include:_spf.google.com ~all"},
		{"example.org MX", "mx.example.org", false, "10 mx1.forwarder.example"},
		{"_dmarc.example.org TXT", "v=DMARC1; p=none; rua=mailto:d@example.org; adkim=s; aspf=s", false, "v=DMARC1; p=none; rua=mailto:d@example.org; adkim=r"},
	} {
		r := find(t, got.Records, tt.name)
		if r.Value != tt.value || r.Present != tt.present || strings.Join(r.Instead, ",") != tt.instead || r.Zone != "example.org" {
			t.Errorf("%s: %+v", tt.name, r)
		}
	}
}

// TestInitDone: when everything is in the DNS there is nothing to paste.
func TestInitDone(t *testing.T) {
	dir := t.TempDir()
	zone := ""
	for _, r := range begin(t, "{}", "--dir", dir, "example.org", "me=you@gmail.com").Records {
		zone += r.String() + "\n"
	}
	file := filepath.Join(dir, "zone")
	os.WriteFile(file, []byte(zone), 0o600)
	out, stderr, status := onward(t, "init", "--dir", dir, "--zone", file, "--ip", "127.0.0.1")
	if status != 0 || stderr != "" || !strings.Contains(out, "All of them are in the DNS already.") || strings.Contains(out, "Paste") {
		t.Errorf("%d %s%s", status, out, stderr)
	}
}

// TestInitElsewhere: a server whose name is in another domain needs six records
// all the same: the policy is then that of its own name.
func TestInitElsewhere(t *testing.T) {
	got := begin(t, "{}", "--ip", "::1", "--dir", t.TempDir(), "--hostname", "mx.hosting.example", "example.org", "me=you@gmail.com")
	want := []string{"mx.hosting.example A", "mx.hosting.example AAAA", "mx.hosting.example TXT", "onward._domainkey.mx.hosting.example TXT", "_dmarc.mx.hosting.example TXT", "example.org MX"}
	if !slices.Equal(names(got.Records), want) {
		t.Errorf("records %q, want %q", names(got.Records), want)
	}
	if r := find(t, got.Records, "_dmarc.mx.hosting.example TXT"); r.Value != "v=DMARC1; p=reject; adkim=s; aspf=s" || r.Zone != "hosting.example" {
		t.Errorf("%+v", r)
	}
}

func TestInitRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "onward.yaml")
	for _, tt := range []struct {
		args   string
		status int
		want   string
	}{
		{"", 2, "DOMAIN is missing"},
		{"example.org", 2, "ALIAS=TARGET is missing"},
		{"nonsense me=you@gmail.com", 2, `"nonsense" is no domain`},
		{"example.org me", 2, "write ALIAS=TARGET"},
		{"example.org me=you", 2, "no @domain"},
		{"example.org me@example.com=you@gmail.com", 2, "is not an alias of example.org"},
		{"example.org me=you@gmail.com --ip localhost", 2, "write an IP address"},
		{"example.org me=me@example.org --postmaster you@gmail.com", 1, "me@example.org"},
		{"--add example.org me=you@gmail.com", 1, "leave --add away"},
		{"--import /nonexistent example.org", 1, "no such file"},
		{"--import x example.org me=you@gmail.com", 2, "not both"},
		{"--dir x example.org me=you@gmail.com", 2, "not both"},
		{"example.org me=you@gmail.com --postmaster nobody", 2, "no @domain"},
	} {
		args := append([]string{"init", "-c", path, "--zone", os.DevNull}, strings.Fields(tt.args)...)
		out, stderr, status := onward(t, args...)
		if status != tt.status || !strings.Contains(stderr, tt.want) || out != "" {
			t.Errorf("%q: %d %s%s, want %d %q", tt.args, status, out, stderr, tt.status, tt.want)
		}
		if _, err := os.Stat(path); err == nil {
			t.Fatalf("%q wrote a file", tt.args)
		}
	}
}

// TestInitImport reads a file of another program through the command.
func TestInitImport(t *testing.T) {
	dir := t.TempDir()
	out, stderr, status := onward(t, "init", "--dir", dir, "--zone", os.DevNull, "--ip", "127.0.0.1", "--import", "../../testdata/import/postfix.txt", "--yes")
	if status != 0 || stderr != "" || !strings.Contains(out, "2 domains with 8 aliases on mx.example.org") || !strings.Contains(out, "/usr/bin/vacation") || !strings.Contains(out, "example.net. 3600 IN MX 10 mx.example.org.") || !strings.Contains(out, "\n  onward serve -c "+filepath.Join(dir, "onward.yaml")+"\n") {
		t.Errorf("%d %s%s", status, out, stderr)
	}
	if got, _, status := onward(t, "alias", "-c", filepath.Join(dir, "onward.yaml"), "any@example.net"); status != 0 || !strings.Contains(got, "-> you@gmail.com") {
		t.Errorf("%d %s", status, got)
	}
	if text := content(t, filepath.Join(dir, "onward.yaml")); !strings.Contains(text, "postmaster: you@gmail.com\n") {
		t.Error(text)
	}
}
