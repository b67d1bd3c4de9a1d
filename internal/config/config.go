// Package config reads onward.yaml: one struct with its defaults, every problem
// reported at once with the place it stands, files watched for change.
//
// A Config is never changed after Load returned it. A reload makes a new one,
// and whoever works with the old one finishes with it. What the aliases mean
// together (which one wins, where they lead, loops) is package alias's business.
package config

import (
	"net/netip"
	"time"

	"onward/internal/address"
	"onward/internal/problem"
)

// Config is the whole configuration (DESIGN.md 5.1). The yaml tag is the key
// in the file; the doc tag describes it in the JSON Schema.
type Config struct {
	Hostname   address.Domain  `yaml:"hostname" doc:"..."`
	Postmaster address.Mailbox `yaml:"postmaster" doc:"..."`
	StateDir   string          `yaml:"state_dir" doc:"..."`
	Listen     []string        `yaml:"listen" doc:"..."`
	Domains    []*Domain       `yaml:"domains" doc:"..."` // in file order
	TLS        TLS             `yaml:"tls" doc:"..."`
	DNS        DNS             `yaml:"dns" doc:"..."`
	SRS        SRS             `yaml:"srs" doc:"..."`
	Limits     Limits          `yaml:"limits" doc:"..."`
	Delivery   Delivery        `yaml:"delivery" doc:"..."`

	Files []string `yaml:"-"` // everything read to make this Config, for watching
}

// A Domain is one entry of `domains:`, with the aliases of its own. A domain
// that is same_as another has no aliases itself.
type Domain struct {
	Name      address.Domain
	SameAs    address.Domain // empty, or a name in Config.Domains that is not itself same_as
	SRSDomain address.Domain // empty: Config.SRS.Domain, or Hostname
	KeepTag   bool           // default for the aliases
	Aliases   []*Alias       // in file order
	problem.Position
}

// An Alias is one line of a domain: what is written to, and what becomes of it.
// Exactly one of To, Reject and Discard is set.
type Alias struct {
	Key     string    // as written: "me", "/^inv-[0-9]+$/", "*"
	To      []string  // targets as written: "a@gmail.com", "${1}@gmail.com", "other@example.org"
	Reject  string    // the text of the refusal
	Discard bool      // accept and drop
	From    []string  // who may write: "ada@shop.example", "@shop.example"; empty: anybody
	Until   time.Time // the alias ends at the end of this day, UTC; zero: never
	KeepTag bool      // carry "+tag" on to targets that understand it
	problem.Position
	Source string // the line as it stands in the file
}

// TLS is the certificate of the listener. Neither file: self-signed.
type TLS struct {
	Cert string
	Key  string
}

// DNS says whom to ask. No resolvers: those of /etc/resolv.conf.
type DNS struct {
	Resolvers []netip.AddrPort
	Timeout   time.Duration // of one query; default 5s
}

// SRS says how return paths are written (STANDARDS.md 4).
type SRS struct {
	Domain     address.Domain // default: Hostname
	HashLength int            // characters; default 10, 4 to 27
	MaxAge     time.Duration  // whole days; default 14d
	SecretFile string         // default: srs-secret in StateDir
}

// Limits bounds what one client and all clients may use (RELIABILITY.md 5).
// Zero means off.
type Limits struct {
	Message                    int64 // octets; default 50MiB
	Recipients                 int   // a transaction; default 100
	Messages                   int   // a session; default 100
	Sessions                   int   // in all; default 1000
	ClientSessions             int   // from one IPv4 address or IPv6 /64; default 50
	ClientConnectionsPerMinute int
	ClientMessagesPerMinute    int
	Hops                       int // Received fields; default 50
}

// Delivery says how destinations are reached.
type Delivery struct {
	IPv6         string     // "auto": IPv4 first; "on": IPv6 first; "off": never
	AllowPrivate bool       // dial loopback and private addresses; for tests and inner networks
	Port         int        // default 25
	Source       netip.Addr // local address to dial from; zero: the system's choice
}
