package main

import (
	"fmt"
	"io"
	"strings"
)

// A playbill prints the demo: who says what to whom, in columns, coloured on a
// terminal only.
type playbill struct {
	w      io.Writer
	colour bool
}

func (p *playbill) paint(colour, s string) string { return paint(p.colour, colour, s) }

func (p *playbill) title(name, what string) {
	fmt.Fprintf(p.w, "%s: %s\n", p.paint(bold, name), what)
}

func (p *playbill) story(n int, title string) {
	fmt.Fprintf(p.w, "\n%s\n", p.paint(bold, fmt.Sprintf("%d. %s", n, title)))
}

// say prints one line of the conversation.
func (p *playbill) say(from, to, text string) {
	fmt.Fprintf(p.w, "   %s  %s\n", p.paint(dim, fmt.Sprintf("%-7s > %-12s", from, to)), p.paint(colourOf(text), shorten(text)))
}

func (p *playbill) onward(text string)  { p.say("onward", "mailbox", text) }
func (p *playbill) sender(text string)  { p.say("sender", "onward", text) }
func (p *playbill) mailbox(text string) { p.say("mailbox", "onward", text) }
func (p *playbill) answer(text string)  { p.say("onward", "sender", text) }

func (p *playbill) good(format string, args ...any) {
	fmt.Fprintf(p.w, "   %s %s.\n", p.paint(green, "ok:"), fmt.Sprintf(format, args...))
}

func (p *playbill) failed(err error) {
	fmt.Fprintf(p.w, "   %s %v.\n", p.paint(red, "not as told:"), err)
}

func (p *playbill) ending(n int) {
	fmt.Fprintf(p.w, "\nAll %d went as told. Next: write onward.yaml (README.md), then onward check and onward serve.\n", n)
}

// colourOf colours replies by their first digit.
func colourOf(text string) string {
	if len(text) < 4 || text[3] != ' ' {
		return ""
	}
	return map[byte]string{'2': green, '4': yellow, '5': red}[text[0]]
}

// shorten keeps a line within the width of a terminal.
func shorten(s string) string {
	const width = 110
	if len(s) <= width {
		return s
	}
	return s[:width-3] + "..."
}

// envelope joins MAIL and RCPT lines, without their parameters.
func envelope(lines ...string) string {
	short := make([]string, len(lines))
	for i, line := range lines {
		short[i] = line[:strings.LastIndex(line, ">")+1]
	}
	return strings.Join(short, " ")
}
