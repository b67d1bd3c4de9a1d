// Package rspamd asks an rspamd server what it thinks of a message, over HTTP
// (rspamd.com/doc/developers/protocol.html, /checkv2).
//
// Check sends the message as it was received, without holding it in memory, and
// returns an Opinion, which is the decision:
//
//	reject, discard           550 5.7.1: nothing disappears (STANDARDS.md P17)
//	soft reject               451 4.7.1
//	greylist                  accepted: it would delay login codes
//	add header, rewrite
//	subject, quarantine       accepted, and Junk: the bytes stay as they are
//	anything else             accepted
//
// A server that is away, slow or talks nonsense refuses nothing. That is logged
// once a minute.
package rspamd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"onward/internal/address"
	"onward/internal/filter"
	"onward/internal/message"
	"onward/internal/reply"
)

// Limits of one conversation.
const (
	timeout       = 10 * time.Second // from the first octet to the last
	maxAnswer     = 1 << 20          // octets; real ones have a few thousand
	maxSaid       = 64 << 10         // octets of HTTP header in an answer
	maxAtOnce     = 50               // connections; further messages wait within the timeout
	maxRecipients = 100              // told to rspamd
)

// A Client asks one server. It is safe for concurrent use, and holds nothing
// that must be closed.
type Client struct {
	url  string
	name string // of this server
	http *http.Client
	log  *slog.Logger

	unchecked filter.Unchecked
}

// New returns a Client of the server at a URL such as "http://127.0.0.1:11333".
// hostname is the name of this server.
func New(server string, hostname address.Domain, log *slog.Logger) (*Client, error) {
	if err := CheckURL(server); err != nil {
		return nil, err
	}
	return &Client{
		url:  strings.TrimSuffix(server, "/") + "/checkv2",
		name: hostname.String(),
		log:  log,
		http: &http.Client{
			Transport: &http.Transport{ // no proxy from the environment
				MaxConnsPerHost:        maxAtOnce,
				MaxIdleConnsPerHost:    maxAtOnce,
				IdleConnTimeout:        30 * time.Second,
				MaxResponseHeaderBytes: maxSaid,
				DisableCompression:     true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// CheckURL says what is wrong with the URL of a server.
func CheckURL(server string) error {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%.80q is not the URL of an rspamd worker, such as http://127.0.0.1:11333", server)
	}
	return nil
}

// Check asks about a message. client is the confirmed name of the client, or
// empty. It returns no later than ctx ends or 10 s are over.
func (c *Client) Check(ctx context.Context, env *message.Envelope, client address.Domain, msg *message.Message) filter.Opinion {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer, err := c.ask(ctx, env, client, msg)
	if err != nil {
		c.failed(env, err)
		return filter.Opinion{}
	}
	return answer.opinion()
}

// ask sends one request and reads the answer.
func (c *Client) ask(ctx context.Context, env *message.Envelope, client address.Domain, msg *message.Message) (*answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, nil)
	if err != nil {
		return nil, err
	}
	request.Header = c.header(env, client)
	request.ContentLength = msg.Size()
	request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(msg.Reader()), nil } // for another connection
	request.Body, _ = request.GetBody()
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", reply.Clean(response.Status))
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxAnswer:
		return nil, fmt.Errorf("its answer is longer than %d octets", maxAnswer)
	}
	return parse(text)
}

// header says what rspamd wants to know beside the message. All values are
// checked addresses and names, without control characters.
func (c *Client) header(env *message.Envelope, client address.Domain) http.Header {
	h := http.Header{
		"Ip":       {env.Client.String()},
		"Helo":     {env.Helo},
		"From":     {env.From.String()},
		"Queue-Id": {env.ID},
		"Mta-Name": {c.name},
	}
	if client != "" {
		h.Set("Hostname", client.String())
	}
	for _, r := range env.Recipients[:min(len(env.Recipients), maxRecipients)] {
		h.Add("Rcpt", r.Address.String())
	}
	return h
}

// failed notes that a message goes on unchecked. The end of the daemon's own patience
// with it says nothing about the server.
func (c *Client) failed(env *message.Envelope, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	c.unchecked.Add(c.log, "rspamd at "+c.url, env, err)
}

// An answer is what we read of the JSON.
type answer struct {
	Action   string            `json:"action"`
	Score    float64           `json:"score"`
	Symbols  map[string]symbol `json:"symbols"`
	Messages json.RawMessage   `json:"messages"` // an object, or in old versions an empty list
}

type symbol struct {
	Score   float64  `json:"score"`
	Options []string `json:"options"`
}

func parse(text []byte) (*answer, error) {
	var a answer
	if err := json.Unmarshal(text, &a); err != nil {
		return nil, fmt.Errorf("its answer: %w", err)
	}
	if a.Action == "" {
		return nil, errors.New("its answer has no action; is this the worker that checks messages (port 11333)?")
	}
	return &a, nil
}

// opinion is the decision. Actions that an operator invents mean nothing here.
func (a *answer) opinion() filter.Opinion {
	o := filter.Opinion{Why: a.reason()}
	switch a.Action {
	case "reject", "discard":
		o.Reply = reply.New(550, "5.7.1", "%s", a.words("this message looks like spam"))
	case "soft reject":
		if !a.greylisted() {
			o.Reply = reply.New(451, "4.7.1", "%s", a.words("not now, please try again later"))
		}
	case "add header", "rewrite subject", "quarantine":
		o.Junk = true
	}
	return o
}

// words returns what rspamd wants the sender to hear.
func (a *answer) words(usual string) string {
	var messages struct {
		SMTP string `json:"smtp_message"`
	}
	json.Unmarshal(a.Messages, &messages) // what is none leaves it empty
	if messages.SMTP == "" {
		return usual
	}
	return messages.SMTP
}

// greylisted reports whether a soft reject is the greylisting module's, which
// gives its decision that name.
func (a *answer) greylisted() bool {
	s := a.Symbols["GREYLIST"]
	return len(s.Options) > 0 && s.Options[0] == "greylisted"
}
