package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"onward/internal/certificate"
	"onward/internal/config"
)

// openCertificate begins to keep the certificate that a configuration asks for.
func openCertificate(cfg *config.Config, log *slog.Logger) (*certificate.Keeper, error) {
	settings, err := certificateSettings(cfg)
	if err != nil {
		return nil, err
	}
	settings.Log = log
	return certificate.Open(settings)
}

// certificateSettings is what a configuration says about the certificate.
func certificateSettings(cfg *config.Config) (certificate.Settings, error) {
	s := certificate.Settings{Hostname: cfg.Hostname, Cert: cfg.TLS.Cert, Key: cfg.TLS.Key}
	if a := cfg.TLS.ACME; a.On {
		s.ACME = &certificate.ACME{
			Dir: filepath.Join(cfg.StateDir, "acme"), Email: a.Email, Directory: a.Directory, Challenge: a.Challenge,
			Listen: a.Listen, DNSServer: a.DNSServer, DNSKey: a.DNSKey,
		}
		if a.Roots != "" {
			text, err := os.ReadFile(a.Roots)
			if err != nil {
				return s, fmt.Errorf("tls.acme.roots: %w", err)
			}
			s.ACME.Roots = x509.NewCertPool()
			if !s.ACME.Roots.AppendCertsFromPEM(text) {
				return s, errors.New("tls.acme.roots holds no certificate in PEM form")
			}
		}
	}
	return s, nil
}

// keepCertificate puts another certificate in the place of the one that is kept,
// when the configuration names other files.
func (d *daemon) keepCertificate(cfg *config.Config) error {
	old := d.current.Load()
	switch {
	case old == nil || cfg.TLS == old.config.TLS && cfg.Hostname == old.config.Hostname:
		return nil
	case cfg.TLS.ACME.On || old.config.TLS.ACME.On:
		// Two keepers could not both hold the port of the challenge.
		d.log.Warn("the certificate of tls.acme changes at the next start only; restart onward")
		return nil
	}
	keeper, err := openCertificate(cfg, d.log)
	if err != nil {
		return err
	}
	d.keeper.Load().Close()
	d.keeper.Store(keeper)
	return nil
}
