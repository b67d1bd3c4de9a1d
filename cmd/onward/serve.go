package main

import (
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

func serveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon",
		Long: `Run the daemon in the foreground, until SIGTERM or SIGINT. A message that is
being delivered is finished first, for at most a minute. The configuration is
read again when it changes, and on SIGHUP.`,
		Example: "  onward serve -c /etc/onward/onward.yaml",
		Args:    noOperands,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			// A file capability, as the container has, makes Go hide the stack
			// of a crash, although nobody but the owner reads our log.
			debug.SetTraceback("single")
			hup := make(chan os.Signal, 1)
			signal.Notify(hup, syscall.SIGHUP) // first and for ever: by default it kills
			cfg, table, err := load(cmd)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			log := slog.New(slog.NewTextHandler(os.Stderr, nil))
			d, listeners, err := start(ctx, cfg, table, log)
			if err != nil {
				return err
			}
			return d.run(ctx, listeners, hup)
		}),
	}
}
