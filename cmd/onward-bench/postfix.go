package main

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// services are the parts of Postfix that forwarding needs, none in a chroot.
const services = ` inet n - n - - smtpd
pickup    unix n - n 60 1 pickup
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
smtp      unix - - n - - smtp
relay     unix - - n - - smtp
showq     unix n - n - - showq
error     unix - - n - - error
retry     unix - - n - - error
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
`

// mainCF is Postfix as Debian ships it, made to forward, with its limits for
// clients and destinations lifted, and without the PTR lookup of clients.
const mainCF = `compatibility_level = 3.6
myhostname = %[1]s
myorigin = $myhostname
mydestination =
mynetworks =
inet_protocols = ipv4
queue_directory = %[2]s/queue
data_directory = %[2]s/data
maillog_file = %[2]s/postfix.log
maillog_file_prefixes = %[2]s
alias_maps =
local_recipient_maps =
virtual_alias_domains = %[3]s
virtual_alias_maps = texthash:%[2]s/aliases
message_size_limit = 52428800
mailbox_size_limit = 0
default_process_limit = 1500
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
default_destination_concurrency_limit = 100
smtpd_relay_restrictions = reject_unauth_destination
`

// postfix makes Postfix alone: it checks and signs nothing, and keeps the
// return path.
func postfix(b *bench) (*system, error) {
	return b.make("postfix", func(s *system) error { return startPostfix(s, "", "") })
}

// startPostfix starts the master, with more in its two files.
func startPostfix(s *system, mainMore, masterMore string) error {
	for name, text := range map[string]string{
		"aliases":   aliasList("a%d@" + domain + " u%d@dest.example\n"),
		"main.cf":   fmt.Sprintf(mainCF, ourHost, s.dir, domain) + mainMore,
		"master.cf": s.addr + services + masterMore,
	} {
		if err := s.write(name, text); err != nil {
			return err
		}
	}
	if err := ownedDir(s.path("queue"), "root"); err != nil {
		return err
	}
	if err := ownedDir(s.path("data"), "postfix"); err != nil {
		return err
	}
	if _, err := output("postfix", "-c", s.dir, "check"); err != nil {
		return err
	}
	daemons, err := output("postconf", "-c", s.dir, "-h", "daemon_directory")
	if err != nil {
		return err
	}
	s.flush = func() error {
		_, err := output("postqueue", "-c", s.dir, "-f")
		return err
	}
	return s.run(daemons+"/master", "-c", s.dir)
}

// aliasList returns a line for each alias, with its number in two places.
func aliasList(line string) string {
	var b strings.Builder
	for i := range aliases {
		fmt.Fprintf(&b, line, i, i)
	}
	return b.String()
}

// ownedDir makes a directory that belongs to a user.
func ownedDir(path, owner string) error {
	u, err := user.Lookup(owner)
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	return os.Chown(path, uid, gid)
}

const opendkimConf = `Mode v
Socket local:%[2]s/milters/opendkim
UMask 000
Syslog no
AuthservID %[1]s
InternalHosts %[2]s/nobody
MilterDebug 0
UserID opendkim
RequireSafeKeys no
Nameservers %[3]s
PidFile %[2]s/opendkim.pid
`

const opendmarcConf = `Socket local:%[2]s/milters/opendmarc
UMask 000
Syslog false
AuthservID %[1]s
TrustedAuthservIDs %[1]s
IgnoreHosts %[2]s/nobody
RejectFailures true
SPFIgnoreResults false
SPFSelfValidate false
UserID opendmarc
PidFile %[2]s/opendmarc.pid
`

const policydConf = `debugLevel = 0
TestOnly = 1
HELO_reject = False
Mail_From_reject = False
PermError_reject = False
TempError_Defer = False
skip_addresses = 192.0.2.1/32
Header_Type = AR
Authserv_Id = %s
`

// stackMain adds the helpers to main.cf.
const stackMain = `smtpd_milters = unix:%[1]s/milters/opendkim, unix:%[1]s/milters/opendmarc
milter_default_action = tempfail
milter_protocol = 6
smtpd_recipient_restrictions = reject_unauth_destination, check_policy_service unix:private/policyd-spf
policyd-spf_time_limit = 3600
sender_canonical_maps = tcp:127.0.0.1:%[2]d
sender_canonical_classes = envelope_sender
recipient_canonical_maps = tcp:127.0.0.1:%[3]d
recipient_canonical_classes = envelope_recipient, header_recipient
`

const stackMaster = `policyd-spf unix - n n - 0 spawn user=nobody argv=/usr/bin/policyd-spf %s/policyd-spf.conf
`

// stack makes Postfix with the usual helpers around it: SPF by policyd-spf,
// DKIM by opendkim, DMARC by opendmarc, which refuses what fails, and SRS by
// postsrsd. It does not sign what it passes on.
func stack(b *bench) (*system, error) {
	return b.make("stack", func(s *system) error {
		forward, reverse := freePort(), freePort()
		if err := os.Mkdir(s.path("milters"), 0o777); err != nil {
			return err
		}
		if err := os.Chmod(s.path("milters"), 0o777); err != nil { // each helper makes its socket there
			return err
		}
		for name, text := range map[string]string{
			"nobody":           "192.0.2.1\n",
			"opendkim.conf":    fmt.Sprintf(opendkimConf, ourHost, s.dir, dnsIP),
			"opendmarc.conf":   fmt.Sprintf(opendmarcConf, ourHost, s.dir),
			"policyd-spf.conf": fmt.Sprintf(policydConf, ourHost),
			"srs.secret":       "a secret of the bench\n",
		} {
			if err := s.write(name, text); err != nil {
				return err
			}
		}
		for _, program := range [][]string{
			{"opendkim", "-f", "-x", s.path("opendkim.conf")},
			{"opendmarc", "-f", "-c", s.path("opendmarc.conf")},
			{"postsrsd", "-d", ourHost, "-s", s.path("srs.secret"), "-u", "nobody", "-l", "127.0.0.1",
				"-f", strconv.Itoa(forward), "-r", strconv.Itoa(reverse)},
		} {
			if err := s.run(program...); err != nil {
				return err
			}
		}
		return startPostfix(s, fmt.Sprintf(stackMain, s.dir, forward, reverse), fmt.Sprintf(stackMaster, s.dir))
	})
}
