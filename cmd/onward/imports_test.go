package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// rows are the packages from top to bottom (docs/journey.md). A package may
// import those of the rows below its own, never its neighbours.
var rows = [][]string{
	{"cmd/onward", "cmd/onward-bench"},
	{"inbound", "forward", "internal/queue", "internal/doctor", "internal/status"},
	{"internal/mailauth", "internal/alias", "internal/returnpath", "internal/smtpclient", "internal/signing", "internal/rewrite",
		"internal/replyaddr", "internal/dsn", "internal/journal", "internal/loop", "internal/testmail",
		"internal/tlsrpt", "internal/certificate", "internal/dnsbl", "internal/rspamd", "internal/milter", "internal/proxyproto", "internal/listenfd", "internal/ratelimit"},
	{"internal/mailauth/spf", "internal/mailauth/dmarc", "internal/mailauth/arc", "internal/mailauth/iprev",
		"internal/tlspolicy"},
	{"internal/tlspolicy/mtasts", "internal/tlspolicy/dane"},
	{"internal/mailauth/dkim", "internal/mailauth/authres", "internal/webclient", "internal/filter"},
	{"internal/config", "internal/store", "internal/message", "internal/resolver"},
	{"internal/reply", "internal/problem", "internal/database", "internal/dialguard"},
	{"internal/address", "internal/parallel", "srs"},
}

// mayImport are libraries that one package wraps; nobody else sees them.
var mayImport = map[string][]string{
	"blitiri.com.ar/go/spf":            {"internal/mailauth/spf"},
	"github.com/emersion/go-message":   {"internal/dsn"},
	"github.com/emersion/go-msgauth":   {"internal/testmail"},
	"github.com/caddyserver/certmagic": {"internal/certificate"},
	"github.com/libdns/libdns":         {"internal/certificate"},
	"go.uber.org/zap":                  {"internal/certificate"},
	"github.com/emersion/go-smtp":      {"inbound"},
	"github.com/miekg/dns":             {"internal/resolver", "internal/testmail", "internal/certificate"},
	"github.com/spf13/cobra":           {"cmd/onward"},
	"github.com/spf13/pflag":           {"cmd/onward"},
	"go.yaml.in/yaml/v4":               {"internal/config"},
	"golang.org/x/net/publicsuffix":    {"internal/address"},
	"modernc.org/sqlite":               {"internal/database"},
}

// forbidden are unsafe on mail from the network (RELIABILITY.md 0.5, 66).
var forbidden = []string{"net/mail", "net/textproto", "mime", "os/exec"}

// TestImportsPointDown reads every file of the program, tests left out.
func TestImportsPointDown(t *testing.T) {
	row := map[string]int{}
	for i, packages := range rows {
		for _, p := range packages {
			row[p] = i
		}
	}
	seen := map[string]bool{}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		rel, _ := filepath.Rel(root, file)
		from := filepath.ToSlash(filepath.Dir(rel))
		if from == "internal/testpeer" || strings.HasPrefix(from, "testdata") {
			return nil // used by tests, or data
		}
		at, known := row[from]
		if !known {
			t.Errorf("%s: package %s stands in no row", rel, from)
		}
		seen[from] = true
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range parsed.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			if ours, ok := strings.CutPrefix(imported, "onward/"); ok {
				if to, known := row[ours]; known && to <= at {
					t.Errorf("%s imports %s, which is not below it", rel, ours)
				}
				if ours == "internal/testmail" && !strings.HasPrefix(from, "cmd/") {
					t.Errorf("%s imports %s, which is for tests, the demo and the bench", rel, ours)
				}
			}
			checkLibrary(t, rel, from, imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for p := range row {
		if !seen[p] {
			t.Errorf("package %s has a row and no files", p)
		}
	}
}

// checkLibrary holds that a library is imported by the package that wraps it.
func checkLibrary(t *testing.T, file, from, imported string) {
	t.Helper()
	for _, bad := range forbidden {
		if imported == bad && from != "internal/testmail" && from != "cmd/onward-bench" {
			t.Errorf("%s imports %s, which must not see mail", file, imported)
		}
	}
	for library, wrappers := range mayImport {
		if imported != library && !strings.HasPrefix(imported, library+"/") {
			continue
		}
		allowed := false
		for _, w := range wrappers {
			allowed = allowed || path.Clean(w) == from
		}
		if !allowed {
			t.Errorf("%s imports %s; use the package that wraps it: %v", file, imported, wrappers)
		}
	}
}
