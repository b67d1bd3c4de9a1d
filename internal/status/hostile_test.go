package status_test

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"onward/internal/address"
	"onward/internal/journal"
	"onward/internal/message"
	"onward/internal/smtpclient"
	"onward/internal/status"
	"onward/internal/store"
)

// attacks are what strangers may write where they like. Each would fetch /owned, or
// change the title, if a browser took any of it for more than text.
var attacks = []string{
	`<script>document.title='owned';fetch('/owned')</script>`,
	`"><img src=/owned onerror=document.title='owned'>`,
	`'><svg/onload=document.title='owned'>`,
	`</title><script src=/owned></script>`,
	`</textarea><iframe src=/owned></iframe>`,
	`javascript:document.title='owned'`,
	`" autofocus onfocus="document.title='owned'`,
	`" style="background:url(/owned)`,
	`{{.Token}}${fetch('/owned')}`,
	`<!--<base href=//owned.example/><meta http-equiv=refresh content="0;url=/owned">`,
	`<a href="/queue" data-live id=main>owned</a></li></ul></main>`,
	`<form action=/queue/1 method=post><button name=do value=drop>owned</button></form>`,
	"\u202egnp.exe \u2066owned\u2069 \u200b\x1b[31m\r\nSet-Cookie: onward=owned",
	`<math><mtext></table><mglyph><style><img src=/owned onerror=document.title='owned'>`,
	`&lt;script&gt;document.title='owned'&lt;/script&gt;`,
	"\xff\xfe<script>document.title='owned'</script>",
	strings.Repeat("W", 3000),
}

// attack makes every field that anybody else writes hostile, by one attack.
func (w *world) attack(n int, bad string) (name string) {
	name = id(now.Add(-time.Duration(n)*time.Minute), n)
	from := address.ReversePath{Mailbox: address.Mailbox{Local: bad, Domain: address.Domain(bad)}}
	alias, target := address.Mailbox{Local: bad, Domain: "example.org"}, address.Mailbox{Local: bad, Domain: address.Domain(bad)}
	at, said := now.Add(-time.Duration(n)*time.Minute), journal.Answer{Code: 550, Status: bad, Text: bad}
	w.write(
		journal.Attempt{Message: name, Began: at, Took: time.Second, Recipient: alias.String(), Target: target.String(), Host: bad, Peer: bad, TLS: bad, Step: bad, Result: "refused", Answer: said},
		journal.Message{
			ID: name, Arrived: at, Answered: at, Client: netip.MustParseAddr("192.0.2.1"), Helo: bad, TLS: bad, From: from, Subject: bad, Size: 1, Outcome: journal.Queued, Answer: said,
			Recipients: []message.Recipient{{Address: alias, Targets: []address.Mailbox{target}}},
			Verdict: &journal.Verdict{SPF: bad, SPFDomain: bad, SPFReason: bad, DKIM: []journal.Signature{{Domain: bad, Selector: bad, Result: bad, Reason: bad}},
				ARC: bad, DMARC: bad, Author: bad, Policy: bad, Why: bad},
		},
		journal.Event{Time: at, Message: name, From: bad, Recipient: alias.String(), Targets: []string{bad}, Outcome: journal.Held, By: bad, Answer: said},
	)
	w.enqueue(name, letter{at: at, to: "me@example.org", subject: bad}, func(i *store.Item) {
		i.State, i.Reason, i.Host, i.Said, i.Recipient, i.Target = store.Held, bad, bad, bad, alias, address.Mailbox{Local: bad, Domain: "gmail.com"}
	})
	return name
}

// besieged is a world in which all of that was written, and its pages.
func besieged(t testing.TB) (*world, []string) {
	w := newWorld(t, true, func(p *status.Page) {
		p.Troubles = func() []string { return attacks }
		p.Destinations = func() (list []smtpclient.DestinationState) {
			for _, bad := range attacks {
				list = append(list, smtpclient.DestinationState{Operator: bad, Host: bad, Until: now.Add(time.Hour), Step: 1, Reason: bad, Waiting: 1})
			}
			return list
		}
	})
	paths := []string{"/", "/messages", "/queue", "/destinations", "/aliases", "/doctor", "/login"}
	var checks []status.Check
	for n, bad := range attacks {
		checks = append(checks, status.Check{Name: bad, State: status.State(bad), Sentence: bad, Mend: bad})
		q := url.QueryEscape(bad)
		paths = append(paths, "/messages/"+w.attack(n, bad), "/messages?q="+q, "/messages?from="+q+"&to="+q, "/aliases?q="+q,
			"/queue?state="+q, "/queue?done="+q, "/messages?before="+q, "/messages/"+url.PathEscape(bad), "/"+url.PathEscape(bad))
	}
	w.SetChecks(checks, now)
	return w, paths
}

// TestHostile: whatever is written where, a page has no other elements, attributes
// and links than ours.
func TestHostile(t *testing.T) {
	w, paths := besieged(t)
	for _, path := range paths {
		a := w.do("GET", path, nil, nil)
		if a.code/100 == 5 {
			t.Errorf("%.80s: %d", path, a.code)
		}
		if strings.ContainsAny(a.body, "\u202e\u2066\u200b\x1b") {
			t.Errorf("%.80s has characters that change others", path)
		}
		for name := range a.header {
			if strings.Contains(name, "Cookie") {
				t.Errorf("%.80s: %v", path, a.header)
			}
		}
		root, err := html.Parse(strings.NewReader(a.body))
		must(t, err)
		for node := range root.Descendants() {
			if why := foreign(node); why != "" {
				t.Errorf("%.80s: %s", path, why)
			}
		}
	}
}

// elements and attributes are all that our pages are made of.
const (
	elements = " html head meta title link script body a header b bdi nav main h1 h2 p ul ol li dl dt dd div section span time form label input button figure figcaption svg g rect text title " +
		"table thead tbody tr th td q i pre code details summary footer "
	attributes = " lang charset name content rel href type src defer class id for value maxlength autocomplete autocapitalize spellcheck role action method aria-label aria-current datetime title " +
		"scope data-label data-live data-search width height x y required autofocus "
)

// foreign says why something in a page is not of our making.
func foreign(n *html.Node) string {
	if n.Type == html.CommentNode {
		return fmt.Sprintf("comment %q", n.Data)
	}
	if n.Type != html.ElementNode {
		return ""
	}
	if !strings.Contains(elements, " "+n.Data+" ") {
		return "element " + n.Data
	}
	for _, a := range n.Attr {
		switch {
		case !strings.Contains(attributes, " "+a.Key+" "):
			return fmt.Sprintf("attribute %s=%q of %s", a.Key, a.Val, n.Data)
		case a.Key == "src" && a.Val != "/live.js":
			return "source " + a.Val
		case a.Key == "action" && !strings.HasPrefix(a.Val, "/"), a.Key == "href" && !strings.HasPrefix(a.Val, "/") && a.Val != "#main", strings.HasPrefix(a.Val, "//"):
			return fmt.Sprintf("leads to %q", a.Val)
		case a.Key == "id" && a.Val == "main" && n.Data != "main":
			return "another main"
		case n.Data == "form" && a.Key == "action" && strings.HasPrefix(a.Val, "/queue"):
			return "a form that changes the queue"
		}
	}
	if n.Data == "script" && n.FirstChild != nil {
		return "script within the page"
	}
	return ""
}
