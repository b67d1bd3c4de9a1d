package journal

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"onward/internal/database"
)

// The pace of pruning: how long after a step that was the last for now, and
// after one that was not.
const (
	pruneRest = time.Minute
	pruneStep = 100 * time.Millisecond
)

// A writer is the goroutine that has the database.
type writer struct {
	*Journal
	db          *database.DB // nil when it has to be opened
	toldTrouble time.Time    // when the log last heard of it
	toldLost    time.Time
}

func (j *Journal) run() {
	defer close(j.ended)
	w := &writer{Journal: j}
	defer w.shut()
	prune := time.NewTimer(0)
	for {
		select {
		case <-j.wake:
			j.pause(batchTime)
			w.writeWaiting()
		case <-prune.C:
			prune.Reset(w.prune())
		case <-j.closed:
			w.writeWaiting()
			return
		}
	}
}

// writeWaiting writes all that waits. Trouble makes it wait and try again for
// as long as it lasts; at the end of the journal it is tried once.
func (w *writer) writeWaiting() {
	for {
		batch := w.peek(maxBatch)
		if len(batch) == 0 {
			return
		}
		err := w.do(func(db *database.DB) error { return write(db, batch) })
		if err == nil {
			w.drop(len(batch))
		} else if w.isClosed() {
			return
		} else {
			w.pause(retryTime)
		}
		w.tellLost()
	}
}

// prune takes one step and returns when to take the next.
func (w *writer) prune() time.Duration {
	w.tellLost()
	more := false
	err := w.do(func(db *database.DB) (err error) {
		more, err = prune(db, w.limits(), time.Now())
		return err
	})
	if err == nil && more {
		return pruneStep
	}
	return pruneRest
}

// do does something with the database, which it opens if need be. It tells of
// trouble, and makes sure that the next try does not meet the same.
func (w *writer) do(something func(*database.DB) error) error {
	if w.db == nil {
		db, err := open(filepath.Join(w.dir, fileName))
		if err != nil {
			w.trouble(err)
			return err
		}
		w.db = db
	}
	err := something(w.db)
	if err != nil {
		w.trouble(err)
	}
	return err
}

// trouble tells the log, once a minute, and makes sure that the next try does
// not meet the same: a database that takes no more writes is opened again, as
// the kernel may have forgotten some of it, but nothing else depends on it, and
// damage is found out. One that is damaged is moved aside.
func (w *writer) trouble(err error) {
	damaged := errors.Is(err, database.ErrDamaged)
	if damaged || errors.Is(err, database.ErrUnhealthy) {
		w.shut()
	}
	if damaged {
		moved := w.moveAside()
		if moved == nil {
			w.log.Error("the journal was damaged and is begun anew", "err", err, "moved_to", filepath.Join(w.dir, damagedName))
			return
		}
		err = errors.Join(err, moved)
	}
	if time.Since(w.toldTrouble) >= time.Minute {
		w.toldTrouble = time.Now()
		w.log.Error("the journal cannot be written, trying again", "err", err)
	}
}

// moveAside renames a damaged database, over the one that was damaged before,
// so that there is never more than one. Its log goes: it belongs to the old file
// and would be taken for that of the new one.
func (w *writer) moveAside() error {
	path := filepath.Join(w.dir, fileName)
	err := os.Rename(path, filepath.Join(w.dir, damagedName))
	for _, suffix := range []string{"-wal", "-shm"} {
		if e := os.Remove(path + suffix); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// tellLost tells the log, once a minute, how many entries found no room.
func (w *writer) tellLost() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost == 0 || time.Since(w.toldLost) < time.Minute {
		return
	}
	w.log.Warn("the journal cannot keep up, entries are missing from it", "lost", w.lost)
	w.lost, w.toldLost = 0, time.Now()
}

// shut closes the database, if it is open.
func (w *writer) shut() {
	if w.db == nil {
		return
	}
	if err := w.db.Close(); err != nil {
		w.log.Warn("journal", "err", err)
	}
	w.db = nil
}

func open(path string) (*database.DB, error) {
	return database.OpenLazy(context.Background(), path, migrations, "message", "attempt", "event")
}

// write writes entries in one transaction.
func write(db *database.DB, batch []Entry) error {
	return db.Write(context.Background(), func(tx *database.Tx) error {
		for _, e := range batch {
			if err := e.write(&writing{tx}); err != nil {
				return err
			}
		}
		return nil
	})
}
