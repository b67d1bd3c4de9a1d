package tlsrpt

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"onward/internal/address"
)

const (
	maxTargets = 4   // places that one domain's report is sent to
	maxURI     = 512 // octets
)

// A target is one place where reports are wanted: a mailbox, or an https URL.
type target struct {
	uri  string
	mail address.Mailbox // zero for https
}

// ParseRecord returns the URIs of "rua=" from all TXT records at a domain's
// "_smtp._tls" name. No record, several or a broken one means that no reports
// are wanted (RFC 8460 3).
func ParseRecord(texts []string) ([]string, error) {
	var fields []string
	found := 0
	for _, text := range texts {
		parts := strings.Split(text, ";")
		if strings.TrimRight(parts[0], " \t") == "v=TLSRPTv1" {
			fields = parts[1:]
			found++
		}
	}
	if found != 1 {
		return nil, fmt.Errorf("%d records of TLS reporting, not one", found)
	}
	for _, field := range fields {
		name, value, _ := strings.Cut(strings.Trim(field, " \t"), "=")
		if name != "rua" {
			continue
		}
		uris := strings.Split(value, ",")
		for i := range uris {
			uris[i] = strings.Trim(uris[i], " \t")
		}
		return uris, nil
	}
	return nil, errors.New("the record of TLS reporting has no rua")
}

// targets returns those of the URIs that we can send to.
func targets(uris []string) []target {
	var all []target
	for _, uri := range uris {
		if t, ok := parseTarget(uri); ok && len(all) < maxTargets {
			all = append(all, t)
		}
	}
	return all
}

func parseTarget(uri string) (target, bool) {
	u, err := url.Parse(uri)
	if err != nil || len(uri) > maxURI {
		return target{}, false
	}
	switch u.Scheme {
	case "https":
		return target{uri: uri}, u.Host != ""
	case "mailto":
		text, err := url.PathUnescape(u.Opaque)
		if err != nil {
			return target{}, false
		}
		mailbox, err := address.Parse(text)
		return target{uri: uri, mail: mailbox}, err == nil && mailbox.IsASCII()
	}
	return target{}, false
}
