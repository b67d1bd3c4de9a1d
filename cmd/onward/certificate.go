package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"onward/internal/address"
	"onward/internal/config"
)

// certificate returns the TLS side of the listener: the configured files, or a
// self-signed certificate, with which senders encrypt but cannot tell who we
// are. Session tickets are off: with Go's, Microsoft's servers drop the
// connection (RELIABILITY 16).
func certificate(cfg *config.Config, selfSigned tls.Certificate) (*tls.Config, error) {
	cert := selfSigned
	if cfg.TLS.Cert != "" {
		var err error
		if cert, err = tls.LoadX509KeyPair(cfg.TLS.Cert, cfg.TLS.Key); err != nil {
			return nil, fmt.Errorf("tls.cert %s, tls.key %s: %w; both must be PEM and belong together", cfg.TLS.Cert, cfg.TLS.Key, err)
		}
	}
	return &tls.Config{
		Certificates:           []tls.Certificate{cert},
		MinVersion:             tls.VersionTLS12,
		SessionTicketsDisabled: true,
	}, nil
}

// selfSigned makes a certificate for this run of the daemon.
func selfSigned(hostname address.Domain) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: hostname.String()},
		DNSNames:     []string{hostname.String()},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(10, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
