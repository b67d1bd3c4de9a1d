package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(100-i)) // 100 to 1
	}
	for _, tt := range []struct {
		times []time.Duration
		q     float64
		want  time.Duration
	}{
		{nil, 0.5, 0},
		{hundred[:1], 0.99, 100},
		{hundred[:2], 0.5, 99},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred[:10], 0.99, 100},
	} {
		if got := quantile(tt.times, tt.q); got != tt.want {
			t.Errorf("%v of %d times: %d, want %d", tt.q, len(tt.times), got, tt.want)
		}
	}
}

// TestSyncs: what strace writes of a call that another thread interrupts has two
// lines, and is one sync.
func TestSyncs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "syncs")
	const trace = `101 fsync(9</s/onward.db-wal>) = 0
102 fsync(9</s/onward.db-wal> <unfinished ...>
103 fsync(7</s/journal.db>) = 0
102 <... fsync resumed>) = 0
103 fdatasync(8</s/onward.db>) = 0
`
	if err := os.WriteFile(path, []byte(trace), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, log := syncsOf(path, anyFile), syncsOf(path, queueLog); all != 4 || log != 2 {
		t.Errorf("%d syncs, want 4; of the log %d, want 2", all, log)
	}
}
