package dsn

import (
	"bufio"
	"encoding/json"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"onward/internal/reply"
	"onward/internal/testpeer"
)

// A reading is what a peer saw in one mail.
type reading struct {
	Type, Report, From, To, Subject, Auto string
	Parts, Defects                        []string
	Text, Headers                         string
	Status                                [][][2]string // blocks of fields
}

// readBy has a peer read mails.
func readBy(t *testing.T, mails []Mail, program string, args ...string) []reading {
	t.Helper()
	var input strings.Builder
	for _, m := range mails {
		line, _ := json.Marshal(string(m.Header) + string(m.Rest))
		input.Write(append(line, '\n'))
	}
	output, status := testpeer.Run(t, input.String(), program, args...)
	if status != 0 {
		t.Fatal(output)
	}
	lines := bufio.NewScanner(strings.NewReader(output))
	lines.Buffer(nil, 1<<20)
	readings := make([]reading, len(mails))
	for i := range readings {
		lines.Scan()
		if err := json.Unmarshal(lines.Bytes(), &readings[i]); err != nil {
			t.Fatalf("%v: %q", err, lines.Text())
		}
	}
	return readings
}

// reports are a report for each hostile text, in ASCII and in UTF-8.
func reports(t *testing.T) (mails []Mail, written []Report) {
	for _, words := range hostile {
		for _, r := range []Report{refused(t), international(t), expired(t)} {
			r.Said = reply.New(550, "5.7.1", "%s", words)
			r.Reply = r.Said
			r.Header = []byte(header + "X-Strange: " + words + "\r\n")
			mails, written = append(mails, compose(t, r)), append(written, r)
		}
	}
	return mails, written
}

// wantStatus is what every reader should see in the part for machines.
func wantStatus(r Report) [][][2]string {
	kind, code := "rfc822", "5.7.1"
	if !r.Alias.IsASCII() {
		kind = "utf-8"
	}
	if r.Expired {
		code = "4.4.7"
	}
	return [][][2]string{
		{{"Reporting-Mta", "dns; mx.example.org"}, {"Arrival-Date", "Sun, 22 Nov 2026 09:02:14 +0000"}},
		{{"Original-Recipient", kind + "; " + r.Alias.String()}, {"Final-Recipient", kind + "; " + r.Alias.String()},
			{"Action", "failed"}, {"Status", code}, {"Diagnostic-Code", "smtp; " + clean(r.Said.String())}},
	}
}

// TestPythonReads has Python's own e-mail parser read reports and a notice: it
// finds no defect, and in every field what we meant.
func TestPythonReads(t *testing.T) {
	testpeer.Need(t, "python3")
	mails, written := reports(t)
	for i, got := range readBy(t, mails, "python3", "testdata/read.py") {
		r := written[i]
		kind := "message/delivery-status"
		if !r.Alias.IsASCII() {
			kind = "message/global-delivery-status"
		}
		if got.Type != "multipart/report" || got.Report != "delivery-status" || len(got.Defects) > 0 ||
			!slices.Equal(got.Parts, []string{"text/plain", kind, "text/rfc822-headers"}) {
			t.Errorf("%q: %+v", r.Said.Text, got)
		}
		if got.From != "Mail Delivery System <postmaster@mx.example.org>" || got.To != "<ada@sender.example>" && got.To != "ada@sender.example" ||
			got.Subject != "Not delivered: your message to "+r.Alias.String() || got.Auto != "auto-replied" {
			t.Errorf("%q: %+v", r.Said.Text, got)
		}
		if !reflect.DeepEqual(got.Status, wantStatus(r)) {
			t.Errorf("%q:\n got %q\nwant %q", r.Said.Text, got.Status, wantStatus(r))
		}
		if !strings.Contains(got.Text, "\n    "+r.Alias.String()+"\n") || !strings.HasPrefix(got.Headers, "Received: from a.example") {
			t.Errorf("%q: text %q, headers %q", r.Said.Text, got.Text, got.Headers)
		}
	}
	notice := readBy(t, []Mail{compose(t, held(t))}, "python3", "testdata/read.py")[0]
	if notice.Type != "text/plain" || len(notice.Defects) > 0 || notice.Auto != "auto-generated" || !strings.Contains(notice.Text, "    to    büro@xn--bcher-kva.example\n") {
		t.Errorf("%+v", notice)
	}
	t.Logf("%d mails read by Python's e-mail parser", len(mails)+1)
}

// TestPerlReads has MailTools, which libmail-dkim-perl brings, read the same.
func TestPerlReads(t *testing.T) {
	testpeer.Need(t, "perl")
	if exec.Command("perl", "-MMail::Internet", "-e", "1").Run() != nil {
		testpeer.Lack(t, "libmailtools-perl")
	}
	mails, written := reports(t)
	for i, got := range readBy(t, mails, "perl", "testdata/read.pl") {
		r := written[i]
		if len(got.Parts) != 3 || got.To != "<ada@sender.example>" || got.Auto != "auto-replied" || got.Subject != "Not delivered: your message to "+r.Alias.String() {
			t.Errorf("%q: %+v", r.Said.Text, got)
		}
		if !reflect.DeepEqual(sorted(got.Status), sorted(wantStatus(r))) {
			t.Errorf("%q:\n got %q\nwant %q", r.Said.Text, got.Status, wantStatus(r))
		}
	}
	t.Logf("%d mails read by MailTools", len(mails))
}

// sorted puts the fields of each block in the order of their names, in lower
// case, as MailTools has an order and a spelling of its own.
func sorted(blocks [][][2]string) [][][2]string {
	for _, fields := range blocks {
		for i := range fields {
			fields[i][0] = strings.ToLower(fields[i][0])
		}
		slices.SortFunc(fields, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	}
	return blocks
}
