package testmail_test

import (
	"strings"
	"testing"
	"time"

	"onward/internal/address"
	"onward/internal/store"
	"onward/internal/testmail"
)

// TestReadQueue: what the store keeps is there, whole, with what it is.
func TestReadQueue(t *testing.T) {
	dir := t.TempDir()
	if got, err := testmail.ReadQueue(t.Context(), dir); got != nil || err != nil {
		t.Fatalf("without a database: %v, %v", got, err)
	}
	s, err := store.Open(t.Context(), dir, store.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	header, rest := "Message-ID: <1@s.example>\r\n", "\r\n"+strings.Repeat("hello\r\n", 50_000)
	var items []*store.Item
	for i, state := range []store.State{store.Waiting, store.Held} {
		target, _ := address.Parse([]string{"b@dest.example", "c@dest.example"}[i])
		items = append(items, &store.Item{Message: "m", Target: target, Recipient: target, Header: []byte(header), Size: int64(len(header + rest)),
			State: state, Arrived: time.Now(), Expires: time.Now().Add(time.Hour), Next: time.Now()})
	}
	if err := s.Add(t.Context(), strings.NewReader(rest), items); err != nil {
		t.Fatal(err)
	}
	got, err := testmail.ReadQueue(t.Context(), dir) // beside the one that is open
	if err != nil || len(got) != 2 || got[0].To != "b@dest.example" || got[0].Held || !got[1].Held ||
		string(got[0].Header) != header || string(got[1].Body) != rest {
		t.Errorf("got %.300v, %v", got, err)
	}
}
