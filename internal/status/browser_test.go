package status_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

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
	testpeer.Need(t, "chromium")
	path, err := exec.LookPath("chromium")
	must(t, err)
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
	b.do(
		func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
			_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{&scheme}})
			return chromedp.Void{}, err
		},
		chromedp.EmulateViewport(width, 1100, chromedp.EmulateScale(scale(width))),
		chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS("main")),
	)
}

// scale is how many dots a pixel has: phones have more.
func scale(width int64) float64 {
	if width < 500 {
		return 2
	}
	return 1
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
