package journal

import (
	"context"
	"database/sql"
	"time"

	"onward/internal/database"
)

// Limits are how much is kept. Zero means all.
type Limits struct {
	Keep time.Duration // how long
	Size int64         // octets on disk
}

// pruneRows is how many rows of each table are looked at in one step: few
// enough that no entry waits long for it.
const pruneRows = 500

// prune takes one step: it deletes some of the oldest rows if they are over the
// limits, and reports whether there may be more to delete.
func prune(db *database.DB, limits Limits, now time.Time) (more bool, err error) {
	large := false
	if limits.Size > 0 {
		size, err := size(db.Read())
		if err != nil {
			return false, err
		}
		large = size > limits.Size
	}
	var before int64
	if limits.Keep > 0 {
		before = now.Add(-limits.Keep).UnixMilli()
	}
	if before == 0 && !large {
		return false, nil
	}
	err = db.Write(context.Background(), func(tx *database.Tx) error {
		more, err = pruneTables(tx, before, large)
		return err
	})
	return more, err
}

// size returns how much of the file is in use: what was deleted makes room in
// it, and does not make it smaller.
func size(db *sql.DB) (octets int64, err error) {
	const ask = `SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size`
	err = db.QueryRow(ask).Scan(&octets)
	return octets, err
}

// pruneTables deletes, of the oldest rows of each table, those from before that
// time. If the journal is too large it makes the time later: so late that all
// of these rows of one table go, and of the others what is as old, so that what
// stays of a message is never half of its story for long.
func pruneTables(tx *database.Tx, before int64, large bool) (more bool, err error) {
	if large {
		const ask = `SELECT coalesce(min(newest), 0) FROM (
			SELECT max(time) AS newest FROM (SELECT time FROM event ORDER BY number LIMIT ?1) UNION ALL
			SELECT max(time) FROM (SELECT time FROM attempt ORDER BY number LIMIT ?1) UNION ALL
			SELECT max(time) FROM (SELECT time FROM message ORDER BY number LIMIT ?1))`
		var newest int64
		if err := tx.QueryRow(ask, pruneRows).Scan(&newest); err != nil {
			return false, err
		}
		before = max(before, newest+1)
	}
	// The last event stays, so that its number is not given again.
	for _, statement := range []string{
		`DELETE FROM event WHERE number IN (SELECT number FROM event ORDER BY number LIMIT ?1) AND time < ?2 AND number < (SELECT max(number) FROM event)`,
		`DELETE FROM attempt WHERE number IN (SELECT number FROM attempt ORDER BY number LIMIT ?1) AND time < ?2`,
		`DELETE FROM message WHERE number IN (SELECT number FROM message ORDER BY number LIMIT ?1) AND time < ?2`,
	} {
		done, err := tx.Exec(statement, pruneRows, before)
		if err != nil {
			return false, err
		}
		deleted, err := done.RowsAffected()
		if err != nil {
			return false, err
		}
		more = more || deleted == pruneRows
	}
	return more, nil
}
