package status

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// started is when this process did, nearly.
var started = time.Now()

// metrics answers Prometheus. What cannot be read is left out.
func (p *Page) metrics(w http.ResponseWriter, r *http.Request) {
	var b bytes.Buffer
	p.Metrics.write(&b)
	p.writeQueue(r, &b)
	p.writeDestinations(&b)
	p.writeState(&b)
	writeProcess(&b, p.Version)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Write(b.Bytes())
}

// write writes what was counted.
func (m *Metrics) write(b *bytes.Buffer) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range []*counter{&m.messages, &m.refusals, &m.secured, &m.authenticated, &m.attempts, &m.ended} {
		c.write(b)
	}
	m.answered.write(b)
	m.tried.write(b)
}

func (p *Page) writeQueue(r *http.Request, b *bytes.Buffer) {
	healthy := 1.0
	if p.Store.Healthy() != nil {
		healthy = 0
	}
	gauge(b, "onward_store_healthy", "Whether the queue can be written; 0 until a restart after an I/O error.", gaugeSample{"", healthy})
	stats, err := p.Store.Stats(r.Context())
	oldest, also := p.oldest(r.Context())
	if err := errors.Join(err, also); err != nil {
		p.Log.Warn("metrics", "err", err)
		return
	}
	age := 0.0
	if !oldest.IsZero() {
		age = max(0, p.now().Sub(oldest).Seconds())
	}
	gauge(b, "onward_queue_items", "Items in the queue; held ones wait for a person.",
		gaugeSample{`{state="waiting"}`, float64(stats.Waiting)}, gaugeSample{`{state="held"}`, float64(stats.Held)})
	gauge(b, "onward_queue_bytes", "Octets in the queue.", gaugeSample{"", float64(stats.Bytes)})
	gauge(b, "onward_queue_oldest_seconds", "Age of the oldest item that waits for its next try; 0: none does.", gaugeSample{"", age})
}

// writeDestinations writes the breakers of destinations that are counted by name,
// and how many are open of all.
func (p *Page) writeDestinations(b *bytes.Buffer) {
	open := map[string]bool{}
	for _, d := range paused(p.Destinations(), p.now()) {
		open[d.Operator] = true
	}
	var samples []gaugeSample
	for _, name := range p.Metrics.named() {
		s := gaugeSample{labels([]string{"operator"}, []string{name}), 0}
		if open[name] {
			s.value = 1
		}
		samples = append(samples, s)
	}
	gauge(b, "onward_destination_paused", "Whether a destination gets no mail just now, as it limited us.", samples...)
	gauge(b, "onward_destinations_paused", "Destinations that get no mail just now.", gaugeSample{"", float64(len(open))})
}

func (p *Page) writeState(b *bytes.Buffer) {
	if end, known := p.certificateEnd(); known {
		gauge(b, "onward_certificate_expiry_timestamp_seconds", "End of the certificate that senders are shown.", gaugeSample{"", float64(end.Unix())})
	}
	lost := counter{name: "onward_journal_lost_total", help: "Entries that the journal could not keep up with."}
	lost.add(float64(p.Journal.Lost()))
	lost.write(b)
	var samples []gaugeSample
	for _, s := range []State{OK, Warning, Failure} {
		samples = append(samples, gaugeSample{labels([]string{"state"}, []string{string(s)}), float64(p.doctor.count(s))})
	}
	gauge(b, "onward_doctor_checks", "Checks of the doctor's last examination, by how they went.", samples...)
}

// writeProcess writes what every Go program tells, under the usual names.
func writeProcess(b *bytes.Buffer, version string) {
	gauge(b, "onward_build_info", "Always 1; the version is in the label.", gaugeSample{labels([]string{"version", "goversion"}, []string{version, runtime.Version()}), 1})
	read := []metrics.Sample{{Name: "/sched/goroutines:goroutines"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/total:bytes"}}
	metrics.Read(read)
	gauge(b, "go_goroutines", "Goroutines that exist.", gaugeSample{"", float64(read[0].Value.Uint64())})
	gauge(b, "go_memstats_heap_alloc_bytes", "Octets in objects on the heap.", gaugeSample{"", float64(read[1].Value.Uint64())})
	gauge(b, "go_memstats_sys_bytes", "Octets obtained from the system.", gaugeSample{"", float64(read[2].Value.Uint64())})
	gauge(b, "process_start_time_seconds", "When the process started.", gaugeSample{"", float64(started.Unix())})
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) == nil {
		cpu := counter{name: "process_cpu_seconds_total", help: "Processor time used."}
		cpu.add(time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds())
		cpu.write(b)
	}
	if pages, err := residentPages(); err == nil {
		gauge(b, "process_resident_memory_bytes", "Memory in use.", gaugeSample{"", pages * float64(os.Getpagesize())})
	}
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		gauge(b, "process_open_fds", "Open file descriptors.", gaugeSample{"", float64(len(open))})
	}
	var files syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files) == nil {
		gauge(b, "process_max_fds", "File descriptors that may be open.", gaugeSample{"", float64(files.Cur)})
	}
}

// residentPages reads the second number of /proc/self/statm (proc(5)).
func residentPages() (float64, error) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, fmt.Errorf("statm: %q", text)
	}
	return strconv.ParseFloat(fields[1], 64)
}
