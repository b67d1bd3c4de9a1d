package testpeer

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A DKIM is an independent verifier of signatures: for each signature of a
// message, by the first sixteen base64 characters of its b=, what it says, "pass"
// or anything else. One may be asked by one goroutine at a time.
type DKIM func(raw []byte) (map[string]string, error)

// StartDKIM starts a verifier that answers until the test ends: an interpreter
// with one of the peer scripts in internal/mailauth/dkim/testdata. The keys are
// DNS names and records.
func StartDKIM(t testing.TB, keys map[string]string, program, script string) DKIM {
	t.Helper()
	Need(t, program)
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
		Lack(t, fmt.Sprintf("the modules of %s: %.300s", script, trouble.String()))
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
