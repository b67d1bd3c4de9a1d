// Package database opens SQLite databases and is the only package that knows
// the driver.
//
// The rules: what Write has done is on the disk, with a real sync, before it
// returns nil (WAL with synchronous=FULL); after a kill or a power cut at any
// moment a transaction is there wholly or not at all. One connection writes, and
// writers that wait at the same time share a transaction and its sync. Read
// gives connections that only read and never wait for it. Other processes may
// use the same database meanwhile; writers wait for each other, ten seconds at
// most. Statements are constants: foreign text goes in as bound parameters only
// (RELIABILITY.md 63).
//
// After an I/O error nothing is written any more until the daemon is started
// again: the kernel may have dropped what it could not write, and a second sync
// would then succeed over the hole (RELIABILITY.md 2.3, 94). See Healthy. A full
// disk is not such an error: the transaction is undone, its writers get
// ErrNoRoom, and the next one tries again.
package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite" // and the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Errors that callers answer differently.
var (
	ErrUnhealthy = errors.New("the database takes no writes since an I/O error; start onward again")
	ErrNoRoom    = errors.New("no room on the disk")
	ErrClosed    = errors.New("the database is closed")
	ErrDamaged   = errors.New("the file is damaged")
)

// maxReaders bounds the reading connections, each of which may keep 2 MB of
// pages.
const maxReaders = 4

// busyTimeout is that of the settings.
const busyTimeout = 10 * time.Second

// Settings of a connection. The busy timeout comes first, so that the second
// lets a connection wait for another process. Checkpoints are made by this
// package, after the writers have their answer (see checkpoint).
const (
	common  = "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=wal_autocheckpoint(0)&_pragma=journal_size_limit(67108864)"
	writing = common + "&_pragma=synchronous(FULL)&_pragma=cache_size(-8000)" // 8 MB: the indexes of a deep queue
	lazy    = common + "&_pragma=synchronous(NORMAL)"
	reading = "mode=ro&_pragma=busy_timeout(10000)"
)

// A DB is an open database. It may be used by several goroutines.
type DB struct {
	path    string
	pool    *sql.DB // of the one connection that writes
	readers *sql.DB
	writer  *writer
	trouble atomic.Pointer[error] // the I/O error after which nothing is written
	close   sync.Once
}

// Open opens the database at path, makes it when there is none (mode 0600; the
// directory must exist), checks it and brings its schema up to date by the
// files migrations/NNNN_name.sql. It refuses a schema that a newer onward has
// written, and a damaged database. Tables named in unchecked are left out of
// the check: large ones, whose rows carry check sums of their own.
func Open(ctx context.Context, path string, migrations fs.FS, unchecked ...string) (*DB, error) {
	return made(ctx, path, writing, migrations, unchecked)
}

// OpenLazy is Open for a database that is not worth a sync for each transaction
// (synchronous=NORMAL): after a power cut the last of them may be missing, and
// it is whole all the same.
func OpenLazy(ctx context.Context, path string, migrations fs.FS, unchecked ...string) (*DB, error) {
	return made(ctx, path, lazy, migrations, unchecked)
}

func made(ctx context.Context, path, settings string, migrations fs.FS, unchecked []string) (*DB, error) {
	if err := create(path); err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	return connected(ctx, path, settings, func(d *DB) error {
		if err := d.check(ctx, unchecked); err != nil {
			return err
		}
		return d.migrate(ctx, migrations)
	})
}

// Attach opens a database that is there, for a command beside the daemon or
// without it. It makes no file, checks nothing that takes time, and leaves the
// schema alone, which the daemon may be using: it refuses any but the one that
// this onward knows.
func Attach(ctx context.Context, path string, migrations fs.FS) (*DB, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	return connected(ctx, path, writing, func(d *DB) error { return d.checkSchema(ctx, migrations) })
}

// connected opens a file that is there and makes it ready.
func connected(ctx context.Context, path, settings string, prepare func(*DB) error) (*DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", path, err)
	}
	d := &DB{path: path}
	if err = d.open(ctx, settings); err == nil {
		err = prepare(d)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", path, explain(err)), d.Close())
	}
	return d, nil
}

// open makes the connections, the writing one first: it sets WAL, which the
// reading ones cannot.
func (d *DB) open(ctx context.Context, settings string) (err error) {
	if d.pool, err = pool(d.path, settings, 1); err != nil {
		return err
	}
	conn, err := firstConn(ctx, d.pool)
	if err != nil {
		return err
	}
	d.writer = newWriter(d, conn)
	d.readers, err = pool(d.path, reading, maxReaders)
	return err
}

// firstConn connects, and tries again for as long as somebody else opens or closes
// the database: SQLite does not wait for that, whatever busy_timeout says.
func firstConn(ctx context.Context, pool *sql.DB) (*sql.Conn, error) {
	for end := time.Now().Add(busyTimeout); ; time.Sleep(5 * time.Millisecond) {
		conn, err := pool.Conn(ctx)
		if e, ok := errors.AsType[*sqlite.Error](err); !ok || e.Code()&0xff != sqlite3.SQLITE_BUSY || time.Now().After(end) {
			return conn, err
		}
	}
}

func pool(path, settings string, size int) (*sql.DB, error) {
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: settings}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return db, nil
}

// create makes an empty file, since SQLite would let everybody read it, and
// closes one to others that is open to them. The other files take its mode. It
// does not open a file that is there: closing it would drop the locks that this
// process may have on it.
func create(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if empty(path) && !empty(path+"-wal") {
			return fmt.Errorf("%w: %s is empty, but what was written to it last is in %s-wal; put back a copy of both, or move both away", ErrDamaged, path, path)
		}
		return os.Chmod(path, 0o600)
	}
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// empty reports whether there is nothing in a file, or no file.
func empty(path string) bool {
	info, err := os.Stat(path)
	return err != nil || info.Size() == 0
}

// syncDir makes the name of a new file last. SQLite does it for its own.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Read gives connections that can only read. Each statement sees what was
// committed when it began. Keep none open for long: the log cannot be reused
// meanwhile.
func (d *DB) Read() *sql.DB { return d.readers }

// Write runs do in a transaction. When it returns nil, the changes are on the
// disk. Those who call at the same time share the transaction, one after the
// other; what do has done is undone when it returns an error or panics (which
// Write returns as an error), and nobody else's with it. An error of the
// transaction itself is everybody's. When ctx ends before do has begun, do is
// not run; afterwards ctx means nothing, as the others must not suffer from it.
//
// do runs alone, everybody waits for it: it must not wait for anything but the
// disk, nor call Write.
func (d *DB) Write(ctx context.Context, do func(*Tx) error) error {
	if err := d.Healthy(); err != nil {
		return err
	}
	return d.writer.write(ctx, do)
}

// Healthy returns nil, or ErrUnhealthy with its cause after an I/O error, a
// damaged page, or a disk that can only be read.
func (d *DB) Healthy() error {
	if cause := d.trouble.Load(); cause != nil {
		return fmt.Errorf("%w: %w", ErrUnhealthy, *cause)
	}
	return nil
}

// judge tells what an error of a statement means, and remembers the ones after
// which nothing may be written.
func (d *DB) judge(err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
		fallthrough
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY:
		d.trouble.CompareAndSwap(nil, &err)
		return fmt.Errorf("%w: %w", ErrUnhealthy, err)
	}
	return err
}

// Close waits for the writers under way and closes the database. Further
// writers get ErrClosed.
func (d *DB) Close() (err error) {
	d.close.Do(func() {
		if d.readers != nil { // first, so that the writer is the last and empties the log
			err = d.readers.Close()
		}
		if d.writer != nil {
			err = errors.Join(err, d.writer.close())
		}
		if d.pool != nil {
			err = errors.Join(err, d.pool.Close())
		}
	})
	return err
}
