// Package store keeps on disk, in one SQLite database, what must outlive the
// daemon: the queue, replies and pauses of destinations, reply addresses, and
// senders that SRS cannot carry. It is SQL and nothing else: what the rows mean,
// and when they die, is the business of the packages that use it. It does not
// know what time it is.
//
// The rules are those of package database: what a method has written is on the
// disk before it returns nil, and is there wholly or not at all. Every method may
// be used by several goroutines, and by several processes on the same directory
// (`onward queue` beside the daemon).
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"sync/atomic"

	"onward/internal/database"
)

// fileName is the database in the state directory; SQLite puts "-wal" and
// "-shm" beside it.
const fileName = "onward.db"

// migrations are the steps from an empty database to today's schema. A step
// that was released is never changed: a new one is added, with the next number.
//
//go:embed migrations/*.sql
var migrations embed.FS

// A Store is the open database. It may be used by several goroutines.
type Store struct {
	db           *database.DB
	limits       Limits
	room         room
	ask          questions
	repliesUntil atomic.Int64 // when the last of all replies has had its time, as times are stored
}

// questions are asked often, and parsed once.
type questions struct{ reply, destinations, due, content, piece *sql.Stmt }

func (q *questions) prepare(ctx context.Context, db *sql.DB) (err error) {
	for stmt, text := range map[**sql.Stmt]string{
		&q.reply: askReply, &q.destinations: askDestinations, &q.due: askDue, &q.content: askContent, &q.piece: askPiece,
	} {
		if *stmt, err = db.PrepareContext(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// Open opens the database in dir, which must exist, makes it when there is
// none (mode 0600), checks it, and brings its schema up to date. It refuses one
// that a newer onward has written, and one that is damaged. Headers and pieces
// are left out of the check, as they have check sums for when they are read.
func Open(ctx context.Context, dir string, limits Limits) (*Store, error) {
	db, err := database.Open(ctx, filepath.Join(dir, fileName), migrations, "header", "piece")
	if err != nil {
		return nil, err
	}
	s, err := use(ctx, db, dir, limits)
	if err != nil {
		return nil, err
	}
	until, err := lastReply(ctx, db.Read())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("database in %s: %w", dir, err), s.Close())
	}
	s.repliesUntil.Store(until)
	return s, nil
}

// Attach opens the database in dir for a command beside the daemon: see
// database.Attach.
func Attach(ctx context.Context, dir string) (*Store, error) {
	db, err := database.Attach(ctx, filepath.Join(dir, fileName), migrations)
	if err != nil {
		return nil, err
	}
	return use(ctx, db, dir, Limits{})
}

func use(ctx context.Context, db *database.DB, dir string, limits Limits) (*Store, error) {
	s := &Store{db: db, limits: limits, room: room{dir: dir, limits: limits}}
	s.repliesUntil.Store(math.MaxInt64) // not known
	if err := s.ask.prepare(ctx, db.Read()); err != nil {
		return nil, errors.Join(fmt.Errorf("database in %s: %w", dir, err), db.Close())
	}
	return s, nil
}

// Close waits for what is under way and closes the database.
func (s *Store) Close() error {
	return s.db.Close() // and with it the questions
}

// Healthy returns nil, or an ErrUnhealthy that says what happened. Then nothing
// can be written until the daemon has been started again.
func (s *Store) Healthy() error { return s.db.Healthy() }
