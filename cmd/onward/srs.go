package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"onward/internal/config"
	"onward/srs"
)

func srsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "srs",
		Short: "Write and read SRS addresses",
		Long: `Write and read the sender addresses of forwarded mail (SRS). The secret and
the domain are those of the configuration unless --secret and --domain are
given; decode takes the domain from the address. Addresses too long for SRS
are stored by the daemon; those are not known here.`,
		Example: "  onward srs encode ada@example.com",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return misuse{errors.New("srs needs encode or decode")}
		},
	}
	cmd.AddCommand(
		srsSubcommand("encode", "Write the SRS address for a sender",
			"  onward srs encode ada@example.com --domain mx.example.org", srs.Codec.Encode),
		srsSubcommand("decode", "Find the sender in an SRS address",
			"  onward srs decode 'SRS0=XBfOqCgbG0=G3=example.com=user@mx.example.org'", srs.Codec.Decode))
	return cmd
}

// srsSubcommand makes encode or decode: the same flags, the other way round.
func srsSubcommand(name, short, example string, convert func(srs.Codec, string, time.Time) (string, error)) *cobra.Command {
	var codec srs.Codec
	var now, maxAge, separator string
	cmd := &cobra.Command{
		Use:     name + " ADDRESS",
		Short:   short,
		Example: example,
		Args:    oneOperand("ADDRESS"),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			at, err := parseNow(now)
			if err != nil {
				return err
			}
			if maxAge != "" {
				if codec.MaxAge, err = config.ParseDuration(maxAge); err != nil || codec.MaxAge == 0 {
					return misuse{fmt.Errorf("--max-age %q: write a time such as 21d", maxAge)}
				}
			}
			if len(separator) != 1 || !strings.Contains("=+-", separator) {
				return misuse{errors.New("--separator is one of = + -")}
			}
			codec.Separator = separator[0]
			if n := codec.HashLength; n != 0 && (n < srs.MinHashLength || n > srs.MaxHashLength) {
				return misuse{fmt.Errorf("--hash-length %d: write a number from %d to %d", n, srs.MinHashLength, srs.MaxHashLength)}
			}
			if _, domain, ok := strings.Cut(args[0], "@"); ok && codec.Domain == "" && name == "decode" {
				codec.Domain = domain // whoever decodes by hand means the address's own
			}
			if err := codecDefaults(cmd, &codec); err != nil {
				return err
			}
			converted, err := convert(codec, args[0], at)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), converted)
			return nil
		}),
	}
	f := cmd.Flags()
	f.StringArrayVar(&codec.Secrets, "secret", nil, "`secret`; may be given again: the first signs, all verify")
	f.StringVar(&codec.Domain, "domain", "", "SRS `domain`")
	f.StringVar(&now, "now", "", "`time` to reckon with, as 2026-11-22T12:00:00Z (default the clock)")
	f.IntVar(&codec.HashLength, "hash-length", 0, "`characters` of the hash (default: the configuration's, else 10)")
	f.StringVar(&maxAge, "max-age", "", "`time` an address is good for, such as 21d (default: the configuration's, else 14d)")
	f.StringVar(&separator, "separator", "=", "`character` after SRS0 and SRS1: = + -")
	return cmd
}

// codecDefaults fills what no flag gave from the configuration, which is
// needed only for the secret and the domain.
func codecDefaults(cmd *cobra.Command, codec *srs.Codec) error {
	if len(codec.Secrets) > 0 && codec.Domain != "" {
		return nil
	}
	cfg, _, err := load(cmd)
	if err != nil {
		return err
	}
	if len(codec.Secrets) == 0 {
		if codec.Secrets, err = loadSecrets(cfg, cfg.StateDir, false); err != nil {
			return err
		}
	}
	if codec.Domain == "" {
		codec.Domain = srsDomains(cfg)[""].String()
	}
	if codec.HashLength == 0 {
		codec.HashLength = cfg.SRS.HashLength
	}
	if codec.MaxAge == 0 {
		codec.MaxAge = cfg.SRS.MaxAge
	}
	return nil
}

// parseNow reads --now.
func parseNow(s string) (time.Time, error) {
	if s == "" {
		return time.Now(), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, misuse{fmt.Errorf("--now %q: write a time as 2026-11-22T12:00:00Z", s)}
	}
	return t, nil
}
