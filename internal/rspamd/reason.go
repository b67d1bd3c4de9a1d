package rspamd

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"onward/internal/reply"
)

// maxSymbols is how many symbols a reason names.
const maxSymbols = 8

// reason is what rspamd has found: its word, and the symbols that weigh most,
// heaviest first.
func (a *answer) reason() string {
	names := make([]string, 0, len(a.Symbols))
	for name, s := range a.Symbols {
		if s.Score != 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(x, y string) int {
		return cmp.Or(cmp.Compare(math.Abs(a.Symbols[y].Score), math.Abs(a.Symbols[x].Score)), strings.Compare(x, y))
	})
	words := make([]string, 0, maxSymbols)
	for _, name := range names[:min(len(names), maxSymbols)] {
		words = append(words, fmt.Sprintf("%s %.2f", name, a.Symbols[name].Score))
	}
	why := fmt.Sprintf("rspamd: %s, score %.2f", a.Action, a.Score)
	if len(words) > 0 {
		why += " (" + strings.Join(words, ", ") + ")"
	}
	return reply.Clean(why)
}
