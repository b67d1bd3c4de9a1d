package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"onward/internal/address"
	"onward/internal/resolver"
)

// explainFlags are what was asked for on the command line.
type explainFlags struct {
	ip, helo, from, to string
	zone, now, domain  string
	selectors          []string
	json               bool
}

func explainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain FILE|ID",
		Short: "Explain step by step what a message proves about its sender",
		Long: `Explain step by step what a message proves about its sender: SPF, DKIM, ARC,
DMARC, what this server would decide, and how the message would go on. FILE is
the message as it arrived, "-" reads standard input.

With the ID of a message that this server has had, or the beginning of one, tell
what was found about it, what was decided, and what its destinations said.

With --domain, read what a domain publishes (SPF, DMARC and DKIM keys), explain
it field by field, and name mistakes.

Files and domains need no configuration. With one, its hostname, policy, aliases and DNS
servers are used. Nothing is sent but DNS queries, with --zone not even those.`,
		Example: `  onward explain message.eml --ip 192.0.2.1 --helo mx.example.com --from ada@example.com
  onward explain 01KDZ8T3X5
  onward explain - --ip 192.0.2.1 --json < message.eml
  onward explain --domain example.com --selector s1`,
		RunE: action(func(cmd *cobra.Command, args []string) error {
			return explain(cmd, f, args)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.ip, "ip", "", "`address` the message came from; without it SPF cannot be checked")
	flags.StringVar(&f.helo, "helo", "", "`name` the client gave in HELO")
	flags.StringVar(&f.from, "from", "", "`address` in MAIL FROM, '' for the null sender (default: Return-Path)")
	flags.StringVar(&f.to, "to", "", "`address` in RCPT TO")
	flags.StringVar(&f.zone, "zone", "", "`file` to take all DNS from: a master file, or JSON")
	flags.StringVar(&f.now, "now", "", "`time` to judge at, as 2026-11-22T12:00:00Z (default the clock)")
	flags.StringVar(&f.domain, "domain", "", "explain what this `domain` publishes instead")
	flags.StringArrayVar(&f.selectors, "selector", nil, "`name` of a DKIM key of that domain; may be given again")
	flags.BoolVar(&f.json, "json", false, "print data")
	return cmd
}

// explain does one of the two things that the command is for.
func explain(cmd *cobra.Command, f explainFlags, args []string) error {
	switch {
	case len(args) > 1:
		return misuse{fmt.Errorf("explain takes one message at a time, and got %d", len(args))}
	case len(args) == 0 && f.domain == "":
		return misuse{errors.New("explain what? Name a file with a message, or a domain with --domain")}
	case len(args) == 1 && f.domain != "":
		return misuse{errors.New("explain either a file or a --domain, not both")}
	case len(f.selectors) > 0 && f.domain == "":
		return misuse{errors.New("--selector goes with --domain")}
	}
	site, err := explainSite(cmd)
	if err != nil {
		return err
	}
	dns, err := site.resolver(f.zone)
	if err != nil {
		return err
	}
	if f.domain != "" {
		return explainDomain(cmd, f, dns)
	}
	if isMessageID(args[0]) {
		return showStory(cmd, site.config, args[0], f.json)
	}
	return explainMessage(cmd, f, site, dns, args[0])
}

// isMessageID reports whether an operand is the id of a message, or the beginning
// of one that says more than its century, and no file.
func isMessageID(operand string) bool {
	if _, err := os.Stat(operand); err == nil || len(operand) < 8 || len(operand) > 26 {
		return false
	}
	return strings.Trim(strings.ToUpper(operand), "0123456789ABCDEFGHJKMNPQRSTVWXYZ") == ""
}

// explainDomain reads what a domain publishes and prints it.
func explainDomain(cmd *cobra.Command, f explainFlags, dns resolver.Resolver) error {
	domain, err := address.ParseDomain(strings.TrimSuffix(f.domain, "."))
	if err != nil || domain.IsLiteral() {
		return misuse{fmt.Errorf("--domain %q is no domain name", f.domain)}
	}
	for _, s := range f.selectors {
		if _, err := address.ParseDomain(s + "._domainkey." + domain.String()); err != nil {
			return misuse{fmt.Errorf("--selector %q is no name", s)}
		}
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), explainTime)
	defer cancel()
	report := readDomain(ctx, dns, domain, f.selectors)
	if f.json {
		return printJSON(cmd.OutOrStdout(), report)
	}
	return printPage(cmd.OutOrStdout(), func(p *page) { printDomain(p, report) })
}

// explainTime bounds everything that is asked for a domain or a message.
const explainTime = time.Minute
