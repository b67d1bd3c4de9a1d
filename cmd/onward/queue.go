package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"onward/internal/config"
	"onward/internal/journal"
	"onward/internal/store"
)

func queueCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Show and change what waits to be delivered",
		Long: `Show and change what waits to be delivered. An item is one message on its way to
one target, and has a number in the list. The ID of the message, which is on
every line of the log, names all its items; enough of its beginning will do.
All of this works while the daemon runs, which notices within two seconds, and
without it.`,
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
	passBy bool // items that somebody else has, or that are gone
}

// openOffice opens the queue beside the daemon or without it; it does not take
// possession of the state directory, and makes nothing that is not there.
func openOffice(cmd *cobra.Command) (*office, error) {
	cfg, _, err := load(cmd)
	if err != nil {
		return nil, err
	}
	s, err := store.Attach(cmd.Context(), cfg.StateDir)
	if err != nil {
		return nil, stateError(cfg, "queue", err)
	}
	return &office{Store: s, config: cfg}, nil
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
	return o.ofMessage(ctx, name)
}

// ofMessage returns the items of the one message whose ID begins so.
func (o *office) ofMessage(ctx context.Context, begin string) ([]*store.Item, error) {
	var found []*store.Item
	err := o.all(ctx, store.Filter{}, func(page []*store.Item) error {
		for _, item := range page {
			if !strings.HasPrefix(item.Message, strings.ToUpper(begin)) {
				continue
			}
			if found = append(found, item); item.Message != found[0].Message {
				return fmt.Errorf("several messages begin with %q: %s, %s; write more of the one you mean", begin, found[0].Message, item.Message)
			}
		}
		return nil
	})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("the queue has nothing of a message %q; onward log tells what became of it", begin)
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
