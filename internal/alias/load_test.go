package alias_test

import (
	"fmt"
	"strings"
	"testing"

	"onward/internal/alias"
)

// members is n targets in the shorthand.
func members(n int, format string) string {
	var s []string
	for i := range n {
		s = append(s, fmt.Sprintf(format, i))
	}
	return strings.Join(s, " ")
}

// layers is aliases of which each leads to every one of the next layer.
func layers(depth, width int, domain string) string {
	var b strings.Builder
	for i := range depth {
		for j := range width {
			to := members(width, fmt.Sprintf("l%d-%%d@%s", i+1, domain))
			if i == depth-1 {
				to = "x@gmail.com"
			}
			fmt.Fprintf(&b, "l%d-%d: %s\n", i, j, to)
		}
	}
	return b.String()
}

// inARow is a chain of n aliases.
func inARow(n int) string {
	var b strings.Builder
	for i := range n - 1 {
		fmt.Fprintf(&b, "c%d: c%d@example.org\n", i, i+1)
	}
	fmt.Fprintf(&b, "c%d: x@gmail.com", n-1)
	return b.String()
}

// Each case is the aliases of example.org, from line 2 of the file, and all
// that New says about them.
func TestProblems(t *testing.T) {
	const nowhere = "a target that leads nowhere: "
	const circle = "aliases in a circle: "
	const whole = "; write a whole address such as you@gmail.com"
	for _, tt := range []struct {
		name, aliases string
		want          []string
	}{
		{"nothing wrong", "a: x@gmail.com", nil},
		{"no aliases", "", nil},

		// Keys.
		{"whole address", "a@example.org: x@gmail.com", []string{`2: alias "a@example.org": write only what stands before the @`}},
		{"space", "a b: x@gmail.com", []string{`2: alias "a b": cannot stand before an @`}},
		{"dot", ".a: x@gmail.com", []string{`2: alias ".a": cannot stand before an @`}},
		{"dots", "a..b: x@gmail.com", []string{`2: alias "a..b": cannot stand before an @`}},
		{"empty", ": x@gmail.com", []string{`2: alias "": cannot stand before an @`}},
		{"control", "a\x01: x@gmail.com", []string{`2: alias "a\x01": cannot stand before an @`}},
		{"not UTF-8", "a\xff: x@gmail.com", []string{`2: alias "a\xff": cannot stand before an @`}},
		{"64 octets", strings.Repeat("a", 64) + ": x@gmail.com", nil},
		{"65 octets", strings.Repeat("a", 65) + ": x@gmail.com", []string{`2: alias "` + strings.Repeat("a", 65) + `": longer than 64 octets`}},
		{"glob", "info-*: x@gmail.com", []string{`2: alias "info-*": "*" stands alone; for part of a name write a regular expression such as /^info-.*$/`}},
		{"quoted glob", `"info-*": x@gmail.com`, nil},
		{"half quoted", `"a: x@gmail.com`, []string{`2: alias "\"a": cannot stand before an @`}},
		{"half pattern", "/a: x@gmail.com", []string{`2: alias "/a": a regular expression ends with / too`}},
		{"slash", "/: x@gmail.com", []string{`2: alias "/": a regular expression ends with / too`}},
		{"twice", "a: x@gmail.com\nb: x@gmail.com\nA: y@gmail.com", []string{`4: alias "A" is already at onward.yaml:2; join the two`}},
		{"twice in NFD", "é: x@gmail.com\ne\u0301: y@gmail.com", []string{"3: alias \"e\u0301\" is already at onward.yaml:2; join the two"}},
		{"twice with iota below", "α\u0345: x@gmail.com\nᾳ: y@gmail.com", []string{`3: alias "ᾳ" is already at onward.yaml:2; join the two`}},
		{"twice in quotes", "a: x@gmail.com\n\"a\": y@gmail.com", []string{`3: alias "\"a\"" is already at onward.yaml:2; join the two`}},
		{"two catch-alls", "*: x@gmail.com\n*: y@gmail.com", []string{`3: "*" is already at onward.yaml:2; join the two`}},

		// Targets.
		{"no domain", "a: x", []string{`2: target: address "x": no @domain` + whole}},
		{"bad domain", "a: x@gm_ail..com", []string{`2: target: domain "gm_ail..com": empty label` + whole}},
		{"bad local part", "a: x,y@gmail.com", []string{`2: target: address "x,y@gmail.com": character ',' needs a quoted local part` + whole}},
		{"dollar is a letter", "a: $1@gmail.com ${x}$@gmail.com", nil},
		{"every alias", "a: x\nb: y", []string{`2: target: address "x": no @domain` + whole, `3: target: address "y": no @domain` + whole}},

		{"in file order", "a: nobody@example.org\nb: y", []string{"2: " + nowhere + "nothing matches nobody@example.org", `3: target: address "y": no @domain` + whole}},

		// Patterns.
		{"empty pattern", "//: x@gmail.com", []string{`2: the regular expression is empty; for "everything else" write "*"`}},
		{"syntax", "/(a/: x@gmail.com", []string{"2: error parsing regexp: missing closing ): `(a`; the syntax is RE2, which has no look-around and no back-references"}},
		{"bracket trick", "/a)(b/: x@gmail.com", []string{"2: error parsing regexp: unexpected ): `a)(b`; the syntax is RE2, which has no look-around and no back-references"}},
		{"look-ahead", "/(?=a)/: x@gmail.com", []string{"2: error parsing regexp: invalid or unsupported Perl syntax: `(?=`; the syntax is RE2, which has no look-around and no back-references"}},
		{"long", "/" + strings.Repeat("a", 501) + "/: x@gmail.com", []string{"2: the regular expression has 501 octets; at most 500 are allowed"}},
		{"not too long", "/" + strings.Repeat("a", 500) + "/: x@gmail.com", nil},
		{"references", `/^(a)(?P<n>b)$/: $1@gmail.com ${1}x@gmail.com ${n}@gmail.com $n.x@gmail.com $$1@gmail.com x$2$1@gmail.com`, nil},
		{"no such group", "/^(a)$/: $2@gmail.com", []string{`2: target: address "$2@gmail.com": there is no group $2; the regular expression has 1` + whole}},
		{"group 0", "/^(a)$/: $0@gmail.com", []string{`2: target: address "$0@gmail.com": there is no group $0; the regular expression has 1` + whole}},
		{"group 01", "/^(a)$/: $01@gmail.com", []string{`2: target: address "$01@gmail.com": there is no group $01; the regular expression has 1` + whole}},
		{"huge group", "/^(a)$/: $99999999999999999999@gmail.com", []string{`2: target: address "$99999999999999999999@gmail.com": there is no group $99999999999999999999; the regular expression has 1` + whole}},
		{"the trap of Go", "/^(a)$/: $1x@gmail.com", []string{`2: target: address "$1x@gmail.com": there is no group $1x; write ${1}x` + whole}},
		{"the same with _", "/^(a)$/: $1_list@gmail.com", []string{`2: target: address "$1_list@gmail.com": there is no group $1_list; write ${1}_list` + whole}},
		{"no such name", "/^(?P<n>a)$/: ${m}@gmail.com", []string{`2: target: address "${m}@gmail.com": there is no group $m; the regular expression has 1` + whole}},
		{"open brace", "/^(a)$/: ${1@gmail.com", []string{`2: target: address "${1@gmail.com": ${ without a }` + whole}},
		{"lone dollar", "/^(a)$/: x$@gmail.com", []string{`2: target: address "x$@gmail.com": a $ without a group; write $1 for the first group, or $$ for a dollar sign` + whole}},
		{"empty braces", "/^(a)$/: ${}@gmail.com", []string{`2: target: address "${}@gmail.com": a $ without a group; write $1 for the first group, or $$ for a dollar sign` + whole}},
		{"dollar in the domain", "/^(a)$/: x@$1.example", []string{`2: target: address "x@$1.example": what was matched can stand before the @ only` + whole}},
		{"whole address matched", "/^(.*)$/: $1", []string{`2: target: address "$1": no @domain` + whole}},
		{"bad text around", "/^(a)$/: .$1@gmail.com", []string{`2: target: address ".$1@gmail.com": would not be an address, with x for what was matched` + whole}},
		{"bad domain after", "/^(a)$/: $1@-.example", []string{`2: target: domain "-.example": label begins or ends with a hyphen` + whole}},

		// Locks.
		{"lock without @", "a: x@gmail.com from=shop.example", []string{`2: from: "shop.example" has no @; write ada@shop.example, or @shop.example for the whole domain`}},
		{"lock with a bad domain", "a: x@gmail.com from=@shop..example", []string{`2: from: domain "shop..example": empty label; write ada@shop.example, or @shop.example for the whole domain`}},
		{"lock with a bad address", "a: x@gmail.com from=a..b@shop.example", []string{`2: from: address "a..b@shop.example": empty local part or misplaced dot; write ada@shop.example, or @shop.example for the whole domain`}},

		// Targets in our own domains.
		{"alias", "a: b@example.org\nb: x@gmail.com", nil},
		{"alias with a tag", "a: b+t@example.org\nb: x@gmail.com", nil},
		{"itself", "a: a@example.org", []string{"2: " + circle + "a@example.org -> a@example.org"}},
		{"itself by tag", "a: A+t@example.org", []string{"2: " + circle + "a@example.org -> A+t@example.org"}},
		{"itself by same_as", "a: a@copy.example", []string{"2: " + circle + "a@example.org -> a@copy.example"}},
		{"itself and away", "a: x@gmail.com a@example.org", []string{"2: " + circle + "a@example.org -> a@example.org"}},
		{"two", "a: b@example.org\nb: a@example.org", []string{"2: " + circle + "a@example.org -> b@example.org -> a@example.org"}},
		{"leading to a loop", "x: a@example.org\ny: x@example.org\na: b@example.org\nb: a@example.org",
			[]string{"4: " + circle + "a@example.org -> b@example.org -> a@example.org"}},
		{"two loops", "a: b@example.org\nb: a@example.org\nc: d@example.org\nd: c@example.org",
			[]string{"2: " + circle + "a@example.org -> b@example.org -> a@example.org", "4: " + circle + "c@example.org -> d@example.org -> c@example.org"}},
		{"two loops through one", "a: b@example.org c@example.org\nb: a@example.org\nc: a@example.org",
			[]string{"2: " + circle + "a@example.org -> b@example.org -> a@example.org", "2: " + circle + "a@example.org -> c@example.org -> a@example.org"}},
		{"through the catch-all", "*: foo@example.org", []string{"2: " + circle + "*@example.org -> foo@example.org"}},
		{"a and the catch-all", "a: nobody@example.org\n*: a@example.org", []string{"2: " + circle + "a@example.org -> nobody@example.org -> a@example.org"}},
		{"through a pattern", "a: p1@example.org\n/^p/: a@example.org", []string{"2: " + circle + "a@example.org -> p1@example.org -> a@example.org"}},
		{"pattern to itself", "/^p/: p1@example.org", []string{`2: ` + circle + `/^p/@example.org -> p1@example.org`}},
		{"through a substitution", "a: a-list@example.org\n/^(.+)-list$/: $1@example.org", []string{"2: " + circle + "a@example.org -> a-list@example.org -> a@example.org"}},
		{"substitution to itself", "a: p@example.org\n/^(p)$/: $1@example.org", []string{"2: " + circle + "p@example.org -> p@example.org"}},
		{"substitution that grows", "a: p@example.org\n/^(p.*)$/: x$1@example.org\n/^(x.*)$/: x$1@example.org",
			[]string{"2: more than 10 aliases in a row: a@example.org -> p@example.org -> xp@example.org -> xxp@example.org -> xxxp@example.org -> xxxxp@example.org -> xxxxxp@example.org -> xxxxxxp@example.org -> xxxxxxxp@example.org -> xxxxxxxxp@example.org -> xxxxxxxxxp@example.org"}},
		{"substitution that ends", "a: b-list@example.org\nb: x@gmail.com\n/^(.+)-list$/: $1@example.org", nil},
		{"substitution to nothing", "a: b-list@example.org\n/^(.+)-list$/: $1@example.org", []string{"2: " + nowhere + "nothing matches b@example.org"}},
		{"substitution to no address", "a: b.-list@example.org\n/^(.+)-list$/: $1@example.org", []string{"2: " + nowhere + `"b."@example.org is too long, or would need quotes`}},
		{"nothing", "a: b@example.org", []string{"2: " + nowhere + "nothing matches b@example.org"}},
		{"two that lead nowhere", "a: b@example.org c@example.org", []string{"2: " + nowhere + "nothing matches b@example.org", "2: " + nowhere + "nothing matches c@example.org"}},
		{"said once", "z: a@example.org\na: b@example.org", []string{"3: " + nowhere + "nothing matches b@example.org"}},
		{"pattern to nothing", "/^p/: b@example.org", []string{"2: " + nowhere + "nothing matches b@example.org"}},
		{"nothing in quotes", "a: \"b,c\"@example.org", []string{"2: " + nowhere + `nothing matches "b,c"@example.org`}},
		{"to a reject", "a: b@example.org\nb: reject=no", []string{"2: " + nowhere + "b@example.org refuses all mail"}},
		{"to a discard", "a: b@example.org\nb: discard", []string{"2: " + nowhere + "b@example.org discards all mail"}},
		{"one of two to a discard", "a: b@example.org x@gmail.com\nb: discard", []string{"2: " + nowhere + "b@example.org discards all mail"}},
		{"to a bad alias", "a: b@example.org\nb: x", []string{`3: target: address "x": no @domain` + whole}},
		{"to this server", "a: me@mx.example.org", []string{"2: " + nowhere + "nothing matches me@mx.example.org"}},
		{"to this server's postmaster", "a: postmaster@mx.example.org", nil},
		{"to the SRS domain", "a: me@srs.example.org", []string{"2: " + nowhere + "nothing matches me@srs.example.org"}},
		{"to the SRS domain of a domain", "a: me@own-srs.example.org", []string{"2: " + nowhere + "nothing matches me@own-srs.example.org"}},
		{"to an ended alias", "a: b@example.org\nb: x@gmail.com until=2000-01-01", nil},
		{"postmaster to abuse", "postmaster: abuse@example.org", nil},

		// Limits.
		{"ten in a row", inARow(10), nil},
		{"eleven in a row", inARow(11), []string{"2: more than 10 aliases in a row: c0@example.org -> c1@example.org -> c2@example.org -> c3@example.org -> c4@example.org -> c5@example.org -> c6@example.org -> c7@example.org -> c8@example.org -> c9@example.org -> c10@example.org"}},
		{"100 targets", "a: " + members(100, "m%d@gmail.com"), nil},
		{"101 targets", "a: " + members(101, "m%d@gmail.com"), []string{"2: a@example.org leads to more than 100 targets, counting each way there; use a mailing list"}},
		{"101 through aliases", "a: b@example.org c@example.org\nb: " + members(50, "b%d@gmail.com") + "\nc: " + members(51, "c%d@gmail.com"),
			[]string{"2: a@example.org leads to more than 100 targets, counting each way there; use a mailing list"}},
		{"100 through aliases", "a: b@example.org c@example.org\nb: " + members(50, "b%d@gmail.com") + "\nc: " + members(50, "c%d@gmail.com"), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tab, problems := alias.New(parse(t, "domain example.org\n"+tt.aliases+
				"\nsame copy.example example.org\nsrs srs.example.org\ndomain other.example\ndomain-srs own-srs.example.org"))
			var got []string
			for _, p := range problems {
				got = append(got, fmt.Sprintf("%d: %s", p.Line, p.Text))
				if p.Source == "" || p.File != "onward.yaml" {
					t.Errorf("no source line or file: %+v", p)
				}
			}
			if g, w := strings.Join(got, "\n"), strings.Join(tt.want, "\n"); g != w {
				t.Errorf("got\n%s\nwant\n%s", g, w)
			}
			if (tab == nil) != (len(tt.want) > 0) {
				t.Errorf("Table %v with problems %v", tab, problems)
			}
		})
	}
}

// A setting that is no alias has a place too.
func TestProblemOfPostmaster(t *testing.T) {
	for _, tt := range []struct{ config, want string }{
		{"postmaster postmaster@example.org", "onward.yaml: aliases in a circle: postmaster@mx.example.org -> postmaster@example.org"},
		{"postmaster abuse@mx.example.org", "onward.yaml: aliases in a circle: postmaster@mx.example.org -> abuse@mx.example.org"},
		{"postmaster me@example.org", "onward.yaml: a target that leads nowhere: nothing matches me@example.org"},
		{"me: abuse@example.org\npostmaster me@example.org", "onward.yaml: aliases in a circle: postmaster@mx.example.org -> me@example.org -> abuse@example.org"},
	} {
		_, problems := alias.New(parse(t, "domain example.org\n"+tt.config))
		if problems.Error() != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.config, problems.Error(), tt.want)
		}
	}
}

func TestTooManyPatterns(t *testing.T) {
	var b strings.Builder
	for i := range 201 {
		fmt.Fprintf(&b, "/^p%d$/: x@gmail.com\n", i)
	}
	_, problems := alias.New(parse(t, "domain example.org\n"+b.String()))
	if len(problems) != 1 || problems[0].Line != 202 {
		t.Errorf("problems: %v", problems)
	}
}

// RELIABILITY.md 34: aliases tied together fully are refused, in a moment.
func TestFanOut(t *testing.T) {
	for _, tt := range []struct {
		depth, width int
		good         bool
	}{
		{3, 10, true}, {4, 10, false}, {9, 30, false}, {7, 2, true}, {9, 2, false},
	} {
		_, problems := alias.New(parse(t, "domain example.org\n"+layers(tt.depth, tt.width, "example.org")))
		if (len(problems) == 0) != tt.good {
			t.Errorf("%d layers of %d: %d problems", tt.depth, tt.width, len(problems))
		}
	}
}
