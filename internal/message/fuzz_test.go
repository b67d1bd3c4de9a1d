package message

import (
	"bytes"
	"io"
	"testing"
)

// FuzzBuffer holds that the pieces in which a message arrives change nothing:
// the header ends at the first empty line, the fields are its bytes, and what
// comes out is what went in.
func FuzzBuffer(f *testing.F) {
	f.Add([]byte("A: b\r\n c\r\n\r\nbody\r\n"), uint8(3))
	f.Add([]byte("\r\n\r\n"), uint8(1))
	f.Add([]byte("no header"), uint8(2))
	f.Fuzz(func(t *testing.T, in []byte, piece uint8) {
		b := NewBuffer(t.TempDir())
		for rest := in; len(rest) > 0; {
			n := min(len(rest), int(piece)+1)
			b.Write(rest[:n])
			rest = rest[n:]
		}
		m, err := b.Message()
		if err != nil {
			return // header limits
		}
		defer m.Close()
		header := len(in)
		if i := bytes.Index(append([]byte("\r\n"), in...), []byte("\r\n\r\n")); i >= 0 {
			header = i
		}
		var fields []byte
		for _, field := range m.Fields() {
			fields = append(fields, field.Raw...)
		}
		if !bytes.Equal(fields, in[:header]) {
			t.Fatalf("%q in pieces of %d: fields %q, want %q", in, int(piece)+1, fields, in[:header])
		}
		if out, _ := io.ReadAll(m.Reader()); !bytes.Equal(out, in) || m.Size() != int64(len(in)) {
			t.Fatalf("%q came out as %q", in, out)
		}
		if body, _ := io.ReadAll(m.Body()); !bytes.Equal(body, in[min(header+2, len(in)):]) {
			t.Fatalf("%q: body %q", in, body)
		}
	})
}
