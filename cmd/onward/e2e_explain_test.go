package main_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestExplainProgram asks the real program, as a person or a script would:
// flags before and after the file, a pipe, its statuses, what goes where.
func TestExplainProgram(t *testing.T) {
	t.Setenv("ONWARD_CONFIG", "")
	const dir = "../../testdata/generated/"
	message := dir + "messages/0001-rsa-rr-alt.eml"
	flags := []string{"--zone", dir + "zone.json", "--ip", "192.0.2.4", "--helo", "mx.acme.example", "--from", "emil@acme.example",
		"--now", "2023-11-20T12:00:00Z"}

	want, err := os.ReadFile("../../testdata/explain/0001-rsa-rr-alt.want")
	if err != nil {
		t.Fatal(err)
	}
	after := append([]string{"explain", message}, flags...)
	before := append(append([]string{"explain"}, flags...), message)
	for _, args := range [][]string{after, before} {
		if out, stderr, status := onward(t, args...); out != string(want) || stderr != "" || status != 0 {
			t.Errorf("%q: status %d, stderr %q, stdout %.300q", args, status, stderr, out)
		}
	}

	in, err := os.Open(message)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd := exec.CommandContext(t.Context(), program, append([]string{"explain", "-", "--json"}, flags...)...)
	cmd.Stdin = in
	out, err := cmd.Output()
	var got struct{ Survives bool }
	if err != nil || json.Unmarshal(out, &got) != nil || !got.Survives {
		t.Errorf("from a pipe: %v, %.300q", err, out)
	}

	for _, tt := range []struct {
		args   []string
		status int
		stderr string
	}{
		{[]string{"explain"}, 2, "Name a file"},
		{[]string{"explain", "missing.eml"}, 1, "missing.eml"},
		{[]string{"explain", message, "--ip", "x"}, 2, "--ip"},
		{[]string{"explain", "--domain", "acme.example", "--zone", dir + "zone.json"}, 0, ""},
	} {
		if _, stderr, status := onward(t, tt.args...); status != tt.status || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("%q: status %d, stderr %q", tt.args, status, stderr)
		}
	}
}
