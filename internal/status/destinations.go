package status

import (
	"net/http"

	"onward/internal/smtpclient"
)

// A destination is who runs some mail hosts, and how they do.
type destination struct {
	smtpclient.DestinationState
	Open  bool // mail goes there
	Hosts []smtpclient.DestinationState
}

func (p *Page) destinations(*http.Request) (view, error) {
	var list []destination
	for _, s := range p.Destinations() {
		if n := len(list); n == 0 || list[n-1].Operator != s.Operator {
			list = append(list, destination{DestinationState: s, Open: !s.Until.After(p.now())})
		}
		if last := &list[len(list)-1]; s.Host != "" {
			last.Hosts = append(last.Hosts, s)
		}
	}
	return view{Name: "destinations", Title: "Destinations", Data: list}, nil
}
