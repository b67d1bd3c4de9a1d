package database

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// migrate takes the steps that the database has not seen, each in a transaction
// of its own that also records its number.
func (d *DB) migrate(ctx context.Context, files fs.FS) error {
	const table = `CREATE TABLE IF NOT EXISTS migration (number INTEGER PRIMARY KEY)`
	if err := d.Write(ctx, func(tx *Tx) error { return tx.script(table) }); err != nil {
		return err
	}
	steps, err := fs.Glob(files, "migrations/*.sql") // sorted, so the first is number 1
	if err != nil {
		return err
	}
	if err := d.checkNewest(ctx, len(steps)); err != nil {
		return err
	}
	for i, step := range steps {
		text, err := fs.ReadFile(files, step)
		if err != nil {
			return err
		}
		if err := d.Write(ctx, func(tx *Tx) error { return take(tx, i+1, string(text)) }); err != nil {
			return fmt.Errorf("migration %s: %w", step, err)
		}
	}
	return nil
}

// checkSchema accepts exactly the schema that this program knows.
func (d *DB) checkSchema(ctx context.Context, files fs.FS) error {
	steps, err := fs.Glob(files, "migrations/*.sql")
	if err != nil {
		return err
	}
	if err := d.checkNewest(ctx, len(steps)); err != nil {
		return err
	}
	var newest int
	if err := d.readers.QueryRowContext(ctx, `SELECT max(number) FROM migration`).Scan(&newest); err != nil {
		return err
	}
	if newest < len(steps) {
		return errors.New("it was written by an older onward: start onward serve of this version first")
	}
	return nil
}

// take runs one step, unless this database has seen it. That is asked inside the
// transaction, as two processes may start at the same moment.
func take(tx *Tx, number int, step string) error {
	var seen bool
	const ask = `SELECT EXISTS (SELECT 1 FROM migration WHERE number = ?)`
	if err := tx.QueryRow(ask, number).Scan(&seen); err != nil || seen {
		return err
	}
	if err := tx.script(step); err != nil {
		return err
	}
	_, err := tx.Exec(`INSERT INTO migration (number) VALUES (?)`, number)
	return err
}

// checkNewest refuses a schema that this program does not know.
func (d *DB) checkNewest(ctx context.Context, known int) error {
	var newest int
	if err := d.readers.QueryRowContext(ctx, `SELECT coalesce(max(number), 0) FROM migration`).Scan(&newest); err != nil {
		return err
	}
	if newest > known {
		return fmt.Errorf("its schema is number %d, but this version of onward knows only %d: start the newer version that wrote it, or put back a copy from before the upgrade", newest, known)
	}
	return nil
}
