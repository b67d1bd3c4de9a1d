package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestDemo plays the demo, and then one in which the mailbox is not there, to
// see that it can fail.
func TestDemo(t *testing.T) {
	var out bytes.Buffer
	if err := runDemo(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if n := strings.Count(out.String(), "   ok: "); n != len(stories) {
		t.Errorf("%d stories of %d are told\n%s", n, len(stories), out.String())
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("colour although this is no terminal")
	}
}

func TestDemoCanFail(t *testing.T) {
	s, err := newStage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.mailbox.Close()
	var out bytes.Buffer
	err = play(s, &playbill{w: &out}, newsletter)
	if err == nil || !strings.Contains(err.Error(), "the mailbox has 0 messages") {
		t.Errorf("without a mailbox the story ends with %v", err)
	}
}
