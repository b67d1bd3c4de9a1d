package tlspolicy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"onward/internal/reply"
	"onward/internal/tlspolicy/dane"
	"onward/internal/tlspolicy/mtasts"
)

// ErrNotOffered is why there is no TLS with a host that does not offer it, or
// refuses it after all.
var ErrNotOffered = errors.New("STARTTLS is not offered")

// A Rule is what TLS one host must offer for one destination.
type Rule struct {
	Skip     *reply.Reply // why not to connect; nil to connect
	Required bool         // nothing goes there in clear

	// Key tells which connections are as good as others: one that was made under
	// a rule serves under another whose Key is equal, at the same host.
	Key string

	domain, host string
	serverName   string
	by           string // what asks for it: "DANE", "MTA-STS"
	testing      bool   // a failure of verify is only reported
	verify       func(tls.ConnectionState) error
	policy       Policy
	failures     []Failure // of the policy, whatever the host does
	report       func(Session)
}

// Config returns the settings of a TLS client for the host. The handshake fails
// where the certificate is not what the policy asks for.
func (r *Rule) Config() *tls.Config {
	config := &tls.Config{
		ServerName:         r.serverName,
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection does what there is to do
	}
	if r.verify != nil && !r.testing {
		config.VerifyConnection = r.verify
	}
	return config
}

// Refuse returns nil when the host may have the message in clear, and otherwise
// why it is not to have it now. why is ErrNotOffered, maybe wrapped, or the
// error of the handshake.
func (r *Rule) Refuse(why error) *reply.Reply {
	if !r.Required {
		return nil
	}
	failure := classify(why)
	status, what := "4.7.5", ""
	switch failure.Type {
	case NotSupported:
		status, what = "4.7.4", "its mail host "+r.host+" does not offer it"
	case HostMismatch:
		what = "the certificate of its mail host " + r.host + " is for other names"
	case Expired:
		what = "the certificate of its mail host " + r.host + " has expired, or is not valid yet"
	case NotTrusted:
		what = "the certificate of its mail host " + r.host + " is not one to be trusted: " + failure.Reason
	default:
		what = "there is none with its mail host " + r.host + ": " + failure.Reason
	}
	return &reply.Reply{Code: 451, Status: status, Text: fmt.Sprintf("%s requires TLS (%s), and %s", r.domain, r.by, what), Err: why}
}

// Went tells whoever is to report it how TLS went on a connection to the host:
// its state once there is TLS, else nil and why there is none, as for Refuse.
func (r *Rule) Went(conn net.Conn, state *tls.ConnectionState, why error) {
	if r.report == nil {
		return
	}
	s := r.session(state, why)
	if conn != nil {
		s.Local, s.Remote = ip(conn.LocalAddr()), ip(conn.RemoteAddr())
	}
	r.report(s)
}

// ip returns the IP address of one end of a connection, if it has one.
func ip(addr net.Addr) netip.Addr {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap()
}

// session says what is to be reported.
func (r *Rule) session(state *tls.ConnectionState, why error) Session {
	if state != nil && r.testing {
		why = r.verify(*state)
	}
	s := Session{Domain: r.domain, Policy: r.policy, Host: r.host, Failures: slices.Clone(r.failures)}
	if why != nil {
		s.Failures = append(s.Failures, classify(why))
	}
	return s
}

// A Session is one connection as TLS reports count them (RFC 8460 4), or the
// decision to make none.
type Session struct {
	Domain        string // the destination, whose owner hears of it
	Policy        Policy
	Host          string
	Local, Remote netip.Addr // zero when there was no connection
	Failures      []Failure  // none: all is as the policy asks
}

// A Policy is what was asked of a host, as RFC 8460 4.4 has it.
type Policy struct {
	Type   string   // one of the constants
	Domain string   // that it is about
	Lines  []string // its text
	MX     []string // patterns of an MTA-STS policy
}

// The types of policies.
const (
	PolicyTLSA = "tlsa"
	PolicySTS  = "sts"
	PolicyNone = "no-policy-found"
)

// A Failure is one thing that was wrong.
type Failure struct {
	Type   string // one of the constants
	Reason string // for people; may be foreign text, cleaned
}

// The types of failures (RFC 8460 4.3).
const (
	NotSupported      = "starttls-not-supported"
	HostMismatch      = "certificate-host-mismatch"
	Expired           = "certificate-expired"
	NotTrusted        = "certificate-not-trusted"
	ValidationFailure = "validation-failure"
	TLSAInvalid       = "tlsa-invalid"
	DNSSECInvalid     = "dnssec-invalid"
	FetchError        = "sts-policy-fetch-error"
	PolicyInvalid     = "sts-policy-invalid"
	WebPKIInvalid     = "sts-webpki-invalid"
)

// classify says what kind of failure an error is.
func classify(why error) Failure {
	f := Failure{ValidationFailure, reason(why)}
	if _, ok := errors.AsType[x509.HostnameError](why); ok {
		f.Type = HostMismatch
	}
	if errors.Is(why, dane.ErrMismatch) {
		f.Type = NotTrusted
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](why); ok {
		f = Failure{NotTrusted, "nobody we trust has issued it"}
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](why); ok {
		f.Type = NotTrusted
		if invalid.Reason == x509.Expired {
			f.Type = Expired
		}
	}
	if errors.Is(why, ErrNotOffered) {
		f.Type = NotSupported
	}
	return f
}

// policyFailure says what kind of failure it is that there is no MTA-STS policy.
func policyFailure(err error) Failure {
	f := Failure{FetchError, reason(err)}
	switch {
	case errors.Is(err, mtasts.ErrInvalid):
		f.Type = PolicyInvalid
	case errors.Is(err, mtasts.ErrWebPKI):
		f.Type = WebPKIInvalid
	}
	return f
}

// maxReason is the most octets of a reason.
const maxReason = 120

// reason returns the text of an error, without the ports of connections that
// would make each one different.
func reason(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		err = op.Err
	}
	text := reply.Clean(err.Error())
	return text[:min(len(text), maxReason)]
}
