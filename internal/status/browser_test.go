package status_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"onward/internal/journal"
	"onward/internal/testpeer"
)

var (
	update   = flag.Bool("update", false, "write the pictures in docs/ again")
	pictures = flag.String("pictures", "", "write pictures of all pages into this `directory`")
)

// A browser is one tab of a real Chromium, which can reach nothing but this
// machine's own address.
type browser struct {
	t   testing.TB
	ctx context.Context
}

func newBrowser(t testing.TB, flags ...chromedp.ExecAllocatorOption) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if release, _ := os.ReadFile("/etc/os-release"); err != nil && bytes.Contains(release, []byte("\nID=ubuntu")) {
		t.Skip("Ubuntu has Chromium as a snap only")
	} else if err != nil {
		testpeer.Lack(t, "chromium")
	}
	options := append(slices.Concat(chromedp.DefaultExecAllocatorOptions[:], flags), chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"), chromedp.WSURLReadTimeout(2*time.Minute))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	must(t, chromedp.Do(ctx)) // the browser lives as long as the context of the first call
	ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(cancel)
	return &browser{t, ctx}
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	must(b.t, chromedp.Do(b.ctx, steps...))
}

// eval returns what a JavaScript expression gives.
func eval[T any](b *browser, expression string) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	must(b.t, err)
	return value
}

// until waits until a JavaScript expression is true.
func (b *browser) until(what, expression string) {
	b.t.Helper()
	wait(b.t, what, func() bool { return eval[bool](b, expression) })
}

// look opens a page as wide as that, and dark or not.
func (b *browser) look(url string, width int64, dark bool) {
	b.t.Helper()
	scheme := emulation.MediaFeature{Name: "prefers-color-scheme", Value: "light"}
	if dark {
		scheme.Value = "dark"
	}
	height, scale := int64(1000), 1.0
	if width < 500 {
		height, scale = 844, 2 // a phone
	}
	b.do(
		func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
			_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{&scheme}})
			return chromedp.Void{}, err
		},
		chromedp.EmulateViewport(width, height, chromedp.EmulateScale(scale)),
		chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS("main")),
	)
}

// TestPictures looks at every page on a desk and on a phone: nothing sticks out on
// the right. With -update some pictures go into docs/.
func TestPictures(t *testing.T) {
	b := newBrowser(t)
	w := newWorld(t, true, nil)
	w.live()
	for name, path := range map[string]string{
		"overview": "/", "messages": "/messages", "story": "/messages/" + w.held, "queue": "/queue", "destinations": "/destinations", "aliases": "/aliases",
		"senders": "/aliases?q=shop", "doctor": "/doctor", "login": "/login", "failure": "/nothing", "search": "/messages?q=moth",
	} {
		for _, width := range []int64{1280, 390} {
			b.look(w.server.URL+path, width, false)
			if over := eval[int](b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
				t.Errorf("%s is %d pixels wider than %d", path, over, width)
			}
			b.picture(fmt.Sprintf("status-%s-%d.png", name, width))
		}
	}
	b.look(w.server.URL, 1280, true)
	b.picture("status-overview-dark.png")
}

// TestLive: what happens shows on a page that is open, where it was not before, and
// leaves the keyboard where it was.
func TestLive(t *testing.T) {
	b := newBrowser(t)
	w := newWorld(t, true, nil)
	w.live()
	b.look(w.server.URL+"/messages", 1280, false)
	b.do(chromedp.Evaluate[chromedp.Void](`document.querySelectorAll(".subject")[1].focus()`))
	focused := eval[string](b, "document.activeElement.href")
	w.send(letter{now, "ada@lovelace.example", "me@example.org", "It moves", journal.Forwarded, taken})
	w.flush()
	b.until("the new message", `document.querySelector(".subject").textContent === "It moves"`)
	if n := eval[int](b, `document.querySelectorAll(".arrived").length`); n > 1 {
		t.Errorf("%d rows are marked as new", n)
	}
	if still := eval[string](b, "document.activeElement.href"); still != focused || focused == "" {
		t.Errorf("the keyboard went from %q to %q", focused, still)
	}
	b.look(w.server.URL+"/queue", 390, false)
	must(t, w.Store.Drop(t.Context(), 2, now))
	b.until("the end of an item", `document.querySelectorAll(".mail").length === 2`)
	w.server.CloseClientConnections()
	w.server.Close()
	b.until("the word that it is not up to date", `document.getElementById("live").textContent.startsWith("Not up to date")`)
}

// TestTyping: a search begins with the first letters, and is in the address of the
// page.
func TestTyping(t *testing.T) {
	b := newBrowser(t)
	w := newWorld(t, true, nil)
	w.live()
	b.look(w.server.URL+"/messages", 1280, false)
	// The protocol would type a stroke that the page has taken for itself.
	eval[bool](b, `document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "/", bubbles: true, cancelable: true}))`)
	if id := eval[string](b, "document.activeElement.id"); id != "q" {
		t.Fatalf("/ leads to %q", id)
	}
	const allMoths = `[...document.querySelectorAll(".subject")].every(s => s.textContent.includes("moth"))`
	b.do(chromedp.KeyEvent("moth"))
	b.until("what is looked for", `document.querySelectorAll(".mail").length > 1 && `+allMoths)
	if at := eval[string](b, "location.search"); at != "?q=moth" {
		t.Errorf("at %q", at)
	}
	b.do(chromedp.KeyEvent("\b\b\b\bno such moth"))
	b.until("that there is nothing", `document.querySelector(".empty") !== null`)
	if id := eval[string](b, "document.activeElement.id"); id != "q" {
		t.Errorf("typing ended in %q", id)
	}
}

// TestWithoutScript: search, paging, signing in and deeds need no JavaScript, nor a
// mouse.
func TestWithoutScript(t *testing.T) {
	b := newBrowser(t)
	w := newWorld(t, true, nil)
	w.live()
	b.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return chromedp.Void{}, err
	})
	b.look(w.server.URL+"/messages", 1280, false)
	b.do(chromedp.SendKeys(chromedp.CSS("#q"), "moth\r"))
	b.until("what is looked for", `location.search === "?q=moth" && document.querySelectorAll(".mail").length > 1`)
	b.do(chromedp.Click(chromedp.CSS("footer a[href='/login']")), chromedp.SendKeys(chromedp.CSS("#token"), token+"\r"))
	b.until("signing in", `location.pathname === "/" && document.querySelector("footer button") !== null`)
	b.look(w.server.URL+"/queue?state=held", 1280, false)
	b.do(chromedp.Click(chromedp.CSS("summary")), chromedp.Click(chromedp.CSS(".danger")))
	b.until("that it is dropped", `document.querySelector(".note")?.textContent.startsWith("It is dropped") === true`)
	if stats, err := w.Store.Stats(t.Context()); err != nil || stats.Held != 0 {
		t.Errorf("%+v, %v", stats, err)
	}
	if _, asked := w.asked.Load("/live.js"); asked {
		t.Error("the script was asked for")
	}
}

// TestNothingRuns: a real browser finds nothing to run or to load in what strangers
// wrote. It would notice: the same on a page without guard takes it over.
func TestNothingRuns(t *testing.T) {
	b := newBrowser(t)
	w, paths := besieged(t)
	b.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		const watch = `window.stopped = []; addEventListener("securitypolicyviolation", e => stopped.push(e.violatedDirective + " " + e.blockedURI))`
		_, err := cdp.Call(ctx, t, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: watch})
		return chromedp.Void{}, err
	})
	control := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.asked.Store("control"+r.URL.Path, true)
		rw.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(rw, "<title>mine</title><main>%s</main>", strings.Join(attacks[:4], ""))
	}))
	defer control.Close()
	b.do(chromedp.Navigate(control.URL))
	b.until("the attack on a page without guard", `document.title === "owned"`)
	if _, owned := w.asked.Load("control/owned"); !owned {
		t.Error("the attack loads nothing")
	}
	for _, path := range paths {
		if strings.Contains(path, "/messages/%") || strings.Contains(path, "state=") || strings.Contains(path, "before=") {
			continue // those are pages of errors, which are all alike
		}
		b.do(chromedp.Navigate(w.server.URL + path))
		if title := eval[string](b, "document.title"); title == "owned" || !strings.HasSuffix(title, "mx.example.org") {
			t.Errorf("%.80s: the title is %q", path, title)
		}
		if stopped := eval[[]string](b, "stopped"); len(stopped) > 0 {
			t.Errorf("%.80s: only the policy stopped %v", path, stopped)
		}
	}
	b.look(w.server.URL+"/messages", 390, false)
	w.attack(len(attacks), attacks[0]) // and once more, through live.js
	b.until("the new message", `document.querySelectorAll(".mail").length === `+fmt.Sprint(len(attacks)+1))
	if title := eval[string](b, "document.title"); !strings.HasSuffix(title, "mx.example.org") {
		t.Errorf("live: the title is %q", title)
	}
	if over := eval[int](b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
		t.Errorf("a long word makes the page %d pixels too wide", over)
	}
	if _, owned := w.asked.Load("/owned"); owned {
		t.Error("something was loaded")
	}
}

// inDocs are the pictures that the documentation shows.
var inDocs = regexp.MustCompile(`^status-(overview|messages|story)-(1280|390|dark).png$`)

// picture writes what can be seen to where it is wanted.
func (b *browser) picture(file string) {
	b.t.Helper()
	docs := *update && inDocs.MatchString(file)
	if *pictures == "" && !docs {
		return
	}
	content, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	must(b.t, err)
	if *pictures != "" {
		must(b.t, os.WriteFile(filepath.Join(*pictures, file), content, 0o644))
	}
	if docs {
		must(b.t, os.WriteFile(filepath.Join("..", "..", "docs", file), content, 0o644))
	}
}
