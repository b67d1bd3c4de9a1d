package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// Sign makes a field that signs, in relaxed form, the fields that names stand for
// and itself (RFC 6376 3.7, RFC 8463 3). It will stand above header, which has not
// got it. The field function writes it around a value of b=, twice: what it writes
// may differ in nothing else. bh= is the caller's.
func Sign(key crypto.Signer, header *Header, names []string, field func(b string) []byte) ([]byte, error) {
	var text []byte
	for _, i := range header.Select(-1, names) {
		text = Relaxed.AppendField(text, header.Field(i).Raw)
	}
	digest := sha256.Sum256(Relaxed.AppendSigned(text, field("")))
	var hash crypto.Hash = crypto.SHA256
	if _, ok := key.(ed25519.PrivateKey); ok {
		hash = 0 // the digest is its message
	}
	b, err := key.Sign(rand.Reader, digest[:], hash)
	if err != nil {
		return nil, err
	}
	return field(base64.StdEncoding.EncodeToString(b)), nil
}

// LayOut writes a field with a tag to a line. Lines begin with a space and not a
// tab, as some verifiers of ARC look for " i=1;".
func LayOut(name string, tags ...string) []byte {
	return []byte(name + ": " + strings.Join(tags, ";\r\n ") + "\r\n")
}

// NameList returns names for h=, folded after a colon before column 78.
func NameList(names []string) string {
	var list strings.Builder
	column := len(" h=")
	for i, name := range names {
		if i > 0 {
			list.WriteByte(':')
		}
		if column += len(name) + 1; column > 78 {
			list.WriteString("\r\n ")
			column = len(name) + 2
		}
		list.WriteString(name)
	}
	return list.String()
}
