package main_test

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"onward/internal/resolver"
)

// The vectors were made by other programs with other defaults, so secrets, date
// and lengths come from the command line.
func TestSRSVectors(t *testing.T) {
	text, err := os.ReadFile("../../testdata/srs/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Secrets []string
		Vectors []struct {
			Op, In, OK, Error, Alias, Note, Separator string
			Secrets                                   []string
			Time                                      int64
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Vectors) != 71 {
		t.Fatalf("%d vectors, want 71", len(file.Vectors))
	}
	url := strings.NewReplacer("+", "-", "/", "_") // the alphabet we write (STANDARDS.md D11)
	for _, v := range file.Vectors {
		args := []string{"srs", "decode", v.In}
		want := v.OK
		if v.Op == "forward" {
			args = []string{"srs", "encode", v.In, "--domain", v.Alias, "--separator", v.Separator}
			hash := 5 + strings.IndexByte(want[5:], '=') // where it ends
			want = want[:5] + url.Replace(want[5:hash]) + want[hash:]
		}
		secrets := file.Secrets
		if v.Secrets != nil {
			secrets = v.Secrets
		}
		for _, s := range secrets {
			args = append(args, "--secret", s)
		}
		args = append(args, "--now", time.Unix(v.Time, 0).UTC().Format(time.RFC3339), "--hash-length", "4", "--max-age", "21d")
		stdout, stderr, status := onward(t, args...)
		switch {
		case v.Error == "" && (status != 0 || stdout != want+"\n"):
			t.Errorf("%v (%s): %q, %q, exit status %d; want %q", args, v.Note, stdout, stderr, status, want)
		case v.Error != "" && (status != 1 || stdout != "" || strings.Count(stderr, "\n") != 1):
			t.Errorf("%v (%s): %q, %q, exit status %d; want one line of reason and 1", args, v.Note, stdout, stderr, status)
		}
	}
}

// A bounce comes home through the address we gave the message, also after a
// restart, and also where the sender is too long for SRS or is no plain ASCII.
// Nobody else gets anything through it.
func TestReturnPath(t *testing.T) {
	s := newStand(t, "me: ann@dest.example")
	arrived := 0
	for _, sender := range []string{
		"ada@sender.example",
		"Ada.King+tag=x@sender.example",
		strings.Repeat("a", 64) + "@sender.example",
		`"with space"@sender.example`,
		"zoë@sender.example",
	} {
		t.Run(sender, func(t *testing.T) {
			talk := s.dial(t)
			talk.Say("MAIL FROM:<"+sender+"> SMTPUTF8", "250 ")
			talk.Say("RCPT TO:<me@alias.example>", "250 ")
			talk.Say("DATA", "354 ")
			talk.Say(letter+".", "250 2.0.0 ")
			arrived++
			path, _, _ := strings.Cut(strings.TrimPrefix(s.arrived(t, arrived).Mail, "MAIL FROM:<"), ">")
			local, domain, _ := strings.Cut(path, "@")
			if domain != "mx.onward.example" || len(local) > 64 || !strings.HasPrefix(local, "SRS0=") {
				t.Fatalf("return path <%s>", path)
			}

			s.kill(t)
			s.start(t)
			talk = s.dial(t)
			talk.Say("MAIL FROM:<somebody@dest.example>", "250 ")
			talk.Say("RCPT TO:<"+path+">", "550 5.1.1 ")
			talk.Say("RSET", "250 ")
			talk.Say("MAIL FROM:<>", "250 ")
			// In the hash, the stamp and the sender; more would be too many errors for
			// one session.
			for _, i := range []int{5, 9, 14, 17, len(local) / 2, len(local) - 1} {
				talk.Say("RCPT TO:<"+changed(path, i)+">", "550 5.1.1 ")
			}
			talk.Say("RCPT TO:<"+strings.ToUpper(local)+"@"+domain+">", "250 ") // case is no secret
			talk.Say("RSET", "250 ")
			send(talk, "", path, "250 2.0.0 ")
			arrived++
			home := s.arrived(t, arrived)
			if !strings.HasPrefix(home.Mail, "MAIL FROM:<>") || home.Rcpt[0] != "RCPT TO:<"+sender+">" {
				t.Errorf("the bounce went on as %q %q, want from <> to <%s>", home.Mail, home.Rcpt, sender)
			}
		})
	}
}

// changed is s with another character at i.
func changed(s string, i int) string {
	other := "A"
	if strings.EqualFold(s[i:i+1], other) {
		other = "B"
	}
	return s[:i] + other + s[i+1:]
}

// The report on mail that comes under a return path of ours, as it does when another
// server forwards to us what it had from us, goes to who wrote first. When the path
// does not lead there any more the message is held, and never lost in a circle.
func TestReportToReturnPath(t *testing.T) {
	s := newStand(t, "team: [ann@dest.example, bob@dest.example]")
	if err := s.zone.Set("mx.onward.example", resolver.TypeTXT, "v=spf1 ip4:127.0.0.1 -all"); err != nil {
		t.Fatal(err)
	}
	s.sink.Answer("RCPT TO:<bob@dest.example>", "550 5.1.1 no bob here")
	path, arrived := "", 0
	for _, sender := range []string{"ada@sender.example", strings.Repeat("a", 64) + "@sender.example"} {
		send(s.dial(t), sender, "team@alias.example", "250 2.0.0 ")
		arrived++
		path, _, _ = strings.Cut(strings.TrimPrefix(s.arrived(t, arrived).Mail, "MAIL FROM:<"), ">")
		mark := s.log.mark()
		send(s.dial(t), path, "team@alias.example", "250 2.0.0 ")
		s.log.wait(t, mark, "msg=reported .*bob@dest.example")
		arrived += 2 // ann's copy, and the report
		if report := s.arrived(t, arrived); report.Rcpt[0] != "RCPT TO:<"+sender+">" || !strings.Contains(string(report.Data), "5.1.1") {
			t.Errorf("the report to %s went to %s:\n%s", sender, report.Rcpt, report.Data)
		}
	}

	s.sink.Answer("RCPT TO:<bob@dest.example>", "451 4.3.0 the mailbox is away")
	send(s.dial(t), path, "team@alias.example", "250 2.0.0 ")
	if err := os.WriteFile(s.dir+"/state/srs-secret", []byte("another secret, of twenty octets and more\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mark := s.log.mark()
	s.signal(t, syscall.SIGHUP)
	s.log.wait(t, mark, "msg=\"configuration reloaded\"")
	s.sink.Answer("RCPT TO:<bob@dest.example>", "550 5.1.1 no bob here")
	if stdout, stderr, status := onward(t, "queue", "retry", "--all", "-c", s.config()); status != 0 {
		t.Fatal(stdout, stderr)
	}
	s.log.wait(t, mark, "msg=held .*leads nowhere")
}
