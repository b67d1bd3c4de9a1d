// Package config reads onward.yaml: one struct with its defaults, every problem
// reported at once with the place it stands, files watched for change.
//
// A Config is never changed after Load returned it. A reload makes a new one,
// and whoever works with the old one finishes with it. What the aliases mean
// together (which one wins, where they lead, loops) is package alias's business,
// and so is the syntax of alias keys, targets and "from" entries: here they are
// text of the right YAML type.
//
// The tags of the structs are the one description of the file. The decoder, the
// JSON Schema and docs/configuration.md are all made from them:
//
//	yaml     the key
//	doc      what it means, one sentence
//	example  a value that works, as it would be written
//	default  the default, where it is not a constant of defaults
//	min, max the bounds, inclusive, in the notation of the file
//	enum     the only values
//	is       what kind of text a string or number is, see parse
package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/problem"
)

// Config is the whole configuration (DESIGN.md 5.1).
type Config struct {
	Hostname   address.Domain  `yaml:"hostname" is:"host" default:"required" example:"mx.example.org" doc:"The public name of this server: greeting, HELO, certificate, Authentication-Results and the default SRS domain."`
	Postmaster address.Mailbox `yaml:"postmaster" default:"required" example:"old@gmail.com" doc:"Where postmaster@ and abuse@ of every domain go, and notices about held mail."`
	StateDir   string          `yaml:"state_dir" is:"path" default:"$STATE_DIRECTORY, else ./state" example:"/var/lib/onward" doc:"The directory of keys, secrets and everything else that must survive a restart."`
	Listen     []string        `yaml:"listen" is:"listen" example:"[\"192.0.2.1:25\", \"[2001:db8::1]:25\"]" doc:"The addresses and ports to answer on; no address before the colon means all of them."`
	Domains    []*Domain       `yaml:"domains" default:"required" example:"{example.org: {aliases: {me: old@gmail.com}}}" doc:"The domains to receive mail for, by name."` // in file order, included ones after the file's own
	Include    []string        `yaml:"include" default:"none" example:"[aliases.d/*.yaml]" doc:"More files with domains, and nothing else; * ? and [ ] work in the last part of the path."`
	TLS        TLS             `yaml:"tls" doc:"The certificate shown to senders; without it a self-signed one."`
	DNS        DNS             `yaml:"dns" doc:"Whom to ask for DNS records."`
	SRS        SRS             `yaml:"srs" doc:"How return paths are rewritten, so that SPF passes and bounces find their way back."`
	DKIM       DKIM            `yaml:"dkim" doc:"How what goes on is signed in our name."`
	ARC        ARC             `yaml:"arc" doc:"Authenticated Received Chain (RFC 8617)."`
	Policy     Policy          `yaml:"policy" doc:"What to refuse."`
	Limits     Limits          `yaml:"limits" doc:"What clients and messages may use, how long things may take, and what is left free."`
	Delivery   Delivery        `yaml:"delivery" doc:"How destinations are reached."`
	Queue      Queue           `yaml:"queue" doc:"What is kept of mail whose destination is away."`
	Reports    Reports         `yaml:"reports" doc:"What is told to others about how their mail went."`
	Journal    Journal         `yaml:"journal" doc:"How long the record of what happened to each message is kept."`
	Admin      Admin           `yaml:"admin" doc:"The status page and metrics."`

	Files []string `yaml:"-"` // everything that went into this Config: files and include patterns

	stamp string // of Files, from before each was read; see Watch
}

// A Domain is one entry of `domains:`, with the aliases of its own. A domain
// that is same_as another has no aliases itself.
type Domain struct {
	Name      address.Domain `yaml:"-"`
	SameAs    address.Domain `yaml:"same_as" is:"name" default:"none" example:"example.org" doc:"Take all aliases of this other domain; no aliases of its own beside it."` // empty, or a name in Config.Domains that is not itself same_as
	SRSDomain address.Domain `yaml:"srs_domain" is:"host" default:"srs.domain" example:"srs.example.org" doc:"The SRS domain for mail to this domain."`                    // empty: Config.SRS.Domain
	KeepTag   bool           `yaml:"keep_tag" example:"true" doc:"The keep_tag of every alias that does not say itself."`
	Suspect   bool           `yaml:"tag_suspect" example:"true" doc:"The tag_suspect of every alias that does not say itself."`
	Breaks    string         `yaml:"when_dmarc_breaks" enum:"rewrite,refuse,forward" default:"that of policy" example:"forward" doc:"The when_dmarc_breaks of every alias that does not say itself."`
	Aliases   []*Alias       `yaml:"aliases" default:"required unless same_as" example:"{me: old@gmail.com, team: [a@gmail.com, b@outlook.com], \"*\": old@gmail.com}" doc:"What is written to, and where it goes: a target, a list of targets, or a mapping with the keys of an alias."` // in file order

	problem.Position `yaml:"-"`
}

// An Alias is one line of a domain: what is written to, and what becomes of it.
// Exactly one of To, Reject and Discard is set. There may be 100,000 of them, so
// that what most have in common, and the text of the file, is shared.
type Alias struct {
	Key   string   `yaml:"-"` // as written: "me", "/^inv-[0-9]+$/", "*"
	To    []string `yaml:"to" is:"address" default:"one of to, reject, discard" example:"[a@gmail.com, b@outlook.com]" doc:"The targets: addresses elsewhere, other aliases, or with a regular expression $1, ${name} and so on."`
	*Rule          // never nil

	File         *File // nil for one that is in no file
	Line, Column int32
	Start        int32 // of the line in File.Text, in octets
}

// A Rule is what an alias says beside its targets. All aliases of a domain that say
// nothing have the same one.
type Rule struct {
	Reject  string    `yaml:"reject" is:"line" default:"one of to, reject, discard" example:"\"moved, write to me@example.org\"" doc:"Refuse mail for this alias with this text: one line of ASCII."`
	Discard bool      `yaml:"discard" default:"one of to, reject, discard" example:"true" doc:"Accept mail for this alias and drop it."`
	From    []string  `yaml:"from" is:"address" default:"anybody" example:"[\"@shop.example\", ada@example.net]" doc:"Who may write to this alias: addresses, or whole domains with an @ before them."`
	Until   time.Time `yaml:"until" default:"for ever" example:"2027-01-01" doc:"The last day of this alias, UTC."` // the start of that day; zero: never ends
	KeepTag bool      `yaml:"keep_tag" default:"keep_tag of the domain" example:"true" doc:"Carry +tag on to targets that understand it: Gmail, Outlook and Hotmail, iCloud, Fastmail."`
	Suspect bool      `yaml:"tag_suspect" default:"tag_suspect of the domain" example:"true" doc:"Deliver mail that is accepted although its author is in doubt to user+suspect, at targets that understand tags: Gmail, Outlook and Hotmail, iCloud, Fastmail."`
	Breaks  string    `yaml:"when_dmarc_breaks" enum:"rewrite,refuse,forward" default:"that of the domain" example:"forward" doc:"What to do with mail that passes DMARC here and would fail it at the target: rewrite its From, refuse it, or forward it as it is."` // empty: Config.Policy.Breaks
}

// A File is a file that was read.
type File struct{ Path, Text string }

// Position is where the alias stands.
func (a *Alias) Position() problem.Position {
	if a.File == nil {
		return problem.Position{}
	}
	return problem.Position{File: a.File.Path, Line: int(a.Line), Column: int(a.Column)}
}

// Source is the line of the alias as it stands in the file.
func (a *Alias) Source() string {
	if a.File == nil || int(a.Start) > len(a.File.Text) {
		return ""
	}
	line, _, _ := strings.Cut(a.File.Text[a.Start:], "\n")
	if len(line) > maxLine {
		return ""
	}
	return strings.TrimSuffix(line, "\r")
}

// TLS is the certificate of the listener. Neither files nor acme: self-signed.
type TLS struct {
	Cert string `yaml:"cert" is:"certificate" default:"self-signed" example:"/etc/onward/cert.pem" doc:"The certificate chain in PEM form; needs tls.key."`
	Key  string `yaml:"key" is:"certificate" default:"self-signed" example:"/etc/onward/key.pem" doc:"The private key in PEM form; needs tls.cert."`
	ACME ACME   `yaml:"acme" doc:"A certificate from Let's Encrypt or another ACME authority, obtained and renewed without you; in place of tls.cert."`
}

// ACME says whom to ask for a certificate, and how to prove who we are. It is in
// use when the file has the key.
type ACME struct {
	Email     string `yaml:"email" default:"none" example:"you@gmail.com" doc:"Where the authority writes to when something is wrong."`
	Directory string `yaml:"directory" is:"url" default:"Let's Encrypt" example:"https://acme.example.net/directory" doc:"The authority, by the address of its directory."`
	Challenge string `yaml:"challenge" enum:"http-01,tls-alpn-01,dns-01" example:"tls-alpn-01" doc:"How the authority sees that the name is ours: on port 80, on port 443, or in the DNS."`
	Listen    string `yaml:"listen" is:"listen" default:":80 or :443" example:":8080" doc:"Where http-01 and tls-alpn-01 are answered, when the port is led elsewhere."`
	Roots     string `yaml:"roots" is:"file" default:"the system's" example:"/etc/onward/acme-root.pem" doc:"Certificates of those who may vouch for the authority, for one of your own."`
	DNSServer string `yaml:"dns_server" default:"none" example:"\"192.0.2.53:53\"" doc:"For dns-01: the primary name server of the zone, which takes changes by RFC 2136."`
	DNSKey    string `yaml:"dns_key" is:"file" default:"none" example:"/etc/onward/acme.key" doc:"For dns-01: the key that may change the zone, as tsig-keygen writes it."`

	On bool `yaml:"-"` // the file has the key
}

// DNS says whom to ask. No resolvers: those of /etc/resolv.conf.
type DNS struct {
	Resolvers []netip.AddrPort `yaml:"resolvers" default:"those of /etc/resolv.conf" example:"[\"127.0.0.1:53\"]" doc:"The DNS servers to ask, in this order; port 53 unless given."`
	Timeout   time.Duration    `yaml:"timeout" min:"1s" max:"1m" example:"5s" doc:"The time one query may take."`
	TrustAD   bool             `yaml:"trust_ad" example:"true" doc:"Believe these servers when they say that an answer is secured by DNSSEC, which DANE needs; servers on loopback are believed anyway."`
}

// SRS says how return paths are written (STANDARDS.md 4).
type SRS struct {
	Domain      address.Domain `yaml:"domain" is:"host" default:"hostname" example:"srs.example.org" doc:"The domain of rewritten return paths."`
	HashLength  int            `yaml:"hash_length" min:"4" max:"27" example:"10" doc:"Characters of the hash; shorter ones are not accepted back."`
	MaxAge      time.Duration  `yaml:"max_age" is:"days" min:"1d" max:"365d" example:"14d" doc:"How long bounces are accepted, in whole days; longer than queue.lifetime."`
	AutoReplies bool           `yaml:"auto_replies" example:"true" doc:"Carry automatic replies, which name a sender, back to the first sender too, when they say what they are (RFC 3834)."`
	SecretFile  string         `yaml:"secret_file" is:"file" default:"srs-secret in state_dir" example:"/etc/onward/srs-secret" doc:"The file of secrets; the default one is made on first start, a named one must exist."` // empty: srs-secret in StateDir
}

// DKIM says how we sign (STANDARDS.md K8, D9).
type DKIM struct {
	Sign     bool   `yaml:"sign" example:"false" doc:"Sign everything that goes on, in the name of the SRS domain."`
	Selector string `yaml:"selector" is:"name" example:"onward" doc:"The name under which the public key is published; a new one makes a new key."`
	Ed25519  bool   `yaml:"ed25519" example:"true" doc:"Sign with a second key, of type Ed25519, under the selector with -ed25519 behind it."`
}

// ARC says whose word about a message counts (DESIGN.md 4).
type ARC struct {
	Seal           bool     `yaml:"seal" example:"true" doc:"Add an ARC set to everything that is forwarded."`
	SealFor        []string `yaml:"seal_for" is:"name" default:"none" example:"[yahoo.com, outlook.com]" doc:"Add an ARC set to what is forwarded to these domains."`
	TrustedSealers []string `yaml:"trusted_sealers" is:"name" default:"none" example:"[lists.example.net]" doc:"Domains of mailing lists and forwarders whose intact ARC chain excuses a DMARC failure that they report as a pass."`
}

// Policy says what is refused for want of authentication (DESIGN.md 4).
type Policy struct {
	DMARC             string   `yaml:"dmarc" enum:"enforce,strict,observe" example:"observe" doc:"enforce refuses what fails DMARC with p=reject unless it came through a list or forwarder in a way that explains it; strict refuses all of it; observe refuses nothing."`
	Breaks            string   `yaml:"when_dmarc_breaks" enum:"rewrite,refuse,forward" example:"forward" doc:"What to do with mail that passes DMARC here and would fail it at the target: rewrite its From, refuse it, or forward it as it is."`
	DNSBL             []string `yaml:"dnsbl" is:"list" default:"none" example:"[zen.spamhaus.org, \"bl.example.net=127.0.0.2,127.0.0.4\"]" doc:"DNS blocklists of clients to refuse; the codes that count can be named."`
	DNSWL             []string `yaml:"dnswl" is:"list" default:"none" example:"[list.dnswl.org]" doc:"DNS lists of clients not to refuse, whatever a blocklist says."`
	Rspamd            string   `yaml:"rspamd" is:"url" default:"none" example:"http://127.0.0.1:11333" doc:"An rspamd server to ask about each message."`
	Milters           []string `yaml:"milters" is:"milter" default:"none" example:"[\"unix:/run/clamav/clamav-milter.ctl\", \"127.0.0.1:8891\"]" doc:"Milters to show each message to: unix: and a file, or a host and port. The first of them that refuses is heard."`
	ProxyProtocolFrom []string `yaml:"proxy_protocol_from" is:"forwarder" default:"none" example:"[192.0.2.1]" doc:"Addresses and networks of proxies that tell who the client is, by the PROXY protocol; they must, and nobody else may."`
	TrustedForwarders []string `yaml:"trusted_forwarders" is:"forwarder" default:"none" example:"[192.0.2.0/24, uni.example.net]" doc:"Networks, or domains that pass SPF or DKIM, whose forwarded mail is not refused for failing DMARC."`
}

// Limits are the numbers of RELIABILITY.md 5 that somebody may need to change, but
// for those that are under another key. Zero means off where the bounds allow it.
// Bounds come from the RFCs where these have any: SPF has 20 s at least (RFC 7208
// 4.6.4), a sender waits ten minutes (RFC 5321 4.5.3.2.6), and two mail hosts at least
// are asked (RFC 5321 5.1). docs/security.md says which numbers are fixed, and why.
type Limits struct {
	Message                    int64         `yaml:"message" is:"size" max:"2GiB" example:"50MiB" doc:"The largest message accepted; 0 for no limit."`
	Recipients                 int           `yaml:"recipients" max:"10000" example:"100" doc:"Recipients of one message; 0 for no limit."`
	Messages                   int           `yaml:"messages" max:"1000000" example:"100" doc:"Messages in one session; 0 for no limit."`
	Sessions                   int           `yaml:"sessions" max:"1000000" example:"1000" doc:"Sessions at the same time, all clients together; at the limit a new one takes the place of the one that keeps us waiting longest; 0 for no limit."`
	ClientSessions             int           `yaml:"client_sessions" max:"1000000" example:"50" doc:"Sessions at the same time from one IPv4 address or IPv6 /64; 0 for no limit."`
	ClientConnectionsPerMinute int           `yaml:"client_connections_per_minute" max:"1000000" example:"300" doc:"New connections a minute from one IPv4 address or IPv6 /64; 0 for no limit."`
	ClientMessagesPerMinute    int           `yaml:"client_messages_per_minute" max:"1000000" example:"500" doc:"Messages a minute from one IPv4 address or IPv6 /64; 0 for no limit."`
	ClientSizePerMinute        int64         `yaml:"client_size_per_minute" is:"size" max:"1024GiB" example:"1GiB" doc:"Octets of messages a minute from one IPv4 address or IPv6 /64; 0 for no limit."`
	SenderDomainPerMinute      int           `yaml:"sender_domain_per_minute" max:"1000000" example:"100" doc:"Messages a minute from senders in one domain; 0 for no limit."`
	AliasPerMinute             int           `yaml:"alias_per_minute" max:"1000000" example:"60" doc:"Messages a minute to one alias; 0 for no limit."`
	InFlight                   int64         `yaml:"in_flight" is:"size" max:"1024GiB" example:"4GiB" doc:"Octets of all messages that are on their way through at one moment, which need that much room in state_dir; 0 for no limit."`
	Errors                     int           `yaml:"errors" min:"1" max:"1000" example:"10" doc:"Refused commands after which a session ends; one when sessions are scarce."`
	CommandLine                int           `yaml:"command_line" min:"512" max:"2048" example:"2048" doc:"Octets of one command line."`
	HeaderSize                 int64         `yaml:"header_size" is:"size" min:"16KiB" max:"256KiB" example:"256KiB" doc:"Octets of the header section of a message."`
	HeaderFields               int           `yaml:"header_fields" min:"100" max:"1000" example:"1000" doc:"Fields in the header section of a message."`
	CommandTimeout             time.Duration `yaml:"command_timeout" min:"10s" max:"10m" example:"1m" doc:"How long a client may think about its next command; ten seconds when sessions are scarce."`
	SessionTime                time.Duration `yaml:"session_time" min:"1m" max:"1d" example:"30m" doc:"How long a session may last."`
	DataRate                   int64         `yaml:"data_rate" is:"size" max:"1GiB" example:"500B" doc:"Octets a second that a message must come with, on average after the first minute; 0 for no limit."`
	ReturnPathPerDay           int           `yaml:"return_path_per_day" max:"1000000" example:"10" doc:"Bounces to one return path in a day; 0 for no limit."`
	Hops                       int           `yaml:"hops" min:"10" max:"1000" example:"50" doc:"Received fields after which a message is taken to be in a loop; cannot be off."`
	AuthenticationTime         time.Duration `yaml:"authentication_time" min:"20s" max:"1m" example:"20s" doc:"How long the DNS has to say who a message is from, once it is here; SPF has 20s from MAIL on."`
	DKIMSignatures             int           `yaml:"dkim_signatures" min:"4" max:"32" example:"8" doc:"DKIM signatures of a message that are verified, those of its author's domain first."`
	DeliveryTime               time.Duration `yaml:"delivery_time" min:"10s" max:"4m" example:"45s" doc:"How long, while the sender waits, until a destination has the whole message."`
	AnswerTime                 time.Duration `yaml:"answer_time" min:"2m" max:"9m" example:"280s" doc:"How long a sender waits for our answer to a message at most, from its end, authentication and delivery included; rspamd and milters may add ten seconds."`
	MailHostsInSession         int           `yaml:"mail_hosts_in_session" min:"2" max:"10" example:"2" doc:"Mail hosts of a destination that are asked for one message while its sender waits."`
	MailHosts                  int           `yaml:"mail_hosts" min:"2" max:"10" example:"5" doc:"Mail hosts of a destination that one attempt of the queue asks."`
	ConnectTimeout             time.Duration `yaml:"connect_timeout" min:"5s" max:"5m" example:"30s" doc:"How long the queue waits for a connection to a mail host; while a sender waits it is ten seconds."`
	SenderReportsPerHour       int           `yaml:"sender_reports_per_hour" min:"1" max:"1000" example:"10" doc:"Reports of failures an hour to one sender; beyond it messages are held."`
	ReportsPerHour             int           `yaml:"reports_per_hour" min:"1" max:"10000" example:"100" doc:"Reports of failures an hour to all senders; beyond it messages are held."`
	ReportLifetime             time.Duration `yaml:"report_lifetime" min:"1h" max:"5d" example:"1d" doc:"How long delivery of a report or notice of ours is tried before it is dropped."`
	FreeSpace                  int64         `yaml:"free_space" is:"size" min:"64MiB" max:"1024GiB" example:"1GiB" doc:"Octets that the queue leaves free on its disk, and always twice the size of the message."`
	FreePercent                int           `yaml:"free_percent" max:"50" example:"5" doc:"Percent of its disk, and of the inodes there, that the queue leaves free."`
	DrainTime                  time.Duration `yaml:"drain_time" min:"10s" max:"10m" example:"60s" doc:"How long a stop waits for messages that are being delivered; less than whoever stops us waits until it kills."`
}

// Delivery says how destinations are reached.
type Delivery struct {
	Mode                string     `yaml:"mode" enum:"in-session,queue" example:"queue" doc:"in-session delivers while the sender waits and passes on what the destination says; queue answers first where a failure could be reported to the sender later."`
	IPv6                string     `yaml:"ipv6" enum:"auto,on,off" example:"off" doc:"auto tries IPv4 first, on tries IPv6 first, off never uses IPv6."`
	AllowPrivate        bool       `yaml:"allow_private" example:"true" doc:"Deliver to loopback and private addresses too; only for tests and inner networks."`
	Port                int        `yaml:"port" min:"1" max:"65535" example:"25" doc:"The port of the destinations."`
	Source              netip.Addr `yaml:"source" default:"the system's choice" example:"192.0.2.1" doc:"The local address to connect from."` // zero: the system's choice
	PerDestination      int        `yaml:"per_destination" max:"10000" example:"20" doc:"Connections at the same time to one mail host; 0 for no limit."`
	PerMailbox          int        `yaml:"per_mailbox" max:"10000" example:"2" doc:"Messages at the same time to one mailbox of a destination that has limited us; 0 for no limit."`
	PerMailboxPerSecond int        `yaml:"per_mailbox_per_second" max:"10000" example:"1" doc:"Messages a second to one mailbox of a destination that has limited us; 0 for no limit."`
	HideTargets         bool       `yaml:"hide_targets" example:"true" doc:"Leave the target's address out of the fields that say how a message came."`
	Relay               string     `yaml:"relay" is:"relay" default:"none" example:"smtp+starttls://user@smtp.example.net:587" doc:"Send everything through this server, where port 25 is closed: smtp+starttls:// or smtps://, user, host and port."`
	RelayPasswordFile   string     `yaml:"relay_password_file" is:"file" default:"$ONWARD_RELAY_PASSWORD" example:"/etc/onward/relay-password" doc:"The file with the password of the relay's user."`
	RelayFrom           string     `yaml:"relay_from" enum:"rewrite,keep" default:"rewrite for relays known to refuse foreign From addresses, else keep" example:"rewrite" doc:"Whether From is rewritten in everything that goes through the relay, because it takes only addresses of ours."`
}

// Queue bounds what is kept for later (RELIABILITY.md 5). Zero means off.
type Queue struct {
	Lifetime time.Duration `yaml:"lifetime" min:"1h" max:"13d" example:"5d" doc:"How long delivery is tried before the sender is told, or the message is held; shorter than srs.max_age."`
	Messages int           `yaml:"messages" max:"10000000" example:"100000" doc:"Messages in the queue, each target counted; 0 for no limit. Beyond it senders hear 4xx."`
	Size     int64         `yaml:"size" is:"size" max:"8000GiB" example:"20GiB" doc:"Octets in the queue; 0 for no limit."`
}

// Reports are sent on behalf of nobody but those who ask for them.
type Reports struct {
	TLS bool `yaml:"tls" example:"true" doc:"Send the owners of domains that ask for it a daily report of how TLS with their mail hosts went (RFC 8460)."`
}

// Admin says where the status page is, and who may change something there.
type Admin struct {
	Listen    string   `yaml:"listen" is:"listen or off" example:"\"off\"" doc:"The address and port of the status page, /metrics, /healthz and /readyz; off for none. Other addresses than loopback need a token."`
	TokenFile string   `yaml:"token_file" is:"file" default:"none: nothing can be changed there" example:"/etc/onward/admin-token" doc:"The file with the token, at least 20 characters, that lets its bearer change the queue, and see the page from elsewhere."`
	Hosts     []string `yaml:"hosts" is:"name" default:"none" example:"[status.example.org]" doc:"Names by which the page is called, beside localhost and addresses."`
}

// Journal bounds the record of what happened.
type Journal struct {
	Keep time.Duration `yaml:"keep" is:"days" min:"1d" max:"3650d" example:"30d" doc:"How long the record of a message is kept."`
	Size int64         `yaml:"size" is:"size" max:"8000GiB" example:"1GiB" doc:"How large the record may become; 0 for no limit. The oldest goes first."`
}

// defaults is the configuration of an empty file. SRS.Domain is filled in
// after reading, because it follows another key.
func defaults() *Config {
	return &Config{
		StateDir: stateDir(),
		Listen:   []string{":25"},
		DNS:      DNS{Timeout: 5 * time.Second},
		SRS:      SRS{HashLength: 10, MaxAge: 14 * 24 * time.Hour},
		Limits: Limits{
			Message:                    50 << 20,
			Recipients:                 100,
			Messages:                   100,
			Sessions:                   1000,
			ClientSessions:             50,
			ReturnPathPerDay:           10,
			ClientConnectionsPerMinute: 300,
			ClientMessagesPerMinute:    500,
			ClientSizePerMinute:        1 << 30,
			InFlight:                   4 << 30,
			Errors:                     10,
			CommandLine:                2048,
			HeaderSize:                 256 << 10,
			HeaderFields:               1000,
			CommandTimeout:             time.Minute,
			SessionTime:                30 * time.Minute,
			DataRate:                   500,
			Hops:                       50,
			AuthenticationTime:         20 * time.Second,
			DKIMSignatures:             8,
			DeliveryTime:               45 * time.Second,
			AnswerTime:                 280 * time.Second,
			MailHostsInSession:         2,
			MailHosts:                  5,
			ConnectTimeout:             30 * time.Second,
			SenderReportsPerHour:       10,
			ReportsPerHour:             100,
			ReportLifetime:             24 * time.Hour,
			FreeSpace:                  1 << 30,
			FreePercent:                5,
			DrainTime:                  time.Minute,
		},
		TLS:      TLS{ACME: ACME{Challenge: "http-01"}},
		DKIM:     DKIM{Sign: true, Selector: "onward"},
		Policy:   Policy{DMARC: "enforce", Breaks: "rewrite"},
		Delivery: Delivery{Mode: "in-session", IPv6: "auto", Port: 25, PerDestination: 20, PerMailbox: 2, PerMailboxPerSecond: 1},
		Queue:    Queue{Lifetime: 5 * 24 * time.Hour, Messages: 100_000, Size: 20 << 30},
		Admin:    Admin{Listen: "127.0.0.1:8025"},
		Journal:  Journal{Keep: 30 * 24 * time.Hour, Size: 1 << 30},
	}
}

// stateDir is what systemd's StateDirectory= gave us (the first one, when there
// are several), else ./state of the working directory.
func stateDir() string {
	dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	if dir == "" {
		dir = "state"
	}
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}
