package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// pageWidth is where lines are broken, in columns. Words are never broken.
// maxEntry is the most octets of one text; nobody reads on after that.
const (
	pageWidth = 100
	maxEntry  = 4000
)

// A page is an explanation for people. Whatever is written to it is made
// visible first, so that no call can forget that its text may come from a
// stranger: no escape sequence, line end or change of direction gets through.
// Only the page itself writes those.
type page struct {
	w      io.Writer
	colour bool
}

// section begins a part: its name, and what it is about.
func (p *page) section(name, about string) {
	fmt.Fprintf(p.w, "\n%s\n", paint(p.colour, bold, visible(name)))
	p.text(2, about)
}

// text writes a paragraph, or nothing when there is none.
func (p *page) text(indent int, s string) {
	if s != "" {
		p.entry(indent, 0, "", "", s)
	}
}

// entry writes a label in a column of that width, a result word in the colour
// of its meaning, and a text. Its further lines stand below the column of labels,
// or where there is none (width 0) below its first. A label too long for its
// column has a line of its own. Label, result and text may be empty.
func (p *page) entry(indent, width int, label, result, text string) {
	label = visible(label)
	if width > 0 && utf8.RuneCountInString(label)+2 > width {
		fmt.Fprintf(p.w, "%s%s\n", strings.Repeat(" ", indent), label)
		label = ""
	}
	label += strings.Repeat(" ", max(0, width-utf8.RuneCountInString(label)))
	hang := indent + utf8.RuneCountInString(label)
	head, used := strings.Repeat(" ", indent)+label, hang
	if result = visible(result); result != "" {
		head += paint(p.colour, resultColour(result), result) + "  "
		used += utf8.RuneCountInString(result) + 2
	}
	if width == 0 {
		hang = used
	}
	if len(text) > maxEntry {
		text = fmt.Sprintf("%s... (%d characters)", text[:maxEntry], len(text))
	}
	for i, line := range wrap(visible(text), pageWidth-used, pageWidth-hang) {
		if i > 0 {
			head = strings.Repeat(" ", hang)
		}
		fmt.Fprintln(p.w, strings.TrimRight(head+line, " "))
	}
}

// verbatim writes the lines of s as they are, but visible.
func (p *page) verbatim(indent int, s string) {
	for line := range strings.SplitSeq(strings.TrimSuffix(s, "\r\n"), "\r\n") {
		if rest, folded := strings.CutPrefix(line, "\t"); folded {
			line = "        " + rest
		}
		fmt.Fprintf(p.w, "%s%s\n", strings.Repeat(" ", indent), visible(line))
	}
}

// table writes rows in columns, the first one as its head. A cell that is a
// result word has its colour.
func (p *page) table(indent int, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(visible(cell))+2)
		}
	}
	for n, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			cell = visible(cell)
			colour := resultColour(cell)
			if n == 0 {
				colour = dim
			}
			line.WriteString(paint(p.colour, colour, cell))
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)))
			}
		}
		fmt.Fprintf(p.w, "%s%s\n", strings.Repeat(" ", indent), strings.TrimRight(line.String(), " "))
	}
}

// resultColour colours result words, and what stands for one, by their meaning.
func resultColour(word string) string {
	switch word {
	case "pass", "accept", "match", "yes", "equal", "survives":
		return green
	case "fail", "refuse", "permerror", "no", "differs", "mistake", "fails":
		return red
	case "softfail", "temperror", "defer", "policy", "quarantine", "advice":
		return yellow
	}
	return ""
}

// wrap breaks s at spaces into at least one line, the first one of at most
// first columns, the others of rest. All spaces but those at breaks stay.
func wrap(s string, first, rest int) []string {
	var lines []string
	room, line, columns := first, "", 0
	for i, word := range strings.Split(s, " ") {
		n := utf8.RuneCountInString(word)
		if i > 0 && columns+1+n > room {
			lines = append(lines, line)
			room, line, columns = rest, word, n
			continue
		}
		if i > 0 {
			line, columns = line+" ", columns+1
		}
		line, columns = line+word, columns+n
	}
	return append(lines, line)
}

// visible writes what a terminal might obey, or might show as something else,
// as an escape of Go: control characters, invalid UTF-8, invisible characters
// and those that change the direction of writing. A tab is a space.
func visible(s string) string {
	s = strings.ReplaceAll(s, "\t", " ")
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 || !strconv.IsPrint(r) {
			quoted := strconv.Quote(s[:n])
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// shortened keeps the ends of a text that nobody reads whole, such as a key.
func shortened(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s... (%d characters)", strings.ToValidUTF8(s[:most-20], "?"), len(s))
}
