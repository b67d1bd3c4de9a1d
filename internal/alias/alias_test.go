package alias_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/alias"
	"onward/internal/reply"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// outcome is a Lookup in one line: targets, "discard" or the reply.
func outcome(m alias.Match, err error) string {
	if err != nil {
		return reply.From(err).String()
	}
	if m.Discard {
		return "discard"
	}
	var s []string
	for _, to := range m.Targets {
		s = append(s, to.String())
	}
	return strings.Join(s, " ")
}

const unknown = "550 5.1.1 <%s>: no such alias here"

// farDomain leaves room for a local part of 4 octets.
var farDomain = strings.Repeat("d234567890.", 22) + "example"

// rich is the table of most cases below.
var rich = strings.ReplaceAll(`
	domain example.org
	me: old@gmail.com
	Capital: cap@gmail.com
	keep: old@gmail.com keep
	keep+own: own@gmail.com keep
	team: a@gmail.com b@outlook.com A@GMAIL.com
	jürgen: j@gmail.com
	σας: greek@gmail.com
	"john doe": john@gmail.com
	quoted-to: "a,b"@corp.example keep
	dollar: a$1@gmail.com
	elsewhere: x@corp.example keep
	tagged-to: old+mine@gmail.com keep
	three: x@gmail.com y@corp.example z@hotmail.co.uk keep
	old-name: reject=moved, write to me@example.org (100%)
	trap: discard
	chain: chain2@example.org keep
	chain2: me@example.net keep
	mixed: me@example.org me@example.net team@example.org
	nokeep: keep@example.org
	tochain: keep+fix@example.org keep
	until: x@gmail.com until=2026-11-22
	ended: x@gmail.com until=2026-11-21
	via-ended: ended@example.org
	half-ended: ended@example.org y@gmail.com
	/^inv-[0-9]+$/: books@gmail.com
	/^(.+)-list$/: $1@gmail.com
	/^(.+)-list2$/: never@gmail.com
	/^(?P<who>[a-z]+)\.(\d+)$/: ${who}-${2}x@corp.example
	/^own-(.+)$/: $1@example.org keep
	/^two-(.)(.)?$/: $1@gmail.com x$2@gmail.com
	/^keep-(.+)$/: k-$1@gmail.com keep
	/cost/: a$$b@gmail.com
	/^mix-(.+)$/: $1@example.org x@gmail.com
	/^late-(.+)$/: x@gmail.com $1@example.org
	/^né-(.+)$/: $1@gmail.com
	/^far-(.+)$/: $1@DOMAIN
	twins: a@gmail.com a@outlook.com
	to-own: keep+own@example.org keep
	ᾳ: iota@gmail.com
	ǰ: jay@gmail.com
	/^long-(.*)$/: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa$1@gmail.com
	domain example.net
	me: net@gmail.com keep
	*: all@gmail.com keep
	domain bücher.example
	leser: l@gmail.com
	same copy.example example.org
`, "DOMAIN", farDomain)

func TestLookup(t *testing.T) {
	tab := table(t, rich)
	a60 := strings.Repeat("a", 60)
	for _, tt := range []struct{ rcpt, want string }{
		// Names.
		{"me@example.org", "old@gmail.com"},
		{"ME@EXAMPLE.ORG", "old@gmail.com"},
		{"capital@example.org", "cap@gmail.com"},
		{"CAPITAL@example.org", "cap@gmail.com"},
		{"team@example.org", "a@gmail.com b@outlook.com"},
		{"twins@example.org", "a@gmail.com a@outlook.com"},
		{"mixed@example.org", "old@gmail.com net@gmail.com a@gmail.com b@outlook.com"},
		{"dollar@example.org", "a$1@gmail.com"},
		{`"me"@example.org`, "old@gmail.com"},
		{`"john doe"@example.org`, "john@gmail.com"},
		{`"John Doe"@example.org`, "john@gmail.com"},
		{"@relay.example,@b.example:me@example.org", "old@gmail.com"},
		{"me@copy.example", "old@gmail.com"},
		{"keep+x@copy.example", "old+x@gmail.com"},

		// Unicode: case, NFC against NFD, either form of the domain.
		{"jürgen@example.org", "j@gmail.com"},
		{"JÜRGEN@example.org", "j@gmail.com"},
		{"ju\u0308rgen@example.org", "j@gmail.com"},
		{"JU\u0308RGEN@example.org", "j@gmail.com"},
		{"ΣΑΣ@example.org", "greek@gmail.com"},
		{"σασ@example.org", "greek@gmail.com"},
		{"α\u0345@example.org", "iota@gmail.com"},
		{"J\u030c@example.org", "jay@gmail.com"},
		{"jurgen@example.org", unknown},
		{"leser@bücher.example", "l@gmail.com"},
		{"leser@xn--bcher-kva.example", "l@gmail.com"},
		{"leser@BÜCHER.example", "l@gmail.com"},

		// Tags.
		{"me+shop@example.org", "old@gmail.com"},
		{"keep@example.org", "old@gmail.com"},
		{"keep+shop@example.org", "old+shop@gmail.com"},
		{"KEEP+Shop@example.org", "old+Shop@gmail.com"},
		{"keep+a+b@example.org", "old+a+b@gmail.com"},
		{"keep+@example.org", "old@gmail.com"},
		{"+keep@example.org", unknown},
		{"+@example.org", unknown},
		{"keep+own@example.org", "own@gmail.com"},
		{"keep+OWN@example.org", "own@gmail.com"},
		{"keep+own+x@example.org", "old+own+x@gmail.com"},
		{"elsewhere+shop@example.org", "x@corp.example"},
		{"tagged-to+shop@example.org", "old+mine@gmail.com"},
		{"three+t@example.org", "x+t@gmail.com y@corp.example z+t@hotmail.co.uk"},
		{"quoted-to+t@example.org", `"a,b"@corp.example`},
		{`"keep+a b"@example.org`, "old@gmail.com"},
		{`"keep+a@b"@example.org`, "old@gmail.com"},
		{`"keep+.x"@example.org`, "old+.x@gmail.com"},
		{`"keep+x."@example.org`, "old@gmail.com"},
		{"keep+ü@example.org", "old@gmail.com"},
		{"keep+" + a60[:58] + "@example.org", "old+" + a60[:58] + "@gmail.com"},
		{"to-own+x@example.org", "own@gmail.com"},
		{"nokeep+x@example.org", "old@gmail.com"},
		{"tochain+x@example.org", "old+fix@gmail.com"},
		{"chain+x@example.org", "net+x@gmail.com"},
		{"team+x@example.org", "a@gmail.com b@outlook.com"},

		// Patterns: in file order, whole local part as written, whatever case.
		{"inv-17@example.org", "books@gmail.com"},
		{"INV-17@example.org", "books@gmail.com"},
		{"inv-17x@example.org", unknown},
		{"go-list@example.org", "go@gmail.com"},
		{"Go-LIST@example.org", "Go@gmail.com"},
		{"go-list2@example.org", "never@gmail.com"},
		{"ada.17@example.org", "ada-17x@corp.example"},
		{"me-list@example.org", "me@gmail.com"},
		{"a+b-list@example.org", "a+b@gmail.com"},
		{"two-ab@example.org", "a@gmail.com xb@gmail.com"},
		{"two-a@example.org", "a@gmail.com x@gmail.com"},
		{"a.cost.b@example.org", "a$b@gmail.com"},
		{"keep-v@example.org", "k-v@gmail.com"},
		{"keep-v+w@example.org", "k-v+w@gmail.com"},
		{"own-me@example.org", "old@gmail.com"},
		{"own-me+t@example.org", "old@gmail.com"},
		{"own-keep+t@example.org", "old+t@gmail.com"},
		{"own-own-own-me@example.org", "old@gmail.com"},
		{"own-own-go-list@example.org", "own-own-go@gmail.com"},
		{"own-inv-1@example.org", "books@gmail.com"},
		{"own-none@example.org", unknown},
		{"own-trap@example.org", "discard"},
		{"own-old-name@example.org", "550 5.1.1 moved, write to me@example.org (100%)"},
		{"own-" + strings.Repeat("own-", 8) + "me@example.org", "old@gmail.com"},
		{"own-" + strings.Repeat("own-", 9) + "me@example.org", "451 4.3.5 <%s>: trouble with our alias table, please try again later"},

		{"mix-trap@example.org", "x@gmail.com"},
		{"mix-me@example.org", "old@gmail.com x@gmail.com"},
		{"mix-none@example.org", unknown},
		{"late-none@example.org", unknown},
		{"ne\u0301-x@example.org", "x@gmail.com"},
		{"NÉ-x@example.org", "x@gmail.com"},

		// Substituted text that makes no address.
		{"far-abcd@example.org", "abcd@" + farDomain},
		{"far-abcde@example.org", unknown},
		{`"a b-list"@example.org`, unknown},
		{`"a@evil.example-list"@example.org`, unknown},
		{`"a..b-list"@example.org`, unknown},
		{`".a-list"@example.org`, unknown},
		{`"a\"-list"@example.org`, unknown},
		{`"<a>-list"@example.org`, unknown},
		{"a.-list@example.org", unknown},
		{`"long-"@example.org`, strings.Repeat("a", 32) + "@gmail.com"},
		{"long-" + a60[:32] + "@example.org", strings.Repeat("a", 64) + "@gmail.com"},
		{"long-" + a60[:33] + "@example.org", unknown},
		{"$1-list@example.org", "$1@gmail.com"},
		{"${1}-list@example.org", "${1}@gmail.com"},

		// Catch-all.
		{"anything@example.net", "all@gmail.com"},
		{"anything+t@example.net", "all+t@gmail.com"},
		{"+t@example.net", "all+t@gmail.com"},
		{`"any thing"@example.net`, "all@gmail.com"},
		{"me@example.net", "net@gmail.com"},
		{"nobody@example.org", unknown},
		{"*@example.org", unknown},

		// No meaning in a local part (RELIABILITY.md 17).
		{"x%gmail.com@example.org", unknown},
		{"gmail.com!x@example.org", unknown},
		{`"x@gmail.com"@example.org`, unknown},
		{`"me@example.org"@example.org`, unknown},
		{`"/^inv-[0-9]+$/"@example.org`, unknown},

		// Refuse and discard.
		{"old-name@example.org", "550 5.1.1 moved, write to me@example.org (100%)"},
		{"old-name+x@example.org", "550 5.1.1 moved, write to me@example.org (100%)"},
		{"trap@example.org", "discard"},
		{"TRAP+x@copy.example", "discard"},

		// Until.
		{"until@example.org", "x@gmail.com"},
		{"ended@example.org", "550 5.1.1 <%s>: this alias ended on 2026-11-21"},
		{"ended+x@example.org", "550 5.1.1 <%s>: this alias ended on 2026-11-21"},
		{"via-ended@example.org", "550 5.1.1 <%s>: this alias leads only to aliases that have ended"},
		{"half-ended@example.org", "y@gmail.com"},

		// Postmaster and abuse.
		{"postmaster@example.org", "owner@gmail.com"},
		{"PostMaster@example.net", "owner@gmail.com"},
		{"abuse@example.net", "owner@gmail.com"},
		{"abuse+x@example.net", "owner@gmail.com"},
		{"postmaster@copy.example", "owner@gmail.com"},
		{"postmaster@mx.example.org", "owner@gmail.com"},
		{"abuse@mx.example.org", "owner@gmail.com"},
		{"Postmaster", "owner@gmail.com"},
		{"me@mx.example.org", unknown},

		// Not ours.
		{"me@gmail.com", "550 5.7.1 <%s>: relaying refused, this server takes mail for its own domains only"},
		{"me@sub.example.org", "550 5.7.1 <%s>: relaying refused, this server takes mail for its own domains only"},
		{"me@org", "550 5.7.1 <%s>: relaying refused, this server takes mail for its own domains only"},
		{"me@[127.0.0.1]", "550 5.7.1 <%s>: relaying refused, this server takes mail for its own domains only"},
		{"postmaster@gmail.com", "550 5.7.1 <%s>: relaying refused, this server takes mail for its own domains only"},
	} {
		t.Run(tt.rcpt, func(t *testing.T) {
			rcpt := mailbox(t, tt.rcpt)
			want := tt.want
			if strings.Contains(want, "%s") {
				want = reply.Clean(fmt.Sprintf(want, rcpt))
			}
			m, err := tab.Lookup(rcpt, now)
			if got := outcome(m, err); got != want {
				t.Errorf("Lookup(%s)\n got %s\nwant %s", tt.rcpt, got, want)
			}
			if err != nil && (m.Targets != nil || m.Discard) {
				t.Errorf("refused, and yet %v, discard %v", m.Targets, m.Discard)
			}
		})
	}
}

// Whatever goes wrong comes back as a *reply.Reply, and no other kind of nil.
func TestLookupError(t *testing.T) {
	tab := table(t, rich)
	if _, err := tab.Lookup(mailbox(t, "me@example.org"), now); err != nil {
		t.Errorf("err = %#v, want nil", err)
	}
	if _, err := tab.Lookup(mailbox(t, "none@example.org"), now); err == nil {
		t.Error("no error")
	} else if _, ok := errors.AsType[*reply.Reply](err); !ok {
		t.Errorf("%T, want *reply.Reply", err)
	}
	if _, err := tab.Lookup(address.Mailbox{Local: "me"}, now); reply.From(err).Status != "5.7.1" {
		t.Errorf("me without a domain: %v", err)
	}
}

func TestUntil(t *testing.T) {
	tab := table(t, `
		domain example.org
		a: x@gmail.com until=2027-01-01`)
	berlin := time.FixedZone("", 3600)
	for _, tt := range []struct {
		now  time.Time
		want bool
	}{
		{time.Date(2026, 12, 31, 23, 0, 0, 0, time.UTC), true},
		{time.Date(2027, 1, 1, 23, 59, 59, 999, time.UTC), true},
		{time.Date(2027, 1, 2, 0, 0, 0, 0, time.UTC), false},
		{time.Date(2027, 1, 2, 0, 59, 0, 0, berlin), true},
		{time.Date(2027, 1, 2, 1, 0, 0, 0, berlin), false},
		{time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), false},
	} {
		if _, err := tab.Lookup(mailbox(t, "a@example.org"), tt.now); (err == nil) != tt.want {
			t.Errorf("%v: %v", tt.now, err)
		}
	}
}

func TestOwns(t *testing.T) {
	tab := table(t, rich+"srs srs.example.org")
	for d, want := range map[address.Domain]bool{
		"example.org": true, "copy.example": true, "xn--bcher-kva.example": true,
		"mx.example.org": false, "srs.example.org": false, "gmail.com": false, "": false, "sub.example.org": false,
	} {
		if got := tab.Owns(d); got != want {
			t.Errorf("Owns(%q) = %v", d, got)
		}
	}
}

// The built-in names give way to aliases, and hold against patterns and "*".
func TestPostmaster(t *testing.T) {
	for _, tt := range []struct{ name, config, rcpt, want string }{
		{"catch-all", "*: all@gmail.com", "postmaster@example.org", "owner@gmail.com"},
		{"pattern", "/./: all@gmail.com", "abuse@example.org", "owner@gmail.com"},
		{"alias of that name", "Postmaster: mine@gmail.com", "postmaster@example.org", "mine@gmail.com"},
		{"only in its domain", "postmaster: mine@gmail.com", "postmaster@mx.example.org", "owner@gmail.com"},
		{"other name stays", "postmaster: mine@gmail.com", "abuse@example.org", "owner@gmail.com"},
		{"hostname is a domain", "postmaster: mine@gmail.com\nhost example.org", "postmaster", "mine@gmail.com"},
		{"srs domain", "me: x@gmail.com\nsrs srs.example.org", "postmaster@srs.example.org", "owner@gmail.com"},
		{"srs domain, other name", "*: x@gmail.com\nsrs srs.example.org", "me@srs.example.org", "550 5.1.1 <me@srs.example.org>: no such alias here"},
		{"srs domain of a domain", "me: x@gmail.com\ndomain-srs bounce.example.org", "abuse@bounce.example.org", "owner@gmail.com"},
		{"an alias of ours", "me: x@gmail.com\npostmaster me@example.org", "Postmaster", "x@gmail.com"},
		{"an alias of that name", "postmaster: x@gmail.com\npostmaster postmaster@example.org", "abuse@example.org", "x@gmail.com"},
		{"a pattern of ours", "/^(p)$/: $1@gmail.com\npostmaster p@example.org", "abuse@mx.example.org", "p@gmail.com"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tab := table(t, "domain example.org\n"+tt.config)
			m, err := tab.Lookup(mailbox(t, tt.rcpt), now)
			if got := outcome(m, err); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if builtIn := tt.want == "owner@gmail.com"; builtIn && (m.Alias != nil || m.Steps[0].Alias != nil) {
				t.Errorf("Alias = %v, want nil", m.Alias)
			}
		})
	}
}

func TestAdmits(t *testing.T) {
	tab := table(t, `
		domain example.org
		open: x@gmail.com
		one: x@gmail.com from=Ada@Shop.example
		domain: x@gmail.com from=@Bücher.example
		both: x@gmail.com from=ada@shop.example,@other.example
		utf8: x@gmail.com from=jürgen@shop.example
		through: domain@example.org
		two: one@example.org from=@shop.example
		over: domain@example.org from=@shop.example
		past: x@gmail.com from=@nobody.example until=2020-01-01
		by-past: past@example.org x@gmail.com`)
	for _, tt := range []struct {
		alias, sender string
		want          bool
	}{
		{"open", "any@body.example", true},
		{"open", "", true},
		{"one", "ada@shop.example", true},
		{"one", "ADA@SHOP.EXAMPLE", true},
		{"one", "ada+x@shop.example", false},
		{"one", "bob@shop.example", false},
		{"one", "ada@x.shop.example", false},
		{"one", "ada@shop.example.evil.example", false},
		{"one", "", false},
		{"one", "ada@evil.example", false},
		{"both", "any@x.other.example", true},
		{"both", "any@evilother.example", false},
		{"one+tag", "bob@shop.example", false},
		{"domain", "any@xn--bcher-kva.example", true},
		{"domain", "any@news.bücher.example", true},
		{"domain", "any@evilbücher.example", false},
		{"domain", "any@bücher.example.evil.example", false},
		{"domain", "any@example", false},
		{"domain", "", false},
		{"both", "ada@shop.example", true},
		{"both", "bob@other.example", true},
		{"both", "bob@shop.example", false},
		{"utf8", "JU\u0308RGEN@shop.example", true},
		{"utf8", "jurgen@shop.example", false},
		{"through", "any@bücher.example", true},
		{"through", "any@shop.example", false},
		{"two", "ada@shop.example", true},
		{"two", "bob@shop.example", false},
		{"over", "ada@shop.example", false},
		{"by-past", "ada@shop.example", true},
	} {
		t.Run(tt.alias+" "+tt.sender, func(t *testing.T) {
			m, err := tab.Lookup(mailbox(t, tt.alias+"@example.org"), now)
			if err != nil {
				t.Fatal(err)
			}
			var sender address.Mailbox
			if tt.sender != "" {
				sender = mailbox(t, tt.sender)
			}
			if got := m.Admits(sender); got != tt.want {
				t.Errorf("Admits(%q) = %v", tt.sender, got)
			}
		})
	}
}

// Steps tell the way, also when it ends in a refusal.
func TestSteps(t *testing.T) {
	tab := table(t, rich)
	for _, tt := range []struct {
		rcpt string
		want []string
	}{
		{"me@example.org", []string{"me@example.org by name at 2: old@gmail.com"}},
		{"chain+x@copy.example", []string{
			"chain+x@copy.example by name and tag at 17: chain2@example.org",
			"chain2@example.org by name at 18: me@example.net",
			"me@example.net by name at 44: net+x@gmail.com"}},
		{"inv-1@example.org", []string{"inv-1@example.org by regular expression at 26: books@gmail.com"}},
		{"x@example.net", []string{"x@example.net by catch-all at 45: all@gmail.com"}},
		{"old-name@example.org", []string{"old-name@example.org by name at 15:"}},
		{"trap@example.org", []string{"trap@example.org by name at 16:"}},
		{"half-ended@example.org", []string{
			"half-ended@example.org by name at 25: ended@example.org y@gmail.com",
			"ended@example.org by name at 23 ended:"}},
		{"ended@example.org", []string{"ended@example.org by name at 23 ended:"}},
		{"own-none@example.org", []string{"own-none@example.org by regular expression at 30: none@example.org"}},
		{"postmaster", []string{"postmaster@mx.example.org by name: owner@gmail.com"}},
		{"none@example.org", nil},
		{"me@gmail.com", nil},
	} {
		t.Run(tt.rcpt, func(t *testing.T) {
			m, _ := tab.Lookup(mailbox(t, tt.rcpt), now)
			var got []string
			for _, s := range m.Steps {
				line := fmt.Sprintf("%s by %s", s.Address, s.By)
				if s.Alias != nil {
					line += fmt.Sprintf(" at %d", s.Alias.Line)
				}
				if s.Ended {
					line += " ended"
				}
				line += ":"
				for _, to := range s.Targets {
					line += " " + to.String()
				}
				got = append(got, line)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got  %s\nwant %s", strings.Join(got, "\n     "), strings.Join(tt.want, "\n     "))
			}
			if len(m.Steps) > 0 && m.Alias != m.Steps[0].Alias {
				t.Error("Alias is not that of the first step")
			}
		})
	}
}
