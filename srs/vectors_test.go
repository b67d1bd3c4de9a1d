package srs_test

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"onward/srs"
)

const days = 24 * time.Hour

var errAny = errors.New("any refusal")

// url maps the hash of a published address to the alphabet that we write.
// Nothing else in these addresses is changed by it.
func url(address string) string {
	head, tail, _ := strings.Cut(address[5:], "=")
	return address[:5] + strings.NewReplacer("+", "-", "/", "_").Replace(head) + "=" + tail
}

func is(err, want error) bool {
	return want == errAny && err != nil || errors.Is(err, want)
}

// The rows of STANDARDS.md 4.4 that come from PostSRSd's tests.
func TestPostSRSdVectors(t *testing.T) {
	codec := srs.Codec{Secrets: []string{"tops3cr3t"}, Domain: "example.com", HashLength: 4, MaxAge: 21 * days}
	now := time.Unix(1577836860, 0)
	long := func(n int) string { return strings.Repeat("a", n) + ".net" }
	for _, tt := range []struct {
		row, op, in, want string
		wantErr           error
	}{
		{"1", "fwd", "test@otherdomain.com", "SRS0=vmyz=2W=otherdomain.com=test@example.com", nil},
		{"2", "fwd", "sender@otherdomain.com", "SRS0=9KJ-=2W=otherdomain.com=sender@example.com", nil},
		{"3", "fwd", "hash234@somedomain.com", "SRS0=-3_5=2W=somedomain.com=hash234@example.com", nil},
		{"4", "rev", "SRS0=-3_5=2W=somedomain.com=hash234@example.com", "hash234@somedomain.com", nil},
		{"4 base64", "rev", "SRS0=+3/5=2W=somedomain.com=hash234@example.com", "hash234@somedomain.com", nil},
		{"5", "fwd", "test@example.com", "test@example.com", nil},
		{"6", "fwd", "SRS0=opaque+string@otherdomain.com", "SRS1=chaI=otherdomain.com==opaque+string@example.com", nil},
		{"7", "fwd", "SRS1=X=thirddomain.com==opaque+string@otherdomain.com", "SRS1=JIBX=thirddomain.com==opaque+string@example.com", nil},
		{"8", "rev", "SRS1=JIBX=thirddomain.com==opaque+string@example.com", "SRS0=opaque+string@thirddomain.com", nil},
		{"9", "rev", "SRS0=XjO9=2V=otherdomain.com=test@example.com", "test@otherdomain.com", nil},
		{"10", "rev", "srs0=xjo9=2v=otherdomain.com=test@example.com", "test@otherdomain.com", nil},
		{"11", "rev", "SRS0=XJO9=2V=OTHERDOMAIN.COM=TEST@EXAMPLE.COM", "TEST@OTHERDOMAIN.COM", nil},
		{"12", "rev", "SRS0=te87=T7=otherdomain.com=test@example.com", "", srs.ErrExpired},
		{"13", "rev", "SRS0=VcIb=7N=otherdomain.com=test@example.com", "", srs.ErrExpired},
		{"14", "rev", "SRS0=FAKE=2V=otherdomain.com=test@example.com", "", srs.ErrHash},
		{"15 no hash", "rev", "SRS0=@example.com", "", srs.ErrSyntax},
		{"15 no stamp", "rev", "SRS0=XjO9@example.com", "", srs.ErrSyntax},
		{"15 no host", "rev", "SRS0=XjO9=2V@example.com", "", srs.ErrSyntax},
		{"15 no user", "rev", "SRS0=XjO9=2V=otherdomain.com@example.com", "", srs.ErrSyntax},
		{"16", "fwd", "DCJGDE6N24LCRT41A4T0G1UIF0DTKKQJ@1", "SRS0=bxzH=2W=1=DCJGDE6N24LCRT41A4T0G1UIF0DTKKQJ@example.com", nil},
		{"17", "rev", "SRS0=bxzH=2W=1=dcjgde6n24lcrt41a4t0g1uif0dtkkqj@example.com", "dcjgde6n24lcrt41a4t0g1uif0dtkkqj@1", nil},
		{"18", "fwd", "test@" + long(503), "", srs.ErrTooLong},
		{"18 hash", "rev", "SRS0=G7tR=2W=" + long(503) + "=test@example.com", "test@" + long(503), nil},
		{"19", "rev", "SRS0=iCvJ=2W=" + long(478) + "=test@example.com", "test@" + long(478), nil},
		{"20", "fwd", "foo", "", srs.ErrSyntax},
	} {
		t.Run(tt.row, func(t *testing.T) { check(t, codec, tt.op, tt.in, now, tt.want, tt.wantErr) })
	}
}

// The rows that come from d--j/srs-milter, and the two single addresses below
// the table.
func TestOtherVectors(t *testing.T) {
	milter := srs.Codec{Secrets: []string{"secret-key", "another"}, Domain: "srs.example.com", HashLength: 4, MaxAge: 21 * days}
	rotated, lost, java, mileusna := milter, milter, milter, milter
	rotated.Secrets = []string{"one", "secret-key"}
	lost.Secrets = []string{"one", "two"}
	java.Secrets = []string{"dummy-secret"}
	mileusna.Secrets = []string{"9/sg9mSnEHHvH4giEP/NzRwY"}
	now := time.Date(2023, 1, 1, 12, 0, 0, 0, time.UTC)
	dayOfZU := time.Unix((17*1024+25*32+20)*86400, 0)
	dayOfJF := time.Unix((17*1024+9*32+5)*86400, 0)
	for _, tt := range []struct {
		row, op  string
		codec    srs.Codec
		now      time.Time
		in, want string
		wantErr  error
	}{
		{"21", "fwd", milter, now, "someone@example.net", "SRS0=R9Ph=46=example.net=someone@srs.example.com", nil},
		{"22", "fwd", milter, now, "not-local@example.net", "SRS0=-5us=46=example.net=not-local@srs.example.com", nil},
		{"22 base64", "rev", milter, now, "SRS0=+5us=46=example.net=not-local@srs.example.com", "not-local@example.net", nil},
		{"23", "rev", milter, now, "SRS0=PNjA=46=example.net=my-srs@srs.example.com", "my-srs@example.net", nil},
		{"24", "rev", milter, now, "SRS0=PkKy=46=example.net=my-srs-dkim@srs.example.com", "my-srs-dkim@example.net", nil},
		{"25", "fwd", milter, now, "SRS0=ABCD=46=example.org=not-local-srs1@example.net", "SRS1=TWks=example.net==ABCD=46=example.org=not-local-srs1@srs.example.com", nil},
		{"26", "rev", milter, now, "SRS1=hQV7=example.net==R9Ph=46=example.net=my-srs-srs1@srs.example.com", "SRS0=R9Ph=46=example.net=my-srs-srs1@example.net", nil},
		{"27", "rev", milter, now, "SRS1=5joy=example.net==R9Ph=46=example.net=my-srs-srs1-dkim@srs.example.com", "SRS0=R9Ph=46=example.net=my-srs-srs1-dkim@example.net", nil},
		{"28", "rev", rotated, now, "SRS0=R9Ph=46=example.net=someone@srs.example.com", "someone@example.net", nil},
		{"28 lost", "rev", lost, now, "SRS0=R9Ph=46=example.net=someone@srs.example.com", "", srs.ErrHash},
		{"mail-srs-java", "rev", java, dayOfZU, "SRS0=5gnp=ZU=example.com=jdoe@srs.example.com", "jdoe@example.com", nil},
		{"mileusna tampered", "rev", mileusna, dayOfJF, "SRS0=nrAG=JF=domain.com=hello+world@srs.example.com", "", srs.ErrHash},
		{"mileusna", "rev", mileusna, dayOfJF, "SRS0=nrHG=JF=domain.com=hello+world@srs.example.com", "hello+world@domain.com", nil},
	} {
		t.Run(tt.row, func(t *testing.T) { check(t, tt.codec, tt.op, tt.in, tt.now, tt.want, tt.wantErr) })
	}
}

// check encodes ("fwd") or decodes ("rev") one address.
func check(t *testing.T, codec srs.Codec, op, in string, now time.Time, want string, wantErr error) {
	t.Helper()
	do := codec.Decode
	if op == "fwd" {
		do = codec.Encode
	}
	if got, err := do(in, now); got != want || !is(err, wantErr) {
		t.Errorf("%s %q = %q, %v; want %q, %v", op, in, got, err, want, wantErr)
	}
}

// The 71 addresses that Mail::SRS made and read (testdata/srs).
func TestMailSRSVectors(t *testing.T) {
	text, err := os.ReadFile("../testdata/srs/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		MaxAgeDays int `json:"max_age_days"`
		Secrets    []string
		Vectors    []struct {
			Op, In, Ok, Error, Note, Alias, Separator string
			Time                                      int64
			Secrets                                   []string
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Vectors) != 71 {
		t.Fatalf("%d vectors, want 71", len(file.Vectors))
	}
	for _, v := range file.Vectors {
		codec := srs.Codec{Secrets: file.Secrets, HashLength: 4, MaxAge: time.Duration(file.MaxAgeDays) * days}
		if v.Secrets != nil {
			codec.Secrets = v.Secrets
		}
		var wantErr error
		if v.Error != "" {
			wantErr = errAny
		}
		if v.Op == "forward" {
			codec.Domain, codec.Separator = v.Alias, v.Separator[0]
			check(t, codec, "fwd", v.In, time.Unix(v.Time, 0), url(v.Ok), wantErr)
			continue
		}
		_, codec.Domain, _ = strings.Cut(v.In, "@")
		check(t, codec, "rev", v.In, time.Unix(v.Time, 0), v.Ok, wantErr)
	}
}

func TestStamps(t *testing.T) {
	codec := srs.Codec{Secrets: []string{"s"}, Domain: "srs.example"}
	for date, want := range map[string]string{
		"1970-01-01": "AA", "2020-01-01": "2W", "2026-10-31": "IV", "2026-11-22": "JL", "2026-11-23": "JM",
		"2026-01-26": "77", "2026-01-27": "AA", "2028-11-15": "77", "2028-11-16": "AA",
	} {
		midnight, err := time.Parse(time.DateOnly, date)
		if err != nil {
			t.Fatal(err)
		}
		for _, now := range []time.Time{midnight, midnight.Add(days - 1)} {
			encoded, err := codec.Encode("a@b.example", now)
			if err != nil || strings.Split(encoded, "=")[2] != want {
				t.Errorf("%s: %q, %v; want stamp %s", now, encoded, err, want)
			}
		}
	}
}

// An address is good from the first moment of its own day to the last of the
// day MaxAge later, also across the wrap of the stamp. Tomorrow's is refused:
// where RELIABILITY.md 21 would take it, the published vectors do not.
func TestAge(t *testing.T) {
	for _, made := range []time.Time{
		time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC),
		time.Date(2026, 1, 20, 23, 59, 59, 0, time.UTC), // wraps on 01-27
		time.Date(2028, 11, 15, 12, 0, 0, 0, time.UTC),  // wraps on the next day
	} {
		midnight := made.Truncate(days)
		for _, age := range []int{1, 14, 21} {
			codec := srs.Codec{Secrets: []string{"s"}, Domain: "srs.example", MaxAge: time.Duration(age) * days}
			if age == 14 {
				codec.MaxAge = 0 // the default
			}
			end := midnight.Add(time.Duration(age+1) * days)
			encoded, err := codec.Encode("a@b.example", made)
			if err != nil {
				t.Fatal(err)
			}
			for _, tt := range []struct {
				now     time.Time
				wantErr error
			}{
				{midnight.Add(-1), srs.ErrExpired},
				{midnight, nil},
				{end.Add(-1), nil},
				{end, srs.ErrExpired},
				{midnight.Add(1023 * days), srs.ErrExpired},
				{midnight.Add(1024 * days), nil},
			} {
				if _, err := codec.Decode(encoded, tt.now); !errors.Is(err, tt.wantErr) {
					t.Errorf("made %s, %d days, read %s: %v; want %v", made, age, tt.now, err, tt.wantErr)
				}
			}
		}
	}
}
