package dmarc

import (
	"maps"
	"slices"
	"strings"

	"onward/internal/address"
)

// maxUnseen is the most missing answers that are weighed. With more of them
// every outcome counts as possible.
const maxUnseen = 3

// A picture is what there is at each name: the "psd" of its record, or "".
type picture map[address.Domain]string

// seen returns what the walks saw.
func seen(walks ...[]Step) picture {
	p := make(picture)
	for _, s := range slices.Concat(walks...) {
		p[s.Domain] = s.psd()
	}
	return p
}

// couldDiffer reports whether differs holds for any picture that agrees with
// what the walks saw: every name that a temporary error hid has been given each
// answer that is possible there. So an error counts when, and only when, it
// could change the outcome (RELIABILITY 45): a domain stays reachable although
// the servers of its top-level domain stumble over "_dmarc".
func couldDiffer(a, b []Step, differs func(picture) bool) bool {
	hidden := unseen(a, b)
	if len(hidden) > maxUnseen {
		return true
	}
	all := []picture{seen(a, b)}
	for _, d := range hidden {
		var more []picture
		for _, p := range all {
			for _, psd := range possible(d) {
				filled := maps.Clone(p)
				filled[d] = psd
				more = append(more, filled)
			}
		}
		all = more
	}
	return slices.ContainsFunc(all, differs)
}

// possible returns what could be at d. A record of a top-level domain says that
// this is a public suffix, as it must (RFC 9989 5.2).
func possible(d address.Domain) []string {
	if strings.IndexByte(string(d), '.') < 0 {
		return []string{"", "y"}
	}
	return []string{"", "u", "n", "y"}
}

// unseen returns the names that neither walk got to see, because of a temporary
// error there or below. A walk ends at such an error.
func unseen(walks ...[]Step) []address.Domain {
	var hidden []address.Domain
	for _, walk := range walks {
		if n := len(walk); n > 0 && walk[n-1].Status == StatusTemporary {
			hidden = append(hidden, path(walk[0].Domain)[n-1:]...)
		}
	}
	slices.Sort(hidden)
	hidden = slices.Compact(hidden)
	return slices.DeleteFunc(hidden, func(d address.Domain) bool {
		return slices.ContainsFunc(slices.Concat(walks...), func(s Step) bool {
			return s.Domain == d && s.Status != StatusTemporary
		})
	})
}
