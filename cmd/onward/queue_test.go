package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/journal"
	"onward/internal/message"
	"onward/internal/store"
)

// A desk is a configuration and a state directory, beside which no daemon runs.
type desk struct{ config, state string }

func newDesk(t testing.TB) *desk {
	t.Helper()
	dir := t.TempDir()
	d := &desk{config: filepath.Join(dir, "onward.yaml"), state: filepath.Join(dir, "state")}
	text := "hostname: mx.onward.example\npostmaster: owner@dest.example\nstate_dir: " + d.state + "\ndomains: {alias.example: {aliases: {me: ann@dest.example}}}\n"
	if err := os.WriteFile(d.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return d
}

// run runs a command with the desk's configuration.
func (d *desk) run(t testing.TB, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	return onward(t, append(args, "-c", d.config)...)
}

// does runs a command that has to succeed and be silent on standard error.
func (d *desk) does(t testing.TB, args ...string) string {
	t.Helper()
	stdout, stderr, status := d.run(t, args...)
	if status != 0 || stderr != "" {
		t.Fatalf("%v: exit status %d, %s", args, status, stderr)
	}
	return stdout
}

// fails runs a command that has to fail with one line that says this.
func (d *desk) fails(t testing.TB, want int, says string, args ...string) {
	t.Helper()
	stdout, stderr, status := d.run(t, args...)
	line, more, _ := strings.Cut(stderr, "\n")
	if status != want || stdout != "" || !strings.Contains(line, says) || want == 1 && more != "" {
		t.Errorf("%v: exit status %d, %q, %q; want %d and %q", args, status, stdout, stderr, want, says)
	}
}

func mailbox(s string) address.Mailbox {
	m, err := address.Parse(s)
	if err != nil {
		panic(err)
	}
	return m
}

// item is one message for one target, due in an hour.
func item(id, target string) *store.Item {
	const header = "From: Ada <ada@sender.example>\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\x1b[31m\r\n\tfolded\u2028\r\n"
	now := time.Now()
	return &store.Item{
		Message: id, Sender: address.ReversePath{Mailbox: mailbox("ada@sender.example")}, Bounceable: true,
		From: address.ReversePath{Mailbox: mailbox("SRS0=a=b=sender.example=ada@mx.onward.example")}, Recipient: mailbox("me@alias.example"), Target: mailbox(target),
		Header: []byte(header), Size: int64(len(header) + len(rest)), Arrived: now, Expires: now.Add(5 * 24 * time.Hour), Next: now.Add(time.Hour + time.Minute),
		Attempts: 2, Host: "mx.dest.example", Said: "452 4.2.2 mailbox\x1b[31m full",
	}
}

const rest = "\r\nthe secret of the body\r\n"

// put puts items into the queue of a state directory.
func put(t testing.TB, state string, items ...*store.Item) {
	t.Helper()
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), state, store.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, i := range items {
		if err := s.Add(t.Context(), strings.NewReader(rest), []*store.Item{i}); err != nil {
			t.Fatal(err)
		}
	}
}

// note writes into the journal of a state directory.
func note(t testing.TB, state string, entries ...journal.Entry) {
	t.Helper()
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	j := journal.Start(state, func() journal.Limits { return journal.Limits{} }, slog.New(slog.NewTextHandler(io.Discard, nil)))
	for _, e := range entries {
		j.Record(e)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// queued are the entries of a message that went into the queue.
func queued(id, target string) []journal.Entry {
	full := journal.Answer{Code: 452, Status: "4.2.2", Text: "mailbox full"}
	return []journal.Entry{
		journal.Attempt{Message: id, Began: time.Now().Add(-2 * time.Second), Took: time.Second, Recipient: "me@alias.example", Target: target, Host: "mx.dest.example", Peer: "192.0.2.9:25", Step: "RCPT", Result: "deferred", Answer: full},
		journal.Message{
			ID: id, Arrived: time.Now(), Client: netip.MustParseAddr("192.0.2.1"), Helo: "mx.sender.example", From: address.ReversePath{Mailbox: mailbox("ada@sender.example")},
			Recipients: []message.Recipient{{Address: mailbox("me@alias.example"), Targets: []address.Mailbox{mailbox(target)}}}, Subject: "=?utf-8?Q?Gr=C3=BC=C3=9Fe?=", Size: 2048,
			Verdict: &journal.Verdict{SPF: "pass", SPFDomain: "sender.example", ARC: "none", DMARC: "pass", Author: "sender.example", Policy: "reject", Why: "because of this"},
			Outcome: journal.Queued, Answer: journal.Answer{Code: 250, Status: "2.0.0", Text: "queued"},
		},
		journal.Event{Message: id, From: "ada@sender.example", Recipient: "me@alias.example", Targets: []string{target}, Outcome: journal.Queued},
	}
}

// object is one line of JSON.
type object map[string]any

func objects(t testing.TB, text string) []object {
	t.Helper()
	var list []object
	for line := range strings.Lines(text) {
		var o object
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		list = append(list, o)
	}
	return list
}

// events are what the journal knows of the fate of a message.
func (d *desk) events(t testing.TB, id string) []object {
	t.Helper()
	var story struct{ Events []object }
	if err := json.Unmarshal([]byte(d.does(t, "log", "--json", id)), &story); err != nil {
		t.Fatal(err)
	}
	return story.Events
}

const (
	idA = "01KB0S8EPVWC00000000000000"
	idB = "01KB0S8EPVWD00000000000000"
)

// TestQueueCommands: everything that can be asked of a queue and done to it,
// without a daemon.
func TestQueueCommands(t *testing.T) {
	d := newDesk(t)
	put(t, d.state, item(idA, "ann@dest.example"), item(idA, "bob@dest.example"), item(idB, "cat@other.example"))
	note(t, d.state, queued(idA, "ann@dest.example")...)

	list := d.does(t, "queue", "list")
	for _, want := range []string{"1       0s        2  in 1h   " + idA + "  me@alias.example -> ann@dest.example", "452 4.2.2 mailbox", "(mx.dest.example)", "3 items, of which 0 held; "} {
		if !strings.Contains(list, want) {
			t.Errorf("no %q in the list:\n%s", want, list)
		}
	}

	if got := d.does(t, "queue", "hold", idA); got != "2 items held\n" {
		t.Errorf("hold: %q", got)
	}
	d.fails(t, 1, "item 1 is held already: held by ", "queue", "hold", "1")
	if got := objects(t, d.does(t, "queue", "list", "--held", "--json")); len(got) != 2 || got[0]["item"] != 1.0 || got[0]["state"] != "held" || got[0]["next"] != nil || got[1]["target"] != "bob@dest.example" {
		t.Errorf("held: %v", got)
	}
	d.fails(t, 1, "item 3 is not held; onward queue retry 3", "queue", "release", "3")
	if got := d.does(t, "queue", "release", "1"); got != "1 item released, to be tried now\n" {
		t.Errorf("release: %q", got)
	}

	if got := d.does(t, "queue", "retry", "--all", "--domain", "OTHER.example"); got != "1 item to be tried now\n" {
		t.Errorf("retry of a domain: %q", got)
	}
	if got := d.does(t, "queue", "retry", "--all", "--domain", "nowhere.example"); got != "0 items to be tried now\n" {
		t.Errorf("retry of another domain: %q", got)
	}
	if got := d.does(t, "queue", "retry", "2", "01kb0s8epvwd"); got != "2 items to be tried now\n" { // a held one, and by the beginning of an ID
		t.Errorf("retry: %q", got)
	}
	for _, o := range objects(t, d.does(t, "queue", "list", "--json")) {
		if next, err := time.Parse(time.RFC3339, fmt.Sprint(o["next"])); err != nil || next.After(time.Now()) || o["state"] != "waiting" {
			t.Errorf("after the retry: %v", o)
		}
	}

	stdout, stderr, status := d.run(t, "queue", "drop", idA)
	for _, want := range []string{"me@alias.example -> ann@dest.example", "bob@dest.example", "from      ada@sender.example", "Grüße"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in what would be lost:\n%s", want, stdout)
		}
	}
	if status != 1 || !strings.Contains(stderr, "add --yes, and 2 messages will be lost") {
		t.Errorf("drop without --yes: %d %s", status, stderr)
	}
	if got := d.does(t, "queue", "drop", "1", "--yes"); got != "1 item dropped\n" {
		t.Errorf("drop: %q", got)
	}
	d.fails(t, 1, "the queue has no item 1; onward queue list", "queue", "drop", "1", "--yes")
	if got := objects(t, d.does(t, "queue", "list", "--json")); len(got) != 2 {
		t.Errorf("after the drop: %v", got)
	}

	var did []string
	for _, id := range []string{idA, idB} {
		for _, o := range d.events(t, id) {
			if o["by"] != "" {
				did = append(did, fmt.Sprintf("%s %s", o["outcome"], o["targets"]))
			}
		}
	}
	slices.Sort(did)
	want := "dropped [ann@dest.example], held [ann@dest.example], held [bob@dest.example], released [ann@dest.example], retried [bob@dest.example], retried [cat@other.example], retried [cat@other.example]"
	if strings.Join(did, ", ") != want {
		t.Errorf("the journal has %q", did)
	}
}

// TestQueueShow: header, verdict and attempts, but not the body; whatever a
// stranger wrote, a terminal has nothing to obey.
func TestQueueShow(t *testing.T) {
	d := newDesk(t)
	put(t, d.state, item(idA, "ann@dest.example"), item(idB, "bob@dest.example"))
	note(t, d.state, queued(idA, "ann@dest.example")...)
	text := d.does(t, "queue", "show", "1")
	for _, want := range []string{
		"Item 1 of message " + idA, "me@alias.example -> ann@dest.example", "SRS0=a=b=sender.example=ada@mx.onward.example", "waiting  next try ",
		"2 attempts, the last: 452 4.2.2 mailbox", "the sender gets a report",
		`Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\x1b[31m`, `        folded\u2028`,
		"pass  sender.example, policy reject", "because of this",
		"deferred  ann@dest.example at mx.dest.example [192.0.2.9:25]; tried while the", "as far as RCPT, in 1.0 s", "452 4.2.2 mailbox full",
		"queued  told to the sender, for me@alias.example",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	text += d.does(t, "queue", "show", "2")
	if !strings.Contains(text, "the journal knows no such message") {
		t.Errorf("of a message that the journal does not know:\n%s", text)
	}
	all := text + d.does(t, "queue", "list") + d.does(t, "queue", "list", "--json") + d.does(t, "queue", "show", "1", "2", "--json")
	if strings.Contains(all, "secret of the body") {
		t.Error("shows the body")
	}
	if i := strings.IndexFunc(all, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f || r == '\u2028' }); i >= 0 {
		t.Errorf("shows %q", all[max(0, i-20):i+20])
	}
	got := objects(t, d.does(t, "queue", "show", "1", "2", "--json"))
	if len(got) != 2 || got[0]["item"] != 1.0 || got[0]["journal"].(map[string]any)["subject"] != "=?utf-8?Q?Gr=C3=BC=C3=9Fe?=" || got[1]["journal"] != nil || !strings.Contains(got[0]["header"].(string), "\x1b") {
		t.Errorf("as data: %v", got)
	}
}

// TestQueueUsage: what is asked wrongly, or of a state that is not there, is
// answered in a line, and nothing is made.
func TestQueueUsage(t *testing.T) {
	d := newDesk(t)
	for _, args := range [][]string{{"queue", "list"}, {"queue", "show", "1"}, {"queue", "drop", "1", "--yes"}, {"queue", "retry", "--all"}} {
		d.fails(t, 1, "there is no queue in "+d.state+": start onward serve once", args...)
	}
	d.fails(t, 1, "there is no journal in "+d.state, "log")
	put(t, d.state, item(idA, "ann@dest.example"))
	d.fails(t, 1, "there is no journal in "+d.state, "log", idA)
	for _, args := range [][]string{{"queue"}, {"queue", "sing"}, {"queue", "show"}, {"queue", "hold"}, {"queue", "retry"}, {"queue", "retry", "1", "--all"}, {"queue", "retry", "1", "--domain", "dest.example"},
		{"queue", "retry", "--all", "--domain", "-"}, {"queue", "list", "1"}, {"log", "1", "2"}, {"log", "1", "--follow"}, {"log", "1", "--to", "x"}, {"log", "--since", "soon"}, {"log", "--limit", "-1"}, {"log", "--follow", "--until", "2h"}} {
		d.fails(t, 2, "", args...)
	}
	put(t, d.state, item(idB, "ann@dest.example"))
	for name, want := range map[string]string{"7": "no item 7", "01KC": `nothing of a message "01KC"`, "99999999999999999999": "nothing of a message",
		"01KB": `several messages begin with "01KB": ` + idA + ", " + idB, "": `several messages begin with ""`} {
		d.fails(t, 1, want, "queue", "show", name)
		d.fails(t, 1, want, "queue", "drop", name, "--yes")
	}
	// The item is held although there is no journal to note it in.
	stdout, stderr, status := d.run(t, "queue", "hold", "1")
	if stdout != "1 item held\n" || status != 0 || !strings.Contains(stderr, "not noted in the journal") {
		t.Errorf("hold without a journal: %q %q %d", stdout, stderr, status)
	}
	files, _ := os.ReadDir(d.state)
	if len(files) != 1 || files[0].Name() != "onward.db" {
		t.Errorf("left behind: %v", files)
	}
}

// TestQueueBusy: an item that is being tried is left alone, which is said.
func TestQueueBusy(t *testing.T) {
	d := newDesk(t)
	busy := item(idA, "ann@dest.example")
	busy.Next = time.Now().Add(-time.Minute)
	put(t, d.state, busy, item(idB, "bob@dest.example"))
	s, err := store.Open(t.Context(), d.state, store.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := s.Item(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if ok, err := s.Begin(t.Context(), got, now, store.Lease{Owner: "test", Until: now.Add(time.Hour), Next: now}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for _, args := range [][]string{{"queue", "retry", "1"}, {"queue", "hold", "1"}, {"queue", "drop", "1", "--yes"}} {
		d.fails(t, 1, "item 1 is being tried at this moment", args...)
	}
	if list := d.does(t, "queue", "list"); !strings.Contains(list, "3  now     "+idA) {
		t.Errorf("%s", list)
	}
	stdout, stderr, status := d.run(t, "queue", "retry", "--all")
	if stdout != "1 item to be tried now\n" || status != 0 {
		t.Errorf("retry of all: %q, %q, %d", stdout, stderr, status)
	}
}

// TestQueueBesideDaemon: the daemon has the state directory locked, writes into
// the queue and the journal, and several commands work on them all the same.
func TestQueueBesideDaemon(t *testing.T) {
	s := newStand(t, "me: ann@dest.example")
	state := filepath.Join(s.dir, "state")
	d := &desk{config: s.config(), state: state}
	var items []*store.Item
	for range 40 {
		i := item(idA, "ann@dest.example")
		i.State, i.Reason = store.Held, "for a person to decide"
		items = append(items, i)
	}
	put(t, state, items...)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 3 {
				id := fmt.Sprint(10*w + i + 1)
				d.run(t, "queue", "show", id)
				if stdout, stderr, status := d.run(t, "queue", "drop", id, "--yes"); status != 0 || stdout != "1 item dropped\n" {
					t.Errorf("drop %s: %d %s", id, status, stderr)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 5 {
			send(s.dial(t), fmt.Sprintf("ada%d@sender.example", i), "me@alias.example", "250 2.0.0 ")
		}
	})
	wg.Wait()
	if got := objects(t, d.does(t, "queue", "list", "--held", "--json")); len(got) != 40-12 {
		t.Errorf("%d items are left, want 28", len(got))
	}
	s.arrived(t, 5)
	s.stop(t) // the journal has everything now
	var dropped int
	var last object
	for _, o := range objects(t, d.does(t, "log", "--json")) {
		switch o["outcome"] {
		case "dropped":
			dropped++
		case "forwarded":
			last = o
		}
	}
	if dropped != 12 || last["from"] != "ada4@sender.example" {
		t.Fatalf("%d are noted as dropped, and the last that was forwarded is %v", dropped, last)
	}
	if text := d.does(t, "log", fmt.Sprint(last["id"])); !strings.Contains(text, "delivered  250 2.0.0 taken") || !strings.Contains(text, "a letter") {
		t.Errorf("the story of it:\n%s", text)
	}
}

// TestManyItems: a queue of some thousand items is listed whole, and retried
// as a whole, in one command each.
func TestManyItems(t *testing.T) {
	const n = 3000
	d := newDesk(t)
	if err := os.MkdirAll(d.state, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), d.state, store.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	slots := make(chan bool, 64)
	for range n {
		slots <- true
		wg.Go(func() {
			defer func() { <-slots }()
			if err := s.Add(t.Context(), strings.NewReader(rest), []*store.Item{item(idA, "ann@dest.example")}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	note(t, d.state, forwarded(idB, "", "me@alias.example", time.Now()))
	if got := strings.Count(d.does(t, "queue", "list"), "\n"); got != n+1 {
		t.Errorf("%d lines, want %d and the total", got, n)
	}
	if got := d.does(t, "queue", "retry", "--all"); got != fmt.Sprintf("%d items to be tried now\n", n) {
		t.Errorf("retry: %q", got)
	}
	if got := len(d.events(t, idA)); got != n {
		t.Errorf("%d events are in the journal, want %d", got, n)
	}
	if got := d.does(t, "log", "--limit", "0"); strings.Count(got, "\n") != 1 {
		t.Errorf("the log has more than what came of it:\n%.500s", got)
	}
}
