package dkim_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"onward/internal/testpeer"
)

// A peer is an independent verifier: for each signature of a message, by the
// beginning of its b=, what it says.
type peer func(raw []byte) (map[string]string, error)

// startPeer starts a program of testdata that answers until the test ends. The
// keys are DNS names and records.
func startPeer(t *testing.T, keys map[string]string, program, script string) peer {
	t.Helper()
	testpeer.Need(t, program)
	file := filepath.Join(t.TempDir(), "keys")
	var lines strings.Builder
	for name, record := range keys {
		fmt.Fprintf(&lines, "%s\t%s\n", name, record)
	}
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, script, file)
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	var trouble bytes.Buffer
	cmd.Stderr = &trouble
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	answers := bufio.NewReader(out)
	if line, _ := answers.ReadString('\n'); line != "ready\n" {
		in.Close()
		cmd.Wait()
		testpeer.Lack(t, fmt.Sprintf("the modules of %s: %.300s", script, trouble.String()))
	}
	return func(raw []byte) (map[string]string, error) {
		if _, err := fmt.Fprintf(in, "%d\n%s", len(raw), raw); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", script, err, trouble.String())
		}
		line, err := answers.ReadString('\n')
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %s", script, err, trouble.String())
		}
		said := make(map[string]string)
		for word := range strings.FieldsSeq(line) {
			i := strings.LastIndexByte(word, '=') // "=" may end the beginning of b=
			said[word[:i]] = word[i+1:]
		}
		return said, nil
	}
}
