package authres

import (
	"bufio"
	"encoding/json"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"onward/internal/testpeer"
)

// TestPeerReads has python3-authres read what Field writes, harmless and
// hostile, and expects what our own Parse sees. It knows no comments, and
// loses a quoted value that is not the last of its result: of the values in
// use only header.b and policy.iprev may need quotes, and those come last.
func TestPeerReads(t *testing.T) {
	python := ""
	for _, p := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(p, "-c", "import authres").Run() == nil {
			python = p
		}
	}
	if python == "" {
		testpeer.Lack(t, "python3-authres")
	}
	headers := []Header{ours, {ID: "mx.example.org"}}
	for _, v := range hostile {
		headers = append(headers, Header{ID: "mx.example.org", Results: []Result{
			{Method: "spf", Value: "fail", Reason: v, Properties: []Property{{"smtp", "helo", "a.test"}, {"smtp", "mailfrom", v}}},
			{Method: "dkim", Value: "fail", Properties: []Property{{"header", "d", "a.test"}, {"header", "s", v}}},
			{Method: "dmarc", Value: "fail", Properties: []Property{{"header", "from", v}}},
		}})
	}
	var input strings.Builder
	for _, h := range headers {
		line, _ := json.Marshal(string(h.Field()))
		input.Write(append(line, '\n'))
	}
	output, status := testpeer.Run(t, input.String(), python, "testdata/read.py")
	if status != 0 {
		t.Fatal(output)
	}
	lines := bufio.NewScanner(strings.NewReader(output))
	for _, h := range headers {
		lines.Scan()
		var theirs struct {
			Header
			Error string
		}
		if err := json.Unmarshal(lines.Bytes(), &theirs); err != nil {
			t.Fatal(err)
		}
		mine, err := Parse(strings.TrimPrefix(string(h.Field()), Name+":"))
		if err != nil || theirs.Error != "" || !reflect.DeepEqual(flat(mine), flat(theirs.Header)) {
			t.Errorf("%s\n we read %q, %v\nthey read %q %s", h.Field(), flat(mine), err, flat(theirs.Header), theirs.Error)
		}
	}
	t.Logf("%d fields read by python3-authres", len(headers))
}

// flat lists all that a header says, but for comments.
func flat(h Header) []string {
	said := []string{h.ID}
	for _, r := range h.Results {
		said = append(said, r.Method, r.Value, r.Reason)
		for _, p := range r.Properties {
			said = append(said, p.Type, p.Name, p.Value)
		}
	}
	return said
}
