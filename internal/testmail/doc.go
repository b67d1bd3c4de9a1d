// Package testmail is the rest of the world, on loopback: a DNS server that
// answers from a zone, a sink that plays the destination and says what its
// script or mood tells it, senders by the thousand, and an auditor who holds what
// they all know against what the daemon promises. Only tests and the demo import
// it.
//
// Everything here is a real server on a real socket, on a port of its own, and
// everything is gone when Close returns.
package testmail
