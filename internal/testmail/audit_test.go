package testmail_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"onward/internal/testmail"
)

const (
	auditLetter = "From: a@s.example\r\nMessage-ID: <1@s.example>\r\n\r\nhello\r\n"
	auditReport = "From: mx\r\nMessage-ID: <r@onward.example>\r\n\r\n--x\r\nFinal-Recipient: rfc822; me@alias.example\r\n--x\r\nMessage-ID: <1@s.example>\r\n"
)

// A scene is the evidence about one letter, to be spoiled by a test.
type scene struct {
	class     testmail.Class
	from      string
	tries     []testmail.Try
	sink      []testmail.Delivery
	queue     []testmail.Pending
	killedAt  time.Duration // after the deliveries; 0: not
	thought   time.Duration // from each delivery to its answer
	recorded  time.Duration // from each delivery to the daemon's word that it is written down; 0: none
	inSession bool          // the sender had its answer after the deliveries
}

func answered(code int, recipients ...string) testmail.Try {
	if recipients == nil {
		recipients = []string{"me@alias.example"}
	}
	return testmail.Try{Recipients: recipients, Dot: true, Code: code, Text: fmt.Sprint(code)}
}

func arrived(to string) testmail.Delivery {
	return testmail.Delivery{Mail: "MAIL FROM:<SRS0=x@mx.example> SIZE=1", Rcpt: []string{"RCPT TO:<" + to + ">"}, Reply: "250 ok",
		Data: []byte("X-Forwarded-To: b@dest.example\r\nReceived: by us\r\n\tnow\r\n" + auditLetter)}
}

func reported(to string) testmail.Delivery {
	d := arrived(to)
	d.Mail, d.Data = "MAIL FROM:<>", []byte(auditReport)
	return d
}

func waiting(to string) testmail.Pending {
	return testmail.Pending{To: to, Header: []byte("Received: by us\r\nMessage-ID: <1@s.example>\r\n")}
}

func (s *scene) check() *testmail.Audit {
	var ledger testmail.Ledger
	ledger.Write("1@s.example", s.class, s.from, []byte(auditLetter))
	for _, try := range s.tries {
		if try.Ended = time.Now().Add(-time.Minute); s.inSession {
			try.Ended = time.Now().Add(time.Minute)
		}
		ledger.Tried("1@s.example", try)
	}
	if s.killedAt != 0 {
		ledger.Killed()
		for i := range s.sink {
			s.sink[i].Time = time.Now().Add(-s.killedAt)
			s.sink[i].Answered = s.sink[i].Time.Add(s.thought)
		}
	}
	targets := map[string][]string{"me@alias.example": {"b@dest.example"}, "two@alias.example": {"b@dest.example", "c@dest.example"}, "you@alias.example": {"c@dest.example"}}
	return testmail.Evidence{
		Ledger: &ledger, Sink: s.sink, Queue: s.queue, Moment: time.Second, Postmaster: "pm@dest.example",
		Targets: func(recipient string) []string { return targets[recipient] },
		Recorded: func(d testmail.Delivery, _ string) []time.Time {
			if s.recorded == 0 {
				return nil
			}
			return []time.Time{d.Time.Add(s.recorded)}
		},
		Rewritten: func(header []byte) bool { return strings.Contains(string(header), "From: <reply@mx.example>\r\n") },
	}.Check()
}

// TestAudit spoils a good scene in every way the auditor is there to notice, and
// makes sure that it does, and that it lets pass what only looks bad.
func TestAudit(t *testing.T) {
	const clean = ""
	unheard := func(d testmail.Delivery) testmail.Delivery { d.Unheard, d.Reply = true, ""; return d }
	with := func(d testmail.Delivery, old, new string) testmail.Delivery {
		d.Data = []byte(strings.Replace(string(d.Data), old, new, 1))
		return d
	}
	for _, tt := range []struct {
		name  string
		spoil func(*scene)
		want  string // in the only finding
	}{
		{"delivered", func(*scene) {}, clean},
		{"queued", func(s *scene) { s.sink = nil; s.queue = []testmail.Pending{waiting("b@dest.example")} }, clean},
		{"held", func(s *scene) {
			s.sink = nil
			s.queue = []testmail.Pending{{To: "B@dest.example", Held: true, Header: waiting("").Header}}
		}, clean},
		{"reported", func(s *scene) { s.sink = []testmail.Delivery{reported("a@s.example")} }, clean},
		{"report on its way", func(s *scene) {
			s.sink = nil
			s.queue = []testmail.Pending{{To: "a@s.example", Header: []byte("Message-ID: <r@onward.example>\r\n"), Body: []byte(auditReport[strings.Index(auditReport, "\r\n\r\n"):])}}
		}, clean},
		{"refused", func(s *scene) { s.sink = nil; s.tries = []testmail.Try{answered(550)} }, clean},
		{"a notice to the postmaster", func(s *scene) {
			s.sink = append(s.sink, with(reported("pm@dest.example"), "<1@s.example>", "<9@s.example>"))
		}, clean},

		{"lost", func(s *scene) { s.sink = nil }, "LOST"},
		{"lost after a 451", func(s *scene) { s.sink = nil; s.tries = []testmail.Try{answered(451), answered(250)} }, "LOST"},
		{"lost at one of two targets", func(s *scene) { s.tries = []testmail.Try{answered(250, "two@alias.example")} }, "c@dest.example nor queued"},
		{"a report about another alias", func(s *scene) {
			s.sink = []testmail.Delivery{with(reported("a@s.example"), "me@alias", "you@alias")}
			s.tries = []testmail.Try{answered(250), answered(250, "you@alias.example")}
		}, "LOST"},

		{"twice", func(s *scene) { s.sink = append(s.sink, s.sink[0]) }, "2 copies"},
		{"twice, the sender heard nothing", func(s *scene) {
			s.sink = append(s.sink, s.sink[0])
			s.tries = []testmail.Try{answered(0), answered(250)}
		}, clean},
		{"three times, the sender once heard nothing", func(s *scene) {
			s.sink = append(s.sink, s.sink[0], s.sink[0])
			s.tries = []testmail.Try{answered(0), answered(250)}
		}, "3 copies"},
		{"twice, the sender heard nothing before the dot", func(s *scene) {
			s.sink = append(s.sink, s.sink[0])
			s.tries = []testmail.Try{{Recipients: []string{"me@alias.example"}}, answered(250)}
		}, "2 copies"},
		{"twice, the daemon heard nothing", func(s *scene) { s.sink = append(s.sink, unheard(s.sink[0])) }, clean},
		{"twice, the daemon was killed directly after", func(s *scene) { s.sink = append(s.sink, s.sink[0]); s.killedAt = time.Second / 2 }, clean},
		{"twice, the daemon was killed and the sender was answered all the same", func(s *scene) {
			s.sink = append(s.sink, s.sink[0])
			s.killedAt, s.inSession = time.Second/2, true
		}, "2 copies"},
		{"twice, the daemon was killed long after", func(s *scene) { s.sink = append(s.sink, s.sink[0]); s.killedAt = 2 * time.Second }, "2 copies"},
		{"twice, the daemon was killed directly after it had written that down", func(s *scene) {
			s.sink = append(s.sink, s.sink[0])
			s.killedAt, s.recorded = time.Second/2, time.Second/4
		}, "2 copies"},
		{"twice, the daemon was killed before it had written that down", func(s *scene) {
			s.sink = append(s.sink, s.sink[0])
			s.killedAt, s.recorded = time.Second/2, 3*time.Second/4
		}, clean},
		{"twice, the daemon was killed long after, and soon after the answer", func(s *scene) {
			s.sink = append(s.sink, s.sink[0])
			s.killedAt, s.thought = 2*time.Second, 3*time.Second/2
		}, clean},
		{"twice, the daemon was killed before", func(s *scene) { s.sink = append(s.sink, s.sink[0]); s.killedAt = -time.Second }, "2 copies"},
		{"delivered and queued", func(s *scene) { s.queue = []testmail.Pending{waiting("b@dest.example")} }, "1 in the queue"},
		{"delivered unheard and queued", func(s *scene) {
			s.sink[0] = unheard(s.sink[0])
			s.queue = []testmail.Pending{waiting("b@dest.example")}
		}, clean},

		{"a changed body", func(s *scene) { s.sink[0] = with(s.sink[0], "hello", "hallo") }, "CHANGED"},
		{"cut short", func(s *scene) { s.sink[0] = with(s.sink[0], "hello\r\n", "") }, "CHANGED"},
		{"a changed header", func(s *scene) { s.sink[0] = with(s.sink[0], "From: a@", "From:  a@") }, "CHANGED"},
		{"From rewritten", func(s *scene) { s.sink[0] = with(s.sink[0], "From: a@s.example", "From: <reply@mx.example>") }, clean},
		{"From rewritten, and the body", func(s *scene) {
			s.sink[0] = with(with(s.sink[0], "From: a@s.example", "From: <reply@mx.example>"), "hello", "hallo")
		}, "CHANGED"},
		{"junk above", func(s *scene) { s.sink[0] = with(s.sink[0], "\tnow", "now") }, "no header"},
		{"half a field above", func(s *scene) { s.sink[0] = with(s.sink[0], "\tnow\r\n", "\tnow") }, "no header"},

		{"to somebody else", func(s *scene) { s.sink = append(s.sink, arrived("eve@dest.example")) }, "must not go"},
		{"queued for somebody else", func(s *scene) { s.queue = []testmail.Pending{waiting("eve@dest.example")} }, "must not go"},
		{"before the dot", func(s *scene) { s.tries = []testmail.Try{{Recipients: []string{"me@alias.example"}, Code: 451}} }, "must not go"},
		{"mail by nobody", func(s *scene) { s.sink = append(s.sink, with(arrived("b@dest.example"), "<1@", "<2@")) }, "nobody sent"},
		{"a report about nothing", func(s *scene) { s.sink = append(s.sink, with(reported("a@s.example"), "<1@", "<2@")) }, "nobody sent"},
		{"a report that is not from the null sender", func(s *scene) {
			d := reported("a@s.example")
			d.Mail = "MAIL FROM:<mx@onward.example>"
			s.sink = append(s.sink, d)
		}, "nobody sent"},

		{"refused and delivered", func(s *scene) { s.tries = []testmail.Try{answered(550)} }, "refused, and b@dest.example has it"},
		{"refused and delivered, the daemon heard nothing", func(s *scene) {
			s.tries = []testmail.Try{answered(550)}
			s.sink[0] = unheard(s.sink[0])
		}, clean},
		{"deferred and delivered", func(s *scene) { s.tries = []testmail.Try{answered(451)} }, clean},

		{"refused and reported", func(s *scene) {
			s.sink = []testmail.Delivery{reported("a@s.example")}
			s.tries = []testmail.Try{answered(550)}
		}, "never accepted"},
		{"refused and a report queued", func(s *scene) {
			s.sink, s.tries = nil, []testmail.Try{answered(550)}
			s.queue = []testmail.Pending{{To: "a@s.example", Body: []byte("\r\n" + auditReport)}}
		}, "never accepted"},
		{"deferred and reported", func(s *scene) {
			s.sink = []testmail.Delivery{reported("a@s.example")}
			s.tries = []testmail.Try{answered(451)}
		}, "never accepted"},
		{"reported, the sender heard nothing and then 550", func(s *scene) {
			s.sink = []testmail.Delivery{reported("a@s.example")}
			s.tries = []testmail.Try{answered(0), answered(550)}
		}, clean},
		{"reported to the wrong one", func(s *scene) { s.sink = []testmail.Delivery{reported("b@s.example")} }, "the sender is <a@s.example>"},
		{"reported twice", func(s *scene) { s.sink = []testmail.Delivery{reported("a@s.example"), reported("a@s.example")} }, "2 reports"},
		{"reported twice, the first unheard", func(s *scene) {
			s.sink = []testmail.Delivery{unheard(reported("a@s.example")), reported("a@s.example")}
		}, clean},
		{"reported and delivered", func(s *scene) { s.sink = append(s.sink, reported("a@s.example")) }, "all of it was delivered"},
		{"a report without recipient", func(s *scene) {
			s.sink = append(s.sink, with(reported("a@s.example"), "Final-Recipient", "Final"))
		}, "names no recipient"},
		{"a report that names the target", func(s *scene) {
			s.sink = []testmail.Delivery{with(reported("a@s.example"), "--x", "550 <B@dest.example> full")}
		}, "names the target"},

		{"unauthenticated and delivered", func(s *scene) { s.class = testmail.Unbounceable }, clean},
		{"unauthenticated and reported", func(s *scene) {
			s.class = testmail.Unbounceable
			s.sink = []testmail.Delivery{reported("a@s.example")}
		}, "BACKSCATTER"},
		{"null and reported", func(s *scene) {
			s.class, s.from = testmail.NullSender, ""
			s.sink = []testmail.Delivery{reported("")}
		}, "BACKSCATTER"},
		{"null and queued", func(s *scene) {
			s.class, s.from, s.sink = testmail.NullSender, "", nil
			s.queue = []testmail.Pending{waiting("b@dest.example")}
		}, clean},
		{"unauthenticated and queued", func(s *scene) {
			s.class, s.sink = testmail.Unbounceable, nil
			s.queue = []testmail.Pending{waiting("b@dest.example")}
		}, "nobody could be told"},
		{"unauthenticated and queued, another target has it", func(s *scene) {
			s.class, s.tries = testmail.Unbounceable, []testmail.Try{answered(250, "two@alias.example")}
			s.queue = []testmail.Pending{waiting("c@dest.example")}
		}, clean},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &scene{class: testmail.Bounceable, from: "a@s.example", tries: []testmail.Try{answered(250)}, sink: []testmail.Delivery{arrived("b@dest.example")}}
			tt.spoil(s)
			audit := s.check()
			switch {
			case tt.want == clean && !audit.Clean():
				t.Errorf("findings where there is nothing to find: %s", audit)
			case tt.want != clean && (len(audit.Findings) != 1 || !strings.Contains(audit.Findings[0], tt.want)):
				t.Errorf("%s\nwant one finding, with %q", audit, tt.want)
			}
		})
	}
}

// TestAuditCounts holds the figures of the summary.
func TestAuditCounts(t *testing.T) {
	s := &scene{
		class: testmail.Bounceable, from: "a@s.example", killedAt: time.Second / 2,
		tries: []testmail.Try{answered(0, "two@alias.example"), answered(451, "two@alias.example"), answered(250, "two@alias.example")},
		sink:  []testmail.Delivery{arrived("b@dest.example"), arrived("b@dest.example")},
		queue: []testmail.Pending{waiting("c@dest.example")},
	}
	want := "kills 1, sent 1, accepted 1, refused 0, deferred 0; owed 2: delivered 1, queued 1, held 0, reported 0, lost 0; duplicates 1, explained 1, by 3 ambiguous faults"
	if got := s.check().String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
