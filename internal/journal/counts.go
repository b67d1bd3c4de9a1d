package journal

import (
	"context"
	"encoding/json"
	"time"
)

// A Line is what a list of messages shows of one recipient: the answer to the
// sender or, of a message that onward wrote itself, the last event.
type Line struct {
	Event
	Subject string // undecoded
	Size    int64  // octets; 0 when the message never came, or is one of ours
	First   bool   // it was accepted, and the journal knows no earlier message from this sender to this recipient
}

// accepted chooses the answers that took a message.
const accepted = `answer AND outcome IN ('forwarded', 'queued', 'discarded')`

// Lines returns the newest of the lines that f chooses, the newest first. Those
// of the next page come before the Number of the last one; 0 begins.
func (r *Reader) Lines(ctx context.Context, f Filter, before int64) ([]Line, error) {
	where, args := f.conditions()
	const ask = `SELECT ` + eventColumns + `, coalesce((SELECT subject FROM message WHERE id = event.message), ''),
		coalesce((SELECT size FROM message WHERE id = event.message), 0), sender <> '' AND ` + accepted + ` AND NOT EXISTS (SELECT 1 FROM event AS earlier
			WHERE earlier.sender = event.sender AND earlier.recipient = event.recipient AND earlier.answer AND earlier.number < event.number)
		FROM event`
	const lines = ` AND (answer OR number = (SELECT max(number) FROM event AS own WHERE own.message = event.message)
			AND NOT EXISTS (SELECT 1 FROM message WHERE id = event.message))
		AND (? = 0 OR number < ?) ORDER BY number DESC`
	rows, err := r.db.Read().QueryContext(ctx, ask+where+lines+limit, append(args, before, before, f.limit())...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Line
	for rows.Next() {
		var l Line
		if err := l.scan(rows, &l.Subject, &l.Size, &l.First); err != nil {
			return nil, err
		}
		list = append(list, l)
	}
	return list, rows.Err()
}

// Subject returns the undecoded subject of a message, empty when it is not known.
func (r *Reader) Subject(ctx context.Context, id string) (subject string, err error) {
	err = r.db.Read().QueryRowContext(ctx, `SELECT coalesce((SELECT subject FROM message WHERE id = ?), '')`, id).Scan(&subject)
	return subject, err
}

// An Hour is how many answers to senders, one for each recipient, had one outcome
// in an hour.
type Hour struct {
	Begin   time.Time
	Outcome Outcome
	Count   int64
}

// Hours counts the answers since a time, the oldest first; hours without any are
// left out.
func (r *Reader) Hours(ctx context.Context, since time.Time) ([]Hour, error) {
	const ask = `SELECT time / 3600000, outcome, count(*) FROM event WHERE answer AND time >= ? GROUP BY 1, 2 ORDER BY 1, 2`
	rows, err := r.db.Read().QueryContext(ctx, ask, since.UnixMilli())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Hour
	for rows.Next() {
		var h Hour
		var begin int64
		if err := rows.Scan(&begin, &h.Outcome, &h.Count); err != nil {
			return nil, err
		}
		h.Begin = time.Unix(begin*3600, 0).UTC()
		list = append(list, h)
	}
	return list, rows.Err()
}

// A Use is what one address has received.
type Use struct {
	Recipient string // as it was written last
	Messages  int64  // that were accepted
	Senders   int64  // different ones
	Last      time.Time
	Sender    string // of the last one; empty is the null sender
	First     bool   // and the first from him
}

// Uses returns the addresses that mail was accepted for, those used last first,
// without our return paths.
func (r *Reader) Uses(ctx context.Context, most int, skip int64) ([]Use, error) {
	// sender is that of the row with the maximum (sqlite.org/lang_select.html 2.5).
	const ask = `SELECT recipient, messages, senders, last, sender, sender <> '' AND NOT EXISTS (SELECT 1 FROM event
			WHERE event.sender = used.sender AND event.recipient = used.recipient AND answer AND number < newest)
		FROM (SELECT recipient, count(*) AS messages, count(DISTINCT sender) AS senders, time AS last, sender, max(number) AS newest
			FROM event WHERE ` + accepted + ` AND upper(substr(recipient, 1, 5)) NOT IN ('SRS0=', 'SRS0+', 'SRS0-', 'SRS1=', 'SRS1+', 'SRS1-')
			GROUP BY recipient ORDER BY newest DESC LIMIT ? OFFSET ?) AS used ORDER BY newest DESC`
	rows, err := r.db.Read().QueryContext(ctx, ask, most, skip)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Use
	for rows.Next() {
		var u Use
		var last int64
		if err := rows.Scan(&u.Recipient, &u.Messages, &u.Senders, &last, &u.Sender, &u.First); err != nil {
			return nil, err
		}
		u.Last = time.UnixMilli(last).UTC()
		list = append(list, u)
	}
	return list, rows.Err()
}

// A Pair is what one sender has sent to one address.
type Pair struct {
	Sender, Recipient string // in one of the cases they were written in
	Messages          int64  // that were accepted
	First, Last       time.Time
}

// Pairs returns who wrote to whom, the newest first, where text is the sender or
// the recipient, or part of one.
func (r *Reader) Pairs(ctx context.Context, text string, most int) ([]Pair, error) {
	match, pattern := `(sender = ?1 OR recipient = ?1)`, text
	if !isAddress(text) {
		match, pattern = `(sender LIKE ?1 ESCAPE '\' OR recipient LIKE ?1 ESCAPE '\')`, containing(text)
	}
	ask := `SELECT sender, recipient, count(*), min(time), max(time) FROM event WHERE ` + accepted + ` AND ` + match + `
		GROUP BY sender, recipient ORDER BY max(number) DESC LIMIT ?2`
	rows, err := r.db.Read().QueryContext(ctx, ask, pattern, most)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Pair
	for rows.Next() {
		var p Pair
		var first, last int64
		if err := rows.Scan(&p.Sender, &p.Recipient, &p.Messages, &first, &last); err != nil {
			return nil, err
		}
		p.First, p.Last = time.UnixMilli(first).UTC(), time.UnixMilli(last).UTC()
		list = append(list, p)
	}
	return list, rows.Err()
}

// Unused returns those of the addresses that no mail was accepted for, in their
// order.
func (r *Reader) Unused(ctx context.Context, addresses []string, most int) ([]string, error) {
	if len(addresses) == 0 {
		return nil, nil
	}
	all, err := json.Marshal(addresses)
	if err != nil {
		return nil, err
	}
	const ask = `SELECT value FROM json_each(?) AS address WHERE NOT EXISTS (SELECT 1 FROM event WHERE recipient = address.value AND ` + accepted + `)
		ORDER BY key LIMIT ?`
	rows, err := r.db.Read().QueryContext(ctx, ask, string(all), most)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var address string
		if err := rows.Scan(&address); err != nil {
			return nil, err
		}
		list = append(list, address)
	}
	return list, rows.Err()
}
