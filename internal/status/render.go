package status

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"onward/internal/journal"
	"onward/internal/store"
)

//go:embed templates/*.html static/*
var files embed.FS

// A view is what a request led to: a page, or the way to another one.
type view struct {
	Name  string // of its template
	Title string
	Note  string // one sentence on top
	Code  int    // 0: 200
	Data  any

	Go     string // another page to go to instead
	Cookie *http.Cookie

	// Set for every page.
	Hostname, Version string
	Readable          bool // who asks may see all pages
	Known             bool // and has the token
	Actions           bool // there is a token
	Now               time.Time
}

// Pages are those that each page leads to.
func (view) Pages() []view {
	return []view{{Name: "overview", Go: "/", Title: "Overview"}, {Name: "messages", Go: "/messages", Title: "Messages"},
		{Name: "queue", Go: "/queue", Title: "Queue"}, {Name: "destinations", Go: "/destinations", Title: "Destinations"},
		{Name: "aliases", Go: "/aliases", Title: "Aliases"}, {Name: "doctor", Go: "/doctor", Title: "Doctor"}}
}

// Section is the page that a view belongs to.
func (v view) Section() string {
	if v.Name == "story" {
		return "messages"
	}
	return v.Name
}

// A maker makes the view for a request.
type maker func(*http.Request) (view, error)

// page answers with what make makes, a few at a time.
func (p *Page) page(slots chan struct{}, make maker) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-r.Context().Done():
			http.Error(w, "Too much is asked of this server at the same time; try again.", http.StatusServiceUnavailable)
			return
		}
		v, err := make(r)
		if err != nil {
			v = p.failure(r, err)
		}
		if v.Cookie != nil {
			http.SetCookie(w, v.Cookie)
		}
		if v.Go != "" {
			http.Redirect(w, r, v.Go, http.StatusSeeOther)
			return
		}
		v.Hostname, v.Version, v.Now = p.Config().Hostname.String(), p.Version, p.now()
		who := accessOf(r)
		v.Readable, v.Known, v.Actions = who.reads, who.acts, p.Token != ""
		p.show(w, v)
	}
}

func (p *Page) show(w http.ResponseWriter, v view) {
	var b bytes.Buffer
	if err := pages[v.Name].Execute(&b, v); err != nil {
		p.Log.Error("status page", "page", v.Name, "err", err)
		http.Error(w, "This page could not be made; the log says why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(cmp.Or(v.Code, http.StatusOK))
	w.Write(bytes.Map(visible, b.Bytes()))
}

// visible drops what cannot be seen, and would turn or hide the text around it
// (RELIABILITY 65, 68).
func visible(r rune) rune {
	if r == '\n' || strconv.IsPrint(r) || unicode.Is(unicode.Zs, r) {
		return r
	}
	return -1
}

// failure is the page in place of one that could not be made.
func (p *Page) failure(r *http.Request, err error) view {
	v := view{Name: "failure", Title: "That did not work", Code: http.StatusInternalServerError, Note: err.Error()}
	switch {
	case errors.Is(err, errUnknown), errors.Is(err, journal.ErrUnknown), errors.Is(err, store.ErrNotFound):
		v.Title, v.Code = "Not found", http.StatusNotFound
	case errors.Is(err, store.ErrBusy), errors.Is(err, errState):
		v.Code = http.StatusConflict
	case errors.Is(err, errRequest):
		v.Code = http.StatusBadRequest
	case errors.Is(err, context.DeadlineExceeded):
		v.Code, v.Note = http.StatusServiceUnavailable, "The journal took too long for that. A whole address is found at once; parts of one are looked for in every message."
	default:
		p.Log.Error("status page", "path", r.URL.Path, "err", err)
	}
	return v
}

// Errors of a request, for failure.
var (
	errUnknown = errors.New("there is no such page")
	errRequest = errors.New("the request makes no sense")
	errState   = errors.New("the item is not in the state for that")
)

func (p *Page) nothing(*http.Request) (view, error) { return view{}, errUnknown }

// pages are the templates by name, each within layout.html.
var pages = func() map[string]*template.Template {
	layout := template.Must(template.New("layout.html").Funcs(words).ParseFS(files, "templates/layout.html", "templates/parts.html"))
	all := map[string]*template.Template{}
	for _, name := range []string{"overview", "messages", "story", "queue", "destinations", "aliases", "doctor", "login", "failure"} {
		all[name] = template.Must(template.Must(layout.Clone()).ParseFS(files, "templates/"+name+".html"))
	}
	return all
}()

// words are what templates can say. None of them returns markup.
var words = template.FuncMap{
	"clock":    func(t time.Time) string { return t.Local().Format("15:04:05") },
	"day":      func(t time.Time) string { return t.Local().Format("Monday 2 January") },
	"moment":   func(t time.Time) string { return t.Local().Format("2 Jan, 15:04:05") },
	"stamp":    func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"zone":     func(t time.Time) string { return t.Local().Format("MST") },
	"until":    func(t, now time.Time) string { return span(t.Sub(now)) },
	"since":    func(t, now time.Time) string { return span(now.Sub(t)) },
	"octets":   Octets,
	"amount":   amount[int],
	"amount64": amount[int64],
	"sender":   func(s string) string { return cmp.Or(s, "<>") },
	"subject":  journal.DecodeSubject,
	"percent":  func(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) + "%" },
	"mood":     mood,
	"plural":   plural,
}

// mood sorts the words for what became of something, and the results of
// authentication, into good, bad and in between.
func mood(word any) string {
	switch fmt.Sprint(word) {
	case "forwarded", "delivered", "pass", "ok":
		return "good"
	case "rejected", "refused", "dropped", "reported", "fail", "failure", "permerror":
		return "bad"
	case "queued", "deferred", "unknown", "held", "released", "retried", "waiting", "softfail", "temperror", "warning", "paused":
		return "soso"
	}
	return "none"
}

// span writes a time for people, by its largest part.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// Octets writes a size for people.
func Octets(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d octets", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// amount writes a number with a narrow space between its thousands.
func amount[N int | int64](n N) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return amount(n) + " " + many
}

// static answers with a file of ours, which browsers may keep as long as it is
// the same.
func static(name string) http.HandlerFunc {
	content, err := files.ReadFile("static/" + name)
	if err != nil {
		panic(err) // it is compiled in
	}
	tag := fmt.Sprintf(`"%x"`, sha256.Sum256(content))
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, name, time.Time{}, strings.NewReader(string(content)))
	}
}
