package signing

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"onward/internal/mailauth/dkim"
)

// A kind is one of the algorithms we sign with.
type kind struct {
	suffix    string // of the selector
	algorithm dkim.Algorithm
	generate  func() (crypto.Signer, error)
	check     func(crypto.Signer) error // whether a key is of this kind
}

// rsaBits is the size that K8 wants.
const rsaBits = 2048

var ofRSA = kind{
	algorithm: dkim.RSASHA256,
	generate:  func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, rsaBits) },
	check: func(private crypto.Signer) error {
		k, ok := private.(*rsa.PrivateKey)
		if !ok || k.N.BitLen() < rsaBits || k.N.BitLen() > dkim.MaxRSABits {
			return fmt.Errorf("not an RSA key of %d to %d bits: put another one there, or change dkim.selector to have one made", rsaBits, dkim.MaxRSABits)
		}
		return nil
	},
}

var ofEd25519 = kind{
	suffix:    "-ed25519",
	algorithm: dkim.Ed25519SHA256,
	generate: func() (crypto.Signer, error) {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	},
	check: func(private crypto.Signer) error {
		if _, ok := private.(ed25519.PrivateKey); !ok {
			return errors.New("not an Ed25519 key: put another one there, or change dkim.selector to have one made")
		}
		return nil
	},
}

// maxKeyFile bounds what is read, in octets.
const maxKeyFile = 64 << 10

// pemType is that of a PKCS #8 key (RFC 7468 10).
const pemType = "PRIVATE KEY"

// readKey reads a key file once it is known to be private.
func readKey(path string) (crypto.Signer, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s is open to other users (mode %04o): run chmod 600 %s", path, info.Mode().Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxKeyFile))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return nil, fmt.Errorf("%s holds no PKCS #8 key (BEGIN %s): convert it with openssl pkcs8 -topk8 -nocrypt", path, pemType)
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes) // which precomputes what RSA wants
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s holds a key that cannot sign", path)
	}
	return signer, nil
}

// makeKey writes a new key beside path and renames it, so that path never names
// half a file, and syncs the directories that name it.
func makeKey(path string, kind kind) error {
	private, err := kind.generate()
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temp := path + ".new" // a fixed name: what a crash left is overwritten
	if err := writeKey(temp, pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})); err != nil {
		os.Remove(temp)
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)))
}

func writeKey(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Sync(), file.Close())
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
