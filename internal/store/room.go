package store

import (
	"fmt"
	"sync"
	"syscall"
	"time"
)

// Limits of the queue; 0 is no limit.
type Limits struct {
	Items       int64
	Bytes       int64 // of all messages
	Free        int64 // octets that stay free on the disk
	FreePercent int   // of the disk, and of its inodes, that stay free
}

// askEvery is how often the disk is asked; meanwhile what is added is counted.
const askEvery = time.Second

// A room knows how much may still be written.
type room struct {
	dir    string
	limits Limits

	mu    sync.Mutex
	asked time.Time
	free  int64 // on the disk, less what was added since
	floor int64 // of free
}

// check returns ErrNoRoom when less is free than must stay free, or than twice
// the size: a message is written to the log and then to the database.
func (r *room) check(size int64) error {
	if r.limits.Free == 0 && r.limits.FreePercent == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.asked) >= askEvery || now.Before(r.asked) {
		if err := r.ask(); err != nil {
			return err
		}
		r.asked = now
	}
	if r.free < max(r.floor, 2*size) {
		return fmt.Errorf("%w: %d%% of its octets and inodes and %d octets must stay free in %s", ErrNoRoom, r.limits.FreePercent, r.floor, r.dir)
	}
	r.free -= 2 * size
	return nil
}

func (r *room) ask() error {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(r.dir, &disk); err != nil {
		return fmt.Errorf("state directory %s: %w", r.dir, err)
	}
	percent, block := r.limits.FreePercent, int64(disk.Bsize)
	r.free = int64(disk.Bavail) * block
	r.floor = max(r.limits.Free, int64(disk.Blocks)/100*int64(percent)*block)
	if disk.Ffree < disk.Files/100*uint64(percent) { // both are 0 where there are no inodes
		r.free = 0
	}
	return nil
}
