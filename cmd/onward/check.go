package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"onward/internal/alias"
	"onward/internal/config"
	"onward/internal/problem"
)

func checkCommand() *cobra.Command {
	var schema bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Read the configuration and print what is wrong with it",
		Long: `Read the configuration and everything it includes, and print every problem
with its file, line and column. Nothing is changed and nobody is asked.`,
		Example: `  onward check -c onward.yaml
  onward check --schema > onward.schema.json     for editors that complete YAML`,
		Args: noOperands,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if schema {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", config.Schema())
				return err
			}
			cfg, _, err := load(cmd)
			if err != nil {
				return err
			}
			if err := checkFiles(cfg); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), summary(cfg))
			return nil
		}),
	}
	cmd.Flags().BoolVar(&schema, "schema", false, "print the JSON Schema of the configuration instead")
	return cmd
}

// load reads the configuration that a command is to use and its alias table.
// Problems go to standard error; fatal ones end the command.
func load(cmd *cobra.Command) (*config.Config, *alias.Table, error) {
	flag, _ := cmd.Flags().GetString("config")
	path, err := config.Find(flag)
	if err != nil {
		return nil, nil, err
	}
	cfg, table, problems := read(path)
	if len(problems) > 0 {
		problem.Write(os.Stderr, problems, isTerminal(os.Stderr))
	}
	if n := len(problems.Fatal()); n > 0 {
		return nil, nil, &failure{fmt.Errorf("%s in the configuration", count(n, "problem"))}
	}
	return cfg, table, nil
}

// checkFiles looks at what the configuration names, as the daemon will: the
// certificate and the secrets, unless the daemon has yet to make them.
func checkFiles(cfg *config.Config) error {
	settings, err := certificateSettings(cfg)
	if err == nil {
		err = settings.Check()
	}
	if err != nil {
		return err
	}
	if _, err := lists(cfg, nil, nil); err != nil {
		return err
	}
	if _, err := relay(cfg); err != nil {
		return err
	}
	secrets := []string{"not made yet"}
	if cfg.SRS.SecretFile != "" {
		if secrets, err = loadSecrets(cfg, cfg.StateDir, false); err != nil {
			return err
		}
	}
	_, err = returnPaths(cfg, secrets, nil)
	return err
}

// read reads the configuration and builds its alias table.
func read(path string) (*config.Config, *alias.Table, problem.List) {
	cfg, problems := config.Load(path)
	table, problems := withAliases(cfg, problems)
	return cfg, table, problems
}

// withAliases builds the alias table of a configuration, and adds what is wrong
// with the aliases to what is wrong already. The table is nil when any of it is
// fatal. Of one line only the first fault is told: others may follow from it.
func withAliases(cfg *config.Config, problems problem.List) (*alias.Table, problem.List) {
	type place struct {
		file string
		line int
	}
	told := map[place]bool{}
	for _, p := range problems.Fatal() {
		told[place{p.File, p.Line}] = true
		told[place{p.File, 0}] = true
	}
	table, more := alias.New(cfg)
	for _, p := range more {
		if !told[place{p.File, p.Line}] {
			problems = append(problems, p)
		}
	}
	problems.Sort()
	if len(problems.Fatal()) > 0 {
		return nil, problems
	}
	return table, problems
}

// summary says in one line what a configuration holds.
func summary(cfg *config.Config) string {
	return fmt.Sprintf("%s: good. %s with %s on %s.", cfg.Files[0], count(len(cfg.Domains), "domain"), count(countAliases(cfg), "alias"), cfg.Hostname)
}

func countAliases(cfg *config.Config) int {
	n := 0
	for _, d := range cfg.Domains {
		n += len(d.Aliases)
	}
	return n
}

// count writes a number with its noun.
func count(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case noun[len(noun)-1] == 's':
		return fmt.Sprintf("%d %ses", n, noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
