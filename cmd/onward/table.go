package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"onward/internal/problem"
)

// narrow is below how many columns a row takes two lines.
const narrow = 120

// A screen is where lists and stories are printed. Every text that may come
// from a stranger goes through cell or wrapped, which make it visible: nothing
// else that a terminal would obey is ever written but our own colours.
type screen struct {
	*bufio.Writer
	colour  bool
	columns int // of the terminal; 0 when the output goes elsewhere, where nothing is cut
}

func newScreen(w io.Writer) *screen {
	s := &screen{Writer: bufio.NewWriter(w), colour: isTerminal(w)}
	if f, ok := w.(*os.File); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil {
			s.columns = max(columns, 60)
		}
	}
	return s
}

// narrow reports whether rows take two lines.
func (s *screen) narrow() bool { return s.columns > 0 && s.columns < narrow }

// cell makes text fit for a column of n cells, and fills that up. Without a
// terminal it is not cut.
func (s *screen) cell(text string, n int) string {
	text = visible(text)
	if s.columns > 0 && problem.Cells(text) > n {
		text = front([]rune(text), n-1) + "…"
	}
	return text + strings.Repeat(" ", max(0, n-problem.Cells(text)))
}

// arrow shows two addresses in a column of n cells. What is too much is taken
// from the longer one first.
func (s *screen) arrow(from, to string, n int) string {
	const arrow = " -> "
	from, to = visible(from), visible(to)
	if s.columns > 0 {
		room := n - len(arrow)
		from, to = shorten(from, max(room/2, room-problem.Cells(to))), shorten(to, max(room-room/2, room-problem.Cells(from)))
	}
	return s.cell(from+arrow+to, n)
}

// rest is the room that is left in a row when used cells are taken.
func (s *screen) rest(used int) int { return max(10, s.columns-used) }

// line writes a row without the blanks at its end.
func (s *screen) line(parts ...string) {
	fmt.Fprintln(s, strings.TrimRight(strings.Join(parts, ""), " "))
}

// title begins a part.
func (s *screen) title(text string) { fmt.Fprintf(s, "\n%s\n", paint(s.colour, bold, text)) }

// entry writes a label in a column of that width, a word in its colour, and a
// text that is broken into lines below its beginning. Word and text may be empty.
func (s *screen) entry(width int, label, word, text string) {
	head := "  " + s.cell(label, width-2)
	used := problem.Cells(head)
	if word = visible(word); word != "" {
		head += paint(s.colour, wordColour(word), word) + "  "
		used += problem.Cells(word) + 2
	}
	for i, line := range s.wrapped(text, used, width) {
		if i > 0 {
			head = strings.Repeat(" ", width)
		}
		s.line(head, line)
	}
}

// wrapped breaks text into lines for what room there is beside used cells on
// the first line and beside indent on the others.
func (s *screen) wrapped(text string, used, indent int) []string {
	columns := pageWidth
	if s.columns > 0 {
		columns = min(columns, s.columns)
	}
	return wrap(visible(text), columns-used, columns-indent)
}

// wordColour colours the words for what became of something, and the results of
// authentication.
func wordColour(word string) string {
	switch word {
	case "forwarded", "delivered":
		return green
	case "rejected", "refused", "dropped", "reported":
		return red
	case "queued", "deferred", "unknown", "held", "released", "retried", "waiting":
		return yellow
	case "discarded":
		return dim
	}
	return resultColour(word)
}

// shorten cuts the middle out of an address that has more than n cells, as both
// its ends say something.
func shorten(text string, n int) string {
	if problem.Cells(text) <= n || n < 1 {
		return text
	}
	runes := []rune(text)
	head, tail := (n-1)-(n-1)/2, (n-1)/2
	return front(runes, head) + "…" + back(runes, tail)
}

// front and back return as many runes of an end as fit into n cells.
func front(runes []rune, n int) string {
	end := 0
	for end < len(runes) && problem.Cells(string(runes[:end+1])) <= n {
		end++
	}
	return string(runes[:end])
}

func back(runes []rune, n int) string {
	begin := len(runes)
	for begin > 0 && problem.Cells(string(runes[begin-1:])) <= n {
		begin--
	}
	return string(runes[begin:])
}
