package doctor

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"onward/internal/address"
	"onward/internal/resolver"
	"onward/internal/tlspolicy/mtasts"
	"onward/internal/tlsrpt"
)

// alarm is when a certificate should have been renewed long ago (RELIABILITY 83).
const alarm = 14 * 24 * time.Hour

// withCertificate adds what is to be said of the certificate: the one that was
// seen, or else the one in the configured file.
func (e *examination) withCertificate(chain []*x509.Certificate, inbound Check) []Check {
	const check = "certificate"
	if len(chain) == 0 && e.Config.TLS.Cert != "" {
		var err error
		if chain, err = readChain(e.Config.TLS.Cert); err != nil {
			return []Check{inbound, {check, Failure, fmt.Sprintf("The certificate cannot be read: %s.", quote(err.Error())), ""}}
		}
	}
	if len(chain) == 0 {
		if inbound.State == Failure {
			return []Check{inbound}
		}
		return []Check{inbound, {check, Failure, "The listener offers no TLS, or it does not come about.", "onward check -c " + e.file()}}
	}
	return []Check{inbound, e.certificate(chain)}
}

func readChain(file string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	return chain, nil
}

// certificate judges what senders see. Without a policy of ours (MTA-STS) they
// encrypt whatever it is.
func (e *examination) certificate(chain []*x509.Certificate) Check {
	const check = "certificate"
	leaf := chain[0]
	left := leaf.NotAfter.Sub(e.Now)
	until := leaf.NotAfter.UTC().Format(time.DateOnly)
	show := ""
	if file := e.Config.TLS.Cert; file != "" {
		show = "openssl x509 -noout -subject -dates -ext subjectAltName -in " + file
	}
	switch mismatch := leaf.VerifyHostname(e.hostname().String()); {
	case selfSigned(leaf) && e.Config.TLS.ACME.On:
		return Check{check, Warning, "No certificate has been obtained yet, so the one that is shown is of our own making; the log says why.", "journalctl -u onward | grep certificate"}
	case selfSigned(leaf):
		return Check{check, OK, "The certificate is of our own making: senders encrypt with it, and cannot tell who we are. That is enough, unless a domain has an MTA-STS policy; tls.acme gets a better one.", ""}
	case left < 0:
		return Check{check, Failure, fmt.Sprintf("The certificate has expired on %s; renew it, and onward takes the new files by itself.", until), show}
	case mismatch != nil:
		return Check{check, Failure, fmt.Sprintf("The certificate is not for %s: %s.", e.hostname(), quote(mismatch.Error())), show}
	case left < min(alarm, leaf.NotAfter.Sub(leaf.NotBefore)/4):
		return Check{check, Warning, fmt.Sprintf("The certificate expires on %s and should have been renewed by now.", until), show}
	}
	if err := e.trust(chain); err != nil {
		return Check{check, Warning, fmt.Sprintf("The certificate for %s is by nobody whom all trust: %s.", e.hostname(), quote(err.Error())), show}
	}
	return Check{check, OK, fmt.Sprintf("The certificate is for %s and good until %s.", e.hostname(), until), ""}
}

// trust returns why an authority that all trust does not vouch for a chain.
func (e *examination) trust(chain []*x509.Certificate) error {
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Intermediates: intermediates, Roots: e.Web.Roots, CurrentTime: e.Now})
	return err
}

func selfSigned(c *x509.Certificate) bool {
	return string(c.RawIssuer) == string(c.RawSubject) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// mtaSTS checks the policy of a domain that announces one (T2): senders that
// honour it do not deliver where it is wrong.
func (e *examination) mtaSTS(ctx context.Context, d address.Domain) []Check {
	check := "MTA-STS " + d.String()
	name := "_mta-sts." + d.String()
	texts, err := e.texts(ctx, name, "v=STSv1")
	if err != nil {
		return unanswered(check, name, resolver.TypeTXT, err)
	}
	if len(texts) == 0 {
		return nil
	}
	if _, err := mtasts.ParseRecord(texts); err != nil {
		return []Check{{check, Failure, fmt.Sprintf("The MTA-STS record cannot be used: %s.", quote(err.Error())), textRecord(name, "v=STSv1; id="+e.Now.UTC().Format("20060102T150405")).String()}}
	}
	where := "https://mta-sts." + d.String() + "/.well-known/mta-sts.txt"
	resp, err := e.Web.Get(ctx, where, 64<<10)
	if err == nil && resp.Status != 200 {
		err = fmt.Errorf("status %d", resp.Status)
	}
	if err != nil {
		return []Check{{check, Warning, fmt.Sprintf("The policy is announced, but cannot be fetched: %s.", quote(err.Error())), "curl -v " + where}}
	}
	policy, err := mtasts.ParsePolicy(resp.Body)
	switch {
	case err != nil:
		return []Check{{check, Warning, fmt.Sprintf("The policy is not valid: %s.", quote(err.Error())), "curl -v " + where}}
	case policy.Mode != mtasts.None && !policy.Matches(e.hostname().String()):
		return []Check{{check, Failure, fmt.Sprintf("The policy (mode %s) does not name %s, so senders that honour it do not deliver.", policy.Mode, e.hostname()), "mx: " + e.hostname().String()}}
	}
	if policy.Mode == mtasts.Enforce && e.unproven(ctx) {
		return []Check{{check, Failure, "The policy wants a certificate that senders can check, and ours is by nobody whom all trust.", "tls: {acme: {email: " + e.Config.Postmaster.String() + "}}"}}
	}
	return []Check{{check, OK, fmt.Sprintf("The policy is valid and names this server (mode %s).", policy.Mode), ""}}
}

// unproven reports whether senders that check our certificate find that nobody
// vouches for it.
func (e *examination) unproven(ctx context.Context) bool {
	at, err := e.listener()
	if err != nil {
		return false
	}
	met, err := e.knock(ctx, at, true)
	return err == nil && len(met.chain) > 0 && e.trust(met.chain) != nil
}

// tlsRPT checks the record that asks for reports on TLS, where there is one.
func (e *examination) tlsRPT(ctx context.Context, d address.Domain) []Check {
	check := "TLS-RPT " + d.String()
	name := "_smtp._tls." + d.String()
	texts, err := e.texts(ctx, name, "v=TLSRPTv1")
	if err != nil {
		return unanswered(check, name, resolver.TypeTXT, err)
	}
	if len(texts) == 0 {
		return nil
	}
	if _, err := tlsrpt.ParseRecord(texts); err != nil {
		return []Check{{check, Warning, fmt.Sprintf("The record that asks for TLS reports cannot be used: %s.", quote(err.Error())),
			textRecord(name, "v=TLSRPTv1; rua=mailto:postmaster@"+d.String()).String()}}
	}
	return []Check{{check, OK, "The record that asks for TLS reports is valid.", ""}}
}
