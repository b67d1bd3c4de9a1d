package parallel

import (
	"strings"
	"sync/atomic"
	"testing"
)

// A panic waits until all parts are done, and says where it was.
func TestGroup(t *testing.T) {
	var g Group
	var done atomic.Int32
	for i := range 10 {
		g.Go(func() {
			defer done.Add(1)
			if i%3 == 0 {
				stumble()
			}
		})
	}
	defer func() {
		err, ok := recover().(error)
		if !ok || done.Load() != 10 || !strings.HasPrefix(err.Error(), "stumbled\n") || !strings.Contains(err.Error(), "parallel.stumble") {
			t.Errorf("%v after %d parts", err, done.Load())
		}
	}()
	g.Wait()
	t.Error("no panic")
}

func stumble() { panic("stumbled") }

func TestNothingHappens(t *testing.T) {
	var g Group
	n := 0
	g.Go(func() { n++ })
	g.Wait()
	if n != 1 {
		t.Error("not done")
	}
}
