package problem

import (
	"strings"
	"testing"
)

func at(line, column int) Position { return Position{File: "onward.yaml", Line: line, Column: column} }

func TestWrite(t *testing.T) {
	for _, tt := range []struct {
		name string
		p    Problem
		want string
	}{
		{"whole file", Problem{Position: at(0, 0), Text: "is empty"}, "onward.yaml: is empty\n"},
		{"no column", Problem{Position: at(3, 0), Text: "x", Source: "a: b"}, "onward.yaml:3: x\n    a: b\n"},
		{"caret", Problem{Position: at(3, 4), Text: "x", Source: "a: b"}, "onward.yaml:3:4: x\n    a: b\n       ^\n"},
		{"first column", Problem{Position: at(3, 1), Text: "x", Source: "a: b"}, "onward.yaml:3:1: x\n    a: b\n    ^\n"},
		{"column behind the end", Problem{Position: at(3, 9), Text: "x", Source: "a: b"}, "onward.yaml:3:9: x\n    a: b\n        ^\n"},
		{"tab", Problem{Position: at(1, 2), Text: "x", Source: "\ta"}, "onward.yaml:1:2: x\n        a\n        ^\n"},
		{"wide", Problem{Position: at(1, 5), Text: "x", Source: "日本: b"}, "onward.yaml:1:5: x\n    日本: b\n          ^\n"},
		{"combining", Problem{Position: at(1, 5), Text: "x", Source: "e\u0301: b"}, "onward.yaml:1:5: x\n    e\u0301: b\n       ^\n"},
		{"terminal escape", Problem{Position: at(1, 3), Text: "x\r\ny", Source: "\x1b[b"},
			"onward.yaml:1:3: x\\u{d}\\u{a}y\n    \\u{1b}[b\n           ^\n"},
		{"bidirectional override", Problem{Position: at(1, 1), Text: "x", Source: "\u202ea"}, "onward.yaml:1:1: x\n    \\u{202e}a\n    ^\n"},
		{"warning", Problem{Position: at(1, 1), Text: "x", Warning: true}, "onward.yaml:1:1: warning: x\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			if err := Write(&b, List{tt.p}, false); err != nil || b.String() != tt.want {
				t.Errorf("Write = %v\n%q, want\n%q", err, b.String(), tt.want)
			}
		})
	}
}

func TestWriteLongLine(t *testing.T) {
	p := Problem{Position: at(1, 5001), Text: "x", Source: strings.Repeat("a", 5000) + "B" + strings.Repeat("c", 5000)}
	var b strings.Builder
	if err := Write(&b, List{p}, false); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	line, caret := []rune(lines[1]), strings.Index(lines[2], "^")
	if len(line) > 130 || line[caret] != 'B' {
		t.Errorf("caret under %q in a line of %d, want under B in at most 130", line[caret], len(line))
	}
}

func TestWriteColor(t *testing.T) {
	var b strings.Builder
	if err := Write(&b, List{{Position: at(1, 1), Text: "x", Source: "a"}}, true); err != nil {
		t.Fatal(err)
	}
	if want := "\x1b[1monward.yaml:1:1\x1b[0m: x\n    a\n    \x1b[31m^\x1b[0m\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestSortAndFatal(t *testing.T) {
	l := List{{Position: at(9, 1), Text: "late"}, {Position: at(2, 5), Text: "second", Warning: true}, {Position: at(2, 1), Text: "first"}}
	l.Sort()
	if got, want := l.Error(), "onward.yaml:2:1: first\nonward.yaml:2:5: second\nonward.yaml:9:1: late"; got != want {
		t.Errorf("sorted: %s", got)
	}
	if fatal := l.Fatal(); len(fatal) != 2 || len(l) != 3 {
		t.Errorf("Fatal = %v of %v", fatal, l)
	}
}
