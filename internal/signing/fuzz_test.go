package signing_test

import (
	"strings"
	"testing"

	"onward/internal/mailauth/dkim"
)

// FuzzSign holds that what we sign verifies, whatever it is, and that our fields
// are whole lines.
func FuzzSign(f *testing.F) {
	for _, raw := range odd {
		if len(raw) < 10_000 {
			f.Add(raw)
		}
	}
	s, z := newSigner(f, true)
	f.Fuzz(func(t *testing.T, raw string) {
		raw = strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(raw, "\r\n", "\n"), "\r", ""), "\n", "\r\n") // inbound refuses the rest
		m := receive(t, raw)
		if dkim.NewHeader(m.Fields()).Malformed() {
			t.Skip("nobody can say where the header ends")
		}
		fields, signed := sign(t, s, raw)
		checkLines(t, raw, fields)
		for _, r := range ours(t, z, signed) {
			if r.Position < 2 && r.Result != dkim.Pass {
				t.Errorf("%q: %s %s", raw, r.Result, r.Reason)
			}
		}
	})
}
