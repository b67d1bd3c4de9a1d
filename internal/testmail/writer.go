package testmail

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"

	"onward/internal/mailauth/dkim"
	"onward/internal/message"
	"onward/internal/resolver"
)

// A Writer is a kind of sender: a domain, whether it is really there, and how the
// daemon can know. The addresses are those of forty people each, "ann.7" and so
// on, because some things are counted by address.
type Writer struct {
	Class  Class
	From   string     // of the envelope; empty for the null sender
	Author string     // of the From field
	Client netip.Addr // where it connects from
	Helo   string
	Key    *Key // signs its messages; may be nil
}

// A Cast is one Writer of each kind that the daemon must tell from the others.
// Their domains have MX records, so that reports can reach them.
type Cast struct {
	SPF    *Writer // SPF passes for MAIL FROM; no signature
	Signed *Writer // a DKIM signature makes DMARC pass for MAIL FROM; no SPF record
	Forged *Writer // SPF fails, no signature, and a DMARC policy that refuses nothing
	Null   *Writer // bounces
}

// NewCast publishes the senders in zone, whose hosts all have one address.
func NewCast(zone *resolver.Zone, host netip.Addr) *Cast {
	set := func(name string, t resolver.Type, data string) {
		if err := zone.Set(name, t, data); err != nil {
			panic(err)
		}
	}
	set("mx.writer.example", resolver.TypeA, host.String())
	for _, domain := range []string{"spf.example", "signed.example", "forged.example"} {
		set(domain, resolver.TypeMX, "10 mx.writer.example.")
	}
	set("spf.example", resolver.TypeTXT, "v=spf1 ip4:127.0.0.2 -all")
	set("forged.example", resolver.TypeTXT, "v=spf1 ip4:127.0.0.2 -all")
	set("_dmarc.forged.example", resolver.TypeTXT, "v=DMARC1; p=none")
	set("_dmarc.signed.example", resolver.TypeTXT, "v=DMARC1; p=reject")
	key := NewKey("signed.example", "s1")
	set(key.Record())
	return &Cast{
		SPF:    &Writer{Class: Bounceable, From: "ann@spf.example", Author: "ann@spf.example", Client: netip.MustParseAddr("127.0.0.2"), Helo: "mx.writer.example"},
		Signed: &Writer{Class: Bounceable, From: "bea@signed.example", Author: "bea@signed.example", Client: netip.MustParseAddr("127.0.0.3"), Helo: "mx.writer.example", Key: key},
		Forged: &Writer{Class: Unbounceable, From: "eve@forged.example", Author: "eve@forged.example", Client: netip.MustParseAddr("127.0.0.4"), Helo: "mx.writer.example"},
		Null:   &Writer{Class: NullSender, Author: "mailer-daemon@spf.example", Client: netip.MustParseAddr("127.0.0.5"), Helo: "mx.writer.example"},
	}
}

// addresses returns what the n-th message has in its envelope and in From.
func (w *Writer) addresses(n int) (from, author string) {
	person := fmt.Sprintf(".%d@", n%40)
	return strings.Replace(w.From, "@", person, 1), strings.Replace(w.Author, "@", person, 1)
}

// letter returns a message by w, with a signature if it has a key.
func (w *Writer) letter(id, author, to, body string) []byte {
	header := fmt.Sprintf("From: A Writer <%s>\r\nTo: <%s>\r\nSubject: letter %s\r\nDate: Sun, 1 Mar 2026 10:00:00 +0000\r\nMessage-ID: <%s>\r\n", author, to, id, id)
	if w.Key != nil {
		header = w.Key.Sign(header, body) + header
	}
	return []byte(header + "\r\n" + body)
}

// A Key signs by DKIM: RSA-SHA256, 2048 bits.
type Key struct {
	domain, selector string
	private          *rsa.PrivateKey
}

// NewKey makes a key.
func NewKey(domain, selector string) *Key {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return &Key{domain, selector, private}
}

// Record returns the key record, as Zone.Set takes it.
func (k *Key) Record() (name string, t resolver.Type, text string) {
	public, err := x509.MarshalPKIXPublicKey(&k.private.PublicKey)
	if err != nil {
		panic(err)
	}
	return k.selector + "._domainkey." + k.domain, resolver.TypeTXT, "v=DKIM1; p=" + encode(public)
}

// Sign returns the DKIM-Signature field, relaxed/relaxed, of header fields and a
// body that all end in CRLF.
func (k *Key) Sign(header, body string) string {
	field := fmt.Sprintf("DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=%s; s=%s;\r\n\th=from:to:subject:date:message-id;\r\n\tbh=%s; %s\r\n",
		k.domain, k.selector, encode(bodyHash(dkim.Relaxed, dkim.NoLimit, body)), placeholder)
	fields := []message.Field{{Name: "DKIM-Signature", Raw: []byte(field)}}
	for line := range strings.Lines(header) {
		name, _, _ := strings.Cut(line, ":")
		fields = append(fields, message.Field{Name: name, Raw: []byte(line)})
	}
	signature, err := dkim.ParseSignature(fields[0].Raw)
	if err != nil {
		panic(err)
	}
	digest, _ := signature.Digest(dkim.NewHeader(fields), 0)
	value, err := rsa.SignPKCS1v15(nil, k.private, crypto.SHA256, digest[:])
	if err != nil {
		panic(err)
	}
	return strings.Replace(field, placeholder, "b="+encode(value), 1)
}
