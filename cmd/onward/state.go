package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"onward/internal/config"
	"onward/internal/journal"
	"onward/internal/returnpath"
	"onward/internal/signing"
	"onward/internal/smtpclient"
	"onward/internal/store"
	"onward/internal/tlspolicy/mtasts"
	"onward/internal/tlsrpt"
)

// A state is what the daemon keeps between runs: keys, the queue and everything
// else in the store, and the journal. One process owns it at a time
// (RELIABILITY 86).
type state struct {
	dir          string
	lock         *os.File
	store        *store.Store
	journal      *journal.Journal
	destinations *smtpclient.Destinations
	policies     *mtasts.Cache
	tlsReports   *tlsrpt.Collector
}

// openState takes possession of the state directory. On an error nothing stays
// open.
func openState(ctx context.Context, cfg *config.Config, limits func() journal.Limits, log *slog.Logger) (_ *state, err error) {
	s := &state{dir: cfg.StateDir}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.lock, err = lockDir(s.dir); err != nil {
		return nil, err
	}
	if _, err = loadSecrets(cfg, s.dir, true); err != nil {
		return nil, err
	}
	if s.store, err = store.Open(ctx, s.dir, storeLimits(cfg)); err != nil {
		return nil, fmt.Errorf("state_dir %s: %w", s.dir, err)
	}
	if s.destinations, err = smtpclient.NewDestinations(ctx, s.store, log); err != nil {
		return nil, fmt.Errorf("state_dir %s: %w", s.dir, err)
	}
	if s.policies, err = mtasts.Open(filepath.Join(s.dir, "mta-sts"), log); err != nil {
		return nil, fmt.Errorf("state_dir %s: %w", s.dir, err)
	}
	if s.tlsReports, err = tlsrpt.Open(filepath.Join(s.dir, "tls-reports"), log); err != nil {
		return nil, fmt.Errorf("state_dir %s: %w", s.dir, err)
	}
	if err = os.MkdirAll(s.tempDir(), 0o700); err != nil {
		return nil, fmt.Errorf("state_dir: %w", err)
	}
	s.journal = journal.Start(s.dir, limits, log)
	return s, nil
}

// storeLimits are those of the configuration, and what must stay free on the
// disk.
func storeLimits(cfg *config.Config) store.Limits {
	return store.Limits{Items: int64(cfg.Queue.Messages), Bytes: cfg.Queue.Size, Free: cfg.Limits.FreeSpace, FreePercent: cfg.Limits.FreePercent}
}

// openKeys opens the DKIM keys, and makes those that are missing where create is
// set, as only the daemon and init may.
func openKeys(cfg *config.Config, stateDir string, create bool) (*signing.Keys, error) {
	return signing.Open(signing.Settings{
		Dir:      filepath.Join(stateDir, "dkim"),
		Selector: cfg.DKIM.Selector,
		Ed25519:  cfg.DKIM.Ed25519,
		Create:   create,
	})
}

// tempDir holds messages too large for memory; they have no names there.
func (s *state) tempDir() string { return filepath.Join(s.dir, "tmp") }

// Close gives the state directory up.
func (s *state) Close() error {
	var err error
	if s.destinations != nil {
		s.destinations.Close()
	}
	if s.policies != nil {
		s.policies.Close()
	}
	if s.journal != nil {
		err = s.journal.Close()
	}
	if s.store != nil {
		err = errors.Join(err, s.store.Close())
	}
	if s.lock != nil {
		s.lock.Close()
	}
	return err
}

// lockDir makes the directory, but not the one it stands in, and locks it. The
// lock goes with the process, however that ends.
func lockDir(dir string) (*os.File, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		mend := "make the directory it stands in, or change state_dir"
		if given := os.Getenv("STATE_DIRECTORY"); given != "" { // a service, or a container
			mend = "take state_dir out of the configuration, and " + given + " is used"
		}
		return nil, fmt.Errorf("state_dir: %w; %s", err, mend)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state_dir: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("state_dir: another onward is running on %s; stop it, or give this one a state_dir of its own", dir)
	}
	return lock, nil
}

// loadSecrets reads the SRS secrets. Only the daemon makes them (create), and
// only where the owner did not name a file.
func loadSecrets(cfg *config.Config, stateDir string, create bool) ([]string, error) {
	if cfg.SRS.SecretFile != "" {
		return returnpath.LoadSecrets(cfg.SRS.SecretFile, false)
	}
	return returnpath.LoadSecrets(filepath.Join(stateDir, "srs-secret"), create)
}
