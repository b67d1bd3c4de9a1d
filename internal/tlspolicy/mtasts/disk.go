package mtasts

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// suffix ends the names of the files that hold a policy. Whatever else is in
// the directory was left by a crash.
const suffix = ".json"

// maxFile bounds what is read of one file, in octets: a policy, and what JSON
// makes of it.
const maxFile = 4 * maxPolicy

// A kept policy is one file.
type kept struct {
	Domain  string    `json:"domain"`
	ID      string    `json:"id"`
	Fetched time.Time `json:"fetched"`
	Policy  []string  `json:"policy"` // lines
}

// path returns where the policy of domain is kept. Nothing of the name, which
// anybody may have chosen, gets into the path.
func (c *Cache) path(domain string) string {
	sum := sha256.Sum256([]byte(domain))
	return filepath.Join(c.dir, hex.EncodeToString(sum[:16])+suffix)
}

// save writes the policy of e so that after a crash there is the old file or the
// new one.
func (c *Cache) save(e *entry) error {
	data, err := json.Marshal(kept{e.domain, e.id, e.fetched, e.policy.Lines()})
	if err != nil {
		return err
	}
	path := c.path(e.domain)
	temp := strings.TrimSuffix(path, suffix) + ".new" // a fixed name: what a crash left is overwritten
	file, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return os.Rename(temp, path)
}

func (c *Cache) erase(domain string) {
	if err := os.Remove(c.path(domain)); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.log.Error("MTA-STS policy not removed", "domain", domain, "err", err)
	}
}

// load reads all files, and removes those that are of no more use.
func (c *Cache) load() error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	files, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var entries []*entry
	for _, file := range files {
		path := filepath.Join(c.dir, file.Name())
		e, err := c.read(path)
		switch {
		case err != nil:
			c.log.Warn("MTA-STS policy given up", "file", path, "err", err)
			fallthrough
		case !e.live(c.now()):
			if err := os.Remove(path); err != nil {
				return err
			}
		default:
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b *entry) int { return cmp.Compare(a.fetched.Unix(), b.fetched.Unix()) })
	for _, e := range entries {
		c.put(e)
	}
	return nil
}

// read reads one file, and holds it to be what its name says.
func (c *Cache) read(path string) (*entry, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return nil, err
	}
	var k kept
	if err := json.Unmarshal(data, &k); err != nil {
		return nil, err
	}
	if path != c.path(k.Domain) {
		return nil, fmt.Errorf("it is about %.80q, which its name is not", k.Domain)
	}
	p, err := ParsePolicy([]byte(strings.Join(k.Policy, "\n")))
	if err != nil {
		return nil, err
	}
	if now := c.now(); k.Fetched.After(now) { // the clock was wrong, then or now (RELIABILITY 90)
		k.Fetched = now
	}
	return &entry{domain: k.Domain, id: k.ID, fetched: k.Fetched, policy: p}, nil
}
