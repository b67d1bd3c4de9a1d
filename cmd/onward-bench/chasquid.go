package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// chasquidConf is chasquid as Debian ships it.
const chasquidConf = `hostname: %[1]q
smtp_address: %[2]q
submission_address: ""
submission_over_tls_address: ""
data_dir: "%[3]s/data"
mail_log_path: "<stdout>"
`

// chasquid makes chasquid, which insists on offering TLS: it refuses what fails
// SPF, checks and signs nothing else, sends from the address of the alias, and
// has no more than 200 messages in its queue.
func chasquid(b *bench) (*system, error) {
	return b.make("chasquid", func(s *system) error {
		program, err := b.unpack("usr/bin/chasquid")
		if err != nil {
			return err
		}
		domains, certificates := filepath.Join("domains", domain), filepath.Join("certs", ourHost)
		for _, dir := range []string{"data", domains, certificates} {
			if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
				return err
			}
		}
		if err := s.write("chasquid.conf", fmt.Sprintf(chasquidConf, ourHost, s.addr, s.dir)); err != nil {
			return err
		}
		if err := s.write(filepath.Join(domains, "aliases"), aliasList("a%d: u%d@dest.example\n")); err != nil {
			return err
		}
		if err := s.writeKey(filepath.Join(certificates, "privkey.pem"), filepath.Join(certificates, "fullchain.pem")); err != nil {
			return err
		}
		run := func() error { return s.run(program, "-config_dir", s.dir) }
		s.flush = func() error { // it tries everything when it starts, and at no other command
			s.halt()
			if err := run(); err != nil {
				return err
			}
			return s.await()
		}
		return run()
	})
}
