package smtpclient

import "time"

// SetIdleTime changes how long connections are kept.
func (d *Destinations) SetIdleTime(t time.Duration) { d.idleTime = t }
