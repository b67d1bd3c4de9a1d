package main_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"onward/internal/testmail"
)

// TestRelay asks for mail to go elsewhere (RELIABILITY 17), by all ways that ever
// worked somewhere.
func TestRelay(t *testing.T) {
	e := newEdge(t)
	for i, path := range []string{
		"user@sender.example",
		"user%sender.example@alias.example",
		"user%sender.example@mx.onward.example",
		"sender.example!user@alias.example",
		"sender.example!user",
		"@alias.example:user@sender.example",
		"@alias.example,@mx.onward.example:user@sender.example",
		`"user@sender.example"@alias.example`,
		`"user@sender.example"@mx.onward.example`,
		"user@sender.example@alias.example",
		"me@alias.example@sender.example",
		"user@[127.0.0.1]",
		"user@[IPv6:::1]",
		"me@[alias.example]",
		"user@localhost",
		"user@",
		"@alias.example",
		"user@sender.example.",
		"me@alias.example.sender.example",
		"me@sender.example,me@alias.example",
		"user(@alias.example)@sender.example",
		"(me@alias.example)user@sender.example",
		`"me"user@sender.example`,
		"Postmaster@sender.example",
		"me@ALIAS.EXAMPLE>,<user@sender.example",
		"user@sender.example> NOTIFY=SUCCESS ORCPT=rfc822;user@sender.example",
		"me@alias\u3002example@sender.example",
		"SRS0=AAAAAAAAAA=AA=sender.example=user@mx.onward.example",
		"SRS1=AAAAAAAAAA=sender.example==AAAA=AA=sender.example=user@mx.onward.example",
		"reply-abcdefghijklmnopqrstuvwxyz@mx.onward.example",
		"ann@dest.example", // the target itself
	} {
		for _, from := range []string{"eve@sender.example", "", "me@alias.example", "postmaster@mx.onward.example"} {
			talk := e.dial(t)
			talk.Say("MAIL FROM:<"+from+">", "250 ")
			talk.Say("RCPT TO:<"+path+">", "5")
			talk.Say("DATA", "5")
			talk.Close()
		}
		if i%8 == 0 {
			e.honest(t)
		}
	}
	e.honest(t)
}

// TestForgeries tries to have bounces sent to people who wrote nothing through us
// (RELIABILITY 19, 20).
func TestForgeries(t *testing.T) {
	e := newEdge(t)
	path, _, _ := strings.Cut(strings.TrimPrefix(e.sink.Messages()[0].Mail, "MAIL FROM:<"), ">")
	at := strings.IndexByte(path, '@')
	forged := []string{
		strings.Replace(path, "@mx.onward", "@alias", 1),
		strings.Replace(path, "SRS0=", "SRS1=", 1),
		strings.Replace(path, "SRS0=", "SRS0==", 1),
		strings.Replace(path, "=ada@", "=eve@", 1),
		strings.Replace(path, "=ada@", "=ada%40@", 1),
		"SRS0=" + path[5:9] + path[15:], // a hash of four
		path[:5] + path[strings.IndexByte(path[5:], '=')+5:],
	}
	for i := 5; i < at; i++ {
		forged = append(forged, changed(path, i))
	}
	r := rand.New(rand.NewPCG(1, 1))
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for range 1000 {
		guess := []byte(path)
		for i := 5; i < 15; i++ {
			guess[i] = alphabet[r.IntN(len(alphabet))]
		}
		forged = append(forged, string(guess))
	}
	var talk *testmail.Talk
	for i, guess := range forged {
		if i%9 == 0 { // a session ends with the tenth error
			if talk != nil {
				talk.Close()
			}
			talk = e.dial(t)
			talk.Say("MAIL FROM:<>", "250 ")
		}
		talk.Say("RCPT TO:<"+guess+">", "550 5.1.1 ")
	}
	talk.Close()
	talk = e.dial(t)
	talk.Say("MAIL FROM:<eve@sender.example>", "250 ")
	talk.Say("RCPT TO:<"+path+">", "550 5.1.1 ")
	talk.Close()
	e.honest(t)
}
