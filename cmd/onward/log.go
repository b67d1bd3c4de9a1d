package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"onward/internal/config"
	"onward/internal/journal"
	"onward/internal/problem"
)

// logFlags are what was asked for on the command line.
type logFlags struct {
	since, until   string
	from, to, text string
	limit          int
	follow, json   bool
}

// The pace of --follow, how many events are read at a time, and how many are
// shown when nobody said from when on.
const (
	followTime = 500 * time.Millisecond
	logPage    = 1000
	logLimit   = 50
)

func logCommand() *cobra.Command {
	var f logFlags
	cmd := &cobra.Command{
		Use:   "log [ID]",
		Short: "Show what happened to messages",
		Long: `Show what happened to messages, the newest last: what each sender was told, and
for mail that went through the queue how it ended. With the ID of a message, or
enough of its beginning, tell its whole story.

--from and --to take a whole address or any part of one; --from '<>' is the
null sender. --since and --until take a time ago (2h, 14d), a day (2026-11-22),
or a day and time ("2026-11-22 09:30").`,
		Example: `  onward log --to me@example.org --since 2d     where did my mail go?
  onward log --follow                           watch it come in
  onward log 01KB0S8EPVWC                       one message, step by step`,
		RunE: action(func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return misuse{fmt.Errorf("log takes one ID at a time, and got %d", len(args))}
			}
			filter, err := f.filter(cmd, time.Now(), args)
			if err != nil {
				return err
			}
			cfg, _, err := load(cmd)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return showStory(cmd, cfg, args[0], f.json)
			}
			return showLog(cmd, cfg, f, filter)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.since, "since", "", "`time` of the first line")
	flags.StringVar(&f.until, "until", "", "`time` of the last line; a day counts to its end")
	flags.StringVar(&f.from, "from", "", "`address` of the sender")
	flags.StringVar(&f.to, "to", "", "`address` that was written to")
	flags.StringVar(&f.text, "text", "", "`words` in the subject, an address or an answer")
	flags.IntVar(&f.limit, "limit", logLimit, "`lines` to show, the newest; 0 for all, as with --since")
	flags.BoolVarP(&f.follow, "follow", "f", false, "wait for more")
	flags.BoolVar(&f.json, "json", false, "print data, one object a line")
	return cmd
}

// filter reads the flags that choose events.
func (f *logFlags) filter(cmd *cobra.Command, now time.Time, args []string) (filter journal.Filter, err error) {
	filter = journal.Filter{From: f.from, To: f.to, Text: f.text, Limit: f.limit}
	if filter.Since, err = parseTime("--since", f.since, now, false); err != nil {
		return filter, err
	}
	if filter.Until, err = parseTime("--until", f.until, now, true); err != nil {
		return filter, err
	}
	switch {
	case f.limit < 0:
		return filter, misuse{fmt.Errorf("--limit %d: write how many lines, or 0 for all", f.limit)}
	case len(args) > 0 && (f.follow || filter != journal.Filter{Limit: f.limit}):
		return filter, misuse{errors.New("an ID names one message: leave --follow and what chooses messages away")}
	case f.follow && !filter.Until.IsZero():
		return filter, misuse{errors.New("--follow waits for what is yet to come: leave --until away")}
	}
	if !filter.Since.IsZero() && !cmd.Flags().Changed("limit") {
		filter.Limit = 0
	}
	return filter, nil
}

// parseTime reads a moment: some time before now, or a date with or without a
// time of day, of which end makes the end of the day.
func parseTime(flag, s string, now time.Time, end bool) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if ago, err := config.ParseDuration(s); err == nil {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	day, err := time.ParseInLocation(time.DateOnly, s, time.Local)
	if err != nil {
		return day, misuse{fmt.Errorf("%s %q: write a time ago such as 2h or 14d, a day as 2026-11-22, or a day and time as \"2026-11-22 09:30\"", flag, s)}
	}
	if end {
		day = day.AddDate(0, 0, 1)
	}
	return day, nil
}

// openJournal opens the journal that the daemon writes.
func openJournal(ctx context.Context, cfg *config.Config) (*journal.Reader, error) {
	r, err := journal.OpenReader(ctx, cfg.StateDir)
	if err != nil {
		return nil, stateError(cfg, "journal", err)
	}
	return r, nil
}

// stateError says what to do about a part of the state that cannot be opened.
func stateError(cfg *config.Config, what string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("there is no %s in %s: start onward serve once, or name its configuration with -c", what, cfg.StateDir)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("the %s in %s is not yours to read: run this as the user that onward serve runs as, or as root", what, cfg.StateDir)
	}
	return err
}

// showLog prints the events that were asked for.
func showLog(cmd *cobra.Command, cfg *config.Config, f logFlags, filter journal.Filter) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := openJournal(ctx, cfg)
	if err != nil {
		return err
	}
	defer r.Close()
	l := &logView{screen: newScreen(cmd.OutOrStdout()), asJSON: f.json}
	var last int64 // that is known; from here on everything is shown
	if filter.Limit > 0 {
		if last, err = r.Last(ctx); err != nil {
			return err
		}
		events, err := r.Newest(ctx, filter)
		if err != nil {
			return err
		}
		if err := l.print(events); err != nil || !f.follow {
			return err
		}
		for _, e := range events {
			last = max(last, e.Number) // one may have come in between
		}
	}
	filter.Limit = logPage
	for ctx.Err() == nil {
		events, err := r.After(ctx, last, filter)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if err := l.print(events); err != nil {
			return err
		}
		if n := len(events); n > 0 {
			last = events[n-1].Number
			continue
		}
		if !f.follow {
			return nil
		}
		select {
		case <-time.After(followTime):
		case <-ctx.Done():
		}
	}
	return nil
}

// A logView prints events as they come.
type logView struct {
	*screen
	asJSON bool
	headed bool
}

func (l *logView) print(events []journal.Event) error {
	for _, e := range events {
		if !l.asJSON {
			l.row(e)
		} else if err := printLine(l, e); err != nil {
			return err
		}
	}
	return l.Flush()
}

// printLine prints data on one line.
func printLine(w io.Writer, data any) error {
	e := json.NewEncoder(printable{w})
	e.SetEscapeHTML(false)
	return e.Encode(data)
}

// The columns of the log, with the blanks after them.
const (
	shortID      = 12 // so much of an id tells messages apart
	outcomeWidth = 11
)

// row prints one event: on a wide terminal in a line, on a narrow one in two,
// and elsewhere in a line with nothing cut.
func (l *logView) row(e journal.Event) {
	layout, id := "01-02 15:04:05", e.Message
	if l.columns == 0 {
		layout = time.DateTime
	} else {
		id = id[:min(len(id), shortID)]
	}
	when := e.Time.Local().Format(layout) + "  "
	id = l.cell(id, len(id)) + "  "
	answer := e.Answer.String()
	if e.By != "" {
		answer = strings.TrimSpace("by " + e.By + "  " + answer)
	}
	used := len(when) + problem.Cells(id)
	outcome := paint(l.colour, wordColour(string(e.Outcome)), l.cell(string(e.Outcome), outcomeWidth))
	if l.narrow() {
		l.head(when, id, "FROM -> ALIAS", "")
		l.line(paint(l.colour, dim, when), id, l.arrow(nullable(e.From), e.Recipient, l.rest(used)))
		l.line(strings.Repeat(" ", len(when)), outcome, l.cell(answer, l.rest(len(when)+outcomeWidth)))
		return
	}
	room := 48
	if l.columns > 0 {
		room = min(60, l.rest(used+outcomeWidth)*9/20)
	}
	l.head(when, id, l.cell("FROM -> ALIAS", room)+"  ", l.cell("OUTCOME", outcomeWidth)+"ANSWER")
	l.line(paint(l.colour, dim, when), id, l.arrow(nullable(e.From), e.Recipient, room), "  ", outcome, l.cell(answer, l.rest(used+room+2+outcomeWidth)))
}

// head prints the names of the columns, once, and only for people.
func (l *logView) head(when, id, route, rest string) {
	if l.headed || l.columns == 0 {
		return
	}
	l.headed = true
	l.line(paint(l.colour, dim, l.cell("TIME", len(when))+l.cell("ID", len(id))+route+rest))
}

// nullable shows the null sender as SMTP writes it.
func nullable(sender string) string {
	if sender == "" {
		return "<>"
	}
	return sender
}
