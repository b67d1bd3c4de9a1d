package tlsrpt

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"onward/internal/tlspolicy"
)

// Bounds of what is kept about one day. What goes beyond is left out of the
// reports, in the order of coming.
const (
	maxOctets   = 4 << 20 // of JSON, estimated
	maxPolicies = 20      // of one domain
	maxDetails  = 100     // of one policy
)

// A day is what was noted on one day (UTC).
type day struct {
	Start   time.Time          `json:"start"`
	Domains map[string]*domain `json:"domains"`

	octets int  // estimated
	saved  bool // what is on disk is the same
}

// A domain is what was noted about mail to one destination.
type domain struct {
	Policies []*tally `json:"policies"`
	Sent     []string `json:"sent,omitempty"` // URIs that have their report
}

// A tally counts the sessions under one policy, in the form of the report.
type tally struct {
	Policy struct {
		Type   string   `json:"policy-type"`
		Text   []string `json:"policy-string,omitempty"`
		Domain string   `json:"policy-domain"`
		MX     []string `json:"mx-host,omitempty"`
	} `json:"policy"`
	Summary struct {
		Good int `json:"total-successful-session-count"`
		Bad  int `json:"total-failure-session-count"`
	} `json:"summary"`
	Details []*detail `json:"failure-details,omitempty"`
}

// A detail counts the failures of one kind at one host.
type detail struct {
	failure
	Count int `json:"failed-session-count"`
}

// A failure is what tells one detail from another.
type failure struct {
	Type   string `json:"result-type"`
	Local  string `json:"sending-mta-ip,omitempty"`
	Host   string `json:"receiving-mx-hostname,omitempty"`
	Remote string `json:"receiving-ip,omitempty"`
	Reason string `json:"failure-reason-code,omitempty"`
}

// note counts one session.
func (d *day) note(s tlspolicy.Session) {
	d.saved = false
	t := d.tally(s)
	if t == nil {
		return
	}
	if len(s.Failures) == 0 {
		t.Summary.Good++
		return
	}
	t.Summary.Bad++
	for _, f := range s.Failures {
		kind := failure{Type: f.Type, Host: s.Host, Reason: f.Reason}
		if s.Local.IsValid() {
			kind.Local = s.Local.String()
		}
		if s.Remote.IsValid() {
			kind.Remote = s.Remote.String()
		}
		d.count(t, kind)
	}
}

// tally returns where the session counts, or nil where there is no room.
func (d *day) tally(s tlspolicy.Session) *tally {
	about := d.Domains[s.Domain]
	if about == nil {
		if !d.room(len(s.Domain) + 50) {
			return nil
		}
		about = &domain{}
		d.Domains[s.Domain] = about
	}
	p := s.Policy
	for _, t := range about.Policies {
		if t.Policy.Type == p.Type && t.Policy.Domain == p.Domain && slices.Equal(t.Policy.Text, p.Lines) && slices.Equal(t.Policy.MX, p.MX) {
			return t
		}
	}
	if len(about.Policies) == maxPolicies || !d.room(len(fmt.Sprint(p))+200) {
		return nil
	}
	t := &tally{}
	t.Policy.Type, t.Policy.Domain, t.Policy.Text, t.Policy.MX = p.Type, p.Domain, p.Lines, p.MX
	about.Policies = append(about.Policies, t)
	return t
}

func (d *day) count(t *tally, kind failure) {
	for _, known := range t.Details {
		if known.failure == kind {
			known.Count++
			return
		}
	}
	if len(t.Details) < maxDetails && d.room(len(fmt.Sprint(kind))+150) {
		t.Details = append(t.Details, &detail{kind, 1})
	}
}

// room reports whether there is room for that many octets, and takes it.
func (d *day) room(octets int) bool {
	if d.octets+octets > maxOctets {
		return false
	}
	d.octets += octets
	return true
}

// Each day is one file, named by its date. Whatever else is in the directory
// was left by a crash.
const suffix = ".json"

func (d *day) path(dir string) string {
	return filepath.Join(dir, d.Start.Format(time.DateOnly)+suffix)
}

// write writes a day so that after a crash there is the old file or the new
// one.
func write(path string, data []byte) error {
	temp := path + ".new" // a fixed name: what a crash left is overwritten
	file, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return os.Rename(temp, path)
}

// read reads the file of a day.
func read(path string) (*day, error) {
	name, ok := strings.CutSuffix(filepath.Base(path), suffix)
	start, err := time.Parse(time.DateOnly, name)
	if err != nil || !ok {
		return nil, errors.New("its name is no date")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d := &day{octets: len(data), saved: true}
	if err := json.Unmarshal(data, d); err != nil {
		return nil, err
	}
	if !d.Start.Equal(start) || d.Domains == nil {
		return nil, errors.New("it is not about the day of its name")
	}
	return d, nil
}
