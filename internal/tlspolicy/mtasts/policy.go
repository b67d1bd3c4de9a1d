package mtasts

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"onward/internal/address"
)

// maxAge is the most seconds a policy may be kept (RFC 8461 3.2).
const maxAge = 31557600

// A Mode is what a sender is to do with hosts that a policy does not vouch for.
type Mode string

// The modes (RFC 8461 5).
const (
	Enforce Mode = "enforce" // send nothing there
	Testing Mode = "testing" // send, and report
	None    Mode = "none"    // as if there were no policy
)

// A Policy is what a domain asks of those who send mail to it (RFC 8461 3.2).
type Policy struct {
	Mode   Mode
	MX     []string // patterns, lower case: "mx.example.org", "*.example.org"
	MaxAge time.Duration
}

// ParsePolicy reads a policy file. Fields it does not know are ignored, of
// fields that come twice the first counts, and lines without anything are
// tolerated.
func ParsePolicy(text []byte) (*Policy, error) {
	p := &Policy{}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		name, value, err := parseLine(line)
		if err == nil && name != "" && (name == "mx" || !seen[name]) {
			seen[name] = true
			err = p.set(name, value)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"version", "mode", "max_age"} {
		if !seen[name] {
			return nil, fmt.Errorf("it has no %s", name)
		}
	}
	if p.Mode != None && len(p.MX) == 0 {
		return nil, errors.New("it has no mx")
	}
	return p, nil
}

// parseLine takes a line apart. An empty one has neither name nor value.
func parseLine(line string) (name, value string, err error) {
	line = strings.TrimRight(strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), " \t")
	if line == "" {
		return "", "", nil
	}
	name, value, ok := strings.Cut(line, ":")
	value = strings.TrimLeft(value, " \t")
	if !ok || !isName(name) || value == "" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", "", fmt.Errorf("the line %.80q is no field", line)
	}
	return name, value, nil
}

// set takes one field.
func (p *Policy) set(name, value string) error {
	switch name {
	case "version":
		if value != "STSv1" {
			return fmt.Errorf("version %.40q is not known", value)
		}
	case "mode":
		p.Mode = Mode(value)
		if p.Mode != Enforce && p.Mode != Testing && p.Mode != None {
			return fmt.Errorf("mode %.40q is not known", value)
		}
	case "max_age":
		seconds, err := strconv.ParseUint(value, 10, 64)
		if err != nil || len(value) > 10 {
			return fmt.Errorf("max_age %.40q is not a number of seconds", value)
		}
		p.MaxAge = time.Duration(min(seconds, maxAge)) * time.Second
	case "mx":
		pattern := strings.ToLower(value)
		host := strings.TrimPrefix(pattern, "*.")
		if d, err := address.ParseDomain(host); err != nil || d.IsLiteral() || string(d) != host {
			return fmt.Errorf("mx %.80q is not a name or *.name", value)
		}
		p.MX = append(p.MX, pattern)
	}
	return nil
}

// Matches reports whether the policy names an MX host. A wildcard stands for
// exactly one label (RFC 8461 4.1).
func (p *Policy) Matches(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	_, parent, _ := strings.Cut(host, ".")
	for _, pattern := range p.MX {
		wild, ok := strings.CutPrefix(pattern, "*.")
		if !ok && pattern == host || ok && wild == parent {
			return true
		}
	}
	return false
}

// Lines returns the policy as it stands in a TLS report (RFC 8460 4.4).
func (p *Policy) Lines() []string {
	lines := []string{"version: STSv1", "mode: " + string(p.Mode)}
	for _, mx := range p.MX {
		lines = append(lines, "mx: "+mx)
	}
	return append(lines, "max_age: "+strconv.FormatInt(int64(p.MaxAge/time.Second), 10))
}

// ParseRecord returns the id of the policy that a domain announces, from all
// TXT records at its "_mta-sts" name. With no record, several or a broken one
// there is no policy to fetch (RFC 8461 3.1).
func ParseRecord(texts []string) (id string, err error) {
	var fields []string
	found := 0
	for _, text := range texts {
		parts := strings.Split(text, ";")
		if strings.TrimRight(parts[0], " \t") == "v=STSv1" {
			fields = parts[1:]
			found++
		}
	}
	if found != 1 {
		return "", fmt.Errorf("%d records of MTA-STS, not one", found)
	}
	for i, field := range fields {
		field = strings.Trim(field, " \t")
		if field == "" && i > 0 && i == len(fields)-1 {
			break // the delimiter at the end
		}
		name, value, ok := strings.Cut(field, "=")
		if !ok || !isName(name) || !isValue(value) {
			return "", fmt.Errorf("the field %.80q of the MTA-STS record is broken", field)
		}
		if name != "id" || id != "" {
			continue
		}
		if len(value) > 32 || !isAlnum(value) {
			return "", fmt.Errorf("the id %.80q of the MTA-STS record is broken", value)
		}
		id = value
	}
	if id == "" {
		return "", errors.New("the MTA-STS record has no id")
	}
	return id, nil
}

// isName reports whether s can name a field (RFC 8461 3.1, sts-ext-name).
func isName(s string) bool {
	return s != "" && len(s) <= 32 && isAlnum(s[:1]) && isAlnum(strings.NewReplacer("_", "", "-", "", ".", "").Replace(s))
}

// isValue reports whether s can be the value of a record's field.
func isValue(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '=' || r == ';' })
}

func isAlnum(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9')
	})
}
