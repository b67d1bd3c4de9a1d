package resolver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Limits of a zone file.
const (
	maxZoneFile    = 16 << 20 // octets
	maxZoneRecords = 1 << 17  // $GENERATE makes many of one line
)

// ParseZone reads a zone in one of two forms. name is the file's, for errors.
//
// A master file (RFC 1035 5) of class IN, with absolute names; $INCLUDE is
// refused.
//
// A JSON object, in which a name stands for its TXT record (a string), several
// of them (a list), or the failure of every question about it
// ({"rcode": "SERVFAIL"} or "TIMEOUT"). "NAME/TYPE" is the same for another
// type, its data as in a master file.
func ParseZone(name string, r io.Reader) (*Zone, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxZoneFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(data) > maxZoneFile {
		return nil, fmt.Errorf("%s: larger than %d MiB", name, maxZoneFile>>20)
	}
	z := NewZone()
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		err = z.readJSON(data)
	} else {
		err = z.readMaster(data)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return z, nil
}

func (z *Zone) readMaster(data []byte) error {
	parser := dns.NewZoneParser(bytes.NewReader(data), "", "")
	parser.SetDefaultTTL(zoneTTL)
	count := 0
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		if count++; count > maxZoneRecords {
			return fmt.Errorf("more than %d records", maxZoneRecords)
		}
		h := rr.Header()
		owner, err := canonical(h.Name)
		if err != nil || h.Class != dns.ClassINET {
			return fmt.Errorf("%s: only names and records of class IN are understood", h.Name)
		}
		t := Type(h.Rrtype)
		z.put(owner, t, rrset{records: append(z.nodes[owner][t].records, rr)})
	}
	return parser.Err()
}

func (z *Zone) readJSON(data []byte) error {
	var entries map[string]any
	if err := json.Unmarshal(data, &entries); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		if err := z.readEntry(key, entries[key]); err != nil {
			return err
		}
	}
	return nil
}

// readEntry reads one member of the JSON form.
func (z *Zone) readEntry(key string, value any) error {
	name, t, bare := key, TypeTXT, true
	if i := strings.LastIndexByte(key, '/'); i >= 0 {
		if known, ok := dns.StringToType[key[i+1:]]; ok {
			name, t, bare = key[:i], Type(known), false
		}
	}
	switch v := value.(type) {
	case string:
		return z.Set(name, t, v)
	case []any:
		data := make([]string, 0, len(v))
		for _, item := range v {
			s, ok := item.(string)
			if !ok {
				return fmt.Errorf("%q: a list holds strings only", key)
			}
			data = append(data, s)
		}
		return z.Set(name, t, data...)
	case map[string]any:
		if bare {
			t = everyOther
		}
		rcode, _ := v["rcode"].(string)
		return z.Fail(name, t, rcode)
	default:
		return fmt.Errorf(`%q: the value is a string, a list of strings, or {"rcode": ...}`, key)
	}
}

// newRecord makes one record from its data.
func newRecord(owner string, t Type, data string) (dns.RR, error) {
	if t == TypeTXT {
		hdr := dns.RR_Header{Name: owner, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: zoneTTL}
		return &dns.TXT{Hdr: hdr, Txt: characterStrings(data)}, nil
	}
	if strings.ContainsAny(data, "\r\n") {
		return nil, errors.New("data is more than one line")
	}
	rr, err := dns.NewRR(fmt.Sprintf("%s %d IN %v %s", owner, zoneTTL, t, data))
	if err != nil {
		return nil, err
	}
	if rr == nil || Type(rr.Header().Rrtype) != t {
		return nil, fmt.Errorf("%q is not the data of such a record", data)
	}
	return rr, nil
}

// characterStrings splits text into strings of at most 255 octets (RFC 1035
// 3.3), at least one.
func characterStrings(text string) []string {
	var parts []string
	for len(text) > 255 {
		parts = append(parts, escape(text[:255]))
		text = text[255:]
	}
	return append(parts, escape(text))
}
