package smtpclient

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"onward/internal/address"
)

// A Relay is the one server everything goes to instead of the hosts of each
// domain, where port 25 is closed to us. Its certificate is verified, and
// without TLS nothing is sent. Whatever is wrong between it and us, password
// included, is our trouble: temporary for senders, a warning for the operator.
type Relay struct {
	Host        string // name, or address literal; its address may be a private one
	Port        uint16
	ImplicitTLS bool // TLS from the first octet (RFC 8314), rather than STARTTLS

	User     string                 // empty: no AUTH
	Password func() (string, error) // asked for each connection; not nil with User

	RootCAs *x509.CertPool // nil: the system's
}

// ParseRelay reads delivery.relay: "smtp+starttls://user@host:587" or
// "smtps://user@host:465", where user and port may be left out. A user that has
// an "@" writes it as %40. The password is never part of it. Errors are one
// sentence, and do not repeat what was written.
func ParseRelay(s string) (Relay, error) {
	u, err := url.Parse(s)
	if err != nil {
		return Relay{}, errors.New("relay is not a URL such as smtp+starttls://user@host:587")
	}
	r := Relay{Host: u.Hostname(), User: u.User.Username()}
	switch u.Scheme {
	case "smtp+starttls":
		r.Port = 587
	case "smtps":
		r.Port, r.ImplicitTLS = 465, true
	default:
		return Relay{}, errors.New("relay begins with smtp+starttls:// or smtps://; mail never goes to it in clear")
	}
	if _, ok := u.User.Password(); ok {
		return Relay{}, errors.New("relay has a password in it; put it into the file that relay_password_file names")
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return Relay{}, errors.New("relay ends with its host or port")
	}
	if strings.ContainsFunc(r.User, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return Relay{}, errors.New("relay has a control character in its user")
	}
	if ip, err := netip.ParseAddr(r.Host); err == nil && ip.Zone() == "" {
		r.Host = "[" + r.Host + "]"
		if ip.Is6() {
			r.Host = "[IPv6:" + ip.String() + "]"
		}
	}
	domain, err := address.ParseDomain(r.Host)
	if err != nil {
		return Relay{}, errors.New("relay has no host that could be one")
	}
	r.Host = domain.String()
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return Relay{}, errors.New("relay has a port that is not between 1 and 65535")
		}
		r.Port = uint16(n)
	}
	return r, nil
}

// account names whose connections to the relay these are.
func (r *Relay) account() string {
	if r == nil {
		return ""
	}
	return fmt.Sprintf("%s@%s:%d %t", r.User, r.Host, r.Port, r.ImplicitTLS)
}

// trouble is something wrong between us and our relay host: temporary, and the
// operator's to mend.
type trouble struct{ err error }

func (t *trouble) Error() string { return "relay host: " + t.err.Error() }
func (t *trouble) Unwrap() error { return t.err }

// certified returns the name that its certificate must have.
func (r *Relay) certified() string {
	return strings.TrimPrefix(strings.Trim(r.Host, "[]"), "IPv6:")
}

// openRelay hears the greeting under TLS, or turns TLS on after it, and logs in.
func (c *conn) openRelay(ctx context.Context) error {
	secure := c.relayTLS
	if c.relay.ImplicitTLS {
		secure = c.implicitTLS
	}
	if err := secure(ctx); err != nil {
		return err
	}
	if c.relay.User == "" {
		return nil
	}
	return c.authenticate(ctx)
}

// implicitTLS is TLS from the first octet.
func (c *conn) implicitTLS(ctx context.Context) error {
	c.step = stepTLS
	if err := c.handshake(ctx); err != nil {
		return &trouble{err}
	}
	return c.greeting(ctx)
}

// relayTLS is STARTTLS without a way round it.
func (c *conn) relayTLS(ctx context.Context) error {
	if err := c.greeting(ctx); err != nil {
		return err
	}
	if _, ok := c.extensions["STARTTLS"]; !ok {
		return &trouble{errors.New("it does not offer STARTTLS")}
	}
	err := c.startTLS(ctx)
	if errors.Is(err, errHandshake) {
		return &trouble{err}
	}
	if err == nil && c.tlsFailure != nil {
		return &trouble{c.tlsFailure}
	}
	return err
}

// authenticate proves to the relay who we are (RFC 4954), by PLAIN (RFC 4616),
// or by LOGIN to servers that have nothing else. It is called under verified
// TLS only.
func (c *conn) authenticate(ctx context.Context) error {
	c.step = stepAUTH
	password, err := c.relay.Password()
	if err != nil {
		return &trouble{fmt.Errorf("password: %w", err)}
	}
	if strings.ContainsRune(password, 0) {
		return &trouble{errors.New("password: has a NUL in it")}
	}
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + c.relay.User + "\x00" + password))
	user := base64.StdEncoding.EncodeToString([]byte(c.relay.User))
	secret := base64.StdEncoding.EncodeToString([]byte(password))
	lines := []string{"AUTH PLAIN " + plain}
	switch offer := strings.Fields(strings.ToUpper(c.extensions["AUTH"])); {
	case slices.Contains(offer, "PLAIN"):
	case slices.Contains(offer, "LOGIN"):
		lines = []string{"AUTH LOGIN", user, secret}
	default:
		return &trouble{errors.New("it offers neither AUTH PLAIN nor AUTH LOGIN")}
	}
	for i, line := range lines {
		a, err := c.command(ctx, line)
		if err != nil {
			return err
		}
		code := 334
		if i == len(lines)-1 {
			code = 235
		}
		if err := a.without(password, plain, secret).want(code); err != nil {
			return err
		}
	}
	return nil
}

// without returns a with its text left out when it repeats a secret: answers are
// logged.
func (a answer) without(secrets ...string) answer {
	text := strings.Join(a.lines, "\n")
	if slices.ContainsFunc(secrets, func(s string) bool { return s != "" && strings.Contains(text, s) }) {
		a.lines = []string{"(its text repeats what we sent)"}
	}
	return a
}
