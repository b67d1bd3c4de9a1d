package dkim

import (
	"bytes"
	"math/big"
)

// parseRSA reads SEQUENCE { INTEGER, INTEGER } (RFC 8017 A.1.1), alone or in
// SEQUENCE { SEQUENCE { OID ... }, BIT STRING } (RFC 5280 4.1). It computes
// nothing. The standard library reads only one of the forms at a time, and
// takes a tenth of a whole verification for it.
func parseRSA(der []byte) (n *big.Int, e int, ok bool) {
	key := whole(der, derSequence)
	if algorithm, rest, ok := element(key, derSequence); ok {
		bits := whole(rest, derBitString)
		if !bytes.HasPrefix(algorithm, oidRSA) || !bytes.HasPrefix(bits, []byte{0}) {
			return nil, 0, false
		}
		key = whole(bits[1:], derSequence)
	}
	modulus, rest, _ := element(key, derInteger)
	exponent := whole(rest, derInteger)
	if len(modulus) == 0 || len(exponent) == 0 || len(exponent) > 4 || (modulus[0]|exponent[0])&0x80 != 0 {
		return nil, 0, false
	}
	for _, c := range exponent {
		e = e<<8 | int(c)
	}
	return new(big.Int).SetBytes(modulus), e, true
}

const (
	derInteger   = 0x02
	derBitString = 0x03
	derSequence  = 0x30
)

// oidRSA is rsaEncryption, 1.2.840.113549.1.1.1.
var oidRSA = []byte{0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1}

// whole returns the content of an element that is all of der, or nil.
func whole(der []byte, tag byte) []byte {
	content, rest, _ := element(der, tag)
	if len(rest) > 0 {
		return nil
	}
	return content
}

// element cuts the element with that tag off the beginning of der (X.690 8.1).
func element(der []byte, tag byte) (content, rest []byte, ok bool) {
	if len(der) < 2 || der[0] != tag {
		return nil, nil, false
	}
	size, der := int(der[1]), der[2:]
	if size >= 0x80 {
		octets := size - 0x80
		if octets < 1 || octets > 2 || len(der) < octets {
			return nil, nil, false
		}
		size = 0
		for _, c := range der[:octets] {
			size = size<<8 | int(c)
		}
		der = der[octets:]
	}
	if size > len(der) {
		return nil, nil, false
	}
	return der[:size], der[size:], true
}
