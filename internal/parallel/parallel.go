// Package parallel runs the parts of a job side by side. A panic in one of them is
// the end of the job, not of the process: it comes out of Wait, and so meets
// whoever guards the job (RELIABILITY 89).
package parallel

import (
	"fmt"
	"runtime/debug"
	"sync"
)

// A Group is the parts of one job. Its zero value is ready.
type Group struct {
	wg    sync.WaitGroup
	once  sync.Once
	panic error
}

// Go begins a part.
func (g *Group) Go(part func()) {
	g.wg.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				g.once.Do(func() { g.panic = fmt.Errorf("%v\n%s", p, debug.Stack()) })
			}
		}()
		part()
	})
}

// Wait waits for all parts. When one has panicked, Wait panics with an error that
// has the stack of that part.
func (g *Group) Wait() {
	g.wg.Wait()
	if g.panic != nil {
		panic(g.panic)
	}
}
