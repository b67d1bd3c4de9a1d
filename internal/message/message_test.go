package message

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// write puts s into a buffer in pieces of n octets.
func write(t *testing.T, dir, s string, n int) *Buffer {
	t.Helper()
	b := NewBuffer(dir)
	for rest := []byte(s); len(rest) > 0; {
		k := min(n, len(rest))
		if _, err := b.Write(rest[:k]); err != nil {
			t.Fatal(err)
		}
		rest = rest[k:]
	}
	return b
}

func TestMessageKeepsBytes(t *testing.T) {
	header := "Received: a\r\n b\r\nreceived: c\r\nSubject : x\r\nFrom someone\r\n"
	for _, size := range []int{0, 1, 100, MemoryLimit - len(header) - 2, MemoryLimit, 3 * MemoryLimit} {
		want := header + "\r\n" + strings.Repeat("x", size)
		for _, piece := range []int{1, 2, 3, 7, 4096, 1 << 20} {
			if piece < 7 && size > 1000 {
				continue
			}
			dir := t.TempDir()
			m, err := write(t, dir, want, piece).Message()
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // any number of readers
				if got, _ := io.ReadAll(m.Reader()); string(got) != want {
					t.Fatalf("size %d in pieces of %d: bytes changed", size, piece)
				}
			}
			if m.Sum() != sha256.Sum256([]byte(want)) || m.Size() != int64(len(want)) {
				t.Errorf("size %d in pieces of %d: wrong sum or size", size, piece)
			}
			if m.Hops() != 2 || len(m.Fields()) != 4 || !m.Fields()[2].Is("subject") || m.Fields()[3].Name != "" {
				t.Errorf("size %d in pieces of %d: fields %q", size, piece, m.Fields())
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("the temporary file has a name: %v", left)
			}
			m.Close()
		}
	}
}

func TestHeaderEnd(t *testing.T) {
	for _, tt := range []struct {
		in     string
		fields int
	}{
		{"", 0},
		{"\r\n", 0},
		{"\r\nSubject: body\r\n", 0},
		{"\r\n\r\nbody", 0},
		{"Subject: x\r\n", 1},
		{"Subject: x\r\n\r\nFrom: body\r\n", 1},
		{"Subject: x\r\nbody without an empty line\r\n", 2},
		{" folded from nothing\r\nA: b\r\n\r\n", 2},
		{"A: b\r\n \r\n\r\nC: d\r\n", 1},
	} {
		for piece := 1; piece <= len(tt.in)+1; piece++ {
			m, err := write(t, t.TempDir(), tt.in, piece).Message()
			if err != nil || len(m.Fields()) != tt.fields {
				t.Errorf("%q in pieces of %d: %d fields, %v; want %d", tt.in, piece, len(m.Fields()), err, tt.fields)
			}
		}
	}
}

func TestHeaderTooLarge(t *testing.T) {
	for name, in := range map[string]string{
		"octets":        "A: " + strings.Repeat("x", MaxHeaderSize) + "\r\n\r\nbody",
		"fields":        strings.Repeat("A: b\r\n", MaxFields+1) + "\r\nbody",
		"no empty line": strings.Repeat("x", MaxHeaderSize+1),
	} {
		if _, err := write(t, t.TempDir(), in, 4096).Message(); err != ErrHeaderTooLarge {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := write(t, t.TempDir(), strings.Repeat("A: b\r\n", MaxFields)+"\r\nbody", 4096).Message(); err != nil {
		t.Errorf("%d fields: %v", MaxFields, err)
	}
}

func TestEightBit(t *testing.T) {
	for at := range 20 {
		b := bytes.Repeat([]byte("x"), 20)
		if hasEightBit(b) {
			t.Fatal("seven bits taken for eight")
		}
		b[at] = 0x80
		if !hasEightBit(b) {
			t.Errorf("octet %d was missed", at)
		}
	}
	m, _ := write(t, t.TempDir(), "Subject: x\r\n\r\nü", 100).Message()
	if !m.EightBit() || m.HeaderEightBit() {
		t.Error("eight bits in the body only")
	}
}

func TestTroubleIsSaid(t *testing.T) {
	b := NewBuffer(t.TempDir() + "/missing")
	if _, err := b.Write(make([]byte, MemoryLimit+1)); err == nil {
		t.Error("no error without a directory")
	}
}

func TestNewID(t *testing.T) {
	seen := map[string]bool{}
	now := time.Now()
	for range 1000 {
		id := NewID(now)
		if len(id) != 26 || seen[id] || strings.Trim(id, crockford) != "" {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
	if a, b := NewID(now), NewID(now.Add(time.Millisecond)); a >= b {
		t.Errorf("%q is not before %q", a, b)
	}
}

func BenchmarkBuffer(b *testing.B) {
	for _, size := range []int{10 << 10, 25 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			line := []byte(strings.Repeat("x", 76) + "\r\n")
			block := bytes.Repeat(line, 400)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				buf := NewBuffer(b.TempDir())
				for n := 0; n < size; n += len(block) {
					buf.Write(block[:min(len(block), size-n)])
				}
				buf.Close()
			}
		})
	}
}

// TestWithout holds that a message without some fields is the same bytes
// without theirs, whether in memory or in a file.
func TestWithout(t *testing.T) {
	for _, body := range []string{"", "\r\n", "\r\nbody\r\n", "\r\n" + strings.Repeat("x", 2*MemoryLimit)} {
		in := "A: 1\r\nDrop: 2\r\n folded\r\nB: 3\r\ndrop : 4\r\n"
		m, err := write(t, t.TempDir(), in+body, 4096).Message()
		if err != nil {
			t.Fatal(err)
		}
		less := m.Without(func(f Field) bool { return f.Is("drop") })
		want := "A: 1\r\nB: 3\r\n" + body
		got, _ := io.ReadAll(less.Reader())
		if string(got) != want || less.Size() != int64(len(want)) || len(less.Fields()) != 2 {
			t.Errorf("got %.60q, size %d, %d fields", got, less.Size(), len(less.Fields()))
		}
		if all, _ := io.ReadAll(m.Reader()); string(all) != in+body {
			t.Error("the message itself changed")
		}
		if same := m.Without(func(Field) bool { return false }); same != m {
			t.Error("a copy without need")
		}
	}
}
