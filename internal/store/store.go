// Package store keeps on disk, in one SQLite database, what must outlive the
// daemon. It is SQL and nothing else: what the rows mean, and when they die, is
// the business of the packages that use it.
//
// The rules: what a method has written is on the disk, with a real sync, before
// it returns nil (WAL with synchronous=FULL); after a kill or a power cut at any
// moment a transaction is there wholly or not at all. All writes go through one
// connection. Other processes may use the same database meanwhile; they wait for
// each other. Foreign text goes into statements as bound parameters only
// (RELIABILITY.md 63).
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// fileName is the database in the state directory; SQLite puts "-wal" and
// "-shm" beside it.
const fileName = "onward.db"

// pragmas are set on the connection before anything else; the first lets the
// second wait for another process. A transaction takes the write lock when it
// begins, so that none fails half-way for want of it.
const pragmas = "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"

// A Store is the open database. It may be used by several goroutines.
type Store struct {
	db *sql.DB
}

// Open opens the database in dir, which must exist, makes it when there is
// none (mode 0600), and brings its schema up to date. It refuses one that a
// newer onward has written.
func Open(ctx context.Context, dir string) (*Store, error) {
	path, err := filepath.Abs(filepath.Join(dir, fileName))
	if err != nil {
		return nil, fmt.Errorf("state directory %s: %w", dir, err)
	}
	if err := create(path); err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: pragmas}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	s := &Store{db: db}
	if err := s.migrate(ctx, migrations); err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", path, err), db.Close())
	}
	return s, nil
}

// create makes an empty file, since SQLite would let everybody read it, and
// closes one to others that is open to them. The other files take its mode. It
// does not open a file that is there: closing it would drop the locks that this
// process may have on it.
func create(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return os.Chmod(path, 0o600)
	}
	if err != nil {
		return err
	}
	return file.Close()
}

// Close waits for what is under way and closes the database.
func (s *Store) Close() error { return s.db.Close() }

// write runs do in a transaction. When it returns nil, the changes are on disk.
func (s *Store) write(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // nothing to do after Commit
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}
