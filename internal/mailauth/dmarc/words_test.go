package dmarc

import (
	"strings"
	"testing"
)

func TestDecodeWords(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		ok       bool
	}{
		{"plain <a@b.example>", "plain <a@b.example>", true},
		{"=?utf-8?q?a=40b=2Eexample?=", "a@b.example", true},
		{"x =?UTF-8?B?YUBiLmV4YW1wbGU=?= y =?latin1?Q?c_d?=", "x a@b.example y c d", true},
		{"=?utf-8?q?a=4?=", "a4", false},
		{"=?utf-8?b?!!?=", "", false},
		{"=?utf-8?x?a@b.example?=", "a@b.example", false},
		{"=?utf-8?q?no end", "=?utf-8?q?no end", true},
		{"=? =?utf-8?q?=40?=", "=? @", true},
		{"=?a?b", "=?a?b", true},
	} {
		if got, ok := decodeWords(tt.in); got != tt.want || ok != tt.ok {
			t.Errorf("decodeWords(%q) = %q, %v; want %q, %v", tt.in, got, ok, tt.want, tt.ok)
		}
	}
	if got, _ := decodeWords(strings.Repeat("=?", 100_000)); len(got) != 200_000 {
		t.Errorf("%d octets", len(got))
	}
}
