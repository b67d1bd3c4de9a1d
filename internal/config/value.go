package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"onward/internal/address"
)

// maxReject keeps a refusal, with the address and id around it, within the one
// reply line of RFC 5321 4.5.3.1.5.
const maxReject = 300

// set parses one scalar into p, which points to any type that a single value
// of the file may have. The error says what is wrong, without place and key.
func (f *field) set(n *yaml.Node, p any) error {
	switch p := p.(type) {
	case *string:
		return f.setText(n, p)
	case *bool:
		*p = n.Value == "true"
		if n.Tag != "!!bool" || !*p && n.Value != "false" {
			return fmt.Errorf("%.80q is not true or false; write one of the two, without quotes", n.Value)
		}
		return nil
	case *int:
		return f.setInt(n, p)
	case *int64:
		return f.setSize(n, p)
	case *time.Duration:
		return f.setDuration(n, p)
	case *time.Time:
		return f.setDate(n, p)
	case *address.Domain:
		return f.setDomain(n, p)
	case *address.Mailbox:
		return f.setMailbox(n, p)
	case *netip.Addr:
		return f.setAddr(n, p)
	case *netip.AddrPort:
		return f.setAddrPort(n, p)
	}
	panic("config: no parser for " + reflect.TypeOf(p).String())
}

// setText reads a text of the kind that f.is names.
func (f *field) setText(n *yaml.Node, p *string) error {
	*p = n.Value
	switch {
	case n.Tag != "!!str" && f.is == "address":
		return fmt.Errorf("%.80q is not an address; write one such as old@gmail.com", n.Value)
	case n.Tag != "!!str":
		return fmt.Errorf("%.80q is not text; put it in quotes if you mean it as text", n.Value)
	case f.enum != nil:
		return f.oneOf(n.Value)
	case n.Value == "" && f.is == "url": // as the default is written
		return nil
	case n.Value == "":
		return fmt.Errorf("the text is empty; write something such as %s, or remove it", f.example)
	case f.is == "listen", f.is == "listen or off" && n.Value != "off":
		return f.checkListen(n.Value)
	case f.is == "line":
		return checkLine(n.Value)
	case f.is == "name":
		return f.checkName(p)
	case f.is == "forwarder":
		return f.checkForwarder(p)
	case f.is == "relay":
		return f.checkRelay(n.Value)
	case f.is == "list":
		return f.checkList(n.Value)
	case f.is == "milter":
		return f.checkMilter(n.Value)
	case f.is == "url":
		return f.checkURL(n.Value)
	}
	return nil
}

// checkList takes the zone of a DNS list, and behind "=" the codes that count.
func (f *field) checkList(text string) error {
	zone, _, _ := strings.Cut(text, "=")
	if _, err := address.ParseDomain(zone); err != nil {
		return fmt.Errorf("%.80q is not a DNS list; write one such as %s", text, f.example)
	}
	return nil
}

// checkMilter takes unix:/file, of a length that a socket can have (unix(7)), and
// host:port.
func (f *field) checkMilter(text string) error {
	file, isFile := strings.CutPrefix(text, "unix:")
	host, port, _ := net.SplitHostPort(text)
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case isFile && len(file) > 1 && file[0] == '/' && len(file) <= 107:
	case !isFile && host != "" && !strings.ContainsAny(host, " \t") && n > 0 && err == nil:
	default:
		return fmt.Errorf("%.80q is not where a milter can be; write one such as %s", text, f.example)
	}
	return nil
}

func (f *field) checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%.80q is not a URL; write one such as %s", text, f.example)
	}
	return nil
}

// checkRelay takes smtp+starttls://user@host:port and smtps://. A password in
// it would be in every copy of the file.
func (f *field) checkRelay(text string) error {
	u, err := url.Parse(text)
	bad := err != nil || u.Scheme != "smtp+starttls" && u.Scheme != "smtps" || u.Hostname() == "" ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != ""
	if bad {
		return fmt.Errorf("%.80q is not a relay; write one such as %s", text, f.example)
	}
	if _, secret := u.User.Password(); secret {
		return errors.New("a password does not belong into this file; put it into a file of its own and name that in delivery.relay_password_file")
	}
	return nil
}

// checkName takes a domain name, and keeps its ASCII form.
func (f *field) checkName(p *string) error {
	domain, err := address.ParseDomain(*p)
	if err != nil || domain.IsLiteral() {
		return fmt.Errorf("%.80q is not a domain name; write names as in %s", *p, f.example)
	}
	*p = domain.String()
	return nil
}

// checkForwarder takes a network, an address or a domain name, and keeps the
// first two in the form of a network.
func (f *field) checkForwarder(p *string) error {
	if addr, err := netip.ParseAddr(*p); err == nil && addr.Zone() == "" {
		*p = netip.PrefixFrom(addr, addr.BitLen()).String()
		return nil
	}
	if network, err := netip.ParsePrefix(*p); err == nil {
		*p = network.Masked().String()
		return nil
	}
	return f.checkName(p)
}

func (f *field) oneOf(text string) error {
	for _, word := range f.enum {
		if text == word {
			return nil
		}
	}
	return fmt.Errorf("%.80q is not one of %s", text, strings.Join(f.enum, ", "))
}

// checkListen takes ":25", "192.0.2.1:25" and "[2001:db8::1]:25".
func (f *field) checkListen(text string) error {
	host, port, err := net.SplitHostPort(text)
	if err == nil && host != "" {
		_, err = netip.ParseAddr(host)
	}
	if number, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || strconv.FormatUint(number, 10) != port {
		return fmt.Errorf("%.80q is not an IP address and port; write it like one of %s, or :25 for all addresses", text, f.example)
	}
	return nil
}

// checkLine takes what can stand in one SMTP reply line (RELIABILITY 62).
func checkLine(text string) error {
	for _, r := range text {
		if r < ' ' || r > '~' {
			return fmt.Errorf("the character %U cannot be sent in a refusal; write one line of plain ASCII", r)
		}
	}
	if len(text) > maxReject {
		return fmt.Errorf("%d characters are too many for an SMTP reply; write at most %d", len(text), maxReject)
	}
	return nil
}

func (f *field) setInt(n *yaml.Node, p *int) error {
	number, err := strconv.Atoi(n.Value)
	if err != nil || n.Tag != "!!int" || strconv.Itoa(number) != n.Value {
		return fmt.Errorf("%.80q is not a whole number; write one without quotes, such as %s", n.Value, f.example)
	}
	*p = number
	return within(f, n, number, strconv.Atoi)
}

// sizeUnits are powers of 1024 only: "MB" is read differently by different people.
var sizeUnits = []struct {
	suffix string
	octets int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"B", 1}}

// parseSize reads "50MiB", or "0".
func parseSize(text string) (int64, error) {
	if text == "0" {
		return 0, nil
	}
	for _, unit := range sizeUnits {
		if digits, ok := strings.CutSuffix(text, unit.suffix); ok {
			number, err := strconv.ParseUint(digits, 10, 33) // times 1 GiB fits into an int64
			return int64(number) * unit.octets, err
		}
	}
	return 0, errors.New("no unit")
}

func (f *field) setSize(n *yaml.Node, p *int64) (err error) {
	if *p, err = parseSize(n.Value); err != nil {
		return fmt.Errorf("%.80q is not a size; write a whole number with B, KiB, MiB or GiB, such as %s", n.Value, f.example)
	}
	return within(f, n, *p, parseSize)
}

var durationUnits = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}

// ParseDuration reads a time as the file writes it: "45s", "5m", "12h", "14d".
func ParseDuration(text string) (time.Duration, error) {
	if text == "" {
		return 0, errors.New("empty")
	}
	unit := durationUnits[text[len(text)-1:]]
	number, err := strconv.ParseUint(text[:len(text)-1], 10, 32)
	if unit == 0 || err != nil || time.Duration(number) > math.MaxInt64/unit {
		return 0, errors.New("no time")
	}
	return time.Duration(number) * unit, nil
}

// setDuration leaves the default where the value is bad, so that check does not
// complain of it once more.
func (f *field) setDuration(n *yaml.Node, p *time.Duration) error {
	value, err := ParseDuration(n.Value)
	if err != nil {
		return fmt.Errorf("%.80q is not a time; write a whole number with s, m, h or d, such as %s", n.Value, f.example)
	}
	if f.is == "days" && value%(24*time.Hour) != 0 {
		return fmt.Errorf("%q is not a number of whole days; write it like %s", n.Value, f.example)
	}
	if err := within(f, n, value, ParseDuration); err != nil {
		return err
	}
	*p = value
	return nil
}

// within checks the bounds of a number, given in the notation of the file.
func within[T int | int64 | time.Duration](f *field, n *yaml.Node, value T, parse func(string) (T, error)) error {
	low, lowErr := parse(f.least())
	high, highErr := parse(f.max)
	if err := errors.Join(lowErr, highErr); err != nil {
		panic(fmt.Sprintf("config: bounds of %s: %v", f.key, err))
	}
	if value < low || value > high {
		return fmt.Errorf("%.80q is out of range; write %s to %s", n.Value, f.least(), f.max)
	}
	return nil
}

// least is the lower bound of a number: zero unless the tag says otherwise.
func (f *field) least() string {
	if f.min == "" {
		return "0"
	}
	return f.min
}

func (f *field) setDate(n *yaml.Node, p *time.Time) (err error) {
	if *p, err = time.Parse(time.DateOnly, n.Value); err != nil {
		return fmt.Errorf("%.80q is not a date; write year, month and day, such as %s", n.Value, f.example)
	}
	return nil
}

// setDomain reads a name that is no address literal; one that must stand in
// HELO and MX records ("host") also needs a dot and no underscore (RFC 1123 2.1).
func (f *field) setDomain(n *yaml.Node, p *address.Domain) (err error) {
	*p, err = address.ParseDomain(n.Value)
	switch {
	case err != nil:
		return fmt.Errorf("%w; write a name such as %s", err, f.example)
	case p.IsLiteral():
		return fmt.Errorf("%q is an address, not a name; write one such as %s", n.Value, f.example)
	case f.is == "host" && (!strings.Contains(string(*p), ".") || strings.Contains(string(*p), "_")):
		return fmt.Errorf("%q is not a full host name; write one with a dot and without underscores, such as %s", n.Value, f.example)
	}
	return nil
}

func (f *field) setMailbox(n *yaml.Node, p *address.Mailbox) (err error) {
	if *p, err = address.Parse(n.Value); err != nil {
		return fmt.Errorf("%w; write an address such as %s", err, f.example)
	}
	return nil
}

// setAddr reads an address; "" is none.
func (f *field) setAddr(n *yaml.Node, p *netip.Addr) error {
	if n.Value == "" && n.Tag == "!!str" {
		return nil
	}
	addr, err := netip.ParseAddr(n.Value)
	if err != nil || addr.Zone() != "" || addr.IsUnspecified() {
		return fmt.Errorf("%.80q is not an IP address, such as %s", n.Value, f.example)
	}
	*p = addr.Unmap()
	return nil
}

// setAddrPort reads a DNS server: an address, and a port other than 53.
func (f *field) setAddrPort(n *yaml.Node, p *netip.AddrPort) error {
	addr, err := netip.ParseAddr(n.Value)
	*p = netip.AddrPortFrom(addr, 53)
	if err != nil {
		*p, err = netip.ParseAddrPort(n.Value)
	}
	if err != nil || p.Port() == 0 || p.Addr().IsUnspecified() {
		return fmt.Errorf("%.80q is not the IP address of a DNS server; write it like one of %s", n.Value, f.example)
	}
	return nil
}
