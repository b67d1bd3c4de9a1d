//go:build !linux

package doctor

// unsynchronised is known only on Linux.
func unsynchronised() bool { return false }
