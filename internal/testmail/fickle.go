package testmail

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Fickle returns a mood that fails at random, at every step of a dialogue: it
// says 451, hangs up, stalls, loses a message at its final dot, or takes it and
// says nothing. One message in about 100/percent meets something. With permanent
// it also refuses some with 550.
func Fickle(seed uint64, percent int, permanent bool) func(Step) Action {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 1047)) // RFC 1047: duplicate messages
	return func(s Step) Action {
		mu.Lock()
		defer mu.Unlock()
		kinds := whims
		if s.Text == "." {
			kinds = dotWhims
		}
		// A message is five steps, the final dot the most interesting.
		if chance := r.IntN(800); s.Text != "." && chance >= percent || s.Text == "." && chance >= 4*percent {
			return Action{}
		}
		a := kinds[r.IntN(len(kinds))]
		if permanent && (s.Text == "." || len(s.Mail) > 0) && r.IntN(4) == 0 {
			a = Action{Reply: "550 5.7.1 not today and not tomorrow"}
		}
		return a
	}
}

// whims are what goes wrong before the final dot.
var whims = []Action{
	{Reply: "451 4.3.0 not now"},
	{Reply: "421 4.3.2 going down", Drop: true},
	{Drop: true},
	{Reset: true},
	{Delay: 300 * time.Millisecond},
	{Delay: 300 * time.Millisecond, Reset: true},
}

// dotWhims are what goes wrong at the final dot. The last four leave the client
// in doubt; after those with Keep the message is taken.
var dotWhims = []Action{
	{Reply: "451 4.3.0 not now"},
	{Reply: "452 4.2.2 full"},
	{Delay: 300 * time.Millisecond},
	{Delay: 300 * time.Millisecond, Reset: true},
	{Drop: true},
	{Keep: true, Drop: true},
	{Keep: true, Delay: 300 * time.Millisecond, Reset: true},
}
