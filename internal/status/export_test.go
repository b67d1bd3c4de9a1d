package status

import (
	"context"
	"time"
)

// SetClock makes it any time.
func (p *Page) SetClock(clock func() time.Time) { p.clock = clock }

// SetChecks is what an examination at that time found.
func (p *Page) SetChecks(checks []Check, at time.Time) { p.doctor.checks, p.doctor.at = checks, at }

// RunDoctor and Checks are what Serve does about the doctor, and what came of it.
func (p *Page) RunDoctor(ctx context.Context) { p.doctor.run(ctx, p.Examine) }

func (p *Page) Checks() []Check {
	checks, _ := p.doctor.last()
	return checks
}
