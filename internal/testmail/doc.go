// Package testmail is the rest of the world, on loopback: a DNS server that
// answers from a zone, and a sink that plays the destination and says what its
// script tells it. Only tests and the demo import it.
//
// Everything here is a real server on a real socket, on a port of its own, and
// everything is gone when Close returns.
package testmail
