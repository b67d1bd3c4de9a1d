package returnpath

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// minSecret is the fewest characters of a secret: 80 bits even in base32.
const minSecret = 16

// maxSecretFile bounds what is read, in octets.
const maxSecretFile = 64 << 10

// heading begins a file that we make.
const heading = `# What signs the return paths of forwarded mail. Keep it private (mode 0600).
# One secret a line: the first signs, all verify. To change it, put a new one on
# top, and take the old one away when addresses signed with it have expired.
`

// LoadSecrets reads a file of secrets: one a line, blank lines and #comments
// ignored. It refuses a file that others may read or write, one without a
// secret, and secrets under 16 characters.
//
// With create, a file that is not there is made, with a random secret and mode
// 0600, and is on disk before LoadSecrets returns: a secret that did not
// survive would make every address signed with it a forgery. Only the daemon
// may create, holding its lock on the state directory, and only a file whose
// path the owner did not choose.
func LoadSecrets(path string, create bool) ([]string, error) {
	text, err := readSecrets(path)
	if create && errors.Is(err, fs.ErrNotExist) {
		if err := makeSecrets(path); err != nil {
			return nil, fmt.Errorf("SRS secret file cannot be made: %w", err)
		}
		text, err = readSecrets(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("SRS secret file %s does not exist: make it with one line of at least %d random characters, mode 0600", path, minSecret)
	}
	if err != nil {
		return nil, fmt.Errorf("SRS secret file: %w", err)
	}
	return parseSecrets(path, text)
}

// readSecrets reads the file once it is known to be private.
func readSecrets(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s is open to other users (mode %04o): run chmod 600 %s", path, info.Mode().Perm(), path)
	}
	if info.Size() > maxSecretFile {
		return "", fmt.Errorf("%s is larger than %d octets: it should hold one secret a line", path, maxSecretFile)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxSecretFile))
	return string(text), err
}

func parseSecrets(path, text string) ([]string, error) {
	var secrets []string
	number := 0
	for line := range strings.Lines(text) {
		number++
		secret := strings.TrimSpace(line)
		if secret == "" || strings.HasPrefix(secret, "#") {
			continue
		}
		if len(secret) < minSecret {
			return nil, fmt.Errorf("SRS secret file %s: the secret in line %d has %d characters, and needs at least %d", path, number, len(secret), minSecret)
		}
		secrets = append(secrets, secret)
	}
	if len(secrets) == 0 {
		return nil, fmt.Errorf("SRS secret file %s holds no secret: write one line of at least %d random characters", path, minSecret)
	}
	return secrets, nil
}

// makeSecrets writes a new file beside path and renames it, so that path never
// names half a file, then syncs the directory that names it.
func makeSecrets(path string) error {
	temp := path + ".new" // a fixed name: what a crash left is overwritten
	if err := writeSecret(temp); err != nil {
		os.Remove(temp)
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func writeSecret(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(heading + rand.Text() + "\n")
	return errors.Join(err, file.Sync(), file.Close())
}
