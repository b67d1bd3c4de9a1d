package problem

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// Colours of a terminal (ECMA-48), as Write uses them.
const (
	red, yellow, bold, plain = "\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[0m"
)

// What of a long source line is shown: so many characters up to the column,
// and so many altogether.
const (
	before = 80
	most   = 120
)

// Write prints l for people: "file:line:column: sentence", then the source line
// and a caret under the column. The source comes from a file that anybody may
// have written: what a terminal would act on is shown escaped.
func Write(w io.Writer, l List, color bool) error {
	out := bufio.NewWriter(w)
	paint := func(style, text string) string {
		if !color {
			return text
		}
		return style + text + plain
	}
	for _, p := range l {
		style, mark := red, ""
		if p.Warning {
			style, mark = yellow, paint(yellow, "warning: ")
		}
		fmt.Fprintf(out, "%s: %s%s\n", paint(bold, escape(p.Position.String())), mark, escape(p.Text))
		if p.Source == "" {
			continue
		}
		line, indent := excerpt(p.Source, p.Column)
		fmt.Fprintf(out, "    %s\n", line)
		if p.Column > 0 {
			fmt.Fprintf(out, "    %s%s\n", strings.Repeat(" ", indent), paint(style, "^"))
		}
	}
	return out.Flush()
}

// excerpt returns the part of source around column as a terminal can show it,
// and how many cells of it stand before the column.
func excerpt(source string, column int) (line string, indent int) {
	runes := []rune(source)
	at := min(max(column-1, 0), len(runes))
	start := max(0, at-before)
	end := min(len(runes), start+most)
	left := escape(string(runes[start:at]))
	line = left + escape(string(runes[at:end]))
	indent = Cells(left)
	if start > 0 {
		line, indent = "…"+line, indent+1
	}
	if end < len(runes) {
		line += "…"
	}
	return strings.TrimRight(line, " "), indent
}

// escape shows tabs as blanks, and what does not print as \u{...}.
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\t':
			b.WriteString("    ")
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
	}
	return b.String()
}

// Cells counts the columns of a terminal: wide characters take two, marks none.
func Cells(s string) int {
	n := 0
	for _, r := range s {
		switch kind := width.LookupRune(r).Kind(); {
		case unicode.In(r, unicode.Mn, unicode.Me):
		case kind == width.EastAsianWide || kind == width.EastAsianFullwidth:
			n += 2
		default:
			n++
		}
	}
	return n
}
