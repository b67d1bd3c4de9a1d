package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// debs returns the packages that .ci/bench-peers has downloaded for us: they are
// not installed, as one of them and Postfix exclude each other.
func debs(name string) []string {
	self, _ := os.Executable()
	paths, _ := filepath.Glob(filepath.Join(filepath.Dir(self), "peers", name+"_*.deb"))
	return paths
}

// unpack puts all these packages where every user may run them, once, and
// returns the path of one program.
func (b *bench) unpack(program string) (string, error) {
	root := filepath.Join(b.dir, "root")
	if _, err := os.Stat(root); err != nil {
		for _, deb := range debs("*") {
			if _, err := output("dpkg", "-x", deb, root); err != nil {
				return "", err
			}
		}
	}
	path := filepath.Join(root, program)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("not among the packages that .ci/bench-peers could download: %w", err)
	}
	return path, os.Chmod(path, 0o755) // without setuid, under which no library is found but those that are installed
}

// writeKey writes an RSA key, and a certificate of ours for it that nobody has
// reason to trust.
func (s *system) writeKey(key, certificate string) error {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{ourHost},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return err
	}
	octets, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	if err := s.write(certificate, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))); err != nil {
		return err
	}
	return s.write(key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: octets})))
}
