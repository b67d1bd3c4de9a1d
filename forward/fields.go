package forward

import (
	"bytes"
	"fmt"

	"onward/internal/message"
)

// fields composes what stands above the original bytes, in the order of
// DESIGN.md 4. Gmail asks forwarders for X-Forwarded-To and X-Forwarded-For
// (STANDARDS.md G5), each address on a line of its own so that none is longer
// than RFC 5322 2.1.1 wants. A bounce on its way back is not forwarded mail and
// gets our Received field alone (N5).
func fields(env *message.Envelope, d *delivery) []byte {
	var b bytes.Buffer
	if !d.recipients[0].SRS {
		fmt.Fprintf(&b, "X-Forwarded-To: %s\r\n", d.target)
		b.WriteString("X-Forwarded-For:")
		for _, recipient := range d.recipients {
			fmt.Fprintf(&b, " %s\r\n", recipient.Address)
		}
		fmt.Fprintf(&b, " %s\r\n", d.target)
	}
	b.Write(env.Trace)
	return b.Bytes()
}

// eightBit reports whether any octet is above 127.
func eightBit(p []byte) bool {
	return bytes.ContainsFunc(p, func(r rune) bool { return r > 127 })
}
