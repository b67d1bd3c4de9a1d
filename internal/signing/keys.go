package signing

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"

	"onward/internal/address"
	"onward/internal/mailauth/dkim"
)

// Settings are what the configuration says about our keys.
type Settings struct {
	Dir      string // the directory of the key files: state_dir/dkim
	Selector string // dkim.selector
	Ed25519  bool   // sign with such a key as well

	// Create makes a key that is not there. Only who holds the lock on the state
	// directory may: the daemon, and init.
	Create bool
}

// Keys are the keys of all our domains. They may be used by several goroutines.
type Keys struct {
	settings Settings

	mu      sync.Mutex
	signers map[address.Domain]*Signer
}

// Open returns the keys, or what is wrong with the settings. It reads no file.
func Open(s Settings) (*Keys, error) {
	s.Selector = strings.ToLower(s.Selector)
	for label := range strings.SplitSeq(s.Selector, ".") {
		if !isLabel(label) {
			return nil, fmt.Errorf("DKIM selector %q: use letters, digits and hyphens, as in a domain name", s.Selector)
		}
	}
	return &Keys{settings: s, signers: make(map[address.Domain]*Signer)}, nil
}

// isLabel takes letters, digits and hyphens inside (RFC 6376 3.1), and leaves
// room for the suffix of a kind.
func isLabel(s string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyz0123456789-"
	return s != "" && len(s) <= 50 && strings.Trim(s, "-") == s && strings.Trim(s, allowed) == ""
}

// Signer returns who signs for a domain. Its keys are read when they are first
// asked for, or made where Settings.Create allows that and there are none; they
// are on disk then, since their record will be published. Making one takes up to
// a second, so a daemon asks for all its domains at its start.
//
// An error is one sentence that says what to do; for a missing key it is
// fs.ErrNotExist.
func (k *Keys) Signer(domain address.Domain) (*Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.signers[domain]; s != nil {
		return s, nil
	}
	if domain == "" || domain.IsLiteral() {
		return nil, fmt.Errorf("%q is no domain that DKIM could sign for", domain)
	}
	kinds := []kind{ofRSA}
	if k.settings.Ed25519 {
		kinds = append(kinds, ofEd25519)
	}
	s := &Signer{domain: domain.String()}
	for _, kind := range kinds {
		key := key{selector: k.settings.Selector + kind.suffix, algorithm: kind.algorithm}
		var err error
		if key.private, err = k.private(key.name(s.domain), kind); err != nil {
			return nil, fmt.Errorf("DKIM key of %s: %w", domain, err)
		}
		s.keys = append(s.keys, key)
	}
	k.signers[domain] = s
	return s, nil
}

// private reads the key that is published at name, from the file of that name,
// or makes it.
func (k *Keys) private(name string, kind kind) (crypto.Signer, error) {
	path := filepath.Join(k.settings.Dir, name+".pem")
	private, err := readKey(path)
	if k.settings.Create && errors.Is(err, fs.ErrNotExist) {
		if err := makeKey(path, kind); err != nil {
			return nil, err
		}
		private, err = readKey(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist: onward serve makes it: %w", path, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	if err := kind.check(private); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return private, nil
}

// A key is a private key, and the selector its public half is published under.
type key struct {
	selector  string
	algorithm dkim.Algorithm
	private   crypto.Signer
}

// name returns the DNS name of its record (RFC 6376 3.6.2.1).
func (k key) name(domain string) string { return k.selector + "._domainkey." + domain }
