package testmail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"onward/internal/store"
)

// ReadQueue reads what lies in the queue of a state directory, octet for octet,
// whether or not a daemon runs on it. A directory without a database has no
// queue. What is damaged is an error.
func ReadQueue(ctx context.Context, stateDir string) (pending []Pending, err error) {
	if _, err := os.Stat(filepath.Join(stateDir, "onward.db")); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	s, err := store.Open(ctx, stateDir, store.Limits{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	items, err := s.Items(ctx, store.Filter{})
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		content, err := s.Content(ctx, item)
		if errors.Is(err, store.ErrLost) { // it has gone meanwhile
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("item %d for %s: %w", item.ID, item.Target, err)
		}
		rest, err := io.ReadAll(content.Rest(ctx))
		if errors.Is(err, store.ErrLost) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("item %d for %s: %w", item.ID, item.Target, err)
		}
		if n := int64(len(content.Header) + len(rest)); n != item.Size {
			return nil, fmt.Errorf("item %d for %s: %d octets, and it should have %d", item.ID, item.Target, n, item.Size)
		}
		pending = append(pending, Pending{To: item.Target.String(), Held: item.State == store.Held, Header: content.Header, Body: rest})
	}
	return pending, nil
}
