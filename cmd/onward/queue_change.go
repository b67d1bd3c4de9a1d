package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"onward/internal/address"
	"onward/internal/journal"
	"onward/internal/store"
)

func queueRetry() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "retry ITEM... | --all",
		Short: "Try items now instead of later",
		Long: `Try items now instead of later, and release those that are held when they are
named. A destination that asked for a pause gets it all the same.`,
		Example: "  onward queue retry 17\n  onward queue retry --all --domain gmail.com",
	}
	return manyItems(cmd, store.Waiting, "everything that waits", func(cmd *cobra.Command, o *office, items []*store.Item) error {
		return o.change(cmd, items, journal.Retried, "%s to be tried now", func(ctx context.Context, item *store.Item) error {
			return o.Retry(ctx, item.ID, time.Now())
		})
	})
}

// manyItems completes a command for items that are named, or for all of one
// state. What is being tried already, or has just left, is passed by then.
func manyItems(cmd *cobra.Command, state store.State, everything string, do func(*cobra.Command, *office, []*store.Item) error) *cobra.Command {
	var all bool
	var domain string
	cmd.RunE = action(func(cmd *cobra.Command, args []string) error {
		filter := store.Filter{State: state}
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
		var items []*store.Item
		if o.passBy = all; all {
			err = o.all(cmd.Context(), filter, func(page []*store.Item) error {
				items = append(items, page...)
				return nil
			})
		} else {
			items, err = o.find(cmd.Context(), args)
		}
		if err != nil {
			return err
		}
		return do(cmd, o, items)
	})
	cmd.Flags().BoolVar(&all, "all", false, everything)
	cmd.Flags().StringVar(&domain, "domain", "", "only what goes to this `domain`")
	return cmd
}

// change does something to items, notes it in the journal and says how many
// there were.
func (o *office) change(cmd *cobra.Command, items []*store.Item, outcome journal.Outcome, told string, do func(context.Context, *store.Item) error) error {
	done, err := o.each(cmd, items, func(ctx context.Context, item *store.Item) error {
		err := do(ctx, item)
		if o.passBy && (errors.Is(err, store.ErrBusy) || errors.Is(err, store.ErrNotFound)) {
			return errSkipped
		}
		return err
	})
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
	cmd := &cobra.Command{
		Use:     "release ITEM... | --all",
		Short:   "Let held items be tried again, at once",
		Example: "  onward queue release 17\n  onward queue release --all",
	}
	return manyItems(cmd, store.Held, "everything that is held", func(cmd *cobra.Command, o *office, items []*store.Item) error {
		return o.change(cmd, items, journal.Released, "%s released, to be tried now", func(ctx context.Context, item *store.Item) error {
			if item.State != store.Held {
				return fmt.Errorf("item %d is not held; onward queue retry %d tries it now", item.ID, item.ID)
			}
			return o.Retry(ctx, item.ID, time.Now())
		})
	})
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
		header, _ := o.header(cmd.Context(), item) // one that is damaged has no subject
		s.loss(item, subjectOf(header))
	}
	if err := s.Flush(); err != nil {
		return err
	}
	return fmt.Errorf("nothing is dropped yet: add --yes, and %s will be lost, with nobody told", count(len(items), "message"))
}

func someItems(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return misuse{fmt.Errorf("%s needs the number of an item, or the ID of a message", called(cmd))}
	}
	return nil
}
