package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"onward/internal/address"
)

// A loss is something that could not be imported.
type loss struct {
	Where string `json:"where"` // "line 3", or whatever the file has
	What  string `json:"what"`
	Why   string `json:"why"`
}

// An importing is a file of another program that is being read.
type importing struct {
	own     address.Domain // whose the file is, where it does not say; may be empty
	domains []*newDomain
	lost    []loss
}

// maxImport bounds what is read, in octets.
const maxImport = 32 << 20

// importFile reads the aliases of another program. own is the domain of a file
// that names none.
func importFile(path string, stdin io.Reader, own address.Domain) (*importing, error) {
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("--import: %w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxImport+1))
	if err != nil {
		return nil, fmt.Errorf("--import: %w", err)
	}
	if len(data) > maxImport {
		return nil, fmt.Errorf("--import: %s is larger than %d MiB", path, maxImport>>20)
	}
	i := &importing{own: own}
	if err := i.read(strings.ReplaceAll(string(data), "\r\n", "\n")); err != nil {
		return nil, fmt.Errorf("--import %s: %w", path, err)
	}
	for _, d := range i.domains {
		i.overlaps(d)
	}
	i.domains = slices.DeleteFunc(i.domains, func(d *newDomain) bool { return len(d.aliases) == 0 })
	if len(i.domains) == 0 {
		return nil, fmt.Errorf("--import %s: %s", path, i.nothing())
	}
	return i, nil
}

// nothing says why no alias was found.
func (i *importing) nothing() string {
	for _, l := range i.lost {
		return fmt.Sprintf("nothing in it can be carried over; %s: %s: %s", l.Where, l.What, l.Why)
	}
	return "there is no alias in it"
}

// The lines by which two formats are told apart.
var (
	colonLine = regexp.MustCompile(`(?m)^[^\s:@#/]+[ \t]*:[ \t]*\S`)
	spaceLine = regexp.MustCompile(`(?m)^[^\s:#]*[@.][^\s:]*[ \t]+\S`)
)

// read finds out which program a file is of.
func (i *importing) read(text string) error {
	begin := strings.TrimSpace(text)
	switch {
	case strings.HasPrefix(begin, "{") || strings.HasPrefix(begin, "["):
		return i.readJSON(text)
	case strings.Contains(text, "forward-email"):
		return i.readForwardEmail(text)
	case len(colonLine.FindAllString(text, -1)) > len(spaceLine.FindAllString(text, -1)):
		return i.readChasquid(text)
	case spaceLine.MatchString(text):
		return i.readPostfix(text)
	}
	return errors.New("it is of no kind that is known here: Postfix virtual, chasquid aliases, Forward Email TXT records, JSON of Cloudflare or ImprovMX")
}

var errNoDomain = errors.New("the file does not say which domain it is for; name it: onward init --import FILE DOMAIN")

// domain returns the domain of that name, a new one when it is not known yet.
func (i *importing) domain(name address.Domain) *newDomain {
	for _, d := range i.domains {
		if d.name == name {
			return d
		}
	}
	d := &newDomain{name: name}
	i.domains = append(i.domains, d)
	return d
}

func (i *importing) lose(where, what, format string, args ...any) {
	const most = 200
	if len(what) > most {
		what = what[:most] + "..."
	}
	i.lost = append(i.lost, loss{where, what, fmt.Sprintf(format, args...)})
}

// overlaps tells where a name and a regular expression both match: there other
// programs send to both, and onward to the name's targets.
func (i *importing) overlaps(d *newDomain) {
	for _, pattern := range d.aliases {
		if !strings.HasPrefix(pattern.key, "/") || pattern.from == "" {
			continue
		}
		re, err := regexp.Compile("(?i)" + strings.Trim(pattern.key, "/"))
		if err != nil {
			continue
		}
		for _, a := range d.aliases {
			if !strings.HasPrefix(a.key, "/") && a.key != "*" && re.MatchString(a.key) && pattern.key != everybody {
				i.lose(pattern.from, pattern.key+" beside "+a.key, "both match %s@%s; onward follows the name alone", a.key, d.name)
			}
		}
	}
}

// everybody is the pattern of a catch-all whose target has the same name.
const everybody = `/^(.+)$/`

// line names a line of the file.
func line(n int) string { return fmt.Sprintf("line %d", n) }
