package store_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"onward/internal/address"
	"onward/internal/store"
)

// writerDir makes this program, run again by TestKill, write tokens there.
const writerDir = "ONWARD_TEST_WRITER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		writeForEver(dir)
	}
	os.Exit(m.Run())
}

func open(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), dir, store.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func sender(t *testing.T, text string) address.Mailbox {
	t.Helper()
	m, err := address.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func keep(t *testing.T, s *store.Store, token string, from address.Mailbox, day, oldest int) string {
	t.Helper()
	kept, err := s.KeepToken(t.Context(), token, from, day, oldest)
	if err != nil {
		t.Fatal(err)
	}
	return kept
}

func want(t *testing.T, s *store.Store, token string, from address.Mailbox) {
	t.Helper()
	if got, err := s.TokenSender(t.Context(), token); got != from || err != nil {
		t.Errorf("TokenSender(%q) = %v, %v; want %v", token, got, err, from)
	}
}

// raw opens the database past the store.
func raw(t *testing.T, dir string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: filepath.Join(dir, "onward.db")}).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestToken(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ada, bob := sender(t, "Ada@example.org"), sender(t, "bob@example.org")
	for _, tt := range []struct {
		token       string
		from        address.Mailbox
		day, oldest int
		want        string
	}{
		{"A1", ada, 100, 85, "A1"},
		{"A2", ada, 100, 85, "A1"},
		{"B1", bob, 100, 85, "B1"},
		{"A3", sender(t, "ada@example.org"), 100, 85, "A3"}, // another sender: only its owner knows whether case matters
		{"A4", ada, 101, 86, "A4"},
		{"A5", ada, 101, 86, "A4"},
	} {
		if got := keep(t, s, tt.token, tt.from, tt.day, tt.oldest); got != tt.want {
			t.Errorf("KeepToken(%q, %v, %d) = %q, want %q", tt.token, tt.from, tt.day, got, tt.want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	want(t, s, "A1", ada)
	want(t, s, "A2", address.Mailbox{})
	want(t, s, "A4", ada)
	want(t, s, "B1", bob)

	keep(t, s, "B2", bob, 101, 101)
	want(t, s, "A1", address.Mailbox{})
	want(t, s, "B1", address.Mailbox{})
	want(t, s, "A4", ada)
	want(t, s, "B2", bob)
}

func TestTakenToken(t *testing.T) {
	s := open(t, t.TempDir())
	ada := sender(t, "ada@example.org")
	keep(t, s, "A", ada, 1, 0)
	if kept, err := s.KeepToken(t.Context(), "A", sender(t, "eve@example.org"), 1, 0); err == nil {
		t.Errorf("a token was given away twice: %q", kept)
	}
	want(t, s, "A", ada)
}

// Text from strangers is never SQL (RELIABILITY.md 63).
func TestHostileText(t *testing.T) {
	s := open(t, t.TempDir())
	for i, text := range []string{
		`"'; DROP TABLE sender_token; --"@example.org`, "o'brien@example.org", `"$1 ? :a @b"@example.org`,
		`"a\"b\\c"@example.org`, "jürgen@example.org", "a@[IPv6:2001:db8::1]", "%00@example.org",
	} {
		from := sender(t, text)
		token := fmt.Sprintf("T%d' OR '1'='1", i)
		if got := keep(t, s, token, from, 1, 0); got != token {
			t.Errorf("KeepToken = %q, want %q", got, token)
		}
		want(t, s, token, from)
	}
	want(t, s, "x' OR '1'='1", address.Mailbox{})
}

// fill puts n tokens of one domain and day into the database, past the store.
func fill(t *testing.T, dir, domain string, first, n, day int) {
	t.Helper()
	const insert = `WITH RECURSIVE n(i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n LIMIT ?)
		INSERT INTO sender_token (token, sender, domain, day) SELECT 'F' || i, i || '@' || ?, ?, ? FROM n`
	if _, err := raw(t, dir).ExecContext(t.Context(), insert, first, n, domain, domain, day); err != nil {
		t.Fatal(err)
	}
}

func TestDomainLimit(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("writes 100,000 rows")
	}
	dir := t.TempDir()
	s := open(t, dir)
	fill(t, dir, "big.example", 1, store.MaxDomainTokens-1, 50)
	ada, eve := sender(t, "ada@big.example"), sender(t, "eve@big.example")
	keep(t, s, "A", ada, 50, 0)
	want(t, s, "F1", sender(t, "1@big.example")) // the limit itself
	keep(t, s, "O", sender(t, "eve@other.example"), 50, 0)
	want(t, s, "F1", sender(t, "1@big.example")) // of another domain
	keep(t, s, "E", eve, 50, 0)
	want(t, s, "F1", address.Mailbox{}) // the oldest made room
	want(t, s, "F2", sender(t, "2@big.example"))
	want(t, s, "A", ada)
	want(t, s, "E", eve)
	keep(t, s, "E2", eve, 51, 51)
	want(t, s, "A", address.Mailbox{}) // too old
	want(t, s, "E2", eve)
}

func TestTotalLimit(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	const insert = `INSERT INTO sender_token (number, token, sender, domain, day) VALUES (?, 'F' || ?1, ?1 || '@d.example', 'd.example', 50)`
	for _, number := range []int{1, 2, 3, store.MaxTokens} {
		if _, err := raw(t, dir).ExecContext(t.Context(), insert, number); err != nil {
			t.Fatal(err)
		}
	}
	ada, bob := sender(t, "ada@example.org"), sender(t, "bob@example.org")
	keep(t, s, "A", ada, 50, 0)
	keep(t, s, "B", bob, 50, 0)
	want(t, s, "A", ada)
	want(t, s, "B", bob)
	want(t, s, "F1", address.Mailbox{})
	want(t, s, "F2", address.Mailbox{})
	want(t, s, "F3", sender(t, "3@d.example"))
}

// However many ask at once, also from two processes, a sender has one token.
func TestConcurrentTokens(t *testing.T) {
	dir := t.TempDir()
	stores := []*store.Store{open(t, dir), open(t, dir)}
	ada := sender(t, "ada@example.org")
	got := make([]string, 20)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			got[i], _ = stores[i%2].KeepToken(t.Context(), fmt.Sprintf("T%d", i), ada, 1, 0)
		})
	}
	wg.Wait()
	for _, token := range got {
		if token == "" || token != got[0] {
			t.Fatalf("tokens %q, want one", got)
		}
	}
	want(t, stores[0], got[0], ada)
}

func TestCancelled(t *testing.T) {
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if kept, err := s.KeepToken(ctx, "A", sender(t, "ada@example.org"), 1, 0); err == nil || kept != "" {
		t.Errorf("KeepToken = %q, %v", kept, err)
	}
	if _, err := s.TokenSender(ctx, "A"); err == nil {
		t.Error("TokenSender says that a token is unknown when it could not ask")
	}
	keep(t, s, "B", sender(t, "bob@example.org"), 1, 0)
}

func TestFileModes(t *testing.T) {
	dir := t.TempDir()
	open(t, dir).Close()
	if err := os.Chmod(filepath.Join(dir, "onward.db"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	keep(t, s, "A", sender(t, "ada@example.org"), 1, 0)
	for _, name := range []string{"onward.db", "onward.db-wal", "onward.db-shm"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", name, info.Mode(), err)
		}
	}
}

func TestDirectoryNames(t *testing.T) {
	for _, name := range []string{"with space", "a?b#c&d=e", "100%20", "ä;'\"", ":memory:"} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir)
		keep(t, s, "A", sender(t, "ada@example.org"), 1, 0)
		if _, err := os.Stat(filepath.Join(dir, "onward.db-wal")); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(t *testing.T, dir string)
		want string
	}{
		{"no directory", func(t *testing.T, dir string) { os.Remove(dir) }, "no such file"},
		{"not a database", func(t *testing.T, dir string) {
			os.WriteFile(filepath.Join(dir, "onward.db"), []byte(strings.Repeat("hello ", 1000)), 0o600)
		}, "not a database"},
		{"newer schema", func(t *testing.T, dir string) {
			open(t, dir).Close()
			if _, err := raw(t, dir).Exec(`INSERT INTO migration (number) VALUES (999)`); err != nil {
				t.Fatal(err)
			}
		}, "its schema is number 999, but this version of onward knows only 6: start the newer version"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			tt.make(t, dir)
			s, err := store.Open(t.Context(), dir, store.Limits{})
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "onward.db") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want one line with %q and the file", err, tt.want)
			}
		})
	}
}

func TestOpenAtOnce(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := store.Open(t.Context(), dir, store.Limits{})
			if err != nil {
				t.Error(err)
				return
			}
			s.Close()
		})
	}
	wg.Wait()
}

// A process that is killed while it writes has kept every token that it gave
// out, and the database opens.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	open(t, dir).Close()
	given := map[string]address.Mailbox{}
	for round := range 5 {
		command := exec.Command(os.Args[0])
		command.Env = append(os.Environ(), fmt.Sprintf("%s=%s", writerDir, dir))
		out, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			token, from, _ := strings.Cut(lines.Text(), " ")
			given[token] = sender(t, from)
			if n == 10+7*round {
				command.Process.Kill()
			}
		}
		command.Wait()
	}
	s := open(t, dir)
	for token, from := range given {
		want(t, s, token, from)
	}
	if len(given) < 5*10 {
		t.Errorf("only %d tokens were given out", len(given))
	}
}

func writeForEver(dir string) {
	s, err := store.Open(context.Background(), dir, store.Limits{})
	for i := 0; err == nil; i++ {
		from := address.Mailbox{Local: fmt.Sprint(i), Domain: "example.org"}
		token := fmt.Sprintf("P%dT%d", os.Getpid(), i)
		if token, err = s.KeepToken(context.Background(), token, from, os.Getpid(), 0); err == nil {
			fmt.Println(token, from)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func BenchmarkKeepToken(b *testing.B) {
	s, err := store.Open(b.Context(), b.TempDir(), store.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for i := 0; b.Loop(); i++ {
		from := address.Mailbox{Local: fmt.Sprint(i), Domain: address.Domain(fmt.Sprintf("d%d.example", i%1000))}
		if _, err := s.KeepToken(b.Context(), fmt.Sprint(i), from, 1, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTokenSender(b *testing.B) {
	s, err := store.Open(b.Context(), b.TempDir(), store.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if _, err := s.KeepToken(b.Context(), "A", address.Mailbox{Local: "ada", Domain: "example.org"}, 1, 0); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.TokenSender(b.Context(), "A"); err != nil {
			b.Fatal(err)
		}
	}
}
