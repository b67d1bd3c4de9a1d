// Command onward forwards the mail of your own domains to the mailboxes where
// you read it.
//
// This package is the only one that knows all the others: it reads the
// configuration, builds the parts, joins them, runs them and stops them. One
// file is one command.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func main() { os.Exit(run(os.Args[1:])) }

// run executes one command and returns the exit status: 0 good, 1 problems
// found, 2 wrong usage.
func run(args []string) int {
	root := newRoot()
	root.SetArgs(args)
	cmd, err := root.ExecuteC()
	if err == nil {
		return 0
	}
	if f, ok := errors.AsType[*failure](err); ok {
		if f.err != nil {
			fmt.Fprintf(os.Stderr, "onward: %v\n", f.err)
		}
		return 1
	}
	fmt.Fprintf(os.Stderr, "onward: %v\nRun '%s --help' for how to use it.\n", err, cmd.CommandPath())
	return 2
}

// A failure is an error found while doing what was asked, as against being
// asked wrongly. A nil err means that everything has been said already.
type failure struct{ err error }

func (f *failure) Error() string { return fmt.Sprint(f.err) }
func (f *failure) Unwrap() error { return f.err }

// A misuse is a flag or an operand that cannot be understood.
type misuse struct{ error }

// action makes the errors of a command failures, but for misuse.
func action(do func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := do(cmd, args)
		if err == nil {
			return nil
		}
		if _, ok := errors.AsType[*failure](err); ok {
			return err
		}
		if _, ok := errors.AsType[misuse](err); ok {
			return err
		}
		return &failure{err}
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "onward",
		Short: "Forward the mail of your own domain to the mailbox where you read it",
		Long: `onward is the MX for people who own a domain and live in a mailbox somewhere
else. It takes mail for me@example.org, and hands it on to someone@gmail.com
while the sender waits, so that the sender hears what Gmail answered.`,
		Example: `  onward demo                     see it work, without any set-up
  onward init                     write a configuration, print the DNS records
  onward serve                    run it
  onward doctor                   what is missing, and how to mend it
  onward alias me@example.org     where mail to this address goes, and why`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringP("config", "c", "", "configuration `file` (default $ONWARD_CONFIG, ./onward.yaml, /etc/onward/onward.yaml)")
	root.SetFlagErrorFunc(flagMisuse)
	root.InitDefaultCompletionCmd()
	root.AddCommand(serveCommand(), demoCommand(), initCommand(), checkCommand(), doctorCommand(), aliasCommand(), explainCommand(), logCommand(), queueCommand(), srsCommand(), healthCommand(), versionCommand())
	return root
}

// flagMisuse says what a flag takes, in our words rather than those of the parser
// of its value.
func flagMisuse(_ *cobra.Command, err error) error {
	e, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return misuse{err}
	}
	f, takes := e.GetFlag(), "a whole number of at most 18 digits"
	if f.Value.Type() == "bool" {
		takes = fmt.Sprintf("--%s, or --%[1]s=false", f.Name)
	}
	return misuse{fmt.Errorf("--%s %q: write %s", f.Name, e.GetValue(), takes)}
}

// called is a command as it is called behind "onward".
func called(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// noOperands and oneOperand are the Args of our commands, in our words.
func noOperands(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return misuse{fmt.Errorf("%s takes no operand, and got %q", called(cmd), args[0])}
	}
	return nil
}

func oneOperand(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return misuse{fmt.Errorf("%s needs one %s, and got %d", called(cmd), what, len(args))}
		}
		return nil
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  onward version",
		Args:    noOperands,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), "onward", version())
		},
	}
}

// version returns what the Go tool recorded when it built this program.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" {
		v = "(devel)"
	}
	return v + " " + info.GoVersion
}
