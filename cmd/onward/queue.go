package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"onward/internal/address"
	"onward/internal/config"
	"onward/internal/journal"
	"onward/internal/store"
)

func queueCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Show and change what waits to be delivered",
		Long: `Show and change what waits to be delivered. An item is one message on its way to
one target; its number stands in the log and in the list. The ID of a message
names all its items. All of this works while the daemon runs, which notices
within two seconds, and without it.`,
		Example: `  onward queue list --held
  onward queue show 17
  onward queue retry --all --domain gmail.com`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return misuse{errors.New("queue needs list, show, retry, hold, release or drop")}
		},
	}
	cmd.AddCommand(queueList(), queueShow(), queueRetry(), queueHold(), queueRelease(), queueDrop())
	return cmd
}

// An office is what the commands of the queue work on.
type office struct {
	*store.Store
	config *config.Config
}

// openOffice opens the queue beside the daemon or without it; it does not take
// possession of the state directory, and makes nothing that is not there.
func openOffice(cmd *cobra.Command) (*office, error) {
	cfg, _, err := load(cmd)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(cfg.StateDir, "onward.db")); err != nil {
		return nil, stateError(cfg, "queue", err)
	}
	s, err := store.Open(cmd.Context(), cfg.StateDir, store.Limits{})
	if err != nil {
		return nil, stateError(cfg, "queue", err)
	}
	return &office{s, cfg}, nil
}

// find returns the items that operands name: by number, or all of a message by
// its ID or the beginning of that.
func (o *office) find(ctx context.Context, names []string) ([]*store.Item, error) {
	var items []*store.Item
	for _, name := range names {
		found, err := o.named(ctx, name)
		if err != nil {
			return nil, err
		}
		items = append(items, found...)
	}
	return items, nil
}

// named tells numbers from IDs by their first character: IDs begin with a zero
// until the year 3084.
func (o *office) named(ctx context.Context, name string) ([]*store.Item, error) {
	number, err := strconv.ParseInt(name, 10, 64)
	if err == nil && name[0] != '0' {
		item, err := o.Item(ctx, number)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return nil, fmt.Errorf("the queue has no item %d; onward queue list shows what it has", number)
		case item == nil:
			return nil, err
		}
		return []*store.Item{item}, nil // which may be damaged
	}
	var found []*store.Item
	err = o.all(ctx, store.Filter{}, func(page []*store.Item) error {
		for _, item := range page {
			if strings.HasPrefix(item.Message, strings.ToUpper(name)) {
				found = append(found, item)
			}
		}
		return nil
	})
	if err == nil && (len(found) == 0 || name == "") {
		err = fmt.Errorf("the queue has nothing of a message %q; onward log tells what became of it", name)
	}
	return found, err
}

// all reads the items that a filter selects, a page at a time: it takes no more
// memory for there being many.
func (o *office) all(ctx context.Context, filter store.Filter, do func(page []*store.Item) error) error {
	filter.Limit = queuePage
	for {
		page, err := o.Items(ctx, filter)
		if err != nil {
			return err
		}
		if err := do(page); err != nil || len(page) < queuePage {
			return err
		}
		filter.After = page[len(page)-1].ID
	}
}

// queuePage is how many items are read at a time.
const queuePage = 1000

// operator is who gave a command, for the journal.
func operator() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "user " + strconv.Itoa(os.Getuid())
}

// record notes in the journal what a person did. The deed is done, so that a
// journal which is not there is no reason to fail.
func (o *office) record(cmd *cobra.Command, items []*store.Item, outcome journal.Outcome) {
	var entries []journal.Entry
	for _, item := range items {
		entries = append(entries, journal.Event{
			Time: time.Now(), Message: item.Message, From: item.Sender.String(), Recipient: item.Recipient.String(), Targets: []string{item.Target.String()},
			Outcome: outcome, By: operator(),
		})
	}
	if len(entries) == 0 {
		return
	}
	if err := journal.Append(cmd.Context(), o.config.StateDir, entries...); err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "onward: done, but not noted in the journal: %v\n", err)
	}
}

// errSkipped means that an item needs nothing.
var errSkipped = errors.New("skipped")

// each does something to every item, many at a time so that they share their
// syncs, and returns those it was done to. Errors are printed, a line each, and
// make the command fail at its end.
func (o *office) each(cmd *cobra.Command, items []*store.Item, do func(context.Context, *store.Item) error) (done []*store.Item, failed error) {
	const atATime = 64
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, atATime)
	for _, item := range items {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			err := do(cmd.Context(), item)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				done = append(done, item)
			case err != errSkipped:
				fmt.Fprintf(cmd.ErrOrStderr(), "onward: %v\n", unchanged(item, err))
				failed = &failure{}
			}
		})
	}
	wg.Wait()
	return done, failed
}

// unchanged says what to do about an item that could not be changed.
func unchanged(item *store.Item, err error) error {
	switch {
	case errors.Is(err, store.ErrBusy):
		return fmt.Errorf("item %d is being tried at this moment; wait for the end of that and look again with onward queue show %d", item.ID, item.ID)
	case errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("item %d has just left the queue; onward log %s tells how", item.ID, item.Message)
	}
	return err
}

func queueRetry() *cobra.Command {
	var all bool
	var domain string
	cmd := &cobra.Command{
		Use:   "retry ITEM... | --all",
		Short: "Try items now instead of later",
		Long: `Try items now instead of later, held ones too when they are named. A destination
that asked for a pause gets it all the same.`,
		Example: "  onward queue retry 17\n  onward queue retry --all --domain gmail.com",
		RunE: action(func(cmd *cobra.Command, args []string) error {
			filter := store.Filter{State: store.Waiting}
			switch {
			case all == (len(args) > 0):
				return misuse{errors.New("name items by number or message ID, or say --all")}
			case domain != "" && !all:
				return misuse{errors.New("--domain goes with --all")}
			case domain != "":
				d, err := address.ParseDomain(domain)
				if err != nil {
					return misuse{fmt.Errorf("--domain: %w", err)}
				}
				filter.Domain = d
			}
			o, err := openOffice(cmd)
			if err != nil {
				return err
			}
			defer o.Close()
			if all {
				return o.retryAll(cmd, filter)
			}
			items, err := o.find(cmd.Context(), args)
			if err != nil {
				return err
			}
			return o.change(cmd, items, journal.Retried, "%s to be tried now", func(ctx context.Context, item *store.Item) error {
				return o.Retry(ctx, item.ID, time.Now())
			})
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "everything that waits")
	cmd.Flags().StringVar(&domain, "domain", "", "only what goes to this `domain`")
	return cmd
}

// retryAll makes everything due that the filter selects. What is being tried
// already, or has just left, needs nothing.
func (o *office) retryAll(cmd *cobra.Command, filter store.Filter) error {
	var items []*store.Item
	err := o.all(cmd.Context(), filter, func(page []*store.Item) error {
		items = append(items, page...)
		return nil
	})
	if err != nil {
		return err
	}
	return o.change(cmd, items, journal.Retried, "%s to be tried now", func(ctx context.Context, item *store.Item) error {
		err := o.Retry(ctx, item.ID, time.Now())
		if errors.Is(err, store.ErrBusy) || errors.Is(err, store.ErrNotFound) {
			return errSkipped
		}
		return err
	})
}

// change does something to items, notes it in the journal and says how many
// there were.
func (o *office) change(cmd *cobra.Command, items []*store.Item, outcome journal.Outcome, told string, do func(context.Context, *store.Item) error) error {
	done, err := o.each(cmd, items, do)
	o.record(cmd, done, outcome)
	if len(done) > 0 || err == nil {
		fmt.Fprintf(cmd.OutOrStdout(), told+"\n", count(len(done), "item"))
	}
	return err
}

func queueHold() *cobra.Command {
	return &cobra.Command{
		Use:     "hold ITEM...",
		Short:   "Keep items from being tried",
		Long:    "Keep items from being tried, and from expiring, until they are released or dropped.",
		Example: "  onward queue hold 17",
		Args:    someItems,
		RunE: onItems(func(cmd *cobra.Command, o *office, items []*store.Item) error {
			reason := "held by " + operator()
			return o.change(cmd, items, journal.Held, "%s held", func(ctx context.Context, item *store.Item) error {
				if item.State == store.Held {
					return fmt.Errorf("item %d is held already: %s", item.ID, visible(item.Reason))
				}
				return o.Hold(ctx, item.ID, time.Now(), reason)
			})
		}),
	}
}

func queueRelease() *cobra.Command {
	return &cobra.Command{
		Use:     "release ITEM...",
		Short:   "Let held items be tried again, at once",
		Example: "  onward queue release 17",
		Args:    someItems,
		RunE: onItems(func(cmd *cobra.Command, o *office, items []*store.Item) error {
			return o.change(cmd, items, journal.Released, "%s released, to be tried now", func(ctx context.Context, item *store.Item) error {
				if item.State != store.Held {
					return fmt.Errorf("item %d is not held; onward queue retry %d tries it now", item.ID, item.ID)
				}
				return o.Retry(ctx, item.ID, time.Now())
			})
		}),
	}
}

func queueDrop() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "drop ITEM... --yes",
		Short: "Remove items for good",
		Long: `Remove items for good. Nobody is told: the target does not get the message, and
the sender gets no report. Without --yes, show what would be lost.`,
		Example: "  onward queue drop 17 --yes",
		Args:    someItems,
		RunE: onItems(func(cmd *cobra.Command, o *office, items []*store.Item) error {
			if !yes {
				return o.warn(cmd, items)
			}
			return o.change(cmd, items, journal.Dropped, "%s dropped", func(ctx context.Context, item *store.Item) error {
				return o.Drop(ctx, item.ID, time.Now())
			})
		}),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

// warn shows what dropping items would lose.
func (o *office) warn(cmd *cobra.Command, items []*store.Item) error {
	s := newScreen(cmd.OutOrStdout())
	for _, item := range items {
		header, _ := o.Header(cmd.Context(), item) // one that is damaged has no subject
		s.loss(item, subjectOf(header))
	}
	if err := s.Flush(); err != nil {
		return err
	}
	return fmt.Errorf("nothing is dropped yet: add --yes, and %s will be lost, with nobody told", count(len(items), "message"))
}

func someItems(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return misuse{fmt.Errorf("%s needs the number of an item, or the ID of a message", cmd.CommandPath())}
	}
	return nil
}

// onItems makes an action of what is done with the items that operands name.
func onItems(do func(*cobra.Command, *office, []*store.Item) error) func(*cobra.Command, []string) error {
	return action(func(cmd *cobra.Command, args []string) error {
		o, err := openOffice(cmd)
		if err != nil {
			return err
		}
		defer o.Close()
		items, err := o.find(cmd.Context(), args)
		if err != nil {
			return err
		}
		return do(cmd, o, items)
	})
}
