package certificate

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"
)

// An updater changes our zone on its primary name server (RFC 2136), with a
// shared key (RFC 8945).
type updater struct {
	server    string
	key       string // its name, absolute
	algorithm string
	secret    string // base64
}

// maxKeyFile bounds what is read, in octets.
const maxKeyFile = 4 << 10

// newUpdater reads a key as tsig-keygen and BIND write it:
//
//	key "onward" { algorithm hmac-sha256; secret "...base64..."; };
func newUpdater(server, keyFile string) (*updater, error) {
	if _, _, err := net.SplitHostPort(server); err != nil {
		return nil, fmt.Errorf("tls.acme: challenge dns-01 needs dns_server, the primary name server of the zone as host:port: %w", err)
	}
	info, err := os.Stat(keyFile)
	if err != nil {
		return nil, fmt.Errorf("tls.acme.dns_key: %w; make one with tsig-keygen", err)
	}
	if info.Mode().Perm()&0o077 != 0 || info.Size() > maxKeyFile {
		return nil, fmt.Errorf("tls.acme.dns_key: %s must be a small file that no other user may read: run chmod 600 %s", keyFile, keyFile)
	}
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("tls.acme.dns_key: %w", err)
	}
	u := &updater{server: server}
	words := strings.Fields(strings.NewReplacer("{", " ", "}", " ", ";", " ", `"`, " ").Replace(string(text)))
	for i := 0; i+1 < len(words); i += 2 {
		switch words[i] {
		case "key":
			u.key = dns.CanonicalName(words[i+1])
		case "algorithm":
			u.algorithm = dns.CanonicalName(words[i+1])
		case "secret":
			u.secret = words[i+1]
		}
	}
	secret, err := base64.StdEncoding.DecodeString(u.secret)
	known := u.algorithm == dns.HmacSHA256 || u.algorithm == dns.HmacSHA384 || u.algorithm == dns.HmacSHA512
	if err != nil || len(secret) < 16 || !known || u.key == "" {
		return nil, fmt.Errorf(`tls.acme.dns_key: %s does not hold one key of the form: key "name" { algorithm hmac-sha256; secret "..."; };`, keyFile)
	}
	return u, nil
}

// AppendRecords and DeleteRecords are how certmagic asks for changes.
func (u *updater) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, u.update(ctx, zone, records, (*dns.Msg).Insert)
}

func (u *updater) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, u.update(ctx, zone, records, (*dns.Msg).Remove)
}

// update sends one change, and believes only a signed answer.
func (u *updater) update(ctx context.Context, zone string, records []libdns.Record, change func(*dns.Msg, []dns.RR)) error {
	msg := new(dns.Msg).SetUpdate(dns.Fqdn(zone))
	for _, record := range records {
		r := record.RR()
		hdr := dns.RR_Header{Name: libdns.AbsoluteName(r.Name, dns.Fqdn(zone)), Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(r.TTL / time.Second)}
		change(msg, []dns.RR{&dns.TXT{Hdr: hdr, Txt: []string{r.Data}}})
	}
	msg.SetTsig(u.key, u.algorithm, 300, time.Now().Unix())
	client := dns.Client{Net: "tcp", Timeout: 10 * time.Second, TsigSecret: map[string]string{u.key: u.secret}}
	answer, _, err := client.ExchangeContext(ctx, msg, u.server)
	switch {
	case err != nil:
		return fmt.Errorf("update of %s on %s: %w", zone, u.server, err)
	case answer.IsTsig() == nil:
		return fmt.Errorf("update of %s on %s: the answer (%s) is not signed; does the server know the key %s?", zone, u.server, dns.RcodeToString[answer.Rcode], u.key)
	case answer.Rcode != dns.RcodeSuccess:
		return fmt.Errorf("update of %s on %s: %s; may the key %s change TXT records there?", zone, u.server, dns.RcodeToString[answer.Rcode], u.key)
	}
	return nil
}
