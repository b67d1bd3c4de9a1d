package alias

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"onward/internal/config"
)

// names is the aliases of one domain. Domains that are same_as share one.
type names struct {
	listed   bool                     // one of `domains:`, not just our hostname or SRS domain
	exact    map[string]*config.Alias // by folded local part
	patterns []*pattern               // in file order
	catchAll *config.Alias            // may be nil
}

// A hit is the alias that decides about one local part.
type hit struct {
	alias   *config.Alias
	by      By
	tag     string   // what stands after the first "+", unless the name includes it
	pattern *pattern // for ByPattern
	local   string   // what the pattern matched, as written
	groups  []int    // where, as regexp has it
}

// find returns the alias for a local part, by precedence.
func (n *names) find(local string) (hit, bool) {
	local = norm.NFC.String(local)
	name := fold(local)
	if a, ok := n.exact[name]; ok {
		return hit{alias: a, by: ByName}, true
	}
	_, tag, _ := strings.Cut(local, "+")
	base, _, _ := strings.Cut(name, "+")
	if a, ok := n.exact[base]; ok {
		return hit{alias: a, by: ByTag, tag: tag}, true
	}
	for _, p := range n.patterns {
		if groups := p.re.FindStringSubmatchIndex(local); groups != nil {
			return hit{alias: p.alias, by: ByPattern, tag: tag, pattern: p, local: local, groups: groups}, true
		}
	}
	return hit{alias: n.catchAll, by: ByCatchAll, tag: tag}, n.catchAll != nil
}

// fold makes two spellings of a local part equal: one Unicode form (NFC), no
// case. Upper case first joins letters that have two lower-case forms.
func fold(local string) string {
	if isASCII(local) {
		return strings.ToLower(local)
	}
	lower := strings.Map(func(r rune) rune {
		return unicode.ToLower(unicode.ToUpper(r))
	}, norm.NFC.String(local))
	return norm.NFC.String(lower)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
