package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"onward/internal/address"
	"onward/internal/message"
	"onward/internal/reply"
	"onward/internal/smtpclient"
	"onward/internal/store"
)

// Outcomes as destinations give them.
var (
	ok       = smtpclient.Outcome{Result: smtpclient.Delivered, Tried: true, Reply: reply.New(250, "2.0.0", "ok"), Said: reply.New(250, "2.0.0", "ok"), Host: "mx.test", Step: "dot"}
	noUser   = smtpclient.Outcome{Result: smtpclient.Refused, Tried: true, Reply: reply.New(550, "5.1.1", "no such user"), Said: reply.New(550, "5.1.1", "no such user"), Host: "mx.test", Step: "RCPT"}
	greylist = smtpclient.Outcome{Result: smtpclient.Deferred, Tried: true, Reply: reply.New(451, "4.7.1", "later"), Said: reply.New(451, "4.7.1", "later"), Host: "mx.test", Step: "RCPT"}
	down     = smtpclient.Outcome{Result: smtpclient.Deferred, Tried: true, Reply: reply.New(451, "4.4.1", "cannot be reached"), Step: "connect"}
	silent   = smtpclient.Outcome{Result: smtpclient.Unknown, Tried: true, Reply: reply.New(451, "4.4.2", "did not say"), Host: "mx.test", Step: "dot"}
	noSlot   = smtpclient.Outcome{Result: smtpclient.Deferred, Reply: reply.New(451, "4.4.5", "too many"), Host: "mx.test", Step: "lookup"}
)

// limited is a rate limit; tried is false for those that hear of it from us.
func limited(tried bool, until time.Time) smtpclient.Outcome {
	said := reply.New(421, "4.7.28", "slow down")
	return smtpclient.Outcome{Result: smtpclient.Deferred, Tried: tried, Limited: true, NotBefore: until, Reply: said, Said: said, Host: "mx.test", Step: "dot"}
}

// A world is a queue on a real database, a destination that answers as the test
// says, and a ledger of all that was ever put in.
type world struct {
	t     testing.TB
	dir   string
	store *store.Store
	queue *Queue
	stop  func() // ends Run and waits for it
	log   lockedBuffer

	mu        sync.Mutex
	answer    func(w *world, t *smtpclient.Transaction) smtpclient.Outcome
	added     map[string]*store.Item // by message id: everything, reports and notices too
	attempts  []try
	inFlight  map[address.Domain]int
	most      map[address.Domain]int // of inFlight
	all       int                    // of inFlight, together
	mostInAll int
	events    []Event
	unsure    map[string]int // attempts that may have delivered and did not say so
	copies    map[string]int // taken by the destination
}

// A try is one attempt as the destination saw it.
type try struct {
	id string
	to address.Mailbox
	at time.Time
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newWorld returns a world whose queue does not run yet.
func newWorld(t testing.TB, answer func(*world, *smtpclient.Transaction) smtpclient.Outcome) *world {
	w := &world{
		t: t, dir: t.TempDir(), answer: answer, stop: func() {},
		added: map[string]*store.Item{}, inFlight: map[address.Domain]int{}, most: map[address.Domain]int{},
		unsure: map[string]int{}, copies: map[string]int{},
	}
	w.open()
	return w
}

// always answers everybody alike.
func always(out smtpclient.Outcome) func(*world, *smtpclient.Transaction) smtpclient.Outcome {
	return func(*world, *smtpclient.Transaction) smtpclient.Outcome { return out }
}

// open opens the database and makes a queue on it.
func (w *world) open() {
	w.t.Helper()
	var err error
	if w.store, err = store.Open(context.Background(), w.dir, store.Limits{}); err != nil {
		w.t.Fatal(err)
	}
	route := Route{
		Deliverer: w, Hostname: "mx.example.org", Postmaster: address.Mailbox{Local: "boss", Domain: "home.test"}, PerDestination: 20,
		SenderReports: 10, Reports: 100, ReportLifetime: 24 * time.Hour, Drain: time.Minute,
		Sign: func(m *message.Message) ([]byte, error) { return []byte("DKIM-Signature: for a test\r\n"), nil },
	}
	w.queue = New(Config{
		Store: w.store, Owner: "mx.example.org", Route: func() Route { return route }, Record: w.record,
		Log: slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
}

// run starts the queue.
func (w *world) run() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.queue.Run(ctx)
	}()
	w.stop = func() {
		cancel()
		<-ended
		w.stop = func() {}
	}
}

// restart ends the daemon in good order and starts it again.
func (w *world) restart() {
	look := w.queue.look
	w.close()
	w.open()
	w.queue.look = look
	w.run()
}

func (w *world) close() {
	w.stop()
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
}

func (w *world) record(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

// Deliver is the destination.
func (w *world) Deliver(ctx context.Context, t *smtpclient.Transaction) smtpclient.Outcome {
	w.mu.Lock()
	w.attempts = append(w.attempts, try{t.ID, t.To, time.Now()})
	w.inFlight[t.To.Domain]++
	w.most[t.To.Domain] = max(w.most[t.To.Domain], w.inFlight[t.To.Domain])
	w.all++
	w.mostInAll = max(w.mostInAll, w.all)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.inFlight[t.To.Domain]--
		w.all--
		w.mu.Unlock()
	}()
	out := w.answer(w, t)
	if out.Result == smtpclient.Delivered || out.Result == smtpclient.Unknown {
		if err := w.read(t); err != nil {
			return smtpclient.Outcome{Result: smtpclient.Deferred, Tried: true, Reply: reply.Trouble(err), Host: out.Host, Step: "data"}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch out.Result {
	case smtpclient.Delivered:
		w.copies[t.ID]++
	case smtpclient.Unknown:
		w.unsure[t.ID]++
	}
	return out
}

// read takes the bytes, which must be those that were put in.
func (w *world) read(t *smtpclient.Transaction) error {
	got, err := io.ReadAll(t.Open())
	if err != nil {
		return err
	}
	w.mu.Lock()
	item := w.added[t.ID]
	w.mu.Unlock()
	if int64(len(got)) != t.Size || item != nil && !bytes.Equal(got, whole(item)) {
		w.t.Errorf("%s: the destination got %d octets of %d: %.80q", t.ID, len(got), t.Size, got)
	}
	return nil
}

const rest = "\r\nHello.\r\n"

func whole(item *store.Item) []byte { return append(bytes.Clone(item.Header), rest...) }

// item returns an item for a target, from a bounceable sender.
func (w *world) item(id, target string) *store.Item {
	to, err := address.Parse(target)
	if err != nil {
		w.t.Fatal(err)
	}
	header := "X-Forwarded-To: " + target + "\r\nReceived: by mx.example.org\r\nMessage-ID: <" + id + "@sender.test>\r\nSubject: " + id + "\r\n"
	return &store.Item{
		Message: id, Bounceable: true, Header: []byte(header), Size: int64(len(header) + len(rest)),
		Sender:    address.ReversePath{Mailbox: address.Mailbox{Local: "ada", Domain: "sender.test"}},
		From:      address.ReversePath{Mailbox: address.Mailbox{Local: "SRS0=x=y=sender.test=ada", Domain: "mx.example.org"}},
		Recipient: address.Mailbox{Local: "alias-" + to.Local, Domain: "example.org"}, Target: to, Arrived: w.queue.clock(),
	}
}

// add puts items of different messages in.
func (w *world) add(items ...*store.Item) {
	w.t.Helper()
	for _, item := range items {
		w.mu.Lock()
		w.added[item.Message] = item
		w.mu.Unlock()
		if err := w.queue.Add(context.Background(), strings.NewReader(rest), []*store.Item{item}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// addMany puts n messages for targets in a domain in, which wait for next.
func (w *world) addMany(prefix string, n int, domain string, next time.Time) {
	w.t.Helper()
	var wg sync.WaitGroup
	for part := range 16 {
		wg.Go(func() {
			for i := part; i < n; i += 16 {
				item := w.item(fmt.Sprintf("%s%d", prefix, i), fmt.Sprintf("box%d@%s", i%100, domain))
				item.Next = next
				w.add(item)
			}
		})
	}
	wg.Wait()
}

// addShared puts n items for a domain in, which wait for next, a thousand to a
// message, so that it does not take long.
func (w *world) addShared(prefix string, n int, domain address.Domain, next time.Time) {
	w.t.Helper()
	for i := 0; i < n; {
		var items []*store.Item
		for ; i < n && len(items) < 1000; i++ {
			item := w.item(fmt.Sprint(prefix, i), fmt.Sprintf("box%d@%s", i%100, domain))
			item.Next = next
			items = append(items, item)
			w.added[item.Message] = item
		}
		if err := w.queue.Add(context.Background(), strings.NewReader(rest), items); err != nil {
			w.t.Fatal(err)
		}
	}
}

// attemptsNow returns what the destination has seen so far.
func (w *world) attemptsNow() []try {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.attempts
}

// fates returns how often each fate came, as the journal hears it.
func (w *world) fates(id string) (list []Fate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Item.Message == id {
			list = append(list, e.Fate)
		}
	}
	return list
}

// tries returns when the destination was asked for a message.
func (w *world) tries(id string) (at []time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.attempts {
		if a.id == id {
			at = append(at, a.at)
		}
	}
	return at
}

// gaps returns how long it was from each of the moments to the next.
func gaps(from time.Time, at []time.Time) (list []time.Duration) {
	for _, t := range at {
		list = append(list, t.Sub(from))
		from = t
	}
	return list
}

// items returns what is in the queue, by message.
func (w *world) items() map[string]*store.Item {
	w.t.Helper()
	list, err := w.store.Items(context.Background(), store.Filter{})
	if err != nil {
		w.t.Fatal(err)
	}
	found := map[string]*store.Item{}
	for _, item := range list {
		found[item.Message] = item
	}
	return found
}

func (w *world) underWay() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all > 0
}

// audit is the auditor's rule (RELIABILITY.md 4.3): everything that was put in
// was delivered, waits, is held, or was reported, exactly one of these; nothing
// was delivered twice but for attempts whose end nobody knows; what was refused
// was not delivered. It ends the world.
func (w *world) audit() {
	w.t.Helper()
	w.stop()
	for w.underWay() { // abandoned by Run
		time.Sleep(time.Second)
	}
	queue := w.items()
	w.mu.Lock()
	defer w.mu.Unlock()
	reported := map[string]int{}
	for _, e := range w.events {
		if e.Fate == Reported {
			reported[e.Item.Message]++
		}
	}
	for id := range w.added {
		ends := 0
		if w.copies[id] > 0 {
			ends++
		}
		if queue[id] != nil && !(w.copies[id] > 0 && queue[id].Unfinished > 0) {
			ends++ // one that was delivered and not recorded before a stop is in both
		}
		ends += reported[id]
		if ends == 0 && w.unsure[id] == 0 || ends > 1 && w.unsure[id] == 0 {
			w.t.Errorf("%s: %d copies, in the queue: %v, %d reports", id, w.copies[id], queue[id], reported[id])
		}
		if w.copies[id] > 1+w.unsure[id] {
			w.t.Errorf("%s: %d copies, %d of them may be", id, w.copies[id], 1+w.unsure[id])
		}
	}
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
	if w.t.Failed() && !testing.Short() {
		w.t.Logf("%.20000s", w.log.String())
	}
}

// inBubble runs a test under a clock that jumps to whatever comes next.
func inBubble(t *testing.T, test func(t *testing.T)) {
	synctest.Test(t, test)
}

// wait lets time pass.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// the reports that are in the queue or were delivered.
func (w *world) reports() (ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := map[string]bool{}
	for _, a := range w.attempts {
		if w.added[a.id] == nil && a.to.Domain == "sender.test" && !seen[a.id] {
			seen[a.id] = true
			ids = append(ids, a.id)
		}
	}
	return ids
}

var errInjected = errors.New("injected")
