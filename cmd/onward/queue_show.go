package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"onward/internal/journal"
	"onward/internal/message"
	"onward/internal/problem"
	"onward/internal/status"
	"onward/internal/store"
)

func queueList() *cobra.Command {
	var held, asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what waits, and why",
		Example: `  onward queue list
  onward queue list --held --json`,
		Args: noOperands,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			o, err := openOffice(cmd)
			if err != nil {
				return err
			}
			defer o.Close()
			l := &queueView{screen: newScreen(cmd.OutOrStdout()), now: time.Now()}
			filter := store.Filter{}
			if held {
				filter.State = store.Held
			}
			err = o.all(cmd.Context(), filter, func(page []*store.Item) error { return l.print(page, asJSON) })
			if err != nil || asJSON {
				return err
			}
			return l.total(cmd.Context(), o)
		}),
	}
	cmd.Flags().BoolVar(&held, "held", false, "only what waits for you")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print data, one object a line")
	return cmd
}

// A queueView prints items as they come.
type queueView struct {
	*screen
	now    time.Time
	headed bool
}

func (l *queueView) print(items []*store.Item, asJSON bool) error {
	for _, item := range items {
		if asJSON {
			if err := printLine(l, reportItem(item)); err != nil {
				return err
			}
			continue
		}
		l.row(item)
	}
	return l.Flush()
}

// row prints one item: on a wide terminal in a line, on a narrow one in two,
// and elsewhere in a line with nothing cut.
func (l *queueView) row(item *store.Item) {
	next, colour := l.next(item)
	head := itemColumns(strconv.FormatInt(item.ID, 10), span(l.now.Sub(item.Arrived)), strconv.Itoa(item.Attempts), paint(l.colour, colour, l.cell(next, nextWidth)))
	titles := itemColumns("ITEM", "AGE", "TRIES", l.cell("NEXT", nextWidth))
	used := problem.Cells(titles)
	if l.narrow() {
		l.head(titles + "ALIAS -> TARGET")
		l.line(head, l.arrow(item.Recipient.String(), item.Target.String(), l.rest(used)))
		l.line(strings.Repeat(" ", 8), l.cell(why(item), l.rest(8)))
		return
	}
	id, room := item.Message, 48
	if l.columns > 0 {
		id = id[:min(len(id), shortID)]
		room = min(60, l.rest(used+shortID+2)*9/20)
	}
	id = l.cell(id, len(id)) + "  "
	l.head(titles + l.cell("ID", len(id)) + l.cell("ALIAS -> TARGET", room) + "  WHY")
	l.line(head, id, l.arrow(item.Recipient.String(), item.Target.String(), room), "  ", l.cell(why(item), l.rest(used+len(id)+room+2)))
}

const nextWidth = len("in 59m")

// itemColumns are the columns that a list of items begins with.
func itemColumns(number, age, tries, next string) string {
	return fmt.Sprintf("%-6s  %-4s  %5s  %s  ", number, age, tries, next)
}

func (l *queueView) head(columns string) {
	if !l.headed && l.columns > 0 {
		l.line(paint(l.colour, dim, columns))
	}
	l.headed = true
}

// next says when an item is tried next.
func (l *queueView) next(item *store.Item) (text, colour string) {
	switch {
	case item.State == store.Held:
		return "held", yellow
	case item.Until.After(l.now):
		return "now", green
	case !item.Next.After(l.now):
		return "due", ""
	}
	return "in " + span(item.Next.Sub(l.now)), ""
}

// why says why an item is still here: why it is held, or what the last attempt
// heard.
func why(item *store.Item) string {
	switch {
	case item.Reason != "":
		return item.Reason
	case item.Host != "" && item.Said != "":
		return item.Said + " (" + item.Host + ")"
	}
	return item.Said
}

// span writes a time for people, by its largest part.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func (l *queueView) total(ctx context.Context, o *office) error {
	stats, err := o.Stats(ctx)
	if err != nil {
		return err
	}
	if stats.Waiting+stats.Held == 0 {
		l.line("The queue is empty.")
	} else {
		l.line(paint(l.colour, dim, fmt.Sprintf("%s, of which %d held; %s", count(int(stats.Waiting+stats.Held), "item"), stats.Held, status.Octets(stats.Bytes))))
	}
	return l.Flush()
}

// An itemReport is an item as data.
type itemReport struct {
	Item       int64      `json:"item"`
	Message    string     `json:"id"`
	Kind       string     `json:"kind"`
	State      string     `json:"state"`
	Reason     string     `json:"reason"` // why it is held
	From       string     `json:"from"`
	Bounceable bool       `json:"bounceable"`
	ReturnPath string     `json:"return_path"`
	Recipient  string     `json:"to"`
	Target     string     `json:"target"`
	Size       int64      `json:"size"`
	Arrived    time.Time  `json:"arrived"`
	Expires    time.Time  `json:"expires"`
	Attempts   int        `json:"attempts"`
	Next       *time.Time `json:"next"` // null for a held one
	Busy       bool       `json:"busy"` // it is being tried
	Host       string     `json:"host"` // of the last attempt
	Said       string     `json:"said"`
}

func reportItem(item *store.Item) itemReport {
	r := itemReport{
		Item: item.ID, Message: item.Message, Kind: string(item.Kind), State: string(item.State), Reason: item.Reason,
		From: item.Sender.String(), Bounceable: item.Bounceable, ReturnPath: item.From.String(), Recipient: item.Recipient.String(), Target: item.Target.String(),
		Size: item.Size, Arrived: item.Arrived, Expires: item.Expires, Attempts: item.Attempts, Busy: item.Until.After(time.Now()), Host: item.Host, Said: item.Said,
	}
	if item.State != store.Held {
		r.Next = &item.Next
	}
	return r
}

func queueShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ITEM...",
		Short: "Show all about items: header, verdict, every attempt",
		Long: `Show all about items: how things stand, the header of the message as it goes on,
what authentication found, and every attempt. The body is not shown.`,
		Example: "  onward queue show 17",
		Args:    someItems,
		RunE: onItems(func(cmd *cobra.Command, o *office, items []*store.Item) error {
			s := newScreen(cmd.OutOrStdout())
			for i, item := range items {
				if i > 0 && !asJSON {
					s.line()
				}
				if err := o.show(cmd.Context(), s, item, asJSON); err != nil {
					return err
				}
			}
			return s.Flush()
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print data, one object a line")
	return cmd
}

// show prints one item and what the journal knows of its message. A header that
// is damaged, or a journal that cannot be read, is told in its place.
func (o *office) show(ctx context.Context, s *screen, item *store.Item, asJSON bool) error {
	header, headerErr := o.header(ctx, item)
	story, storyErr := o.story(ctx, item.Message)
	if asJSON {
		out := struct {
			itemReport
			Header  string         `json:"header"`
			Journal *journal.Story `json:"journal"` // null when it knows nothing
		}{reportItem(item), string(header), story}
		return printLine(s, out)
	}
	s.item(item)
	s.title("Header")
	if headerErr != nil {
		s.entry(2, "", "", headerErr.Error())
	}
	s.verbatim(string(header))
	switch {
	case storyErr != nil:
		s.title("Journal")
		s.entry(2, "", "", storyErr.Error())
		return nil
	case story.Verdict != nil:
		s.title("What was found")
		s.verdict(story.Verdict)
	}
	s.title("What happened")
	s.happened(story.Attempts, story.Events)
	return nil
}

// header returns the header of a message as it goes on.
func (o *office) header(ctx context.Context, item *store.Item) ([]byte, error) {
	content, err := o.Content(ctx, item)
	if err != nil {
		return nil, err
	}
	return content.Header, nil
}

func (o *office) story(ctx context.Context, id string) (*journal.Story, error) {
	r, err := openJournal(ctx, o.config)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.Story(ctx, id)
}

// item prints how things stand with an item.
func (s *screen) item(item *store.Item) {
	s.line(paint(s.colour, bold, fmt.Sprintf("Item %d", item.ID)), visible(" of message "+item.Message))
	s.entry(labelWidth, "what", "", describeKind(item))
	s.entry(labelWidth, "from", "", nullable(item.Sender.String())+", goes on as "+nullable(item.From.String()))
	s.entry(labelWidth, "to", "", item.Recipient.String()+" -> "+item.Target.String())
	s.entry(labelWidth, "arrived", "", moment(item.Arrived)+", "+status.Octets(item.Size))
	switch {
	case item.State == store.Held:
		s.entry(labelWidth, "state", "held", item.Reason)
	case item.Until.After(time.Now()):
		s.entry(labelWidth, "state", "waiting", "is being tried at this moment")
	default:
		s.entry(labelWidth, "state", "waiting", "next try "+moment(item.Next)+", gives up "+moment(item.Expires))
	}
	tried := count(item.Attempts, "attempt")
	if item.Said != "" {
		tried += ", the last: " + why(&store.Item{Host: item.Host, Said: item.Said})
	}
	s.entry(labelWidth, "tried", "", tried)
	end := "in the end the sender gets a report"
	if !item.Bounceable {
		end = "in the end it is held for you, as its sender could not rightly be told"
	}
	s.entry(labelWidth, "failing", "", end)
}

func describeKind(item *store.Item) string {
	switch item.Kind {
	case store.Report:
		return "a report of ours to the sender of a message that could not be delivered"
	case store.Notice:
		return "a notice of ours to the postmaster"
	}
	return "mail"
}

// verbatim prints header fields as they are, but visible.
func (s *screen) verbatim(header string) {
	for line := range strings.SplitSeq(strings.TrimSuffix(header, "\r\n"), "\r\n") {
		if rest, folded := strings.CutPrefix(line, "\t"); folded {
			line = "        " + rest
		}
		s.line("  ", visible(line))
	}
}

// subjectOf returns the Subject in a header, for people.
func subjectOf(header []byte) string {
	buffer := message.NewBuffer("")
	defer buffer.Close()
	if _, err := io.Copy(buffer, strings.NewReader(string(header))); err != nil {
		return ""
	}
	msg, err := buffer.Message()
	if err != nil {
		return ""
	}
	for _, f := range msg.Fields() {
		if f.Is("Subject") {
			return journal.DecodeSubject(f.Value())
		}
	}
	return ""
}

// loss prints what dropping an item would lose.
func (s *screen) loss(item *store.Item, subject string) {
	s.line(fmt.Sprintf("Item %d: ", item.ID), visible(item.Recipient.String()+" -> "+item.Target.String()))
	s.entry(labelWidth, "from", "", nullable(item.Sender.String()))
	s.entry(labelWidth, "subject", "", subject)
	s.entry(labelWidth, "arrived", "", moment(item.Arrived)+", "+status.Octets(item.Size))
}
