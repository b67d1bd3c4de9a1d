// Package status is what the daemon shows of itself over HTTP: a page for its
// owner, metrics for Prometheus, /healthz and /readyz.
//
// Rules:
//   - It reads. The queue can be changed with the token only (see guard.go).
//   - On a loopback address everybody may read; on any other the token is needed
//     for everything, and Serve refuses to begin without one.
//   - Subjects, addresses and answers come from strangers. They reach a page by
//     html/template alone, as text; there is no template.HTML here, and the
//     policy of the pages lets nothing run or load but our own two files.
//   - Pages are made on the server and are whole without JavaScript. live.js asks
//     for the same page again and puts what is new in place of what is old.
//   - Nothing of it costs mail anything: requests are few at a time, bounded and
//     short, and read from connections that never wait for the writers.
package status

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"onward/internal/alias"
	"onward/internal/config"
	"onward/internal/journal"
	"onward/internal/smtpclient"
	"onward/internal/store"
)

// Limits of the server. A page takes milliseconds, a search through a million
// messages some seconds.
const (
	maxConnections = 64
	maxAtOnce      = 4 // pages being made; as many readers has each database
	maxHeader      = 16 << 10
	maxBody        = 4 << 10
	readTime       = 10 * time.Second
	pageTime       = 20 * time.Second
	writeTime      = 40 * time.Second // pageTime and the page on its way
	idleTime       = 2 * time.Minute
	stopTime       = 5 * time.Second
)

// A Page shows one daemon. Its fields are set before Serve and not changed
// after; those without a remark are required.
type Page struct {
	Version      string
	StateDir     string // where the journal is
	Store        *store.Store
	Journal      *journal.Journal
	Destinations func() []smtpclient.DestinationState // see smtpclient.Destinations.Snapshot
	Config       func() *config.Config                // the one in force
	Aliases      func() *alias.Table                  // the one in force
	Metrics      *Metrics
	Log          *slog.Logger

	Ready    func() error                  // nil when mail can come in; may be nil itself
	Expires  func() time.Time              // end of the certificate, zero when there is none to speak of; may be nil
	Troubles func() []string               // what else is wrong, in sentences; may be nil
	Examine  func(context.Context) []Check // what `onward doctor` does; may be nil
	Token    string                        // lets its bearer change the queue; empty: nobody may
	Hosts    []string                      // names by which a proxy calls this server; the token is needed there too

	clock  func() time.Time // time.Now, but in tests
	doctor doctor
}

// MinToken is the fewest characters of a token: it cannot be guessed over the
// network however fast it is tried.
const MinToken = 20

// Serve answers at l until ctx ends, and closes l.
func (p *Page) Serve(ctx context.Context, l net.Listener) error {
	open := isLoopback(l.Addr())
	if err := p.checkToken(open, l.Addr()); err != nil {
		l.Close()
		return err
	}
	server := &http.Server{
		Handler:           p.Handler(open),
		ReadHeaderTimeout: readTime,
		ReadTimeout:       readTime,
		WriteTimeout:      writeTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(p.Log.Handler(), slog.LevelDebug),
	}
	var working sync.WaitGroup
	working.Go(func() { p.doctor.run(ctx, p.Examine) })
	working.Go(func() {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		if server.Shutdown(last) != nil {
			server.Close()
		}
	})
	err := server.Serve(netutil.LimitListener(l, maxConnections))
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	working.Wait()
	return err
}

func (p *Page) checkToken(open bool, addr net.Addr) error {
	switch {
	case !open && p.Token == "":
		return fmt.Errorf("status page: %v can be reached by others, so it needs a token", addr)
	case p.Token != "" && len(p.Token) < MinToken:
		return fmt.Errorf("status page: the token is short; it needs %d characters", MinToken)
	}
	return nil
}

// isLoopback reports whether only this machine can reach an address.
func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// Handler answers all requests. Where open is set, reading needs no token.
func (p *Page) Handler(open bool) http.Handler {
	mux, slots := http.NewServeMux(), make(chan struct{}, maxAtOnce)
	for pattern, view := range map[string]maker{
		"GET /{$}":           p.overview,
		"GET /messages":      p.messages,
		"GET /messages/{id}": p.story,
		"GET /queue":         p.queue,
		"POST /queue/{item}": p.act,
		"GET /destinations":  p.destinations,
		"GET /aliases":       p.aliases,
		"GET /doctor":        p.checks,
		"GET /login":         p.login,
		"POST /login":        p.enter,
		"POST /logout":       p.leave,
		"/":                  p.nothing,
	} {
		mux.HandleFunc(pattern, p.page(slots, view))
	}
	mux.HandleFunc("GET /metrics", p.metrics)
	mux.HandleFunc("GET /healthz", p.healthz)
	mux.HandleFunc("GET /readyz", p.readyz)
	for _, name := range []string{"style.css", "live.js", "icon.svg"} {
		mux.HandleFunc("GET /"+name, static(name))
	}
	return p.guard(mux, open)
}

// healthz answers as long as the process does.
func (p *Page) healthz(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "ok")
}

// readyz answers 200 when mail can come in and be kept.
func (p *Page) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := p.ready(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

func (p *Page) ready() error {
	if err := p.Store.Healthy(); err != nil || p.Ready == nil {
		return err
	}
	return p.Ready()
}

func (p *Page) now() time.Time {
	if p.clock != nil {
		return p.clock()
	}
	return time.Now()
}

// read opens the journal for one request: a damaged one is moved aside and begun
// anew, so that it must not be kept open. The caller closes it.
func (p *Page) read(ctx context.Context) (*journal.Reader, error) {
	return journal.OpenReader(ctx, p.StateDir)
}
