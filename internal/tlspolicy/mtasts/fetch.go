package mtasts

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"onward/internal/webclient"
)

// maxPolicy is the most octets of a policy file (RFC 8461 3.3).
const maxPolicy = 64 << 10

// Why there is no new policy of a domain that announces one, for errors.Is.
// Each trouble is exactly one of them; RFC 8460 4.3 reports them apart.
var (
	ErrFetch   = errors.New("the policy cannot be fetched")
	ErrWebPKI  = errors.New("the certificate of the policy host is not valid")
	ErrInvalid = errors.New("the policy is not valid")
)

// fetch gets the policy of domain from its policy host (RFC 8461 3.3).
func fetch(ctx context.Context, web *webclient.Client, domain string) (*Policy, error) {
	resp, err := web.Get(ctx, "https://mta-sts."+domain+"/.well-known/mta-sts.txt", maxPolicy)
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case untrusted:
		return nil, fmt.Errorf("%w: %w", ErrWebPKI, err)
	case errors.Is(err, webclient.ErrTooLarge):
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrFetch, err)
	case resp.Status != 200: // redirects too
		return nil, fmt.Errorf("%w: status %d", ErrFetch, resp.Status)
	}
	if media, _, _ := strings.Cut(resp.Type, ";"); !strings.EqualFold(strings.TrimSpace(media), "text/plain") {
		return nil, fmt.Errorf("%w: it is %.80q, not text/plain", ErrInvalid, resp.Type)
	}
	p, err := ParsePolicy(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return p, nil
}
