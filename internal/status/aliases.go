package status

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"

	"onward/internal/address"
	"onward/internal/config"
	"onward/internal/journal"
)

// maxUnused is how many aliases that received nothing are listed.
const maxUnused = 100

// A directory is the page of aliases. With a search it is a list of who wrote to
// which of them.
type directory struct {
	Search string
	Uses   []use
	Pairs  []journal.Pair
	More   string
	Unused []string // in the configuration, and not in the journal; maxUnused at most
}

// A use is an address that received mail, and where it leads now.
type use struct {
	journal.Use
	Targets string // or why there are none
	Lost    bool   // it is no alias any more
}

func (p *Page) aliases(r *http.Request) (view, error) {
	ctx, q := r.Context(), r.URL.Query()
	d := directory{Search: cut(q.Get("q"))}
	skip, err := number64(q.Get("skip"))
	if err != nil {
		return view{}, err
	}
	j, err := p.read(ctx)
	if err != nil {
		return view{}, err
	}
	defer j.Close()
	if d.Search != "" {
		d.Pairs, err = j.Pairs(ctx, d.Search, 4*perPage)
		return view{Name: "aliases", Title: "Aliases", Data: d}, err
	}
	uses, err := j.Uses(ctx, perPage+1, skip)
	if err != nil {
		return view{}, err
	}
	if len(uses) > perPage {
		uses, d.More = uses[:perPage], fmt.Sprintf("/aliases?skip=%d", skip+perPage)
	}
	for _, u := range uses {
		d.Uses = append(d.Uses, p.whereTo(u))
	}
	if skip == 0 {
		d.Unused, err = j.Unused(ctx, names(p.Config()), maxUnused)
	}
	return view{Name: "aliases", Title: "Aliases", Data: d}, err
}

// whereTo looks up where an address leads now.
func (p *Page) whereTo(u journal.Use) use {
	to, err := address.Parse(u.Recipient)
	if err != nil {
		return use{Use: u, Lost: true}
	}
	match, err := p.Aliases().Lookup(to, p.now())
	if err != nil {
		return use{Use: u, Lost: true}
	}
	if match.Discard {
		return use{Use: u, Targets: "discarded"}
	}
	targets := make([]string, len(match.Targets))
	for i, t := range match.Targets {
		targets[i] = t.String()
	}
	return use{Use: u, Targets: strings.Join(targets, ", ")}
}

// names are the addresses of all aliases in the configuration that have one:
// patterns and catch-alls have none, and what refuses all mail is none.
func names(cfg *config.Config) (all []string) {
	aliases := map[address.Domain][]*config.Alias{}
	for _, d := range cfg.Domains {
		aliases[d.Name] = d.Aliases
	}
	for _, d := range cfg.Domains {
		for _, a := range aliases[cmp.Or(d.SameAs, d.Name)] {
			if a.Key != "*" && !strings.HasPrefix(a.Key, "/") && a.Reject == "" {
				all = append(all, a.Key+"@"+d.Name.String())
			}
		}
	}
	return all
}
