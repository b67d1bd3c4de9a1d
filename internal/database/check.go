package database

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// check asks SQLite whether the tables are whole: pages and rows, though not
// whether indices agree with them, which would take too long.
func (d *DB) check(ctx context.Context, unchecked []string) error {
	rows, err := d.readers.QueryContext(ctx, `SELECT name FROM sqlite_schema WHERE type = 'table'`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var table string
		if err := rows.Scan(&table); err != nil {
			return err
		}
		if slices.Contains(unchecked, table) {
			continue
		}
		if err := d.checkTable(ctx, table); err != nil {
			return err
		}
	}
	return rows.Err()
}

// checkTable returns the first thing that is wrong with one table.
func (d *DB) checkTable(ctx context.Context, table string) error {
	var found string
	const ask = `SELECT quick_check FROM pragma_quick_check(?) LIMIT 1`
	if err := d.readers.QueryRowContext(ctx, ask, table).Scan(&found); err != nil {
		return err
	}
	if found != "ok" {
		return fmt.Errorf("table %s: %w", table, damaged(errors.New(strings.ReplaceAll(found, "\n", " "))))
	}
	return nil
}

// damaged adds to an error what to do about it.
func damaged(err error) error {
	return fmt.Errorf("%w: %w: save what can be saved with \"sqlite3 FILE .recover\", or move it away to start with an empty one", err, ErrDamaged)
}

// explain adds that where SQLite says that this is so.
func explain(err error) error {
	if IsDamaged(err) && !errors.Is(err, ErrDamaged) {
		return damaged(err)
	}
	return err
}

// IsDamaged reports whether a statement failed because the file is damaged.
func IsDamaged(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && (e.Code()&0xff == sqlite3.SQLITE_CORRUPT || e.Code()&0xff == sqlite3.SQLITE_NOTADB)
}
