package database

import (
	"context"
	"database/sql"
	"fmt"
	"runtime/debug"
	"time"

	"modernc.org/sqlite"
)

const (
	// maxGroup bounds how many writers one sync serves, and so how long the
	// first of them waits.
	maxGroup = 256
	// A group that follows one of company or more waits for others while they come
	// within a gap, lingering at most that long: where a disk syncs in a fraction of
	// a millisecond each would get a sync of its own, and every sync costs the same.
	// What OpenLazy opens has no such syncs, and one writer at a time.
	company   = 3
	gap       = 2 * time.Millisecond
	lingering = 10 * time.Millisecond
	// checkpointPages is how much may be in the log before it is copied into
	// the database: 4 MB.
	checkpointPages = 1000
)

// A writer is the goroutine that owns the writing connection.
type writer struct {
	db      *DB
	tx      *Tx
	members chan *member // not buffered: who is received is in the next group
	closing chan struct{}
	ended   chan struct{}
	last    int // members of the last group
	pages   int // written to the log since the last checkpoint
}

// A member is one caller of Write in its group.
type member struct {
	ctx  context.Context
	do   func(*Tx) error
	done chan error // holds one
}

func newWriter(db *DB, conn *sql.Conn) *writer {
	w := &writer{
		db:      db,
		tx:      &Tx{conn: conn, statements: map[string]*sql.Stmt{}},
		members: make(chan *member),
		closing: make(chan struct{}),
		ended:   make(chan struct{}),
	}
	go w.run()
	return w
}

func (w *writer) write(ctx context.Context, do func(*Tx) error) error {
	m := &member{ctx, do, make(chan error, 1)}
	select {
	case w.members <- m:
		return <-m.done
	case <-ctx.Done():
		return ctx.Err()
	case <-w.closing:
		return ErrClosed
	}
}

func (w *writer) close() error {
	close(w.closing)
	<-w.ended
	return w.tx.close()
}

func (w *writer) run() {
	defer close(w.ended)
	for {
		select {
		case <-w.closing:
			return
		case first := <-w.members:
			w.group(first)
			w.checkpoint()
		}
	}
}

// group runs first and whoever comes soon in one transaction, and answers them once
// that is on the disk.
func (w *writer) group(first *member) {
	members := w.gather(first)
	if err := w.begin(); err != nil {
		answer(members, err)
		return
	}
	var group []*member // those whose changes are in the transaction
	var err error
	for len(members) > 0 && err == nil {
		err = w.join(&group, members[0])
		members = members[1:]
	}
	if err == nil {
		err = w.tx.control("COMMIT")
	}
	if err != nil {
		w.tx.control("ROLLBACK") // fails where SQLite has done it
		err = w.db.judge(err)
	}
	answer(group, err)
	answer(members, err)
}

func answer(members []*member, err error) {
	for _, m := range members {
		m.done <- err
	}
}

// gather returns first and whoever comes before the group is closed. The database is
// not yet locked: another process may write meanwhile.
func (w *writer) gather(first *member) []*member {
	members, began := []*member{first}, time.Now()
	for len(members) < maxGroup {
		next := w.next(began)
		if next == nil {
			break
		}
		members = append(members, next)
	}
	w.last = len(members)
	return members
}

// next returns another member of a group, nil when nobody is there.
func (w *writer) next(began time.Time) *member {
	select {
	case m := <-w.members:
		return m
	default:
	}
	if w.last < company || time.Since(began) > lingering-gap {
		return nil
	}
	select {
	case m := <-w.members:
		return m
	case <-time.After(gap):
		return nil
	}
}

// begin begins a transaction, unless the database has become unhealthy since the
// members came.
func (w *writer) begin() error {
	if err := w.db.Healthy(); err != nil {
		return err
	}
	if err := w.tx.control("BEGIN IMMEDIATE"); err != nil {
		return w.db.judge(err)
	}
	return nil
}

// join runs one member. An error of its own is answered at once, and its changes
// undone; join's error means that the transaction is lost, or not to be trusted.
func (w *writer) join(group *[]*member, m *member) error {
	if err := m.ctx.Err(); err != nil {
		m.done <- err
		return nil
	}
	if err := w.tx.control("SAVEPOINT member"); err != nil {
		m.done <- w.db.judge(err)
		return err
	}
	failed := run(m.do, w.tx)
	if failed == nil {
		*group = append(*group, m)
		return w.tx.control("RELEASE member")
	}
	m.done <- w.db.judge(failed)
	if err := w.tx.control("ROLLBACK TO member"); err != nil {
		return failed // that is why: SQLite has undone everything
	}
	return w.tx.control("RELEASE member")
}

// run turns a panic into an error, with the stack for the log.
func run(do func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return do(tx)
}

// checkpoint copies the log into the database when it has become long. Nobody
// waits for it, but an error is known to Healthy; SQLite's own checkpoints
// would keep it to themselves. Readers may keep it from being complete; the
// next one then does more.
func (w *writer) checkpoint() {
	err := w.tx.conn.Raw(func(conn any) error {
		pages, _, err := conn.(sqlite.DBStatus).Status(sqlite.DBStatusCacheWrite, true)
		w.pages += pages
		return err
	})
	if err != nil || w.pages < checkpointPages {
		return
	}
	w.pages = 0
	w.db.judge(w.tx.control("PRAGMA wal_checkpoint(PASSIVE)"))
}

// A Tx is a transaction under way, for as long as the function runs that got it.
// Its statements are prepared once and kept, so they must be constants. There is
// no context in it: SQLite undoes the whole transaction when it is interrupted.
type Tx struct {
	conn       *sql.Conn
	statements map[string]*sql.Stmt
}

// Exec runs a statement without rows.
func (tx *Tx) Exec(query string, args ...any) (sql.Result, error) {
	s, err := tx.prepare(query)
	if err != nil {
		return nil, err
	}
	return s.Exec(args...)
}

// QueryRow runs a statement with one row at most; Scan gives its error.
func (tx *Tx) QueryRow(query string, args ...any) *sql.Row {
	s, err := tx.prepare(query)
	if err != nil { // which the connection says again, in a Row
		return tx.conn.QueryRowContext(context.Background(), query, args...)
	}
	return s.QueryRow(args...)
}

func (tx *Tx) prepare(query string) (*sql.Stmt, error) {
	if s, ok := tx.statements[query]; ok {
		return s, nil
	}
	s, err := tx.conn.PrepareContext(context.Background(), query)
	if err == nil {
		tx.statements[query] = s
	}
	return s, err
}

// close ends the statements first, without which the connection would live on.
func (tx *Tx) close() error {
	for _, s := range tx.statements {
		s.Close()
	}
	return tx.conn.Close()
}

// control runs a statement about the transaction itself.
func (tx *Tx) control(statement string) error {
	_, err := tx.Exec(statement)
	return err
}

// script runs a text of several statements, once.
func (tx *Tx) script(text string) error {
	_, err := tx.conn.ExecContext(context.Background(), text)
	return err
}
