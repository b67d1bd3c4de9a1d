package status_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"onward/internal/journal"
	"onward/internal/status"
	"onward/internal/store"
	"onward/internal/testpeer"
)

// series returns the value of each series in what Prometheus is told.
func series(t testing.TB, page string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for line := range strings.Lines(page) {
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		if _, twice := all[line[:at]]; twice {
			t.Errorf("twice: %s", line)
		}
		all[line[:at]] = strings.TrimSpace(line[at:])
	}
	return all
}

// TestMetrics: what happens is counted under its name.
func TestMetrics(t *testing.T) {
	w := newWorld(t, true, nil)
	w.Metrics.Operator = func(host string) string {
		if strings.HasSuffix(host, "google.com") {
			return "google.com"
		}
		return ""
	}
	at := func(d time.Duration) time.Time { return now.Add(d) }
	w.send(letter{now, "ada@lovelace.example", "me@example.org", "one", journal.Forwarded, taken})
	w.send(letter{now, "ada@lovelace.example", "me@example.org", "two", journal.Forwarded, taken})
	w.send(letter{now, "grace@hopper.example", "me@example.org", "three", journal.Queued, queued})
	w.send(letter{now, "x@spam.example", "sales@example.org", "", journal.Rejected, unknown})
	w.send(letter{now, "security@bank.example", "me@example.org", "four", journal.Rejected, forged})
	w.send(letter{now, "late@sender.example", "me@example.org", "five", journal.Deferred, greylist})
	w.entries = append(w.entries,
		journal.Event{Message: "01A", Outcome: journal.Held}, journal.Event{Message: "01A", Outcome: journal.Released}, journal.Event{Message: "01A", Outcome: journal.Delivered},
		journal.Attempt{Message: "01A", Began: now, Took: 40 * time.Second, Queued: true, Target: "x@bounce.example", Host: "mx.bounce.example", Peer: "192.0.2.1:25", Result: "unknown"},
		journal.Attempt{Message: "01A", Began: now, Took: 0, Queued: true, Target: "x@nowhere.example", Result: "refused"},
		journal.Message{ID: "01B", Arrived: at(-time.Hour), Answered: now, Size: 1, TLS: "TLS 1.2 X", Outcome: journal.Rejected, Answer: journal.Answer{Code: 554, Status: "5.4.6"}},
		journal.Message{ID: "01C", Size: 1, TLS: "QUIC", Outcome: journal.Rejected, Answer: journal.Answer{Code: 554}, Verdict: &journal.Verdict{SPF: "owned", DMARC: "none", ARC: "none"}},
	)
	w.flush()
	w.enqueue("01A", letter{at: at(-9 * time.Hour), to: "me@example.org"}, func(i *store.Item) { i.State = store.Held })
	w.enqueue("01B", letter{at: at(-time.Hour), to: "me@example.org"}, nil)
	w.enqueue("01C", letter{at: now, to: "me@example.org"}, nil)
	w.SetChecks(examined, now)
	page := w.do("GET", "/metrics", nil, nil)
	if kind := page.header.Get("Content-Type"); kind != "text/plain; version=0.0.4; charset=utf-8" {
		t.Errorf("type %q", kind)
	}
	got := series(t, page.body)
	for name, want := range map[string]string{
		`onward_messages_total{outcome="forwarded"}`:                      "2",
		`onward_messages_total{outcome="queued"}`:                         "1",
		`onward_messages_total{outcome="rejected"}`:                       "4",
		`onward_messages_total{outcome="deferred"}`:                       "1",
		`onward_messages_total{outcome="discarded"}`:                      "0",
		`onward_refusals_total{outcome="rejected",reason="address"}`:      "1",
		`onward_refusals_total{outcome="rejected",reason="policy"}`:       "1",
		`onward_refusals_total{outcome="rejected",reason="loop"}`:         "1",
		`onward_refusals_total{outcome="rejected",reason="other"}`:        "1",
		`onward_refusals_total{outcome="deferred",reason="policy"}`:       "1",
		`onward_attempts_total{operator="google.com",result="delivered"}`: "2",
		`onward_attempts_total{operator="google.com",result="deferred"}`:  "1",
		`onward_attempts_total{operator="other",result="unknown"}`:        "1",
		`onward_attempts_total{operator="other",result="refused"}`:        "1",
		`onward_queue_ended_total{outcome="held"}`:                        "1",
		`onward_queue_ended_total{outcome="delivered"}`:                   "1",
		`onward_queue_ended_total{outcome="dropped"}`:                     "0",
		`onward_tls_total{direction="in",version="TLS 1.3"}`:              "5",
		`onward_tls_total{direction="in",version="TLS 1.2"}`:              "1",
		`onward_tls_total{direction="in",version="other"}`:                "1",
		`onward_tls_total{direction="out",version="TLS 1.3"}`:             "3",
		`onward_tls_total{direction="out",version="none"}`:                "1",
		`onward_authentication_total{method="spf",result="pass"}`:         "4",
		`onward_authentication_total{method="spf",result="fail"}`:         "1",
		`onward_authentication_total{method="spf",result="other"}`:        "1",
		`onward_authentication_total{method="dkim",result="pass"}`:        "4",
		`onward_authentication_total{method="dkim",result="none"}`:        "2",
		`onward_authentication_total{method="dmarc",result="fail"}`:       "1",
		`onward_answer_seconds_bucket{outcome="forwarded",le="0.5"}`:      "0",
		`onward_answer_seconds_bucket{outcome="forwarded",le="1"}`:        "2",
		`onward_answer_seconds_bucket{outcome="forwarded",le="+Inf"}`:     "2",
		`onward_answer_seconds_count{outcome="rejected"}`:                 "3",
		`onward_attempt_seconds_bucket{by="queue",le="30"}`:               "1",
		`onward_attempt_seconds_bucket{by="queue",le="60"}`:               "2",
		`onward_attempt_seconds_sum{by="queue"}`:                          "40",
		`onward_attempt_seconds_count{by="session"}`:                      "3",
		`onward_queue_items{state="waiting"}`:                             "2",
		`onward_queue_items{state="held"}`:                                "1",
		`onward_queue_oldest_seconds`:                                     "3600",
		`onward_store_healthy`:                                            "1",
		`onward_destination_paused{operator="google.com"}`:                "1",
		`onward_destinations_paused`:                                      "1",
		`onward_certificate_expiry_timestamp_seconds`:                     fmt.Sprint(float64(now.Add(61 * 24 * time.Hour).Unix())),
		`onward_journal_lost_total`:                                       "0",
		`onward_doctor_checks{state="failure"}`:                           "1",
		`onward_doctor_checks{state="ok"}`:                                "8",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	for _, name := range []string{"go_goroutines", "go_memstats_heap_alloc_bytes", "process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total", "process_start_time_seconds"} {
		if got[name] == "" || got[name] == "0" {
			t.Errorf("%s is %q", name, got[name])
		}
	}
	var none *status.Metrics
	none.Record(journal.Message{})
}

// TestBounded: however many strangers there are, there are no more series
// (RELIABILITY 69).
func TestBounded(t *testing.T) {
	w := newWorld(t, true, nil)
	w.Metrics.Operator = func(host string) string { return host }
	for i := range 100_000 {
		bad := fmt.Sprintf("%d.example", i)
		w.Metrics.Record(journal.Attempt{Target: "x@" + bad, Host: bad, Result: "delivered"})
		if i%10 == 0 {
			w.Metrics.Record(journal.Message{Size: 1, TLS: bad, Outcome: journal.Rejected, Answer: journal.Answer{Code: 500 + i%100, Status: bad, Text: bad},
				Verdict: &journal.Verdict{SPF: bad, ARC: bad, DMARC: bad, DKIM: []journal.Signature{{Domain: bad, Result: bad}}}})
		}
	}
	page := w.get("/metrics")
	all := series(t, page)
	if n := len(all); n > 250 {
		t.Errorf("%d series", n)
	}
	if got := all[`onward_attempts_total{operator="other",result="delivered"}`]; got != "99950" {
		t.Errorf("other: %s", got)
	}
}

// everything is what a busy daemon tells Prometheus.
func everything(t testing.TB) string {
	w := newWorld(t, true, nil)
	w.Version = "0.5 \"beta\"\n\\"
	w.live()
	return w.get("/metrics")
}

// TestPrometheus: Prometheus' own tool takes what it is told, and the alert rules.
func TestPrometheus(t *testing.T) {
	testpeer.Need(t, "promtool")
	if out, status := testpeer.Run(t, everything(t), "promtool", "check", "metrics"); status != 0 {
		t.Errorf("check metrics: %d: %s", status, out)
	}
	if out, status := testpeer.Run(t, "", "promtool", "test", "rules", filepath.Join("testdata", "alerts_test.yml")); status != 0 {
		t.Errorf("test rules: %d: %s", status, out)
	}
	if out, status := testpeer.Run(t, "", "promtool", "check", "rules", filepath.Join("..", "..", "docs", "alerts.yml")); status != 0 {
		t.Errorf("check rules: %d: %s", status, out)
	}
}

// TestNamed: the dashboard, the alerts and the documentation speak only of
// metrics that there are, and the documentation of all.
func TestNamed(t *testing.T) {
	there := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)`).FindAllStringSubmatch(everything(t), -1) {
		there[m[1]] = true
		if m[2] == "histogram" {
			there[m[1]+"_bucket"], there[m[1]+"_sum"], there[m[1]+"_count"] = true, true, true
		}
	}
	name := regexp.MustCompile(`\b(onward|go|process)_[a-z_]+\b`)
	for _, file := range []string{"grafana.json", "alerts.yml", "status.md"} {
		content, err := os.ReadFile(filepath.Join("..", "..", "docs", file))
		must(t, err)
		if file == "grafana.json" && !json.Valid(content) {
			t.Error("grafana.json is no JSON")
		}
		said := map[string]bool{}
		for _, n := range name.FindAllString(string(content), -1) {
			said[n] = true
			if !there[n] {
				t.Errorf("%s speaks of %s, which there is not", file, n)
			}
		}
		for n := range there {
			if base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(n, ""); file == "status.md" && strings.HasPrefix(n, "onward_") && !said[base] && !said[n] {
				t.Errorf("%s is not in %s", n, file)
			}
		}
	}
	if len(there) < 20 {
		t.Error("hardly anything is measured: ", there)
	}
}
