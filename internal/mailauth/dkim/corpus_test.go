package dkim_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"onward/internal/mailauth/dkim"
	"onward/internal/testmail"
)

// A corpus makes messages, also by the letter (rules_test.go).
type corpus struct {
	*testmail.Corpus
	t testing.TB
}

func newCorpus(t testing.TB, seed uint64) *corpus {
	return &corpus{testmail.NewCorpus(seed, "example.org"), t}
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func bodyHash(c dkim.Canonicalization, limit int64, body string) []byte {
	var bodies dkim.BodyHashes
	h := bodies.Ask(c, limit)
	bodies.Read(strings.NewReader(body))
	return h.Sum[:]
}

// placeholder stands for b= until there is something to put into it.
const placeholder = "b=AAAA"
