package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func serveCommand() *cobra.Command {
	var form string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon",
		Long: `Run the daemon in the foreground, until SIGTERM or SIGINT. A message that is
being delivered is finished first, for at most a minute (limits.drain_time). The
configuration is read again when it changes, and on SIGHUP.

The log goes to standard error: as text on a terminal, as JSON elsewhere.`,
		Example: "  onward serve -c /etc/onward/onward.yaml",
		Args:    noOperands,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			// A file capability, as the container has, makes Go hide the stack
			// of a crash, although nobody but the owner reads our log.
			debug.SetTraceback("single")
			heedNetwork()
			paceCollector()
			hup := make(chan os.Signal, 1)
			signal.Notify(hup, syscall.SIGHUP) // first and for ever: by default it kills
			log, err := newLog(os.Stderr, form)
			if err != nil {
				return err
			}
			cfg, table, err := load(cmd)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			d, listeners, err := start(ctx, cfg, table, log)
			if err != nil {
				return err
			}
			return d.run(ctx, listeners, hup)
		}),
	}
	cmd.Flags().StringVar(&form, "log", "", "`form` of the log: text or json (default text on a terminal, else json)")
	return cmd
}

// newLog writes the log in the form that is wanted, or that suits where it goes.
func newLog(w *os.File, form string) (*slog.Logger, error) {
	switch {
	case form == "text" || form == "" && term.IsTerminal(int(w.Fd())):
		return slog.New(slog.NewTextHandler(w, nil)), nil
	case form == "json" || form == "":
		return slog.New(slog.NewJSONHandler(printable{w}, nil)), nil
	}
	return nil, misuse{fmt.Errorf("--log %q: the forms are text and json", form)}
}
