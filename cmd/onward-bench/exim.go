package main

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
)

// eximConf is Exim made to forward: it refuses what fails SPF, verifies DKIM,
// says both in Authentication-Results, rewrites the sender (SRS), carries bounces
// back, and signs. Debian's build has no DMARC and no ARC. Limits for clients are
// lifted, and recipients are looked up, which costs less than verifying them.
const eximConf = `exim_path = %[1]s
keep_environment = LD_LIBRARY_PATH
primary_hostname = %[2]s
spool_directory = %[3]s/spool
log_file_path = %[3]s/spool/%%s.log
pid_file_path =
deliver_drop_privilege
local_interfaces = 127.0.0.1
daemon_smtp_ports = %[4]s
tls_advertise_hosts =
smtp_accept_max = 0
smtp_accept_queue_per_connection = 0
smtp_connect_backlog = 1000
acl_smtp_rcpt = recipient
acl_smtp_data = content
domainlist ours = %[5]s : $primary_hostname
SECRET = a secret of the bench

begin acl
recipient:
  deny message = relaying denied
       !domains = +ours
  deny message = 5.7.23 SPF: $spf_smtp_comment
       spf = fail
  accept domains = %[5]s
         local_parts = lsearch;%[3]s/aliases
  accept domains = $primary_hostname
         condition = ${if inbound_srs {$local_part} {SECRET}}
  deny message = no such address
content:
  accept add_header = :at_start:${authresults {$primary_hostname}}

begin routers
aliases:
  driver = redirect
  domains = %[5]s
  data = ${lookup{$local_part}lsearch{%[3]s/aliases}}
bounces:
  driver = redirect
  senders = :
  domains = $primary_hostname
  condition = ${if inbound_srs {$local_part} {SECRET}}
  data = $srs_recipient
onward:
  driver = dnslookup
  domains = !+ours
  transport = onward

begin transports
onward:
  driver = smtp
  return_path = ${if def:return_path {${srs_encode {SECRET} {$return_path} {$primary_hostname}}}}
  dkim_domain = $primary_hostname
  dkim_selector = bench
  dkim_private_key = %[3]s/key.pem

begin retry
* * F,2h,15m; G,16h,1h,1.5; F,4d,6h
`

// eximUser is the only user that Debian's Exim gives root up for.
const eximUser = "Debian-exim"

// exim makes Exim, from packages that are only unpacked.
func exim(b *bench) (*system, error) {
	return b.make("exim", func(s *system) error {
		program, err := b.unpack("usr/sbin/exim4")
		if err != nil {
			return err
		}
		_, port, _ := strings.Cut(s.addr, ":")
		if err := s.write("exim.conf", fmt.Sprintf(eximConf, program, ourHost, s.dir, port, domain)); err != nil {
			return err
		}
		if err := s.write("aliases", aliasList("a%d: u%d@dest.example\n")); err != nil {
			return err
		}
		if err := s.writeKey("key.pem", "certificate.pem"); err != nil {
			return err
		}
		if err := b.addUser(eximUser); err != nil {
			return err
		}
		if err := ownedDir(s.path("spool"), eximUser); err != nil {
			return err
		}
		libraries, _ := filepath.Glob(filepath.Join(b.dir, "root", "usr", "lib", "*-linux-gnu*"))
		more, _ := filepath.Glob(filepath.Join(b.dir, "root", "lib", "*-linux-gnu*"))
		libraries = append(libraries, more...)
		start := []string{"env", "LD_LIBRARY_PATH=" + strings.Join(libraries, ":"), program, "-C", s.path("exim.conf")}
		s.flush = func() error {
			for range 4 { // each takes one message after the other
				if err := s.run(append(start, "-qff")...); err != nil {
					return err
				}
			}
			return nil
		}
		return s.run(append(start, "-bdf")...)
	})
}

// addUser makes a user who is there for us only: on top of the files of this
// machine come others, in our name space. He has the id of nobody.
func (b *bench) addUser(name string) error {
	nobody, err := user.Lookup("nobody")
	if err != nil {
		return err
	}
	if _, err := user.Lookup(name); err == nil {
		return nil
	}
	for path, line := range map[string]string{
		"/etc/passwd": fmt.Sprintf("%s:x:%s:%s::/nonexistent:/usr/sbin/nologin\n", name, nobody.Uid, nobody.Gid),
		"/etc/group":  fmt.Sprintf("%s:x:%s:\n", name, nobody.Gid),
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		ours := filepath.Join(b.dir, filepath.Base(path))
		if err := os.WriteFile(ours, append(text, line...), 0o644); err != nil {
			return err
		}
		if _, err := output("mount", "--bind", ours, path); err != nil {
			return err
		}
	}
	return nil
}
