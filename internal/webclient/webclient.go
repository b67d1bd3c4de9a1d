// Package webclient sends single HTTPS requests to hosts that strangers name:
// where a policy lies, where a report is wanted.
//
// Rules, all of them because nobody we know chose the host (RELIABILITY 60):
//   - The certificate is valid for the name (WebPKI), or nothing is sent.
//   - One connection, port 443, to a public address that our own resolver gives;
//     no proxy of the environment.
//   - No redirect is followed, nothing is cached, nothing is decompressed.
//   - One time limit over all, one limit of size.
package webclient

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"onward/internal/dialguard"
	"onward/internal/resolver"
)

const (
	maxHeader    = 16 << 10 // octets of a response's header
	maxAddresses = 4        // dialled for one request
)

// ErrTooLarge means that a response has more octets than were asked for.
var ErrTooLarge = errors.New("response is too large")

// A Client sends requests. Its fields are set before the first one and not
// changed after; it is then safe for concurrent use.
type Client struct {
	Resolver resolver.Resolver
	Guard    dialguard.Guard
	Roots    *x509.CertPool // nil means the system's
	Port     uint16         // 0 means 443
	Timeout  time.Duration  // of one request, all of it; 0 means 10 s
}

// A Response is what the host answered, all of it foreign text.
type Response struct {
	Status int
	Type   string // the Content-Type field
	Body   []byte
}

// Get fetches an https URL and returns a response of at most limit octets.
// Where the certificate is the trouble, the error wraps a
// *tls.CertificateVerificationError.
func (c *Client) Get(ctx context.Context, url string, limit int64) (*Response, error) {
	return c.do(ctx, http.MethodGet, url, "", nil, limit)
}

// Post sends body to an https URL, and returns as Get does.
func (c *Client) Post(ctx context.Context, url, contentType string, body []byte, limit int64) (*Response, error) {
	return c.do(ctx, http.MethodPost, url, contentType, body, limit)
}

func (c *Client) do(ctx context.Context, method, where, contentType string, body []byte, limit int64) (*Response, error) {
	target, err := url.Parse(where)
	if err != nil || target.Scheme != "https" || target.User != nil || target.Port() != "" && target.Port() != "443" {
		return nil, fmt.Errorf("%.200q is not an https URL of port 443", where)
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.Timeout, 10*time.Second))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "onward")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.once().Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%w: more than %d octets", ErrTooLarge, limit)
	}
	if err != nil {
		return nil, err
	}
	return &Response{Status: resp.StatusCode, Type: resp.Header.Get("Content-Type"), Body: text}, nil
}

// once returns a client for one request.
func (c *Client) once() *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            c.dial,
			TLSClientConfig:        &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12},
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeader,
		},
	}
}

// dial connects to the first address of a host that takes the connection.
func (c *Client) dial(ctx context.Context, _, hostport string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	addrs, err := c.addresses(ctx, host)
	for _, addr := range addrs[:min(len(addrs), maxAddresses)] {
		var conn net.Conn
		conn, err = c.Guard.Dial(ctx, net.Dialer{}, netip.AddrPortFrom(addr, cmp.Or(c.Port, uint16(number))))
		if err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// addresses returns at least one address of host, or an error.
func (c *Client) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	var all []netip.Addr
	v4, err4 := c.Resolver.Lookup(ctx, host, resolver.TypeA)
	if err4 == nil {
		all = v4.Addrs()
	}
	v6, err6 := c.Resolver.Lookup(ctx, host, resolver.TypeAAAA)
	if err6 == nil {
		all = append(all, v6.Addrs()...)
	}
	if len(all) > 0 {
		return all, nil
	}
	return nil, errors.Join(err4, err6)
}
