package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"onward/internal/address"
	"onward/internal/alias"
	"onward/internal/reply"
	"onward/srs"
)

func aliasCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "alias ADDRESS",
		Short: "Show where mail to an address goes, and which line decides",
		Long: `Show where mail to an address goes, and which line of the configuration decides.
The exit status is 1 when mail to the address is refused.`,
		Example: "  onward alias me+shop@example.org",
		Args:    oneOperand("ADDRESS"),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			to, err := address.ParsePath(args[0])
			if err != nil {
				return misuse{err}
			}
			cfg, table, err := load(cmd)
			if err != nil {
				return err
			}
			if domains := slices.Collect(maps.Values(srsDomains(cfg))); srs.Is(to.Local) && slices.Contains(domains, to.Domain) {
				return fmt.Errorf("%s is a return path, for bounces only; onward srs decode shows whose", to)
			}
			match, refusal := table.Lookup(to, time.Now())
			show := printMatch
			if asJSON {
				show = printMatchJSON
			}
			if err := show(cmd.OutOrStdout(), to, match, refusal); err != nil {
				return err
			}
			if refusal != nil {
				return &failure{}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print data")
	return cmd
}

// printMatch tells the way from an address to its targets, a line each.
func printMatch(w io.Writer, to address.Mailbox, match alias.Match, refusal error) error {
	fmt.Fprintln(w, to)
	for _, step := range match.Steps {
		fmt.Fprintf(w, "  %s\n", describe(step))
		if step.Alias != nil {
			fmt.Fprintf(w, "      %s  %s\n", step.Alias.Position(), strings.TrimSpace(step.Alias.Source()))
			if len(step.Alias.From) > 0 {
				fmt.Fprintf(w, "      only from %s\n", strings.Join(step.Alias.From, ", "))
			}
		}
	}
	switch {
	case refusal != nil:
		fmt.Fprintf(w, "  refused: %s\n", reply.From(refusal))
		return nil
	case match.Discard:
		fmt.Fprintln(w, "  accepted and dropped")
	}
	for _, target := range match.Targets {
		fmt.Fprintf(w, "  -> %s\n", target)
	}
	return nil
}

// describe says in words how one step was found.
func describe(step alias.Step) string {
	name := "built in: goes to the postmaster of the configuration"
	if step.Alias != nil {
		name = "alias " + step.Alias.Key + ", by " + string(step.By)
	}
	if step.Ended {
		name += ", has ended"
	}
	return fmt.Sprintf("%s: %s", step.Address, name)
}

// printMatchJSON prints the same as data.
func printMatchJSON(w io.Writer, to address.Mailbox, match alias.Match, refusal error) error {
	type step struct {
		Address string   `json:"address"`
		By      string   `json:"by"`
		Key     string   `json:"key,omitempty"`
		At      string   `json:"at,omitempty"`
		From    []string `json:"from,omitempty"`
		Ended   bool     `json:"ended,omitempty"`
	}
	out := struct {
		Address string   `json:"address"`
		Targets []string `json:"targets"`
		Discard bool     `json:"discard"`
		Refused string   `json:"refused,omitempty"`
		Steps   []step   `json:"steps"`
	}{Address: to.String(), Targets: []string{}, Discard: match.Discard, Steps: []step{}}
	for _, target := range match.Targets {
		out.Targets = append(out.Targets, target.String())
	}
	for _, s := range match.Steps {
		j := step{Address: s.Address.String(), By: string(s.By), Ended: s.Ended}
		if s.Alias != nil {
			j.Key, j.At, j.From = s.Alias.Key, s.Alias.Position().String(), s.Alias.From
		}
		out.Steps = append(out.Steps, j)
	}
	if refusal != nil {
		out.Refused, out.Targets = reply.From(refusal).String(), []string{}
	}
	return printJSON(w, out)
}
