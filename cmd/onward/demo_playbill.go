package main

import (
	"fmt"
	"io"
	"strings"
)

// A playbill prints the demo: who says what to whom, in columns, coloured on a
// terminal only.
type playbill struct {
	w       io.Writer
	colour  bool
	visitor visit // the sender that is connected, or was
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
	p.row(fmt.Sprintf("%-7s > %-12s", from, to), colourOf(text), text)
}

// row prints text in a column of its own beside a label.
func (p *playbill) row(label, colour, text string) {
	for _, line := range wrap(strings.Join(strings.Fields(text), " "), 92, 92) {
		fmt.Fprintf(p.w, "   %s  %s\n", p.paint(dim, fmt.Sprintf("%-22s", label)), p.paint(colour, line))
		label = ""
	}
}

func (p *playbill) onward(text string)  { p.say("onward", "mailbox", text) }
func (p *playbill) sender(text string)  { p.say("sender", "onward", text) }
func (p *playbill) mailbox(text string) { p.say("mailbox", "onward", text) }
func (p *playbill) answer(text string)  { p.say("onward", "sender", text) }

// findings prints the results of authentication.
func (p *playbill) findings(results []string) {
	label := "Authentication-Results"
	for _, result := range results {
		colour := ""
		switch method, rest, _ := strings.Cut(result, "="); {
		case strings.HasPrefix(rest, "pass"):
			colour = green
		case strings.HasPrefix(rest, "fail") && method != "arc":
			colour = red
		}
		p.row(label, colour, result)
		label = ""
	}
}

func (p *playbill) good(format string, args ...any) {
	fmt.Fprintf(p.w, "   %s %s.\n", p.paint(green, "ok:"), fmt.Sprintf(format, args...))
}

func (p *playbill) failed(err error) {
	fmt.Fprintf(p.w, "   %s %v.\n", p.paint(red, "not as told:"), err)
}

func (p *playbill) ending(n int) {
	fmt.Fprintf(p.w, "\nAll %d went as told. Next: onward init writes a configuration, and onward serve runs it (README.md).\n", n)
}

// colourOf colours replies by their first digit.
func colourOf(text string) string {
	if len(text) < 4 || text[3] != ' ' {
		return ""
	}
	return map[byte]string{'2': green, '4': yellow, '5': red}[text[0]]
}

// envelope joins MAIL and RCPT lines, without their parameters.
func envelope(lines ...string) string {
	short := make([]string, len(lines))
	for i, line := range lines {
		short[i] = line[:strings.LastIndex(line, ">")+1]
	}
	return strings.Join(short, " ")
}
