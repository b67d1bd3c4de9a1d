package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"onward/internal/config"
	"onward/internal/doctor"
	"onward/internal/problem"
)

// begun is what init has done. It is what "init --json" prints.
type begun struct {
	Config   string          `json:"config"`
	Written  bool            `json:"written"` // a new file
	Added    bool            `json:"added"`   // to a file that was there
	KeysMade bool            `json:"keys_made"`
	Records  []doctor.Record `json:"records"`
	Reverse  []doctor.Record `json:"reverse"` // to be set by whoever rents out the addresses
	Lost     []loss          `json:"lost,omitempty"`
	Deaf     bool            `json:"dns_silent"` // what is there already is not known

	cfg       *config.Config
	container bool // it was done in ours
}

// print tells what was done and what there is to do, for people.
func (b *begun) print(w io.Writer) error {
	s := newScreen(w)
	b.show(s)
	return s.Flush()
}

func (b *begun) show(s *screen) {
	s.said(b)
	if len(b.Lost) > 0 {
		s.title("Not carried over")
		for _, l := range b.Lost {
			s.entry(4, "", "", strings.TrimPrefix(l.Where+": ", ": ")+l.What)
			s.entry(6, "", "", l.Why)
		}
	}
	if len(b.Records) > 0 {
		s.title("DNS records, as lines of a zone file")
		for _, r := range b.Records {
			s.line(visible(r.String()))
		}
		s.forms(b.Records)
		s.remarks(b)
	}
	s.title("Next")
	if slices.ContainsFunc(b.Records, func(r doctor.Record) bool { return !r.Present }) {
		s.line("  Paste the records, then run:")
	}
	for _, command := range b.next() {
		s.line("  " + visible(command))
	}
}

// next are the commands that follow. In our container they are those of README.md.
func (b *begun) next() []string {
	switch {
	case b.container && b.Added:
		return []string{"docker compose exec onward /onward doctor"}
	case b.container:
		return []string{"docker compose up -d", "docker compose exec onward /onward doctor"}
	case b.Added:
		return []string{"onward check -c " + b.Config, "onward doctor -c " + b.Config}
	}
	return []string{"onward check -c " + b.Config, "onward serve -c " + b.Config, "onward doctor -c " + b.Config}
}

// said tells what became of the files.
func (s *screen) said(b *begun) {
	holds := fmt.Sprintf("%s with %s", count(len(b.cfg.Domains), "domain"), count(countAliases(b.cfg), "alias"))
	switch {
	case b.Written:
		s.line(visible(fmt.Sprintf("Wrote %s: %s on %s.", b.Config, holds, b.cfg.Hostname)))
	case b.Added:
		s.line(visible(fmt.Sprintf("Added to %s, which now has %s on %s.", b.Config, holds, b.cfg.Hostname)))
	default:
		s.line(visible(fmt.Sprintf("%s is there, with %s on %s. Nothing was changed in it.", b.Config, holds, b.cfg.Hostname)))
	}
	if b.KeysMade {
		s.line(visible(fmt.Sprintf("Made the keys in %s. Keep a copy of them.", b.cfg.StateDir)))
	}
}

// forms prints the records as web forms ask for them, a table for each zone. The
// value stands last and is never broken, so that it can be copied.
func (s *screen) forms(records []doctor.Record) {
	var zones []string
	for _, r := range records {
		if !slices.Contains(zones, r.Zone) {
			zones = append(zones, r.Zone)
		}
	}
	for _, zone := range zones {
		s.title("The same for the web form of " + visible(zone))
		rows := [][]string{{"NAME", "TYPE", "TTL", "PRIO", "VALUE"}}
		for _, r := range records {
			if r.Zone != zone {
				continue
			}
			priority := ""
			if r.Type == "MX" {
				priority = strconv.Itoa(r.Priority)
			}
			rows = append(rows, []string{r.Label(), r.Type, strconv.Itoa(r.TTL), priority, r.Value})
		}
		widths := make([]int, 4)
		for _, row := range rows {
			for i := range widths {
				widths[i] = max(widths[i], problem.Cells(visible(row[i])))
			}
		}
		for n, row := range rows {
			text := ""
			for i, width := range widths {
				cell := visible(row[i])
				text += cell + strings.Repeat(" ", width-problem.Cells(cell)+2)
			}
			text += visible(row[4])
			if n == 0 {
				text = paint(s.colour, dim, text)
			}
			s.line(text)
		}
	}
}

// remarks tells what is beside the records.
func (s *screen) remarks(b *begun) {
	var texts []string
	if b.Deaf {
		texts = append(texts, "The DNS does not answer, so what is there already is not known. Where the domain has an SPF or DMARC record, run this again before you paste another.")
	}
	var present []string
	for _, r := range b.Records {
		if r.Present {
			present = append(present, r.Name+" "+r.Type)
		}
		for _, old := range r.Instead {
			what := "%s %s: take %s away."
			if r.Type == "TXT" {
				what = "%s %s: put the new one in place of %s"
			}
			texts = append(texts, fmt.Sprintf(what, r.Name, r.Type, old))
		}
		if r.Note != "" {
			texts = append(texts, r.Note)
		}
	}
	switch {
	case len(present) > 0 && len(present) == len(b.Records):
		texts = append(texts, "All of them are in the DNS already.")
	case len(present) > 0:
		texts = append(texts, "There already: "+strings.Join(present, ", ")+".")
	}
	if slices.ContainsFunc(b.Reverse, func(r doctor.Record) bool { return !r.Present }) {
		texts = append(texts, fmt.Sprintf("Ask whoever rents you the server to make %s the reverse DNS of its addresses; without that, Gmail takes nothing from them.", b.cfg.Hostname))
	}
	if len(b.Reverse) == 0 && slices.ContainsFunc(b.Records, func(r doctor.Record) bool { return strings.HasPrefix(r.Value, "v=spf1") }) {
		texts = append(texts, fmt.Sprintf("This machine has no public address of its own. Run init again with --ip and the one that the internet knows it by, and %s gets its address record.", b.cfg.Hostname))
	}
	if len(texts) == 0 {
		return
	}
	s.title("Mind")
	for _, text := range texts {
		s.entry(4, "-", "", text)
	}
}
