package resolver_test

import (
	"fmt"
	"testing"
	"time"

	"onward/internal/resolver"
)

func BenchmarkHit(b *testing.B) {
	c := client(b, time.Second, serve(b, parse(b, world)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Lookup(b.Context(), "example.org", resolver.TypeMX); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHitParallel(b *testing.B) {
	c := client(b, time.Second, serve(b, parse(b, world)))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.Lookup(b.Context(), "example.org", resolver.TypeMX); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkReadMX(b *testing.B) {
	a, err := parse(b, world).Lookup(b.Context(), "example.org", resolver.TypeMX)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		a.MX()
	}
}

// The server, in the same process, is part of what is measured.
func BenchmarkMiss(b *testing.B) {
	c := client(b, time.Second, serve(b, parse(b, world)))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if _, err := c.Lookup(b.Context(), fmt.Sprintf("n%d.wild.example.org", i), resolver.TypeA); err != nil {
			b.Fatal(err)
		}
	}
}
