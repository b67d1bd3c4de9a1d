package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const commandsDoc = "../../docs/commands.md"

// TestCommandsDoc makes docs/commands.md from the commands themselves, and fails
// when the file says something else (-update writes it).
func TestCommandsDoc(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Commands\n\nEvery command has `--help` and `-c FILE`. Exit status: 0 good, 1 problems found, 2 wrong usage.\nThis page is made from what `--help` prints.\n")
	writeCommands(&b, newRoot())
	if *update {
		if err := os.WriteFile(commandsDoc, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(commandsDoc)
	if err != nil || string(have) != b.String() {
		t.Errorf("docs/commands.md is not what the commands say (%v); run go test ./cmd/onward -run CommandsDoc -update", err)
	}
}

// writeCommands describes the commands below one, and theirs.
func writeCommands(b *strings.Builder, parent *cobra.Command) {
	for _, cmd := range parent.Commands() {
		if cmd.Name() == "help" || cmd.Name() == "completion" || cmd.Hidden {
			continue
		}
		fmt.Fprintf(b, "\n## %s\n\n%s\n", strings.TrimSuffix(cmd.UseLine(), " [flags]"), cmdText(cmd))
		if cmd.Example != "" {
			fmt.Fprintf(b, "\n```\n%s\n```\n", strings.Trim(cmd.Example, "\n"))
		}
		if flags := flagRows(cmd); flags != "" {
			fmt.Fprintf(b, "\n| flag | meaning |\n|---|---|\n%s", flags)
		}
		writeCommands(b, cmd)
	}
}

func cmdText(cmd *cobra.Command) string {
	if cmd.Long != "" {
		return cmd.Long
	}
	return cmd.Short + "."
}

func flagRows(cmd *cobra.Command) string {
	var rows strings.Builder
	cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
		kind, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if kind != "" {
			name += " " + kind
		}
		if f.Name != "help" {
			fmt.Fprintf(&rows, "| `%s` | %s |\n", name, strings.ReplaceAll(usage, "|", "\\|"))
		}
	})
	return rows.String()
}
