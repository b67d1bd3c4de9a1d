package journal

// RecordWaiting is Record for whoever can wait: it reports whether there was
// room.
func (j *Journal) RecordWaiting(e Entry) bool {
	j.mu.Lock()
	full := len(j.waiting) >= maxWaiting
	j.mu.Unlock()
	if !full {
		j.Record(e)
	}
	return !full
}
