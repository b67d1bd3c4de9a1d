package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// limits measures what no program can do more of on this machine.
func (b *bench) limits() {
	signs := perSecond(sign())
	syncs := perSecond(b.syncOnce())
	r := b.measure(&system{name: "sink", addr: sinkIP + ":25"}, task{"10 KB", b.letters, 8, behaviour{}})
	b.ceiling = fmt.Sprintf("%.0f RSA-2048 signatures a second and processor, %.0f syncs of 4 KB a second, %.0f messages a second from the load generator straight to the destination",
		signs, syncs, r.deliveredRate())
}

// perSecond calls f for half a second.
func perSecond(f func()) float64 {
	began := time.Now()
	n := 0
	for ; time.Since(began) < time.Second/2; n++ {
		f()
	}
	return float64(n) / time.Since(began).Seconds()
}

// sign returns one RSA signature, as DKIM needs one a message.
func sign() func() {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	digest := sha256.Sum256([]byte("onward"))
	return func() { rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:]) }
}

// syncOnce returns one write and sync at the end of a file.
func (b *bench) syncOnce() func() {
	file, err := os.Create(filepath.Join(b.dir, "synced"))
	if err != nil {
		panic(err)
	}
	block := make([]byte, 4<<10)
	return func() {
		file.Write(block)
		file.Sync()
	}
}
