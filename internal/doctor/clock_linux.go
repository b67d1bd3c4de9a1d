package doctor

import "syscall"

// unsynchronised reports whether the kernel says that nobody sets the clock
// (adjtimex(2)). A container may not be allowed to ask.
func unsynchronised() bool {
	const staUnsync = 0x40
	var t syscall.Timex
	_, err := syscall.Adjtimex(&t)
	return err == nil && t.Status&staUnsync != 0
}
