package signing

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"strconv"
	"strings"
)

// A Record is a TXT record that has to be in the DNS.
type Record struct {
	Name  string // without the final dot
	Value string // whole; most providers take it like this
}

// Records returns the key records of the domain (RFC 6376 3.6.1, RFC 8463 4).
func (s *Signer) Records() []Record {
	var records []Record
	for _, k := range s.keys {
		value := "v=DKIM1; k="
		switch public := k.private.Public().(type) {
		case *rsa.PublicKey:
			der, _ := x509.MarshalPKIXPublicKey(public) // cannot fail for RSA
			value += "rsa; p=" + base64.StdEncoding.EncodeToString(der)
		case ed25519.PublicKey:
			value += "ed25519; p=" + base64.StdEncoding.EncodeToString(public)
		}
		records = append(records, Record{k.name(s.domain), value})
	}
	return records
}

// maxString is the longest character-string of a TXT record (RFC 1035 3.3).
const maxString = 255

// Strings returns the value in the pieces that the DNS has it in. Whoever reads
// the record puts them together again.
func (r Record) Strings() []string {
	var pieces []string
	for value := r.Value; value != ""; {
		n := min(len(value), maxString)
		pieces = append(pieces, value[:n])
		value = value[n:]
	}
	return pieces
}

// String returns the record as a line of a zone file (RFC 1035 5.1). Nothing in
// it needs more than quotes.
func (r Record) String() string {
	var line strings.Builder
	line.WriteString(r.Name + ". IN TXT")
	for _, piece := range r.Strings() {
		line.WriteString(" " + strconv.Quote(piece))
	}
	return line.String()
}
