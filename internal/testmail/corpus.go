package testmail

import (
	"crypto"
	"crypto/ed25519"
	crand "crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"

	"onward/internal/mailauth/dkim"
	"onward/internal/message"
	"onward/internal/resolver"
)

// A Corpus makes signed messages by one author's domain: every mixture of
// canonicalization, algorithm and folding, one to three signatures, odd and 8-bit
// text, and about a third of the messages changed after signing as the world
// changes them. What they look like follows from the seed; the keys, and so the
// signatures, are new each time.
type Corpus struct {
	*rand.Rand
	Domain string
	Keys   map[string]string // key records by DNS name
	Ed     ed25519.PrivateKey

	rsa    *rsa.PrivateKey
	serial int
}

// NewCorpus makes a corpus whose author and signer is domain.
func NewCorpus(seed uint64, domain string) *Corpus {
	c := &Corpus{Rand: rand.New(rand.NewPCG(seed, 6376)), Domain: domain, Keys: make(map[string]string)}
	c.rsa, _ = rsa.GenerateKey(crand.Reader, 2048)
	_, c.Ed, _ = ed25519.GenerateKey(crand.Reader)
	pkix, _ := x509.MarshalPKIXPublicKey(&c.rsa.PublicKey)
	bare := x509.MarshalPKCS1PublicKey(&c.rsa.PublicKey)
	for name, record := range map[string]string{
		"rsa":     "v=DKIM1; k=rsa; p=" + encode(pkix),
		"2026":    "p=" + encode(pkix) + ";",
		"strict":  "v=DKIM1; t=s; p=" + encode(pkix),
		"testing": "v=DKIM1; h=sha256; s=email; t=y; n=a note; p=" + encode(pkix),
		"bare":    "v=DKIM1; p=" + encode(bare),
		"revoked": "v=DKIM1; p=",
		"ed":      "v=DKIM1; k=ed25519; p=" + encode(c.Ed.Public().(ed25519.PublicKey)),
	} {
		c.Keys[name+"._domainkey."+domain] = record
	}
	return c
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// Zone returns a zone that holds the keys, and nothing else.
func (c *Corpus) Zone() *resolver.Zone {
	z := resolver.NewZone()
	c.Publish(z)
	return z
}

// Publish puts the keys into z.
func (c *Corpus) Publish(z *resolver.Zone) {
	for name, record := range c.Keys {
		if err := z.Set(name, resolver.TypeTXT, record); err != nil {
			panic(err)
		}
	}
}

func (c *Corpus) chance(percent int) bool { return c.IntN(100) < percent }

func pick[T any](c *Corpus, of ...T) T { return of[c.IntN(len(of))] }

// words returns a line of text, with odd white space, and 8-bit text at times.
func (c *Corpus) words(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(pick(c, " ", " ", " ", " ", "  ", "\t", " \t "))
		}
		b.WriteString(pick(c, "letter", "meadow", "QUARTER", "=3D", "a;b=c", "x:y", "Grüße", "日本", "\xe9t\xe9", ".", "invoice,"))
	}
	return b.String()
}

// body returns a body; every line ends in CRLF but perhaps the last.
func (c *Corpus) body() string {
	switch c.IntN(10) {
	case 0:
		return ""
	case 1:
		return strings.Repeat("\r\n", c.IntN(4))
	case 2:
		return pick(c, " \r\n", "\t\r\n\r\n", " \r\n \r\n", "x\r\n")
	}
	var b strings.Builder
	for range 1 + c.IntN(12) {
		b.WriteString(pick(c, "", "", "", " ", "\t", ".", "--") + c.words(c.IntN(14)))
		b.WriteString(pick(c, "", "", "", " ", " \t", "  ") + "\r\n")
	}
	b.WriteString(pick(c, "", "", "\r\n", "\r\n\r\n\r\n", " \r\n", "\t \r\n\r\n"))
	if c.chance(2) {
		b.WriteString(pick(c, "no end of line", "end \t"))
	}
	if c.chance(1) {
		b.WriteString(strings.Repeat("long ", 20_000) + "\r\n" + strings.Repeat("\r\n", 5_000))
	}
	return b.String()
}

// header returns fields, each with its CRLF.
func (c *Corpus) header() []string {
	c.serial++
	fields := []string{
		"Received: from client.example (client.example [192.0.2.1])\r\n\tby mx.example.org;\r\n\tSun, 1 Mar 2026 10:00:00 +0000\r\n",
		"From: " + pick(c, "ada@"+c.Domain, "Ada  Lovelace <ada@"+c.Domain+">", "=?utf-8?Q?Ad=C3=A1?= <ada@"+c.Domain+">") + "\r\n",
		pick(c, "Subject", "subject", "SUBJECT") + pick(c, ":", ": ", ":  ", ":\t") + c.words(1+c.IntN(5)) + pick(c, "", " ", "\t") + "\r\n",
		"To: bob@example.net,\r\n" + pick(c, " ", "\t", "  \t") + "carol@example.net\r\n",
		"Date: Sun, 1 Mar 2026 10:00:00 +0000\r\n",
		fmt.Sprintf("Message-ID: <%d@%s>\r\n", c.serial, c.Domain),
		"X-Empty:" + pick(c, "", " ", "\r\n ", "\r\n \r\n\t") + "\r\n",
		"X-Folded: " + c.words(3) + "\r\n " + c.words(3) + " \r\n\t\t" + c.words(2) + "\r\n",
		"X-Twice: " + c.words(2) + "\r\n",
		"X-Twice: " + c.words(2) + "\r\n",
	}
	if c.chance(3) {
		fields = append(fields, "From: mallory@example.com\r\n")
	}
	if c.chance(30) {
		c.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	}
	return fields
}

// names returns what h= has: From, others that may be absent or oversigned.
func (c *Corpus) names() []string {
	names := []string{pick(c, "From", "from", "FROM")}
	for _, n := range []string{"Subject", "to", "date", "message-id", "x-empty", "X-Folded", "x-twice", "Received", "cc", "list-id"} {
		for again := 60; c.chance(again) && len(names) < 30; {
			names = append(names, n)
			if n == "Received" {
				again = 5 // few signers forbid that a message goes on
			}
		}
	}
	if c.chance(30) {
		names = append(names, "from") // oversigned
	}
	c.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return names
}

// sign returns a DKIM-Signature of fields and body.
func (c *Corpus) sign(fields []string, body string) string {
	algorithm, selector := dkim.RSASHA256, pick(c, "rsa", "RSA", "2026", "strict", "testing")
	switch n := c.IntN(100); {
	case n < 35:
		algorithm, selector = dkim.Ed25519SHA256, "ed"
	case n < 38:
		selector = pick(c, "ed", "revoked", "absent", "bare")
	}
	header, bodyc := dkim.Canonicalization(c.IntN(2)), dkim.Canonicalization(c.IntN(2))
	words := fmt.Sprintf("c=%v/%v", header, bodyc)
	if bodyc == dkim.Simple && c.chance(30) {
		words = "c=" + header.String()
		if header == dkim.Simple && c.chance(50) {
			words = "q=dns/txt"
		}
	}
	limit := dkim.NoLimit
	var bodies dkim.BodyHashes
	whole := bodies.Ask(bodyc, dkim.NoLimit)
	bodies.Read(strings.NewReader(body))
	if c.chance(15) {
		limit = max(0, whole.Length+pick[int64](c, 0, 0, 0, -1, -10, 7))
	}
	tags := []string{"v=1", "a=" + string(algorithm), words, "d=" + pick(c, c.Domain, strings.ToUpper(c.Domain[:1])+c.Domain[1:]), "s=" + selector,
		"h=" + strings.Join(c.names(), pick(c, ":", ":", " : ", ":\r\n\t")), "bh=" + encode(bodyHash(bodyc, limit, body)), placeholder}
	if limit != dkim.NoLimit {
		tags = append(tags, fmt.Sprintf("l=%d", limit))
	}
	for _, extra := range []string{"t=1700000000", "x=4102444800", "i=@" + c.Domain, "i=ada@" + strings.ToUpper(c.Domain),
		"z=From:ada@example.org|Subject:=20x", "x-mailer=1", "i=ada@sub." + c.Domain, "x=1700000001", "t=4102444800", "i=ada@example.com"} {
		name, _, _ := strings.Cut(extra, "=")
		rare := strings.Contains("x=1700000001 t=4102444800 i=ada@example.com", extra)
		if c.chance(12) && (!rare || c.chance(15)) && !strings.Contains(";"+strings.Join(tags, ";"), ";"+name+"=") {
			tags = append(tags, extra)
		}
	}
	if c.chance(50) {
		c.Shuffle(len(tags), func(i, j int) { tags[i], tags[j] = tags[j], tags[i] })
	}
	field := pick(c, "DKIM-Signature: ", "DKIM-Signature:", "Dkim-Signature:  ") +
		strings.Join(tags, pick(c, "; ", ";", ";\r\n\t", ";\r\n  ", "; ", ";", ";\r\n\t", " ;\r\n  ")) + pick(c, "", ";", "", ";", "", "; ") + "\r\n"
	return c.seal(field, fields, algorithm)
}

func bodyHash(c dkim.Canonicalization, limit int64, body string) []byte {
	var bodies dkim.BodyHashes
	h := bodies.Ask(c, limit)
	bodies.Read(strings.NewReader(body))
	return h.Sum[:]
}

// seal puts the signature into a field.
func (c *Corpus) seal(field string, fields []string, algorithm dkim.Algorithm) string {
	all := []message.Field{{Name: "DKIM-Signature", Raw: []byte(field)}}
	for _, f := range fields {
		name, _, _ := strings.Cut(f, ":")
		all = append(all, message.Field{Name: name, Raw: []byte(f)})
	}
	s, err := dkim.ParseSignature([]byte(field))
	if err != nil && !strings.Contains(err.Error(), "expires") {
		panic(fmt.Sprintf("%q: %v", field, err))
	}
	digest, _ := s.Digest(dkim.NewHeader(all), 0)
	value := ed25519.Sign(c.Ed, digest[:])
	if algorithm == dkim.RSASHA256 {
		value, _ = rsa.SignPKCS1v15(nil, c.rsa, crypto.SHA256, digest[:])
	}
	text := encode(value)
	if c.chance(50) {
		text = " " + text[:40] + pick(c, " ", "\r\n\t", "\r\n  ") + text[40:]
	}
	return strings.Replace(field, placeholder, "b="+text, 1)
}

// placeholder stands for b= until there is something to put into it.
const placeholder = "b=AAAA"

// harm changes a signed message as the world does.
func (c *Corpus) harm(fields []string, body string) ([]string, string) {
	switch at := c.IntN(len(fields)); c.IntN(12) {
	case 0:
		body = strings.Replace(body, "letter", "Letter", 1)
	case 1:
		body += pick(c, "\r\n", "\r\n\r\n", "-- \r\nlist footer\r\n", " ")
	case 2:
		body = strings.ReplaceAll(body, "  ", " ")
	case 3:
		body = strings.ReplaceAll(body, " \r\n", "\r\n")
	case 4:
		fields[at] = strings.ReplaceAll(fields[at], "\r\n ", "\r\n\t")
	case 5:
		name, rest, _ := strings.Cut(fields[at], ":")
		fields[at] = name + ":" + strings.ReplaceAll(rest, "a", "á")
	case 6:
		fields[at] = strings.Replace(fields[at], ":", ": ", 1)
	case 7:
		fields = append(fields, pick(c, "Cc: dave@example.net\r\n", "Subject: another\r\n", "X-Twice: thrice\r\n", "List-ID: <l.example>\r\n"))
	case 8:
		fields = append([]string{pick(c, "Received: from mx.example.org by here\r\n", "Subject: another\r\n", "X-Twice: thrice\r\n")}, fields...)
	case 9:
		name, rest, _ := strings.Cut(fields[at], ":")
		fields[at] = strings.ToUpper(name) + ":" + rest
	case 10:
		fields[at] = strings.TrimSuffix(fields[at], "\r\n") + " \r\n"
	case 11:
		other := c.IntN(len(fields))
		fields[at], fields[other] = fields[other], fields[at]
	}
	return fields, body
}

// Next returns a message: up to three signatures, unharmed more often than not.
// Every line ends in CRLF but perhaps the last, and there is no other CR or LF.
func (c *Corpus) Next() []byte {
	fields, body := c.header(), c.body()
	for range pick(c, 1, 1, 1, 2, 3) {
		fields = append([]string{c.sign(fields, body)}, fields...)
	}
	if c.chance(35) {
		fields, body = c.harm(fields, body)
	}
	return []byte(strings.Join(fields, "") + "\r\n" + body)
}
