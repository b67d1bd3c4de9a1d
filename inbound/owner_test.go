package inbound

import (
	"testing"
	"time"

	"onward/internal/config"
)

// TestAlone holds that a sender who could not be told of a failure gets one
// recipient a message, and that the 452 for the rest is no error of the client
// (DESIGN.md 9.3).
func TestAlone(t *testing.T) {
	h := open(t, nil)
	for _, tt := range []struct{ name, from, second string }{
		{"SPF passes", "a@b.example", "250"},
		{"no SPF", "a@unknown.example", "452 4.5.3"},
		{"SPF fails", "a@bank.example", "452 4.5.3"},
		{"null sender", "", "250"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := h.dial()
			c.say("EHLO c", "250")
			c.say("MAIL FROM:<"+tt.from+">", "250")
			c.say("RCPT TO:<nobody@example.org>", "550 5.1.1")
			c.say("RCPT TO:<me@example.org>", "250")
			for range maxErrors {
				c.say("RCPT TO:<abuse@example.org>", tt.second)
			}
			c.say("RCPT TO:<nobody@example.org>", "550 5.1.1")
			c.say("DATA", "354")
			c.say("x: y\r\n.", "250")
		})
	}
	want := map[string]bool{"a@b.example": true, "a@unknown.example": false, "a@bank.example": false, "": false}
	for _, m := range h.owner.messages() {
		if from := m.env.From.String(); m.env.Bounceable != want[from] {
			t.Errorf("mail from <%s>: bounceable is %v", from, m.env.Bounceable)
		}
	}
}

// TestHeard holds that the owner of a message learns whether its sender heard the
// answer: it went on speaking, or hung up in order after the answer had arrived;
// not when it was gone before.
func TestHeard(t *testing.T) {
	h := open(t, nil)
	send := func(body string) *talk {
		c := h.dial()
		c.begin()
		c.send(body + "\r\n.\r\n")
		return c
	}
	speaks, leaves := send("x: 1"), send("x: 2")
	speaks.expect("250")
	speaks.say("NOOP", "250")
	leaves.expect("250")
	heard := h.owner.messages()[1].env.Heard
	for deadline := time.Now().Add(5 * time.Second); !heard(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not heard by a client that waits")
		}
	}
	leaves.conn.Close()
	h.owner.hold = make(chan struct{})
	lost := send("x: 3")
	for len(h.owner.messages()) < 3 {
		time.Sleep(time.Millisecond)
	}
	lost.conn.Close()
	env := h.owner.messages()[2].env
	for deadline := time.Now().Add(5 * time.Second); !env.Gone(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not known to have hung up")
		}
	}
	ahead := send("x: 4\r\n.\r\nQUIT\r\nx") // what it says without waiting says nothing of what it heard
	for len(h.owner.messages()) < 4 {
		time.Sleep(time.Millisecond)
	}
	ahead.conn.Close()
	waits := send("x: 5\r\n.\r\nQUIT\r\nx")
	for len(h.owner.messages()) < 5 {
		time.Sleep(time.Millisecond)
	}
	close(h.owner.hold)
	waits.expect("250 2.0.0")
	waits.expect("221")
	for deadline := time.Now().Add(5 * time.Second); h.owner.told() < 5; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("told of %d of 5", h.owner.told())
		}
	}
	for i, want := range []bool{true, true, false, false, true} {
		id := h.owner.messages()[i].env.ID
		if got := h.owner.heard[id]; got != want {
			t.Errorf("message %d: heard is %v", i+1, got)
		}
	}
}

// TestGone holds that a client that hung up while its message was on its way is
// known to have done so.
func TestGone(t *testing.T) {
	h := open(t, nil)
	h.owner.hold = make(chan struct{})
	c := h.dial()
	c.begin()
	c.send("x: y\r\n.\r\n")
	for len(h.owner.messages()) == 0 {
		time.Sleep(time.Millisecond)
	}
	gone := h.owner.messages()[0].env.Gone
	if gone() {
		t.Error("gone while it waits")
	}
	c.conn.Close()
	for deadline := time.Now().Add(5 * time.Second); !gone(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not known to have hung up")
		}
	}
	close(h.owner.hold)
}

// TestReturnPathLimits holds that one return path takes so many bounces a day,
// in whatever case it is written (S5, RELIABILITY 20).
func TestReturnPathLimits(t *testing.T) {
	h := open(t, func(p *Policy) { p.Limits.ReturnPathPerDay = 2 })
	path := srsAddress(t)
	for _, want := range []string{"250", "250", "450 4.2.1"} {
		c := h.dial()
		c.say("EHLO c", "250")
		c.say("MAIL FROM:<>", "250")
		c.say("RCPT TO:<"+path+">", want)
	}
}

// TestAutoReplies holds that an automatic reply may use a return path where the
// configuration says so, and only when it says what it is (RFC 3834).
func TestAutoReplies(t *testing.T) {
	h := open(t, func(p *Policy) { p.AutoReplies = true })
	path := srsAddress(t)
	for _, tt := range []struct{ header, want string }{
		{"Auto-Submitted: auto-replied\r\n", "250"},
		{"Auto-Submitted: no\r\n", "550 5.7.1"},
		{"Subject: cheap watches\r\n", "550 5.7.1"},
	} {
		c := h.dial()
		c.say("EHLO c", "250")
		c.say("MAIL FROM:<a@b.example>", "250")
		c.say("RCPT TO:<"+path+">", "250")
		c.say("RCPT TO:<me@example.org>", "452 4.5.3")
		c.say("DATA", "354")
		c.say(tt.header+"\r\n.", tt.want)
	}
	c := h.dial()
	c.say("EHLO c", "250")
	c.say("MAIL FROM:<a@b.example>", "250")
	c.say("RCPT TO:<me@example.org>", "250")
	c.say("RCPT TO:<"+path+">", "550 5.1.1")
}

// TestSuspect holds that mail in doubt goes to user+suspect where the alias asks
// for that, and nothing else does.
func TestSuspect(t *testing.T) {
	h := open(t, func(p *Policy) {
		p.Aliases = table(t, &config.Alias{Key: "me", To: []string{"ada+work@gmail.com", "ada@other.example"}, Rule: &config.Rule{Suspect: true}},
			&config.Alias{Key: "plain", To: []string{"ada@gmail.com"}, Rule: &config.Rule{}})
	})
	for _, tt := range []struct{ alias, sender, from, want string }{
		{"me", "a@b.example", "a@b.example", "[ada+work@gmail.com ada@other.example]"},
		{"me", "a@bank.example", "a@shop.example", "[ada+suspect@gmail.com ada@other.example]"},
		{"me", "a@bank.example", "a@bank.example", "[ada+suspect@gmail.com ada@other.example]"},
		{"plain", "a@bank.example", "a@shop.example", "[ada@gmail.com]"},
	} {
		c := h.dial()
		c.say("EHLO c", "250")
		c.say("MAIL FROM:<"+tt.sender+">", "250")
		c.say("RCPT TO:<"+tt.alias+"@example.org>", "250")
		c.say("DATA", "354")
		c.say("From: "+tt.from+"\r\n\r\n.", "250")
		all := h.owner.messages()
		targets := all[len(all)-1].env.Recipients[0].Targets
		if got := formatMailboxes(targets); got != tt.want {
			t.Errorf("from %s to %s: targets %s, want %s", tt.from, tt.alias, got, tt.want)
		}
	}
}

// TestReplyAddress holds that mail to a reply address goes to the author in the
// name of the alias, when it passes DMARC and comes from who reads the mail of the
// alias, and from nobody else (DESIGN.md 9.5).
func TestReplyAddress(t *testing.T) {
	h := open(t, func(p *Policy) {
		p.Aliases = table(t, &config.Alias{Key: "me", To: []string{"ada@b.example"}, Rule: &config.Rule{}})
		p.Judge = NewJudge(&config.Config{Policy: config.Policy{DMARC: "enforce"}}, NewLists())
	})
	const to = "reply-abcdefghijklmnopqrstuvwxyz@mx.example.org"
	for _, tt := range []struct{ name, sender, from, to, rcpt, data string }{
		{"its owner", "ada@b.example", "Ada <ada@b.example>", to, "250", "250"},
		{"somebody else there", "eve@b.example", "eve@b.example", to, "250", "550 5.7.1"},
		{"who says to be the owner", "eve@attacker.example", "ada@b.example", to, "250", "550 5.7.1"},
		{"another token", "ada@b.example", "ada@b.example", "reply-bbcdefghijklmnopqrstuvwxyz@mx.example.org", "550 5.1.1", ""},
		{"another domain", "ada@b.example", "ada@b.example", "reply-abcdefghijklmnopqrstuvwxyz@example.org", "550 5.1.1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := h.dial()
			c.say("EHLO c", "250")
			c.say("MAIL FROM:<"+tt.sender+">", "250")
			c.say("RCPT TO:<"+tt.to+">", tt.rcpt)
			if tt.data != "" {
				c.say("DATA", "354")
				c.say("From: "+tt.from+"\r\n\r\n.", tt.data)
			}
		})
	}
	all := h.owner.messages()
	if len(all) != 1 {
		t.Fatalf("%d messages went on", len(all))
	}
	if r := all[0].env.Recipients[0]; r.As.String() != "me@example.org" || formatMailboxes(r.Targets) != "[bob@sender.example]" {
		t.Errorf("it goes to %v as %v", r.Targets, r.As)
	}
}
