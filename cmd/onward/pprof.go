//go:build pprof

package main

import (
	"net/http"
	_ "net/http/pprof" // serves the profiles
)

// A daemon built with the tag pprof, as `make profile` does, shows its profiles
// to everybody on this machine. No other build has this.
func init() {
	go http.ListenAndServe("127.0.0.1:6060", nil)
}
